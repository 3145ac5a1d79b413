"""Draining before a runner is stopped: it gets no new jobs, and running ones get time to finish."""

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
    """Jobs run longer than the operator's limit."""


def drain(host: Host, runners: Sequence[Identity]) -> None:
    """Stop giving jobs to `runners`, and wait until none runs.

    Raises StillBusy when the limit is over, Cancelled. With the provider down the unit finishes its own jobs when it
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
    """`running`: the jobs by the provider's last answer; `silence`: the error while it does not answer."""

    context: Context
    runners: Sequence[Identity]
    running: int = 0
    silence: CiUnavailable | None = None
    heard_at: float = field(default_factory=time.monotonic)

    def are_done(self) -> bool:
        """A drain takes hours, so a restart of the provider is waited for. Raises CiUnavailable after `contact_s`."""
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
