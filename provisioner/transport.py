"""The transport of API calls: time-outs, repetitions, redirects, content types, bounded replies, the count of writes.

Shared by the clients of GitLab and GitHub. Sits below python-gitlab as a requests adapter. By itself python-gitlab
repeats a POST after 429 and cannot read a date in Retry-After. It follows redirects with the token in hand, and takes
any page for an answer.
"""

from __future__ import annotations

import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from typing_extensions import override

from provisioner import limits

SAFE: Final = frozenset({"GET", "HEAD"})
REPEATABLE: Final = frozenset({408, 500, 502, 503, 504})
TOO_MANY: Final = 429
NOT_MODIFIED: Final = 304
POOL_SIZE: Final = 32
# A host that swallows packets must not cost the whole time-out of a reply.
CONNECT_S: Final = 10.0
_CHUNK: Final = 1 << 16

_WORDS: Final = MappingProxyType(
    {
        "BadStatusLine": "the answer is not HTTP",
        "RemoteDisconnected": "the connection was closed without an answer",
        "IncompleteRead": "the answer was cut short",
    }
)


@dataclass(frozen=True, slots=True)
class Patience:
    """The time limits of one call: `first_wait_s` doubles with every repetition, `deadline_s` ends them."""

    repetitions: int = 3
    first_wait_s: float = 0.5
    deadline_s: float = 90.0
    sleep: Callable[[float], None] = time.sleep


class RedirectedError(requests.exceptions.RequestException):
    """`location` is without query and credentials."""

    def __init__(self, status: int, location: str) -> None:
        super().__init__(f"{status} to {location}")
        self.status = status
        self.location = location


class RateLimitedError(requests.exceptions.RequestException):
    """Still 429 after waiting, or a longer wait than our limit."""

    def __init__(self, wait_s: float | None) -> None:
        super().__init__("429" if wait_s is None else f"429, asks to wait {wait_s:.0f} s")


class NotJsonError(requests.exceptions.RequestException):
    """A success without a JSON body: a login page or a proxy, not GitLab's API."""

    def __init__(self, status: int, content_type: str) -> None:
        super().__init__(f"{status} with {content_type or 'no content type'} instead of JSON")


class TooLongReplyError(requests.exceptions.RequestException):
    """More than any call of ours gives, unpacked; its end is not waited for."""

    def __init__(self) -> None:
        super().__init__(f"more than {limits.told(limits.GITLAB_REPLY)}")


class Transport(HTTPAdapter):
    """Sends one request, again if that is harmless, and returns an answer that python-gitlab can trust.

    Raises requests' own exceptions and the four above; a 429 never gets out.
    """

    def __init__(self, patience: Patience) -> None:
        super().__init__(pool_maxsize=POOL_SIZE, pool_block=False, max_retries=0)
        self._patience = patience
        self._lock = threading.Lock()
        self._writes = 0

    @property
    def writes(self) -> int:
        return self._writes

    @override
    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        if not isinstance(timeout, (int, float)):
            raise TypeError("a call without a time-out waits for ever")
        timeouts = (min(timeout, CONNECT_S), timeout)
        # The one encoding that `_read` can unpack a piece at a time.
        request.headers["Accept-Encoding"] = "gzip"
        deadline = time.monotonic() + self._patience.deadline_s
        attempt = 0
        while True:
            try:
                response = super().send(request, True, timeouts, verify, cert, proxies)
                # Read here, so that a connection broken inside the body is repeated like any other.
                _read(response, time.monotonic() + self._patience.deadline_s)
            except requests.exceptions.RequestException as error:
                self._count(request, sent=not was_never_sent(error))
                wait_s = self._next_wait(attempt, deadline) if _may_repeat(request, error) else None
                if wait_s is None:
                    raise
            else:
                self._count(request, sent=response.status_code != TOO_MANY)
                wait_s = self._wait_after(request, response, attempt, deadline)
                if wait_s is None:
                    return _trusted(response)
                response.close()
            self._patience.sleep(wait_s)
            attempt += 1

    def _count(self, request: requests.PreparedRequest, *, sent: bool) -> None:
        if sent and request.method not in SAFE:
            with self._lock:
                self._writes += 1

    def _wait_after(
        self, request: requests.PreparedRequest, response: requests.Response, attempt: int, deadline: float
    ) -> float | None:
        """Seconds to wait before the same call again; None to take this answer. 429 means: not executed."""
        if response.status_code == TOO_MANY:
            asked = asked_wait(response.headers)
            wait_s = self._next_wait(attempt, deadline, asked)
            if wait_s is None:
                raise RateLimitedError(asked)
            return wait_s
        if response.status_code in REPEATABLE and request.method in SAFE:
            return self._next_wait(attempt, deadline, asked_wait(response.headers))
        return None

    def _next_wait(self, attempt: int, deadline: float, asked: float | None = None) -> float | None:
        wait_s = asked if asked is not None else self._patience.first_wait_s * 2**attempt
        too_late = time.monotonic() + wait_s > deadline
        return None if too_late or attempt >= self._patience.repetitions else wait_s


def _read(response: requests.Response, deadline: float) -> None:
    """Read the body, unpacked, piece by piece, within our limits of length and time."""
    try:
        with _as_requests_says():
            body = _body(response, deadline)
    except BaseException:
        response.raw.close()
        raise
    response.raw.release_conn()
    response._content, response._content_consumed = body, True  # type: ignore[attr-defined] # noqa: SLF001


def _body(response: requests.Response, deadline: float) -> bytes:
    parts, size = [], 0
    for part in _unpacked(response):
        size += len(part)
        if size > limits.GITLAB_REPLY:
            raise TooLongReplyError
        if time.monotonic() > deadline:
            raise requests.exceptions.ReadTimeout
        parts.append(part)
    return b"".join(parts)


@contextmanager
def _as_requests_says() -> Iterator[None]:
    """Map exceptions of urllib3 as requests itself does when it reads a body."""
    try:
        yield
    except urllib3.exceptions.ReadTimeoutError as error:
        raise requests.exceptions.ReadTimeout(error) from error
    except urllib3.exceptions.SSLError as error:
        raise requests.exceptions.SSLError(error) from error
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error
    except zlib.error as error:
        raise requests.exceptions.ContentDecodingError(error) from error


def _unpacked(response: requests.Response) -> Iterator[bytes]:
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip"):
        raise requests.exceptions.ContentDecodingError(f"an encoding that was not asked for: {coding}")
    pieces = iter(lambda: response.raw.read1(_CHUNK, decode_content=False), b"")
    if coding == "identity":
        yield from pieces
        return
    unpacker = zlib.decompressobj(wbits=31)
    for piece in pieces:
        if unpacker.eof:
            raise zlib.error("data after its end")
        yield unpacker.decompress(piece, _CHUNK)
        while unpacker.unconsumed_tail:
            yield unpacker.decompress(unpacker.unconsumed_tail, _CHUNK)


def _may_repeat(request: requests.PreparedRequest, error: requests.exceptions.RequestException) -> bool:
    passing = (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
    )
    lasting = requests.exceptions.SSLError
    return request.method in SAFE and isinstance(error, passing) and not isinstance(error, lasting)


def was_never_sent(error: Exception) -> bool:
    """Whether the connection itself failed, so that the server cannot have seen the request."""
    if isinstance(error, (requests.exceptions.ConnectTimeout, requests.exceptions.SSLError)):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))


def reason(error: BaseException) -> str:
    """The innermost cause in few words: `connection refused` instead of a chain of pools and retries."""
    if isinstance(error, (RateLimitedError, NotJsonError, TooLongReplyError)):
        return str(error)
    if isinstance(error, requests.exceptions.Timeout):
        return "timed out"
    causes = [error]
    while (inner := _inner(causes[-1])) is not None and inner not in causes:
        causes.append(inner)
    if isinstance(causes[-1], ssl.SSLCertVerificationError):
        return f"certificate: {causes[-1].verify_message}"
    if isinstance(causes[-1], ssl.SSLError) and causes[-1].reason:
        return f"TLS: {causes[-1].reason.replace('_', ' ').lower()}"
    said = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    name = type(causes[-1]).__name__
    return said[-1].lower() if said else _WORDS.get(name, name)


def _inner(error: BaseException) -> BaseException | None:
    candidates = (getattr(error, "reason", None), error.__cause__, *error.args, error.__context__)
    return next((one for one in candidates if isinstance(one, BaseException)), None)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """The wait in seconds that a reply asks for: Retry-After as number or date, else RateLimit-Reset; or None.

    Dates are read against the server's own Date, since its clock need not be ours (RFC 9110, section 10.2.3).
    """
    now = _date(headers.get("Date")) or datetime.now(UTC)
    after = headers.get("Retry-After", "").strip()
    if after.isdigit():
        return float(after)
    if moment := _date(after):
        return max((moment - now).total_seconds(), 0.0)
    reset = headers.get("RateLimit-Reset", "").strip()
    return max(float(reset) - now.timestamp(), 0.0) if reset.isdigit() else None


def _date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text) if text else None
    except (ValueError, TypeError):
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC) if moment else None


def _trusted(response: requests.Response) -> requests.Response:
    if 300 <= response.status_code < 400 and response.status_code != NOT_MODIFIED:  # noqa: PLR2004
        raise RedirectedError(response.status_code, _plain(response.headers.get("Location", "")))
    content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if response.ok and response.content and content_type != "application/json":
        raise NotJsonError(response.status_code, content_type)
    return response


def _plain(location: str) -> str:
    parts = urlsplit(location)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else parts.path or "nowhere"
