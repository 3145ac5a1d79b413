"""What a run that fails leaves behind: which token is in use, whose runner goes, what was kept, and what is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provisioner.engine.host import Limits
from provisioner.errors import CiRefused, CiUnavailable
from provisioner.machine.journal import NO_TOKEN
from provisioner.machine.transaction import JOURNAL, STATE_DIR
from provisioner.model import Mark, RunnerSpec, machine_key
from provisioner.outcome import Outcome
from provisioner.verb import Verb
from tests.simulator.host import Host
from tests.simulator.reader import Abort, Active, Command, Follow, Transact
from tests.simulator.stage import Cut, World, starts_switch
from tests.simulator.systems import System

RUNNER = "nixprov-runner-default.service"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def host(world: World) -> Host:
    return world.add_host()


@pytest.fixture
def installed(world: World, host: Host) -> Host:
    assert world.operator().up().is_good
    return host


def token_version(host: Host) -> str:
    return str(host.journal["runners"]["default"]["token_version"])


def is_polled(world: World) -> bool:
    """By the one runner's unit, with the token that GitLab takes."""
    world.pass_time(10)
    (record,) = world.gitlab.records.values()
    return world.gitlab.is_polled(record)


def commits(command: Command) -> bool:
    return isinstance(command, Transact) and command.guard is not None


def never_builds(_: System) -> str:
    return "error: builder failed"


def test_a_unit_whose_token_was_replaced_is_restarted_when_no_switch_does_it(world: World, installed: Host) -> None:
    """The token before is dead, so the files go back and the token does not: the unit must read it."""
    installed.fails_to_build = never_builds
    said = world.operator().up(new_tokens=True)
    assert said.outcome is Outcome.ROLLED_BACK
    assert is_polled(world)
    assert world.operator().plan().plan() == ()


def test_a_token_that_never_came_to_the_host_is_not_said_to_be_there(world: World, installed: Host) -> None:
    anna = world.operator()
    anna.before(starts_switch, lambda: setattr(anna, "cut", Cut(len(anna.commands), after=False)))
    said = anna.up(new_tokens=True)
    assert said.outcome is Outcome.ROLLED_BACK
    assert token_version(installed) == NO_TOKEN
    assert any("has ended: `nixprov up` makes another" in text for text in said.texts())
    assert not is_polled(world)
    assert world.operator().up().is_good
    assert is_polled(world)


def test_a_reset_whose_answer_was_lost_may_have_been_done(world: World, installed: Host) -> None:
    said = world.operator(fails={"reset": CiUnavailable("no answer")}).up(new_tokens=True)
    assert said.outcome is Outcome.CI
    assert token_version(installed) == NO_TOKEN


def test_a_machine_whose_journal_was_moved_away_is_not_cleaned_under_its_runner(world: World, installed: Host) -> None:
    """As the hint for a broken journal says; the runner works, and its jobs run."""
    installed.disk.remove(JOURNAL)
    said = world.operator(fails={"reset": CiRefused("403")}).up()
    assert said.outcome is Outcome.CI
    assert not installed.disk.exists(JOURNAL)
    assert is_polled(world)
    assert installed.disk.exists("/var/lib/nixprov-runner")


def test_a_down_that_waits_in_vain_cleans_nothing_either(world: World, installed: Host) -> None:
    installed.disk.remove(JOURNAL)
    (record,) = world.gitlab.records.values()
    record.jobs = 1
    said = world.operator(limits=Limits(drain_s=60)).down()
    assert "1 jobs still run after 60 s" in said.result.error
    assert not record.runner.paused, "it was found by its mark, and paused"
    assert not installed.disk.exists(JOURNAL)
    assert is_polled(world)


def test_a_new_machine_is_cleaned(world: World, host: Host) -> None:
    before = host.disk.snapshot("/")
    assert world.operator(fails={"create": CiRefused("403")}).up().outcome is Outcome.CI
    assert host.disk.snapshot("/").keys() == before.keys()


def test_a_runner_that_cannot_be_deleted_is_no_reason_to_take_a_host_back(world: World, installed: Host) -> None:
    """It is a double of one that works by then."""
    mark = Mark("host1", "default", machine_key(installed.machine_id))
    double = world.gitlab.add(RunnerSpec(), str(mark))
    said = world.operator(fails={"delete": CiUnavailable("502")}).up(new_tokens=True)
    assert said.outcome is Outcome.CI
    assert installed.journal["phase"] == "up: confirmed"
    assert double.runner.id in world.gitlab.records
    assert installed.units[RUNNER].token == world.gitlab.records[7].token


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_host_that_went_back_just_before_it_was_confirmed_is_no_other_operator(
    world: World, host: Host, verb: str
) -> None:
    """What was made in GitLab goes, what was paused goes on."""
    if verb == "down":
        assert world.operator().up().is_good
    system = host.system
    anna = world.operator().before(commits, lambda: world.pass_time(400))
    said = anna.down() if verb == "down" else anna.up()
    assert said.outcome is Outcome.ROLLED_BACK
    assert "went back to the old one" in said.result.error
    assert host.system == system
    assert [runner.paused for runner in world.gitlab.runners] == ([False] if verb == "down" else [])


def test_a_line_that_is_cut_while_the_host_goes_back_is_no_failed_rollback(world: World, host: Host) -> None:
    """The host goes back because its new system lets nobody poll; the old one cuts the connection."""
    before = host.disk.snapshot("/etc/nixos")
    host.reaches_gitlab = False
    anna = world.operator()
    anna.before(
        lambda command: isinstance(command, Abort), lambda: setattr(anna, "cut", Cut(len(anna.commands), after=True))
    )
    said = anna.up()
    assert said.outcome is Outcome.ROLLED_BACK
    assert "was not polled by runner default" in said.result.error
    assert host.disk.snapshot("/etc/nixos") == before
    assert world.gitlab.runners == []


@pytest.mark.parametrize("verb", [Verb.PLAN, Verb.PLAN_DOWN])
def test_a_plan_names_a_switch_that_waits_and_leaves_it(world: World, host: Host, verb: Verb) -> None:
    anna = world.operator("anna")
    anna.before(commits, anna.die)
    anna.up()
    said = world.operator("bert").run(verb)
    assert any("waits to be confirmed" in text for text in said.texts())
    assert host.switch.waits
    assert world.operator("bert").up().is_good


def test_a_machine_has_one_name_in_a_run(world: World, host: Host) -> None:
    """Under the second the lock would hold nothing off, and a switch of the first could be taken for one to be ended."""
    world.add_host("twin")
    world.hosts["twin"] = host
    good, refused = sorted(world.operator().up().results, key=lambda result: not result.outcome.is_good)
    assert good.outcome is Outcome.CHANGED
    assert "it has the machine id of" in refused.error


def test_a_copy_of_a_machine_does_not_delete_the_runner_of_its_original(world: World, installed: Host) -> None:
    """Its disk came with the journal, and its id is its own."""
    installed.machine_id = "f" * 32
    said = world.operator().down()
    assert said.is_good
    assert any("another machine" in text for text in said.texts())
    assert [runner.id for runner in world.gitlab.runners] == [7]
    assert not installed.disk.exists(STATE_DIR)


def test_a_runner_that_has_lost_its_mark_is_deleted_by_the_journals_id(world: World, installed: Host) -> None:
    (record,) = world.gitlab.records.values()
    record.runner = replace(record.runner, description="somebody wrote here")
    assert world.operator().down().is_good
    assert world.gitlab.runners == []


def test_a_unit_that_dies_is_not_waited_for(world: World, host: Host) -> None:
    host.broken.add(RUNNER)
    said = world.operator().up()
    assert said.outcome is Outcome.ROLLED_BACK
    assert f"{RUNNER} is failed, restarted 0 times" in said.result.error
    assert said.result.seconds < 80


@pytest.mark.parametrize(("silent_s", "is_confirmed"), [(60, True), (1000, False)])
def test_a_gitlab_that_is_silent_is_given_its_time(
    world: World, host: Host, silent_s: float, is_confirmed: bool
) -> None:
    """That it does not answer us says nothing of the unit, which is not asked for."""
    anna = world.operator()

    def falls_silent() -> None:
        anna.fails["managers"] = CiUnavailable("502")
        world.clock.after(silent_s, anna.fails.clear)

    said = anna.before(lambda command: isinstance(command, Follow), falls_silent).up()
    assert said.outcome is (Outcome.CHANGED if is_confirmed else Outcome.ROLLED_BACK)
    assert is_confirmed or "502; rolled back" in said.result.error


def test_a_unit_that_lives_is_given_its_time(world: World, host: Host) -> None:
    host.reaches_gitlab = False
    anna = world.operator()
    anna.before(lambda command: isinstance(command, Active), lambda: setattr(host, "reaches_gitlab", True))
    assert anna.up().is_good
    assert host.journal["phase"] == "up: confirmed"


@pytest.mark.parametrize(("silent_s", "is_drained"), [(60, True), (10_000, False)])
def test_a_gitlab_that_is_restarted_while_jobs_are_waited_for(
    world: World, installed: Host, silent_s: float, is_drained: bool
) -> None:
    """One that stays silent does not hold up `down`: the unit itself finishes its jobs as it stops."""
    (record,) = world.gitlab.records.values()
    record.jobs = 1
    anna = world.operator(fails={"jobs": CiUnavailable("502")})
    world.clock.after(silent_s, anna.fails.clear)
    world.clock.after(600, lambda: setattr(record, "jobs", 0))
    said = anna.down()
    assert said.is_good
    assert (world.clock.now > 600) is is_drained
    assert any("not drained: 502" in text for text in said.texts()) is not is_drained


def test_settings_that_stay_in_gitlab_are_said(world: World, host: Host) -> None:
    world.specs[0] = replace(world.specs[0], runners=(RunnerSpec(tags=("old",)),))
    assert world.operator().up().is_good
    world.specs[0] = replace(world.specs[0], runners=(RunnerSpec(image="other"),))
    host.fails_to_build = never_builds
    said = world.operator().up()
    assert said.outcome is Outcome.ROLLED_BACK
    assert "runner default keeps in GitLab what this run changed there: tags: old -> none" in said.texts()


def test_a_system_that_its_owner_switched_to_meanwhile_stays(world: World, host: Host) -> None:
    """Activated while ours was on trial: the host keeps it and undoes our files, and unwinding changes no system."""
    theirs = System("/nix/store/theirs-nixos-system", "", ())

    def switches() -> None:
        host.systems[theirs.path] = theirs
        host.generation = max(host.generations) + 1
        host.generations[host.generation] = theirs
        host.activate(theirs)

    said = world.operator().before(commits, switches).up()
    assert not said.is_good
    assert (host.system, host.profile) == (theirs, theirs)
    assert any("somebody else's switch: that system is left as it is" in text for text in said.texts())
    assert host.disk.read(JOURNAL) is None


def test_without_a_generation_to_go_back_to_nothing_is_called_rolled_back(world: World, host: Host) -> None:
    """The profile is no link of NixOS' own; the switch was kept at once, and a unit that every job needs is dead."""
    host.broken.add("nixprov-podman.socket")
    host.has_generations = False
    said = world.operator(limits=Limits(confirm_s=0)).up()
    assert said.outcome is Outcome.ROLLBACK_FAILED
    assert "no generation holds the system from before" in said.result.error
