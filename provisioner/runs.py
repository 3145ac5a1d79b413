"""The operator's side of a run: its hosts and their outcomes, so that a later command can take the rest.

Files in $XDG_STATE_HOME/nixprov/runs (0700), one run each: RUN.jsonl, written as results come, and RUN.failed, names
for `--limit @FILE`. A convenience: the truth is on the hosts and at the provider. To lose all of this loses nothing.
Holds names, outcomes and the errors that were printed; never a variable of the inventory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from provisioner.errors import ConfigError
from provisioner.machine.journal import Run
from provisioner.outcome import HostResult, Outcome
from provisioner.paths import private

KEPT: Final = 50
LAST: Final = "last"
_VERSION: Final = 1
_ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{6}")


def directory() -> Path:
    """As the XDG Base Directory Specification says: a relative path in the variable is ignored."""
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "state") / "nixprov" / "runs"


@dataclass(slots=True)
class RunFile:
    """The record of a run, once it has begun. The first failure to write ends it: see `problem`."""

    folder: Path
    run: Run
    problem: str = ""
    _failed: list[str] = field(default_factory=list)
    _file: IO[str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def failed_file(self) -> Path:
        return self.folder / f"{self.run.id}.failed"

    @property
    def is_kept(self) -> bool:
        return self._file is not None and not self.problem

    def begin(self, hosts: Sequence[str]) -> None:
        """Write verb and hosts of the run, and drop the oldest runs."""
        head = {"version": _VERSION, "run": self.run.id, "verb": self.run.verb, "by": self.run.by, "at": self.run.at}
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _drop_old(self.folder)
            self._file = private(self.folder / f"{self.run.id}.jsonl")
        except OSError as error:
            self._lost(error)
        self._write({**head, "hosts": list(hosts)})

    def record(self, result: HostResult) -> None:
        if not result.outcome.is_good and result.outcome is not Outcome.SKIPPED:
            self._failed.append(result.host)
        said = {"host": result.host, "outcome": result.outcome.value, "seconds": round(result.seconds, 3)}
        self._write({**said, **({"error": result.error} if result.error else {})})

    def end(self, code: int) -> Path | None:
        """Close; gives the file of the hosts that failed, if any did and it could be written."""
        self._write({"exit_code": code})
        if self._file is None:
            return None
        try:
            # Writes that failed on a full disk are tried once more here.
            self._file.close()
        except OSError as error:
            self._lost(error)
        if not self._failed:
            return None
        try:
            with private(self.failed_file) as file:
                file.write(f"# nixprov {self.run.verb}, run {self.run.id}: the hosts that failed\n")
                file.writelines(f"{host}\n" for host in self._failed)
        except OSError as error:
            self._lost(error)
            return None
        return self.failed_file

    def _write(self, line: Mapping[str, object]) -> None:
        with self._lock:
            if self._file is None or self.problem:
                return
            try:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
            except OSError as error:
                self._lost(error)

    def _lost(self, error: OSError) -> None:
        self.problem = f"this run is not recorded for --resume: {self.folder}: {error.strerror}"


@dataclass(frozen=True, slots=True)
class PastRun:
    """An earlier run as recorded.

    `left` are the hosts that did not end well or never began, in its order.
    """

    id: str
    verb: str
    hosts: tuple[str, ...]
    done: frozenset[str]

    @property
    def left(self) -> tuple[str, ...]:
        return tuple(host for host in self.hosts if host not in self.done)


def load(name: str, folder: Path | None = None) -> PastRun:
    """Read a run by its id, or the `last` one.

    Raises ConfigError: there is none, or its file is not one of ours.
    """
    folder = folder or directory()
    known = _ids(folder)
    run_id = known[-1] if name == LAST and known else name
    if run_id not in known:
        hint = f"the newest is {known[-1]}" if known else "without --resume, hosts that are done cost one command each"
        raise ConfigError(f"there is no record of a run {name} in {folder}", hint=hint)
    file = folder / f"{run_id}.jsonl"
    try:
        return _parse(run_id, file.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the record of run {run_id} cannot be read: {file}", hint="run without --resume") from error


def _parse(run_id: str, lines: Iterable[str]) -> PastRun:
    head, *rest = (_line(line) for line in lines)
    if head is None or head["version"] != _VERSION:
        raise ValueError(f"not of version {_VERSION}")
    last = {entry["host"]: Outcome(entry["outcome"]) for entry in rest if entry and "host" in entry}
    done = frozenset(host for host, outcome in last.items() if outcome.is_good)
    return PastRun(run_id, str(head["verb"]), tuple(map(str, head["hosts"])), done)


def _line(text: str) -> dict[str, Any] | None:
    """None for a line that a power cut left half written: its host counts as not done."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _ids(folder: Path) -> list[str]:
    """Ids begin with the time, so their order is that of the runs."""
    return sorted(path.stem for path in folder.glob("*.jsonl") if _ID.fullmatch(path.stem))


def _drop_old(folder: Path) -> None:
    for run_id in _ids(folder)[: -(KEPT - 1)]:
        for suffix in ("jsonl", "failed"):
            with contextlib.suppress(FileNotFoundError):  # by another run at this moment
                (folder / f"{run_id}.{suffix}").unlink()
