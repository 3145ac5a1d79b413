"""What one connection of a job came to: how many derivations were built for it, how many were there, how many bytes.

Two sources, neither of them the job's word: the requests that the filter passed on, and what the daemon says while it
works, which this reads along. Nothing that goes wrong here reaches the connection: what is passed on is passed on
before it comes here, and a stream that is not understood is counted no further.
"""

# ruff: noqa: INP001 - part of a program by itself, pushed to the hosts

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from wire import (
    CLIENT_MAGIC,
    DAEMON_MAGIC,
    MAX_TEXT,
    STDERR_ERROR,
    STDERR_LAST,
    Hangup,
    Peer,
    capped,
    number,
    padding,
    text,
)

STDERR_NEXT = 0x6F6C6D67
STDERR_START_ACTIVITY = 0x53545254
STDERR_STOP_ACTIVITY = 0x53544F50
STDERR_RESULT = 0x52534C54

# src/libutil/logging.hh: activities whose first field is the derivation or the path that they are about.
ACT_BUILD = 105
ACT_SUBSTITUTE = 108

# Requests that ask for paths by name (protocol 1.32 to 1.37).
BUILD_PATHS = 9
ENSURE_PATH = 10
QUERY_PATH_INFO = 26
BUILD_DERIVATION = 36
QUERY_OUTPUTS = 41
BUILD_PATHS_WITH_RESULTS = 46
ASKING = (BUILD_PATHS, ENSURE_PATH, BUILD_DERIVATION, BUILD_PATHS_WITH_RESULTS)

NUMBER = 8
MAX_REQUEST = 1 << 20
# Of one connection; what goes beyond is not counted.
MAX_NAMES = 10_000
ANSWER_S = 10.0

NO_VERSION = 33
NO_TRUST = 35

if TYPE_CHECKING:
    Reading = Generator[None, bytes, None]


class Lost(Exception):
    """The stream is not what it was taken for."""


class Tally:
    """Fed by two threads of one session; `settle` comes after both."""

    def __init__(self) -> None:
        self._asked: set[bytes] = set()
        self._built: set[bytes] = set()
        self._fetched: set[bytes] = set()
        self._fresh = False
        self._buffer = b""
        self._at = 0
        self._log: Reading | None = None

    def forwarded(self) -> None:
        """A request goes to the daemon: what comes from now on begins with the log of its work."""
        self._fresh = True

    def asks(self, code: int, fields: bytes) -> None:
        for name in names_in(code, fields):
            if len(self._asked) < MAX_NAMES:
                self._asked.add(name)

    def is_fresh(self) -> bool:
        """To be asked when something has come from the daemon, before the client has it and can ask for more."""
        fresh, self._fresh = self._fresh, False
        return fresh

    def replies(self, piece: bytes, fresh: bool) -> None:
        """Never raises. After a log comes a result, of which nothing is known but that a new log follows it."""
        if fresh:
            self._buffer, self._at = b"", 0
            self._log = self._messages()
            next(self._log)
        if self._log is None:
            return
        try:
            self._log.send(piece)
        except (StopIteration, Lost):
            self._log = None

    def _messages(self) -> Reading:
        while True:
            code = yield from self._number()
            if code in (STDERR_LAST, STDERR_ERROR):
                return
            if code == STDERR_NEXT:
                yield from self._text()
            elif code == STDERR_START_ACTIVITY:
                yield from self._activity()
            elif code == STDERR_STOP_ACTIVITY:
                yield from self._number()
            elif code == STDERR_RESULT:
                yield from self._number()
                yield from self._number()
                yield from self._fields()
            else:
                raise Lost

    def _activity(self) -> Reading:
        yield from self._number()
        yield from self._number()
        kind = yield from self._number()
        yield from self._text()
        fields = yield from self._fields()
        yield from self._number()
        names = {ACT_BUILD: self._built, ACT_SUBSTITUTE: self._fetched}.get(kind)
        if names is not None and fields and isinstance(fields[0], bytes) and len(names) < MAX_NAMES:
            names.add(fields[0])

    def _fields(self) -> Generator[None, bytes, list[int | bytes]]:
        fields: list[int | bytes] = []
        for _ in range((yield from self._number())):
            kind = yield from self._number()
            if kind not in (0, 1):
                raise Lost
            fields.append((yield from self._text()) if kind else (yield from self._number()))
        return fields

    def _text(self) -> Generator[None, bytes, bytes]:
        size = yield from self._number()
        if size > MAX_TEXT:
            raise Lost
        padded = size + padding(size)
        if len(self._buffer) - self._at < padded:
            yield from self._wait_for(padded)
        start, self._at = self._at, self._at + padded
        return self._buffer[start : start + size]

    def _number(self) -> Generator[None, bytes, int]:
        if len(self._buffer) - self._at < NUMBER:
            yield from self._wait_for(NUMBER)
        self._at += NUMBER
        return int.from_bytes(self._buffer[self._at - NUMBER : self._at], "little")

    def _wait_for(self, size: int) -> Reading:
        while len(self._buffer) - self._at < size:
            piece = yield
            self._buffer = self._buffer[self._at :] + piece
            self._at = 0

    def settle(self, daemon: str) -> tuple[int, int, int]:
        """(built, found, bytes). A build that was begun counts when its outputs are there. Raises Hangup, OSError."""
        begun = frozenset(self._built)
        others = [name for name in self._asked if derivation(name)[0] not in begun]
        if not begun and not others:
            return 0, 0, 0
        with contextlib.closing(Store(daemon)) as store:
            sizes = [store.size(drv) for drv in begun]
            built = [size for size in sizes if size is not None]
            found = sum(self._was_there(store, name) for name in others)
        return len(built), found, sum(built)

    def _was_there(self, store: Store, name: bytes) -> bool:
        paths = store.paths(*derivation(name))
        return (
            bool(paths)
            and not (self._fetched & set(paths))
            and all(store.path_size(path) is not None for path in paths)
        )


class Store:
    """Two questions to the daemon, as a client of its own; closed when it has answered."""

    def __init__(self, daemon: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_S)
        try:
            self._socket.connect(daemon)
            self._peer = Peer(self._socket)
            self._greet()
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def _greet(self) -> None:
        peer = self._peer
        peer.send(number(CLIENT_MAGIC))
        if peer.number() != DAEMON_MAGIC:
            raise Hangup("no Nix daemon")
        version = capped(peer.number())
        # And two things that are obsolete: a processor to run on, and whether to keep space in reserve.
        peer.send(number(version) + number(0) + number(0))
        if version & 0xFF >= NO_VERSION:
            peer.text()
        if version & 0xFF >= NO_TRUST:
            peer.number()
        self._wait()

    def _ask(self, code: int, name: bytes) -> bool:
        """Whether there is an answer: then it is next to be read."""
        self._peer.send(number(code) + text(name))
        return self._wait()

    def _wait(self) -> bool:
        """Past the log, to the result or the error."""
        peer = self._peer
        while True:
            code = peer.number()
            if code == STDERR_LAST:
                return True
            if code == STDERR_ERROR:
                self._error()
                return False
            if code != STDERR_NEXT:
                raise Hangup(f"message {code:x}")
            peer.text()

    def _error(self) -> None:
        peer = self._peer
        peer.text(), peer.number(), peer.text(), peer.text(), peer.number()
        for _ in range(peer.number()):
            peer.number(), peer.text()

    def paths(self, drv: bytes, outputs: bytes) -> list[bytes]:
        """The paths of a derivation's outputs (`*` or names with commas); without outputs, the path itself."""
        if not outputs:
            return [drv]
        if not self._ask(QUERY_OUTPUTS, drv):
            return []
        known = {}
        for _ in range(self._peer.number()):
            output = self._peer.text()
            known[output] = self._peer.text()
        wanted = known if outputs == b"*" else outputs.split(b",")
        return [known.get(output, b"") for output in wanted]

    def size(self, drv: bytes) -> int | None:
        """Bytes of all outputs as Nix counts them (of the archive that each would be); None: not all are there."""
        sizes = [self.path_size(path) for path in self.paths(drv, b"*")]
        known = [size for size in sizes if size is not None]
        return sum(known) if known and len(known) == len(sizes) else None

    def path_size(self, path: bytes) -> int | None:
        if not path or not self._ask(QUERY_PATH_INFO, path) or not self._peer.number():
            return None
        peer = self._peer
        # Deriver, hash, references, time; after the size: whether it was built here, signatures, content address.
        peer.text(), peer.text()
        self._texts()
        peer.number()
        size = peer.number()
        peer.number()
        self._texts()
        peer.text()
        return size

    def _texts(self) -> None:
        for _ in range(self._peer.number()):
            self._peer.text()


def names_in(code: int, fields: bytes) -> Iterable[bytes]:
    """What a request asks for; `fields` may be cut short."""
    at, count = (8, number_at(fields, 0)) if code in (BUILD_PATHS, BUILD_PATHS_WITH_RESULTS) else (0, 1)
    for _ in range(count):
        size = number_at(fields, at)
        name = fields[at + 8 : at + 8 + size]
        if not size or len(name) < size:
            return
        yield name + b"!*" if code == BUILD_DERIVATION else name
        at += 8 + size + padding(size)


def number_at(data: bytes, at: int) -> int:
    """0 where nothing is."""
    return int.from_bytes(data[at : at + 8], "little")


def derivation(name: bytes) -> tuple[bytes, bytes]:
    """A wanted thing as the protocol writes it, `DRV!OUTPUTS` or a path, as the two; no outputs: a path."""
    drv, _, outputs = name.partition(b"!")
    return drv, outputs
