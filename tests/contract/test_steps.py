"""What every step promises, found by itself in STEPS: apply, apply again, take back, take back again, die anywhere.

The scripts run in a real sh below a folder. "everything" is all steps in one transaction, as `up` does it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.machine.journal import Journal
from provisioner.machine.things import Remnant, of_kind
from provisioner.machine.transaction import RemoveFile, WriteFile
from provisioner.steps import STEPS, Step, Wanted, things
from tests.contract.scratch import ScratchHost, UsersFiles
from tests.unit.hosts import wanted as wanted_on
from tests.unit.hosts import with_old_header

KILLED = -9
GROUPS = [pytest.param((step,), id=step.name) for step in STEPS] + [pytest.param(STEPS, id="everything")]
LONGEST = 40


@pytest.fixture
def wanted() -> Wanted:
    """Three files of the module stand for all: each is a change at which to die."""
    whole = wanted_on()
    return replace(whole, files={name: whole.files[name] for name in ("default.nix", "options.nix", "settings.nix")})


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], ScratchHost]:
    count = iter(range(1000))

    def new() -> ScratchHost:
        folder = tmp_path / f"host{next(count)}"
        folder.mkdir()
        return ScratchHost(folder)

    return new


def changes(steps: Sequence[Step], wanted: Wanted, host: ScratchHost) -> list[str]:
    facts = host.probe()
    journal = host.journal(facts)
    parts = [part for step in steps for part in step.write(wanted, facts, journal)]
    return [part.path for part in parts if isinstance(part, WriteFile | RemoveFile)]


def comparisons(steps: Sequence[Step], wanted: Wanted, host: ScratchHost) -> list[str]:
    facts = host.probe()
    journal = Journal.read(facts)
    found = [(step, step.compare(wanted, facts, journal)) for step in steps]
    return [f"{step.name}: {one.state.value} {one.why}" for step, one in found if not one.is_present]


def without_tokens(wanted: Wanted) -> Wanted:
    return replace(wanted, tokens={})


@pytest.mark.parametrize("steps", GROUPS)
def test_applied_is_present_and_applied_again_is_nothing(
    steps: Sequence[Step], wanted: Wanted, make: Callable[[], ScratchHost]
) -> None:
    host = make()
    assert host.write(steps, wanted) == 0
    assert comparisons(steps, without_tokens(wanted), host) == []
    assert changes(steps, without_tokens(wanted), host) == []


@pytest.mark.parametrize("steps", GROUPS)
def test_taken_back_is_as_before_and_again_is_nothing(
    steps: Sequence[Step], wanted: Wanted, make: Callable[[], ScratchHost]
) -> None:
    host = make()
    before = host.users_files()
    assert host.write(steps, wanted) == 0
    units_ran(host)
    assert host.remove(steps) == 0
    assert (host.remains(steps), host.users_files()) == ([], before)
    assert host.remove(steps) == 0
    assert (host.remains(steps), host.users_files()) == ([], before)


@pytest.mark.parametrize("steps", GROUPS)
@pytest.mark.parametrize("then", ["apply", "take back"])
def test_killed_while_applying_another_operator_finishes(
    steps: Sequence[Step], wanted: Wanted, make: Callable[[], ScratchHost], then: str
) -> None:
    before = make().users_files()
    for point in points():
        host = make()
        died = host.write(steps, wanted, crash_at=point) == KILLED
        finish(steps, wanted, host, before, then)
        if not died:
            return
    pytest.fail(f"more than {LONGEST} changes: the points do not end")


@pytest.mark.parametrize("steps", GROUPS)
@pytest.mark.parametrize("then", ["apply", "take back"])
def test_killed_while_taking_back_another_operator_finishes(
    steps: Sequence[Step], wanted: Wanted, make: Callable[[], ScratchHost], then: str
) -> None:
    before = make().users_files()
    for point in points():
        host = make()
        assert host.write(steps, wanted) == 0
        units_ran(host)
        died = host.remove(steps, crash_at=point) == KILLED
        finish(steps, wanted, host, before, then)
        if not died:
            return
    pytest.fail(f"more than {LONGEST} changes: the points do not end")


def points() -> list[str]:
    return ["staged", *map(str, range(1, LONGEST))]


def finish(steps: Sequence[Step], wanted: Wanted, host: ScratchHost, before: UsersFiles, then: str) -> None:
    if then == "apply":
        assert host.write(steps, wanted) == 0
        assert comparisons(steps, without_tokens(wanted), host) == []
    assert host.remove([*steps, *clearing(steps)]) == 0
    assert (host.remains(steps), host.users_files()) == ([], before)


def clearing(steps: Sequence[Step]) -> list[Step]:
    """What was staged is a step of its own, whichever step had staged it."""
    return [step for step in STEPS if step.name == "staged" and step not in steps]


def units_ran(host: ScratchHost) -> None:
    """What the units of a running system would have made by then."""
    for remnant in of_kind(things(), Remnant):
        made = host.folder / remnant.path.lstrip("/") / "something"
        made.mkdir(parents=True)


def test_who_watches_this_hosts_containers_is_ended_and_nobody_else(make: Callable[[], ScratchHost]) -> None:
    """A transaction's shell sees all processes of this computer, those of a lab's machines too."""
    host = make()
    program = host.folder / "podman"
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o755)
    containers = "/var/lib/nixprov-containers/storage"
    with (
        subprocess.Popen([program, f"{host.folder}{containers}"], stdin=subprocess.PIPE) as watcher,
        subprocess.Popen([program, containers], stdin=subprocess.PIPE) as others,
    ):
        assert host.remove(STEPS) == 0
        assert watcher.wait(10) == KILLED
        others.communicate(b"\n", timeout=10)
        assert others.returncode == 0


def of_old(host: ScratchHost) -> None:
    """The module's files as they were written when their first line named the version."""
    for path in (host.folder / "etc/nixos/nixprov").glob("*"):
        path.write_bytes(with_old_header(path.read_bytes()))


@pytest.mark.parametrize("steps", GROUPS)
def test_another_version_with_the_same_bodies_has_nothing_to_write(
    steps: Sequence[Step], wanted: Wanted, make: Callable[[], ScratchHost]
) -> None:
    host = make()
    assert host.write(steps, wanted) == 0
    of_old(host)
    for version in ("0.0.9", "99.0", wanted.version):
        other = replace(without_tokens(wanted), version=version)
        assert (comparisons(steps, other, host), changes(steps, other, host)) == ([], [])


@pytest.mark.parametrize("steps", GROUPS)
def test_what_an_older_version_wrote_is_taken_back(
    steps: Sequence[Step], wanted: Wanted, make: Callable[[], ScratchHost]
) -> None:
    host = make()
    before = host.users_files()
    assert host.write(steps, wanted) == 0
    of_old(host)
    assert host.remove(steps) == 0
    assert (host.remains(steps), host.users_files()) == ([], before)


def test_a_step_that_does_not_take_back_is_caught(wanted: Wanted, make: Callable[[], ScratchHost]) -> None:
    host = make()
    before = host.users_files()
    assert host.write(STEPS, wanted) == 0
    assert host.remove([step for step in STEPS if step.name != "hook"]) == 0
    assert host.users_files() != before
    assert host.remains(STEPS) != []
