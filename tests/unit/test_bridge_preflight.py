"""The findings of `nixprov bridge check`: each unsafe setting is named, and a safe project has none."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from provisioner.bridge.config import PullsTable
from provisioner.bridge.preflight import Gravity, View, could_match, judge

NEEDED = {"metadata": "read", "contents": "read", "pull_requests": "read", "checks": "write"}
PULLS = PullsTable()
MARK = "[nixprov host1/pulls 0123456789ab]"
STRANGERS = {
    "id": 1,
    "description": MARK,
    "tag_list": ["pulls"],
    "run_untagged": False,
    "access_level": "not_protected",
}
PROTECTED = {
    "id": 2,
    "description": "main",
    "tag_list": ["nix"],
    "run_untagged": False,
    "access_level": "ref_protected",
}
SAFE = View(
    project={
        "shared_runners_enabled": False,
        "ci_separated_caches": True,
        "ci_pipeline_variables_minimum_override_role": "no_one_allowed",
        "ci_push_repository_for_job_token_allowed": False,
        "container_registry_access_level": "disabled",
        "package_registry_access_level": "disabled",
    },
    variables={"project": ({"key": "KEY", "protected": True, "masked": True},), "group lab": ()},
    protected_branches=({"name": "main"},),
    protected_tags=(),
    tags=(),
    runners=(STRANGERS, PROTECTED),
    job_token_scope={"inbound_enabled": True},
    deploy_tokens=({"name": "mirror"}, {"name": "gitlab-deploy-token", "revoked": True, "expired": False}),
    bot_projects=("lab/demo",),
    permissions=NEEDED,
    plain=frozenset(),
)


def findings(pulls: PullsTable = PULLS, **changes: Any) -> list[str]:
    return [str(one) for one in judge(dataclasses.replace(SAFE, **changes), pulls, "lab/demo", NEEDED)]


def test_a_safe_project_has_no_findings() -> None:
    assert findings() == []


UNSAFE: dict[str, tuple[dict[str, Any], str]] = {
    "variable": ({"variables": {"project": ({"key": "KEY", "masked": True},)}}, "variable KEY of the project"),
    "unmasked": ({"variables": {"project": ({"key": "KEY", "masked": False},)}}, "shown in logs"),
    "of a group": ({"variables": {"group lab": ({"key": "KEY", "masked": True},)}}, "variable KEY of the group lab"),
    "hidden variables": ({"variables": {"group lab": None}}, "variables of the group lab cannot be read"),
    "branch pattern": ({"protected_branches": ({"name": "p*"},)}, "branch pattern p*"),
    "hidden branches": ({"protected_branches": None}, "branch names cannot be read"),
    "tag pattern": ({"protected_tags": ({"name": "*"},)}, "tag pattern *"),
    "tag": ({"tags": ({"name": "pr-7"},)}, "tag pr-7"),
    "hidden tags": ({"tags": None}, "tags cannot be read"),
    "instance runners": ({"project": {**SAFE.project, "shared_runners_enabled": True}}, "instance runners"),
    "unknown instance runners": (
        {"project": {key: value for key, value in SAFE.project.items() if key != "shared_runners_enabled"}},
        "instance runners",
    ),
    "caches": ({"project": {**SAFE.project, "ci_separated_caches": False}}, "share caches"),
    "variables of pipelines": (
        {"project": {**SAFE.project, "ci_pipeline_variables_minimum_override_role": "developer"}},
        "started with variables",
    ),
    "job token": ({"job_token_scope": {"inbound_enabled": False}}, "allowlist is off"),
    "pushes of jobs": (
        {"project": {**SAFE.project, "ci_push_repository_for_job_token_allowed": True}},
        "push to the repository",
    ),
    "images": ({"project": {**SAFE.project, "container_registry_access_level": "enabled"}}, "container registry"),
    "packages": ({"project": {**SAFE.project, "package_registry_access_level": "private"}}, "package registry"),
    "deploy token": ({"deploy_tokens": ({"name": "gitlab-deploy-token", "revoked": False},)}, "given to every job"),
    "hidden deploy tokens": ({"deploy_tokens": None}, "deploy tokens cannot be read"),
    "hidden runner": ({"runners": (STRANGERS, {"id": 7, "description": "x"})}, "runner 7 (x) cannot be read"),
    "no inventory": ({"plain": None}, "no inventory given"),
    "hidden job token": ({"job_token_scope": None}, "job token's settings"),
    "no runner": ({"runners": (PROTECTED,)}, "no runner is there"),
    "hidden runners": ({"runners": None}, "runners cannot be read"),
    "open runner": ({"runners": (STRANGERS, {**PROTECTED, "access_level": "not_protected"})}, "runner 2"),
    "untagged jobs": ({"runners": (STRANGERS, {**PROTECTED, "run_untagged": True})}, "untagged jobs"),
    "untagged strangers": ({"runners": ({**STRANGERS, "run_untagged": True}, PROTECTED)}, "untagged jobs"),
    "both": ({"runners": (STRANGERS, {**PROTECTED, "tag_list": ["pulls"], "description": MARK})}, "protected refs"),
    "not ours": ({"runners": ({**STRANGERS, "description": "mine"}, PROTECTED)}, "not one of nixprov's"),
    "plain": ({"plain": frozenset({"host1"})}, "trusts its jobs"),
    "other projects": ({"bot_projects": ("lab/demo", "lab/secret")}, "reaches lab/secret"),
    "too little": ({"permissions": {**NEEDED, "checks": "read"}}, "no permission checks"),
    "too much": ({"permissions": {**NEEDED, "contents": "write"}}, "contents: write, which is not used"),
    "something else": ({"permissions": {**NEEDED, "administration": "read"}}, "administration: read"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_each_unsafe_setting_is_named(name: str) -> None:
    changes, expected = UNSAFE[name]
    (found,) = [one for one in findings(**changes) if expected in one]
    assert "; " in found


def test_the_gravity_of_a_finding() -> None:
    hidden = {key: value for key, value in SAFE.project.items() if "_registry_" in key}
    cases: list[tuple[dict[str, Any], Gravity]] = [
        ({"tags": ({"name": "pr-7"},)}, Gravity.UNSAFE),
        ({"project": hidden, "plain": None, "deploy_tokens": None, "runners": None}, Gravity.UNREAD),
        ({"project": {**SAFE.project, "package_registry_access_level": "enabled"}}, Gravity.NOTICE),
    ]
    for changes, gravity in cases:
        found = judge(dataclasses.replace(SAFE, **changes), PULLS, "lab/demo", NEEDED)
        assert {one.gravity for one in found} == {gravity}


def test_variables_can_be_said_to_be_no_secrets() -> None:
    public = PullsTable(public_variables=("KEY",))
    assert findings(public, variables={"project": ({"key": "KEY", "masked": False},)}) == []


@pytest.mark.parametrize(
    ("pattern", "may"),
    [
        ("main", False),
        ("pr-1", True),
        ("pr-x", False),
        ("pr-", False),
        ("*", True),
        ("pr-*", True),
        ("p*", True),
        ("pr-1*", True),
        ("*-1", True),
        ("*r-12", True),
        ("*7", True),
        ("release-*", False),
        ("*-stable", False),
        ("pr-x*", False),
        ("*x1", False),
        ("pr-*-9", True),  # it cannot, but a middle is not looked at
    ],
)
def test_which_patterns_could_match(pattern: str, may: bool) -> None:
    assert could_match(pattern, "pr-") is may
