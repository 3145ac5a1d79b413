"""A file a host with all that was said of it: phases, the whole log of build and switch, how it ended."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import quote

from provisioner.events import Event, HostResult
from provisioner.paths import private
from provisioner.report.record import RunRecord
from provisioner.report.wording import clean


@dataclass(slots=True)
class HostLogs:
    """Writes `folder`/HOST.log as things happen; `folder` must exist. A full disk ends the log, not the run."""

    folder: Path
    record: RunRecord
    _files: dict[str, IO[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def path(self, host: str) -> Path:
        """No name of a host leads out of the folder."""
        return self.folder / f"{quote(host, safe='', errors='backslashreplace')}.log"

    def event(self, event: Event) -> None:
        line = _line(event)
        if line and event.host:
            with self._lock, suppress(OSError):
                self._file(event.host).write(f"{self.record.now_s:8.1f}  {clean(line)}\n")
                if event.kind == "host":
                    self._files.pop(event.host).close()

    def summary(self, _fields: Mapping[str, object]) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            while self._files:
                with suppress(OSError):
                    self._files.popitem()[1].close()

    def _file(self, host: str) -> IO[str]:
        if host not in self._files:
            self._files[host] = private(self.path(host))
        return self._files[host]


def _line(event: Event) -> str:
    match event.kind:
        case "phase":
            return f"== {event.fields['phase']}"
        case "log":
            return str(event.fields["text"])
        case "warning":
            return f"warning: {event.fields['text']}"
        case "host":
            return _ended(event.fields["result"])
        case _:
            return ""


def _ended(result: object) -> str:
    assert isinstance(result, HostResult)  # noqa: S101 - narrows for mypy
    return "; ".join(
        text for text in (f"== {result.outcome.value}", result.error, *result.remains, result.hint) if text
    )
