"""An executor that sends each job away as bytes: what comes back is what threads of this process give."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast
from unittest import mock

import pytest

from provisioner.batches import Stage
from provisioner.ci.gitlab.api import Api
from provisioner.ci.gitlab.provider import GitLab
from provisioner.engine.executor import Executor, Threads
from provisioner.engine.pool import Task
from provisioner.engine.rollout import Rollout
from provisioner.engine.visit import Brief, Job, Visitor
from provisioner.events import Emit, Event, HostDone, PhaseBegun, Planned, StatusRead
from provisioner.machine.journal import Run
from provisioner.model import Become, HostSpec, Secret
from provisioner.outcome import HostResult
from provisioner.sealing import Sealer, new_key
from provisioner.ssh.session import Session
from provisioner.verb import Verb
from provisioner.verbs import perform
from tests.unit.engine_fakes import FakeApi, FakeSession
from tests.unit.hosts import converged, new_host, runner, spec

PASSWORD = "hunter2"


class Connected(FakeSession):
    warnings: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def connected(wanted: HostSpec, *_: object, **__: object) -> Connected:
    """One host is as wanted; the others are new, and do not answer what a plan asks of the configuration."""
    facts, journal = converged()
    if wanted.name != "host1":
        return Connected({**new_host().records, "machine-id": wanted.name.encode().hex().encode()})
    return Connected({**facts.records, "journal.data": journal.render()})


def visitor() -> Visitor:
    return Visitor(GitLab(cast("Api", FakeApi({7: runner(7)}))), perform)


def worker(sealed: bytes, key: str) -> bytes:
    """What another process does with a job."""
    events: list[Event] = []
    with mock.patch.object(Session, "open", connected):
        job = Sealer(Secret(key)).loads(sealed)
        result = visitor().visit(Task(job, time.monotonic()), events.append)
    return pickle.dumps((events, result))


@dataclass(frozen=True)
class Posted:
    """Sends each job by `post`, as sealed bytes; the key stays with both ends."""

    post: Callable[[bytes, str], bytes]
    key: Secret

    def run(self, jobs: Sequence[Job], emit: Emit, may_begin: Callable[[], bool]) -> Iterator[HostResult]:
        for job in jobs:
            if not may_begin():
                return
            sealed = Sealer(self.key).dumps(job)
            assert PASSWORD.encode() not in sealed
            events, result = pickle.loads(self.post(sealed, self.key.reveal()))  # noqa: S301 - our own
            for event in events:
                emit(event)
            yield result


def told(executor: Executor, verb: Verb) -> list[Event]:
    """All events of a run over three hosts; times apart, which no two runs share."""
    hosts = [replace(spec(name=name), connection=connection()) for name in ("host1", "host2", "host3")]
    events: list[Event] = []
    brief = Brief(Run("20260101T000000-abcdef", verb.value, "me@here", "2026-01-01"), verb, diff=True)
    with mock.patch.object(Session, "open", connected):
        Rollout(executor, events.append, brief).roll_out([Stage(tuple(hosts))])
    return [timeless(event) for event in events]


def connection() -> Any:
    return replace(spec().connection, become=Become(password=Secret(PASSWORD)))


def timeless(event: Event) -> Event:
    return HostDone.of(replace(event.result, seconds=0.0)) if isinstance(event, HostDone) else event


@pytest.mark.parametrize("verb", [Verb.PLAN, Verb.STATUS])
def test_a_job_that_was_sent_tells_what_a_thread_tells(verb: Verb) -> None:
    here = told(Threads(visitor()), verb)
    assert told(Posted(worker, new_key()), verb) == here
    kinds = [type(event) for event in here]
    assert kinds.count(HostDone) == 3
    assert (Planned if verb is Verb.PLAN else StatusRead) in kinds
    assert PhaseBegun("host1", "connect") in here
