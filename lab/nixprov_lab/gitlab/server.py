"""Serves the API on TCP and the control API on a unix socket, in one event loop, until stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from nixprov_lab.gitlab.app import LabGitLab
from nixprov_lab.gitlab.control import control_app
from nixprov_lab.gitlab.records import AccessToken
from nixprov_lab.gitlab.state import ROOT_ID, access_token_text

_ADMIN_SCOPES: Final = frozenset({"api"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The server's settings. Port 0 takes a free one. `token_file` is read when it exists, else written, 0600."""

    host: str
    port: int
    control_socket: Path
    token_file: Path
    calls: Path | None = None


class _Quiet(uvicorn.Server):
    """uvicorn without its own signal handling, since two servers share one process; `ready` once it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: ASGIApp, protocol: type[asyncio.Protocol] | str = "h11") -> _Quiet:
    # No access log: query strings may hold tokens, and the journal has more.
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        # uvicorn's date is up to a second old, and by another clock than the lab's.
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    return _Quiet(config)


def _listen_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only for a named protocol. With it on, a reply may wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen()
    return listener


def ensure_token(path: Path) -> str:
    """The administrator's token: the file's content, else a new one written with mode 0600 from the start."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    token = access_token_text()
    path.touch(mode=0o600, exist_ok=False)
    with path.open("w", encoding="utf-8") as file:
        file.write(token + "\n")
    return token


@dataclass(frozen=True, slots=True)
class Running:
    """A running server; `lab` are its parts, for tests in the same process."""

    url: str
    token: str
    control_socket: Path
    lab: LabGitLab


async def serve(settings: Settings, stop: asyncio.Event, on_ready: Callable[[Running], None] | None = None) -> None:
    """Serve until `stop` is set; the control socket answers only after the API does. Raises OSError."""
    lab = LabGitLab.journaled(settings.calls)
    token = ensure_token(settings.token_file)
    lab.state.add_token(AccessToken(token, lab.state.users[ROOT_ID], _ADMIN_SCOPES))
    with contextlib.ExitStack() as sockets:
        tcp = sockets.enter_context(_listen_tcp(settings.host, settings.port))
        url = f"http://{settings.host}:{tcp.getsockname()[1]}"
        api = _server(lab.api(), lab.transports.protocol())
        control = _server(control_app(lab, url))
        async with asyncio.TaskGroup() as group:
            group.create_task(api.serve(sockets=[tcp]))
            await api.ready.wait()
            unix = sockets.enter_context(_listen_unix(settings.control_socket))
            group.create_task(control.serve(sockets=[unix]))
            await control.ready.wait()
            if on_ready:
                on_ready(Running(url, token, settings.control_socket, lab))
            await stop.wait()
            api.should_exit = control.should_exit = True
    settings.control_socket.unlink(missing_ok=True)
