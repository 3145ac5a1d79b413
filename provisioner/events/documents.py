"""The JSON of each event, as types: mypy checks the writer against them, and they make the published schema.

`docs/json.md` and `docs/events.schema.json` are generated from here, so a field has one description.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from typing_extensions import TypedDict

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Note:
    """A field's description, in the docs and in the schema."""

    text: str

    def __get_pydantic_json_schema__(self, core: Any, make: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Pydantic's own hook, found by name: this module need not import pydantic."""
        return {**make(core), "description": self.text}


OutcomeName = Literal[
    "unchanged",
    "changed",
    "unreachable",
    "not described",
    "failed",
    "gitlab",
    "rolled back",
    "rollback failed",
    "interrupted",
    "skipped",
]


class Start(TypedDict):
    """The run begins: all hosts it is about, in order. Nothing has been touched."""

    event: Literal["start"]
    verb: Annotated[str, Note("up, plan, status, down, or `plan down` (down --check)")]
    run: Annotated[str, Note("the run's id")]
    operator: Annotated[str, Note("user@computer")]
    hosts: list[str]


class Batch(TypedDict):
    """A batch begins; only when there are several."""

    event: Literal["batch"]
    batch: Annotated[int, Note("its number, from 1")]
    of: Annotated[int, Note("how many")]
    play: str
    hosts: list[str]


class Phase(TypedDict):
    """A host enters a phase."""

    event: Literal["phase"]
    host: str
    phase: Annotated[
        str,
        Note(
            "connect, probe, plan, own, evaluate, build, claim, create, drain, write, switch, confirm, delete, clean, "
            "unwind; more may come"
        ),
    ]


class Difference(TypedDict):
    name: str
    before: str
    after: str


class RunnerPlan(TypedDict):
    name: str
    verb: Literal["keep", "create", "update", "reset token", "delete"]
    id: Annotated[int | str | None, Note("the provider's; null while it is to be created")]
    why: str
    differences: Annotated[list[Difference], Note("settings at the provider, before and after")]


class StepPlan(TypedDict):
    step: str
    why: str


class PackageChange(TypedDict):
    name: str
    before: Annotated[list[str], Note("versions; empty: it is new")]
    after: Annotated[list[str], Note("versions; empty: it goes")]
    size: Annotated[int, Note("bytes more, or less")]


class UnitChange(TypedDict):
    verb: Annotated[str, Note("add, start, stop, restart, reload")]
    units: list[str]


class Closure(TypedDict):
    added: Annotated[int, Note("store paths")]
    removed: Annotated[int, Note("store paths")]
    size: Annotated[int, Note("bytes more, or less")]
    packages: list[PackageChange]
    units: Annotated[list[UnitChange], Note("effects of the activation on units")]


class System(TypedDict):
    """The system to come."""

    build: Annotated[list[str], Note("derivations that must be built first")]
    fetch: Annotated[list[str], Note("paths that must be fetched first")]
    fetch_size: Annotated[str | None, Note("in Nix's words")]
    closure: Annotated[Closure | None, Note("the running system against the new one; null while it must be built")]
    failed: Annotated[str | None, Note("why it would not build")]
    unknown: Annotated[str | None, Note("why the host cannot tell")]


class Plan(TypedDict):
    """The changes to come."""

    event: Literal["plan"]
    host: str
    changes: Annotated[list[str], Note("lines for people; empty: nothing to do")]
    runners: list[RunnerPlan]
    steps: list[StepPlan]
    switch: Annotated[str | None, Note("why the system is built and activated, or null")]
    diff: Annotated[list[str], Note("unified diffs, with --diff; secrets are stars")]
    system: Annotated[System | None, Note("`plan` with --diff or --build, when the system changes")]


class Origin(TypedDict):
    """The configuration does not describe the running system (`up`, `plan`, `down`)."""

    event: Literal["origin"]
    host: str
    kind: Annotated[
        str,
        Note(
            "other nixos-config, on trial, for the next boot, specialisation, another machine, flake, "
            "does not evaluate, channel not switched, edits not switched, other file, unknown"
        ),
    ]
    why: Annotated[str, Note("one line")]
    running: Annotated[str, Note("the running system's store path")]
    boot: Annotated[str, Note("that of the system that boots next")]
    configured: Annotated[str | None, Note("the system of the configuration without nixprov's module, or null")]
    built: Annotated[bool, Note("whether that one is built, so that `units` can be told")]
    changes: Annotated[list[str], Note("changes of a switch beside nixprov's module, lines for people")]
    units: Annotated[list[UnitChange], Note("effects of its activation on units")]


class Log(TypedDict):
    """A line of the build's or the switch's log."""

    event: Literal["log"]
    host: str
    text: str


class Drain(TypedDict):
    """Jobs still run on a host that takes no new ones; again whenever their number changes."""

    event: Literal["drain"]
    host: str
    jobs: int
    limit_s: Annotated[float, Note("how long they have in all")]


class _AnyHost(TypedDict, total=False):
    host: Annotated[str, Note("if it is about one")]


class Warned(_AnyHost):
    """Something to know that stops nothing."""

    event: Literal["warning"]
    text: str


class ManagerStatus(TypedDict):
    system_id: str
    status: str


class RunnerStatus(TypedDict):
    name: str
    id: Annotated[int | str | None, Note("null: the provider has none")]
    gitlab_status: Annotated[str | None, Note("online, offline, stale, never_contacted, ...")]
    paused: bool | None
    contacted_at: Annotated[str | None, Note("the provider's time of the last poll, ISO 8601")]
    managers: list[ManagerStatus]
    unit: str | None
    unit_state: Annotated[str, Note("systemd's ActiveState")]


class JobCounters(TypedDict):
    runner: str
    job: Annotated[int, Note("the provider's id")]
    project: Annotated[int | None, Note("the provider's id")]
    started: Annotated[str, Note("ISO 8601")]
    seconds: Annotated[float | None, Note("from its first container to the end of its last; null: it runs")]
    built: int
    found: int
    bytes: int


class Counters(TypedDict):
    since: Annotated[str, Note("ISO 8601")]
    jobs: Annotated[int, Note("all since then; the numbers that follow are theirs")]
    seconds: float
    built: Annotated[int, Note("derivations that were built for a job")]
    found: Annotated[int, Note("paths and derivations that a job asked for and that were there")]
    bytes: Annotated[int, Note("of what was built, as Nix archives")]
    last: Annotated[list[JobCounters], Note("the last jobs, oldest first")]


class KnownFlaw(TypedDict):
    id: str
    severity: Annotated[str, Note("root: jobs become root of the host by it; less")]
    gives: Annotated[str, Note("its gift to a job")]
    advice: str
    accepted: Annotated[bool, Note("by name, in the inventory")]
    sources: list[str]


class NixStatus(TypedDict):
    version: Annotated[str | None, Note("as it calls itself; null: it says nothing")]
    judged: Annotated[bool, Note("false: of another maker or of no version, and nothing was looked at")]
    flaws: Annotated[list[KnownFlaw], Note("known flaws of this release")]
    mended: Annotated[str | None, Note("the nearest release without a way to root, where this one has some")]
    refused: Annotated[bool, Note("`up` refuses the host for them")]


class Status(TypedDict):
    """Machine, module and CI server side by side."""

    event: Literal["status"]
    host: str
    nixos: str
    nixprov: Annotated[str | None, Note("version of the one that wrote the module there; null: nobody knows")]
    generation: int | None
    installed: bool
    phase: Annotated[str, Note("the journal's on the host")]
    revision: Annotated[str | None, Note("of the module in the running system")]
    drift: Annotated[list[str], Note("changes that `up` would make; empty: as wanted")]
    runners: list[RunnerStatus]
    counters: Annotated[Counters | None, Note("work of the store for jobs; null: nothing is known")]
    nix: Annotated[NixStatus, Note("the Nix of the running system")]


class Gone(TypedDict):
    """The provider has a runner of ours for a host that this inventory does not have (`status`)."""

    event: Literal["gone"]
    host: str
    runner: str
    id: int | str
    gitlab_status: str


class Finding(TypedDict):
    """Something that is left on one side (`prune`, `down --gone`)."""

    event: Literal["finding"]
    host: Annotated[str, Note("as the mark or the inventory has it")]
    runner: str | None
    id: Annotated[int | str | None, Note("the runner's at the provider; null: it is about a host")]
    gitlab_status: Annotated[str | None, Note("the manager's, if it is about one, else the runner's")]
    system_id: Annotated[str | None, Note("the manager's; null: it is about no manager")]
    contacted_at: Annotated[str | None, Note("the manager's last contact, ISO 8601")]
    deletes: Annotated[bool, Note("whether it is to be deleted")]
    why: str


class Deleted(TypedDict):
    """A runner was deleted at the provider (`prune`, `down --gone`)."""

    event: Literal["deleted"]
    id: int | str


class Host(TypedDict):
    """A host is done, well or not: exactly one for each."""

    event: Literal["host"]
    host: str
    outcome: OutcomeName
    seconds: float
    remote_commands: int
    connections: int
    error: Annotated[str | None, Note("one line")]
    hint: Annotated[str | None, Note("the next thing to do")]
    remains: Annotated[list[str], Note("things that could not be undone")]


class Bug(TypedDict):
    """Something nixprov did not expect."""

    event: Literal["bug"]
    host: str
    traceback: str


class Interrupt(TypedDict):
    """Ctrl-C: each host stops at its next safe place."""

    event: Literal["interrupt"]


class _OfChanges(TypedDict, total=False):
    run: Annotated[str, Note("the run's id, for --resume (`up`, `down`)")]
    failed_hosts_file: Annotated[str | None, Note("for --limit @FILE, or null (`up`, `down`)")]


class Summary(_OfChanges):
    """The last line: changed + unchanged + failed + unreachable + skipped = hosts."""

    event: Literal["summary"]
    hosts: int
    changed: int
    unchanged: int
    failed: Annotated[int, Note("all that is neither good, unreachable nor skipped")]
    unreachable: int
    skipped: Annotated[int, Note("never begun")]
    rolled_back: Annotated[int, Note("of the failed: as before the run")]
    remote_commands: int
    connections: int
    gitlab_writes: int
    seconds: float
    exit_code: int


Document: TypeAlias = (
    Start
    | Batch
    | Phase
    | Plan
    | Origin
    | Log
    | Drain
    | Warned
    | Status
    | Gone
    | Finding
    | Deleted
    | Host
    | Bug
    | Interrupt
    | Summary
)
