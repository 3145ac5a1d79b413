"""The Api on bad days: lost replies, rate limits, proxies, redirects, refusals."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from nixprov_lab.gitlab.faults import KINDS
from nixprov_lab.gitlab.server import Running
from nixprov_lab.gitlab.state import NewRunner

from provisioner.ci.gitlab.api import Api
from provisioner.errors import CiError, CiRefused, CiUnavailable, ConfigError
from provisioner.model import Mark, RunnerSpec, RunnerType
from tests.contract.conftest import Connect, Waits, break_once, calls, find, token_for

MARK = Mark("host1", "default", "0123456789ab")
SPEC = RunnerSpec(description="build machine", tags=("nix", "x86_64-linux"), maximum_timeout_s=3600)
CREATE = r"/user/runners$"


@pytest.mark.parametrize("kind", ["reply_lost", "reply_cut", "html_502_after", "wrong_content_type"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_creation_whose_reply_is_lost_is_found_again(gitlab: Running, api: Api, kind: str, listed: bool) -> None:
    if listed:
        assert find(api, MARK, SPEC) == ()
    break_once(gitlab, kind, "POST", CREATE)
    made = api.create(SPEC, MARK)
    (runner,) = gitlab.lab.state.runners.values()
    assert (runner.id, runner.token) == (made.id, made.token.reveal())
    assert [one.id for one in find(api, MARK, SPEC)] == [made.id]


@pytest.mark.parametrize("kind", ["refuse", "html_502", "json_500", "html_200", "json_200"])
def test_a_creation_that_did_not_happen_is_said_and_not_repeated(gitlab: Running, api: Api, kind: str) -> None:
    break_once(gitlab, kind, "POST", CREATE)
    since = len(gitlab.lab.journal.entries)
    with pytest.raises(CiUnavailable, match="cannot create the runner host1/default") as caught:
        api.create(SPEC, MARK)
    assert "run again" in caught.value.hint
    assert [call for call in calls(gitlab, since) if call[0] == "POST"] == [("POST", "/api/v4/user/runners")]
    assert gitlab.lab.state.runners == {}


def test_a_creation_that_times_out_is_found_when_it_did_happen(gitlab: Running, connect: Connect) -> None:
    api = connect(timeout_s=1.0)
    break_once(gitlab, "reply_late", "POST", CREATE, seconds=60.0)
    since = len(gitlab.lab.journal.entries)
    made = api.create(SPEC, MARK)
    assert list(gitlab.lab.state.runners) == [made.id]
    assert calls(gitlab, since)[0] == ("POST", "/api/v4/user/runners"), (
        "it is noted when its client has gone, not later"
    )


def test_an_older_runner_with_our_mark_is_not_taken_for_the_new_one(gitlab: Running, api: Api) -> None:
    old = api.create(SPEC, MARK)
    assert [runner.id for runner in find(api, MARK, SPEC)] == [old.id]
    break_once(gitlab, "json_500", "POST", CREATE)
    with pytest.raises(CiUnavailable):
        api.create(SPEC, MARK)


def test_a_lost_reset_is_repeated_so_that_somebody_holds_the_token(gitlab: Running, api: Api) -> None:
    made = api.create(SPEC, MARK)
    break_once(gitlab, "reply_lost", "POST", "reset_authentication_token")
    again = api.reset_token(made.id)
    assert gitlab.lab.state.runners[made.id].token == again.token.reveal()


def test_a_refusal_of_the_second_reset_says_nothing_of_the_first(gitlab: Running, api: Api) -> None:
    """Who takes it for a refusal takes the token before for the one in use."""
    made = api.create(SPEC, MARK)
    break_once(gitlab, "reply_lost", "POST", "reset_authentication_token")
    break_once(gitlab, "unprocessable_422", "POST", "reset_authentication_token")
    with pytest.raises(CiUnavailable, match="token rotation is not allowed") as caught:
        api.reset_token(made.id)
    assert "whether it was done is unknown" in caught.value.hint
    assert gitlab.lab.state.runners[made.id].token != made.token.reveal()


@pytest.mark.parametrize("kind", ["reply_lost", "html_502_after"])
def test_a_lost_deletion_is_looked_up(gitlab: Running, api: Api, kind: str) -> None:
    made = api.create(SPEC, MARK)
    break_once(gitlab, kind, "DELETE")
    assert api.delete(made.id) is True
    kept = api.create(SPEC, MARK)
    break_once(gitlab, "html_502", "DELETE")
    with pytest.raises(CiUnavailable, match=f"cannot delete runner {kept.id}"):
        api.delete(kept.id)


@pytest.mark.parametrize("kind", ["html_502", "html_503", "json_500", "refuse", "reply_cut"])
def test_reading_is_repeated_with_growing_pauses(gitlab: Running, api: Api, waits: Waits, kind: str) -> None:
    made = api.create(SPEC, MARK)
    break_once(gitlab, kind, "GET", times=2)
    assert api.get(made.id)
    assert waits == [0.5, 1.0]


def test_reading_is_given_up_after_a_number_of_times(gitlab: Running, connect: Connect) -> None:
    break_once(gitlab, "html_502", "GET", times=None)
    since = len(gitlab.lab.journal.entries)
    with pytest.raises(CiUnavailable, match="502 with an HTML page"):
        connect(repetitions=2).get(1)
    assert len(calls(gitlab, since)) == 3
    with pytest.raises(CiUnavailable):
        # Waits of 0.5 s, 1, 2, 4, 8 and 16, which are not slept; the calls between them may take 7 s of the real clock.
        connect(repetitions=50, deadline_s=23).get(1)
    assert len(calls(gitlab, since)) == 3 + 7


@pytest.mark.parametrize("kind", ["rate_limit_app", "rate_limit_rack", "rate_limit_date"])
def test_a_rate_limit_is_waited_for_also_by_a_post(gitlab: Running, api: Api, waits: Waits, kind: str) -> None:
    break_once(gitlab, kind, "POST", CREATE, retry_after=7)
    api.create(SPEC, MARK)
    assert len(waits) == 1
    assert waits[0] == pytest.approx(7, abs=1.5)
    assert (len(gitlab.lab.state.runners), api.writes) == (1, 1)


def test_a_rate_limit_without_a_word_is_backed_off_from(gitlab: Running, api: Api, waits: Waits) -> None:
    break_once(gitlab, "rate_limit_bare", times=3)
    api.create(SPEC, MARK)
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("kind", ["rate_limit_app", "rate_limit_date"])
def test_a_rate_limit_of_an_hour_is_not_waited_for(gitlab: Running, api: Api, waits: Waits, kind: str) -> None:
    break_once(gitlab, kind, times=None, retry_after=3600)
    with pytest.raises(CiUnavailable, match=r"limits its callers \(429, asks to wait 3[56]\d\d s\)"):
        api.create(SPEC, MARK)
    assert waits == []


@pytest.mark.parametrize("kind", ["redirect_301", "redirect_307"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_is_not_followed_with_the_token(gitlab: Running, api: Api, kind: str, method: str) -> None:
    break_once(gitlab, kind, method, location="https://user:pw@gitlab.example.org/api/v4/x?private_token=1")
    since = len(gitlab.lab.journal.entries)
    with pytest.raises(CiRefused) as caught:
        api.get(1) if method == "GET" else api.create(SPEC, MARK)
    assert "https://gitlab.example.org/api/v4/x" in str(caught.value)
    assert "pw" not in str(caught.value)
    assert caught.value.hint.startswith("name https://gitlab.example.org with")
    assert len(calls(gitlab, since)) == 1


def test_a_page_of_a_proxy_is_no_answer(gitlab: Running, api: Api) -> None:
    break_once(gitlab, "html_200", times=None)
    for ask in (api.check, lambda: api.get(1), lambda: api.runners(RunnerType.INSTANCE, None)):
        with pytest.raises(CiUnavailable, match="text/html instead of JSON"):
            ask()


@pytest.mark.parametrize("kind", ["html_404", "route_404"])
def test_a_404_that_is_not_gitlabs_own_is_no_proof_of_absence(gitlab: Running, api: Api, kind: str) -> None:
    made = api.create(SPEC, MARK)
    break_once(gitlab, kind, times=None)
    for ask in (api.get, api.delete, api.managers, api.running_jobs):
        with pytest.raises(CiRefused, match="check the URL"):
            ask(made.id)


def test_a_creation_that_can_be_looked_up_neither_is_told_as_unclear(gitlab: Running, api: Api) -> None:
    break_once(gitlab, "reply_lost", times=None)
    with pytest.raises(CiUnavailable, match=r"cannot create the runner host1/default: .*closed without an answer"):
        api.create(SPEC, MARK)
    gitlab.lab.faults.clear()
    assert len(find(api, MARK, SPEC)) == 1


def test_a_server_that_is_not_there(connect: Connect) -> None:
    api = connect(url="http://127.0.0.1:1")
    with pytest.raises(CiUnavailable, match=r"127\.0\.0\.1:1 cannot be reached \(.*refused\)"):
        api.create(SPEC, MARK)
    assert api.writes == 0


def test_a_slow_server(gitlab: Running, connect: Connect) -> None:
    break_once(gitlab, "slow", seconds=0.5, times=None)
    with pytest.raises(CiUnavailable, match="timed out"):
        connect(timeout_s=0.1, repetitions=0).get(1)


def test_an_owner_that_is_not_named(api: Api) -> None:
    for kind in (RunnerType.GROUP, RunnerType.PROJECT):
        with pytest.raises(ConfigError, match="none is named"):
            api.runners(kind, None)
        with pytest.raises(ConfigError, match="none is named"):
            api.create(replace(SPEC, type=kind), MARK)


@dataclass(frozen=True)
class Refusal:
    """What is asked with which token, and what the one line must say."""

    ask: Callable[[Api], object]
    said: str
    scopes: tuple[str, ...] = ("api",)
    username: str = "root"


IN_GROUP = replace(SPEC, type=RunnerType.GROUP, owner="lab")
REFUSALS = {
    "unknown token": Refusal(lambda api: api.check(), "unknown, expired or revoked", ()),
    "no scope to list": Refusal(lambda api: find(api, MARK, SPEC), "scope read_api or api", ("create_runner",)),
    "no scope to create": Refusal(lambda api: api.create(SPEC, MARK), "scope create_runner or api", ("read_api",)),
    "no scope to change": Refusal(lambda api: api.set_paused(1, True), "scope manage_runner or api", ("read_api",)),
    "no scope to delete": Refusal(lambda api: api.delete(1), "scope manage_runner or api", ("read_api",)),
    "no role to list": Refusal(lambda api: find(api, MARK, SPEC), "administrator or auditor", username="dev"),
    "no role to create": Refusal(lambda api: api.create(SPEC, MARK), "must be an administrator", username="dev"),
    "no role in group": Refusal(lambda api: api.create(IN_GROUP, MARK), "Owner of group lab", username="dev"),
    "unknown group": Refusal(lambda api: api.create(replace(IN_GROUP, owner="no"), MARK), "look up group no"),
    "unknown group id": Refusal(lambda api: api.create(replace(IN_GROUP, owner="7"), MARK), "Missing/invalid group"),
    "bad settings": Refusal(lambda api: api.create(replace(SPEC, maximum_timeout_s=1), MARK), "at least 10 minutes"),
    "bad change": Refusal(
        lambda api: api.update(1, replace(SPEC, tags=(), run_untagged=False), MARK), "tags_list can not be empty"
    ),
    "gone": Refusal(lambda api: api.set_paused(99, True), "404 Runner Not Found"),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_one_line_that_says_what_to_do(gitlab: Running, connect: Connect, case: Refusal) -> None:
    state = gitlab.lab.state
    state.runners[1] = replace(state.add_runner(NewRunner(RunnerType.INSTANCE, state.users[1])), id=1)
    token = token_for(gitlab, *case.scopes, username=case.username) if case.scopes else "glpat-poison-unknown"
    with pytest.raises(CiRefused) as caught:
        case.ask(connect(token))
    assert case.said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.message.startswith("cannot ")
    assert token not in "".join(traceback.format_exception(caught.value))


def test_every_failure_is_one_of_ours(gitlab: Running, api: Api) -> None:
    """Whatever fault there is, whatever is asked: no foreign exception gets out."""
    asks: list[Callable[[], object]] = [
        api.check,
        lambda: api.get(1),
        lambda: api.runners(RunnerType.PROJECT, "lab/demo"),
        lambda: api.create(SPEC, MARK),
        lambda: api.update(1, SPEC, MARK),
        lambda: api.reset_token(1),
        lambda: api.delete(1),
        lambda: api.managers(1),
        lambda: api.running_jobs(1),
    ]
    for kind in sorted(KINDS):
        for ask in asks:
            gitlab.lab.faults.clear()
            break_once(gitlab, kind, times=None, seconds=0.0, retry_after=1)
            assert gitlab.token not in _failure_of(ask)


def _failure_of(ask: Callable[[], object]) -> str:
    """The traceback of the CiError it raises, if it does; anything else gets out."""
    try:
        ask()
    except CiError as error:
        return "".join(traceback.format_exception(error))
    return ""
