"""A second provider, in memory, that shares nothing with GitLab: it shows whether the seam holds.

It is made like those whose agents make themselves: what is enrolled is a stamp that any number of presses use, a stamp
cannot be renewed but only be replaced by a second one, ids are text, and a press finishes its sheets as its unit stops.
"""

# ruff: noqa: ARG002 - a provider is told more than this one needs
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from provisioner.ci.base import (
    Credential,
    Enrolled,
    Held,
    HostSide,
    Kind,
    Presence,
    Provider,
    RunnerAction,
    RunnerVerb,
    Server,
    Words,
)
from provisioner.model import HostSpec, Identity, Mark, RunnerSpec, Secret

URL = "https://mill.example"
WORDS = Words(key="mill", name="Paper Mill", runner="stamp", process="press", credential="stamp")


@dataclass(frozen=True)
class Stamps:
    """What the mill had of one host."""

    wanted: Sequence[str]
    there: Mapping[str, Mark]

    @property
    def found(self) -> Mapping[str, Sequence[Enrolled]]:
        return {
            name: [Enrolled(id_, mark, "in use", polls=True) for id_, mark in self.there.items() if mark.runner == name]
            for name in self.wanted
        }

    def to_have(
        self, spec: HostSpec, machine: str, held: Mapping[str, Held], *, renew: bool = False
    ) -> Sequence[RunnerAction]:
        kept = {
            name: have.id for name, have in held.items() if have.has_credential and have.id in self.there and not renew
        }
        wanted = [
            RunnerAction(name, RunnerVerb.KEEP, id=kept[name])
            if name in kept
            else RunnerAction(name, RunnerVerb.CREATE, "the mill has none")
            for name in self.wanted
        ]
        rest = [
            RunnerAction(mark.runner, RunnerVerb.DELETE, "nobody uses it", id_)
            for id_, mark in self.there.items()
            if id_ not in kept.values()
        ]
        return [*wanted, *rest]

    def to_lose(self) -> Sequence[RunnerAction]:
        return [RunnerAction(mark.runner, RunnerVerb.DELETE, f"stamp {id_}", id_) for id_, mark in self.there.items()]


@dataclass
class Mill:
    """The server and its client in one. `presses`: which stamps a press works with, in order of their start."""

    stamps: dict[str, Mark] = field(default_factory=dict)
    presses: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    server = Server(WORDS, HostSide("gitlab", ("runner.nix", "toml.nix"), "gitlabUrl", "SIGQUIT"), URL)
    warnings: Sequence[str] = ()
    writes = 0
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def check(self) -> None: ...

    def close(self) -> None: ...

    def look(self, spec: HostSpec, machine: str, known: Collection[Identity]) -> Stamps:
        there = {id_: mark for id_, mark in self.stamps.items() if mark.machine == machine}
        return Stamps([runner.name for runner in spec.runners], there)

    def enrol(self, spec: RunnerSpec, mark: Mark, runner: Identity | None = None) -> Credential:
        assert runner is None, "a stamp is replaced, never renewed"
        id_ = f"stamp-{next(self._numbers)}"
        self.said.append(f"enrol {spec.name}")
        self.writes += 1
        self.stamps[id_] = mark
        return Credential(id_, Secret(f"bkct_{id_}"))

    def adjust(self, runner: Identity, spec: RunnerSpec, mark: Mark) -> None:
        raise AssertionError("the mill keeps no settings")

    def presences(self, runner: Identity) -> Sequence[Presence]:
        return [Presence(f"press {number}", "in use") for number, id_ in enumerate(self.presses) if id_ == runner]

    def confirm(self, runner: Identity) -> bool:
        return runner in self.presses

    def quiesce(self, runner: Identity) -> bool:
        self.said.append(f"quiesce {runner}")
        return False

    def running_jobs(self, runner: Identity) -> int:
        raise AssertionError("its unit waits for them")

    def is_quiet(self, runner: Identity) -> bool:
        return False

    def resume(self, runner: Identity) -> None:
        self.said.append(f"resume {runner}")

    def withdraw(self, runner: Identity) -> None:
        self.said.append(f"withdraw {runner}")
        self.writes += 1
        self.stamps.pop(str(runner), None)

    def listed(self, hosts: Iterable[HostSpec]) -> Sequence[Enrolled]:
        return [Enrolled(id_, mark, "in use", id_ in self.presses) for id_, mark in self.stamps.items()]

    def find(self, runner: Identity) -> Enrolled | None:
        mark = self.stamps.get(str(runner))
        return Enrolled(runner, mark, "in use", runner in self.presses) if mark else None


def kind(mill: Mill) -> Kind:
    """As a provider's folder would declare it."""

    def connect(environ: Mapping[str, str], options: Mapping[str, str]) -> Provider:
        return mill

    return Kind(
        WORDS,
        mill.server.host_side,
        options=(),
        variables=(),
        secrets=r"\b(bkct_)\w+",
        identify=lambda text: text if text.startswith("stamp-") else None,
        connect=connect,
    )
