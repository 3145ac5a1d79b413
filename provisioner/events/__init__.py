"""The events of a run, as frozen values: the engine emits them, reports show them. None holds a secret.

Each kind is a class, and its `to_json()` gives its line of `--json` (`documents`). Reports match on the class:

    match event:
        case PhaseBegun(host, phase): ...
        case Warned(host, text): ...

They hold names, words and numbers, never a host's specification or a file's content: they may leave the process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

from typing_extensions import override

from provisioner.events import documents, shapes
from provisioner.model import Identity
from provisioner.outcome import HostResult, Outcome, exit_code

if TYPE_CHECKING:
    from provisioner.ci.base import Enrolled, Presence, RunnerAction, Words
    from provisioner.machine.counters import Counters
    from provisioner.machine.facts import UnitFact
    from provisioner.machine.flaws import Flaws
    from provisioner.machine.origin import Origin
    from provisioner.machine.preview import Preview
    from provisioner.plan import HostPlan, StepAction


@dataclass(frozen=True, slots=True)
class Event(ABC):
    """One thing that happened."""

    @abstractmethod
    def to_json(self) -> documents.Document:
        """A line of `--json`, but for its time and version."""


@dataclass(frozen=True, slots=True)
class HostEvent(Event, ABC):
    """An event of one host of this run, by its name in the inventory."""

    host: str


Emit: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """`words` are those of the run's provider, for people."""

    verb: str
    run: str
    operator: str
    hosts: tuple[str, ...]
    words: Words

    @override
    def to_json(self) -> documents.Start:
        return {
            "event": "start",
            "verb": self.verb,
            "run": self.run,
            "operator": self.operator,
            "hosts": list(self.hosts),
        }


@dataclass(frozen=True, slots=True)
class BatchBegun(Event):
    """The batch `number` of `of`, from 1; `play` is the play's name, or empty."""

    number: int
    of: int
    play: str
    hosts: tuple[str, ...]

    @override
    def to_json(self) -> documents.Batch:
        return {"event": "batch", "batch": self.number, "of": self.of, "play": self.play, "hosts": list(self.hosts)}


@dataclass(frozen=True, slots=True)
class PhaseBegun(HostEvent):
    phase: str

    @override
    def to_json(self) -> documents.Phase:
        return {"event": "phase", "host": self.host, "phase": self.phase}


@dataclass(frozen=True, slots=True)
class Planned(HostEvent):
    """The changes to come. `check`: a plan only, no change follows.

    `changes` are lines for people; `diffs` are unified diffs with their secrets masked.
    """

    changes: tuple[str, ...]
    runners: tuple[RunnerAction, ...]
    steps: tuple[StepAction, ...]
    switch: str
    diffs: tuple[str, ...] = ()
    system: Preview | None = None
    check: bool = False

    @classmethod
    def of(cls, plan: HostPlan, diffs: tuple[str, ...], system: Preview | None, *, check: bool) -> Self:
        return cls(plan.host, plan.lines(), plan.runners, plan.steps, plan.switch, diffs, system, check)

    @override
    def to_json(self) -> documents.Plan:
        return {
            "event": "plan",
            "host": self.host,
            "changes": list(self.changes),
            "runners": [shapes.runner_plan(action) for action in self.runners],
            "steps": [{"step": action.step, "why": action.why} for action in self.steps],
            "switch": self.switch or None,
            "diff": list(self.diffs),
            "system": shapes.system(self.system) if self.system else None,
        }


@dataclass(frozen=True, slots=True)
class OriginFound(HostEvent):
    """The configuration does not describe the running system."""

    origin: Origin

    @override
    def to_json(self) -> documents.Origin:
        return {
            "event": "origin",
            "host": self.host,
            "kind": self.origin.kind.value,
            "why": self.origin.why,
            "running": self.origin.running,
            "boot": self.origin.boot,
            "configured": self.origin.configured or None,
            "built": self.origin.is_built,
            "changes": list(self.origin.changes),
            "units": [shapes.units(change) for change in self.origin.units],
        }


@dataclass(frozen=True, slots=True)
class Logged(HostEvent):
    """A line of the build's or the switch's log."""

    text: str

    @override
    def to_json(self) -> documents.Log:
        return {"event": "log", "host": self.host, "text": self.text}


@dataclass(frozen=True, slots=True)
class Draining(HostEvent):
    jobs: int
    limit_s: float

    @override
    def to_json(self) -> documents.Drain:
        return {"event": "drain", "host": self.host, "jobs": self.jobs, "limit_s": self.limit_s}


@dataclass(frozen=True, slots=True)
class Warned(HostEvent):
    """Something to know that stops nothing; `host` is empty where the whole run is meant."""

    text: str

    @override
    def to_json(self) -> documents.Warned:
        if not self.host:
            return {"event": "warning", "text": self.text}
        return {"event": "warning", "host": self.host, "text": self.text}


@dataclass(frozen=True, slots=True)
class RunnerReport:
    """One runner as both sides see it; `contacted_at` is the provider's time of the last poll, ISO 8601."""

    name: str
    unit: UnitFact | None
    runner: Enrolled | None
    managers: tuple[Presence, ...]

    @property
    def contacted_at(self) -> str | None:
        times = [manager.contacted_at for manager in self.managers if manager.contacted_at]
        return max(times, default=None)

    def to_json(self) -> documents.RunnerStatus:
        return {
            "name": self.name,
            "id": self.runner.id if self.runner else None,
            "gitlab_status": self.runner.state if self.runner else None,
            "paused": self.runner.is_paused if self.runner else None,
            "contacted_at": self.contacted_at,
            "managers": [{"system_id": one.name, "status": one.state} for one in self.managers],
            "unit": self.unit.name if self.unit else None,
            "unit_state": self.unit.active if self.unit else "inactive",
        }


@dataclass(frozen=True, slots=True)
class StatusRead(HostEvent):
    """A host as `status` shows it; `drift` are the lines of the changes that `up` would make, empty when converged.

    `nixprov` is the version that wrote the module there, or empty.
    """

    nixos: str
    nixprov: str
    generation: int | None
    phase: str
    revision: str
    runners: tuple[RunnerReport, ...]
    drift: tuple[str, ...]
    counters: Counters | None
    flaws: Flaws

    @property
    def is_installed(self) -> bool:
        return bool(self.revision)

    @override
    def to_json(self) -> documents.Status:
        return {
            "event": "status",
            "host": self.host,
            "nixos": self.nixos,
            "nixprov": self.nixprov or None,
            "generation": self.generation,
            "installed": self.is_installed,
            "phase": self.phase,
            "revision": self.revision or None,
            "drift": list(self.drift),
            "runners": [runner.to_json() for runner in self.runners],
            "counters": shapes.counters(self.counters) if self.counters else None,
            "nix": shapes.nix(self.flaws),
        }


@dataclass(frozen=True, slots=True)
class RunnerGone(Event):
    """The provider has a runner of ours for `host`, and the inventory has no such host."""

    host: str
    runner: str
    id: Identity
    gitlab_status: str

    @override
    def to_json(self) -> documents.Gone:
        return {
            "event": "gone",
            "host": self.host,
            "runner": self.runner,
            "id": self.id,
            "gitlab_status": self.gitlab_status,
        }


@dataclass(frozen=True, slots=True)
class LeftoverFound(Event):
    """Something that is left on one side; `host` as the mark or the inventory has it. Fields as in docs/json.md."""

    host: str
    runner: str | None
    id: Identity | None
    gitlab_status: str | None
    system_id: str | None
    contacted_at: str | None
    deletes: bool
    why: str

    @override
    def to_json(self) -> documents.Finding:
        return {
            "event": "finding",
            "host": self.host,
            "runner": self.runner,
            "id": self.id,
            "gitlab_status": self.gitlab_status,
            "system_id": self.system_id,
            "contacted_at": self.contacted_at,
            "deletes": self.deletes,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class RunnerDeleted(Event):
    id: Identity

    @override
    def to_json(self) -> documents.Deleted:
        return {"event": "deleted", "id": self.id}


@dataclass(frozen=True, slots=True)
class HostDone(HostEvent):
    """Exactly one for each host."""

    result: HostResult

    @classmethod
    def of(cls, result: HostResult) -> Self:
        return cls(result.host, result)

    @override
    def to_json(self) -> documents.Host:
        return {
            "event": "host",
            "host": self.host,
            "outcome": self.result.outcome.value,
            "seconds": round(self.result.seconds, 3),
            "remote_commands": self.result.remote_commands,
            "connections": self.result.connections,
            "error": self.result.error or None,
            "hint": self.result.hint or None,
            "remains": list(self.result.remains),
        }


@dataclass(frozen=True, slots=True)
class BugMet(HostEvent):
    traceback: str

    @override
    def to_json(self) -> documents.Bug:
        return {"event": "bug", "host": self.host, "traceback": self.traceback}


@dataclass(frozen=True, slots=True)
class Interrupted(Event):
    """Ctrl-C: each host stops at its next safe place."""

    @override
    def to_json(self) -> documents.Interrupt:
        return {"event": "interrupt"}


@dataclass(frozen=True, slots=True)
class RunDone(Event):
    """The end. `run` is the id for --resume, empty for a run without a record; `failed_hosts_file` belongs to it."""

    results: tuple[HostResult, ...]
    gitlab_writes: int
    seconds: float
    run: str = ""
    failed_hosts_file: str | None = None

    @property
    def exit_code(self) -> int:
        return exit_code(self.results)

    @override
    def to_json(self) -> documents.Summary:
        outcomes = Counter(result.outcome for result in self.results)
        document: documents.Summary = {
            "event": "summary",
            "hosts": len(self.results),
            "changed": outcomes[Outcome.CHANGED],
            "unchanged": outcomes[Outcome.UNCHANGED],
            "failed": sum(result.outcome.is_failure for result in self.results),
            "unreachable": outcomes[Outcome.UNREACHABLE],
            "skipped": outcomes[Outcome.SKIPPED],
            "rolled_back": outcomes[Outcome.ROLLED_BACK],
            "remote_commands": sum(result.remote_commands for result in self.results),
            "connections": sum(result.connections for result in self.results),
            "gitlab_writes": self.gitlab_writes,
            "seconds": round(self.seconds, 3),
            "exit_code": self.exit_code,
        }
        if self.run:
            document["run"] = self.run
            document["failed_hosts_file"] = self.failed_hosts_file
        return document
