"""GitLab's clock, which tests move: statuses depend on hours and days that no test waits for."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Wall time plus an offset; every time stamp of the server comes from here."""

    def __init__(self) -> None:
        self._offset_s = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self._offset_s

    def advance(self, seconds: float) -> None:
        self._offset_s += seconds

    def set(self, epoch_s: float) -> None:
        self._offset_s = epoch_s - time.time()


def iso(epoch_s: float) -> str:
    """GitLab's time format: `2026-01-31T12:00:00.000Z`."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def optional_iso(epoch_s: float | None) -> str | None:
    return None if epoch_s is None else iso(epoch_s)
