"""GitLab on bad days, seen from the machine: afterwards there is exactly one runner or none, and nothing is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from nixprov_lab.running import Lab

from tests.faults import api
from tests.faults.machine import Begun, edited, journal, runners, system, untouched
from tests.lab.operator import Operator, Said, leftovers, snapshot

HOST: Final = "host1"
CREATE: Final = "/user/runners$"
MANAGERS: Final = "/managers$"


def failed(said: Said, *words: str, code: int = 9) -> None:
    result = said.host(HOST)
    assert said.code == code, said.err
    assert all(word in f"{result['error']}; {result['hint']}" for word in words), result
    assert "\n" not in result["error"]


def clean(lab: Lab) -> tuple[str, list[int]]:
    return leftovers(lab, HOST), runners(lab, HOST)


@pytest.mark.parametrize(
    ("scopes", "words"),
    [
        pytest.param(["create_runner"], ("list", "scope read_api or api"), id="may create, may not list"),
        pytest.param(["read_api"], ("create", "scope create_runner or api"), id="may list, may not create"),
    ],
)
def test_a_token_that_lacks_a_right(
    lab: Lab, operator: Operator, tmp_path: Path, scopes: list[str], words: tuple[str, ...]
) -> None:
    before = snapshot(lab, HOST)
    said = operator("up", HOST, "--yes", "--json", NIXPROV_GITLAB_TOKEN_FILE=token_file(lab, tmp_path, scopes))
    failed(said, *words)
    assert (snapshot(lab, HOST), clean(lab)) == (before, ("", []))


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_a_token_that_is_no_longer_valid(lab: Lab, operator: Operator, tmp_path: Path, state: str) -> None:
    said = operator("up", HOST, "--yes", NIXPROV_GITLAB_TOKEN_FILE=token_file(lab, tmp_path, ["api"], **{state: True}))
    assert said.code == 9
    assert [line for line in said.err.splitlines() if "401" in line and "make a new one" in line], said.err
    assert clean(lab) == ("", [])


def token_file(lab: Lab, folder: Path, scopes: list[str], **fields: Any) -> str:
    path = folder / "token"
    path.write_text(lab.gitlab.token(scopes, **fields))
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("kind", ["html_502", "rate_limit_date"])
def test_no_runner_is_made_and_the_host_is_given_back(lab: Lab, operator: Operator, kind: str) -> None:
    before = (snapshot(lab, HOST), system(lab, HOST))
    lab.gitlab.set_fault(kind, method="POST", path_regex=CREATE, times=None, retry_after=3600)
    try:
        failed(operator("up", HOST, "--yes", "--json"), "create the runner host1/default")
    finally:
        lab.gitlab.clear_faults()
    assert ((snapshot(lab, HOST), system(lab, HOST)), clean(lab)) == (before, ("", []))


def test_a_gitlab_that_limits_and_stumbles_all_the_way_up_and_down(lab: Lab, operator: Operator) -> None:
    """429 in its three forms, 5xx and lost replies, each where it hurts; none of them is more than a pause."""
    with untouched(lab, HOST, operator):
        lab.gitlab.set_fault("rate_limit_app", method="POST", path_regex=CREATE, retry_after=1)
        lab.gitlab.set_fault("reply_lost", method="POST", path_regex=CREATE)
        lab.gitlab.set_fault("reply_lost", method="POST", path_regex="reset_authentication_token$")
        lab.gitlab.set_fault("html_502", method="GET", path_regex=MANAGERS, times=6)
        since = lab.gitlab.calls()[-1]["n"] + 1
        said = operator("up", HOST, "--yes", "--json")
        assert said.code == 0, said.err
        assert faults(lab, since) == ["rate_limit_app", "reply_lost", "reply_lost", *["html_502"] * 6]
        assert (len(runners(lab, HOST)), operator("plan", HOST, "--json").summary["unchanged"]) == (1, 1)
        lab.gitlab.set_fault("rate_limit_rack", method="PUT", retry_after=1)
        lab.gitlab.set_fault("rate_limit_date", method="DELETE", retry_after=1)
        lab.gitlab.set_fault("html_502_after", method="DELETE")
        said = operator("down", HOST, "--yes", "--json")
        assert said.code == 0, said.err
        assert faults(lab, since)[-3:] == ["rate_limit_rack", "rate_limit_date", "html_502_after"]
        assert clean(lab) == ("", [])


def faults(lab: Lab, since: int) -> list[str]:
    return [call["fault"] for call in lab.gitlab.calls(since) if call.get("fault")]


def test_a_gitlab_that_falls_silent_while_the_host_is_confirmed(lab: Lab, operators: Callable[[], Operator]) -> None:
    """The host goes back; the runner, which nobody can delete now, is named, and found by the next run of anybody."""
    before = (snapshot(lab, HOST), system(lab, HOST))
    run = Begun(operators(), "up", HOST, "--yes", "--confirm-limit", "12")
    run.phase("switch")
    lab.gitlab.set_fault("html_502", path_regex="/api/v4/runners", times=None)
    warned = run.until(lambda event: event["event"] == "warning" and "may be left in GitLab" in event["text"])
    result = run.until(lambda event: event["event"] == "host")
    assert run.end()[0] == 7
    lab.gitlab.clear_faults()
    assert "502" in result["error"], result
    left = runners(lab, HOST)
    assert [f"runner {left[0]} " in warned["text"], len(left)] == [True, 1]
    assert ((snapshot(lab, HOST), system(lab, HOST)), leftovers(lab, HOST)) == (before, "")
    said = operators()("prune", HOST, "--yes", "--json")
    assert said.code == 0, said.err
    assert [event["id"] for event in said.events if event["event"] == "deleted"] == left
    assert clean(lab) == ("", [])


def test_a_runner_that_is_deleted_under_the_run(lab: Lab, operators: Callable[[], Operator]) -> None:
    """Between plan and reset: the run stops and gives the host back, the next one makes a new runner."""
    with untouched(lab, HOST, operators()):
        operators()("up", HOST, "--yes", NIXPROV_CRASH="after:create")
        (orphan,) = runners(lab, HOST)
        lab.gitlab.set_fault("slow", method="POST", path_regex="reset_authentication_token$", seconds=4)
        run = Begun(operators(), "up", HOST, "--yes")
        run.until(lambda event: event["event"] == "plan")
        lab.gitlab.delete_runner(orphan)
        code, err = run.end()
        assert (code, "404 Runner Not Found" in err) == (9, True), err
        assert clean(lab) == ("", [])
        assert operators()("up", HOST, "--yes").code == 0
        assert len(runners(lab, HOST)) == 1


@pytest.mark.parametrize("crash", ["", "after:write"], ids=["taken back", "the host goes back alone"])
def test_a_token_that_was_replaced_by_a_run_that_failed_is_used(
    lab: Lab, operators: Callable[[], Operator], crash: str
) -> None:
    """The one before is dead. No switch came to restart the unit, and the next `up` would find all as wanted."""
    with untouched(lab, HOST, operators()):
        assert operators()("up", HOST, "--yes").code == 0
        with edited(lab, HOST, "environment.nope = 1;"):
            # Else the run would end before the token is replaced.
            words = ("--yes", "--json", "--new-tokens", "--adopt-configuration")
            said = operators()("up", HOST, *words, NIXPROV_CRASH=crash)
            if crash:
                assert said.code == -signal.SIGKILL
            else:
                failed(said, "does not evaluate or build", "rolled back", code=7)
            deadline = time.monotonic() + 30
            while not api.takes_token(lab, HOST):
                assert time.monotonic() < deadline, "the unit still polls with the token that has ended"
                time.sleep(0.5)
        assert crash or operators()("plan", HOST, "--json").summary["unchanged"] == 1


def test_down_with_gitlab_silent_from_the_first_call(lab: Lab, operators: Callable[[], Operator]) -> None:
    """Neither paused nor deleted: the host is taken back, and says what GitLab still has to do."""
    with untouched(lab, HOST, operators()):
        assert operators()("up", HOST, "--yes").code == 0
        (runner,) = runners(lab, HOST)
        lab.gitlab.set_fault("refuse", path_regex="/api/v4/", times=None)
        said = operators()("down", HOST, "--yes", "--json")
        assert said.code == 9, said.err
        waiting = journal(lab, HOST)
        assert ([one["id"] for one in waiting["pending_deletions"]], waiting["runners"]) == ([runner], {})
        assert leftovers(lab, HOST).split() == ["/var/lib/nixprov"]
        gone = operators()("down", "--gone", HOST, "--yes")
        assert (gone.code, runners(lab, HOST)) == (9, [runner])
        lab.gitlab.clear_faults()
        # A runner again before anybody finished that: it is the same one, and prune takes nothing away.
        assert operators()("up", HOST, "--yes").code == 0
        assert operators()("prune", HOST, "--yes").code == 0
        assert (runners(lab, HOST), operators()("plan", HOST, "--json").summary["unchanged"]) == ([runner], 1)


def test_prune_names_stale_managers_and_gone_spares_who_answers(
    lab: Lab, operators: Callable[[], Operator], tmp_path: Path
) -> None:
    with untouched(lab, HOST, operators()):
        assert operators()("up", HOST, "--yes").code == 0
        (runner,) = runners(lab, HOST)
        old = api.double(lab, runner, machine="0123456789ab")
        answers = operators()("down", "--gone", HOST, "--yes", "--json")
        assert answers.code == 0, answers.err
        deletes = {event["id"]: event["deletes"] for event in answers.events if event["event"] == "finding"}
        assert (deletes, runners(lab, HOST)) == ({runner: False, old: True}, [runner])
        elsewhere = tmp_path / "inventory"
        elsewhere.write_text("other ansible_host=192.0.2.1\n")
        lost = api.double(lab, runner, machine="ba9876543210", host="former")
        by_id = operators()("down", "--gone", str(lost), "--yes", "-i", str(tmp_path / "none"))
        assert (by_id.code, lost in everywhere(lab)) == (0, False), by_id.err
        lost = api.double(lab, runner, machine="ba9876543210", host="former")
        by_name = operators()("down", "--gone", "former", "--yes", "-i", str(elsewhere))
        assert (by_name.code, lost in everywhere(lab)) == (0, False), by_name.err
        other_process(lab, "s_former")
        lab.gitlab.advance_clock(8 * 24 * 3600)
        said = operators()("prune", HOST, "--json")
        assert said.code == 0, said.err
        (stale,) = [event for event in said.events if event["event"] == "finding" and event["system_id"] == "s_former"]
        assert (stale["id"], stale["deletes"], stale["gitlab_status"]) == (runner, False, "stale")
        assert stale["contacted_at"]
        assert "GitLab lets no operator delete it" in stale["why"]
        assert runners(lab, HOST) == [runner]


def everywhere(lab: Lab) -> list[int]:
    return [runner["id"] for runner in lab.gitlab.runners()]


def other_process(lab: Lab, system_id: str) -> None:
    """A second process that used the runner's token once, as after a machine lost its state folder."""
    token = lab.run(HOST, ["cat", "/var/lib/nixprov/secrets/default.token"]).stdout.strip()
    api.verify(lab, token, system_id)
