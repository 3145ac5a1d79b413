"""Permissions: personal access tokens with their scopes, then roles, as GitLab's docs list them per call.

Scopes: docs user/profile/personal_access_tokens, "Personal access token scopes". Roles: docs api/runners and api/users.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request

from nixprov_lab.gitlab.errors import insufficient_scope, invalid_token, refused
from nixprov_lab.gitlab.records import Group, Project, Role, Runner, User
from nixprov_lab.gitlab.state import State
from provisioner.model import RunnerType

SCOPES: Final = frozenset(
    {"api", "read_api", "read_user", "create_runner", "manage_runner", "k8s_proxy", "ai_features"}
)
READ: Final = ("api", "read_api")
WRITE: Final = ("api",)
READ_USER: Final = ("read_user", "api", "read_api")
CREATE_RUNNER: Final = ("create_runner", "api")
# GitLab tests the path of the request, so the same scope opens nothing below /projects or /groups.
MANAGE_RUNNER: Final = "manage_runner"
_RUNNER_PATH: Final = re.compile(r"/api/v[34]/runners/[^/]+")
_NOT_AN_ID: Final = frozenset({"all"})


def presented_token(request: Request) -> str | None:
    """The user's token, from the places that GitLab reads, in its order."""
    query = request.query_params.get("private_token")
    bearer = request.headers.get("Authorization", "")
    if header := request.headers.get("PRIVATE-TOKEN"):
        return header
    if query:
        return query
    return bearer.removeprefix("Bearer ").strip() if bearer.startswith("Bearer ") else None


def authenticate(state: State, request: Request, scopes: tuple[str, ...]) -> User:
    """Return the caller. Raises ApiError 401 for the token itself, 403 when none of `scopes` is granted."""
    text = presented_token(request)
    token = state.tokens.get(text) if text else None
    if token is None:
        raise refused(401)
    if token.revoked:
        raise invalid_token("Token was revoked. You have to re-authorize from the user.")
    if token.expired:
        raise invalid_token("Token is expired. You can either do re-authorization or token refresh.")
    accepted = _scopes_for(request, scopes)
    if not token.scopes.intersection(accepted):
        raise insufficient_scope(accepted)
    return token.user


def _scopes_for(request: Request, scopes: tuple[str, ...]) -> tuple[str, ...]:
    has_id = request.path_params.get("id", "all") not in _NOT_AN_ID
    covers = has_id and _RUNNER_PATH.match(request.url.path)
    return (MANAGE_RUNNER, *scopes) if covers else scopes


def role_in(user: User, path: str) -> Role | None:
    """The highest role in a group or project, those of the groups above it included."""
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    return max((user.roles[name] for name in above if name in user.roles), default=None)


def has_role(user: User, path: str, role: Role) -> bool:
    return user.admin or (role_in(user, path) or 0) >= role


def may_read(user: User, runner: Runner) -> bool:
    if runner.type is RunnerType.INSTANCE or user.admin or user.auditor:
        return True
    return _maintains(user, runner, Role.MAINTAINER)


def may_update(user: User, runner: Runner) -> bool:
    return user.admin or _maintains(user, runner, Role.OWNER)


def may_list_jobs(user: User, runner: Runner) -> bool:
    return user.admin or user.auditor or _maintains(user, runner, Role.MAINTAINER)


def _maintains(user: User, runner: Runner, group_role: Role) -> bool:
    if runner.type is RunnerType.GROUP and runner.group:
        return has_role(user, runner.group.path, group_role)
    return any(has_role(user, project.path, Role.MAINTAINER) for project in runner.projects)


def may_create(user: User, owner: Group | Project | None) -> bool:
    """Administrators for the instance, Owners for a group, Maintainers for a project, unless it is switched off."""
    if user.admin:
        return True
    if owner is None or not owner.runner_creation:
        return False
    return has_role(user, owner.path, Role.OWNER if isinstance(owner, Group) else Role.MAINTAINER)
