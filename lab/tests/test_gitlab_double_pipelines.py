"""The lab's GitLab, pipelines and settings of CI: scopes, roles, filters, and refusals, as GitLab documents them."""

from __future__ import annotations

import pytest
from lab_fakes.asgi import Api
from nixprov_lab.gitlab.clock import iso
from nixprov_lab.gitlab.records import Project, Role, Variable

HEAD = "a" * 40
SETTINGS = ("variables", "protected_branches", "protected_tags", "job_token_scope", "deploy_tokens")


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def project(api: Api) -> Project:
    found = api.lab.state.project("lab/demo")
    assert found is not None
    found.heads["pr-1"] = HEAD
    return found


def token(api: Api, role: Role, *scopes: str) -> str:
    api.lab.state.add_user(f"user-{role.name}", roles={"lab": role})
    return api.token_for(f"user-{role.name}", *scopes)


@pytest.mark.parametrize(("role", "scope", "status"), [(Role.DEVELOPER, "api", 201), (Role.DEVELOPER, "read_api", 403)])
def test_a_developer_starts_a_pipeline_of_a_branch_as_it_is(
    api: Api, project: Project, role: Role, scope: str, status: int
) -> None:
    made = api.post("/projects/lab%2Fdemo/pipeline", {"ref": "pr-1"}, token=token(api, role, scope))
    assert made.status == status
    if status == 201:
        assert (made.json["sha"], made.json["source"]) == (HEAD, "api")


def test_a_reporter_starts_none_and_nobody_starts_one_of_a_branch_that_is_not_there(api: Api, project: Project) -> None:
    assert (
        api.post("/projects/lab%2Fdemo/pipeline", {"ref": "pr-1"}, token=token(api, Role.REPORTER, "api")).status == 403
    )
    gone = api.post("/projects/lab%2Fdemo/pipeline", {"ref": "pr-2"})
    assert (gone.status, gone.json) == (400, {"error": "Reference not found"})


def test_pipelines_are_filtered_and_sorted(api: Api, project: Project) -> None:
    state = api.lab.state
    first = state.add_pipeline(project, "pr-1", HEAD)
    state.clock.advance(100)
    second = state.add_pipeline(project, "pr-1", "b" * 40, "web")
    after = iso(state.clock.now() - 50)
    base = "/projects/lab%2Fdemo/pipelines"
    assert [one["id"] for one in api.get(base).json] == [second.id, first.id]
    assert [one["id"] for one in api.get(f"{base}?sort=asc&order_by=id").json] == [first.id, second.id]
    assert [one["id"] for one in api.get(f"{base}?updated_after={after}").json] == [second.id]
    assert [one["id"] for one in api.get(f"{base}?sha={HEAD}").json] == [first.id]
    assert [one["id"] for one in api.get(f"{base}?source=web").json] == [second.id]
    assert api.get(f"{base}?updated_after=yesterday").status == 400
    state.set_pipeline(first, "failed")
    assert [one["id"] for one in api.get(f"{base}?updated_after={after}&sort=asc").json] == [first.id, second.id]


@pytest.mark.parametrize(("status", "then"), [("failed", "running"), ("canceled", "running"), ("success", "success")])
def test_a_retry_runs_what_failed(api: Api, project: Project, status: str, then: str) -> None:
    pipeline = api.lab.state.add_pipeline(project, "pr-1", HEAD)
    api.lab.state.set_pipeline(pipeline, status)
    made = api.post(f"/projects/lab%2Fdemo/pipelines/{pipeline.id}/retry")
    assert (made.status, made.json["status"]) == (201, then)
    assert api.post("/projects/lab%2Fdemo/pipelines/999/retry").status == 404
    assert api.post(f"/projects/other%2Fdemo/pipelines/{pipeline.id}/retry").status == 404


@pytest.mark.parametrize("what", SETTINGS)
def test_settings_are_a_maintainers_to_see(api: Api, project: Project, what: str) -> None:
    project.variables.append(Variable("KEY", masked=True))
    assert api.get(f"/projects/lab%2Fdemo/{what}", token=token(api, Role.MAINTAINER, "api")).status == 200
    assert api.get(f"/projects/lab%2Fdemo/{what}", token=token(api, Role.DEVELOPER, "api")).status == 403


def test_variables_show_how_they_are_protected(api: Api, project: Project) -> None:
    project.variables.append(Variable("KEY", masked=True))
    (shown,) = api.get("/projects/lab%2Fdemo/variables").json
    assert (shown["key"], shown["protected"], shown["masked"]) == ("KEY", False, True)


def test_a_groups_variables_are_its_owners(api: Api) -> None:
    assert api.get("/groups/lab/variables", token=token(api, Role.OWNER, "api")).status == 200
    assert api.get("/groups/lab/variables", token=token(api, Role.MAINTAINER, "api")).status == 403


def test_tags_are_searched_by_their_beginning(api: Api, project: Project) -> None:
    project.tags += ["pr-1", "v1-pr-1"]
    assert [one["name"] for one in api.get("/projects/lab%2Fdemo/repository/tags?search=^pr-").json] == ["pr-1"]
    assert len(api.get("/projects/lab%2Fdemo/repository/tags").json) == 2


def test_a_developer_does_not_see_the_settings_of_a_project(api: Api, project: Project) -> None:
    assert "ci_separated_caches" in api.get("/projects/lab%2Fdemo").json
    seen = api.get("/projects/lab%2Fdemo", token=token(api, Role.DEVELOPER, "api")).json
    assert "ci_separated_caches" not in seen
