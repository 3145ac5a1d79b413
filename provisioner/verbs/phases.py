"""A verb's phases as a table, and the one way through it: look, change, unwind what failed, finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import getdoc
from typing import Final

from provisioner.engine.host import Host
from provisioner.engine.switch import Detached, DetachedByUser
from provisioner.engine.unwind import RolledBack
from provisioner.engine.withdraw import withdraw_unused
from provisioner.errors import Locked, NixprovError


@dataclass(frozen=True, slots=True)
class Phase:
    """One row, told by its name. `when`: None is always. `commands`: the remote ones of an ordinary run."""

    name: str
    do: Callable[[Host], None]
    when: Callable[[Host], bool] | None = None
    commands: int = 0

    def enter(self, host: Host) -> None:
        if self.when is None or self.when(host):
            host.context.enter(self.name)
            self.do(host)

    @property
    def about(self) -> str:
        """The first paragraph of the function's docstring, on one line."""
        return " ".join((getdoc(self.do) or "").partition("\n\n")[0].split()).removesuffix(".")


class Look(Phase):
    """Changes nothing. A plan is made of these alone."""


class Change(Phase):
    """Changes something. A failure from the first of these on leads to the row of Unwind."""


class Unwind(Phase):
    """Entered when a change has failed, and only then."""


class Finish(Phase):
    """Entered when the host is as wanted. A failure is said, and nothing is unwound."""


class Phases:
    """A table of phases. Bound late, so that it can stand above the functions that it names."""

    def __init__(self, rows: Callable[[], tuple[Phase, ...]]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Phase]:
        return iter(self._rows())

    @property
    def looks(self) -> Phases:
        return Phases(lambda: tuple(phase for phase in self if isinstance(phase, Look)))

    def look(self, host: Host) -> None:
        """Find out what there is, and what would change. Raises HostError, CiError."""
        self._enter(Look, host)

    def change(self, host: Host) -> None:
        """Make the host's plan true, or the host as it was.

        Raises RolledBack with the cause, RollbackFailed, Locked when another run took the host over, and what a phase
        raised before the first change.
        """
        try:
            self._enter(Change, host)
        except (Detached, DetachedByUser):
            raise  # the switch goes on without us
        except Locked:
            withdraw_unused(host)
            raise
        except NixprovError as error:
            self._enter(Unwind, host)
            if not host.ledger.has_changes:
                raise
            raise RolledBack(host.name, error) from error
        self._enter(Finish, host)

    def _enter(self, kind: type[Phase], host: Host) -> None:
        for phase in self:
            if isinstance(phase, kind):
                phase.enter(host)


_HEAD: Final = "| phase | remote commands | what happens |\n|---|---|---|\n"


def table(phases: Phases) -> str:
    """The phases as a table of Markdown (docs/architecture.md)."""
    return _HEAD + "".join(f"| {one.name} | {one.commands or ''} | {one.about} |\n" for one in phases)
