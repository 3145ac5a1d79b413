"""The contract of a provider of CI (provisioner/ci/base.py), held by each that there is and by one on paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from nixprov_lab.gitlab.server import Running

from provisioner.ci import KINDS
from provisioner.ci.base import Credential, Held, Kind, Provider, RunnerAction, RunnerVerb
from provisioner.model import Connection, HostSpec, Identity, Mark, RunnerSpec
from tests.contract.conftest import Connect
from tests.unit import paper

MACHINE = "0123456789ab"
HOST = HostSpec("host1", Connection("192.0.2.1"), (RunnerSpec("default"), RunnerSpec("big")))


@dataclass
class Site:
    """A provider, and the other side of it: `polls` has a process with the credential ask for jobs."""

    provider: Provider
    kind: Kind
    polls: Callable[[Credential], None]
    held: dict[str, Held] = field(default_factory=dict)

    def carry_out(self, actions: list[RunnerAction]) -> dict[str, Credential]:
        """As `up` does it: deletions come last."""
        specs = {spec.name: spec for spec in HOST.runners}
        made = {}
        for action in actions:
            if action.verb.makes_a_token:
                made[action.name] = self.provider.enrol(specs[action.name], mark(action.name), action.id)
                self.held[action.name] = Held(made[action.name].id, has_credential=True)
            if action.id is not None and action.differences:
                self.provider.adjust(action.id, specs[action.name], mark(action.name))
        for action in actions:
            if action.verb is RunnerVerb.DELETE and action.id is not None:
                self.provider.withdraw(action.id)
        return made

    def plan(self, known: tuple[Identity, ...] = (), *, renew: bool = False) -> list[RunnerAction]:
        return list(self.provider.look(HOST, MACHINE, known).to_have(HOST, MACHINE, self.held, renew=renew))


def mark(runner: str) -> Mark:
    return Mark("host1", runner, MACHINE)


def on_paper(_connect: Connect, _gitlab: Running) -> Site:
    mill = paper.Mill()
    return Site(mill, paper.kind(mill), lambda made: mill.presses.append(str(made.id)))


def on_gitlab(connect: Connect, gitlab: Running) -> Site:
    from provisioner.ci.gitlab.provider import GitLab

    def polls(made: Credential) -> None:
        runner = next(one for one in gitlab.lab.state.runners.values() if one.id == made.id)
        gitlab.lab.state.heartbeat(runner, "s_1").polled = True

    return Site(GitLab(connect()), KINDS["gitlab"], polls)


SITES = {"gitlab": on_gitlab, "paper": on_paper}


def test_each_provider_has_a_site_here() -> None:
    assert SITES.keys() == {*KINDS, "paper"}, "a new provider is one more row"


@pytest.fixture(params=sorted(SITES))
def site(request: pytest.FixtureRequest, connect: Connect, gitlab: Running) -> Site:
    return SITES[request.param](connect, gitlab)


def test_what_was_enrolled_is_found_and_kept(site: Site) -> None:
    assert {action.verb for action in site.plan()} == {RunnerVerb.CREATE}
    made = site.carry_out(site.plan())
    assert made.keys() == {"default", "big"}
    assert len({one.secret.reveal() for one in made.values()}) == 2
    assert {action.verb for action in site.plan()} == {RunnerVerb.KEEP}
    found = site.provider.look(HOST, MACHINE, ()).found
    assert {name: [one.id for one in there] for name, there in found.items()} == {
        name: [one.id] for name, one in made.items()
    }


@pytest.mark.parametrize("how", ["asked for", "lost on the host", "another one in the journal"])
def test_a_credential_is_replaced_and_one_runner_is_left(site: Site, how: str) -> None:
    before = site.carry_out(site.plan())
    if how == "lost on the host":
        site.held["default"] = Held(before["default"].id, has_credential=False)
    elif how == "another one in the journal":
        site.held["default"] = Held(type(before["default"].id)("999"), has_credential=True)
    after = site.carry_out(site.plan(renew=how == "asked for"))
    assert after["default"].secret != before["default"].secret
    there = site.provider.look(HOST, MACHINE, ()).found["default"]
    assert [one.id for one in there] == [after["default"].id]
    assert {action.verb for action in site.plan()} == {RunnerVerb.KEEP}


def test_a_run_that_died_after_enrolling_leaves_one(site: Site) -> None:
    site.carry_out(site.plan())
    site.held.clear()
    made = site.carry_out(site.plan())
    assert [one.id for one in site.provider.look(HOST, MACHINE, ()).found["big"]] == [made["big"].id]


def test_only_a_process_that_asks_for_jobs_confirms(site: Site) -> None:
    made = site.carry_out(site.plan())["default"]
    assert not site.provider.confirm(made.id)
    site.polls(made)
    assert site.provider.confirm(made.id)
    assert len(site.provider.presences(made.id)) == 1


def test_quiet_and_back(site: Site) -> None:
    made = site.carry_out(site.plan())["default"]
    waits = site.provider.quiesce(made.id)
    assert site.provider.is_quiet(made.id) is waits
    assert not waits or site.provider.running_jobs(made.id) == 0
    site.provider.resume(made.id)
    assert not site.provider.is_quiet(made.id)


def test_what_is_gone_is_gone_twice(site: Site) -> None:
    made = site.carry_out(site.plan())
    lost = site.provider.look(HOST, MACHINE, ()).to_lose()
    assert {action.id for action in lost} == {one.id for one in made.values()}
    for action in [*lost, *lost]:
        assert action.id is not None
        site.provider.withdraw(action.id)
        assert site.provider.find(action.id) is None
        assert not site.provider.quiesce(action.id)
        site.provider.resume(action.id)
    assert list(site.provider.listed([HOST])) == []
    assert list(site.provider.look(HOST, MACHINE, ()).to_lose()) == []


def test_another_machine_of_the_same_name_shares_nothing(site: Site) -> None:
    site.carry_out(site.plan())
    view = site.provider.look(HOST, "f" * 12, ())
    assert list(view.to_lose()) == []
    assert {action.verb for action in view.to_have(HOST, "f" * 12, {})} == {RunnerVerb.CREATE}


def test_what_is_listed_carries_the_mark_and_is_counted(site: Site) -> None:
    made = site.carry_out(site.plan())
    assert {one.id: one.mark for one in site.provider.listed([HOST])} == {
        one.id: mark(name) for name, one in made.items()
    }
    assert site.provider.writes == 2


def test_its_words_and_its_side_of_a_host_are_there(site: Site) -> None:
    assert site.provider.server.words == site.kind.words
    assert site.provider.server.host_side == site.kind.host_side
    made = site.carry_out(site.plan())["default"]
    assert site.kind.identify(str(made.id)) == made.id
    assert site.kind.identify("host1") is None
