"""The open connections, so that a fault can close one without a reply, as a dying proxy does."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from starlette.types import Scope
from typing_extensions import override
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState


class Transports:
    """Open connections by their client's address and port."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], asyncio.Transport] = {}

    def hang_up(self, scope: Scope) -> None:
        """Close the connection of a request. Bytes that are already written still go out."""
        transport = self._open.get(scope["client"])
        if transport:
            transport.close()

    def protocol(self) -> type[asyncio.Protocol]:
        """A protocol class for uvicorn that registers its connections here. ASGI itself has no way to hang up."""
        known = self._open

        class Registered(H11Protocol):
            def __init__(
                self,
                config: Config,
                server_state: ServerState,
                app_state: dict[str, Any],
                _loop: asyncio.AbstractEventLoop | None = None,
            ) -> None:
                super().__init__(config, server_state, app_state, _loop)

            @override
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(cast("asyncio.Transport", transport))
                if self.client:
                    known[self.client] = self.transport

            @override
            def connection_lost(self, exc: Exception | None) -> None:
                if self.client:
                    known.pop(self.client, None)
                super().connection_lost(exc)

        return Registered
