"""How a host ended, and the process' exit status for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The end of a host. SKIPPED: never begun, because too many others had failed.

    NOT_DESCRIBED: its configuration does not describe its system, so nothing was changed.
    """

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    UNREACHABLE = "unreachable"
    NOT_DESCRIBED = "not described"
    FAILED = "failed"
    CI = "gitlab"
    ROLLED_BACK = "rolled back"
    ROLLBACK_FAILED = "rollback failed"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"

    @property
    def is_good(self) -> bool:
        return self in (Outcome.UNCHANGED, Outcome.CHANGED)

    @property
    def is_failure(self) -> bool:
        """Neither good nor unreachable, for a host that was begun."""
        return not (self.is_good or self in (Outcome.UNREACHABLE, Outcome.SKIPPED))


@dataclass(frozen=True, slots=True)
class HostResult:
    """The end of one host: `error` and `hint` are lines for people, `remains` the things that could not be undone."""

    host: str
    outcome: Outcome
    seconds: float
    remote_commands: int = 0
    connections: int = 0
    error: str = ""
    hint: str = ""
    remains: tuple[str, ...] = ()


def exit_code(results: Sequence[HostResult]) -> int:
    """The process' exit status (docs/exit-codes.md)."""
    skipped = any(result.outcome is Outcome.SKIPPED for result in results)
    bad = [result.outcome for result in results if not result.outcome.is_good and result.outcome is not Outcome.SKIPPED]
    if not bad:
        return 4 if skipped else 0
    for outcome, code in (
        (Outcome.INTERRUPTED, 130),
        (Outcome.ROLLBACK_FAILED, 8),
    ):
        if outcome in bad:
            return code
    for outcome, code in (
        (Outcome.UNREACHABLE, 6),
        (Outcome.ROLLED_BACK, 7),
        (Outcome.CI, 9),
        (Outcome.NOT_DESCRIBED, 10),
    ):
        if set(bad) == {outcome}:
            return code
    return 5 if len(bad) == len(results) else 4
