"""The host's book of jobs (templates/core/counters.py), as values: the work of Nix for each job. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

FILE: Final = "/var/lib/nixprov-counters/jobs.json"
VERSION: Final = 1
# In bytes; many times the limit of the book's writer.
LIMIT: Final = 1 << 18

# The book is the host's own; no probe fails for want of one.
PROBE: Final = f"{{ head -c {LIMIT} {FILE} 2>/dev/null; }} | say counters\n"


@dataclass(frozen=True, slots=True)
class Counts:
    """The work of Nix for one job, or for all.

    `built` counts derivations; `found` counts paths and derivations that a job asked for and that were there. `size` is
    that of the built paths, in bytes, as Nix archives.
    """

    built: int
    found: int
    size: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Counts:
        return cls(int(document["built"]), int(document["found"]), int(document["bytes"]))


@dataclass(frozen=True, slots=True)
class JobCount:
    """`seconds` from the job's first container to the end of its last; None while it runs."""

    runner: str
    job: int
    project: int | None
    started: datetime
    seconds: float | None
    counts: Counts


@dataclass(frozen=True, slots=True)
class Counters:
    """All jobs since the runners came (`since`), and the last ones, oldest first."""

    since: datetime
    jobs: int
    seconds: float
    counts: Counts
    last: tuple[JobCount, ...]

    @classmethod
    def parse(cls, text: str) -> Counters | None:
        """Return None without a book, and for an unknown format: the counts are the host's word, and only news."""
        try:
            document = json.loads(text)
            if document["version"] != VERSION:
                return None
            totals = document["totals"]
            return cls(
                _time(document["since"]),
                int(totals["jobs"]),
                _seconds(totals["seconds"]),
                Counts.of(totals),
                tuple(map(_job, document["jobs"])),
            )
        except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
            return None


def _job(document: Mapping[str, Any]) -> JobCount:
    return JobCount(
        str(document["runner"]),
        int(document["job"]),
        None if document["project"] is None else int(document["project"]),
        _time(document["started"]),
        None if document["running"] else _seconds(document["seconds"]),
        Counts.of(document),
    )


def _time(value: object) -> datetime:
    return datetime.fromtimestamp(_seconds(value), UTC)


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(value)
    return float(value)
