"""Simulated time: a pause of the program moves it at once, and the events due by then happen."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

EPOCH: Final = 1_700_000_000


@dataclass
class Clock:
    """Seconds since the world began. A dead operator's thread has a time of its own: it waits, and nothing else moves.

    Each change of the world holds `lock`, because the hosts of a run have a thread each.
    """

    now: float = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    # A field's default takes hold of the real clock before this one is installed. It gets no time far from ours.
    _begun: float = field(default_factory=time.monotonic)
    _own: threading.local = field(default_factory=threading.local)

    def monotonic(self) -> float:
        return self._begun + self.now + getattr(self._own, "seconds", 0.0)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        with self.lock:
            heapq.heappush(self._due, (self.now + seconds, next(self._numbers), action))

    def advance(self, seconds: float) -> None:
        if hasattr(self._own, "seconds"):
            self._own.seconds += seconds
            return
        with self.lock:
            end = self.now + max(seconds, 0.0)
            while self._due and self._due[0][0] <= end:
                self.now, _, action = heapq.heappop(self._due)
                action()
            self.now = max(self.now, end)

    def leave(self) -> None:
        """From now on no pause of this thread moves the world."""
        self._own.seconds = 0.0

    @property
    def epoch(self) -> int:
        """Seconds since 1970, as file times have them."""
        return EPOCH + int(self.now)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """`time.monotonic`, `time.sleep` and every wait for an event with a limit go by this clock.

        Waits without a limit, and those of queues and joins, are of threads among themselves and stay real.
        """
        waits = threading.Event.wait

        def wait(event: threading.Event, timeout: float | None = None) -> bool:
            if timeout is None or event.is_set():
                return waits(event, timeout)
            self.advance(timeout)
            return event.is_set()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "monotonic", self.monotonic)
            patch.setattr(time, "sleep", self.advance)
            patch.setattr(threading.Event, "wait", wait)
            yield
