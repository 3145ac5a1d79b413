"""Proof that a runner works: GitLab was asked for jobs by it since it was set up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.engine.host import Host
from provisioner.engine.switch import Switch
from provisioner.errors import ForgeUnavailable
from provisioner.machine.journal import RunnerRecord
from provisioner.model import RunnerStatus


@dataclass(slots=True)
class Contact:
    """Which runners have not asked GitLab for jobs yet; `silence`: why GitLab does not tell us just now."""

    host: Host
    waiting: dict[str, RunnerRecord]
    silence: ForgeUnavailable | None = None

    def within(self, limit_s: float) -> bool:
        return self.host.machine.wait_until(limit_s, self._all_seen)

    def _all_seen(self) -> bool:
        """Drop from `waiting` those that have asked; that GitLab does not answer us is no verdict.

        A manager is online only after that: verifying a token sets its time of contact too, and leaves it "never
        contacted" (app/models/ci/runner_manager.rb). It is proof for a runner made in this run; an older one may have
        been online before, and its times cannot be compared with now: GitLab writes them down every 40 to 55 minutes.
        """
        forge = self.host.context.forge
        try:
            for name, record in list(self.waiting.items()):
                if any(manager.status is RunnerStatus.ONLINE for manager in forge.managers(record.id)):
                    del self.waiting[name]
            self.silence = None
        except ForgeUnavailable as error:
            self.silence = error
        return not self.waiting

    def require_active(self, units: Sequence[str]) -> None:
        """Raises SwitchFailed with a unit's last lines, which explain it better than that nobody polled.

        That GitLab does not answer us says nothing of the unit, which the host may have stopped again by now.
        """
        if self.silence is None:
            Switch(self.host.machine).require_active(units)

    def failure(self, units: Sequence[str]) -> ForgeUnavailable:
        self.require_active(units)
        names, context = ", ".join(sorted(self.waiting)), self.host.context
        return self.silence or ForgeUnavailable(
            f"GitLab at {context.forge.url} was not polled by runner {names} within {context.limits.contact_s:g} s",
            hint=f"can the host reach it? see journalctl -u {units[0]}",
        )
