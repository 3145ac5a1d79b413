"""A file for each host with everything about it: phases, the whole log of build and switch, the end."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import quote

from provisioner.events import Event, HostDone, HostEvent, Logged, PhaseBegun, RunDone, Warned
from provisioner.outcome import HostResult
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
        if isinstance(event, RunDone):
            self.close()
        elif isinstance(event, HostEvent) and event.host and (line := _line(event, self.record)):
            with self._lock, suppress(OSError):
                self._file(event.host).write(f"{self.record.now_s:8.1f}  {clean(line)}\n")
                if isinstance(event, HostDone):
                    self._files.pop(event.host).close()

    def close(self) -> None:
        with self._lock:
            while self._files:
                with suppress(OSError):
                    self._files.popitem()[1].close()

    def _file(self, host: str) -> IO[str]:
        if host not in self._files:
            self._files[host] = private(self.path(host))
        return self._files[host]


def _line(event: HostEvent, record: RunRecord) -> str:
    match event:
        case PhaseBegun(phase=phase):
            return f"== {phase}"
        case Logged(text=text):
            return text
        case Warned(text=text):
            return f"warning: {text}"
        case HostDone(result=result):
            return _ended(result, record.word(result.outcome))
        case _:
            return ""


def _ended(result: HostResult, word: str) -> str:
    return "; ".join(text for text in (f"== {word}", result.error, *result.remains, result.hint) if text)
