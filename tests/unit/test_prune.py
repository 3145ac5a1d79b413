"""What is left on one side: which runners are deleted, which are only named, and in which order things are asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import cast

import pytest

from provisioner.app import App
from provisioner.batches import Stage
from provisioner.ci.base import Presence, Provider
from provisioner.ci.gitlab.api import Api
from provisioner.ci.gitlab.plan import enrolled
from provisioner.ci.gitlab.provider import GitLab
from provisioner.ci.gitlab.values import Manager, Runner, RunnerStatus
from provisioner.ci.gitlab.words import WORDS
from provisioner.cli import cli
from provisioner.cli.prune import _Dialogue, _finish
from provisioner.errors import CiRefused
from provisioner.machine.journal import Journal, RunnerRecord
from provisioner.model import Identity, Mark, RunnerType
from provisioner.selection import Fleet
from provisioner.verbs.prune import Finding, Known, View, delete, findings, gone, look, named, told
from tests.unit.hosts import MACHINE, SERVER, URL, runner, spec

OTHER = "0" * 12
STALE = Manager(5, "s_old", "2026-01-01T00:00:00Z", RunnerStatus.STALE)
LIVE = Manager(6, "s_new", "2026-02-01T00:00:00Z", RunnerStatus.ONLINE)


class Memory:
    """GitLab with a few runners; `listed` are those that a list shows."""

    url = URL

    def __init__(self, *there: Runner, listed: Sequence[Runner] | None = None) -> None:
        self.there = {one.id: one for one in there}
        self.listed = tuple(there if listed is None else listed)
        self.deleted: list[int] = []

    def runners(self, _kind: RunnerType, _owner: str | None) -> Sequence[Runner]:
        return self.listed

    def get(self, id_: int) -> Runner | None:
        return self.there.get(id_)

    def managers(self, _id: int) -> Sequence[Manager]:
        return (STALE, LIVE)

    def delete(self, id_: int) -> bool:
        self.deleted.append(id_)
        self.there.pop(id_, None)
        return True


def gitlab(*there: Runner, listed: Sequence[Runner] | None = None) -> tuple[Provider, Memory]:
    memory = Memory(*there, listed=listed)
    return GitLab(cast("Api", memory)), memory


def known(*ids: int, machine: str = MACHINE, pending: tuple[int, ...] = (), held_by: str = "") -> Known:
    records = {f"r{number}": RunnerRecord(number, URL, "") for number in ids}
    waiting = tuple(RunnerRecord(number, URL, "") for number in pending)
    return Known(machine, Journal("x", runners=records, pending_deletions=waiting), held_by)


def view(
    *runners: Runner,
    inventory: Sequence[str] = ("host1",),
    hosts: Mapping[str, Known] | None = None,
    processes: Mapping[Identity, Sequence[Presence]] | None = None,
) -> View:
    return View(SERVER, tuple(map(enrolled, runners)), inventory, hosts or {}, processes or {})


def texts(findings: Sequence[Finding]) -> list[tuple[bool, str]]:
    return [(finding.deletes, finding.why) for finding in findings]


def marked(id_: int, host: str, machine: str = MACHINE) -> Runner:
    return runner(id_, description=Mark(host, "default", machine).describe(""))


def test_what_its_host_knows_is_left() -> None:
    assert findings(view(runner(7), hosts={"host1": known(7)})) == []


@pytest.mark.parametrize(
    ("status", "inventory", "hosts", "deletes", "words"),
    [
        (RunnerStatus.ONLINE, {"host1"}, {"host1": known(8)}, True, "does not know it"),
        (RunnerStatus.ONLINE, {"host1"}, {"host1": known(8, held_by="r1")}, False, "changed by run r1"),
        (RunnerStatus.OFFLINE, {"host1"}, {"host1": known(pending=(7,))}, True, "waits to be deleted"),
        (RunnerStatus.OFFLINE, {"host1"}, {}, False, "does not answer"),
        (RunnerStatus.ONLINE, set(), {}, False, "it polls"),
        (RunnerStatus.STALE, set(), {}, True, "not in the inventory"),
        (RunnerStatus.OFFLINE, {"host1"}, {"host1": known(8, machine=OTHER)}, True, "another machine now"),
        (RunnerStatus.ONLINE, {"host1"}, {"host1": known(8, machine=OTHER)}, False, "it polls"),
    ],
)
def test_only_what_is_surely_left_is_deleted(
    status: RunnerStatus, inventory: set[str], hosts: dict[str, Known], deletes: bool, words: str
) -> None:
    found = findings(view(runner(7, status=status), inventory=sorted(inventory), hosts=hosts))
    about = [finding for finding in found if finding.runner]
    assert [(finding.deletes, words in finding.why) for finding in about] == [(deletes, True)]


def test_what_is_not_marked_is_not_looked_at() -> None:
    assert findings(view(runner(7, description="mine"), inventory=())) == []


def test_hosts_without_a_runner_and_downs_that_wait_are_named() -> None:
    hosts = {"host1": known(7), "host2": known(pending=(9,), machine=OTHER)}
    assert [finding.told(WORDS) for finding in findings(view(hosts=hosts))] == [
        "host1: has our files, and GitLab no runner 7: run `up` or `down` there",
        "host2: a `down` there waits to be finished",
    ]


def test_a_host_that_is_a_runner_again_has_no_down_that_waits() -> None:
    assert not known(7, pending=(9,)).waits_for_down
    assert known(pending=(9,)).waits_for_down


def test_a_stale_manager_is_named_and_no_more() -> None:
    provider, _ = gitlab(runner(7))
    (found,) = findings(view(runner(7), hosts={"host1": known(7)}, processes={7: provider.presences(7)}))
    assert (found.deletes, found.process and found.process.name) == (False, "s_old")
    assert "manager s_old of runner 7 (host1/default, last contact 2026-01-01" in found.told(WORDS)
    assert "GitLab lets no operator delete it" in found.why
    assert told(found).gitlab_status == "stale"


def test_lists_are_read_before_hosts_so_that_a_runner_just_made_is_in_none() -> None:
    asked: list[str] = []
    open_, memory = gitlab(runner(7))
    memory.runners = lambda *_: asked.append("lists") or memory.listed  # type: ignore[method-assign,func-returns-value]

    def ask() -> dict[str, Known]:
        asked.append("hosts")
        return {"host1": known(8)}

    look(open_, [spec()], {"host1"}, ask)
    assert asked == ["lists", "hosts"]


def test_what_hosts_know_by_id_is_found_where_no_list_shows_it() -> None:
    """A runner whose group the inventory no longer names; one that waits there to be deleted."""
    open_, _ = gitlab(runner(7), runner(9), runner(10, description="taken over by a person"), listed=())
    seen = look(open_, [spec()], {"host1"}, lambda: {"host1": known(7, pending=(9, 10))})
    assert [one.id for one in seen.runners] == [7, 9]
    assert texts(findings(seen)) == [(False, findings(seen)[0].why), (True, "waits to be deleted since a `down`")]


def test_what_changed_before_the_deletion_is_saved_and_said() -> None:
    """Another operator's `up` found it by its mark and uses it, while a person was asked."""
    open_, memory = gitlab(runner(7, description="mine now"), runner(8), runner(9), runner(10))
    unused = runner(9, status=RunnerStatus.NEVER_CONTACTED)
    shown = [runner(7), runner(8), unused, replace(unused, id=11)]
    spared: list[Identity] = []
    delete(
        open_,
        [Finding("", enrolled(one), deletes=True) for one in shown],
        lambda _: None,
        lambda one: spared.append(one.id),
    )
    assert (memory.deleted, spared) == ([8], [7, 9])


def test_gone_spares_the_machine_that_answers_by_that_name() -> None:
    open_, _ = gitlab(marked(7, "host1"), marked(8, "host1", OTHER), marked(9, "host2"))
    found = gone(open_, "host1", [spec()], lambda: {"host1": known(8, machine=OTHER)})
    assert {one.runner.id: one.deletes for one in found if one.runner} == {7: True, 8: False}


def test_gone_does_not_guess_between_machines() -> None:
    open_, _ = gitlab(marked(7, "host1"), marked(8, "host1", OTHER))
    with pytest.raises(CiRefused, match=rf"7 \(machine {MACHINE}, online\), 8 \(machine {OTHER}, online\)") as caught:
        gone(open_, "host1", [spec()], dict)
    assert "runner's id" in caught.value.hint


def test_gone_by_id_asks_no_host_and_wants_our_mark() -> None:
    open_, _ = gitlab(marked(7, "host1"), runner(8, description="mine"))
    assert texts(named(open_, 7)) == [(True, "named by its id")]
    assert named(open_, 9) == []
    with pytest.raises(CiRefused, match="not ours to delete"):
        named(open_, 8)


def test_gone_with_check_only_says_it(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    open_, memory = gitlab(marked(7, "host1"))
    monkeypatch.setattr(App, "ci", lambda _app: nullcontext(open_))
    words = ["down", "--gone", "7", "--yes"]
    assert cli.main([*words, "--check"], standalone_mode=False) == 0
    assert (memory.deleted, "delete  " in capfd.readouterr().out) == ([], True)
    assert cli.main(words, standalone_mode=False) == 0
    assert memory.deleted == [7]


def test_a_reader_that_left_ends_no_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs_up(*_: object, **__: object) -> None:
        raise BrokenPipeError

    open_, memory = gitlab(marked(7, "host1"))
    monkeypatch.setattr(App, "ci", lambda _app: nullcontext(open_))
    monkeypatch.setattr("click.echo", hangs_up)
    assert cli.main(["down", "--gone", "7", "--yes"], standalone_mode=False) == 0
    assert memory.deleted == [7]


def test_a_slip_of_the_pen_is_not_told_as_done(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    open_, _ = gitlab(marked(7, "host1"))
    monkeypatch.setattr(App, "ci", lambda _app: nullcontext(open_))
    assert cli.main(["down", "--gone", "8", "--yes"], standalone_mode=False) == 0
    assert capfd.readouterr().out == "GitLab has no runner of ours for 8\n"


class Interrupted:
    """An app whose run is met by Ctrl-C."""

    interrupts = 0

    def interrupt(self) -> None:
        self.interrupts += 1

    def run(self, _verb: object, _fleet: object) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 130


def test_ctrl_c_lets_a_down_that_prune_finishes_come_to_a_safe_place() -> None:
    app, fleet = Interrupted(), Fleet((Stage((spec(),)),), frozenset({"host1"}))
    dialogue = _Dialogue(cast("App", app), yes=True, as_json=False)
    assert _finish(cast("App", app), fleet, {"host1": known(pending=(7,))}, dialogue) == 130
    assert app.interrupts == 1
