"""The pure parts of GitLab's client: comparison, replies, failures, waiting, and the map of foreign exceptions."""

from __future__ import annotations

import inspect
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import gitlab.exceptions
import pytest
import requests

from provisioner.ci.base import Difference
from provisioner.ci.gitlab import replies
from provisioner.ci.gitlab.client import KINDS, kind_of
from provisioner.ci.gitlab.compare import differences
from provisioner.ci.gitlab.failures import Action, Failure, Kind, explain
from provisioner.ci.gitlab.listing import Listings
from provisioner.ci.gitlab.values import Runner, RunnerStatus
from provisioner.errors import CiRefused, CiUnavailable
from provisioner.model import AccessLevel, Mark, RunnerSpec, RunnerType
from provisioner.transport import Patience, Transport, asked_wait

MARK = Mark("host1", "default", "0123456789ab")
SPEC = RunnerSpec(description="d", tags=("b", "a"), maximum_timeout_s=900)
SAME = Runner(
    1,
    "d [nixprov host1/default 0123456789ab]",
    RunnerType.INSTANCE,
    False,
    RunnerStatus.ONLINE,
    tags=("a", "b"),
    maximum_timeout_s=900,
)
ACTION = Action("do it", "api", "Owner", is_write=True)


def test_no_difference_whatever_the_order_of_tags() -> None:
    assert differences(SPEC, MARK, SAME) == ()


@pytest.mark.parametrize(
    ("actual", "difference"),
    [
        (replace(SAME, tags=("a",)), Difference("tags", "a", "a, b")),
        (replace(SAME, tags=()), Difference("tags", "none", "a, b")),
        (replace(SAME, paused=True), Difference("paused", "yes", "no")),
        (replace(SAME, locked=True), Difference("locked", "yes", "no")),
        (replace(SAME, run_untagged=False), Difference("run_untagged", "no", "yes")),
        (replace(SAME, maximum_timeout_s=None), Difference("maximum_timeout", "default", "900 s")),
        (replace(SAME, maintenance_note="x"), Difference("maintenance_note", "x", "")),
        (
            replace(SAME, access_level=AccessLevel.REF_PROTECTED),
            Difference("access_level", "ref_protected", "not_protected"),
        ),
        (replace(SAME, type=RunnerType.GROUP), Difference("type", "group_type", "instance_type")),
    ],
)
def test_each_difference_is_named(actual: Runner, difference: Difference) -> None:
    assert differences(SPEC, MARK, actual) == (difference,)


def test_a_host_that_was_renamed_differs_in_the_description() -> None:
    (one,) = differences(SPEC, replace(MARK, host="new"), SAME)
    assert str(one) == "description: d [nixprov host1/default 0123456789ab] -> d [nixprov new/default 0123456789ab]"


def test_replies_tolerate_unknown_words_and_nulls() -> None:
    runner = replies.runner(
        {
            "id": 3,
            "description": None,
            "runner_type": "project_type",
            "active": False,
            "status": "sleeping",
            "maintenance_note": None,
            "access_level": "vip",
        }
    )
    assert (runner.description, runner.paused, runner.status) == ("", True, RunnerStatus.UNKNOWN)
    manager = replies.manager({"id": 1, "system_id": "s_1", "contacted_at": None, "status": "online", "version": None})
    assert (manager.contacted_at, manager.version) == (None, None)


@pytest.mark.parametrize("data", [None, [], "x", {}, {"id": "1"}, {"id": True}, {"id": 1}, {"id": 1, "token": ""}])
def test_a_registration_without_id_or_token_is_malformed(data: object) -> None:
    with pytest.raises(replies.MalformedReplyError):
        replies.registration(data)


def test_malformed_replies_are_not_quoted() -> None:
    with pytest.raises(replies.MalformedReplyError) as caught:
        replies.registration({"token": "glrt-poison"})
    assert "poison" not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "error", "said"),
    [
        (
            Failure(Kind.ANSWERED, 401, "401 Unauthorized"),
            CiRefused,
            "answered 401 Unauthorized; the token is unknown",
        ),
        (
            Failure(Kind.ANSWERED, 403, "insufficient_scope"),
            CiRefused,
            "403 insufficient_scope; the token needs the scope api",
        ),
        (Failure(Kind.ANSWERED, 403, "403 Forbidden"), CiRefused, "403 Forbidden; the token's user must be Owner"),
        (
            Failure(Kind.ANSWERED, 400, "400 Bad request - x"),
            CiRefused,
            "400 Bad request - x; correct the runner's settings",
        ),
        (Failure(Kind.ANSWERED, 404, "404 Not Found"), CiRefused, "check the URL"),
        (
            Failure(Kind.ANSWERED, 502, "<html><body>x"),
            CiUnavailable,
            "502 with an HTML page, from a proxy perhaps; whether",
        ),
        (Failure(Kind.ANSWERED, 400, "a\n b"), CiRefused, "400 a b"),
        (
            Failure(Kind.NOT_SENT, None, "certificate: expired"),
            CiUnavailable,
            "expired); name the CA that signed it",
        ),
        (
            Failure(Kind.NOT_SENT, None, "connection refused"),
            CiUnavailable,
            "cannot be reached (connection refused)",
        ),
        (
            Failure(Kind.UNCLEAR, None, "timed out"),
            CiUnavailable,
            "no usable answer (timed out); whether it was done",
        ),
        (Failure(Kind.RATE_LIMITED, None, "429"), CiUnavailable, "limits its callers (429); try again later"),
        (
            Failure(Kind.REDIRECTED, 301, "", "https://g/sub/api/v4/user"),
            CiRefused,
            "sends us on to https://g/sub/api/v4/user (301); name https://g/sub with --gitlab-url",
        ),
        (
            Failure(Kind.REDIRECTED, 302, "", "https://sso/login"),
            CiRefused,
            "sends us on to https://sso/login (302); that is not where GitLab's API is: check the URL",
        ),
    ],
)
def test_a_failure_says_what_was_tried_and_what_to_do(failure: Failure, error: type[Exception], said: str) -> None:
    explained = explain(ACTION, failure, "https://g")
    assert isinstance(explained, error)
    assert str(explained).startswith("cannot do it: https://g ")
    assert said in str(explained)


def test_a_page_instead_of_an_answer_is_an_address_to_check() -> None:
    page = Failure(Kind.UNCLEAR, None, "200 with text/html instead of JSON")
    assert explain(Action("look"), page, "https://g").hint == "that is not where GitLab's API is: check the URL"
    assert explain(Action("look"), Failure(Kind.UNCLEAR, None, "timed out"), "https://g").hint == "try again later"


def test_a_long_answer_is_cut() -> None:
    assert len(str(explain(ACTION, Failure(Kind.ANSWERED, 400, "x" * 5000), "https://g"))) < 500


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DATE = {"Date": format_datetime(NOW, usegmt=True)}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": format_datetime(NOW + timedelta(seconds=9), usegmt=True)}, 9),
        ({"Retry-After": format_datetime(NOW - timedelta(hours=1), usegmt=True)}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"RateLimit-Reset": str(int(NOW.timestamp()) + 5)}, 5),
        ({"Retry-After": "3", "RateLimit-Reset": str(int(NOW.timestamp()) + 5)}, 3),
        ({"RateLimit-Reset": "then"}, None),
    ],
)
def test_how_long_a_reply_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    """By the server's own clock, which need not be ours."""
    assert asked_wait({**DATE, **headers}) == seconds


def test_a_call_without_a_time_out_is_refused() -> None:
    with pytest.raises(TypeError, match="waits for ever"):
        Transport(Patience()).send(requests.Request("GET", "http://127.0.0.1:1").prepare(), timeout=None)


ROOTS = (gitlab.exceptions.GitlabError, requests.exceptions.RequestException)


@pytest.mark.parametrize(
    "foreign",
    [
        member
        for module, root in zip((gitlab.exceptions, requests.exceptions), ROOTS, strict=True)
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, root) and member is not root
    ],
    ids=lambda member: member.__name__,
)
def test_every_exception_of_the_libraries_below_is_mapped(foreign: type[Exception]) -> None:
    """When a new version brings a class that only the root covers, say in ci/gitlab/client.py what it means."""
    nearest = next(ancestor for ancestor in foreign.__mro__ if ancestor in KINDS)
    assert nearest not in ROOTS, f"{foreign.__name__} is not in KINDS"


def test_an_exception_nobody_knows_is_unexpected() -> None:
    class StrangeError(gitlab.exceptions.GitlabError):
        pass

    assert kind_of(StrangeError()) is Kind.UNEXPECTED


def test_a_failed_listing_is_tried_again_and_a_good_one_kept() -> None:
    listings, key = Listings(), (RunnerType.INSTANCE, None)
    answers = iter([[SAME]])

    def failing() -> list[Runner]:
        raise CiUnavailable("down")

    with pytest.raises(CiUnavailable):
        listings.get(key, failing)
    assert listings.get(key, lambda: next(answers)) == (SAME,)
    assert listings.get(key, lambda: next(answers)) == (SAME,)
    listings.replace(replace(SAME, paused=True))
    assert listings.get(key, failing)[0].paused
    listings.remove(SAME.id)
    assert listings.get(key, failing) == ()
