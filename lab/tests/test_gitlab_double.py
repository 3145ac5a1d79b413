"""The lab's GitLab is as strict as the real one: scopes, order of checks, tokens, statuses, changes.

The expected values are GitLab's documented ones (docs api/runners, api/users, api/rest), not the server's behaviour.
"""

from __future__ import annotations

import pytest
from lab_fakes.asgi import Api
from nixprov_lab.gitlab.records import Role

HOUR_S = 3600
DAY_S = 24 * HOUR_S
SCOPE_REFUSAL = "insufficient_scope"
NOT_MATCHING_TAGS = "Tags list can not be empty when runner is not allowed to pick untagged jobs"


@pytest.fixture
def api() -> Api:
    return Api()


def test_create_answers_with_exactly_three_fields_and_shows_the_token_once(api: Api) -> None:
    made = api.post("/user/runners", {"runner_type": "project_type", "project_id": 2001, "tag_list": "nix, x86"})
    assert made.status == 201
    assert set(made.json) == {"id", "token", "token_expires_at"}
    assert made.json["token"].startswith("glrt-t3_")
    shown = api.get(f"/runners/{made.json['id']}")
    assert shown.json["tag_list"] == ["nix", "x86"]
    assert made.json["token"] not in shown.body.decode()
    assert made.json["token"] not in api.get("/runners/all").body.decode()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, {"error": "runner_type is missing"}),
        ({"runner_type": "shared"}, 400, {"error": "runner_type does not have a valid value"}),
        ({"runner_type": "group_type"}, 400, {"error": "group_id is missing"}),
        ({"runner_type": "group_type", "group_id": "lab"}, 400, {"error": "group_id is invalid"}),
        (
            {"runner_type": "instance_type", "paused": "perhaps", "maximum_timeout": "long"},
            400,
            {"error": "paused is invalid, maximum_timeout is invalid"},
        ),
        ({"runner_type": "group_type", "group_id": 7}, 400, {"message": "400 Bad request - Missing/invalid group"}),
        ({"runner_type": "project_type", "project_id": 1001}, 400, None),
        (
            {"runner_type": "instance_type", "run_untagged": False},
            400,
            {"message": f"400 Bad request - {NOT_MATCHING_TAGS}"},
        ),
        (
            {"runner_type": "instance_type", "maximum_timeout": 599},
            400,
            {"message": "400 Bad request - Maximum timeout needs to be at least 10 minutes"},
        ),
        ({"runner_type": "instance_type", "description": "x" * 1025}, 400, None),
        ({"runner_type": "instance_type", "tag_list": [f"t{n}" for n in range(51)]}, 400, None),
        ({"runner_type": "instance_type", "colour": "blue"}, 201, None),
    ],
)
def test_create_checks_its_parameters(api: Api, body: object, status: int, said: object) -> None:
    reply = api.post("/user/runners", body)
    assert reply.status == status
    assert said is None or reply.json == said


def test_an_unknown_owner_is_said_before_a_missing_role(api: Api) -> None:
    token = api.token_for("dev", "create_runner")
    assert api.post("/user/runners", {"runner_type": "group_type", "group_id": 7}, token=token).status == 400
    refused = api.post("/user/runners", {"runner_type": "group_type", "group_id": 1001}, token=token)
    assert (refused.status, refused.json) == (403, {"message": "403 Forbidden - Insufficient permissions"})


def test_the_scope_is_looked_at_before_the_parameters(api: Api) -> None:
    token = api.token_for("root", "read_api")
    refused = api.post("/user/runners", {}, token=token)
    assert (refused.status, refused.json["error"]) == (403, SCOPE_REFUSAL)
    assert set(refused.json) == {"error", "error_description", "scope"}
    assert "www-authenticate" not in refused.headers


CALLS = {
    "list": ("GET", "/runners/all", None),
    "list own": ("GET", "/runners", None),
    "list group": ("GET", "/groups/lab/runners", None),
    "show": ("GET", "/runners/1", None),
    "managers": ("GET", "/runners/1/managers", None),
    "jobs": ("GET", "/runners/1/jobs", None),
    "change": ("PUT", "/runners/1", {"paused": True}),
    "reset": ("POST", "/runners/1/reset_authentication_token", {}),
    "create": ("POST", "/user/runners", {"runner_type": "instance_type"}),
    "delete": ("DELETE", "/runners/1", None),
    "whoami": ("GET", "/user", None),
}
OPENS = {
    "api": set(CALLS),
    "read_api": {"list", "list own", "list group", "show", "managers", "jobs", "whoami"},
    "create_runner": {"create"},
    "manage_runner": {"show", "managers", "jobs", "change", "reset", "delete"},
    "read_user": {"whoami"},
}


@pytest.mark.parametrize("scope", OPENS)
@pytest.mark.parametrize("name", CALLS)
def test_each_scope_opens_its_calls_and_no_other(api: Api, scope: str, name: str) -> None:
    api.new_runner()
    method, path, body = CALLS[name]
    reply = api.call(method, path, body, token=api.token_for("root", scope))
    if name in OPENS[scope]:
        assert reply.status < 300, reply.body
    else:
        assert (reply.status, reply.json["error"]) == (403, SCOPE_REFUSAL)


def test_tokens_that_are_not_valid(api: Api) -> None:
    nobody = {"message": "401 Unauthorized"}
    assert (api.get("/user", token=None).status, api.get("/user", token=None).json) == (401, nobody)
    assert api.get("/user", token="glpat-unknown").json == nobody
    for state in ("expired", "revoked"):
        reply = api.get("/user", token=api.token_for("root", "api", **{state: True}))
        assert (reply.status, reply.json["error"]) == (401, "invalid_token")
        assert state in reply.json["error_description"]
        assert reply.headers["www-authenticate"].startswith("Bearer")
    bearer = api.get("/user", token=None, headers={"Authorization": f"Bearer {api.admin}"})
    assert bearer.json["username"] == "root"


def test_roles_decide_who_sees_and_changes_a_group_runner(api: Api) -> None:
    number, _ = api.new_runner(runner_type="group_type", group_id=1001)
    state = api.lab.state
    state.add_user("maintainer", roles={"lab": Role.MAINTAINER})
    state.add_user("owner", roles={"lab": Role.OWNER})
    state.add_user("elsewhere", roles={"other": Role.OWNER})
    statuses = {
        name: (
            api.get(f"/runners/{number}", token=api.token_for(name, "api")).status,
            api.call("PUT", f"/runners/{number}", {"locked": True}, token=api.token_for(name, "api")).status,
            api.get("/groups/lab/runners", token=api.token_for(name, "api")).status,
            api.get("/runners/all", token=api.token_for(name, "api")).status,
        )
        for name in ("root", "owner", "maintainer", "dev", "elsewhere")
    }
    assert statuses == {
        "root": (200, 200, 200, 200),
        "owner": (200, 200, 200, 403),
        "maintainer": (200, 403, 403, 403),
        "dev": (403, 403, 403, 403),
        "elsewhere": (403, 403, 404, 403),
    }


def test_a_note_is_for_those_who_may_change_the_runner(api: Api) -> None:
    number, _ = api.new_runner(maintenance_note="rack 4")
    assert api.get(f"/runners/{number}").json["maintenance_note"] == "rack 4"
    assert api.get(f"/runners/{number}", token=api.token_for("dev", "read_api")).json["maintenance_note"] is None


@pytest.mark.parametrize("body", [b"{}", b"null", b""])
def test_a_reset_kills_the_old_token_at_once(api: Api, body: bytes) -> None:
    number, old = api.new_runner()
    headers = {"Content-Type": "application/json"}
    reset = api.post(f"/runners/{number}/reset_authentication_token", body, headers=headers)
    assert (reset.status, set(reset.json)) == (201, {"token", "token_expires_at"})
    assert api.post("/runners/verify", {"token": old}, token=None).status == 403
    assert api.post("/runners/verify", {"token": reset.json["token"]}, token=None).status == 200


def test_a_runner_rotates_its_own_token(api: Api) -> None:
    _, old = api.new_runner()
    reset = api.post("/runners/reset_authentication_token", {"token": old, "system_id": "s_1"}, token=None)
    assert reset.status == 201
    assert api.post("/jobs/request", {"token": old, "system_id": "s_1"}, token=None).status == 403


def test_verify_makes_a_manager_and_only_polling_makes_it_online(api: Api) -> None:
    number, token = api.new_runner()
    assert api.get(f"/runners/{number}").json["online"] is None
    assert api.get(f"/runners/{number}/managers").json == []
    verified = api.post("/runners/verify", {"token": token, "system_id": "s_1"}, token=None)
    assert (verified.status, verified.json["id"]) == (200, number)
    manager = api.get(f"/runners/{number}/managers").json[0]
    assert (manager["system_id"], manager["status"]) == ("s_1", "never_contacted")
    assert api.get(f"/runners/{number}").json["status"] == "online"
    api.post("/jobs/request", {"token": token, "system_id": "s_1"}, token=None)
    assert api.get(f"/runners/{number}/managers").json[0]["status"] == "online"
    api.post("/runners/verify", {"token": token}, token=None)
    assert [one["system_id"] for one in api.get(f"/runners/{number}/managers").json] == ["s_1", "<legacy>"]


def test_verify_refuses(api: Api) -> None:
    assert api.post("/runners/verify", {"token": "glrt-no"}, token=None).json == {"message": "403 Forbidden"}
    missing = api.post("/runners/verify", {}, token=None)
    assert (missing.status, missing.json) == (400, {"error": "token is missing"})


def test_a_status_follows_the_clock(api: Api) -> None:
    number, token = api.new_runner()

    def status(name: str = "status") -> object:
        return api.get(f"/runners/{number}").json[name]

    assert status() == "never_contacted"
    api.post("/jobs/request", {"token": token, "system_id": "s_1"}, token=None)
    assert status() == "online"
    api.lab.clock.advance(2 * HOUR_S - 60)
    assert (status(), status("online")) == ("online", True)
    api.lab.clock.advance(120)
    assert (status(), status("online")) == ("offline", False)
    api.call("PUT", f"/runners/{number}", {"paused": "True"})
    assert status() == "paused"
    api.lab.clock.advance(7 * DAY_S)
    assert status() == "stale"
    assert api.get(f"/runners/{number}/managers").json[0]["status"] == "stale"


def test_a_runner_that_never_called_turns_stale_too(api: Api) -> None:
    number, _ = api.new_runner()
    api.lab.clock.advance(7 * DAY_S)
    assert api.get(f"/runners/{number}").json["status"] == "stale"


def test_the_router_is_off(api: Api) -> None:
    _, token = api.new_runner()
    assert api.get("/runners/router/discovery", token=None, headers={"RUNNER-TOKEN": token}).status == 501
    assert api.get("/runners/router/discovery", token=None, headers={"RUNNER-TOKEN": "x"}).status == 403


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"token": {"a": 1}}, {"error": "token is invalid"}),
        ({"token": "TOKEN", "info": "x"}, {"error": "info is invalid"}),
        ({"token": "TOKEN", "system_id": "s" * 65}, {"error": "system_id is too long (maximum is 64 characters)"}),
    ],
)
def test_verify_checks_its_parameters(api: Api, body: dict[str, object], said: object) -> None:
    _, token = api.new_runner()
    sent = {name: token if value == "TOKEN" else value for name, value in body.items()}
    refused = api.post("/runners/verify", sent, token=None)
    assert (refused.status, refused.json) == (400, said)


def test_put_changes_only_what_is_sent(api: Api) -> None:
    number, _ = api.new_runner(description="mine", tag_list=["nix"], maximum_timeout=900)
    changed = api.call("PUT", f"/runners/{number}", {"tag_list": "a,b", "unknown": 1})
    assert changed.status == 200
    assert (changed.json["tag_list"], changed.json["description"]) == (["a", "b"], "mine")
    assert changed.json["maximum_timeout"] == 900
    assert api.call("PUT", f"/runners/{number}", {"maximum_timeout": None}).json["maximum_timeout"] is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"active": True, "paused": True}, {"error": "active, paused are mutually exclusive"}),
        ({"run_untagged": False}, {"message": {"tags_list": [NOT_MATCHING_TAGS.removeprefix("Tags list ")]}}),
        ({"maximum_timeout": 10}, {"message": {"maximum_timeout": ["needs to be at least 10 minutes"]}}),
    ],
)
def test_put_refuses(api: Api, body: object, said: object) -> None:
    number, _ = api.new_runner()
    refused = api.call("PUT", f"/runners/{number}", body)
    assert (refused.status, refused.json) == (400, said)


def test_put_needs_something_to_change(api: Api) -> None:
    number, _ = api.new_runner()
    refused = api.call("PUT", f"/runners/{number}", {"description_": "x"})
    assert refused.status == 400
    assert "at least one parameter must be provided" in refused.json["error"]


def test_delete_twice(api: Api) -> None:
    number, token = api.new_runner()
    assert (api.call("DELETE", f"/runners/{number}").status, api.call("DELETE", f"/runners/{number}").status) == (
        204,
        404,
    )
    assert api.get(f"/runners/{number}").json == {"message": "404 Runner Not Found"}
    assert api.post("/runners/verify", {"token": token}, token=None).status == 403


def test_delete_on_a_condition(api: Api) -> None:
    number, _ = api.new_runner()
    old = {"If-Unmodified-Since": "Mon, 01 Jan 2018 00:00:00 GMT"}
    assert api.call("DELETE", f"/runners/{number}", headers=old).status == 412
    assert api.get(f"/runners/{number}").status == 200


def test_a_runner_of_two_projects_is_for_administrators_to_delete(api: Api) -> None:
    number, _ = api.new_runner(runner_type="project_type", project_id=2001)
    assert api.post("/projects/other%2Fdemo/runners", {"runner_id": number}).status == 201
    api.lab.state.add_user("both", roles={"lab/demo": Role.MAINTAINER, "other/demo": Role.MAINTAINER})
    refused = api.call("DELETE", f"/runners/{number}", token=api.token_for("both", "api"))
    assert refused.json == {"message": "403 Forbidden - Runner associated with more than one project"}
    assert api.call("DELETE", f"/projects/2001/runners/{number}").status == 403
    assert api.call("DELETE", f"/projects/2002/runners/{number}").status == 204
    assert api.call("DELETE", f"/runners/{number}", token=api.token_for("both", "api")).status == 204


def test_a_runner_process_unregisters(api: Api) -> None:
    number, token = api.new_runner()
    api.post("/runners/verify", {"token": token, "system_id": "s_1"}, token=None)
    gone = {"token": token, "system_id": "s_1"}
    assert api.call("DELETE", "/runners/managers", {"token": token}, token=None).status == 400
    assert api.call("DELETE", "/runners/managers", gone, token=None).status == 204
    again = api.call("DELETE", "/runners/managers", gone, token=None)
    assert (again.status, again.json) == (404, {"message": "404 Runner manager not found Not Found"})
    assert api.get(f"/runners/{number}").status == 200
    assert api.call("DELETE", f"/runners?token={token}", token=None).status == 204
    assert api.get(f"/runners/{number}").status == 404


def test_registration_tokens_are_switched_off(api: Api) -> None:
    reply = api.post("/runners", {"token": "GR1348941"}, token=None)
    assert reply.status == 410
    assert reply.json["message"].startswith("410 Gone - ")
