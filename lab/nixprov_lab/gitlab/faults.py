"""Fault switches: the failures of GitLab, its rate limits, the proxies in front of it and the network."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nixprov_lab.gitlab.clock import Clock

_APP_LIMIT: Final = {"error": "This endpoint has been requested too many times. Try again later."}
_PAGE: Final = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>\r\n"

# These let the call take effect and spoil the reply. The others answer in GitLab's place.
AFTER_EFFECT: Final = frozenset({"reply_lost", "reply_late", "reply_cut", "wrong_content_type", "html_502_after"})


@dataclass(slots=True)
class Fault:
    """One fault, for calls with a matching method and path, `times` times (None: until cleared)."""

    kind: str
    method: str | None = None
    path: re.Pattern[str] | None = None
    times: int | None = 1
    seconds: float = 1.0
    retry_after: int = 60
    location: str = ""

    def matches(self, method: str, path: str) -> bool:
        return (self.method in {None, method}) and (self.path is None or self.path.search(path) is not None)


def _rate_limit_app(fault: Fault, _clock: Clock) -> Response:
    return JSONResponse({"message": _APP_LIMIT}, 429, {"Retry-After": str(fault.retry_after)})


def _rate_limit_rack(fault: Fault, clock: Clock) -> Response:
    reset = clock.now() + fault.retry_after
    headers = {
        "RateLimit-Limit": "60",
        "RateLimit-Name": "throttle_authenticated_api",
        "RateLimit-Observed": "61",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": str(int(reset)),
        "RateLimit-ResetTime": formatdate(reset, usegmt=True),
        "Retry-After": str(fault.retry_after),
    }
    return PlainTextResponse("Retry later\n", 429, headers)


def _rate_limit_date(fault: Fault, clock: Clock) -> Response:
    date = formatdate(clock.now() + fault.retry_after, usegmt=True)
    return PlainTextResponse("Retry later\n", 429, {"Retry-After": date})


def _redirect(status: int) -> Callable[[Fault, Clock], Response]:
    return lambda fault, _clock: Response(status_code=status, headers={"Location": fault.location})


def _html(status: int, title: str) -> Callable[[Fault, Clock], Response]:
    return lambda _fault, _clock: HTMLResponse(_PAGE.format(title), status)


def _json(status: int, body: Mapping[str, object]) -> Callable[[Fault, Clock], Response]:
    return lambda _fault, _clock: JSONResponse(dict(body), status)


ANSWERS: Final[Mapping[str, Callable[[Fault, Clock], Response]]] = {
    "rate_limit_app": _rate_limit_app,
    "rate_limit_rack": _rate_limit_rack,
    "rate_limit_date": _rate_limit_date,
    "rate_limit_bare": lambda _fault, _clock: PlainTextResponse("Retry later\n", 429),
    "html_502": _html(502, "502 Bad Gateway"),
    "html_503": _html(503, "503 Service Unavailable"),
    "html_200": _html(200, "Sign in"),
    "json_500": _json(500, {"message": "500 Internal Server Error"}),
    "json_200": _json(200, {}),
    "html_404": _html(404, "404 Not Found"),
    "route_404": _json(404, {"error": "404 Not Found"}),
    "gone_410": _json(410, {"message": "410 Gone - runner registration disallowed"}),
    "conflict_409": _json(409, {"message": "409 Conflict"}),
    "unprocessable_422": _json(422, {"error": "token rotation is not allowed after the deadline"}),
    "redirect_301": _redirect(301),
    "redirect_307": _redirect(307),
}
KINDS: Final = frozenset({*ANSWERS, *AFTER_EFFECT, "slow", "refuse"})


class FaultsMiddleware:
    """Applies the faults. `cut` closes the connection of a scope's client without another byte."""

    def __init__(self, app: ASGIApp, faults: list[Fault], clock: Clock, cut: Callable[[Scope], None]) -> None:
        self._app = app
        self._faults = faults
        self._clock = clock
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._next(scope) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        scope["lab.fault"] = fault.kind
        if answer := ANSWERS.get(fault.kind):
            await answer(fault, self._clock)(scope, receive, send)
        elif fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
            await self._app(scope, receive, send)
        elif fault.kind == "refuse":
            await self._hang_up(scope, receive)
        else:
            await self._spoil(fault, scope, receive, send)

    def _next(self, scope: Scope) -> Fault | None:
        raw_path = (scope.get("raw_path") or scope["path"].encode()).decode()
        found = next((fault for fault in self._faults if fault.matches(scope["method"], raw_path)), None)
        if found and found.times is not None:
            found.times -= 1
            if found.times <= 0:
                self._faults.remove(found)
        return found

    async def _hang_up(self, scope: Scope, receive: Receive) -> None:
        self._cut(scope)
        await _gone(receive)

    async def _spoil(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the call take effect, then apply the fault to its reply."""
        reply: list[Message] = []

        async def keep(message: Message) -> None:
            reply.append(message)

        await self._app(scope, receive, keep)
        if fault.kind == "reply_lost":
            await self._hang_up(scope, receive)
        elif fault.kind == "reply_late":
            with contextlib.suppress(TimeoutError):  # no longer than the client waits
                await asyncio.wait_for(_gone(receive), fault.seconds)
            for message in reply:
                await send(message)
        elif fault.kind == "html_502_after":
            await HTMLResponse(_PAGE.format("502 Bad Gateway"), 502)(scope, receive, send)
        elif fault.kind == "wrong_content_type":
            body = b"".join(message.get("body", b"") for message in reply)
            await PlainTextResponse(body, reply[0]["status"])(scope, receive, send)
        else:
            await self._send_half(reply, scope, receive, send)

    async def _send_half(self, reply: list[Message], scope: Scope, receive: Receive, send: Send) -> None:
        body = b"".join(message.get("body", b"") for message in reply)
        await send(reply[0])
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await self._hang_up(scope, receive)


async def _gone(receive: Receive) -> None:
    """Return once the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
