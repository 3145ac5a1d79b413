"""The protocol of an executor of jobs, and the one that does them in threads of this process.

Another executor may send a job to a process with its own `Visitor`, and return its events and result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from provisioner.engine.host import Machine
from provisioner.engine.pool import Pool, Task
from provisioner.engine.visit import Job, Visitor
from provisioner.errors import NixprovError
from provisioner.events import Emit, Event, Interrupted, Warned
from provisioner.outcome import HostResult, Outcome

T = TypeVar("T")

_LATE_HINT: Final = "what was begun there may go on: `nixprov status` tells; --timeout gives it more time"


class Executor(Protocol):
    """Does several jobs at once. Owns their number, their time limit, and the way of an interrupt to them."""

    def run(self, jobs: Sequence[Job], emit: Emit, may_begin: Callable[[], bool]) -> Iterator[HostResult]:
        """Yield the result of each job that was begun, in order of their ends. No job's failure is raised.

        `may_begin` is asked before each job, between results. Events go to `emit` from any thread. A host's result is
        its last event.
        """
        ...


@dataclass(frozen=True, slots=True)
class Threads:
    """One thread per job. `limit_s`: seconds for each host, from its first connection on; None is no limit."""

    visitor: Visitor
    forks: int = 1
    limit_s: float | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    def run(self, jobs: Sequence[Job], emit: Emit, may_begin: Callable[[], bool]) -> Iterator[HostResult]:
        """As in `Executor`. A job under way is never cut off by the failure of another."""
        pool: Pool[Job, HostResult] = Pool(
            lambda task: self._visit(task, emit),
            self._given_up,
            self.forks,
            self.limit_s,
            self.cancel,
            on_cancel=lambda: emit(Interrupted()),
        )
        for _, result in pool.run(jobs, may_begin):
            yield result

    def probe(self, jobs: Sequence[Job], emit: Emit, found: Callable[[Machine], T]) -> dict[str, T]:
        """Apply `found` to each host that answers; its results by name. A silent host is a warning. Changes nothing."""
        answers: dict[str, T] = {}

        def ask(job: Job) -> None:
            try:
                answers[job.spec.name] = found(self.visitor.probe(job, emit, self.cancel))
            except NixprovError as error:
                emit(Warned(job.spec.name, f"not asked: {error.message}"))

        with ThreadPoolExecutor(max_workers=self.forks) as pool:
            list(pool.map(ask, jobs))
        return answers

    def _visit(self, task: Task[Job], emit: Emit) -> HostResult:
        result = self.visitor.visit(task, _until_given_up(task, emit))
        if task.is_late and result.outcome is Outcome.INTERRUPTED:
            return replace(result, outcome=Outcome.FAILED, error=self._late(), hint=_LATE_HINT)
        return result

    def _given_up(self, task: Task[Job]) -> HostResult:
        return HostResult(task.item.spec.name, Outcome.FAILED, task.seconds, error=self._late(), hint=_LATE_HINT)

    def _late(self) -> str:
        return f"not done within {self.limit_s:g} s"


def _until_given_up(task: Task[Job], emit: Emit) -> Emit:
    """A thread that was given up must emit nothing after its host's result."""

    def guarded(event: Event) -> None:
        if not task.is_given_up:
            emit(event)

    return guarded
