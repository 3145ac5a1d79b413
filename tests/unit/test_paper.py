"""`up`, `status`, `prune` and `down` with a provider that is not GitLab: the seam holds, and its words are what is read.

Everything that people read of a run is collected: plans, warnings, errors, remains, reports. None of it says GitLab.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from provisioner.ci.base import Enrolled
from provisioner.diff import plan_diffs
from provisioner.engine.host import Choices, Context, Host, Machine
from provisioner.engine.unwind import RolledBack
from provisioner.errors import CiUnavailable, NixprovError
from provisioner.events import Event, HostDone, Planned, RunDone, RunnerGone, RunStarted
from provisioner.machine.journal import Phase, Run
from provisioner.model import Identity, Mark
from provisioner.outcome import HostResult, Outcome
from provisioner.report import html
from provisioner.report.record import RunRecord
from provisioner.report.text import PlainText
from provisioner.ssh.exec import Completed
from provisioner.ssh.session import Session
from provisioner.verb import Verb
from provisioner.verbs import PHASES, prune
from tests.unit.engine_fakes import QUICK, FakeSession, switch_ends
from tests.unit.hosts import new_host, spec
from tests.unit.paper import Mill


class Machinery(FakeSession):
    """A host with presses: a switch starts or ends them, and what was removed is not there any more."""

    mill: Mill
    verb: Verb

    def _usual(self, text: str) -> Completed:
        done = super()._usual(text)
        if "after=" in text:
            self.switched()
        if "/var/lib/nixprov-containers" in text and "touched=yes" in text:
            self.records = {name: data for name, data in self.records.items() if not name.startswith("secrets/")}
        return done

    def switched(self) -> None:
        if self.verb is Verb.UP:
            self.records["revision"] = b"ours"
            self.mill.presses += [str(one["id"]) for one in self.journal["runners"].values()]
        else:
            del self.records["revision"]


@dataclass
class Site:
    """One host and the mill; `read` is all that people read."""

    mill: Mill = field(default_factory=Mill)
    session: Machinery = field(default_factory=lambda: Machinery(dict(new_host().records)))
    events: list[Event] = field(default_factory=list)
    errors: list[NixprovError] = field(default_factory=list)
    host: Host = field(init=False)

    def go(self, verb: Verb, **choices: bool) -> Site:
        self.session.mill, self.session.verb = self.mill, verb
        run = Run(f"{verb.value}-{len(self.events)}", verb.value, "me@here", "2026-01-01T00:00:00+00:00")
        context = Context(spec(), self.mill, self.events.append, run, verb, QUICK, Choices(**choices))
        self.host = Host(context, Machine(context, cast("Session", self.session)))
        for phase in PHASES[verb]:
            if phase.name in ("probe", "plan"):
                phase.enter(self.host)
        if verb is Verb.STATUS:
            return self
        plan = self.host.plan
        self.events.append(Planned.of(plan, plan_diffs(plan, ()), None, check=False))
        try:
            PHASES[verb].change(self.host)
        except NixprovError as error:
            self.errors.append(error)
        return self

    @property
    def error(self) -> NixprovError:
        return self.errors[-1]

    def read(self) -> str:
        """Through every report for people."""
        out, record = io.StringIO(), RunRecord()
        gone = RunnerGone("old", "default", "stamp-9", "in use")
        names = ("host1",)
        result = HostResult(
            "host1",
            Outcome.CI if self.errors else Outcome.CHANGED,
            1.0,
            error="; ".join(str(error) for error in self.errors),
            remains=tuple(self.host.ledger.remains),
        )
        reports = (record, PlainText(out, out, record, diff=True))
        start = RunStarted("status", "r", "me@here", names, self.mill.server.words)
        for event in (start, *self.events, gone, HostDone.of(result), RunDone((result,), 2, 1.0)):
            for report in reports:
                report.event(event)
        return out.getvalue() + html.page(record)


def assert_words(text: str, *said: str) -> None:
    assert "gitlab" not in text.lower(), text[text.lower().index("gitlab") - 80 :][:160]
    for words in said:
        assert words in text, (words, text)


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_host_comes_and_goes(site: Site) -> None:
    site.go(Verb.UP)
    assert site.errors == []
    assert (list(site.mill.stamps), site.mill.presses) == (["stamp-1"], ["stamp-1"])
    assert site.session.journal["runners"]["default"]["id"] == "stamp-1"
    assert site.session.journal["runners"]["default"]["url"] == site.mill.server.url
    assert site.session.journal["phase"] == Phase.CONFIRMED.value
    site.go(Verb.STATUS)
    site.go(Verb.DOWN)
    assert site.errors == []
    assert site.mill.stamps == {}
    assert site.mill.said[-1] == "withdraw stamp-1"
    told = ("mill: create stamp default: the mill has none", "mill: delete stamp default", "2 writes to Paper Mill")
    assert_words(
        site.read(), *told, "stamp default: ", "Paper Mill #stamp-1 in use", "Paper Mill has its stamp default"
    )


def test_force_ends_jobs_with_the_signal_of_the_provider(site: Site) -> None:
    site.go(Verb.UP).go(Verb.DOWN, force=True)
    assert any("systemctl kill --signal=SIGQUIT 'nixprov-runner-*.service'" in one for one in site.session.scripts)


def test_a_stamp_is_replaced_with_overlap(site: Site) -> None:
    """The old one goes last: until the new one is confirmed both count, and no answer of a renewal can be lost."""
    site.go(Verb.UP).go(Verb.UP, new_tokens=True)
    assert site.errors == []
    assert list(site.mill.stamps) == ["stamp-2"]
    assert site.mill.said == ["enrol default", "enrol default", "withdraw stamp-1"]
    assert site.session.journal["runners"]["default"]["id"] == "stamp-2"


def test_a_press_that_never_comes_is_told_in_its_words_and_unwound(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mill, "confirm", lambda *_: False)
    site.go(Verb.UP)
    assert isinstance(site.error, RolledBack)
    assert site.mill.stamps == {}
    assert_words(site.read(), "Paper Mill at https://mill.example was not polled by stamp default within 0.05 s")


def test_a_mill_that_is_down_keeps_no_host(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise CiUnavailable("the mill is closed")

    site.go(Verb.UP)
    monkeypatch.setattr(Mill, "look", closed)
    monkeypatch.setattr(Mill, "withdraw", closed)
    monkeypatch.setattr(Mill, "quiesce", closed)
    site.go(Verb.DOWN)
    assert isinstance(site.error, CiUnavailable)
    assert site.session.journal["pending_deletions"][0]["id"] == "stamp-1"
    waits = "stamp stamp-1 in Paper Mill, which the next `down` or `prune` deletes"
    assert_words(site.read(), waits, "the mill is closed: the host's side goes on")


def test_a_down_that_fails_names_a_stamp_that_stays_quiet(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(*_: object) -> None:
        raise CiUnavailable("the mill is closed")

    site.go(Verb.UP)
    monkeypatch.setattr(Mill, "resume", stuck)
    site.session.answers = switch_ends("failed build 20 4")
    site.go(Verb.DOWN)
    assert_words(site.read(), "stamp stamp-1 in Paper Mill is paused", "the stamp stays paused until `nixprov up`")


def test_prune_speaks_of_stamps_and_finds_them_by_their_ids(site: Site) -> None:
    site.go(Verb.UP)
    known = {"host1": prune.Known.of(site.host.machine)}
    site.mill.stamps["stamp-7"] = Mark("old", "default", "f" * 12)
    view = prune.look(site.mill, [spec()], {"host1"}, lambda: known)
    (found,) = prune.findings(view)
    words = site.mill.server.words
    assert found.told(words) == "stamp stamp-7 (old/default, in use): old is not in the inventory"
    done: list[Identity] = []
    prune.delete(site.mill, [found], lambda one: done.append(one.id))
    assert (done, list(site.mill.stamps)) == (["stamp-7"], ["stamp-1"])
    (by_id,) = prune.named(site.mill, "stamp-1")
    assert isinstance(by_id.runner, Enrolled)
    lost = prune.look(replace_stamps(site.mill), [spec()], {"host1"}, lambda: known)
    assert_words(" ".join(one.told(words) for one in prune.findings(lost)), "Paper Mill no stamp stamp-1")


def replace_stamps(mill: Mill) -> Mill:
    return replace(mill, stamps={})
