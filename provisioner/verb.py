"""A person's request to hosts, as a value: callers ask for its meaning, never for its spelling."""

from __future__ import annotations

from enum import Enum


class Verb(Enum):
    """The value is the word in events, journals and records; people type PLAN_DOWN as `nixprov down --check`."""

    UP = "up"
    DOWN = "down"
    PLAN = "plan"
    PLAN_DOWN = "plan down"
    STATUS = "status"

    @property
    def changes(self) -> bool:
        """It takes the host's lock, ends the switch of a dead run, rolls out in batches, and leaves a record."""
        return self is self.applied

    @property
    def removes(self) -> bool:
        """It leads out of CI: its switch is to the system without our module. It works without the CI server."""
        return self.applied is Verb.DOWN

    @property
    def plans(self) -> bool:
        return self in (Verb.PLAN, Verb.PLAN_DOWN)

    @property
    def command(self) -> str:
        """The typed word, with `flags` after the hosts."""
        return self.applied.value if self.flags else self.value

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--check",) if self is Verb.PLAN_DOWN else ()

    @property
    def applied(self) -> Verb:
        """The verb that applies this one's findings: `up` also for `status`, whose drift is named against it."""
        return Verb.DOWN if self in (Verb.DOWN, Verb.PLAN_DOWN) else Verb.UP
