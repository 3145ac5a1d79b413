"""Twelve machines in batches: one does not answer, one has a broken configuration, and the rest of the story.

The tests of this file are one story and run in its order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from nixprov_lab import control
from nixprov_lab.running import Lab

from provisioner.model import Mark
from tests.lab.operator import Operator, Said, leftovers

HOSTS = [f"host{number}" for number in range(1, 13)]
MUTE, BROKEN, LAST = "host6", "host7", "host12"
DONE = [host for host in HOSTS if host not in (MUTE, BROKEN, LAST)]
# Only with our module in it the configuration does not evaluate: what runs is what it describes.
BREAK = r"""
cp -a $0 /root/whole
echo '{ lib, ... }: lib.optionalAttrs (builtins.pathExists ./nixprov/default.nix) { services.nosuch.enable = true; }' \
  > /etc/nixos/broken.nix
sed -i 's#\./hardware-configuration\.nix#& ./broken.nix#' $0
"""
CONFIGURATION = "/etc/nixos/configuration.nix"
ONE_RUNNER = """\
- hosts: all
  runners:
    - name: default
      tags: [nix, nixos]
"""
TWO_RUNNERS = (
    ONE_RUNNER
    + """\
    - name: second
      tags: [second]
      concurrent: 1
"""
)


@pytest.fixture(scope="module")
def fleet(_cache: Path) -> Iterator[Lab]:
    started = control.start(len(HOSTS), progress=print)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def operator(fleet: Lab, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(fleet, tmp_path_factory.mktemp("operator"))


def outcomes(said: Said) -> dict[str, str]:
    return {event["host"]: event["outcome"] for event in said.events if event["event"] == "host"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def up(operator: Operator, fleet: Lab, files: Path) -> Said:
    """A canary, then four, then half of all, then the rest; a fifth of a batch may fail."""
    fleet.run(MUTE, ["systemctl", "stop", "sshd.service"])
    fleet.run(BROKEN, ["sh", "-ec", BREAK, CONFIGURATION])
    batches = ("--serial", "1,4,50%", "--max-fail-percentage", "20")
    reports = ("--json", "--report", str(files / "page.html"), "--junit", str(files / "junit.xml"))
    return operator.at_a_terminal("up", "--yes", *reports, *batches, "--forks", "6", "--connect-retries", "0")


def test_the_exit_code_says_that_some_failed(up: Said) -> None:
    assert up.code == up.summary["exit_code"] == 4, up.err


def test_each_host_has_its_outcome(up: Said) -> None:
    expected = dict.fromkeys(DONE, "changed")
    assert outcomes(up) == {**expected, MUTE: "unreachable", BROKEN: "rolled back", LAST: "skipped"}
    counted = {name: up.summary[name] for name in ("hosts", "changed", "unreachable", "rolled_back", "skipped")}
    assert counted == {"hosts": 12, "changed": 9, "unreachable": 1, "rolled_back": 1, "skipped": 1}


def test_batches_ran_one_after_the_other_and_the_last_not_at_all(up: Said) -> None:
    assert [event["hosts"] for event in up.events if event["event"] == "batch"] == [HOSTS[:1], HOSTS[1:5], HOSTS[5:11]]
    seen: dict[str, list[int]] = {}
    for place, event in enumerate(up.events):
        if host := event.get("host"):
            seen.setdefault(host, []).append(place)
    for before, after in ((HOSTS[:1], HOSTS[1:5]), (HOSTS[1:5], HOSTS[5:11])):
        assert max(seen[host][-1] for host in before) < min(seen[host][0] for host in after)


def test_people_are_told_who_why_and_how_to_go_on(up: Said) -> None:
    text = up.err
    assert "2 of 6 hosts of the batch failed, more than 20 %" in text
    assert "services.nosuch" in text
    recap = text[text.index("2 of 6 hosts") :]
    assert [host for host in (MUTE, BROKEN, LAST) if host not in recap] == []
    assert f"--resume {up.summary['run']}" in recap
    assert "Traceback" not in text


def test_the_table_has_a_line_for_each(up: Said) -> None:
    """The last frame stays on the terminal, under nothing that was drawn before."""
    frame = up.err[up.err.rindex("12 of 12 hosts") :]
    words = {**dict.fromkeys(DONE, "✓.*changed"), MUTE: "!.*unreachable", BROKEN: "↶.*rolled back", LAST: "·.*skipped"}
    for host, word in words.items():
        symbol, outcome = word.split(".*")
        assert re.search(rf"^{symbol} {host} +{outcome}\b", frame, re.MULTILINE), (host, frame)
    assert "12 hosts: 9 changed, 1 unreachable, 1 rolled back, 1 skipped" in frame
    # A warning that all hosts share is a line of text, as long as it has to be.
    assert max(len(line) for line in up.err.splitlines() if " jobs " not in line) <= 140


def test_the_page_and_junit_say_the_same(up: Said, files: Path) -> None:
    page = (files / "page.html").read_text()
    shown = dict(re.findall(r'<span class="name">(\w+)</span><span class="o-\w+">. ([\w ]+)</span>', page))
    assert shown == outcomes(up)
    assert len(re.findall(r'<rect class="p-switch"', page)) == len(DONE) + 1
    assert "services.nosuch" in page
    suite = ET.parse(files / "junit.xml").getroot()[0]  # noqa: S314 - our own
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "12",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }


def test_nothing_is_left_where_it_failed_or_was_not_begun(up: Said, fleet: Lab) -> None:
    assert [leftovers(fleet, host) for host in (BROKEN, LAST)] == ["", ""]
    assert sorted(runner["host"] for runner in fleet.gitlab.runners()) == sorted(DONE)


def test_the_failed_are_in_a_file_for_limit(up: Said, operator: Operator) -> None:
    file = up.summary["failed_hosts_file"]
    said = operator("inventory", "match", "all", "--limit", f"@{file}", "--json")
    assert json.loads(said.out) == [MUTE, BROKEN]


def test_resume_does_the_rest_and_only_that(up: Said, operator: Operator, fleet: Lab) -> None:
    fleet.reboot(MUTE)
    fleet.run(BROKEN, ["cp", "-a", "/root/whole", CONFIGURATION])
    said = operator("up", "--yes", "--json", "--resume", up.summary["run"])
    assert said.code == 0, said.err
    assert outcomes(said) == dict.fromkeys((MUTE, BROKEN, LAST), "changed")
    assert operator("up", "--yes", "--resume", said.summary["run"]).code == 3


def test_a_lost_record_loses_nothing(up: Said, operator: Operator) -> None:
    for file in (operator.home / ".local" / "state" / "nixprov" / "runs").iterdir():
        file.unlink()
    said = operator("up", "--yes", "--json", "--forks", "12")
    assert (said.code, said.summary["unchanged"], said.summary["remote_commands"]) == (0, 12, 12), said.err


def test_hosts_that_left_the_inventory_are_named(up: Said, operator: Operator, fleet: Lab, tmp_path: Path) -> None:
    smaller = tmp_path / "inventory"
    lines = fleet.files.inventory.read_text().splitlines(keepends=True)
    smaller.write_text("".join(line for line in lines if not line.startswith(f"{LAST} ")))
    said = operator("status", "host1", "-i", str(smaller), "--json")
    gone = [event for event in said.events if event["event"] == "gone"]
    assert [(event["host"], event["runner"]) for event in gone] == [(LAST, "default")]
    assert LAST in said.err


def test_adding_or_removing_a_runner_touches_only_that_one(
    up: Said, operator: Operator, fleet: Lab, tmp_path: Path
) -> None:
    play = tmp_path / "play.yml"
    before = _default_runner(fleet)
    for text, names in ((TWO_RUNNERS, ["default", "second"]), (ONE_RUNNER, ["default"])):
        play.write_text(text)
        said = operator("play", str(play), "up", "host1", "--yes", "--json")
        assert (said.code, outcomes(said)) == (0, {"host1": "changed"}), said.err
        assert _runners(fleet, "host1") == names
        units = fleet.run("host1", ["systemctl", "list-units", "--plain", "--no-legend", "nixprov-runner-*.service"])
        assert [line.split()[0] for line in units.stdout.splitlines()] == [f"nixprov-runner-{n}.service" for n in names]
        assert _default_runner(fleet) == before
    assert operator("play", str(play), "up", "host1", "--yes", "--json").summary["unchanged"] == 1


def _default_runner(fleet: Lab) -> tuple[object, ...]:
    """What must stay as it is: the process, the token, and GitLab's runner."""
    unit = "nixprov-runner-default.service"
    process = fleet.run("host1", ["systemctl", "show", "-p", "MainPID,InvocationID", unit]).stdout
    token = fleet.run("host1", ["cat", "/var/lib/nixprov/secrets/default.token"]).stdout
    ids = [runner["id"] for runner in fleet.gitlab.runners() if _mark(runner).runner == "default"]
    return process, token, ids


def _runners(fleet: Lab, host: str) -> list[str]:
    marks = [_mark(runner) for runner in fleet.gitlab.runners()]
    return sorted(mark.runner for mark in marks if mark.host == host)


def _mark(runner: dict[str, Any]) -> Mark:
    mark = Mark.find(runner["description"])
    assert mark is not None
    return mark


def test_the_guard_holds_for_the_whole_inventory(operator: Operator, fleet: Lab, tmp_path: Path) -> None:
    guarded = tmp_path / "inventory"
    guarded.write_text(fleet.files.inventory.read_text() + "[all:vars]\nnixprov_allow_all=false\n")
    said = operator("down", "--yes", "-i", str(guarded))
    assert (said.code, "say --all" in said.err) == (2, True), said.err
    assert len(fleet.gitlab.runners()) == len(HOSTS)
