"""What `up` and `down` decide, as tables over hosts made of facts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from provisioner.ci.base import RunnerVerb
from provisioner.ci.gitlab.plan import HostRunners
from provisioner.ci.gitlab.values import Runner
from provisioner.errors import HookRefused, HostRefused
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal, Phase
from provisioner.model import RunnerSpec
from provisioner.plan import file_changes, plan_down, plan_up
from tests.unit.hosts import CONFIGURATION, RECORD, SERVER, URL, converged, new_host, runner, spec


def view(*found: Runner, surplus: tuple[Runner, ...] = ()) -> HostRunners:
    return HostRunners({"default": found}, surplus)


def without(facts: Facts, *names: str) -> Facts:
    return Facts(facts.host, {name: value for name, value in facts.records.items() if not name.startswith(names)})


def test_a_new_host_gets_everything() -> None:
    plan = plan_up(spec(), new_host(), Journal(), SERVER, view())
    assert [(action.verb, action.id) for action in plan.runners] == [(RunnerVerb.CREATE, None)]
    assert {action.step for action in plan.steps} == {"state", "secrets", "module", "hook"}
    assert plan.switch


def test_a_converged_host_gets_nothing() -> None:
    facts, journal = converged()
    plan = plan_up(spec(), facts, journal, SERVER, view(runner()))
    assert plan.lines() == ()
    assert plan.is_empty


@pytest.mark.parametrize(
    ("lost", "step"),
    [("configuration.", None), ("module/runner.nix", "module"), ("module/", "module"), ("secrets/", "secrets")],
)
def test_what_is_lost_is_written_again(lost: str, step: str | None) -> None:
    facts, journal = converged()
    if step is None:
        with pytest.raises(HookRefused, match="is not there"):
            plan_up(spec(), without(facts, lost), journal, SERVER, view(runner()))
        return
    plan = plan_up(spec(), without(facts, lost), journal, SERVER, view(runner()))
    assert step in {action.step for action in plan.steps}
    assert plan.switch


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"revision": b""}, "not built from it"),
        ({"revision-at-boot": b"other"}, "next boot"),
        ({"units": b""}, "is not active"),
    ],
)
def test_a_system_that_is_behind_is_switched_without_writing(change: dict[str, bytes], why: str) -> None:
    facts, journal = converged()
    plan = plan_up(spec(), Facts("host1", {**facts.records, **change}), journal, SERVER, view(runner()))
    assert plan.steps == ()
    assert why in plan.switch


def test_an_unfinished_run_is_finished() -> None:
    facts, journal = converged()
    plan = plan_up(spec(), facts, replace(journal, phase=Phase.WRITTEN), SERVER, view(runner()))
    assert "not finished" in plan.switch


def test_a_runner_no_longer_wanted_is_deleted_and_its_token_removed() -> None:
    facts, journal = converged(spec(RunnerSpec(), RunnerSpec("extra")))
    plan = plan_up(spec(), facts, journal, SERVER, view(runner(), surplus=(runner(8, name="extra"),)))
    assert [(action.verb, action.id) for action in plan.runner_changes] == [(RunnerVerb.DELETE, 8)]
    assert {action.step for action in plan.steps} == {"secrets", "module"}


def test_a_new_token_is_made_for_the_same_runner_when_asked() -> None:
    facts, journal = converged()
    plan = plan_up(spec(), facts, journal, SERVER, view(runner()), new_tokens=True)
    assert [(action.verb, action.id) for action in plan.runners] == [(RunnerVerb.RESET_TOKEN, RECORD.id)]
    assert plan.changes_host
    other = plan_up(spec(), new_host(), Journal(), SERVER, view(), new_tokens=True)
    assert [action.verb for action in other.runners] == [RunnerVerb.CREATE]


def test_a_token_that_was_to_end_is_replaced_whatever_became_of_the_run() -> None:
    facts, journal = converged()
    plan = plan_up(spec(), facts, journal.without_tokens(["default"]), SERVER, view(runner()))
    assert [(action.verb, action.id) for action in plan.runners] == [(RunnerVerb.RESET_TOKEN, RECORD.id)]
    assert plan_up(spec(), facts, journal.without_tokens(["other"]), SERVER, view(runner())).is_empty


def test_adding_a_runner_keeps_the_other() -> None:
    facts, journal = converged()
    both = spec(RunnerSpec(), RunnerSpec("extra"))
    plan = plan_up(both, facts, journal, SERVER, HostRunners({"default": (runner(),), "extra": ()}))
    assert [action.verb for action in plan.runners] == [RunnerVerb.KEEP, RunnerVerb.CREATE]


@pytest.mark.parametrize(
    ("facts", "error", "words"),
    [
        (Facts("host1", {**new_host().records, "os": b"ID=debian"}), HostRefused, "not a NixOS"),
        (Facts("host1", {**new_host().records, "flake": b"yes"}), HookRefused, "flake"),
        (Facts("host1", {**new_host().records, "etc-nixos": b"/home/me/nixos"}), HookRefused, "is a link"),
        (new_host(b"{ imports = [ "), HookRefused, "configuration.nix"),
        (new_host(b"import ./other.nix { }"), HookRefused, "add by hand"),
    ],
)
def test_what_cannot_be_done_surely_is_refused(facts: Facts, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as refused:
        plan_up(spec(), facts, Journal(), SERVER, view())
    assert words in str(refused.value)


def test_a_strangers_folder_is_refused() -> None:
    facts = new_host()
    strange = {"module/default.nix.stat": b"644 0 0 1 regular file", "module/default.nix.data": b"{ }"}
    with pytest.raises(HookRefused, match="not ours"):
        plan_up(spec(), Facts("host1", {**facts.records, **strange}), Journal(), SERVER, view())


def test_a_hand_edited_file_of_ours_is_drift() -> None:
    facts, journal = converged()
    edited = {**facts.records, "module/runner.nix.data": facts.records["module/runner.nix.data"] + b"# more\n"}
    plan = plan_up(spec(), Facts("host1", edited), journal, SERVER, view(runner()))
    assert [action.why for action in plan.steps] == ["runner.nix was edited by hand"]


def test_down_takes_what_is_left_and_nothing_else() -> None:
    facts, journal = converged()
    plan = plan_down(spec(), facts, journal, SERVER, view(runner()))
    assert [(action.verb, action.id) for action in plan.runners] == [(RunnerVerb.DELETE, 7)]
    assert [action.step for action in plan.steps] == ["hook", "module", "secrets", "state"]
    assert re.fullmatch(r"(/etc/nixos/nixprov/\w+\.\w+(, )?){3} and \d+ more", plan.steps[1].why)
    assert plan.switch
    assert plan_down(spec(), new_host(), Journal(), SERVER, view()).is_empty


def test_the_diff_shows_the_hook_and_no_secret() -> None:
    facts = new_host()
    plan = plan_up(spec(), facts, Journal(), SERVER, view())
    changes = {change.path: change for change in file_changes(plan, facts, Journal())}
    hook = changes["/etc/nixos/configuration.nix"]
    assert hook.before == CONFIGURATION
    assert hook.after is not None
    assert b"nixprov" in hook.after
    assert not any("secrets" in path for path in changes)


def test_the_diff_of_a_linked_folder_names_the_files_as_people_know_them() -> None:
    facts, journal = converged()
    linked = {"etc-nixos": b"/persist/nixos", "configuration.real": b"/persist/nixos/configuration.nix"}
    facts = Facts("host1", {**facts.records, **linked})
    changes = file_changes(plan_down(spec(), facts, journal, SERVER, view()), facts, journal)
    hook = next(change for change in changes if change.path == "/etc/nixos/configuration.nix")
    assert hook.before is not None
    assert b"nixprov" in hook.before
    assert hook.after == CONFIGURATION


def test_another_gitlab_is_another_runner() -> None:
    facts, journal = converged()
    plan = plan_up(spec(), facts, journal, replace(SERVER, url="https://other.example"), view())
    assert plan.runners[0].verb is RunnerVerb.CREATE
    assert RECORD.url == URL
