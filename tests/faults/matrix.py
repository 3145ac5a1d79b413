"""The matrix of faults: die at every named point, go on as somebody else, look that nothing is lost or left.

A trial starts from a clean or an installed host, ends the first operator's program at a point, and lets another one,
with a home of its own, run `up` or `down`. What must be true afterwards is asked of the machine and of GitLab, not of
the program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Final

from nixprov_lab.running import Lab

from provisioner.engine import crash
from tests.faults import api
from tests.faults.machine import Begun
from tests.faults.scenes import SCENES, SECOND, Place, Scene
from tests.lab.operator import Said, leftovers, snapshot

RUNNER_UNIT: Final = "nixprov-runner-default.service"
MAX_CHANGES: Final = 60
BOTH: Final = ("up", "down")


@dataclass(frozen=True)
class Fault:
    """Where which verb is to die, in which scene, and which verb goes on. `power:PHASE` ends the whole machine."""

    verb: str
    point: str
    then: str
    scene: str = ""

    def __str__(self) -> str:
        return f"{self.name} then {self.then}"

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.verb, self.scene and f"({self.scene})", self.point)))

    @property
    def transaction(self) -> str:
        """The fault's name without the number of the change, if it is in a transaction."""
        return self.name.rpartition(":")[0] if "host:" in self.point else ""

    @property
    def starts_installed(self) -> bool:
        wanted = SCENES[self.scene].installed
        return self.verb == "down" if wanted is None else wanted

    @property
    def ends_installed(self) -> bool:
        return self.then == "up"

    @property
    def runners(self) -> int:
        """How many GitLab must have in the end."""
        return SCENES[self.scene].runners if self.ends_installed else 0


@dataclass(frozen=True)
class Row:
    """How a trial ended: `problems` is empty when all is as it must be; `reached`: whether anything died at all."""

    fault: Fault
    reached: bool
    end: str
    runners: int
    left: int
    problems: tuple[str, ...]

    def line(self) -> str:
        verdict = "ok" if not self.problems else "LOST: " + "; ".join(self.problems)
        return f"{self.fault.name:<48}{self.fault.then:<6}{self.cell()}   {verdict}"

    def cell(self) -> str:
        return f"{self.end:<10}{self.runners:>8}{self.left:>6}"


HEADER: Final = f"{'died at':<48}{'then':<6}{'end':<10}{'runners':>8}{'left':>6}"

# Effects that need a state of their own.
_NEEDS: Final = {"reset": "token lost", "update": "paused", "surplus": "doubled"}
_UNIT_POINTS: Final = ("build", "built", "activate", "activated", "commit", "set")

# Verb, scene, point. What is taken back, ended or put off can be cut short as well; so can what was cut short before.
_DETOURS: Final = (
    *((verb, f"left by {other}", f"{side}:settle") for verb in BOTH for other in BOTH for side in ("before", "after")),
    *(
        ("up", "", f"unit:activated,{side}:{effect}")
        for effect in ("unwind", "clean", "disown")
        for side in ("before", "after")
    ),
    *(("up", "at once", f"unit:activate,{side}:unwind") for side in ("before", "after")),
    *(
        ("down", "", f"unit:activated,{side}:{effect}")
        for effect in ("unwind", "resume")
        for side in ("before", "after")
    ),
    *(("down", "busy", f"{side}:{effect}") for effect in ("resume", "release") for side in ("before", "after")),
    *(("down", "deaf", f"{side}:queue") for side in ("before", "after")),
    *(("prune", "doubled", f"{side}:prune") for side in ("before", "after")),
    *(("up", "new tokens", point) for point in ("before:reset", "after:reset", "unit:build")),
    # Before the token gets its name, before the journal does, and after both.
    *(("up", "new tokens", f"host:write:{number}") for number in (1, 2, 3)),
    ("up", "two", "after:create:default"),
    ("up", "two", f"before:create:{SECOND}"),
    ("up", "two", f"after:create:{SECOND}"),
    ("down", "two", "after:delete:default"),
    ("down", "two", f"after:delete:{SECOND}"),
    *((verb, "", f"power:{phase}") for verb in BOTH for phase in ("build", "activate", "waits")),
)
# The unit goes back only when the second verb is another one than the first.
_GOING_BACK: Final = tuple(
    (verb, then, f"before:commit,unit:{point}")
    for verb, then in (("up", "down"), ("down", "up"))
    for point in ("back", "activated-old")
)

# Verb, scene, what is to be reached before, transaction.
TRANSACTIONS: Final = (
    *(("up", "", "", name) for name in ("claim", "write", "commit")),
    *(("down", "", "", name) for name in ("claim", "write", "commit", "clean")),
    ("up", "at once", "unit:activate,", "unwind"),
    ("down", "busy", "", "release"),
    ("down", "deaf", "", "queue"),
)


def all_faults() -> Iterator[Fault]:
    """Every effect's both sides, and the unit's points; the changes of transactions are found by trying."""
    for verb, effects in crash.EFFECTS.items():
        points = [(effect, f"{side}:{effect}") for effect in effects for side in ("before", "after")]
        for effect, point in (*points, *(("", f"unit:{point}") for point in _UNIT_POINTS)):
            for then in BOTH:
                yield Fault(verb, point, then, _NEEDS.get(effect, "") if verb == "up" else "")
    for verb, scene, point in _DETOURS:
        for then in BOTH:
            yield Fault(verb, point, then, scene)
    for verb, then, point in _GOING_BACK:
        yield Fault(verb, point, then)


class Matrix:
    """Trials on one host of a lab; `installed` follows what the host is, so that few trials need a start made."""

    def __init__(self, lab: Lab, host: str, homes: Path) -> None:
        self.lab = lab
        self.host = host
        self.place = Place(lab, host, homes)
        self.place.operator()("down", host, "--yes")
        self._before = snapshot(lab, host)
        self.installed: bool | None = False

    def run(self, fault: Fault) -> Row:
        scene = SCENES[fault.scene]
        if problem := self._start(installed=fault.starts_installed, scene=scene):
            self._repair()
            return Row(fault, True, "?", len(self.place.runners()), 0, (problem,))
        scene.before(self.place)
        reached = self._die(fault, scene)
        scene.after(self.place)
        said = self._operator(scene, fault.then, "--yes", "--json")
        row = self._judge(fault, said, reached=reached)
        self.installed = fault.ends_installed if scene.runners == 1 or not fault.ends_installed else None
        if row.problems:
            self._repair()
        return row

    def transaction(self, verb: str, scene: str, first: str, name: str, then: str) -> Iterator[Row]:
        """Die before each change of a transaction, until it has no more."""
        for point in ("staged", *map(str, range(1, MAX_CHANGES))):
            row = self.run(Fault(verb, f"{first}host:{name}:{point}", then, scene))
            if not row.reached:
                return
            yield row

    def leave(self) -> None:
        """A lab that was given may be used on."""
        self.place.operator()("down", self.host, "--yes")

    def _operator(self, scene: Scene, verb: str, *options: str, **settings: str) -> Said:
        return self.place.operator()(verb, self.host, *options, **self._settings(scene), **settings)

    def _settings(self, scene: Scene) -> Mapping[str, str]:
        return {"NIXPROV_INVENTORY": self.place.two_runners()} if scene.runners == 2 else {}

    def _die(self, fault: Fault, scene: Scene) -> bool:
        """Whether anything died."""
        if fault.point.startswith("power:"):
            return self._lose_power(fault)
        shape = () if fault.verb == "prune" else ("--json",)
        killed = self._killed_units()
        died = self._operator(scene, fault.verb, "--yes", *shape, *scene.options, NIXPROV_CRASH=fault.point)
        only_the_unit = fault.point.startswith("unit:") and "," not in fault.point
        # The host may have ended by itself what was killed there, and then the run is a good one.
        return died.code == -SIGKILL or (only_the_unit and self._killed_units() > killed)

    def _killed_units(self) -> int:
        """How often a process of a switch was killed on the host, by systemd's word."""
        words = ["journalctl", "--quiet", "--output=cat", "--unit=nixprov-switch.service", "--grep=status=9/KILL"]
        return len(self.lab.run(self.host, words, check=False).stdout.splitlines())

    def _lose_power(self, fault: Fault) -> bool:
        """The machine and the operator's program at once, when the switch's log says where it is."""
        run = Begun(self.place.operator(), fault.verb, self.host, "--yes")
        phase = fault.point.removeprefix("power:")
        if phase == "waits":
            run.log("nixprov: activate")
            run.phase("confirm") if fault.verb == "up" else run.log("starting the following units")
        else:
            run.log(f"nixprov: {phase}")
        self.lab.stop_host(self.host, hard=True)
        run.process.kill()
        run.end()
        self.lab.start_host(self.host)
        return True

    def _start(self, *, installed: bool, scene: Scene) -> str:
        """Why it could not be made as the trial needs it; empty when it is so."""
        if self.installed != installed or (installed and scene.runners > 1):
            said = self._operator(scene, "up" if installed else "down", "--yes", "--json")
            if said.code != 0:
                return f"the start ended with {said.code}: {last_line(said)}"
            self.installed = installed
        return ""

    def _judge(self, fault: Fault, said: Said, *, reached: bool) -> Row:
        problems = [] if said.code == 0 else [f"{fault.then} ended with {said.code}: {last_line(said)}"]
        runners = len(self.place.runners())
        left = self._unfinished() if fault.ends_installed else self._anything()
        problems += [f"left: {line}" for line in left]
        problems += [] if runners == fault.runners else [f"{runners} runners in GitLab"]
        problems += self._installed_problems(SCENES[fault.scene]) if fault.ends_installed else []
        end = "installed" if fault.ends_installed else "gone"
        return Row(fault, reached, end if not problems else "?", runners, len(left), tuple(problems))

    def _unfinished(self) -> list[str]:
        """What only a run that goes on has on a host."""
        places = ["/etc/nixos", "/var/lib/nixprov", "/etc/systemd/system.control"]
        names = ["*.nixprov-new", "lock", "open", "confirmed", "undo.sh", "nixprov-back.service"]
        tests = [word for name in names for word in ("-o", "-name", name)][1:]
        return self.lab.run(self.host, ["find", *places, *tests], check=False).stdout.splitlines()

    def _anything(self) -> list[str]:
        same = snapshot(self.lab, self.host) == self._before
        return [*leftovers(self.lab, self.host).splitlines(), *([] if same else ["/etc/nixos is not as before"])]

    def _installed_problems(self, scene: Scene) -> list[str]:
        active = self.lab.run(self.host, ["systemctl", "is-active", RUNNER_UNIT], check=False).stdout.strip()
        plan = self._operator(scene, "plan", "--json")
        ours = [runner for runner in self.lab.gitlab.runners() if runner["host"] == self.host]
        polls = all(any(manager["polled"] for manager in runner["managers"]) for runner in ours)
        polls = polls and api.takes_token(self.lab, self.host)
        return [
            *([] if active == "active" else [f"the unit is {active}"]),
            *([] if polls else ["nobody polls"]),
            *([] if not any(runner["paused"] for runner in ours) else ["paused"]),
            *([] if plan.code == 0 and plan.summary["unchanged"] == 1 else [f"not converged: {last_line(plan)}"]),
        ]

    def _repair(self) -> None:
        """After a failed row the next one must start clean, or it tells of the same fault again."""
        self.lab.restore_network(self.host)
        self.place.operator()("down", self.host, "--yes", "--take-over", "--force")
        self.installed = False


def last_line(said: Said) -> str:
    errors = [str(event.get("error") or "") for event in said.events if event["event"] == "host"]
    return "; ".join(filter(None, errors)) or said.err.strip()[-200:]
