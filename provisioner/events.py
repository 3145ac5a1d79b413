"""What happens during a run, as values: the engine emits them, report shows them. Never holds a secret."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class Outcome(Enum):
    """How a host ended. SKIPPED: never begun, because too many others had failed.

    NOT_DESCRIBED: its system is not what its configuration describes, so nothing was changed.
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


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; `kind` and the fields are documented in docs/json.md."""

    kind: str
    host: str = ""
    fields: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


Emit = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class HostResult:
    """The end of one host: `error` and `hint` are lines for people, `remains` what could not be undone."""

    host: str
    outcome: Outcome
    seconds: float
    remote_commands: int = 0
    connections: int = 0
    error: str = ""
    hint: str = ""
    remains: tuple[str, ...] = ()


def exit_code(results: Sequence[HostResult]) -> int:
    """The process' exit status, as docs/exit-codes.md says."""
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


_FAILED = (
    *(Outcome.NOT_DESCRIBED, Outcome.FAILED, Outcome.CI),
    *(Outcome.ROLLED_BACK, Outcome.ROLLBACK_FAILED, Outcome.INTERRUPTED),
)


def summary(results: Sequence[HostResult], gitlab_writes: int, seconds: float) -> Mapping[str, object]:
    """The `summary` event's fields (docs/json.md); `failed`: neither good, unreachable nor skipped."""
    outcomes = Counter(result.outcome for result in results)
    return {
        "hosts": len(results),
        "changed": outcomes[Outcome.CHANGED],
        "unchanged": outcomes[Outcome.UNCHANGED],
        "failed": sum(outcomes[outcome] for outcome in _FAILED),
        "unreachable": outcomes[Outcome.UNREACHABLE],
        "skipped": outcomes[Outcome.SKIPPED],
        "rolled_back": outcomes[Outcome.ROLLED_BACK],
        "remote_commands": sum(result.remote_commands for result in results),
        "connections": sum(result.connections for result in results),
        "gitlab_writes": gitlab_writes,
        "seconds": round(seconds, 3),
        "exit_code": exit_code(results),
    }
