"""Before a runner is stopped: no new jobs, and those that run are given time to finish."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from provisioner.engine import crash
from provisioner.engine.host import Context, Host
from provisioner.errors import ForgeUnavailable, HostError
from provisioner.events import Draining


class StillBusy(HostError):
    """Jobs run longer than the operator wants to wait."""


def drain(host: Host, runners: Sequence[int]) -> None:
    """Pause `runners` and wait for zero jobs; SIGQUIT alone can lose one that GitLab has just handed out.

    Raises StillBusy when the limit is over, Cancelled. With GitLab down the unit itself finishes its jobs as it stops.
    """
    context = host.context
    try:
        there = [runner for runner in runners if context.forge.get(runner) is not None]
        for runner in there:
            with crash.around("pause"):
                context.forge.set_paused(runner, paused=True)
        if context.choices.force:
            context.warn("--force: jobs that run now are ended")
            return
        with crash.around("drain"):
            _wait(host, there)
    except ForgeUnavailable as error:
        context.warn(f"not drained: {error.message}; the unit itself finishes its jobs when it stops")


def _wait(host: Host, runners: Sequence[int]) -> None:
    jobs, limit_s = _Jobs(host.context, runners), host.context.limits.drain_s
    if not host.machine.wait_until(limit_s, jobs.are_done):
        if jobs.silence and not jobs.running:
            raise jobs.silence
        raise StillBusy(
            host.name,
            f"{jobs.running} jobs still run after {limit_s:g} s; the runner takes jobs again",
            hint="wait longer with --drain-limit, or end them with --force",
        )


@dataclass(slots=True)
class _Jobs:
    """How many were `running` when GitLab last said so; `silence`: why it does not just now."""

    context: Context
    runners: Sequence[int]
    running: int = 0
    silence: ForgeUnavailable | None = None
    heard_at: float = field(default_factory=time.monotonic)

    def are_done(self) -> bool:
        """A GitLab that is restarted in the hours this may take is waited for. Raises ForgeUnavailable at length."""
        try:
            jobs = sum(map(self.context.forge.running_jobs, self.runners))
        except ForgeUnavailable as error:
            self.silence = error
            if time.monotonic() - self.heard_at > self.context.limits.contact_s:
                raise
            return False
        if jobs and jobs != self.running:
            self.context.emit(Draining(self.context.host, jobs, self.context.limits.drain_s))
        self.running, self.silence, self.heard_at = jobs, None, time.monotonic()
        return jobs == 0
