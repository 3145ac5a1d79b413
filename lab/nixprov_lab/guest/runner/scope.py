"""Time and cancellation of a job and its parts, handed down from the job to each stage."""

from __future__ import annotations

import threading
import time
from enum import Enum

from .errors import Cancelled


class Ending(Enum):
    CANCELED = "canceled"
    TIMEOUT = "timeout"


class Scope:
    """Ends when it is cancelled, at the end of its time or of its parent. `seconds` None: as long as the parent."""

    def __init__(self, seconds: float | None = None, parent: Scope | None = None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._parent = parent
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def ending(self) -> Ending | None:
        """The reason of its end, or None while it goes on. Its own cancellation comes before its parent's end."""
        if self._cancelled.is_set():
            return Ending.CANCELED
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return Ending.TIMEOUT
        return self._parent.ending if self._parent else None

    def check(self) -> None:
        """Raise Cancelled if it has ended."""
        if self.ending is not None:
            raise Cancelled(self.ending.value)

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than the scope lasts. Raises Cancelled."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            self._cancelled.wait(min(left, 0.2))
        self.check()
