"""Runs for the tests of reports: events as the engine emits them, on a clock that the test turns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from provisioner import events
from provisioner.advisories import Found
from provisioner.app import Report
from provisioner.ci.base import Difference, Enrolled, Presence, RunnerAction, RunnerVerb
from provisioner.ci.gitlab.words import WORDS
from provisioner.diff import plan_diffs
from provisioner.events import (
    BatchBegun,
    BugMet,
    Draining,
    Event,
    HostDone,
    HostEvent,
    Interrupted,
    LeftoverFound,
    Logged,
    OriginFound,
    PhaseBegun,
    Planned,
    RunDone,
    RunnerDeleted,
    RunnerGone,
    RunnerReport,
    RunStarted,
    StatusRead,
    Warned,
)
from provisioner.machine.counters import Counters
from provisioner.machine.facts import UnitFact
from provisioner.machine.flaws import Flaws
from provisioner.machine.origin import Kind, Origin
from provisioner.machine.preview import Closure, PackageChange, Preview, UnitChange
from provisioner.model import Connection, HostSpec, RunnerSpec
from provisioner.outcome import HostResult, Outcome
from provisioner.plan import FileChange, HostPlan, StepAction
from provisioner.report.record import RunRecord
from provisioner.steps import Wanted

BUILD_LOG = (
    "building the system configuration...",
    "these 2 derivations will be built:",
    "  /nix/store/0c-unit.drv",
    "building '/nix/store/0c-unit.drv'...",
    "error:",
    "       … while evaluating the option `services.nosuch':",
    "       error: The option `services.nosuch' does not exist.",
)
# As templates/core/counters.py writes it; tests/unit/test_counters.py holds the two together.
BOOK = json.dumps(
    {
        "version": 1,
        "since": 1767225600.5,
        "totals": {"jobs": 7, "seconds": 75.5, "built": 3, "found": 9, "bytes": 2048},
        "jobs": [
            {"runner": "default", "job": 16, "project": 3, "started": 1767225700.0, "seconds": 3.25, "running": False}
            | {"built": 1, "found": 2, "bytes": 120},
            {"runner": "default", "job": 17, "project": None, "started": 1767225800.0, "seconds": 0, "running": True}
            | {"built": 0, "found": 0, "bytes": 0},
        ],
    }
)
PREVIEW = Preview(
    Closure(2, 1, 2048, (PackageChange("podman", (), ("5.4.2",), 2048),), (UnitChange("add", ("a<b>.service",)),))
)
FOREIGN = Origin(
    Kind.OTHER_FILE,
    "/nix/store/aaa-nixos-system-a-25.11",
    "/nix/store/aaa-nixos-system-a-25.11",
    "/nix/store/bbb-nixos-system-b-25.11",
    "it was built from another file",
    ("host name: a -> b", "users that go: mallory<b>"),
    (UnitChange("stop", ("production.service",)),),
    is_built=True,
)
CHANGE = FileChange("/etc/nixos/configuration.nix", b"a\nb\n", b"a\nc\n")


def host_spec(name: str = "host1", *runners: RunnerSpec) -> HostSpec:
    return HostSpec(name, Connection("192.0.2.1"), runners or (RunnerSpec(tags=("nix",)),))


def host_plan(name: str = "host1") -> HostPlan:
    return HostPlan(
        name,
        WORDS,
        (
            RunnerAction("default", RunnerVerb.CREATE, "GitLab has none", settings=(("tags", "nix"),)),
            RunnerAction("big", RunnerVerb.UPDATE, "tags: a -> b", 7, (Difference("tags", "a", "b"),)),
            RunnerAction("same", RunnerVerb.KEEP, id=4),
        ),
        (StepAction("hook", "not imported"),),
        "the configuration changed",
        Wanted(host_spec(name), {}, "r", "0.1.0", {}),
    )


def planned(name: str = "host1", *, check: bool = False, system: Preview | None = None) -> Planned:
    plan = host_plan(name)
    return Planned.of(plan, plan_diffs(plan, (CHANGE,)), system, check=check)


def status_read(name: str = "host1", *drift: str) -> StatusRead:
    runner = RunnerReport(
        "default",
        UnitFact("nixprov-runner-default.service", "active", "running", 0),
        Enrolled(7, None, "online", polls=True),
        (Presence("s_1", "online", "2026-01-01T00:00:00Z"),),
    )
    counters = Counters.parse(BOOK)
    assert counters is not None
    return StatusRead(
        name, "25.11", "0.1.0", 3, "up: confirmed", "abc", (runner,), drift, counters, Flaws("", Found(), frozenset())
    )


RESULT = HostResult("host1", Outcome.ROLLED_BACK, 1.0, 2, 1, "it broke", "mend it", ("a runner",))
# One of each kind, with a value in every field.
SAMPLES: tuple[Event, ...] = (
    RunStarted("up", "r", "me@here", ("host1",), WORDS),
    BatchBegun(1, 2, "builders", ("host1",)),
    PhaseBegun("host1", "switch"),
    planned(check=True, system=PREVIEW),
    OriginFound("host1", FOREIGN),
    Logged("host1", "error: no such option"),
    Draining("host1", 1, 9.0),
    Warned("host1", "mind this"),
    status_read("host1", "drift"),
    RunnerGone("host1", "default", 1, "online"),
    LeftoverFound("host1", "default", 1, "online", "s_1", "2026-01-01T00:00:00Z", True, "its host is gone"),
    RunnerDeleted(1),
    BugMet("host1", "Traceback: x\n  line\n"),
    Interrupted(),
    HostDone.of(RESULT),
    RunDone((RESULT,), 1, 1.0, "r", "/f"),
)
KINDS: tuple[type[Event], ...] = tuple(
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind not in (Event, HostEvent)
)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Play:
    """Plays a run to reports; the record comes first, as in the program."""

    names: Sequence[str]
    verb: str = "up"
    clock: Clock = field(default_factory=Clock)
    reports: list[Report] = field(default_factory=list)
    results: list[HostResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.record = RunRecord(self.clock)
        self.reports.insert(0, self.record)

    def start(self) -> None:
        self.emit(RunStarted(self.verb, "20260101T000000-abcdef", "anna@desk", tuple(self.names), WORDS))

    def emit(self, event: Event) -> None:
        for report in self.reports:
            report.event(event)

    def phases(self, host: str, *phases: str, seconds: float = 1.0) -> None:
        for phase in phases:
            self.emit(PhaseBegun(host, phase))
            self.clock.now += seconds

    def log(self, host: str, lines: Iterable[str]) -> None:
        for line in lines:
            self.emit(Logged(host, line))

    def end(self, host: str, outcome: Outcome, error: str = "", hint: str = "", remains: tuple[str, ...] = ()) -> None:
        result = HostResult(host, outcome, 2.0, 3, 1, error, hint, remains)
        self.results.append(result)
        self.emit(HostDone.of(result))

    def summary(self, run: str = "", failed_hosts_file: str | None = None) -> None:
        self.emit(RunDone(tuple(self.results), 2, 12.5, run, failed_hosts_file))


def mixed(names: Sequence[str] = ("host1", "host2", "host3", "host4")) -> Play:
    """One changed, one rolled back with a log, one unreachable, one not begun; not yet summed up."""
    play = Play(names)
    play.start()
    return play


def go(play: Play) -> None:
    changed, broken, away, *_ = play.names
    play.phases(changed, "connect", "probe", "plan")
    play.emit(planned(changed))
    play.phases(changed, "create", "write", "switch", "confirm")
    play.end(changed, Outcome.CHANGED)
    play.phases(broken, "connect", "probe", "switch")
    play.log(broken, BUILD_LOG)
    play.phases(broken, "unwind")
    play.end(broken, Outcome.ROLLED_BACK, "it does not evaluate; rolled back", "nixos-rebuild build shows it")
    play.phases(away, "connect")
    play.end(away, Outcome.UNREACHABLE, "192.0.2.3 port 22: timed out", "is it up?")
