"""A simulated GitLab behind the `Api` protocol: runners by id, their tokens, jobs, and the polls of each token."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from provisioner.ci.gitlab.values import Manager, Registration, Runner, RunnerStatus
from provisioner.errors import CiRefused, CiUnavailable, NixprovError
from provisioner.model import Mark, RunnerSpec, RunnerType, Secret
from tests.simulator.host import Host

URL: Final = "https://gitlab.example"


@dataclass
class Record:
    runner: Runner
    owner: str | None
    token: str
    jobs: int = 0


@dataclass
class GitLab:
    """The server. `undying`: runners that stay after GitLab has reported them deleted."""

    hosts: list[Host]
    records: dict[int, Record] = field(default_factory=dict)
    undying: set[int] = field(default_factory=set)
    calls: list[tuple[str, object]] = field(default_factory=list)
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(7))
    _tokens: Iterator[int] = field(default_factory=itertools.count)

    @property
    def runners(self) -> list[Runner]:
        return [self._seen(id_) for id_ in self.records]

    def api(self, fault: Callable[[str], NixprovError | None]) -> SimulatedApi:
        """As one run sees it; `fault` gives the error of each call that fails."""
        return SimulatedApi(self, fault)

    def add(self, spec: RunnerSpec, description: str) -> Record:
        """Make a runner of any owner."""
        runner = Runner(
            next(self._ids),
            description,
            spec.type,
            spec.paused,
            RunnerStatus.NEVER_CONTACTED,
            spec.tags,
            spec.run_untagged,
            spec.locked,
            spec.access_level,
            spec.maximum_timeout_s,
            spec.maintenance_note,
        )
        record = Record(runner, spec.owner, self.new_token())
        self.records[runner.id] = record
        return record

    def new_token(self) -> str:
        return f"glrt-{next(self._tokens)}"

    def is_polled(self, record: Record) -> bool:
        return any(host.polls_with(record.token) for host in self.hosts)

    def _seen(self, id_: int) -> Runner:
        record = self.records[id_]
        status = RunnerStatus.ONLINE if self.is_polled(record) else record.runner.status
        return replace(record.runner, status=status)


@dataclass
class SimulatedApi:
    """One run's view: lists are read once and kept up to date by its own calls, as gitlab.py does it."""

    server: GitLab
    fault: Callable[[str], NixprovError | None]
    url: str = URL
    writes: int = 0
    _listed: dict[tuple[RunnerType, str | None], set[int]] = field(default_factory=dict)

    def check(self) -> None:
        self._call("check")

    def close(self) -> None:
        pass

    def runners(self, kind: RunnerType, owner: str | None) -> Sequence[Runner]:
        if (kind, owner) not in self._listed:
            self._call("runners")
            there = self.server.records.items()
            self._listed[kind, owner] = {id_ for id_, one in there if (one.runner.type, one.owner) == (kind, owner)}
        known = [id_ for id_ in sorted(self._listed[kind, owner]) if id_ in self.server.records]
        return tuple(_as_listed(self.server._seen(id_)) for id_ in known)

    def get(self, runner_id: int) -> Runner | None:
        self._call("get", runner_id)
        return self.server._seen(runner_id) if runner_id in self.server.records else None

    def create(self, spec: RunnerSpec, mark: Mark) -> Registration:
        self._call("create", spec.name)
        record = self.server.add(spec, mark.describe(spec.description))
        for (kind, owner), listed in self._listed.items():
            if (kind, owner) == (spec.type, spec.owner):
                listed.add(record.runner.id)
        return Registration(record.runner.id, Secret(record.token))

    def update(self, runner_id: int, wanted: RunnerSpec, mark: Mark) -> None:
        self._call("update", runner_id)
        record = self._record(runner_id)
        record.runner = replace(
            record.runner,
            description=mark.describe(wanted.description),
            paused=wanted.paused,
            tags=wanted.tags,
            run_untagged=wanted.run_untagged,
            locked=wanted.locked,
            access_level=wanted.access_level,
            maximum_timeout_s=wanted.maximum_timeout_s,
            maintenance_note=wanted.maintenance_note,
        )

    def set_paused(self, runner_id: int, paused: bool) -> None:
        self._call("pause" if paused else "resume", runner_id)
        record = self._record(runner_id)
        record.runner = replace(record.runner, paused=paused)

    def reset_token(self, runner_id: int) -> Registration:
        self._call("reset", runner_id)
        record = self._record(runner_id)
        record.token = self.server.new_token()
        return Registration(runner_id, Secret(record.token))

    def delete(self, runner_id: int) -> bool:
        self._call("delete", runner_id)
        if runner_id in self.server.undying:
            return True
        return self.server.records.pop(runner_id, None) is not None

    def managers(self, runner_id: int) -> tuple[Manager, ...]:
        self._call("managers", runner_id)
        record = self.server.records.get(runner_id)
        if record is None or not self.server.is_polled(record):
            return ()
        return (Manager(1, "s_1", "2026-01-01T00:00:00Z", RunnerStatus.ONLINE),)

    def running_jobs(self, runner_id: int) -> int:
        self._call("jobs", runner_id)
        record = self.server.records.get(runner_id)
        return record.jobs if record else 0

    def _record(self, runner_id: int) -> Record:
        if runner_id not in self.server.records:
            raise CiRefused("404 Runner Not Found")
        return self.server.records[runner_id]

    def _call(self, name: str, argument: object = None) -> None:
        if error := self.fault(name):
            raise error
        self.server.calls.append((name, argument))
        self.writes += name in ("create", "update", "pause", "resume", "reset", "delete")


def _as_listed(runner: Runner) -> Runner:
    return Runner(runner.id, runner.description, runner.type, runner.paused, runner.status)


def unreachable() -> CiUnavailable:
    return CiUnavailable("cannot be reached")
