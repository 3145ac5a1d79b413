"""One HTTP request to GitLab with gitlab-runner's repetitions (its network/client.go and retry_requester.go).

Proxies from the environment are not used: the lab has none.
"""

from __future__ import annotations

import email.utils
import http.client
import random
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from .identity import user_agent

ATTEMPTS: Final = 5
_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
_ALWAYS_RETRIED_FROM: Final = 512
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 60.0
_HEADER_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True)
class Reply:
    """A reply, with header names in lower case. Status 0: no reply, for the reason in `problem`."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    problem: str = ""

    @property
    def is_json(self) -> bool:
        return self.headers.get("content-type", "").split(";")[0].strip() == "application/json"

    @property
    def text(self) -> str:
        return self.problem or f"{self.status} {_phrase(self.status)}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown"


class Http:
    """Requests below `url`/api/v4/, each on its own connection."""

    def __init__(self, url: str, ca_file: str = "") -> None:
        parts = urlsplit(url.rstrip("/").removesuffix("/ci"))
        self._https = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._base = f"{parts.path}/api/v4/"
        self._ca_file = ca_file
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, stoppable: bool = False
    ) -> Reply:
        """Send a request, up to five times; not again after a connection error. `stop` ends a stoppable one."""
        pause = _FIRST_PAUSE_S
        everything = {"User-Agent": user_agent(), "X-Request-Id": uuid.uuid4().hex, **headers}
        for attempt in range(1, ATTEMPTS + 1):
            reply = self._once(method, path, body, everything, stoppable=stoppable)
            again = reply.status in _RETRIED or reply.status >= _ALWAYS_RETRIED_FROM
            if not again or attempt == ATTEMPTS:
                return reply
            if not self._sleep(_asked_pause(reply) or pause * random.uniform(0.5, 1.0), stoppable=stoppable):  # noqa: S311
                return Reply(0, problem="context canceled")
            pause = min(pause * 2, _LONGEST_PAUSE_S)
        raise AssertionError

    def stop(self) -> None:
        """Break off the stoppable requests; later ones fail at once."""
        self._stopped.set()
        with self._lock:
            for connection in self._open:
                if connection.sock:
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _sleep(self, seconds: float, *, stoppable: bool) -> bool:
        if stoppable:
            return not self._stopped.wait(seconds)
        time.sleep(seconds)
        return True

    def _once(self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, stoppable: bool) -> Reply:
        connection = self._connection()
        if stoppable:
            with self._lock:
                self._open.add(connection)
        try:
            if stoppable and self._stopped.is_set():
                return Reply(0, problem="context canceled")
            connection.request(method, self._base + path, body, dict(headers))
            response = connection.getresponse()
            found = {name.lower(): text for name, text in response.getheaders()}
            return Reply(response.status, found, response.read())
        except (OSError, http.client.HTTPException) as error:
            return Reply(0, problem=f"couldn't execute {method} against {path.split('?', maxsplit=1)[0]}: {error}")
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if not self._https:
            return http.client.HTTPConnection(self._host, self._port, timeout=_HEADER_TIMEOUT_S)
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._ca_file:
            context.load_verify_locations(self._ca_file)
        return http.client.HTTPSConnection(self._host, self._port, timeout=_HEADER_TIMEOUT_S, context=context)


def _asked_pause(reply: Reply) -> float:
    """Seconds GitLab asks for: a date in RateLimit-ResetTime, else whole seconds in Retry-After, else 0."""
    reset = reply.headers.get("ratelimit-resettime", "")
    if reset:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(reset).timestamp() - time.time())
        except ValueError:
            pass
    text = reply.headers.get("retry-after", "")
    return float(text) if text.isdigit() else 0.0
