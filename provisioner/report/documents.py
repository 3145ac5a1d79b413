"""The JSON of each event, as types: mypy holds the writer to them, and the published schema is made from them.

`docs/json.md` and `docs/events.schema.json` are generated from here, so a field has one description.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypedDict

VERSION: Final = 1

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

    verb: Annotated[str, "up, plan, status, down, or `plan down` (down --check)"]
    run: Annotated[str, "the run's id"]
    operator: Annotated[str, "user@computer"]
    hosts: list[str]


class Batch(TypedDict):
    """A batch begins; only when there are several."""

    batch: Annotated[int, "its number, from 1"]
    of: Annotated[int, "how many"]
    play: str
    hosts: list[str]


class Phase(TypedDict):
    """A host enters a phase."""

    host: str
    phase: Annotated[
        str,
        "connect, probe, plan, own, evaluate, create, write, build, switch, confirm, drain, delete, clean, unwind; "
        "more may come",
    ]


class Difference(TypedDict):
    name: str
    before: str
    after: str


class RunnerPlan(TypedDict):
    name: str
    verb: Literal["keep", "create", "update", "reset token", "delete"]
    id: Annotated[int | str | None, "GitLab's; null while it is to be created"]
    why: str
    differences: Annotated[list[Difference], "settings in GitLab, before and after"]


class StepPlan(TypedDict):
    step: str
    why: str


class PackageChange(TypedDict):
    name: str
    before: Annotated[list[str], "versions; empty: it is new"]
    after: Annotated[list[str], "versions; empty: it goes"]
    size: Annotated[int, "bytes more, or less"]


class UnitChange(TypedDict):
    verb: Annotated[str, "add, start, stop, restart, reload"]
    units: list[str]


class Closure(TypedDict):
    added: Annotated[int, "store paths"]
    removed: Annotated[int, "store paths"]
    size: Annotated[int, "bytes more, or less"]
    packages: list[PackageChange]
    units: Annotated[list[UnitChange], "what the activation would do"]


class System(TypedDict):
    """What the system would be."""

    build: Annotated[list[str], "derivations that must be built first"]
    fetch: Annotated[list[str], "paths that must be fetched first"]
    fetch_size: Annotated[str | None, "in Nix's words"]
    closure: Annotated[Closure | None, "the running system against the new one; null while it must be built"]
    failed: Annotated[str | None, "why it would not build"]
    unknown: Annotated[str | None, "why the host cannot tell"]


class Plan(TypedDict):
    """What would change, or is about to."""

    host: str
    changes: Annotated[list[str], "lines for people; empty: nothing to do"]
    runners: list[RunnerPlan]
    steps: list[StepPlan]
    switch: Annotated[str | None, "why the system is built and activated, or null"]
    diff: Annotated[list[str], "unified diffs, with --diff; secrets are stars"]
    system: Annotated[System | None, "`plan` with --diff or --build, when the system changes"]


class Origin(TypedDict):
    """The running system is not what the configuration describes (`up`, `plan`, `down`)."""

    host: str
    kind: Annotated[
        str,
        "other nixos-config, on trial, for the next boot, specialisation, another machine, flake, does not evaluate, "
        "channel not switched, edits not switched, other file, unknown",
    ]
    why: Annotated[str, "one line"]
    running: Annotated[str, "the running system's store path"]
    boot: Annotated[str, "that of the system that boots next"]
    configured: Annotated[str | None, "what the configuration evaluates to without nixprov's module, or null"]
    built: Annotated[bool, "whether that one is built, so that `units` can be told"]
    changes: Annotated[list[str], "what a switch would change beside nixprov's module, lines for people"]
    units: Annotated[list[UnitChange], "what its activation would do"]


class Log(TypedDict):
    """A line of the build's or the switch's log."""

    host: str
    text: str


class Drain(TypedDict):
    """Jobs still run on a host that takes no new ones; again whenever their number changes."""

    host: str
    jobs: int
    limit_s: Annotated[float, "how long they have in all"]


class _AnyHost(TypedDict, total=False):
    host: Annotated[str, "if it is about one"]


class Warned(_AnyHost):
    """Something to know that stops nothing."""

    text: str


class ManagerStatus(TypedDict):
    system_id: str
    status: str


class RunnerStatus(TypedDict):
    name: str
    id: Annotated[int | str | None, "null: not in GitLab"]
    gitlab_status: Annotated[str | None, "online, offline, stale, never_contacted, ..."]
    paused: bool | None
    contacted_at: Annotated[str | None, "GitLab's time of the last poll, ISO 8601"]
    managers: list[ManagerStatus]
    unit: str | None
    unit_state: Annotated[str, "systemd's ActiveState"]


class JobCounters(TypedDict):
    runner: str
    job: Annotated[int, "GitLab's id"]
    project: Annotated[int | None, "GitLab's id"]
    started: Annotated[str, "ISO 8601"]
    seconds: Annotated[float | None, "from its first container to the end of its last; null: it runs"]
    built: int
    found: int
    bytes: int


class Counters(TypedDict):
    since: Annotated[str, "ISO 8601"]
    jobs: Annotated[int, "all since then; the numbers that follow are theirs"]
    seconds: float
    built: Annotated[int, "derivations that were built for a job"]
    found: Annotated[int, "paths and derivations that a job asked for and that were there"]
    bytes: Annotated[int, "of what was built, as Nix archives"]
    last: Annotated[list[JobCounters], "the last jobs, oldest first"]


class KnownFlaw(TypedDict):
    id: str
    severity: Annotated[str, "root: jobs become root of the host by it; less"]
    gives: Annotated[str, "what it gives away"]
    advice: str
    accepted: Annotated[bool, "by name, in the inventory"]
    sources: list[str]


class NixStatus(TypedDict):
    version: Annotated[str | None, "as it calls itself; null: it says nothing"]
    judged: Annotated[bool, "false: of another maker or of no version, and nothing was looked at"]
    flaws: Annotated[list[KnownFlaw], "what is known against this release"]
    mended: Annotated[str | None, "the nearest release without a way to root, where this one has some"]
    refused: Annotated[bool, "`up` refuses the host for them"]


class Status(TypedDict):
    """Machine, module and GitLab side by side."""

    host: str
    nixos: str
    nixprov: Annotated[str | None, "version of the one that wrote the module there; null: nobody knows"]
    generation: int | None
    installed: bool
    phase: Annotated[str, "the journal's on the host"]
    revision: Annotated[str | None, "of the module in the running system"]
    drift: Annotated[list[str], "what `up` would change; empty: as wanted"]
    runners: list[RunnerStatus]
    counters: Annotated[Counters | None, "what the store did for jobs; null: nothing is known"]
    nix: Annotated[NixStatus, "the Nix of the running system"]


class Gone(TypedDict):
    """GitLab has a runner of ours for a host that this inventory does not have (`status`)."""

    host: str
    runner: str
    id: int | str
    gitlab_status: str


class Finding(TypedDict):
    """Something that is left on one side (`prune`, `down --gone`)."""

    host: Annotated[str, "as the mark or the inventory has it"]
    runner: str | None
    id: Annotated[int | str | None, "the runner's in GitLab; null: it is about a host"]
    gitlab_status: Annotated[str | None, "the manager's, if it is about one, else the runner's"]
    system_id: Annotated[str | None, "the manager's; null: it is about no manager"]
    contacted_at: Annotated[str | None, "the manager's last contact, ISO 8601"]
    deletes: Annotated[bool, "whether it is to be deleted"]
    why: str


class Deleted(TypedDict):
    """A runner was deleted in GitLab (`prune`, `down --gone`)."""

    id: int | str


class Host(TypedDict):
    """A host is done, well or not: exactly one for each."""

    host: str
    outcome: OutcomeName
    seconds: float
    remote_commands: int
    connections: int
    error: Annotated[str | None, "one line"]
    hint: Annotated[str | None, "what to do next"]
    remains: Annotated[list[str], "what could not be undone"]


class Bug(TypedDict):
    """Something nixprov did not expect."""

    host: str
    traceback: str


class Interrupt(TypedDict):
    """Ctrl-C: each host stops at its next safe place."""


class _OfChanges(TypedDict, total=False):
    run: Annotated[str, "the run's id, for --resume (`up`, `down`)"]
    failed_hosts_file: Annotated[str | None, "for --limit @FILE, or null (`up`, `down`)"]


class Summary(_OfChanges):
    """The last line: changed + unchanged + failed + unreachable + skipped = hosts."""

    hosts: int
    changed: int
    unchanged: int
    failed: Annotated[int, "all that is neither good, unreachable nor skipped"]
    unreachable: int
    skipped: Annotated[int, "never begun"]
    rolled_back: Annotated[int, "of the failed: as before the run"]
    remote_commands: int
    connections: int
    gitlab_writes: int
    seconds: float
    exit_code: int


DOCUMENTS: Final[dict[str, type]] = {
    "start": Start,
    "batch": Batch,
    "phase": Phase,
    "plan": Plan,
    "origin": Origin,
    "log": Log,
    "drain": Drain,
    "warning": Warned,
    "status": Status,
    "gone": Gone,
    "finding": Finding,
    "deleted": Deleted,
    "host": Host,
    "bug": Bug,
    "interrupt": Interrupt,
    "summary": Summary,
}
