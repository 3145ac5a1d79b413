"""What an attack is, and what became of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Door(enum.Enum):
    """Which way to Nix the jobs have."""

    PLAIN = "plain"
    OURS = "ours"


class Outcome(enum.Enum):
    OPEN = "OPEN"
    CLOSED = "closed"


@dataclass(frozen=True)
class Case:
    """One attack. All texts are shell; in each, `$stamp` names this run and the variables that `prepare` printed are set.

    `prepare` is run by root on the host before and prints lines NAME=VALUE. `job` is the script of the CI job. The
    attack worked when `marker` stands alone on a line of the job's trace, or, without a marker, when `seen`, run by
    root on the host after the job, ends with 0. `plain` is what must come of it with the plain daemon's socket, which
    shows that the case works; of one that fails there too `tried`, a pattern, finds in the trace at what it failed.
    `inherent` says why it stays open for everybody who shares a store.
    """

    name: str
    job: str
    plain: Outcome = Outcome.OPEN
    prepare: str = ""
    marker: str = ""
    seen: str = ""
    tried: str = ""
    inherent: str = ""
    disturbs: bool = False

    def __post_init__(self) -> None:
        assert bool(self.marker) != bool(self.seen), f"{self.name}: either a marker or a look at the host"
        assert self.tried or self.plain is Outcome.OPEN, f"{self.name}: nothing would tell that it was tried"

    @property
    def ours(self) -> Outcome:
        """What must come of it with the socket that our module gives to jobs."""
        return Outcome.OPEN if self.inherent else Outcome.CLOSED


@dataclass(frozen=True)
class Result:
    case: Case
    door: Door
    outcome: Outcome
    seconds: float
    trace: str

    @property
    def wanted(self) -> Outcome:
        return self.case.plain if self.door is Door.PLAIN else self.case.ours
