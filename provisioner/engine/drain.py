"""Before a runner is stopped: no new jobs, and those that run are given time to finish."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from provisioner.engine import crash
from provisioner.engine.host import Context, Host
from provisioner.errors import CiUnavailable, HostError
from provisioner.events import Draining
from provisioner.model import Identity


class StillBusy(HostError):
    """Jobs run longer than the operator wants to wait."""


def drain(host: Host, runners: Sequence[Identity]) -> None:
    """Have `runners` get no more jobs, and wait for zero.

    Raises StillBusy when the limit is over, Cancelled. With the provider down the unit itself finishes its jobs as it
    stops.
    """
    context = host.context
    try:
        busy = [runner for runner in runners if _quiesce(context, runner)]
        if context.choices.force:
            context.warn("--force: jobs that run now are ended")
            return
        with crash.around("drain"):
            _wait(host, busy)
    except CiUnavailable as error:
        context.warn(f"not drained: {error.message}; the unit itself finishes its jobs when it stops")


def _quiesce(context: Context, runner: Identity) -> bool:
    with crash.around("pause"):
        return context.ci.quiesce(runner)


def _wait(host: Host, runners: Sequence[Identity]) -> None:
    jobs, limit_s = _Jobs(host.context, runners), host.context.limits.drain_s
    if not host.machine.wait_until(limit_s, jobs.are_done):
        if jobs.silence and not jobs.running:
            raise jobs.silence
        raise StillBusy(
            host.name,
            f"{jobs.running} jobs still run after {limit_s:g} s; the {host.context.words.runner} takes jobs again",
            hint="wait longer with --drain-limit, or end them with --force",
        )


@dataclass(slots=True)
class _Jobs:
    """How many were `running` when the provider last said so; `silence`: why it does not just now."""

    context: Context
    runners: Sequence[Identity]
    running: int = 0
    silence: CiUnavailable | None = None
    heard_at: float = field(default_factory=time.monotonic)

    def are_done(self) -> bool:
        """A provider that is restarted in the hours this may take is waited for. Raises CiUnavailable at length."""
        try:
            jobs = sum(map(self.context.ci.running_jobs, self.runners))
        except CiUnavailable as error:
            self.silence = error
            if time.monotonic() - self.heard_at > self.context.limits.contact_s:
                raise
            return False
        if jobs and jobs != self.running:
            self.context.emit(Draining(self.context.host, jobs, self.context.limits.drain_s))
        self.running, self.silence, self.heard_at = jobs, None, time.monotonic()
        return jobs == 0
