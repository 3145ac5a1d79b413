"""A host and a GitLab of a few lines, for tests of what the engine does in which order. Nothing is run: a transaction's
script is read for the journal and the tokens it would write, and what the test says becomes of it does.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from provisioner.ci.gitlab.api import Api
from provisioner.ci.gitlab.provider import GitLab
from provisioner.ci.gitlab.values import Manager, Registration, Runner, RunnerStatus
from provisioner.engine.host import Choices, Context, Host, Limits, Machine
from provisioner.errors import CiUnavailable, ConnectionLost, NixprovError
from provisioner.events import Event, Logged, StatusRead, Warned
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal, Run
from provisioner.machine.things import asking
from provisioner.machine.transaction import JOURNAL
from provisioner.model import HostSpec, Mark, RunnerSpec, Secret
from provisioner.plan import HostPlan
from provisioner.ssh.exec import Completed
from provisioner.ssh.session import Session
from provisioner.steps import things
from provisioner.verb import Verb
from provisioner.verbs import PHASES, status
from tests.unit.hosts import URL, spec

_STAGED = re.compile(r"printf %s (\S+) \| stage (\S+) ")
QUICK = Limits(contact_s=0.05, poll_s=0.01, confirm_s=180)


@dataclass
class FakeSession:
    """`records` is what a probe finds; `answers` is asked first: what a script is answered with, None for the usual.

    `cuts`: what still comes of each next answer before the connection is lost.
    """

    records: dict[str, bytes]
    answers: Callable[[str], Completed | None] = lambda _script: None
    cuts: list[bytes] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    journals: list[bytes] = field(default_factory=list)
    commands: int = 0
    connections: int = 1

    def run(self, script: bytes, **options: Any) -> Completed:
        text = script.decode()
        self.scripts.append(text)
        self.limits.append(options["timeout_s"])
        if self.cuts:
            options["on_output"](self.cuts.pop(0))
            raise ConnectionLost("host1", "cut")
        answer = self.answers(text) or self._usual(text)
        if options.get("on_output"):
            options["on_output"](answer.stdout)
        return answer

    def reconnect(self, **_: object) -> None:
        self.connections += 1

    def _usual(self, text: str) -> Completed:
        if "say probe-end" in text:
            lines = [b"%s %s" % (name.encode(), base64.b64encode(data)) for name, data in self.records.items()]
            return Completed(0, b"\n".join([*lines, b"probe-end eWVz", b""]), "")
        if "touched=yes" in text:
            self.transact(text)
        return Completed(0, b"end exited activate 0 4\n" if "after=" in text else b"", "")

    def transact(self, text: str) -> None:
        for words, place in _STAGED.findall(text):
            # No sign of base64 needs more than quotes around it, and shlex takes half a second for a module.
            content = base64.b64decode(words.replace("'", ""))
            if place == JOURNAL:
                self.journals.append(content)
                self.records["journal.data"] = content
            elif (thing := asking(place, things())) and thing.is_secret:
                self.records[f"{thing.record_of(place)}.stat"] = b"600 0 0 500 regular file"
        if f"rm -f {JOURNAL}\n" in text or "rm -rf --one-file-system /var/lib/nixprov\n" in text:
            self.records.pop("journal.data", None)

    @property
    def journal(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self.records["journal.data"]))


@dataclass
class FakeApi:
    """`fails`: what a method raises, by its name; `jobs` run on every runner, and are not told
    the first `silent_for` times; `status` is of managers.
    """

    there: dict[int, Runner]
    fails: dict[str, NixprovError] = field(default_factory=dict)
    said: list[tuple[str, object]] = field(default_factory=list)
    url: str = URL
    jobs: int = 0
    silent_for: int = 0
    status: RunnerStatus = RunnerStatus.ONLINE

    def _do(self, name: str, argument: object = None) -> None:
        self.said.append((name, argument))
        if name in self.fails:
            raise self.fails[name]

    def runners(self, *_: object) -> tuple[Runner, ...]:
        return tuple(self.there.values())

    def get(self, id_: int) -> Runner | None:
        self._do("get", id_)
        return self.there.get(id_)

    def create(self, wanted: RunnerSpec, mark: Mark) -> Registration:
        self._do("create", wanted.name)
        made = Runner(99, mark.describe(""), wanted.type, False, RunnerStatus.NEVER_CONTACTED)
        self.there[made.id] = made
        return Registration(made.id, Secret("glrt-new"))

    def reset_token(self, id_: int) -> Registration:
        self._do("reset", id_)
        return Registration(id_, Secret("glrt-reset"))

    def update(self, id_: int, *_: object) -> None:
        self._do("update", id_)

    def set_paused(self, id_: int, paused: bool) -> None:
        self._do("pause" if paused else "resume", id_)
        self.there[id_] = replace(self.there[id_], paused=paused)

    def running_jobs(self, id_: int) -> int:
        self._do("jobs", id_)
        if self.silent_for:
            self.silent_for -= 1
            raise CiUnavailable("502")
        return self.jobs

    def managers(self, id_: int) -> tuple[Manager, ...]:
        self._do("managers", id_)
        return (Manager(1, "s_1", "2026-01-01T00:00:00Z", self.status),)

    def delete(self, id_: int) -> bool:
        self._do("delete", id_)
        self.there.pop(id_, None)
        return True


@dataclass
class Stage:
    """One host, one GitLab, one verb on them."""

    session: FakeSession
    api: FakeApi
    host: Host
    events: list[Event]

    def plan(self) -> HostPlan:
        """Probe and plan; the looks after it ask for answers that no fake has."""
        for phase in PHASES[self.host.context.verb]:
            if phase.name in ("probe", "plan"):
                phase.enter(self.host)
        return self.host.plan

    def apply(self) -> None:
        """Make true what was planned."""
        PHASES[self.host.context.verb].change(self.host)

    def report(self) -> StatusRead:
        """What `status` says."""
        status.probe(self.host)
        return status.report(self.host)

    def change(self, **context: Any) -> None:
        """Other limits or choices for the same host."""
        self.host.context = self.host.machine.context = replace(self.host.context, **context)

    def texts(self, kind: type[Warned | Logged]) -> list[str]:
        return [event.text for event in self.events if isinstance(event, kind)]


def stage(
    facts: Facts,
    journal: Journal | None,
    *there: Runner,
    verb: str = "up",
    host: HostSpec | None = None,
    limits: Limits = QUICK,
    **choices: Any,
) -> Stage:
    records: Mapping[str, bytes] = dict(facts.records)
    session = FakeSession({**records, **({"journal.data": journal.render()} if journal else {})})
    api = FakeApi({runner.id: runner for runner in there})
    events: list[Event] = []
    context = Context(
        host or spec(),
        GitLab(cast("Api", api)),
        events.append,
        Run("this-run", verb, "me@here", "2026-01-01T00:00:00+00:00"),
        Verb(verb),
        limits,
        Choices(**choices),
    )
    return Stage(session, api, Host(context, Machine(context, cast("Session", session))), events)


def switch_ends(line: str) -> Callable[[str], Completed | None]:
    """Every switch that is followed ends so: `SUBSTATE PHASE STATUS GENERATION WHY`."""
    return lambda script: Completed(0, f"end {line}\n".encode(), "") if "after=" in script else None


def lost(*_: object) -> None:
    raise ConnectionLost("host1", "the connection was lost while a command ran")
