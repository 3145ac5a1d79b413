"""The matrix of faults in miniature: whoever dies wherever, the next operator ends in the same place.

Before and after each remote command of `up` and `down`, and before each change of each of their transactions. The same
on real machines: tests/faults.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulator.host import Host
from tests.simulator.reader import Transact
from tests.simulator.stage import Operator, Said, World

BOTH = ("up", "down")
MOST_COMMANDS = 30
MOST_CHANGES = 80


def do(operator: Operator, verb: str) -> Said:
    return operator.up() if verb == "up" else operator.down()


def begun(verb: str) -> tuple[World, Host, dict[str, object]]:
    """A world in which `verb` has something to do, and how the host was before anything of ours."""
    world = World()
    host = world.add_host()
    before = state(host)
    if verb == "down":
        assert world.operator("first").up().is_good
    return world, host, before


def state(host: Host) -> dict[str, object]:
    """All that must be as before: files with mode and time, what runs and what boots."""
    return {
        "files": host.disk.snapshot("/etc/nixos"),
        "ours": [path for path in host.disk.entries if "nixprov" in path],
        "system": host.system,
        "profile": host.profile,
        "units": sorted(host.units),
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


def deaths(verb: str, *, after: bool) -> Iterator[tuple[int, World, Host, dict[str, object]]]:
    """A world for each remote command at which an operator dies who says `verb`."""
    for at in range(MOST_COMMANDS):
        world, host, before = begun(verb)
        anna = world.operator("anna").dies(at, after=after)
        do(anna, verb)
        if not anna.is_dead:
            return
        yield at, world, host, before
    pytest.fail(f"more than {MOST_COMMANDS} commands: they do not end")


@pytest.mark.parametrize("pause_s", [0, 1000], ids=["at once", "later"])
@pytest.mark.parametrize("then", BOTH)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("verb", BOTH)
def test_an_operator_dies_at_a_command(verb: str, after: bool, then: str, pause_s: float) -> None:
    """Later, the host may have gone back by itself."""
    points = 0
    for at, world, host, before in deaths(verb, after=after):
        world.pass_time(pause_s)
        said = do(world.operator("bert"), then)
        assert said.is_good, (at, said.result, said.texts())
        require_end(world, host, then, before)
        points += 1
    assert points >= 5


def transactions(verb: str) -> list[int]:
    """Which commands of `verb` are transactions."""
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
            anna = world.operator("anna").dies(number, after=True)
            anna.before(lambda _: len(anna.commands) == number, lambda: setattr(host, "kill_at", change))  # noqa: B023
            do(anna, verb)
            if not host.kills:
                break
            host.reboot()
            said = do(world.operator("bert"), then)
            assert said.is_good, (number, change, said.result, said.texts())
            require_end(world, host, then, before)
            points += 1
    assert points > 15
