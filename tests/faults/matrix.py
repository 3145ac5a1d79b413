"""The matrix of faults: die at every named point, go on as somebody else, look that nothing is lost or left.

A trial starts from a clean or an installed host, ends the first operator's program at a point, and lets another one,
with a home of its own, run `up` or `down`. What must be true afterwards is asked of the machine and of GitLab, not of
the program.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Final

from provisioner.engine import crash
from provisioner.lab.running import Lab
from tests.faults import api
from tests.lab.operator import Operator, Said, leftovers, snapshot

RUNNER_UNIT: Final = "nixprov-runner-default.service"
OTHER: Final = {"up": "down", "down": "up"}
# Beside these, points that need a state of their own are prepared in `_prepare`.
PREPARED: Final = ("reset", "update", "surplus")
MAX_CHANGES: Final = 60


@dataclass(frozen=True)
class Fault:
    """Where which verb is to die, and which verb goes on."""

    verb: str
    point: str
    then: str

    def __str__(self) -> str:
        return f"{self.verb} {self.point} then {self.then}"

    @property
    def starts_installed(self) -> bool:
        return self.verb == "down" or self.point.rpartition(":")[2] in ("update", "surplus")

    @property
    def ends_installed(self) -> bool:
        return self.then == "up"


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
        fault = f"{self.fault.verb:<5}{self.fault.point:<26}{self.fault.then:<6}"
        return f"{fault}{self.end:<12}{self.runners:>7} {self.left:>10}   {verdict}"


HEADER: Final = f"{'died':<5}{'at':<26}{'then':<6}{'end state':<12}{'runners':>7} {'files left':>10}"


def all_faults() -> Iterator[Fault]:
    """Every effect's both sides, and the unit's points; the changes of transactions are found by trying."""
    for verb, effects in crash.EFFECTS.items():
        for effect in effects:
            for side in ("before", "after"):
                for then in ("up", "down"):
                    yield Fault(verb, f"{side}:{effect}", then)
        for point in UNIT_POINTS[verb]:
            for then in ("up", "down"):
                yield Fault(verb, f"unit:{point}", then)


UNIT_POINTS: Final = dict.fromkeys(("up", "down"), ("build", "built", "activate", "activated", "commit", "set"))
TRANSACTIONS: Final = {"up": ("claim", "write", "commit"), "down": ("claim", "write", "commit", "clean")}


class Matrix:
    """Trials on one host of a lab; `installed` follows what the host is, so that few trials need a start made."""

    def __init__(self, lab: Lab, host: str, homes: Path) -> None:
        self.lab = lab
        self.host = host
        self._homes = homes
        self.operator()("down", host, "--yes")
        self._before = snapshot(lab, host)
        self.installed = False

    def run(self, fault: Fault) -> Row:
        self._start(installed=fault.starts_installed)
        self._prepare(fault)
        died = self.operator()(fault.verb, self.host, "--yes", "--json", NIXPROV_CRASH=fault.point)
        reached = died.code == -SIGKILL or (fault.point.startswith("unit:") and died.code != 0)
        row = self._judge(fault, self.operator()(fault.then, self.host, "--yes", "--json"), reached=reached)
        self.installed = fault.ends_installed
        if row.problems:
            self._repair()
        return row

    def transaction(self, verb: str, name: str, then: str) -> Iterator[Row]:
        """Die before each change of a transaction, until it has no more."""
        for point in ("staged", *map(str, range(1, MAX_CHANGES))):
            row = self.run(Fault(verb, f"host:{name}:{point}", then))
            if not row.reached:
                return
            yield row

    def operator(self) -> Operator:
        home = self._homes / secrets.token_hex(4)
        home.mkdir()
        return Operator(self.lab, home)

    def runners(self) -> list[int]:
        return [runner["id"] for runner in self.lab.gitlab.runners() if runner["host"] == self.host]

    def _start(self, *, installed: bool) -> None:
        if self.installed != installed:
            said = self.operator()("up" if installed else "down", self.host, "--yes", "--json")
            assert said.code == 0, said.err
            self.installed = installed

    def _prepare(self, fault: Fault) -> None:
        """Make the effect necessary: a runner whose token nobody has, one that was changed, one too many."""
        effect = fault.point.rpartition(":")[2]
        if effect not in PREPARED or fault.verb != "up":
            return
        if effect == "reset":
            self.operator()("up", self.host, "--yes", "--json", NIXPROV_CRASH="after:create")
        elif effect == "update":
            api.pause(self.lab, self.runners()[0])
        else:
            api.double(self.lab, self.runners()[0])

    def _judge(self, fault: Fault, said: Said, *, reached: bool) -> Row:
        problems = [] if said.code == 0 else [f"{fault.then} ended with {said.code}: {last_line(said)}"]
        runners = self.runners()
        left = self._staged() if fault.ends_installed else self._anything()
        problems += [f"left: {line}" for line in left]
        problems += [] if len(runners) == fault.ends_installed else [f"{len(runners)} runners in GitLab"]
        problems += self._installed_problems() if fault.ends_installed else []
        end = "installed" if fault.ends_installed else "gone"
        return Row(fault, reached, end if not problems else "?", len(runners), len(left), tuple(problems))

    def _staged(self) -> list[str]:
        argv = ["find", "/etc/nixos", "/var/lib/nixprov", "-name", "*.nixprov-new", "-o", "-name", "lock"]
        return self.lab.run(self.host, argv).stdout.splitlines()

    def _anything(self) -> list[str]:
        same = snapshot(self.lab, self.host) == self._before
        return [*leftovers(self.lab, self.host).splitlines(), *([] if same else ["/etc/nixos is not as before"])]

    def _installed_problems(self) -> list[str]:
        active = self.lab.run(self.host, ["systemctl", "is-active", RUNNER_UNIT], check=False).stdout.strip()
        plan = self.operator()("plan", self.host, "--json")
        ours = [runner for runner in self.lab.gitlab.runners() if runner["host"] == self.host]
        polls = any(manager["polled"] for runner in ours for manager in runner["managers"])
        return [
            *([] if active == "active" else [f"the unit is {active}"]),
            *([] if polls else ["nobody polls"]),
            *([] if plan.code == 0 and plan.summary["unchanged"] == 1 else [f"not converged: {last_line(plan)}"]),
        ]

    def _repair(self) -> None:
        """After a failed row the next one must start clean, or it tells of the same fault again."""
        self.lab.restore_network(self.host)
        self.operator()("down", self.host, "--yes", "--take-over", "--force")
        self.installed = False


def last_line(said: Said) -> str:
    errors = [str(event.get("error") or "") for event in said.events if event["event"] == "host"]
    return "; ".join(filter(None, errors)) or said.err.strip()[-200:]
