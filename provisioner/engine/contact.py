"""Proof that a runner works: the provider was asked for jobs by it since it was set up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.engine.host import Host
from provisioner.engine.switch import Switch
from provisioner.errors import CiUnavailable
from provisioner.machine.journal import RunnerRecord


@dataclass(slots=True)
class Contact:
    """Which runners have not asked for jobs yet; `silence`: why the provider does not tell us just now."""

    host: Host
    waiting: dict[str, RunnerRecord]
    silence: CiUnavailable | None = None

    def within(self, limit_s: float) -> bool:
        return self.host.machine.wait_until(limit_s, self._all_seen)

    def _all_seen(self) -> bool:
        """Drop from `waiting` those that have asked; that the provider does not answer us is no verdict."""
        try:
            for name, record in list(self.waiting.items()):
                if self.host.context.ci.confirm(record.id):
                    del self.waiting[name]
            self.silence = None
        except CiUnavailable as error:
            self.silence = error
        return not self.waiting

    def require_active(self, units: Sequence[str]) -> None:
        """Raises SwitchFailed with a unit's last lines, which explain it better than that nobody polled.

        That the provider does not answer us says nothing of the unit, which the host may have stopped again by now.
        """
        if self.silence is None:
            Switch(self.host.machine).require_active(units)

    def failure(self, units: Sequence[str]) -> CiUnavailable:
        self.require_active(units)
        names, context = ", ".join(sorted(self.waiting)), self.host.context
        server = context.ci.server
        return self.silence or CiUnavailable(
            f"{server.words.name} at {server.url} was not polled by {server.words.runner} {names}"
            f" within {context.limits.contact_s:g} s",
            hint=f"can the host reach it? see journalctl -u {units[0]}",
        )
