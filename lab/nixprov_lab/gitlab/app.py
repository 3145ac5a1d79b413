"""Puts the API together: endpoints, error replies, journal, faults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nixprov_lab.gitlab import creation, jobs, owners, pipelines, registration, runners
from nixprov_lab.gitlab.clock import Clock
from nixprov_lab.gitlab.errors import ApiError
from nixprov_lab.gitlab.faults import Fault, FaultsMiddleware
from nixprov_lab.gitlab.journal import Journal, JournalMiddleware
from nixprov_lab.gitlab.routing import Endpoint, on_api_error, on_crash, on_http_error, routes
from nixprov_lab.gitlab.state import State
from nixprov_lab.gitlab.transports import Transports

# A fixed word comes before a parameter: `/runners/all` must not be taken for a runner's id.
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *creation.ENDPOINTS,
    *registration.ENDPOINTS,
    *jobs.ENDPOINTS,
    *runners.ENDPOINTS,
    *owners.ENDPOINTS,
    *pipelines.ENDPOINTS,
)
_ENCODED_SLASH: Final = re.compile("%2f", re.IGNORECASE)


@dataclass(frozen=True)
class LabGitLab:
    """The parts of one server, shared by the API and the control application."""

    journal: Journal
    clock: Clock = field(default_factory=Clock)
    faults: list[Fault] = field(default_factory=list)
    transports: Transports = field(default_factory=Transports)
    state: State = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", State(self.clock))

    @classmethod
    def journaled(cls, calls: Path | None = None) -> LabGitLab:
        return cls(Journal(calls))

    def api(self) -> ASGIApp:
        inner = Starlette(
            routes=routes(ENDPOINTS, self.state),
            exception_handlers={ApiError: on_api_error, HTTPException: on_http_error, Exception: on_crash},
        )
        inner.router.redirect_slashes = False
        faulty = FaultsMiddleware(_EncodedSlashes(inner), self.faults, self.clock, self.transports.hang_up)
        return JournalMiddleware(_Dated(faulty, self.clock), self.journal, self.state)


class _Dated:
    """Adds the server's time to every reply. Clients compare a date in Retry-After with it (RFC 9110, 10.2.3)."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Date"] = formatdate(self._clock.now(), usegmt=True)
            await send(message)

        await self._app(scope, receive, dated)


class _EncodedSlashes:
    """Keeps `%2F` of a path as it is: `/projects/lab%2Fdemo` names one project, not a deeper route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw_path = scope.get("raw_path")
        if raw_path:
            parts = _ENCODED_SLASH.split(raw_path.decode())
            # In place: the handlers' notes in the scope must reach the journal further out.
            scope["path"] = "%2F".join(unquote(part) for part in parts)
        await self._app(scope, receive, send)
