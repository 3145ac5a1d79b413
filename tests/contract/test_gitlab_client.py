"""What every Api promises, held against the lab's GitLab over real HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import gitlab as python_gitlab
import pytest
from nixprov_lab.gitlab import queue
from nixprov_lab.gitlab.records import JobSpec, Role
from nixprov_lab.gitlab.server import Running
from nixprov_lab.gitlab.state import NewRunner

from provisioner.ci.gitlab.access import Access, TokenKind
from provisioner.ci.gitlab.api import Api
from provisioner.ci.gitlab.client import Client
from provisioner.ci.gitlab.compare import differences
from provisioner.ci.gitlab.values import RunnerStatus
from provisioner.model import AccessLevel, Mark, RunnerSpec, RunnerType, Secret
from tests.contract.conftest import Connect, calls, find, token_for

MARK = Mark("host1", "default", "0123456789ab")
SPEC = RunnerSpec(description="build machine", tags=("nix", "x86_64-linux"), maximum_timeout_s=3600)


def _new(gitlab: Running, description: str) -> NewRunner:
    return NewRunner(RunnerType.INSTANCE, gitlab.lab.state.users[1], description=description)


def test_a_created_runner_is_found_by_its_mark_and_is_as_wanted(gitlab: Running, api: Api) -> None:
    made = api.create(SPEC, MARK)
    assert made.token.reveal() == gitlab.lab.state.runners[made.id].token
    assert "glrt-" not in repr(made)
    (found,) = find(api, MARK, SPEC)
    assert found.id == made.id
    assert found.status is RunnerStatus.NEVER_CONTACTED
    assert differences(SPEC, MARK, found) == ()
    assert api.writes == 1


@pytest.mark.parametrize(
    ("kind", "owner"),
    [
        (RunnerType.INSTANCE, None),
        (RunnerType.GROUP, "lab"),
        (RunnerType.GROUP, "1001"),
        (RunnerType.PROJECT, "lab/demo"),
        (RunnerType.PROJECT, "2001"),
    ],
)
def test_every_kind_of_runner_and_way_to_name_its_owner(api: Api, kind: RunnerType, owner: str | None) -> None:
    spec = replace(SPEC, type=kind, owner=owner)
    made = api.create(spec, MARK)
    (found,) = find(api, MARK, spec)
    assert (found.id, found.type) == (made.id, kind)
    assert differences(spec, MARK, found) == ()


def test_update_removes_every_difference_and_a_second_one_finds_none(api: Api) -> None:
    made = api.create(SPEC, MARK)
    wanted = RunnerSpec(
        description="other words",
        tags=("b", "a"),
        run_untagged=False,
        locked=True,
        access_level=AccessLevel.REF_PROTECTED,
        maximum_timeout_s=None,
        paused=True,
        maintenance_note="rack 4",
    )
    before = api.get(made.id)
    assert before
    assert {one.name for one in differences(wanted, MARK, before)} == {
        *("description", "tags", "run_untagged", "locked", "access_level"),
        *("maximum_timeout", "paused", "maintenance_note"),
    }
    api.update(made.id, wanted, MARK)
    after = api.get(made.id)
    assert after
    assert differences(wanted, MARK, after) == ()


def test_apply_compare_apply_remove_remove(api: Api) -> None:
    made = api.create(SPEC, MARK)
    assert len(find(api, MARK, SPEC)) == 1
    assert (api.delete(made.id), api.delete(made.id)) == (True, False)
    assert api.get(made.id) is None
    assert find(api, MARK, SPEC) == ()
    assert api.managers(made.id) == ()
    assert api.running_jobs(made.id) == 0


def test_marks_of_other_machines_and_runners_are_not_ours(api: Api) -> None:
    api.create(SPEC, replace(MARK, machine="f" * 12))
    api.create(SPEC, replace(MARK, runner="other"))
    renamed = api.create(SPEC, replace(MARK, host="old-name"))
    assert [runner.id for runner in find(api, MARK, SPEC)] == [renamed.id]


def test_a_hundred_hosts_list_once_and_page_by_page(gitlab: Running, connect: Connect) -> None:
    for n in range(205):
        connect_spec = replace(MARK, machine=f"{n:012x}")
        gitlab.lab.state.add_runner(_new(gitlab, str(connect_spec)))
    api = connect()
    since = len(gitlab.lab.journal.entries)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: find(api, replace(MARK, machine=f"{n:012x}"), SPEC), range(100)))
    assert all(len(runners) == 1 for runners in found)
    asked = [path for _, path in calls(gitlab, since)]
    assert asked.count("/api/v4/runners/all") == 3
    assert len(asked) == 3 + 100
    assert api.writes == 0


def test_threads_create_what_they_then_find_without_listing_again(gitlab: Running, api: Api) -> None:
    marks = [replace(MARK, machine=f"{n:012x}") for n in range(12)]

    def provision(mark: Mark) -> bool:
        assert find(api, mark, SPEC) == ()
        made = api.create(SPEC, mark)
        return [runner.id for runner in find(api, mark, SPEC)] == [made.id]

    since = len(gitlab.lab.journal.entries)
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(provision, marks))
    assert calls(gitlab, since).count(("GET", "/api/v4/runners/all")) == 1
    assert api.writes == len(marks)


def test_managers_and_running_jobs(gitlab: Running, api: Api) -> None:
    made = api.create(SPEC, MARK)
    state = gitlab.lab.state
    runner = state.runners[made.id]
    manager = state.heartbeat(runner, "s_1")
    manager.polled = True
    manager.info["version"] = "19.4.0"
    (seen,) = api.managers(made.id)
    assert (seen.system_id, seen.status, seen.version) == ("s_1", RunnerStatus.ONLINE, "19.4.0")
    for _ in range(3):
        queue.enqueue(state, JobSpec(("true",)), state.projects[2001])
        queue.take(state, runner, "s_1", cancels_gracefully=True)
    assert api.running_jobs(made.id) == 3
    for job in state.jobs.values():
        queue.cancel(state, job)
    # GitLab lists a job that is being cancelled under another status, but its runner still works on it.
    assert api.running_jobs(made.id) == 1


def test_pause_and_resume(gitlab: Running, api: Api) -> None:
    made = api.create(SPEC, MARK)
    api.set_paused(made.id, True)
    assert not gitlab.lab.state.runners[made.id].active
    api.set_paused(made.id, False)
    assert gitlab.lab.state.runners[made.id].active


def test_a_reset_token_replaces_the_old_one(gitlab: Running, api: Api) -> None:
    made = api.create(SPEC, MARK)
    again = api.reset_token(made.id)
    assert again.id == made.id
    assert again.token != made.token
    assert gitlab.lab.state.runner_by_token(made.token.reveal()) is None


@pytest.mark.parametrize("scopes", [("api",), ("read_api",), ("create_runner", "manage_runner"), ("create_runner",)])
def test_check_takes_any_valid_token(gitlab: Running, connect: Connect, scopes: tuple[str, ...]) -> None:
    connect(token_for(gitlab, *scopes)).check()


def test_the_least_scopes_do_for_everything(gitlab: Running, connect: Connect) -> None:
    api = connect(token_for(gitlab, "create_runner", "manage_runner", "read_api"))
    made = api.create(SPEC, MARK)
    assert len(find(api, MARK, SPEC)) == 1
    api.update(made.id, SPEC, MARK)
    api.reset_token(made.id)
    assert (api.managers(made.id), api.running_jobs(made.id)) == ((), 0)
    assert api.delete(made.id)


def test_a_maintainer_handles_project_runners(gitlab: Running, connect: Connect) -> None:
    api = connect(token_for(gitlab, "api", username="mia", roles={"lab/demo": Role.MAINTAINER}))
    spec = replace(SPEC, type=RunnerType.PROJECT, owner="lab/demo")
    made = api.create(spec, MARK)
    assert [runner.id for runner in find(api, MARK, spec)] == [made.id]
    assert api.delete(made.id)


def test_an_oauth_token_travels_as_bearer(gitlab: Running) -> None:
    api = Client(Access(gitlab.url, Secret(gitlab.token), TokenKind.OAUTH))
    api.check()
    api.close()


def test_python_gitlab_itself_works_against_the_lab(gitlab: Running) -> None:
    with python_gitlab.Gitlab(gitlab.url, private_token=gitlab.token, timeout=30, per_page=2) as client:
        client.auth()
        assert client.user
        made = [client.user.runners.create({"runner_type": "instance_type", "tag_list": ["a"]}) for _ in range(5)]
        assert [runner.id for runner in client.runners_all.list(get_all=True)] == [runner.id for runner in made]
        runner = client.runners.get(made[0].id)
        runner.description = "changed"
        runner.save()
        client.runners.verify(made[1].token)
        assert client.http_list(f"/runners/{made[1].id}/managers", get_all=True)[0]["system_id"] == "<legacy>"  # type: ignore[index]
        client.http_delete("/runners", post_data={"token": made[1].token})
        with pytest.raises(python_gitlab.GitlabVerifyError):
            client.runners.verify(made[1].token)
        with pytest.raises(python_gitlab.GitlabCreateError) as caught:
            client.runners.create({"token": gitlab.token})
        assert caught.value.response_code == 410
        project = client.projects.get("lab/demo")
        assert project.runners.list(get_all=True)
        runner.delete()
