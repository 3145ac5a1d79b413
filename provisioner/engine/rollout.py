"""A verb rolled out over hosts: batch by batch, one job and one result each, by a given executor."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from provisioner.batches import Rules, Stage
from provisioner.engine.executor import Executor
from provisioner.engine.visit import Brief, Job
from provisioner.events import BatchBegun, Emit, HostDone, Warned
from provisioner.model import HostSpec
from provisioner.outcome import HostResult, Outcome


@dataclass(frozen=True, slots=True)
class Rollout:
    """`cancel` interrupts the executor too: hosts that were not begun are INTERRUPTED then."""

    executor: Executor
    emit: Emit
    brief: Brief
    cancel: threading.Event = field(default_factory=threading.Event)

    def roll_out(self, stages: Sequence[Stage]) -> list[HostResult]:
        """Do the verb batch by batch, until the rules stop it; the remaining hosts are SKIPPED.

        Never raises for one host's failure. Results stand in the hosts' order. A verb without changes risks nothing, so
        it runs on all hosts and ignores the rules.
        """
        changes = self.brief.verb.changes
        if not changes:
            stages = (Stage(tuple(host for stage in stages for host in stage.hosts)),)
        batches = [(stage, batch) for stage in stages for batch in stage.batches()]
        results: list[HostResult] = []
        stopped = ""
        for number, (stage, batch) in enumerate(batches, start=1):
            if len(batches) > 1 and not stopped:
                names = tuple(host.name for host in batch)
                self.emit(BatchBegun(number, len(batches), stage.name, names))
            standing = _Standing(stage.rules if changes else None, len(batch), stopped)
            results += self._batch(batch, standing)
            if standing.stopped and not stopped and (number < len(batches) or standing.is_cut_short):
                self.emit(Warned("", f"no further host is begun: {standing.stopped}"))
            stopped = standing.stopped
        return results

    def _batch(self, hosts: Sequence[HostSpec], standing: _Standing) -> list[HostResult]:
        jobs = [Job(host, self.brief) for host in hosts]
        for result in self.executor.run(jobs, self.emit, standing.may_go_on):
            standing.record(self._ended(result))
        for host in hosts:
            if host.name not in standing.results:
                standing.results[host.name] = self._ended(self._not_run(host, standing.stopped))
        return [standing.results[host.name] for host in hosts]

    def _ended(self, result: HostResult) -> HostResult:
        self.emit(HostDone.of(result))
        return result

    def _not_run(self, host: HostSpec, why: str) -> HostResult:
        if self.cancel.is_set():
            return HostResult(host.name, Outcome.INTERRUPTED, 0.0)
        return HostResult(host.name, Outcome.SKIPPED, 0.0, error=f"not begun: {why}")


@dataclass(slots=True)
class _Standing:
    """The state of a batch: its results so far, and the reason to begin no more. Without rules nothing stops it."""

    rules: Rules | None
    size: int
    stopped: str = ""
    results: dict[str, HostResult] = field(default_factory=dict)

    def may_go_on(self) -> bool:
        return not self.stopped

    def record(self, result: HostResult) -> None:
        self.results[result.host] = result
        failed = sum(not known.outcome.is_good for known in self.results.values())
        if self.rules is not None and not self.stopped:
            self.stopped = self.rules.why_stop(failed, self.size)

    @property
    def is_cut_short(self) -> bool:
        return any(result.outcome is Outcome.SKIPPED for result in self.results.values())
