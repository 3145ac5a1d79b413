"""Remembers a run's listings, so that a thousand hosts cost one; several threads share it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from provisioner.ci.gitlab.values import Runner
from provisioner.model import RunnerType

Key = tuple[RunnerType, str | None]
Load = Callable[[], Iterable[Runner]]


@dataclass(slots=True)
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    runners: dict[int, Runner] | None = None


class Listings:
    """Runners by (type, owner). One thread lists, the others wait for it; a failed listing is tried again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[Key, _Entry] = {}

    def get(self, key: Key, load: Load) -> tuple[Runner, ...]:
        entry = self._entry(key)
        with entry.lock:
            if entry.runners is None:
                entry.runners = {runner.id: runner for runner in load()}
            return tuple(entry.runners.values())

    def reload(self, key: Key, load: Load) -> tuple[Runner, ...]:
        """List again, remembered or not."""
        entry = self._entry(key)
        with entry.lock:
            entry.runners = {runner.id: runner for runner in load()}
            return tuple(entry.runners.values())

    def known_ids(self, key: Key) -> frozenset[int]:
        entry = self._entry(key)
        with entry.lock:
            return frozenset(entry.runners or ())

    def add(self, key: Key, runner: Runner) -> None:
        """Note a new runner, if its list is remembered."""
        entry = self._entry(key)
        with entry.lock:
            if entry.runners is not None:
                entry.runners[runner.id] = runner

    def replace(self, runner: Runner) -> None:
        for entry in self._all():
            with entry.lock:
                if entry.runners is not None and runner.id in entry.runners:
                    entry.runners[runner.id] = runner

    def remove(self, runner_id: int) -> None:
        for entry in self._all():
            with entry.lock:
                if entry.runners is not None:
                    entry.runners.pop(runner_id, None)

    def _entry(self, key: Key) -> _Entry:
        with self._lock:
            return self._entries.setdefault(key, _Entry())

    def _all(self) -> tuple[_Entry, ...]:
        with self._lock:
            return tuple(self._entries.values())
