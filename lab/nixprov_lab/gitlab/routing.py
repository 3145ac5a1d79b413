"""From HTTP to calls: endpoints as data, their guard, and the shape of every reply and error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar
from urllib.parse import unquote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nixprov_lab.gitlab.access import authenticate
from nixprov_lab.gitlab.errors import ApiError, plain_error, refused
from nixprov_lab.gitlab.paging import offset_page
from nixprov_lab.gitlab.params import Reader, body_params, query_params
from nixprov_lab.gitlab.records import User
from nixprov_lab.gitlab.state import State

BASE: Final = "/api/v4"
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
Item = TypeVar("Item")


@dataclass(slots=True)
class Call:
    """One request, read: `params` are path, body and query merged; `body` has the bytes as they were sent."""

    request: Request
    state: State
    body: bytes
    params: Mapping[str, object]
    path: Mapping[str, str]
    caller: User | None = None

    @property
    def user(self) -> User:
        if self.caller is None:
            raise refused(401)
        return self.caller

    @property
    def reader(self) -> Reader:
        return Reader(self.params)

    @property
    def url(self) -> str:
        return str(self.request.url.replace(query=""))

    @property
    def ip_address(self) -> str:
        return self.request.client.host if self.request.client else ""

    def header(self, name: str) -> str | None:
        return self.request.headers.get(name)

    def note_token(self, kind: str) -> None:
        """Tell the journal the kind of the token that counted; never its text."""
        self.request.scope["lab.token"] = kind

    def paged(self, items: Sequence[Item], show: Callable[[Item], dict[str, object]], reader: Reader) -> Response:
        query = {name: value for name, value in self.request.query_params.items() if name != "private_token"}
        page, headers = offset_page(items, reader, self.url, query)
        return JSONResponse([show(item) for item in page], headers=headers)


Handler = Callable[[Call], Response]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint. Without `scopes` no user token is read: the runner's side of the API checks its own tokens."""

    method: str
    path: str
    handler: Handler
    scopes: tuple[str, ...] = ()
    content_types: frozenset[str] = field(default=frozenset())


def routes(endpoints: Sequence[Endpoint], state: State) -> list[Route]:
    return [
        Route(BASE + endpoint.path, _as_asgi_endpoint(endpoint, state), methods=[endpoint.method])
        for endpoint in endpoints
    ]


def _as_asgi_endpoint(endpoint: Endpoint, state: State) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        body = await request.body() if endpoint.method in _WITH_BODY else b""
        path = {name: unquote(str(value)) for name, value in request.path_params.items()}
        caller = authenticate(state, request, endpoint.scopes) if endpoint.scopes else None
        params = query_params(request.url.query) | _read_body(endpoint, request, body) | path
        return endpoint.handler(Call(request, state, body, params, path, caller))

    return respond


def _read_body(endpoint: Endpoint, request: Request, body: bytes) -> dict[str, object]:
    content_type = request.headers.get("Content-Type", "")
    if endpoint.content_types:
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type not in endpoint.content_types:
            raise plain_error(415, f"The provided content-type '{media_type}' is not supported.")
        return {}
    return body_params(content_type, body)


async def on_api_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def on_http_error(_request: Request, error: Exception) -> Response:
    """Unknown routes and methods, in GitLab's words."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    body = {"error": "404 Not Found"} if status == 404 else dict(refused(status).body)  # noqa: PLR2004
    return JSONResponse(body, status_code=status, headers=headers)


async def on_crash(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"message": "500 Internal Server Error"}, status_code=500)


def created(body: Mapping[str, object]) -> Response:
    return JSONResponse(dict(body), status_code=201)


def no_content(headers: Mapping[str, str] | None = None) -> Response:
    return Response(status_code=204, headers=headers)
