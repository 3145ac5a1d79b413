"""The lab's GitLab over HTTP: lists and filters, pages, bodies, missing things, the journal and the faults."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from lab_fakes.asgi import Api
from nixprov_lab.gitlab.faults import Fault
from nixprov_lab.gitlab.journal import Journal
from nixprov_lab.gitlab.records import Role

DAY_S = 24 * 3600


@pytest.fixture
def api() -> Api:
    return Api()


def test_the_deprecated_scope_filter_takes_other_values_by_list(api: Api) -> None:
    instance, _ = api.new_runner()
    project, _ = api.new_runner(runner_type="project_type", project_id=2001, paused=True)

    def ids(path: str) -> list[int]:
        return [runner["id"] for runner in api.get(path).json]

    assert ids("/runners/all?scope=shared") == [instance]
    assert ids("/runners/all?scope=specific") == [project]
    assert ids("/runners/all?scope=paused") == [project]
    assert ids("/projects/2001/runners?scope=instance_type") == [instance]
    refused = api.get("/runners?scope=shared")
    assert (refused.status, refused.json) == (400, {"message": "Scope contains invalid value"})


def test_a_project_sees_its_own_its_groups_and_the_instances_runners(api: Api) -> None:
    mine = [
        api.new_runner(**owner)[0]
        for owner in (
            {},
            {"runner_type": "group_type", "group_id": 1001},
            {"runner_type": "project_type", "project_id": 2001},
        )
    ]
    other, _ = api.new_runner(runner_type="group_type", group_id=1002)
    assert [runner["id"] for runner in api.get("/projects/lab%2Fdemo/runners").json] == mine
    assert [runner["id"] for runner in api.get("/groups/other/runners").json] == [mine[0], other]
    assert [project["id"] for project in api.get(f"/runners/{mine[2]}/projects").json] == [2001]


def test_which_runners_a_project_may_take_over(api: Api) -> None:
    group, _ = api.new_runner(runner_type="group_type", group_id=1001)
    locked, _ = api.new_runner(runner_type="project_type", project_id=2001, locked=True)
    api.lab.state.add_user("both", roles={"lab/demo": Role.MAINTAINER, "other/demo": Role.MAINTAINER})
    token = api.token_for("both", "api")
    for number, said in ((group, "Runner is a group runner"), (locked, "Runner is locked")):
        refused = api.post("/projects/2002/runners", {"runner_id": number}, token=token)
        assert (refused.status, refused.json) == (403, {"message": f"403 Forbidden - {said}"})
    assert api.post("/projects/2002/runners", {"runner_id": 99}, token=token).status == 404


def test_owners_are_listed_to_those_who_may_see_them(api: Api) -> None:
    seen = api.get("/projects?pagination=keyset&order_by=id&per_page=1")
    assert [project["path_with_namespace"] for project in seen.json] == ["lab/demo"]
    assert 'rel="next"' in seen.headers["link"]
    assert "x-total" not in seen.headers
    token = api.token_for("dev", "read_api")
    assert [group["full_path"] for group in api.get("/groups", token=token).json] == ["lab"]
    assert [project["path"] for project in api.get("/projects", token=token).json] == ["demo"]
    assert api.get("/version").json["version"] == api.get("/metadata").json["version"]


def test_filters_look_at_columns(api: Api) -> None:
    idle, _ = api.new_runner(tag_list=["nix", "big"])
    busy, token = api.new_runner(paused=True, tag_list=["nix"])
    api.post("/jobs/request", {"token": token, "system_id": "s_1", "info": {"version": "19.4.0"}}, token=None)

    def ids(query: str) -> list[int]:
        return [runner["id"] for runner in api.get(f"/runners/all?{query}").json]

    assert ids("status=never_contacted") == [idle]
    assert ids("paused=True") == [busy]
    assert ids("paused=false") == [idle]
    assert ids("tag_list=nix,big") == [idle]
    assert ids("tag_list[]=nix") == [idle, busy]
    assert ids("version_prefix=19.") == [busy]
    assert ids("type=group_type") == []
    assert api.get("/runners/all?status=sleepy").json == {"error": "status does not have a valid value"}
    assert api.get("/groups/lab/runners?scope=nonsense").status == 200
    api.lab.clock.advance(8 * DAY_S)
    assert ids("status=offline") == [busy]
    assert ids("status=stale") == [idle, busy]


def test_the_own_list_never_has_instance_runners(api: Api) -> None:
    api.new_runner()
    group, _ = api.new_runner(runner_type="group_type", group_id=1001)
    api.lab.state.add_user("owner", roles={"lab": Role.OWNER})
    listed = api.get("/runners", token=api.token_for("owner", "read_api")).json
    assert [runner["id"] for runner in listed] == [group]


def test_pages(api: Api) -> None:
    for _ in range(5):
        api.new_runner()
    second = api.get("/runners/all?per_page=2&page=2")
    assert [runner["id"] for runner in second.json] == [3, 4]
    named = {
        name: second.headers[f"x-{name}"]
        for name in ("page", "per-page", "prev-page", "next-page", "total", "total-pages")
    }
    assert named == {"page": "2", "per-page": "2", "prev-page": "1", "next-page": "3", "total": "5", "total-pages": "3"}
    for rel in ("first", "prev", "next", "last"):
        assert f'rel="{rel}"' in second.headers["link"]
    last = api.get("/runners/all?per_page=2&page=3")
    assert last.headers["x-next-page"] == ""
    assert 'rel="next"' not in last.headers["link"]
    assert api.get("/runners/all?per_page=1000").headers["x-per-page"] == "100"
    assert api.get("/runners/all?page=x").json == {"error": "page is invalid"}


def test_lists_without_totals_beyond_ten_thousand(api: Api) -> None:
    number, _ = api.new_runner()
    runner = api.lab.state.runners[number]
    api.lab.state.runners.update(dict.fromkeys(range(2, 10_002), runner))
    headers = api.get("/runners/all?page=2").headers
    assert "x-total" not in headers
    assert 'rel="last"' not in headers["link"]
    assert 'rel="next"' in headers["link"]


def test_managers_are_not_paged(api: Api) -> None:
    number, token = api.new_runner()
    for n in range(25):
        api.post("/runners/verify", {"token": token, "system_id": f"s_{n}"}, token=None)
    managers = api.get(f"/runners/{number}/managers")
    assert len(managers.json) == 25
    assert "x-total" not in managers.headers


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/nothing", 404, {"error": "404 Not Found"}),
        ("PATCH", "/runners/1", 405, {"message": "405 Method Not Allowed"}),
        ("GET", "/runners/none", 400, {"error": "id is invalid"}),
        ("GET", "/projects/lab%2Fnone", 404, {"message": "404 Project Not Found"}),
        ("GET", "/runners/1/", 404, {"error": "404 Not Found"}),
    ],
)
def test_what_is_not_there(api: Api, method: str, path: str, status: int, said: object) -> None:
    reply = api.call(method, path)
    assert (reply.status, reply.json) == (status, said)


def test_bodies_that_are_refused(api: Api) -> None:
    xml = api.post("/user/runners", b"<runner/>", headers={"Content-Type": "text/xml"})
    assert xml.status == 415
    broken = api.post("/user/runners", b"{", headers={"Content-Type": "application/json"})
    assert (broken.status, broken.json) == (400, {"error": "message body does not match declared format"})
    form = api.post(
        "/user/runners",
        b"runner_type=instance_type&tag_list[]=a&tag_list[]=b&paused=1",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert form.status == 201


def test_owners_by_id_and_path(api: Api) -> None:
    for path in ("/projects/lab%2Fdemo", "/projects/2001"):
        assert api.get(path).json["path_with_namespace"] == "lab/demo"
    assert api.get("/groups/lab").json["id"] == 1001


def test_the_journal_has_every_call_and_no_token(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    api = Api(file)
    number, token = api.new_runner()
    api.post("/runners/verify", {"token": token}, token=None)
    api.call("DELETE", f"/runners?token={token}&x=1", token=None)
    api.get(f"/user?private_token={api.admin}", token=None)
    calls = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(call["n"], call["method"], call["path"], call["status"], call["token"]) for call in calls] == [
        (0, "POST", "/api/v4/user/runners", 201, "personal"),
        (1, "POST", "/api/v4/runners/verify", 200, "runner"),
        (2, "DELETE", "/api/v4/runners", 204, "runner"),
        (3, "GET", "/api/v4/user", 200, "personal"),
    ]
    assert calls[2]["query"] == "token=[FILTERED]&x=1"
    assert token not in file.read_text()
    assert api.admin not in file.read_text()
    assert number == 1


@pytest.mark.parametrize(
    ("kind", "status", "content_type"),
    [
        ("rate_limit_app", 429, "application/json"),
        ("rate_limit_rack", 429, "text/plain; charset=utf-8"),
        ("rate_limit_date", 429, "text/plain; charset=utf-8"),
        ("html_502", 502, "text/html; charset=utf-8"),
        ("json_500", 500, "application/json"),
        ("gone_410", 410, "application/json"),
        ("unprocessable_422", 422, "application/json"),
    ],
)
def test_a_fault_answers_in_gitlabs_place_for_a_while(api: Api, kind: str, status: int, content_type: str) -> None:
    api.lab.faults.append(Fault(kind, method="GET", times=2))
    replies = [api.get("/user") for _ in range(3)]
    assert [reply.status for reply in replies] == [status, status, 200]
    assert replies[0].headers["content-type"] == content_type
    assert [call.get("fault") for call in api.lab.journal.entries] == [kind, kind, None]


def test_rate_limits_say_how_long_in_three_ways(api: Api) -> None:
    told = {}
    api.lab.clock.advance(DAY_S)
    for kind in ("rate_limit_app", "rate_limit_rack", "rate_limit_date"):
        api.lab.faults.append(Fault(kind, retry_after=7))
        told[kind] = api.get("/user").headers
    assert told["rate_limit_app"]["retry-after"] == told["rate_limit_rack"]["retry-after"] == "7"
    assert {"ratelimit-reset", "ratelimit-resettime", "ratelimit-limit"} <= set(told["rate_limit_rack"])
    until, now = (parsedate_to_datetime(told["rate_limit_date"][name]) for name in ("retry-after", "date"))
    assert (until - now).total_seconds() in {6, 7}


def test_journal_numbers_start_at_zero() -> None:
    journal = Journal(None)
    journal.add({"method": "GET"})
    assert journal.entries == [{"n": 0, "method": "GET"}]
