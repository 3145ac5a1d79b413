"""GitLab's API for one project: pipelines, and the settings that `check` judges.

docs.gitlab.com/api: pipelines, projects, project_level_variables, protected_branches, project_job_token_scopes,
deploy_tokens, runners.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import gitlab
import gitlab.exceptions
import requests

from provisioner.bridge.errors import BridgeError, BridgeUnavailable, Side
from provisioner.bridge.values import OID, Pipeline
from provisioner.model import Secret
from provisioner.transport import Patience, RateLimitedError, Transport, reason

_PAGE: Final = 100
_TIMEOUT_S: Final = 30.0
_TOO_MANY: Final = 429
_NOT_THERE: Final = frozenset({403, 404})
Json = Mapping[str, Any]


class GitLab:
    """One project, by its path. Raises BridgeUnavailable for the next pass, BridgeError for a person."""

    def __init__(self, url: str, project: str, token: Secret, patience: Patience | None = None) -> None:
        self._web = f"{url}/{project}"
        self._transport = Transport(patience or Patience(repetitions=2, deadline_s=45.0))
        session = requests.Session()
        session.mount(url, self._transport)
        self._gl = gitlab.Gitlab(
            url,
            private_token=token.reveal(),
            session=session,
            timeout=_TIMEOUT_S,
            user_agent="nixprov-bridge",
            keep_base_url=True,
        )
        self._project = f"/projects/{quote(project, safe='')}"
        self._groups = ["/".join(project.split("/")[:depth]) for depth in range(1, project.count("/") + 1)]
        self.calls = 0

    def close(self) -> None:
        self._gl.session.close()

    def link(self, pipeline: int) -> str:
        return f"{self._web}/-/pipelines/{pipeline}"

    def pipelines(self, **query: str) -> tuple[Pipeline, ...]:
        """Those that match GitLab's own filters (`updated_after`, `ref`, `sha`), all pages of them."""
        return tuple(map(_pipeline, self._list("/pipelines", order_by="id", sort="asc", **query)))

    def retry(self, pipeline: int) -> None:
        """Run its failed and cancelled jobs again."""
        with self._attempt("retry a pipeline"):
            self._gl.http_post(f"{self._project}/pipelines/{pipeline}/retry")

    def run(self, ref: str) -> Pipeline:
        """Start a pipeline of the ref as it is now."""
        with self._attempt("start a pipeline"):
            made = self._gl.http_post(f"{self._project}/pipeline", post_data={"ref": ref.removeprefix("refs/heads/")})
        return _pipeline(made)

    # --- for `check`; None stands for settings beyond the token's reach

    def project(self) -> Json:
        return self._get(self._project, "the project") or {}

    def variables(self) -> Mapping[str, tuple[Json, ...] | None]:
        """Variables by the path of whose they are: the project and each group above it."""
        owners = {"project": f"{self._project}/variables"}
        owners |= {f"group {path}": f"/groups/{quote(path, safe='')}/variables" for path in self._groups}
        return {name: self._list_or_none(path) for name, path in owners.items()}

    def protected(self, what: str) -> tuple[Json, ...] | None:
        """`protected_branches` or `protected_tags`."""
        return self._list_or_none(f"{self._project}/{what}")

    def tags(self, prefix: str) -> tuple[Json, ...] | None:
        return self._list_or_none(f"{self._project}/repository/tags", search=f"^{prefix}")

    def runners(self) -> tuple[Json, ...] | None:
        """The details of each runner that the project's jobs can reach; one beyond the token's reach has no tags."""
        listed = self._list_or_none(f"{self._project}/runners")
        if listed is None:
            return None
        return tuple(self._get(f"/runners/{one['id']}", "a runner") or one for one in listed)

    def deploy_tokens(self) -> tuple[Json, ...] | None:
        return self._list_or_none(f"{self._project}/deploy_tokens")

    def memberships(self) -> tuple[str, ...]:
        """The paths of all projects that the token's user is a member of."""
        found = self._list("/projects", membership="true", simple="true")
        return tuple(str(one.get("path_with_namespace")) for one in found)

    def job_token_scope(self) -> Json | None:
        return self._get(f"{self._project}/job_token_scope", "the job token's settings")

    def _get(self, path: str, what: str) -> Json | None:
        try:
            with self._attempt(f"read {what}"):
                self.calls += 1
                return _mapping(self._gl.http_get(path))
        except _NotAllowed:
            return None

    def _list_or_none(self, path: str, **query: str) -> tuple[Json, ...] | None:
        try:
            return tuple(self._list(path, **query))
        except _NotAllowed:
            return None

    def _list(self, path: str, **query: str) -> list[Json]:
        path = f"{self._project}{path}" if path == "/pipelines" else path
        with self._attempt(f"list {path}"):
            found = self._gl.http_list(path, query_data=query, iterator=True, per_page=_PAGE)
            items = [_mapping(item) for item in found]
            self.calls += max(1, -(-len(items) // _PAGE))
            return items

    @contextmanager
    def _attempt(self, what: str) -> Iterator[None]:
        try:
            yield
        except RateLimitedError as error:
            raise BridgeUnavailable(Side.GITLAB, f"{error}", wait_s=60.0) from None
        except requests.exceptions.RequestException as error:
            raise BridgeUnavailable(Side.GITLAB, f"{reason(error)}") from None
        except gitlab.exceptions.GitlabError as error:
            code = error.response_code or 0
            if code in {0, _TOO_MANY} or code >= 500:  # noqa: PLR2004
                raise BridgeUnavailable(Side.GITLAB, f"{what}: {code or 'no usable answer'}") from None
            kind = _NotAllowed if code in _NOT_THERE else BridgeError
            raise kind(f"GitLab: {what}: {code}", hint="see the token's scope and role") from None


class _NotAllowed(BridgeError):
    pass


def _pipeline(said: Any) -> Pipeline:
    match _mapping(said):
        case {"id": int(id_), "ref": str(ref), "sha": str(head), "source": str(source), "status": str(status)}:
            if OID.fullmatch(head):
                return Pipeline(id_, ref, head, source, status)
    raise BridgeUnavailable(Side.GITLAB, "the answer is not as documented: a pipeline")


def _mapping(said: Any) -> Json:
    if not isinstance(said, dict):
        raise BridgeUnavailable(Side.GITLAB, "the answer is not as documented: not an object")
    return said
