"""Settings that would let a stranger's job do more than build: of GitLab's project, its runners and the App.

Pure: `judge` looks at a view of both sides. For a person an unreadable setting counts as unsafe, because it may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from provisioner.bridge.config import PullsTable
from provisioner.model import Mark

NOBODY: Final = "no_one_allowed"
_UNREADABLE: Final = "use the token of a Maintainer of the project and Owner of its groups: --gitlab-token-file"
Json = Mapping[str, Any]
# Attributes of a project by GitLab's names: the safe value, the finding for any other, its mend.
_SETTINGS: Final[Mapping[str, tuple[object, str, str]]] = MappingProxyType(
    {
        "ci_pipeline_variables_minimum_override_role": (
            NOBODY,
            "pipelines can be started with variables",
            f"set ci_pipeline_variables_minimum_override_role to {NOBODY}",
        ),
        "ci_separated_caches": (
            True,
            "protected and other branches share caches",
            "Settings, CI/CD: use separate caches",
        ),
        "ci_push_repository_for_job_token_allowed": (
            False,
            "a job can push to the repository with its job token",
            "Settings, CI/CD, Job token permissions: do not allow Git push requests",
        ),
    }
)
_REGISTRIES: Final[Mapping[str, str]] = MappingProxyType(
    {"container_registry_access_level": "container", "package_registry_access_level": "package"}
)
# docs.gitlab.com, "Deploy tokens": a project's token of that name becomes CI_DEPLOY_PASSWORD in each job.
_GIVEN_TO_JOBS: Final = "gitlab-deploy-token"


class Gravity(Enum):
    """UNSAFE stops the service. UNREAD may be unsafe. NOTICE is a choice with a risk."""

    UNSAFE = "unsafe"
    UNREAD = "not checked"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Finding:
    """A setting by name, and how to mend it."""

    what: str
    mend: str
    gravity: Gravity = Gravity.UNSAFE

    def __str__(self) -> str:
        return f"{self.what}; {self.mend}"


@dataclass(frozen=True, slots=True)
class View:
    """The settings as they were read; None is beyond the token's reach.

    `plain`: hosts whose Nix trusts jobs; None without an inventory.
    """

    project: Json
    variables: Mapping[str, tuple[Json, ...] | None]
    protected_branches: tuple[Json, ...] | None
    protected_tags: tuple[Json, ...] | None
    tags: tuple[Json, ...] | None
    runners: tuple[Json, ...] | None
    job_token_scope: Json | None
    deploy_tokens: tuple[Json, ...] | None
    bot_projects: tuple[str, ...]
    permissions: Mapping[str, str]
    plain: frozenset[str] | None = None


def judge(view: View, pulls: PullsTable, project: str, needed: Mapping[str, str]) -> tuple[Finding, ...]:
    """All findings. The bridge works only while none of them is UNSAFE."""
    return (
        *_variables(view, pulls),
        *_names(view, pulls),
        *_runners(view, pulls),
        *_project(view),
        *_deploy_tokens(view),
        *_rights(view, project, needed),
    )


def _unread(what: str) -> Finding:
    return Finding(f"{what} cannot be read", _UNREADABLE, Gravity.UNREAD)


def _variables(view: View, pulls: PullsTable) -> Iterator[Finding]:
    for owner, variables in view.variables.items():
        if variables is None:
            yield _unread(f"the variables of the {owner}")
        for variable in variables or ():
            key = str(variable.get("key"))
            if not variable.get("protected") and key not in pulls.public_variables:
                masked = "" if variable.get("masked") else ", and is shown in logs"
                yield Finding(
                    f"the variable {key} of the {owner} reaches every pull request{masked}",
                    "protect it, or name it in pulls.public_variables if it is no secret",
                )


def _names(view: View, pulls: PullsTable) -> Iterator[Finding]:
    for kind, names in (("branch", view.protected_branches), ("tag", view.protected_tags)):
        if names is None:
            yield _unread(f"the protected {kind} names")
        for said in names or ():
            if could_match(str(said.get("name")), pulls.prefix):
                yield Finding(
                    f"the protected {kind} pattern {said.get('name')} matches {pulls.prefix}1",
                    "protected refs get protected variables and runners: change the pattern or pulls.prefix",
                )
    if view.tags is None:
        yield _unread("the tags")
    for said in view.tags or ():
        if re.fullmatch(rf"{re.escape(pulls.prefix)}[0-9]+", str(said.get("name"))):
            yield Finding(f"the tag {said.get('name')} has the name of a pull request's branch", "delete the tag")


def could_match(pattern: str, prefix: str) -> bool:
    """Tell if a pattern with `*` may match the prefix and a number. In doubt it may."""
    first, *rest = pattern.split("*")
    if not rest:
        return re.fullmatch(rf"{re.escape(prefix)}[0-9]+", first) is not None
    begins = prefix.startswith(first) or re.fullmatch(rf"{re.escape(prefix)}[0-9]+", first) is not None
    last = rest[-1]
    number = re.fullmatch(r"(.*?)([0-9]*)", last)
    ends = number is not None and (not number[1] or (bool(number[2]) and prefix.endswith(number[1])))
    return begins and ends


def _runners(view: View, pulls: PullsTable) -> Iterator[Finding]:
    if view.plain is None:
        mend = "name it with -i, and its play with --play"
        yield Finding("no inventory given, to learn which hosts' Nix trusts jobs", mend, Gravity.UNREAD)
    if "shared_runners_enabled" not in view.project:
        yield _unread("the switch for instance runners")
    elif view.project["shared_runners_enabled"] is not False:
        yield Finding("instance runners would take the jobs", "switch them off: Settings, CI/CD, Runners")
    if view.runners is None:
        yield _unread("the runners")
        return
    for runner in view.runners:
        yield from _runner(runner, view.plain or frozenset(), pulls.runner_tag)
    if not any(pulls.runner_tag in runner.get("tag_list", ()) for runner in view.runners):
        mend = f"make one with the tag {pulls.runner_tag}, without untagged jobs, unprotected (docs/bridge.md)"
        yield Finding("no runner is there for pull requests", mend)


def _runner(runner: Json, plain: frozenset[str], tag: str) -> Iterator[Finding]:
    """A job names its tags itself, so each runner that is not protected is one for strangers."""
    name = f"runner {runner.get('id')} ({runner.get('description')})"
    if "tag_list" not in runner:
        yield _unread(name)
        return
    is_protected = runner.get("access_level") == "ref_protected"
    is_for_pulls = tag in runner.get("tag_list", ())
    if runner.get("run_untagged") is not False:
        yield Finding(f"{name} takes untagged jobs", "give it tags and run_untagged: false")
    if not is_protected and not is_for_pulls:
        yield Finding(
            f"{name} takes jobs of pull requests",
            f"protect it (protected: true), or give it the tag {tag} if it is for them",
        )
    if is_protected and is_for_pulls:
        yield Finding(f"{name} has the tag {tag} and is for protected refs", "take one of both away")
    mark = Mark.find(str(runner.get("description")))
    if is_for_pulls and mark is None:
        yield Finding(
            f"{name} is not one of nixprov's", "the rights of its jobs are not known: make it with `nixprov up`"
        )
    if mark and mark.host in plain and not is_protected:
        yield Finding(f"{name}: the Nix of {mark.host} trusts its jobs", "take nixprov_trust: plain away from it")


def _project(view: View) -> Iterator[Finding]:
    scope = view.job_token_scope
    if scope is None:
        yield _unread("the job token's settings")
    elif scope.get("inbound_enabled") is not True:
        yield Finding("the job token's allowlist is off", "Settings, CI/CD, Job token permissions: only this project")
    for name, (is_safe, what, mend) in _SETTINGS.items():
        if name not in view.project:
            yield _unread(f"the setting {name}")
        elif view.project[name] != is_safe:
            yield Finding(what, mend)
    for name, what in _REGISTRIES.items():
        if view.project.get(name) != "disabled":
            yield Finding(
                f"the {what} registry may be on, and a job may write to it",
                "switch it off (Settings, General, Visibility), or use nothing out of it",
                Gravity.NOTICE,
            )


def _deploy_tokens(view: View) -> Iterator[Finding]:
    if view.deploy_tokens is None:
        yield _unread("the deploy tokens")
    for token in view.deploy_tokens or ():
        is_over = token.get("revoked") is True or token.get("expired") is True
        if token.get("name") == _GIVEN_TO_JOBS and not is_over:
            yield Finding(
                f"the deploy token {_GIVEN_TO_JOBS} is given to every job", "revoke it, and make one with another name"
            )


def _rights(view: View, project: str, needed: Mapping[str, str]) -> Iterator[Finding]:
    if others := sorted(set(view.bot_projects) - {project}):
        yield Finding(f"the bridge's token reaches {others[0]} too", "use the access token of the project itself")
    for name, level in needed.items():
        if view.permissions.get(name) not in {level, "write"}:
            yield Finding(f"the App has no permission {name}: {level}", "give it in the App's settings, and accept it")
    for name, level in sorted(view.permissions.items()):
        if needed.get(name) != level and not (name in needed and needed[name] == "write"):
            yield Finding(f"the App has the permission {name}: {level}, which is not used", "take it away")
