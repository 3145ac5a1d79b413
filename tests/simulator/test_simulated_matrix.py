"""The matrix of faults in miniature: an operator may die anywhere, and the next one ends in the same place.

Before each remote command and each call of GitLab, and before each change of each transaction. The same on real
machines: tests/faults.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulator.host import Host
from tests.simulator.reader import Transact
from tests.simulator.stage import Cut, Operator, Said, World

BOTH = ("up", "down")
VERBS = (*BOTH, "new tokens")
MOST_ACTIONS = 60
MOST_CHANGES = 80


def do(operator: Operator, verb: str) -> Said:
    return operator.down() if verb == "down" else operator.up(new_tokens=verb == "new tokens")


def begun(verb: str) -> tuple[World, Host, dict[str, object]]:
    """A world in which `verb` has something to do, and how the host was before anything of ours."""
    world = World()
    host = world.add_host()
    before = state(host)
    if verb != "up":
        assert world.operator("first").up().is_good
    return world, host, before


def state(host: Host) -> dict[str, object]:
    """All that must be as before: files with mode and time, the running system and the one that boots."""
    return {
        "files": host.disk.snapshot("/etc/nixos"),
        "ours": [path for path in host.disk.entries if "nixprov" in path],
        "system": host.system,
        "profile": host.profile,
        "generations of ours": [number for number, system in host.generations.items() if system.revision],
        "units": sorted(host.units),
        "switch": host.switch.substate,
    }


def require_end(world: World, host: Host, then: str, before: dict[str, object]) -> None:
    """As `then` leaves a host that nothing ever happened to."""
    if then == "down":
        assert state(host) == before
        assert world.gitlab.runners == []
        return
    assert world.operator("last").plan().plan() == ()
    world.pass_time(10)
    (runner,) = world.gitlab.runners
    assert (runner.paused, world.gitlab.is_polled(world.gitlab.records[runner.id])) == (False, True)
    assert host.journal["phase"] == "up: confirmed"
    left = [path for path in host.disk.entries if path.endswith((".nixprov-new", "/lock", "/undo.sh", "/open"))]
    assert left == []
    assert world.operator("last").down().is_good
    assert state(host) == before


def deaths(verb: str) -> Iterator[tuple[int, World, Host, dict[str, object]]]:
    """A world for each moment of `verb` at which its operator dies."""
    for at in range(MOST_ACTIONS):
        world, host, before = begun(verb)
        anna = world.operator("anna", dies_at=at)
        do(anna, verb)
        if not anna.is_dead:
            return
        yield at, world, host, before
    pytest.fail(f"more than {MOST_ACTIONS} actions: they do not end")


@pytest.mark.parametrize("then", BOTH)
@pytest.mark.parametrize("verb", VERBS)
def test_an_operator_dies_and_another_comes_at_once(verb: str, then: str) -> None:
    points = [comes(at, world, host, before, then) for at, world, host, before in deaths(verb)]
    assert len(points) >= 10


@pytest.mark.parametrize("then", BOTH)
@pytest.mark.parametrize("verb", VERBS)
def test_an_operator_dies_and_another_comes_when_the_host_has_gone_back_by_itself(verb: str, then: str) -> None:
    points = []
    for at, world, host, before in deaths(verb):
        if host.switch.is_alive:
            world.pass_time(1000)
            points.append(comes(at, world, host, before, then))
    assert len(points) >= 2


def comes(at: int, world: World, host: Host, before: dict[str, object], then: str) -> int:
    said = do(world.operator("bert"), then)
    assert said.is_good, (at, said.result, said.texts())
    require_end(world, host, then, before)
    return at


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_line_is_cut_once(verb: str, after: bool) -> None:
    """The run ends well over another connection. Or it takes its changes back and says so, and the next run ends well."""
    for at in range(MOST_ACTIONS):
        world, host, before = begun(verb)
        anna = world.operator("anna", cut=Cut(at, after))
        first = do(anna, verb)
        if anna.cut is not None:
            assert at >= 4
            return
        if not first.is_good:
            assert first.result.error
            assert do(world.operator("bert"), verb).is_good
        require_end(world, host, "down" if verb == "down" else "up", before)
    pytest.fail(f"more than {MOST_ACTIONS} commands: they do not end")


def transactions(verb: str) -> list[int]:
    """The numbers of the commands of `verb` that are transactions."""
    world, _, _ = begun(verb)
    said = do(world.operator("anna"), verb)
    return [number for number, command in enumerate(said.commands) if isinstance(command, Transact)]


@pytest.mark.parametrize("then", BOTH)
@pytest.mark.parametrize("verb", BOTH)
def test_the_power_goes_within_a_transaction(verb: str, then: str) -> None:
    """Of the operator's computer and of the host at once, before each change."""
    points = 0
    for number in transactions(verb):
        for change in range(MOST_CHANGES):
            world, host, before = begun(verb)
            anna = world.operator("anna")
            if not power_goes(anna, host, verb, number, change):
                break
            said = do(world.operator("bert"), then)
            assert said.is_good, (number, change, said.result, said.texts())
            require_end(world, host, then, before)
            points += 1
    assert points > 10


def power_goes(anna: Operator, host: Host, verb: str, number: int, change: int) -> bool:
    """False when that transaction has no such change."""

    def begins() -> None:
        host.kill_at = change
        anna.dies_at = anna.actions + 1

    anna.before(lambda _: len(anna.commands) == number, begins)
    do(anna, verb)
    if host.kills:
        host.reboot()
    return host.kills > 0
