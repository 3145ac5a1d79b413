"""Two operators, two versions of the real program: equal bodies change nothing, and nobody goes back by accident.

The tests of this file are one story and run in its order.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from nixprov_lab.running import Lab

from provisioner import version
from tests.lab.operator import Operator, leftovers, snapshot

HOST = "host1"
ROOT = Path(__file__).parents[2]
NEWER = "99.0"
STATE = "readlink /nix/var/nix/profiles/system /run/current-system; cat /var/lib/nixprov/journal.json"


@dataclass(frozen=True)
class OtherVersion(Operator):
    """The same program but for its number, from a folder of its own."""

    source: Path

    def environment(self, **settings: str) -> dict[str, str]:
        # Without the second, Python takes the program from where the tests were started.
        return super().environment(PYTHONPATH=str(self.source), PYTHONSAFEPATH="yes", **settings)


@pytest.fixture(scope="module")
def ours(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(lab, tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> OtherVersion:
    source = tmp_path_factory.mktemp("newer")
    for folder in ("provisioner", "templates", "playbooks"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = source / "provisioner/__init__.py"
    file.write_text(file.read_text().replace(version.OWN, NEWER))
    return OtherVersion(lab, tmp_path_factory.mktemp("theirs"), source)


@pytest.fixture(scope="module")
def before(lab: Lab) -> str:
    return snapshot(lab, HOST)


@pytest.fixture(scope="module")
def busier(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An inventory of another wish: another body."""
    inventory = tmp_path_factory.mktemp("inventory") / "hosts"
    inventory.write_text(f"{lab.files.inventory.read_text()}\n[all:vars]\nnixprov_concurrent=7\n")
    return str(inventory)


def state(lab: Lab) -> str:
    """Generation, system, journal, and the module's files."""
    return lab.run(HOST, ["sh", "-c", STATE]).stdout + snapshot(lab, HOST)


def test_each_operator_in_turn_finds_the_host_as_wanted(
    lab: Lab, ours: Operator, theirs: OtherVersion, before: str
) -> None:
    assert theirs("--version").out.split()[-1] == NEWER
    first = ours("up", HOST, "--yes", "--json")
    assert first.host(HOST)["outcome"] == "changed", first.err
    there = state(lab)
    for operator in (theirs, ours, theirs):
        said = operator("up", HOST, "--yes", "--json")
        assert (said.code, said.host(HOST)["outcome"]) == (0, "unchanged"), said.err
        assert (said.summary["remote_commands"], said.summary["gitlab_writes"]) == (1, 0)
        assert state(lab) == there
    assert theirs("status", HOST, "--json").reports()[HOST]["nixprov"] == version.OWN


def test_what_the_newer_one_changed_the_older_one_leaves(
    lab: Lab, ours: Operator, theirs: OtherVersion, busier: str
) -> None:
    changed = theirs("up", HOST, "--yes", "--json", "-i", busier)
    assert changed.host(HOST)["outcome"] == "changed", changed.err
    there = state(lab)
    for words in (("plan",), ("up", "--yes")):
        said = ours(*words, HOST, "--json")
        assert (said.code, said.summary["remote_commands"], said.summary["gitlab_writes"]) == (5, 1, 0), said.err
        assert f"nixprov {NEWER} installed another module there" in said.host(HOST)["error"]
        assert "--downgrade" in said.host(HOST)["hint"]
    report = ours("status", HOST, "--json").reports()[HOST]
    assert report["nixprov"] == NEWER
    assert ["up` refuses" in line for line in report["drift"]] == [True]
    same = ours("up", HOST, "--yes", "--json", "-i", busier)
    assert (same.code, same.host(HOST)["outcome"]) == (0, "unchanged"), same.err
    assert state(lab) == there


def test_a_downgrade_that_is_meant_is_planned_and_done(lab: Lab, ours: Operator, theirs: OtherVersion) -> None:
    planned = ours("plan", HOST, "--downgrade", "--json")
    plan = next(event for event in planned.events if event["event"] == "plan")
    assert planned.code == 0, planned.err
    assert plan["changes"][0].startswith(f"downgrade: nixprov {NEWER}")
    done = ours("up", HOST, "--yes", "--downgrade", "--json")
    assert (done.code, done.host(HOST)["outcome"]) == (0, "changed"), done.err
    assert theirs("up", HOST, "--yes", "--json").host(HOST)["outcome"] == "unchanged"
    assert ours("status", HOST, "--json").reports()[HOST]["nixprov"] == version.OWN


def test_down_takes_out_what_a_newer_one_installed(
    lab: Lab, ours: Operator, theirs: OtherVersion, busier: str, before: str
) -> None:
    assert theirs("up", HOST, "--yes", "-i", busier).code == 0
    said = ours("down", HOST, "--yes", "--json")
    assert said.code == 0, said.err
    assert (leftovers(lab, HOST), snapshot(lab, HOST)) == ("", before)
