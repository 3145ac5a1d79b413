"""Webhooks, for less waiting: a signed request rings, and the next pass looks for itself.

Nothing else of a request is believed, but for GitHub's two buttons, because no list shows them. They name a commit
and a person, and become a claim like a comment. docs.github.com, "Validating webhook deliveries"; docs.gitlab.com,
"Webhooks".
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from provisioner.bridge.github import APPROVE, EXTERNAL_ID
from provisioner.bridge.values import OID, Person
from provisioner.limits import MIB
from provisioner.model import Secret

_START_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Pressed:
    """A button of a check: Approve or Re-run, its commit and its person."""

    head: str
    person: Person
    is_rerun: bool = False


@dataclass(frozen=True, slots=True)
class Doorbell:
    """`ring` is called for each request that is signed, `press` for each button; `repository` is owner/name."""

    repository: str
    app_id: int
    secret: Secret
    gitlab_secret: Secret | None
    ring: Callable[[], None]
    press: Callable[[Pressed], None]

    def app(self) -> Starlette:
        routes = [
            Route("/github", self._github, methods=["POST"]),
            Route("/gitlab", self._gitlab, methods=["POST"]),
        ]
        return Starlette(routes=routes, max_body_size=1 * MIB)

    async def _github(self, request: Request) -> Response:
        """The signature is of the bytes as they came, and is looked at before anything reads them."""
        body = await request.body()
        signed = hmac.new(self.secret.reveal().encode(), body, hashlib.sha256).hexdigest()
        said = request.headers.get("X-Hub-Signature-256", "")
        if not hmac.compare_digest(f"sha256={signed}".encode(), said.encode("utf-8", "surrogateescape")):
            return Response(status_code=401)
        if request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            return Response(status_code=415)
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            return Response(status_code=400)
        if pressed := self._pressed(request.headers.get("X-GitHub-Event", ""), event):
            self.press(pressed)
        self.ring()
        return Response(status_code=202)

    async def _gitlab(self, request: Request) -> Response:
        said = request.headers.get("X-Gitlab-Token", "").encode("utf-8", "surrogateescape")
        if self.gitlab_secret is None or not hmac.compare_digest(self.gitlab_secret.reveal().encode(), said):
            return Response(status_code=401)
        self.ring()
        return Response(status_code=202)

    def _pressed(self, name: str, event: Any) -> Pressed | None:
        """Approve, or Re-run, on a check that is ours."""
        match name, event:
            case "check_run", {
                "action": "requested_action" | "rerequested" as action,
                "check_run": {"head_sha": str(head), "external_id": str(external), "app": {"id": int(app)}},
                "repository": {"full_name": str(repository)},
                "sender": {"id": int(user), "login": str(login), "type": "User"},
            }:
                wanted = event.get("requested_action")
                is_approval = isinstance(wanted, dict) and wanted.get("identifier") == APPROVE
                is_rerun = action == "rerequested"
                is_ours = (repository, app, external) == (self.repository, self.app_id, EXTERNAL_ID)
                if is_ours and OID.fullmatch(head) and (is_rerun or is_approval):
                    return Pressed(head, Person(user, login), is_rerun)
        return None


@contextmanager
def listening(doorbell: Doorbell, host: str, port: int) -> Iterator[int]:
    """Serve it from a thread; the value is the port."""
    config = uvicorn.Config(
        doorbell.app(), host, port, http="h11", ws="none", lifespan="off", log_level="error", access_log=False
    )
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    socket.listen()
    # uvicorn leaves signals alone outside of the main thread.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, name="doorbell", daemon=True)
    thread.start()
    try:
        yield int(socket.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(_START_S)
        socket.close()
