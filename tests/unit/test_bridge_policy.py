"""Every rule of the bridge's policy as a row: permissions, refs, and texts of checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.bridge import policy
from provisioner.bridge.policy import Ground, Refs, Trust
from provisioner.bridge.values import (
    Build,
    Check,
    Claim,
    Comment,
    Conclusion,
    Person,
    Pipeline,
    PullRequest,
    Source,
    Stage,
)

HEAD, OTHER, BASE = "a" * 40, "b" * 40, "c" * 40
WRITER, READER = Person(1, "writer"), Person(2, "reader")
FORK = PullRequest(5, True, HEAD, BASE, READER, 500, 501, READER.id, "2026-01-01T00:00:00Z")
REFS = Refs("pr-", ["main"])


def comment(body: str, **more: object) -> Comment:
    said = Comment(9, 5, WRITER, True, body, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
    return dataclasses.replace(said, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [f"/ci run {HEAD}", f"  /ci run {HEAD}\n", f"\r\n/ci run {HEAD}\r\n"])
def test_a_line_alone_is_an_approval_of_that_commit(body: str) -> None:
    assert policy.claim_of(comment(body)) == Claim(Source.COMMENT, 9, 5, HEAD, WRITER)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "/ci run",
        f"/ci run {HEAD[:12]}",
        f"/ci run {HEAD}a",
        f"/ci run {HEAD.upper()}",
        f"/ci run {HEAD} please",
        f"/ci  run {HEAD}",
        f"> /ci run {HEAD}",
        f"    /ci run {HEAD}\nas I said",
        f"```\n/ci run {HEAD}\n```",
        f"<!--\n/ci run {HEAD}\n-->",
        f"thanks\n/ci run {HEAD}",
        f"`/ci run {HEAD}`",
        f"/CI RUN {HEAD}",
        "/ci run \u0661" + HEAD[1:],
    ],
)
def test_nothing_else_is(body: str) -> None:
    assert policy.claim_of(comment(body)) is None


def test_an_edited_comment_or_a_bots_is_no_approval() -> None:
    assert policy.claim_of(comment(f"/ci run {HEAD}", updated_at="2026-01-01T00:00:01Z")) is None
    assert policy.claim_of(comment(f"/ci run {HEAD}", is_human=False)) is None


@pytest.mark.parametrize(
    ("permission", "answered", "may"),
    [
        ("admin", 1, True),
        ("write", 1, True),
        ("read", 1, False),
        ("triage", 1, False),
        ("none", 1, False),
        ("", 1, False),
        ("write", 2, False),  # the login is somebody else's by now
        ("write", None, False),
    ],
)
def test_who_may_write(permission: str, answered: int | None, may: bool) -> None:
    assert policy.may_write(WRITER, answered, permission) is may


def test_only_a_branch_of_the_repository_needs_nobodys_word() -> None:
    assert policy.ground_without_asking(FORK) is None
    assert policy.ground_without_asking(dataclasses.replace(FORK, head_repository=None)) is None
    own = dataclasses.replace(FORK, head_repository=500)
    assert policy.ground_without_asking(own) is Ground.BRANCH
    assert [own.is_fork, FORK.is_fork] == [False, True]


def test_an_authors_own_word_counts_only_where_asked_for_and_in_their_own_fork() -> None:
    assert policy.author_counts(FORK, Trust.WRITERS)
    assert not policy.author_counts(FORK, Trust.APPROVAL)
    assert not policy.author_counts(dataclasses.replace(FORK, head_owner=9), Trust.WRITERS)
    assert not policy.author_counts(dataclasses.replace(FORK, head_owner=None), Trust.WRITERS)


def test_an_approval_of_another_commit_or_pull_request_is_none() -> None:
    good = Claim(Source.COMMENT, 3, 5, HEAD, WRITER)
    later = dataclasses.replace(good, id=7)
    operator = dataclasses.replace(good, source=Source.OPERATOR, id=1)
    others = [dataclasses.replace(good, head=OTHER), dataclasses.replace(good, pull=6)]
    assert policy.claims_for(FORK, [*others, good, later, operator]) == (operator, later, good)


ODD_REFS = [
    "refs/heads/main",
    "refs/heads/pr-0",
    "refs/heads/pr-01",
    "refs/heads/pr-",
    "refs/heads/pr-5x",
    "refs/heads/pr-5/x",
    "refs/heads/xpr-5",
    "refs/tags/pr-5",
    "refs/heads/pr-12345678901",
    "refs/heads/pr-\u0665",
    "pr-5",
    "refs/heads/pr-5\n",
]


@pytest.mark.parametrize("ref", ODD_REFS)
def test_what_is_not_a_number_behind_the_prefix_is_never_deleted(ref: str) -> None:
    assert not REFS.may_delete(ref)
    assert REFS.may_set(ref) is (ref == "refs/heads/main")


@given(st.integers(1, 10**10 - 1))
def test_a_ref_is_its_number(number: int) -> None:
    assert REFS.number(REFS.of_pull(number)) == number
    assert REFS.may_delete(REFS.of_pull(number))


def test_a_prefix_is_no_pattern() -> None:
    assert Refs("p.-", []).number("refs/heads/px-5") is None


def test_a_commit_of_two_pull_requests_is_the_oldest_ones() -> None:
    second = dataclasses.replace(FORK, number=6)
    third = dataclasses.replace(FORK, number=7, head=OTHER)
    assert policy.leaders([third, second, FORK]) == {HEAD: (FORK, second), OTHER: (third,)}


def test_few_are_deleted_at_once_and_others_never() -> None:
    observed = {REFS.of_pull(n): HEAD for n in range(1, 101)} | {"refs/heads/main": HEAD, "refs/heads/pr-x": HEAD}
    assert len(policy.surplus(observed, {}, REFS)) == 20
    assert len(policy.surplus(dict(list(observed.items())[:5]), {}, REFS)) == 3
    assert policy.surplus({"refs/heads/main": HEAD, "refs/heads/pr-x": HEAD}, {}, REFS) == ()
    assert policy.surplus({REFS.of_pull(1): HEAD}, {REFS.of_pull(1): OTHER}, REFS) == ()


@pytest.mark.parametrize(
    ("pull", "may"),
    [
        (None, True),
        (dataclasses.replace(FORK, is_open=False), True),
        (dataclasses.replace(FORK, head=OTHER), True),
        (FORK, False),  # the list was short
    ],
)
def test_a_deletion_is_asked_for_twice(pull: PullRequest | None, may: bool) -> None:
    assert policy.may_delete(HEAD, pull) is may


def test_pushes_are_counted_for_an_hour() -> None:
    assert policy.is_within_hour([0, 10, 20], 30, 4)
    assert not policy.is_within_hour([0, 10, 20], 30, 3)
    assert policy.is_within_hour([0, 10, 20], 3605, 3)


BUILD = Build("refs/heads/pr-5", HEAD, Stage.PUSHED, 100.0)


def pipeline(number: int, ref: str = "pr-5", head: str = HEAD, source: str = "push") -> Pipeline:
    return Pipeline(number, ref, head, source, "success")


@pytest.mark.parametrize(
    ("pipelines", "expected"),
    [
        ([], None),
        ([pipeline(1)], 1),
        ([pipeline(1), pipeline(2)], 2),
        ([pipeline(1, ref="pr-6")], None),
        ([pipeline(1, head=OTHER)], None),
        ([pipeline(1, source="web")], None),  # started by a person
        ([pipeline(1, source="schedule")], None),
        ([pipeline(1, source="merge_request_event")], None),
    ],
)
def test_only_our_own_pipeline_counts(pipelines: Iterable[Pipeline], expected: int | None) -> None:
    found = policy.our_pipeline(BUILD, pipelines)
    assert (found and found.id) == expected


def test_a_run_that_we_started_counts_from_then_on() -> None:
    again = dataclasses.replace(BUILD, pipeline=7)
    found = policy.our_pipeline(again, [pipeline(3), pipeline(7, source="api"), pipeline(8, source="api")])
    assert found is not None
    assert found.id == 7
    assert policy.our_pipeline(again, [pipeline(3)]) is None


GREEN = {"success"}
STATES = {
    "created": ("queued", None),
    "waiting_for_resource": ("queued", None),
    "preparing": ("queued", None),
    "pending": ("queued", None),
    "scheduled": ("queued", None),
    "running": ("in_progress", None),
    "canceling": ("in_progress", None),
    "success": ("completed", Conclusion.SUCCESS),
    "failed": ("completed", Conclusion.FAILURE),
    "canceled": ("completed", Conclusion.CANCELLED),
    "manual": ("completed", Conclusion.ACTION_REQUIRED),
    "skipped": ("completed", Conclusion.FAILURE),
    "zzz": ("completed", Conclusion.FAILURE),
}


def shown(build: Build, now: float = 101.0, *, own_ci: bool = False) -> Check:
    return policy.result(build, now, 600, "https://gitlab.example.org/x", own_ci=own_ci)


@pytest.mark.parametrize(("status", "expected"), STATES.items())
def test_each_state_of_a_pipeline(status: str, expected: tuple[str, Conclusion | None]) -> None:
    check = shown(dataclasses.replace(BUILD, pipeline=3, status=status))
    assert (check.status, check.conclusion) == expected
    assert (check.conclusion is Conclusion.SUCCESS) == (status in GREEN)


def test_no_pipeline_is_waited_for_and_then_a_failure() -> None:
    assert shown(BUILD, 699.0).status == "queued"
    assert shown(BUILD, 701.0).conclusion is Conclusion.FAILURE


def test_a_refused_commit_is_a_failure_that_says_why() -> None:
    refused = dataclasses.replace(BUILD, stage=Stage.REFUSED, reason="It is too large.")
    assert shown(refused).conclusion is Conclusion.FAILURE
    assert "too large" in shown(refused).summary


def test_what_a_pull_request_says_of_itself_is_named_so() -> None:
    green = dataclasses.replace(BUILD, pipeline=3, status="success")
    assert "own definition" in shown(green, own_ci=True).title
    assert "own definition" not in shown(green).title
    assert "pipeline is changed" in policy.waiting(FORK, own_ci=True).title


def test_waiting_is_never_green_and_has_the_line_to_paste() -> None:
    check = policy.waiting(FORK, own_ci=False)
    assert check.conclusion is Conclusion.ACTION_REQUIRED
    assert not check.is_final
    line = next(line for line in check.summary.splitlines() if line.startswith("/ci"))
    assert policy.claim_of(comment(line)) == Claim(Source.COMMENT, 9, 5, HEAD, WRITER)
