"""From patterns, plays and records to the hosts of a run, and what stands in the way of all of them by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner import runs
from provisioner.batches import Rules
from provisioner.errors import ConfigError, InventoryError, NothingSelected
from provisioner.machine.journal import Run
from provisioner.model import Become, Secret
from provisioner.outcome import HostResult, Outcome
from provisioner.runs import RunFile
from provisioner.selection import Overrides, Selection, select
from provisioner.verb import Verb

INVENTORY = """
[web]
w1
w2
w3
[db]
d1
d2
"""
PLAYS = """
- name: front
  hosts: web
  order: reverse_inventory
  serial: [1, 50%]
  max_fail_percentage: 20
  runners: [{name: front, tags: [web]}]
- name: back
  hosts: db:nosuch
  any_errors_fatal: true
  runners: [{name: back}, {name: more}]
- name: elsewhere
  hosts: mail
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hosts").write_text(INVENTORY)
    (tmp_path / "plays.yml").write_text(PLAYS)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def chosen(files: Path, pattern: str | None = None, *, play: bool = False, **more: object) -> Selection:
    return Selection((str(files / "hosts"),), str(files / "plays.yml") if play else None, pattern, **more)  # type: ignore[arg-type]


def names(selection: Selection, verb: Verb = Verb.UP) -> list[str]:
    return [host.name for host in select(selection, verb).hosts]


def test_plays_are_stages_with_their_hosts_order_and_rules(files: Path) -> None:
    fleet = select(chosen(files, play=True), Verb.UP)
    front, back = fleet.stages
    assert ([host.name for host in front.hosts], front.name) == (["w3", "w2", "w1"], "front")
    assert (front.rules, back.rules) == (Rules((1, "50%"), 20.0), Rules(any_errors_fatal=True))
    assert [[runner.name for runner in host.runners] for host in back.hosts] == [["back", "more"]] * 2
    assert fleet.inventory == {"w1", "w2", "w3", "d1", "d2"}


def test_a_pattern_narrows_plays_and_one_that_no_play_is_for_is_nothing(files: Path) -> None:
    assert names(chosen(files, "w2,d1", play=True)) == ["w2", "d1"]
    (files / "plays.yml").write_text("- hosts: db\n")
    with pytest.raises(NothingSelected, match="no play is for"):
        select(chosen(files, "web", play=True), Verb.UP)


def test_a_host_in_two_plays_is_refused(files: Path) -> None:
    (files / "plays.yml").write_text("- hosts: web\n- hosts: w1\n")
    with pytest.raises(ConfigError, match="w1 is in two plays"):
        select(chosen(files, play=True), Verb.UP)


def test_the_command_line_goes_over_the_plays(files: Path) -> None:
    overrides = Overrides(serial=(2,), max_fail_percentage=0.0, any_errors_fatal=True)
    fleet = select(chosen(files, play=True), Verb.UP, overrides)
    assert {stage.rules for stage in fleet.stages} == {Rules((2,), 0.0, True)}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("inventory", ["w1", "w2", "w3", "d1", "d2"]),
        ("reverse_inventory", ["d2", "d1", "w3", "w2", "w1"]),
        ("sorted", ["d1", "d2", "w1", "w2", "w3"]),
        ("reverse_sorted", ["w3", "w2", "w1", "d2", "d1"]),
    ],
)
def test_orders(files: Path, order: str, expected: list[str]) -> None:
    (files / "plays.yml").write_text(f"- hosts: all\n  order: {order}\n")
    assert names(chosen(files, play=True)) == expected


def test_shuffle_loses_nobody(files: Path) -> None:
    (files / "plays.yml").write_text("- hosts: all\n  order: shuffle\n")
    assert sorted(names(chosen(files, play=True))) == ["d1", "d2", "w1", "w2", "w3"]


@pytest.fixture
def guarded(files: Path) -> Path:
    (files / "hosts").write_text(INVENTORY + "[all:vars]\nnixprov_allow_all=false\n")
    return files


@pytest.mark.parametrize("verb", [Verb.UP, Verb.DOWN])
def test_the_guard_wants_hosts_named_or_all_said(guarded: Path, verb: Verb) -> None:
    with pytest.raises(ConfigError, match=f"`{verb.value}` without a pattern means 5 hosts") as refused:
        select(chosen(guarded), verb)
    assert refused.value.hint == "name the hosts, or say --all"
    for fine in (chosen(guarded, "all"), chosen(guarded, limit="web"), chosen(guarded, all_hosts=True)):
        assert names(fine, verb)


@pytest.mark.parametrize("verb", [Verb.PLAN, Verb.PLAN_DOWN, Verb.STATUS])
def test_the_guard_is_not_for_what_changes_nothing(guarded: Path, verb: Verb) -> None:
    assert len(names(chosen(guarded), verb)) == 5


def test_the_guard_may_stand_on_a_group(files: Path) -> None:
    (files / "hosts").write_text(INVENTORY + "[db:vars]\nnixprov_allow_all=no\n")
    with pytest.raises(ConfigError, match="is false for d1, d2;"):
        select(chosen(files), Verb.UP)


def test_a_guard_that_is_no_boolean_is_refused(files: Path) -> None:
    (files / "hosts").write_text(INVENTORY + "[all:vars]\nnixprov_allow_all=never\n")
    with pytest.raises(InventoryError, match="nixprov_allow_all: expected true or false"):
        select(chosen(files), Verb.UP)


def recorded(verb: str, **outcomes: Outcome) -> str:
    record = RunFile(runs.directory(), Run("20260101T000000-abcdef", verb, "me@here", ""))
    record.begin(["w1", "w2", "w3", "gone"])
    for host, outcome in outcomes.items():
        record.record(HostResult(host, outcome, 0.0))
    record.end(4)
    return record.run.id


def test_resume_takes_what_is_left_within_the_selection(guarded: Path) -> None:
    run = recorded("up", w1=Outcome.CHANGED, w2=Outcome.FAILED)
    assert names(chosen(guarded, resume=run)) == ["w2", "w3"]
    assert names(chosen(guarded, "w3,d1", resume="last")) == ["w3"]


def test_resume_wants_the_same_verb_and_something_left(files: Path) -> None:
    run = recorded("up", w1=Outcome.CHANGED, w2=Outcome.CHANGED, w3=Outcome.UNCHANGED, gone=Outcome.UNCHANGED)
    with pytest.raises(ConfigError, match=f"run {run} was `up`, not `down`; nixprov up --resume {run}"):
        select(chosen(files, resume=run), Verb.DOWN)
    with pytest.raises(NothingSelected, match="all its hosts are done"):
        select(chosen(files, resume=run), Verb.UP)


def test_a_become_password_is_for_hosts_that_have_none(files: Path) -> None:
    own = "w2 ansible_become_password=own\nw3 ansible_become_method=doas\n"
    (files / "hosts").write_text("w1\n" + own)
    hosts = select(chosen(files, "all"), Verb.UP, Overrides(become_password=Secret("asked"))).hosts
    assert [host.connection.become for host in hosts] == [
        Become(password=Secret("asked")),
        Become(password=Secret("own")),
        Become("doas", password=Secret("asked")),
    ]


def test_warnings_come_with_the_fleet(files: Path) -> None:
    (files / "hosts").write_text("w1 ansible_ssh_common_args='-F /etc/other'\n")
    [warning] = select(chosen(files, "all"), Verb.UP).warnings
    assert warning.endswith("ansible_ssh_common_args: -F is ignored")
