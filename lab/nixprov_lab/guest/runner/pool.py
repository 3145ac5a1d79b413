"""The number of running jobs, their slots, and the runners that may ask (gitlab-runner's builds and health helpers)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .build import Slot
from .config import RunnerConfig
from .log import Log


@dataclass
class _Count:
    jobs: int = 0
    requests: int = 0
    slots: dict[Slot, int] = field(default_factory=dict)


class Pool:
    """The counts, by runner token; safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._counts: dict[str, _Count] = {}
        self._workers = 0

    def enter(self, concurrent: Callable[[], int], stopped: Callable[[], bool]) -> bool:
        """Wait for a free worker; False: stopped before there was one."""
        with self._changed:
            while not stopped():
                if self._workers < concurrent():
                    self._workers += 1
                    return True
                self._changed.wait(0.2)
        return False

    def try_enter(self, concurrent: int) -> bool:
        with self._changed:
            if self._workers >= concurrent:
                return False
            self._workers += 1
            return True

    def leave(self) -> None:
        with self._changed:
            self._workers -= 1
            self._changed.notify_all()

    def wait_empty(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._workers == 0, seconds)

    @property
    def workers(self) -> int:
        with self._changed:
            return self._workers

    def begin_request(self, runner: RunnerConfig) -> bool:
        """Take room for one more job and one more request of this runner; False when there is none."""
        with self._changed:
            count = self._counts.setdefault(runner.token, _Count())
            if 0 < runner.limit <= count.jobs or count.requests >= max(1, runner.request_concurrency):
                return False
            count.jobs += 1
            count.requests += 1
            return True

    def end_request(self, runner: RunnerConfig) -> None:
        with self._changed:
            self._counts[runner.token].requests -= 1

    def end_job(self, runner: RunnerConfig) -> None:
        with self._changed:
            self._counts[runner.token].jobs -= 1

    def take_slot(self, runner: RunnerConfig, project: int) -> Slot:
        with self._changed:
            used = self._counts[runner.token].slots
            numbers = {slot.runner for slot in used}
            in_project = {slot.project for slot, owner in used.items() if owner == project}
            slot = Slot(_first_free(numbers), _first_free(in_project))
            used[slot] = project
            return slot

    def free_slot(self, runner: RunnerConfig, slot: Slot) -> None:
        with self._changed:
            del self._counts[runner.token].slots[slot]


def _first_free(used: set[int]) -> int:
    return next(number for number in range(len(used) + 1) if number not in used)


class Health:
    """Pauses a runner for an hour after three refused requests in a row (both can be set)."""

    def __init__(self, own_log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = own_log
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._checked: dict[str, float] = {}

    def may_ask(self, runner: RunnerConfig) -> bool:
        key = runner.url + runner.token
        with self._lock:
            if self._failures.get(key, 0) < max(1, runner.unhealthy_requests_limit):
                return True
            if self._clock() - self._checked.get(key, 0.0) <= runner.unhealthy_seconds:
                return False
            self._failures[key] = 0
            self._checked[key] = self._clock()
        self._log.warning("Runner is not healthy, but check for a new job will be forced!", runner=runner.short_token)
        return True

    def note(self, runner: RunnerConfig, *, healthy: bool) -> None:
        key = runner.url + runner.token
        with self._lock:
            if healthy or key not in self._checked:
                self._checked[key] = self._clock()
            failures = 0 if healthy else self._failures.get(key, 0) + 1
            self._failures[key] = failures
        if failures >= max(1, runner.unhealthy_requests_limit):
            seconds = f"{runner.unhealthy_seconds:.0f}"
            self._log.error(
                f"Runner is unhealthy and will be disabled for {seconds} seconds!", runner=runner.short_token
            )
