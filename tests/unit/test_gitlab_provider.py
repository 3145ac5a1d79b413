"""GitLab by intent: which calls each answer is made of, and what is proof."""

from __future__ import annotations

from typing import cast

import pytest

from provisioner.ci import DEFAULT, KINDS
from provisioner.ci.base import Provider
from provisioner.ci.gitlab.api import Api
from provisioner.ci.gitlab.provider import GitLab
from provisioner.ci.gitlab.values import Runner, RunnerStatus
from provisioner.errors import CiUnavailable
from provisioner.masking import without_tokens
from provisioner.model import Mark, RunnerSpec
from tests.unit.engine_fakes import FakeApi
from tests.unit.hosts import MACHINE, runner, spec

MARK = Mark("host1", "default", MACHINE)


class Unlisted(FakeApi):
    """Its lists show nothing."""

    def runners(self, *_: object) -> tuple[Runner, ...]:
        return ()


class Undeleted(FakeApi):
    """It says that it deletes."""

    def delete(self, *_: object) -> bool:
        return True


def gitlab(*there: Runner) -> tuple[Provider, FakeApi]:
    api = FakeApi({one.id: one for one in there})
    return GitLab(cast("Api", api)), api


def test_a_look_finds_by_mark_and_by_id() -> None:
    provider, api = gitlab(runner(7), runner(8, machine="0" * 12), runner(9, description="somebody's"))
    view = provider.look(spec(), MACHINE, ())
    assert [one.id for one in view.found["default"]] == [7]
    assert ("get", 8) not in api.said
    unlisted = GitLab(cast("Api", Unlisted({7: runner(7)})))
    assert [one.id for one in unlisted.look(spec(), MACHINE, (7, 12)).found["default"]] == [7]


def test_an_id_of_another_machine_is_not_ours() -> None:
    provider, _ = gitlab(runner(7, machine="0" * 12))
    assert provider.look(spec(), MACHINE, (7,)).found["default"] == ()


@pytest.mark.parametrize(("known", "call", "secret"), [(None, "create", "glrt-new"), (7, "reset", "glrt-reset")])
def test_enrol_creates_or_resets(known: int | None, call: str, secret: str) -> None:
    provider, api = gitlab(runner(7))
    made = provider.enrol(RunnerSpec(), MARK, known)
    assert (made.secret.reveal(), [name for name, _ in api.said]) == (secret, [call])
    assert made.id == (known or 99)


@pytest.mark.parametrize("status", RunnerStatus)
def test_only_a_manager_that_is_online_has_asked_for_jobs(status: RunnerStatus) -> None:
    provider, api = gitlab(runner(7))
    api.status = status
    assert provider.confirm(7) is (status is RunnerStatus.ONLINE)


def test_quiesce_pauses_what_is_there_and_resume_undoes_it() -> None:
    provider, api = gitlab(runner(7))
    assert not provider.quiesce(8)
    assert not provider.is_quiet(8)
    provider.resume(8)
    assert [name for name, _ in api.said] == ["get", "get", "get"]
    assert provider.quiesce(7)
    assert provider.is_quiet(7)
    provider.resume(7)
    assert not provider.is_quiet(7)


def test_withdrawn_is_seen_gone() -> None:
    provider, api = gitlab(runner(7))
    provider.withdraw(7)
    provider.withdraw(7)
    assert api.said == [("delete", 7), ("get", 7)] * 2


def test_a_runner_that_outlives_its_deletion_is_no_success() -> None:
    provider = GitLab(cast("Api", Undeleted({7: runner(7)})))
    with pytest.raises(CiUnavailable, match="GitLab still has runner 7"):
        provider.withdraw(7)


def test_a_deleted_runner_that_cannot_be_asked_for_is_not_said_to_be_there() -> None:
    provider, api = gitlab(runner(7))
    api.fails["get"] = CiUnavailable("502")
    with pytest.raises(CiUnavailable, match="runner 7 was deleted, and GitLab could not be asked for it again: 502"):
        provider.withdraw(7)


def test_listed_are_those_with_a_mark_each_once() -> None:
    provider, _ = gitlab(runner(7), runner(8, description="somebody's"))
    hosts = [spec(), spec(name="host2")]
    assert [(one.id, one.polls, one.state) for one in provider.listed(hosts)] == [(7, True, "online")]


def test_a_stale_process_is_worth_a_remark() -> None:
    provider, api = gitlab(runner(7))
    assert [one.remark for one in provider.presences(7)] == [""]
    api.status = RunnerStatus.STALE
    assert [one.state for one in provider.presences(7)] == ["stale"]
    assert provider.presences(7)[0].remark.startswith("stale; GitLab lets no operator")


def test_the_registry_has_gitlab_and_knows_what_people_type() -> None:
    assert KINDS["gitlab"] is DEFAULT
    assert [option.parameter for option in DEFAULT.options] == ["gitlab_url", "gitlab_token_file"]
    assert (DEFAULT.identify("12"), DEFAULT.identify("host1")) == (12, None)
    assert without_tokens("glrt-t3_abcdef and x") == "glrt-*** and x"
