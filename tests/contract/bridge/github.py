"""A stand-in of GitHub's REST API, as strict as the real one where the bridge could get it wrong.

Kept: JWTs of the App (RS256, at most ten minutes), installation tokens with their permissions, pagination by Link,
ETags, budgets with 403 and a reset, the rules of check runs (docs.github.com/rest, "Checks", "Rate limits"). Objects
have more fields than the bridge reads, and a page has what GitHub's has.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import jwt

from tests.contract.bridge.githttp import Repository, git

Json = dict[str, Any]
STATUSES = {"queued", "in_progress", "completed"}
CONCLUSIONS = {"action_required", "cancelled", "failure", "neutral", "success", "skipped", "stale", "timed_out"}
NEEDS = {
    "pulls": {"pull_requests": "read"},
    "comments": {"pull_requests": "read"},
    "permission": {"metadata": "read"},
    "contents": {"contents": "read"},
    "checks": {"checks": "read"},
    "write checks": {"checks": "write"},
}
MAX_SUMMARY = 65_535


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass
class User:
    id: int
    login: str
    permission: str = "read"
    type: str = "User"

    def shown(self) -> Json:
        return {"id": self.id, "login": self.login, "type": self.type, "site_admin": False}


@dataclass
class Pull:
    number: int
    author: User
    fork: tuple[int, User] | None
    head: str
    base: str
    created_at: float
    is_open: bool = True
    ref: str = "patch"


@dataclass
class Note:
    """A comment of a pull request."""

    id: int
    pull: int
    author: User | None
    body: str
    created_at: float
    updated_at: float


@dataclass
class CheckRun:
    id: int
    head: str
    name: str
    external_id: str
    history: list[Json] = field(default_factory=list)

    @property
    def now(self) -> Json:
        return self.history[-1]

    @property
    def state(self) -> str:
        return str(self.now["conclusion"] or self.now["status"])

    @property
    def title(self) -> str:
        return str(self.now["output"]["title"])


class Refused(Exception):
    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


@dataclass
class Fault:
    """The reply to the next calls with this path. `body` is sent as it is; None hangs up."""

    path: re.Pattern[str]
    status: int = 500
    body: bytes | None = b'{"message": "Server Error"}'
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


class GitHub:
    """One repository `owner/name` with its people; `clock` is in seconds and moved by tests."""

    REPOSITORY = 500

    def __init__(self, repository: Repository, public_key: str, clock: Callable[[], float] = time.time) -> None:
        self.git = repository
        self.clock = clock
        self.public_key = public_key
        self.users: dict[str, User] = {}
        self.pulls: dict[int, Pull] = {}
        self.notes: dict[int, Note] = {}
        self.checks: dict[int, CheckRun] = {}
        self.tokens: dict[str, tuple[float, dict[str, str]]] = {}
        self.granted = {"metadata": "read", "contents": "read", "pull_requests": "read", "checks": "write"}
        self.faults: list[Fault] = []
        self.calls: list[str] = []
        self.spent = 0
        self.budget: int | None = None
        self.reset_at = 0.0
        self.before: Callable[[str], None] = lambda _call: None
        self._next = 1000

    def number(self) -> int:
        self._next += 1
        return self._next

    # --- what people do

    def user(self, login: str, permission: str = "read", **more: Any) -> User:
        self.users[login] = User(self.number(), login, permission, **more)
        return self.users[login]

    def open(self, author: User, head: str, base: str, *, fork: bool = True, owner: User | None = None) -> Pull:
        number = max(self.pulls, default=0) + 1
        repository = (self.number(), owner or author) if fork else (self.REPOSITORY, self.users["owner"])
        self.pulls[number] = Pull(number, author, repository, head, base, self.clock())
        self.git.set(f"refs/pull/{number}/head", head)
        return self.pulls[number]

    def push(self, pull: Pull, head: str) -> None:
        pull.head = head
        self.git.set(f"refs/pull/{pull.number}/head", head)

    def say(self, author: User | None, pull: Pull, body: str) -> Note:
        note = Note(self.number(), pull.number, author, body, self.clock(), self.clock())
        self.notes[note.id] = note
        return note

    def edit(self, note: Note, body: str) -> None:
        note.body, note.updated_at = body, max(self.clock(), note.created_at + 1)

    def checks_of(self, head: str) -> list[CheckRun]:
        return [check for check in self.checks.values() if check.head == head]

    # --- the API

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """One reply: status, headers, body. Raises ConnectionError to hang up."""
        path = urlsplit(target).path
        self.calls.append(f"{method} {target}")
        self.before(f"{method} {target}")
        for fault in self.faults:
            if fault.path.search(target):
                fault.times -= 1
                if not fault.times:
                    self.faults.remove(fault)
                if fault.body is None:
                    raise ConnectionError
                return fault.status, {"Content-Type": "application/json", **fault.headers}, fault.body
        try:
            query = dict(parse_qsl(urlsplit(target).query))
            said = json.loads(body) if body else {}
            status, more, value = self._route(method, path, query, headers, said)
        except Refused as error:
            status, more, value = (
                error.status,
                error.headers,
                {"message": error.message, "documentation_url": "https://"},
            )
        reply = json.dumps(value).encode()
        sent = {"Content-Type": "application/json; charset=utf-8", **more}
        if method == "GET" and status == 200:
            sent["ETag"] = f'W/"{hashlib.sha256(reply + str(more).encode()).hexdigest()}"'
            if headers.get("If-None-Match") == sent["ETag"]:
                return 304, sent, b""
        self._spend()
        return status, sent, reply

    def _spend(self) -> None:
        """A reply of 304 is free."""
        self.spent += 1
        if self.budget is not None:
            self.budget -= 1

    def _route(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], said: Json) -> Any:
        if not headers.get("User-Agent"):
            raise Refused(
                403, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header"
            )
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        if found := re.fullmatch(r"/app/installations/(\d+)(/access_tokens)?", path):
            return self._installation(method, int(found[1]), token, said)
        permissions = self._permissions(token)
        if self.budget is not None and self.budget <= 0:
            if self.clock() < self.reset_at:
                limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(self.reset_at))}
                raise Refused(403, "API rate limit exceeded for installation ID 7.", limit)
            self.budget = None
        for pattern, wanted, verb, handler in self._endpoints():
            if (found := re.fullmatch(pattern, path)) and method == verb:
                self._check(permissions, wanted)
                return handler(*map(unquote, found.groups()), query, said)
        raise Refused(404, "Not Found")

    def _endpoints(self) -> Iterator[tuple[str, str, str, Callable[..., Any]]]:
        base = "/repos/owner/name"
        yield rf"{base}/pulls", "pulls", "GET", self._list_pulls
        yield rf"{base}/pulls/(\d+)", "pulls", "GET", self._one_pull
        yield rf"{base}/issues/comments", "comments", "GET", self._list_notes
        yield rf"{base}/issues/comments/(\d+)", "comments", "GET", self._one_note
        yield rf"{base}/collaborators/([^/]+)/permission", "permission", "GET", self._permission
        yield rf"{base}/contents/(.+)", "contents", "GET", self._contents
        yield rf"{base}/commits/([0-9a-f]+)/check-runs", "checks", "GET", self._list_checks
        yield rf"{base}/check-runs", "write checks", "POST", self._create_check
        yield rf"{base}/check-runs/(\d+)", "write checks", "PATCH", self._update_check

    def _installation(self, method: str, number: int, token: str, said: Json) -> Any:
        try:
            claims = jwt.decode(
                token, self.public_key, algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False}
            )
        except jwt.InvalidTokenError:
            raise Refused(401, "A JSON web token could not be decoded") from None
        is_valid = claims["iss"] == "77" and claims["iat"] <= self.clock() < claims["exp"] <= self.clock() + 600
        if not is_valid:
            raise Refused(401, "'Expiration time' claim ('exp') is too far in the future")
        if number != 7:
            raise Refused(404, "Not Found")
        if method == "GET":
            return 200, {}, {"id": 7, "app_id": 77, "permissions": self.granted}
        asked = said.get("permissions", self.granted)
        if any(self.granted.get(name) not in {level, "write"} for name, level in asked.items()):
            raise Refused(422, "The permissions requested are not granted to this installation.")
        if said.get("repositories") != ["name"]:
            raise Refused(422, "There is at least one repository that does not exist or is not accessible")
        text = f"ghs_{secrets.token_urlsafe(24)}"
        self.tokens[text] = self.clock() + 3600, dict(asked)
        return 201, {}, {"token": text, "expires_at": iso(self.tokens[text][0]), "permissions": asked}

    def _permissions(self, token: str) -> dict[str, str]:
        expires, permissions = self.tokens.get(token, (0.0, {}))
        if expires <= self.clock():
            raise Refused(401, "Bad credentials")
        return permissions

    def _check(self, permissions: dict[str, str], wanted: str) -> None:
        for name, level in NEEDS[wanted].items():
            if permissions.get(name) not in {level, "write"}:
                raise Refused(403, "Resource not accessible by integration")

    def _paged(self, path: str, query: dict[str, str], items: list[Json]) -> Any:
        per_page = min(int(query.get("per_page", 30)), 100)
        page = int(query.get("page", 1))
        links = {}
        if page * per_page < len(items):
            following = urlencode({**query, "page": page + 1})
            links["Link"] = f'<{self.url}/repos/owner/name{path}?{following}>; rel="next"'
        return 200, links, items[(page - 1) * per_page : page * per_page]

    url = ""

    def _list_pulls(self, query: dict[str, str], _said: Json) -> Any:
        shown = [self._shown_pull(pull) for pull in self.pulls.values() if pull.is_open or query.get("state") == "all"]
        return self._paged("/pulls", query, shown)

    def _one_pull(self, number: str, *_: Any) -> Any:
        if int(number) not in self.pulls:
            raise Refused(404, "Not Found")
        return 200, {}, self._shown_pull(self.pulls[int(number)])

    def _shown_pull(self, pull: Pull) -> Json:
        fork = pull.fork
        return {
            "url": f"https://api.example.org/repos/owner/name/pulls/{pull.number}",
            "id": 10_000 + pull.number,
            "number": pull.number,
            "state": "open" if pull.is_open else "closed",
            "title": "$(reboot) `id` Bot merge aaaa and bbbb",
            "user": pull.author.shown(),
            "body": f"/ci run {pull.head}",
            "created_at": iso(pull.created_at),
            "updated_at": iso(self.clock()),
            "author_association": "MEMBER",
            "draft": False,
            "head": {
                "label": f"x:{pull.ref}",
                "ref": pull.ref,
                "sha": pull.head,
                "user": fork[1].shown() if fork else None,
                "repo": {"id": fork[0], "name": "name", "clone_url": "--upload-pack=touch /tmp/owned"}
                if fork
                else None,
            },
            "base": {
                "ref": "main",
                "sha": pull.base,
                "user": self.users["owner"].shown(),
                "repo": {"id": self.REPOSITORY, "name": "name", "full_name": "owner/name"},
            },
        }

    def _list_notes(self, query: dict[str, str], _said: Json) -> Any:
        if query.get("sort") != "updated" or query.get("direction") != "asc":
            raise Refused(422, "this stand-in knows one order")
        notes = sorted(self.notes.values(), key=lambda note: (note.updated_at, note.id))
        shown = [self._shown_note(note) for note in notes if iso(note.updated_at) >= query.get("since", "")]
        return self._paged("/issues/comments", query, shown)

    def _one_note(self, number: str, *_: Any) -> Any:
        if int(number) not in self.notes:
            raise Refused(404, "Not Found")
        return 200, {}, self._shown_note(self.notes[int(number)])

    def _shown_note(self, note: Note) -> Json:
        return {
            "id": note.id,
            "body": note.body,
            "user": note.author.shown() if note.author else None,
            "issue_url": f"https://api.example.org/repos/owner/name/issues/{note.pull}",
            "created_at": iso(note.created_at),
            "updated_at": iso(note.updated_at),
            "author_association": "OWNER",
        }

    def _permission(self, login: str, *_: Any) -> Any:
        user = self.users.get(login)
        if user is None:
            raise Refused(404, "Not Found")
        # The legacy field knows four levels; `maintain` is write, `triage` is read.
        legacy = {"maintain": "write", "triage": "read"}.get(user.permission, user.permission)
        return 200, {}, {"permission": legacy, "role_name": user.permission, "user": user.shown()}

    def _contents(self, path: str, query: dict[str, str], _said: Json) -> Any:
        listed = git(self.git.folder, "ls-tree", query["ref"], "--", path)
        if not listed:
            raise Refused(404, "Not Found")
        mode, kind, sha = listed.split("\t")[0].split()
        if kind == "tree":
            return 200, {}, [{"type": "file", "name": "x", "sha": sha}]
        return 200, {}, {"type": "symlink" if mode == "120000" else "file", "sha": sha, "path": path}

    def _list_checks(self, head: str, query: dict[str, str], _said: Json) -> Any:
        found = [one for one in self.checks_of(head) if query.get("check_name", one.name) == one.name]
        return 200, {}, {"total_count": len(found), "check_runs": [self._shown_check(one) for one in found]}

    def _create_check(self, _query: dict[str, str], said: Json) -> Any:
        for name in ("name", "head_sha"):
            if not isinstance(said.get(name), str):
                raise Refused(422, f"Invalid request. {name} wasn't supplied.")
        check = CheckRun(self.number(), said["head_sha"], said["name"], said.get("external_id", ""))
        git(self.git.folder, "cat-file", "-e", f"{check.head}^{{commit}}")
        self._set(check, said, {"status": "queued", "conclusion": None})
        self.checks[check.id] = check
        return 201, {}, self._shown_check(check)

    def _update_check(self, number: str, _query: dict[str, str], said: Json) -> Any:
        if int(number) not in self.checks:
            raise Refused(404, "Not Found")
        self._set(self.checks[int(number)], said, self.checks[int(number)].now)
        return 200, {}, self._shown_check(self.checks[int(number)])

    def _set(self, check: CheckRun, said: Json, before: Json) -> None:
        status, conclusion = said.get("status", before["status"]), said.get("conclusion")
        status = "completed" if conclusion else status
        actions = said.get("actions", [])
        output = said.get("output", {})
        is_valid = (
            status in STATUSES
            and (conclusion in CONCLUSIONS if status == "completed" else conclusion is None)
            and len(actions) <= 3
            and all(set(one) == {"label", "description", "identifier"} for one in actions)
            and all(len(one["label"]) <= 20 and len(one["description"]) <= 40 for one in actions)
            and all(len(one["identifier"]) <= 20 for one in actions)
            and bool(output.get("title"))
            and isinstance(output.get("summary"), str)
            and len(output["summary"]) <= MAX_SUMMARY
            and re.match(r"https?://", said.get("details_url", "https://")) is not None
        )
        if not is_valid:
            raise Refused(422, "Invalid request.")
        check.history.append({**said, "status": status, "conclusion": conclusion, "output": output})

    def _shown_check(self, check: CheckRun) -> Json:
        now = check.now
        return {
            "id": check.id,
            "head_sha": check.head,
            "name": check.name,
            "external_id": check.external_id,
            "status": now["status"],
            "conclusion": now["conclusion"],
            "output": now["output"],
            "app": {"id": 77},
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            try:
                status, headers, reply = self.server.github.answer(self.command, self.path, dict(self.headers), body)
            except ConnectionError:
                self.close_connection = True
                return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - the names of http.server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    disable_nagle_algorithm = True
    github: GitHub
    lock: threading.Lock

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error here."""


@contextmanager
def serving(github: GitHub) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.github, server.lock = github, threading.Lock()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    github.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield github.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
