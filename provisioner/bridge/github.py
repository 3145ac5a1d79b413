"""GitHub's API, as an App sees one repository: ten calls, each of them counted, none made behind our back.

Own calls on requests, on the transport of nixprov's GitLab client: it refuses redirects and bounds replies. ADR 0032
has the reasons against PyGithub. docs.github.com/rest: "Authenticating as a GitHub App", "Best practices
for using the REST API", "Checks", "Rate limits".
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar
from urllib.parse import quote

import jwt
import requests

from provisioner import limits
from provisioner.bridge import policy
from provisioner.bridge.errors import BridgeError, BridgeUnavailable, Side
from provisioner.bridge.values import OID, Check, Comment, Person, PullRequest
from provisioner.model import Secret
from provisioner.transport import Patience, Transport, asked_wait, reason

EXTERNAL_ID: Final = "nixprov-bridge"
APPROVE: Final = "approve"
# The least that is enough. A token is made with no more, even if the App was given more.
PERMISSIONS: Final = MappingProxyType(
    {"metadata": "read", "contents": "read", "pull_requests": "read", "checks": "write"}
)
# A page of the longest texts fits into one reply. GitHub keeps 65,536 characters of a comment or description. JSON
# takes six bytes at most for each (\u003c). The rest of an item is the repository twice, and people.
_PAGE: Final = limits.GITLAB_REPLY // (65_536 * 6 + 64 * limits.KIB)
_TIMEOUT_S: Final = 30.0
_TOKEN_SPARE_S: Final = 300
_JWT_S: Final = 540
_CLOCK_SPARE_S: Final = 60
_LINK_NEXT: Final = re.compile(r'<([^>]+)>;\s*rel="next"')
_NOT_FOUND: Final = 404
_UNAUTHORIZED: Final = 401
_NOT_MODIFIED: Final = 304
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _Page:
    """A page as it was last seen. GitHub confirms it in a few bytes, and for free."""

    etag: str
    items: tuple[Any, ...]
    following: str | None


class GitHub:
    """One repository through one installation. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        api: str,
        repository: str,
        app_id: int,
        installation_id: int,
        key: Secret,
        *,
        write_interval_s: float = 1.0,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._repository = repository
        self._app_id = app_id
        self._installation_id = installation_id
        self._key = key
        self._clock = clock
        self._patience = patience or Patience(repetitions=2, deadline_s=45.0)
        self._write_interval_s = write_interval_s
        self._last_write = 0.0
        self._session = requests.Session()
        self._session.mount(api, Transport(self._patience))
        self._token: tuple[Secret, float] | None = None
        self._pages: dict[str, dict[str, _Page]] = {}
        self.calls = 0

    def close(self) -> None:
        self._session.close()

    def token(self) -> Secret:
        """A token of the installation that is valid for minutes yet, for this repository and the least permissions."""
        if self._token is None or self._token[1] < self._clock() + _TOKEN_SPARE_S:
            wanted = {"repositories": [self._repository.partition("/")[2]], "permissions": dict(PERMISSIONS)}
            made = _json(self._send("POST", f"{self._installation}/access_tokens", self._signed(), body=wanted))
            expires = datetime.fromisoformat(_text(made, "expires_at")).timestamp()
            self._token = Secret(_text(made, "token")), expires
        return self._token[0]

    def permissions(self) -> Mapping[str, str]:
        """The permissions that the App was given here; they may be more than a token asks for."""
        found = _at(_json(self._send("GET", self._installation, self._signed())), "permissions")
        return {str(name): str(level) for name, level in _object(found).items()}

    def pulls(self) -> tuple[PullRequest, ...]:
        """All open pull requests, all pages of them. Raises BridgeUnavailable when any page is missing."""
        query = f"?state=open&sort=created&direction=asc&per_page={_PAGE}"
        return self._list("/pulls", query, _pull)

    def pull(self, number: int) -> PullRequest | None:
        found = self._get_or_none(f"/pulls/{number}")
        return None if found is None else _pull(found)

    def comments(self, since: str) -> tuple[Comment, ...]:
        """Comments made or changed since then on any pull request, oldest change first."""
        query = f"?since={since}&sort=updated&direction=asc&per_page={_PAGE}"
        return self._list("/issues/comments", query, _comment)

    def comment(self, number: int) -> Comment | None:
        found = self._get_or_none(f"/issues/comments/{number}")
        return None if found is None else _comment(found)

    def may_write(self, person: Person) -> bool:
        """Ask GitHub for their permission now. The login is looked up, the id decides."""
        if not re.fullmatch(r"[A-Za-z0-9-]{1,60}(\[bot\])?", person.login):
            return False
        found = self._get_or_none(f"/collaborators/{person.login}/permission")
        if found is None:
            return False
        return policy.may_write(person, _number(found, "user", "id"), _text(found, "permission"))

    def blob(self, path: str, commit: str) -> str | None:
        """The kind and id of a file in a commit; None if there is none. A folder has no id, and is never the same."""
        try:
            found = _json(self._send("GET", f"{self._repo}/contents/{path}?ref={commit}", self.token()))
        except _NotFound:
            return None
        return f"folder in {commit}" if isinstance(found, list) else f"{_text(found, 'type')} {_text(found, 'sha')}"

    def find_check(self, commit: str, name: str) -> int | None:
        """Our check of that commit, if there is one already."""
        query = f"?check_name={quote(name, safe='')}&app_id={self._app_id}&filter=all&per_page={_PAGE}"
        found = self._get(f"/commits/{commit}/check-runs{query}").get("check_runs")
        if not isinstance(found, list):
            raise _malformed("check_runs")
        ours = [_number(one, "id") for one in found if one.get("external_id") == EXTERNAL_ID]
        return min(ours, default=None)

    def create_check(self, commit: str, name: str, check: Check) -> int:
        body = {"name": name, "head_sha": commit, "external_id": EXTERNAL_ID, **_shown(check)}
        return _number(self._write("POST", "/check-runs", body), "id")

    def update_check(self, number: int, check: Check) -> None:
        self._write("PATCH", f"/check-runs/{number}", _shown(check))

    # --- how calls go

    @property
    def _repo(self) -> str:
        return f"{self._api}/repos/{self._repository}"

    @property
    def _installation(self) -> str:
        return f"{self._api}/app/installations/{self._installation_id}"

    def _signed(self) -> Secret:
        """A signed proof of being the App, valid for some minutes."""
        now = int(self._clock())
        claims = {"iat": now - _CLOCK_SPARE_S, "exp": now + _JWT_S, "iss": str(self._app_id)}
        return Secret(jwt.encode(claims, self._key.reveal(), algorithm="RS256"))

    def _list(self, path: str, query: str, read: Callable[[Any], Item]) -> tuple[Item, ...]:
        """Read all pages, or fail: a short list would look like closed pull requests."""
        items: list[Item] = []
        seen: dict[str, _Page] = {}
        before = self._pages.get(path, {})
        url: str | None = f"{self._repo}{path}{query}"
        while url is not None:
            if not url.startswith(f"{self._api}/") or url in seen:
                raise _malformed("the next page is not GitHub's")
            seen[url] = self._page(url, before.get(url), read)
            items += seen[url].items
            url = seen[url].following
        self._pages[path] = seen
        return tuple(items)

    def _page(self, url: str, known: _Page | None, read: Callable[[Any], Item]) -> _Page:
        reply = self._send("GET", url, self.token(), headers={"If-None-Match": known.etag} if known else {})
        if known and reply.status_code == _NOT_MODIFIED:
            return known
        said = _json(reply)
        if not isinstance(said, list):
            raise _malformed("not a list")
        following = _LINK_NEXT.search(reply.headers.get("Link", ""))
        etag = reply.headers.get("ETag", "")
        return _Page(etag, tuple(map(read, said)), following[1] if following else None)

    def _get(self, path: str) -> dict[str, Any]:
        return _object(_json(self._send("GET", f"{self._repo}{path}", self.token())))

    def _get_or_none(self, path: str) -> dict[str, Any] | None:
        try:
            return self._get(path)
        except _NotFound:
            return None

    def _write(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a second between writes, as GitHub asks; faster clients are put off for minutes."""
        wait_s = self._last_write + self._write_interval_s - time.monotonic()
        if wait_s > 0 and self._last_write:
            self._patience.sleep(wait_s)
        try:
            return _object(_json(self._send(method, f"{self._repo}{path}", self.token(), body=body)))
        finally:
            self._last_write = time.monotonic()

    def _send(
        self,
        method: str,
        url: str,
        token: Secret,
        *,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> requests.Response:
        self.calls += 1
        sent = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token.reveal()}",
            "User-Agent": "nixprov-bridge",
            "X-GitHub-Api-Version": "2022-11-28",
            **(headers or {}),
        }
        try:
            reply = self._session.request(method, url, headers=sent, json=body, timeout=_TIMEOUT_S)
        except requests.exceptions.RequestException as error:
            raise BridgeUnavailable(Side.GITHUB, f"{reason(error)}") from None
        if reply.status_code == _UNAUTHORIZED:
            self._token = None
        if reply.ok or reply.status_code == _NOT_MODIFIED:
            return reply
        raise self._refusal(method, url, reply)

    def _refusal(self, method: str, url: str, reply: requests.Response) -> BridgeError:
        """Limits are 403 or 429 with a time to come back. A 5xx is for the next pass, the rest for a person."""
        path = url.removeprefix(self._api).partition("?")[0]
        wait_s = _limit_wait(reply, self._clock())
        if wait_s is not None:
            return BridgeUnavailable(Side.GITHUB, f"asks to wait {wait_s:.0f} s", wait_s=wait_s)
        if reply.status_code >= 500:  # noqa: PLR2004
            return BridgeUnavailable(Side.GITHUB, f"{method} {path}: {reply.status_code}")
        error = _NotFound if reply.status_code == _NOT_FOUND else BridgeError
        hint = "the App may lack a permission: `nixprov bridge init` lists them"
        return error(f"GitHub: {method} {path}: {reply.status_code}", hint=hint)


class _NotFound(BridgeError):
    pass


def _limit_wait(reply: requests.Response, now: float) -> float | None:
    """The seconds to wait after a reply that limits rates: Retry-After, or the reset of a used-up budget."""
    if reply.status_code not in {403, 429}:
        return None
    if (asked := asked_wait(reply.headers)) is not None:
        return asked
    reset = reply.headers.get("X-RateLimit-Reset", "")
    if reply.headers.get("X-RateLimit-Remaining") == "0" and reset.isdigit():
        return max(float(reset) - now, 1.0)
    is_secondary = b"secondary rate limit" in reply.content
    return 60.0 if is_secondary or reply.status_code != 403 else None  # noqa: PLR2004


def _shown(check: Check) -> dict[str, Any]:
    approve = {"label": "Approve this commit", "description": "Build it on GitLab", "identifier": APPROVE}
    shown: dict[str, Any] = {
        "status": check.status,
        "output": {"title": check.title, "summary": check.summary},
        "actions": [approve] if check.may_approve else [],
    }
    if check.conclusion:
        shown["conclusion"] = check.conclusion.value
    if check.link:
        shown["details_url"] = check.link
    return shown


# --- replies are read by name and type, and nothing else of them is kept


def _pull(said: Any) -> PullRequest:
    fork, owner = _at(said, "head", "repo"), _at(said, "head", "user")
    return PullRequest(
        number=_number(said, "number"),
        is_open=_text(said, "state") == "open",
        head=_oid(said, "head", "sha"),
        base=_oid(said, "base", "sha"),
        author=_person(said, "user"),
        base_repository=_number(said, "base", "repo", "id"),
        head_repository=_number(fork, "id") if fork else None,
        head_owner=_number(owner, "id") if owner else None,
        created_at=_time(said, "created_at"),
    )


def _comment(said: Any) -> Comment:
    issue = _text(said, "issue_url").rpartition("/")[2]
    body = _at(said, "body")
    return Comment(
        id=_number(said, "id"),
        issue=int(issue) if issue.isascii() and issue.isdigit() else 0,
        author=_person(said, "user"),
        is_human=bool(_at(said, "user")) and _text(said, "user", "type") == "User",
        body=body if isinstance(body, str) else "",
        created_at=_time(said, "created_at"),
        updated_at=_time(said, "updated_at"),
    )


def _person(said: Any, *path: str) -> Person:
    """GitHub says null for an account that was deleted; nobody has the id 0."""
    found = _at(said, *path)
    return Person(_number(found, "id"), _text(found, "login")) if found else Person(0, "")


def _at(said: Any, *path: str) -> Any:
    for name in path:
        if not isinstance(said, dict) or name not in said:
            raise _malformed(".".join(path))
        said = said[name]
    return said


def _number(said: Any, *path: str) -> int:
    found = _at(said, *path)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise _malformed(".".join(path))
    return found


def _text(said: Any, *path: str) -> str:
    found = _at(said, *path)
    if not isinstance(found, str):
        raise _malformed(".".join(path))
    return found


def _oid(said: Any, *path: str) -> str:
    found = _text(said, *path)
    if not OID.fullmatch(found):
        raise _malformed(".".join(path))
    return found


def _time(said: Any, *path: str) -> str:
    found = _text(said, *path)
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found):
        raise _malformed(".".join(path))
    return found


def _json(reply: requests.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        raise _malformed("not JSON") from None


def _object(said: Any) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise _malformed("not an object")
    return said


def _malformed(what: str) -> BridgeUnavailable:
    return BridgeUnavailable(Side.GITHUB, f"the answer is not as documented: {what}")
