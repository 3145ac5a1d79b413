"""Protections of `up` and `down`, each in the situation that it is for. Each was taken out once, and its test failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provisioner import advisories
from provisioner.errors import CiRefused
from provisioner.machine.transaction import JOURNAL
from provisioner.model import ModuleSpec, RunnerSpec
from provisioner.outcome import Outcome
from tests.simulator.host import SECRETS, Host
from tests.simulator.reader import Command, Follow, Probe
from tests.simulator.stage import Said, World, starts_switch

TOKEN = f"{SECRETS}/default.token"
RUNNER = "nixprov-runner-default.service"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def host(world: World) -> Host:
    return world.add_host()


def is_follow(command: Command) -> bool:
    return isinstance(command, Follow)


def takes_back(command: Command) -> bool:
    """The first look of an operator who unwinds, or who gives a host back."""
    return isinstance(command, Probe) and command.waits


def fails_to_build(host: Host) -> None:
    host.fails_to_build = lambda system: "error: builder failed" if system.revision else ""


def calls(world: World, name: str) -> list[object]:
    return [argument for call, argument in world.gitlab.calls if call == name]


# 1. A second login before the new system is kept.


def test_a_system_that_lets_nobody_in_is_not_kept(world: World, host: Host) -> None:
    """The connection that is open goes on working, so it proves nothing."""
    before, system = host.disk.snapshot("/etc/nixos"), host.system
    host.lets_in = lambda running: not running.revision
    said = world.operator().up()
    assert not said.is_good
    assert any("does not let us in after the switch" in text for text in said.texts())
    world.pass_time(600)
    assert (host.system, host.profile) == (system, system)
    assert host.disk.snapshot("/etc/nixos") == before


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_login_is_made_before_the_new_system_is_kept(world: World, host: Host, verb: str) -> None:
    if verb == "down":
        assert world.operator().up().is_good
    operator = world.operator()
    assert (operator.up() if verb == "up" else operator.down()).result.connections == 2


# 2. What every job needs is up.


@pytest.mark.parametrize("unit", ["nixprov-podman.socket", "nixprov-nix-daemon.socket", "nixprov-image.service"])
def test_a_dead_foundation_unit_is_no_success(world: World, host: Host, unit: str) -> None:
    """The runner's own unit is active and polls: jobs would be taken, and fail."""
    system = host.system
    host.broken.add(unit)
    said = world.operator().up()
    assert said.outcome is Outcome.ROLLED_BACK
    assert f"{unit} did not start, and every job needs it" in said.result.error
    assert (host.system, world.gitlab.runners) == (system, [])


# 3. Trust.


def test_jobs_that_would_be_root_by_trust_refuse_up(world: World, host: Host) -> None:
    """By the settings of an older Nix, whose advisories the inventory accepts."""
    host.nix_version, host.trusted_users = "2.17.0", "root *"
    found = advisories.of("nix", "2.17.0")
    assert found
    (spec,) = world.specs
    accepted = tuple(one.id for one in (*found.root, *found.less))
    operator = world.operator(specs=[replace(spec, module=ModuleSpec(accepted_advisories=accepted))])
    said = operator.up()
    assert "`*` in trusted-users makes jobs root of the host" in said.result.error
    assert (host.journal, world.gitlab.runners) == ({}, [])
    host.trusted_users = "root"
    assert operator.up().is_good


# 4. A host that another run holds.


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_host_that_another_run_holds_is_left_alone(world: World, host: Host, verb: str) -> None:
    seen: list[Said] = []
    journals: list[bytes | None] = []

    def bert_comes() -> None:
        journals.append(host.disk.read(JOURNAL))
        bert = world.operator("bert")
        seen.append(bert.up() if verb == "up" else bert.down())
        journals.append(host.disk.read(JOURNAL))

    said = world.operator("anna").before(is_follow, bert_comes).up()
    (bert,) = seen
    assert bert.outcome is Outcome.FAILED
    assert "anna@here" in bert.result.error
    assert "its connection is open" in bert.result.error
    assert [type(command) for command in bert.commands] == [Probe]
    assert journals[0] == journals[1]
    assert said.is_good


# 5, 6. What is another's is not undone.


@pytest.mark.parametrize("bert_does", ["up", "down"])
def test_who_was_overtaken_unwinds_nothing(world: World, host: Host, bert_does: str) -> None:
    """Anna's build fails; before she takes anything back, Bert has taken the host over and is done."""
    before = host.disk.snapshot("/etc/nixos")
    fails_to_build(host)
    after: list[object] = []

    def bert_comes() -> None:
        host.fails_to_build = lambda _: ""
        bert = world.operator("bert")
        assert (bert.up if bert_does == "up" else bert.down)(take_over=True).is_good
        after.append((host.disk.snapshot("/"), host.system))

    said = world.operator("anna").before(takes_back, bert_comes).up()
    assert after == [(host.disk.snapshot("/"), host.system)]
    assert "taken over by another operator" in said.result.error
    if bert_does == "down":
        assert host.disk.snapshot("/etc/nixos") == before
    else:
        assert (world.operator().plan().plan(), host.units[RUNNER].active) == ((), "active")


def test_who_was_overtaken_releases_nothing(world: World, host: Host) -> None:
    """GitLab refuses Anna the runner, and she had changed nothing but the journal; by then it is Bert's."""
    after: list[object] = []

    def bert_comes() -> None:
        assert world.operator("bert").up(take_over=True).is_good
        after.append(host.disk.snapshot("/"))

    anna = world.operator("anna", fails={"create": CiRefused("403 Forbidden")}).before(takes_back, bert_comes)
    said = anna.up()
    assert after == [host.disk.snapshot("/")]
    assert "taken over by another operator" in said.result.error
    assert world.operator().plan().plan() == ()


# 7. A runner that the other run uses.


def test_a_runner_that_the_overtaking_run_uses_stays(world: World, host: Host) -> None:
    """Anna made it; Bert found it by its mark, and the host's journal names it now."""
    anna = world.operator("anna").before(starts_switch, lambda: world.operator("bert").up(take_over=True))
    said = anna.up()
    assert "another operator" in said.result.error
    (runner,) = world.gitlab.runners
    assert host.journal["runners"]["default"]["id"] == runner.id
    assert calls(world, "delete") == []
    assert world.operator().plan().plan() == ()


def test_a_runner_that_nobody_uses_is_given_back(world: World, host: Host) -> None:
    """Bert took over before Anna's runner was made, and made his own."""

    def bert_comes() -> None:
        record = world.gitlab.records.pop(7)
        assert world.operator("bert").up(take_over=True).is_good
        world.gitlab.records[7] = record

    said = world.operator("anna").before(starts_switch, bert_comes).up()
    assert "another operator" in said.result.error
    assert [runner.id for runner in world.gitlab.runners] == [8]
    assert said.result.remains == ()


# 8. Gone is seen.


def test_a_runner_that_gitlab_still_has_is_not_said_to_be_gone(world: World, host: Host) -> None:
    assert world.operator().up().is_good
    (runner,) = world.gitlab.runners
    world.gitlab.undying.add(runner.id)
    said = world.operator().down()
    assert said.outcome is Outcome.CI
    assert f"GitLab still has runner {runner.id} after deleting it" in said.result.error
    assert [one["id"] for one in host.journal["pending_deletions"]] == [runner.id]
    world.gitlab.undying.clear()
    assert world.operator().down().is_good
    assert (world.gitlab.runners, host.journal) == ([], {})


# 9. The last look of `down`.


def test_what_is_left_on_the_host_is_seen_and_named(world: World, host: Host) -> None:
    """Something was quicker than we are: it made its folder again after it was removed."""
    assert world.operator().up().is_good
    operator = world.operator()

    def is_last_look(command: Command) -> bool:
        return isinstance(command, Probe) and not host.disk.exists("/var/lib/nixprov")

    operator.before(is_last_look, lambda: host.disk.make_folder("/var/lib/nixprov-containers"))
    said = operator.down()
    assert said.outcome is Outcome.FAILED
    assert "not everything of ours went" in said.result.error
    assert said.result.remains == ("/var/lib/nixprov-containers",)


# 10. A `down` that failed.


def test_after_a_failed_down_runners_take_jobs_again_but_for_those_meant_to_be_paused(world: World) -> None:
    host = world.add_host("host1", RunnerSpec("works"), RunnerSpec("rests", paused=True))
    assert world.operator().up().is_good
    host.fails_to_build = lambda _: "error: builder failed"
    said = world.operator().down()
    assert said.outcome is Outcome.ROLLED_BACK
    paused = {runner.mark.runner: runner.paused for runner in world.gitlab.runners if runner.mark}
    assert paused == {"works": False, "rests": True}
    assert world.operator().plan().plan() == ()


# 11. Mode and owner of the token's file.


def test_a_token_is_roots_alone(world: World, host: Host) -> None:
    assert world.operator().up().is_good
    entry = host.disk.entries[TOKEN]
    assert (entry.mode, entry.owner) == (0o600, "0:0")
    assert host.disk.entries[SECRETS].mode == 0o700


@pytest.mark.parametrize(("mode", "owner"), [(0o644, "0:0"), (0o600, "1000:100")])
def test_a_token_that_others_can_read_is_seen_and_mended(world: World, host: Host, mode: int, owner: str) -> None:
    assert world.operator().up().is_good
    entry = host.disk.entries[TOKEN]
    entry.mode, entry.owner = mode, owner
    assert f"secrets: the token file of runner default is {mode:04o} {owner}" in world.operator().plan().plan()
    assert world.operator().up().is_good
    assert (host.disk.entries[TOKEN].mode, host.disk.entries[TOKEN].owner) == (0o600, "0:0")
    assert world.operator().plan().plan() == ()
