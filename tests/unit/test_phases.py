"""A verb's table of phases: in which order they come, what a plan is made of, and that the docs have the same."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.engine.switch import Detached, DetachedByUser
from provisioner.errors import CiUnavailable, HostError, Locked, NixprovError
from provisioner.events import Warned
from provisioner.report import timeline
from provisioner.verb import Verb
from provisioner.verbs import PHASES, perform
from provisioner.verbs.phases import Change, Finish, Look, Phase, Phases, Unwind, table
from tests.unit.engine_fakes import Stage, stage
from tests.unit.hosts import converged, new_host, runner

ROOT = Path(__file__).parents[2]
ORDER = (Look, Change, Unwind, Finish)


@pytest.mark.parametrize("verb", Verb)
def test_a_table_reads_from_the_top_down(verb: Verb) -> None:
    kinds = [ORDER.index(type(phase)) for phase in PHASES[verb]]
    assert kinds == sorted(kinds)
    assert kinds.count(ORDER.index(Unwind)) == verb.changes


@pytest.mark.parametrize("verb", [verb for verb in Verb if not verb.changes])
def test_what_changes_nothing_is_made_of_looks(verb: Verb) -> None:
    assert {type(phase) for phase in PHASES[verb]} == {Look}


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb.plans])
def test_a_plan_looks_as_its_verb_does(verb: Verb) -> None:
    looks = [phase for phase in PHASES[verb.applied] if isinstance(phase, Look)]
    assert list(PHASES[verb]) == looks


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb.changes])
def test_the_docs_have_the_table(verb: Verb) -> None:
    assert table(PHASES[verb]) in (ROOT / "docs/architecture.md").read_text(), "run scripts/docs"


@pytest.mark.parametrize("verb", Verb)
def test_each_phase_says_what_happens(verb: Verb) -> None:
    assert [phase.name for phase in PHASES[verb] if not phase.about] == []


@pytest.mark.parametrize("verb", Verb)
def test_each_phase_has_a_colour_and_is_documented(verb: Verb) -> None:
    names = {phase.name for phase in PHASES[verb]}
    (row,) = [line for line in (ROOT / "docs/json.md").read_text().splitlines() if line.startswith("| `phase` |")]
    assert names <= set(timeline.PHASES)
    assert names <= set(re.findall(r"\w+", row))


def said(it: Stage, *, fails: type[Phase] | None = None, error: NixprovError | None = None) -> list[str]:
    """The phases that are done, where the one of the kind `fails` raises; each is named by its kind."""
    done: list[str] = []

    def row(kind: type[Phase]) -> Phase:
        def do(_: object) -> None:
            done.append(kind.__name__)
            if kind is fails and error is not None:
                raise error

        return kind(kind.__name__, do)

    phases = Phases(lambda: tuple(map(row, ORDER)))
    try:
        phases.look(it.host)
        phases.change(it.host)
    except NixprovError as raised:
        done.append(type(raised).__name__)
    return done


def test_unwound_is_what_fails_before_the_host_is_as_wanted() -> None:
    broken = HostError("host1", "no")
    it = stage(new_host(), None)
    assert said(it) == ["Look", "Change", "Finish"]
    assert said(it, fails=Change, error=broken) == ["Look", "Change", "Unwind", "HostError"]
    assert said(it, fails=Finish, error=broken) == ["Look", "Change", "Finish", "HostError"]
    it.host.ledger.is_written = True
    assert said(it, fails=Change, error=broken) == ["Look", "Change", "Unwind", "RolledBack"]


@pytest.mark.parametrize(
    "left", [Detached("host1", "gone"), DetachedByUser("host1", "interrupted")], ids=["cut", "told to"]
)
def test_a_switch_that_goes_on_without_us_is_not_unwound(left: NixprovError) -> None:
    it = stage(new_host(), None)
    it.host.ledger.is_written = True
    assert said(it, fails=Change, error=left) == ["Look", "Change", type(left).__name__]


@pytest.mark.parametrize("used", [False, True])
def test_a_host_that_was_taken_over_is_left_and_its_unused_runner_withdrawn(*, used: bool) -> None:
    facts, journal = converged()
    it = stage(facts, journal, runner())
    it.host.machine.probe()
    it.host.ledger.is_written = True
    it.host.ledger.created.append(7 if used else 99)
    assert said(it, fails=Change, error=Locked("host1", "another run")) == ["Look", "Change", "Locked"]
    assert it.api.said == ([] if used else [("delete", 99), ("get", 99)])


def test_a_runner_that_changed_alone_is_said_to_stay_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was claimed for it, and yet it is no secret."""
    it = stage(*converged(), runner(tags=("old",)), runner(8))
    it.plan()
    it.host.plan = replace(it.host.plan, runners=(*it.host.plan.runners, *it.host.plan.runner_changes[:1]))
    updates = iter([None, CiUnavailable("502")])

    def update(*_: object) -> None:
        if error := next(updates):
            raise error

    monkeypatch.setattr(it.api, "update", update)
    with pytest.raises(CiUnavailable):
        it.apply()
    assert it.texts(Warned) == ["runner default keeps in GitLab what this run changed there: tags: old -> none"]


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb.changes])
def test_what_comes_too_late_changes_nothing(verb: Verb) -> None:
    it = stage(*converged(), runner(tags=("old",)), verb=verb.value)
    with pytest.raises(HostError, match="interrupted before anything was changed"):
        perform(it.host, lambda: False)
    assert not any("touched=yes" in script for script in it.session.scripts)
    assert {name for name, _ in it.api.said} == {"get"}


@pytest.mark.parametrize(
    ("verb", "changes", "plans", "removes", "applied"),
    [
        ("up", True, False, False, "up"),
        ("down", True, False, True, "down"),
        ("plan", False, True, False, "up"),
        ("plan down", False, True, True, "down"),
        ("status", False, False, False, "up"),
    ],
)
def test_what_a_verb_means(verb: str, changes: bool, plans: bool, removes: bool, applied: str) -> None:
    it = Verb(verb)
    assert (it.changes, it.plans, it.removes, it.applied) == (changes, plans, removes, Verb(applied))
