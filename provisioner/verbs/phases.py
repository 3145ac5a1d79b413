"""A verb's phases as a table, and the one way through it: look, change, unwind a failure, finish."""

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
    """One row, reported by its name. `when`: None is always. `commands`: remote ones of an ordinary run."""

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
    """Changes nothing for this run: a plan is made of these alone. Only `settle` ends a dead run's switch."""


class Change(Phase):
    """Changes something. A failure from the first of these on leads to Unwind."""


class Unwind(Phase):
    """Entered only after a failed change."""


class Finish(Phase):
    """Entered when the host is as wanted. Its failure is reported, and nothing is unwound."""


class Phases:
    """A table of phases. Bound late, so that it can stand above its functions."""

    def __init__(self, rows: Callable[[], tuple[Phase, ...]]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Phase]:
        return iter(self._rows())

    @property
    def looks(self) -> Phases:
        return Phases(lambda: tuple(phase for phase in self if isinstance(phase, Look)))

    def look(self, host: Host) -> None:
        """Do the looks: the host's state, and the changes to come. Raises HostError, CiError."""
        self._enter(Look, host)

    def change(self, host: Host) -> None:
        """Apply the host's plan, or unwind it.

        Raises RolledBack with the cause, RollbackFailed, or Locked when another run took the host over. An error before
        the first change is raised as it is.
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


_HEAD: Final = "| phase | remote commands | action |\n|---|---|---|\n"


def table(phases: Phases) -> str:
    """The phases as a table of Markdown (docs/architecture.md)."""
    return _HEAD + "".join(f"| {one.name} | {one.commands or ''} | {one.about} |\n" for one in phases)
