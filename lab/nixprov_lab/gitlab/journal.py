"""The journal of calls: requests and answers, in memory and as JSON lines; token kinds, never tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nixprov_lab.gitlab.clock import iso
from nixprov_lab.gitlab.state import State

_SECRET_IN_QUERY: Final = re.compile(r"((?:^|&)(?:private_token|access_token|job_token|token)=)[^&]*")
_HEADER_KINDS: Final = (
    (b"private-token", "personal"),
    (b"authorization", "personal"),
    (b"job-token", "job"),
    (b"runner-token", "runner"),
)


class Journal:
    """The entries, with `entries[n]["n"] == n`. `path` gets each as one line before its call is answered."""

    def __init__(self, path: Path | None) -> None:
        self.entries: list[dict[str, object]] = []
        self._path = path

    def add(self, entry: dict[str, object]) -> None:
        numbered = {"n": len(self.entries), **entry}
        self.entries.append(numbered)
        if self._path:
            with self._path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(numbered) + "\n")


class JournalMiddleware:
    def __init__(self, app: ASGIApp, journal: Journal, state: State) -> None:
        self._app = app
        self._journal = journal
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_noted = False

        async def note(message: Message) -> None:
            nonlocal is_noted
            if message["type"] == "http.response.start":
                # Before the first byte goes out, so that a client with an answer finds the call in the journal.
                self._journal.add(self._entry(scope, message["status"]))
                is_noted = True
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            if not is_noted:
                self._journal.add(self._entry(scope, None))

    def _entry(self, scope: Scope, status: int | None) -> dict[str, object]:
        raw_path = scope.get("raw_path") or scope["path"].encode()
        query = _SECRET_IN_QUERY.sub(r"\1[FILTERED]", scope["query_string"].decode())
        entry: dict[str, object] = {
            "time": iso(self._state.clock.now()),
            "method": scope["method"],
            "path": raw_path.decode(),
            "query": query,
            "status": status,
            "token": scope.get("lab.token") or _token_kind(scope),
        }
        return entry | ({"fault": scope["lab.fault"]} if "lab.fault" in scope else {})


def _token_kind(scope: Scope) -> str:
    sent = {name for name, _ in scope["headers"]}
    if b"private_token=" in scope["query_string"]:
        return "personal"
    return next((kind for name, kind in _HEADER_KINDS if name in sent), "none")
