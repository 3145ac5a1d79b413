"""Settings that would let a stranger's job do more than build: of GitLab's project, its runners and the App.

Pure: `judge` looks at a view of both sides. An unreadable setting counts as unsafe, because it may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from provisioner.bridge.config import PullsTable
from provisioner.model import Mark

NOBODY: Final = "no_one_allowed"
_UNREADABLE: Final = "use the token of a Maintainer of the project and Owner of its groups: --gitlab-token-file"
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something unsafe by name, and how to mend it."""

    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}; {self.mend}"


@dataclass(frozen=True, slots=True)
class View:
    """The settings as they were read; None is beyond the token's reach. `plain`: hosts whose Nix trusts jobs."""

    project: Json
    variables: Mapping[str, tuple[Json, ...] | None]
    protected_branches: tuple[Json, ...] | None
    protected_tags: tuple[Json, ...] | None
    tags: tuple[Json, ...] | None
    runners: tuple[Json, ...] | None
    job_token_scope: Json | None
    bot_projects: tuple[str, ...]
    permissions: Mapping[str, str]
    plain: frozenset[str] = frozenset()


def judge(view: View, pulls: PullsTable, project: str, needed: Mapping[str, str]) -> tuple[Finding, ...]:
    """All findings, none of which may be there when the bridge starts."""
    return (
        *_variables(view, pulls),
        *_names(view, pulls),
        *_runners(view, pulls),
        *_project(view),
        *_rights(view, project, needed),
    )


def _variables(view: View, pulls: PullsTable) -> Iterator[Finding]:
    for owner, variables in view.variables.items():
        if variables is None:
            yield Finding(f"the variables of the {owner} cannot be read", _UNREADABLE)
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
            yield Finding(f"the protected {kind} names cannot be read", _UNREADABLE)
        for said in names or ():
            if could_match(str(said.get("name")), pulls.prefix):
                yield Finding(
                    f"the protected {kind} pattern {said.get('name')} matches {pulls.prefix}1",
                    "protected refs get protected variables and runners: change the pattern or pulls.prefix",
                )
    if view.tags is None:
        yield Finding("the tags cannot be read", _UNREADABLE)
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
    if view.project.get("shared_runners_enabled") is not False:
        yield Finding("instance runners would take the jobs", "switch them off: Settings, CI/CD, Runners")
    if view.runners is None:
        yield Finding("the runners cannot be read", _UNREADABLE)
        return
    for runner in view.runners:
        yield from _runner(runner, view.plain, pulls.runner_tag)
    if not any(pulls.runner_tag in runner.get("tag_list", ()) for runner in view.runners):
        mend = f"make one with the tag {pulls.runner_tag}, without untagged jobs, unprotected (docs/bridge.md)"
        yield Finding("no runner is there for pull requests", mend)


def _runner(runner: Json, plain: frozenset[str], tag: str) -> Iterator[Finding]:
    """A job names its tags itself, so each runner that is not protected is one for strangers."""
    name = f"runner {runner.get('id')} ({runner.get('description')})"
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
        yield Finding("the job token's settings cannot be read", _UNREADABLE)
    elif scope.get("inbound_enabled") is not True:
        yield Finding("the job token's allowlist is off", "Settings, CI/CD, Job token permissions: only this project")
    if view.project.get("ci_pipeline_variables_minimum_override_role") != NOBODY:
        yield Finding(
            "pipelines can be started with variables", f"set ci_pipeline_variables_minimum_override_role to {NOBODY}"
        )
    if view.project.get("ci_separated_caches") is not True:
        yield Finding("protected and other branches share caches", "Settings, CI/CD: use separate caches")


def _rights(view: View, project: str, needed: Mapping[str, str]) -> Iterator[Finding]:
    if others := sorted(set(view.bot_projects) - {project}):
        yield Finding(f"the bridge's token reaches {others[0]} too", "use the access token of the project itself")
    for name, level in needed.items():
        if view.permissions.get(name) not in {level, "write"}:
            yield Finding(f"the App has no permission {name}: {level}", "give it in the App's settings, and accept it")
    for name, level in sorted(view.permissions.items()):
        if needed.get(name) != level and not (name in needed and needed[name] == "write"):
            yield Finding(f"the App has the permission {name}: {level}, which is not used", "take it away")
