"""Calls an ASGI application without a socket. The lab's GitLab answers a unit test in well under a millisecond."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nixprov_lab.gitlab.app import LabGitLab
from nixprov_lab.gitlab.journal import Journal
from nixprov_lab.gitlab.records import AccessToken
from starlette.types import ASGIApp, Message


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """The lab's GitLab with an administrator's token; `lab` are its parts."""

    def __init__(self, calls: Path | None = None) -> None:
        self.lab = LabGitLab(Journal(calls))
        self._app = self.lab.api()
        self.admin = self.token_for("root", "api")

    def token_for(self, username: str, *scopes: str, expired: bool = False, revoked: bool = False) -> str:
        user = self.lab.state.user_named(username)
        assert user
        text = f"glpat-{username}-{len(self.lab.state.tokens)}"
        self.lab.state.add_token(AccessToken(text, user, frozenset(scopes), expired, revoked))
        return text

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Make a call. `token` empty: the administrator's; None: none. `body`: bytes as they are, anything else as JSON."""
        sent = {"host": "gitlab.lab", **(headers or {})}
        if token is not None:
            sent.setdefault("PRIVATE-TOKEN", token or self.admin)
        data = b""
        if isinstance(body, bytes):
            data = body
        elif body is not None:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        return ask(self._app, method, f"/api/v4{path}", data, sent)

    def post(self, path: str, body: object = None, **more: Any) -> Reply:
        return self.call("POST", path, body, **more)

    def get(self, path: str, **more: Any) -> Reply:
        return self.call("GET", path, **more)

    def new_runner(self, **settings: object) -> tuple[int, str]:
        """Id and token of a new runner, an instance runner unless `settings` have another type."""
        made = self.post("/user/runners", {"runner_type": "instance_type", **settings})
        assert made.status == 201, made.body
        return made.json["id"], made.json["token"]


def ask(app: ASGIApp, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> Reply:
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("gitlab.lab", 80),
        "root_path": "",
        "state": {},
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        await app(scope, receive, send)

    asyncio.run(run())
    start = sent[0]
    return Reply(
        start["status"],
        {name.decode().lower(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )
