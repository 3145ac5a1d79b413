"""The worker protocol's alphabet: numbers, texts, frames, and the two ends that speak it (Nix manual, "Serialization").

A source gives the bytes of one side in pieces, as they arrive; a sink writes to the other side. No announced number
decides how much memory is used. A text is read against a maximum, and longer contents pass in pieces.
"""

# ruff: noqa: INP001 - part of a program by itself, pushed to the hosts

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT_MAGIC = 0x6E697863
DAEMON_MAGIC = 0x6478696F
MAJOR = 1
# Minor versions that were compared with the source of Nix 2.4 to 2.36. A newer daemon is held at the newest one here.
OLDEST = 32
NEWEST = 37

STDERR_LAST = 0x616C7473
STDERR_ERROR = 0x63787470

NUMBER = 8
CHUNK = 1 << 16
RECEIVED = 1 << 18
PIPE = 1 << 16
SPLICED = 1 << 20
# No request has one of these numbers. So a daemon that takes a frame's length for a request ends the connection.
NO_REQUEST = 2
LARGE = 1 << 12
MAX_FRAME = (1 << 32) - 1


class Hangup(Exception):
    """A side closed its end, or broke the protocol."""


class Refused(Hangup):
    """A request that jobs may not make, or a value out of its bounds. The message is for the client."""


class Source:
    """Whole numbers and byte strings as the protocol has them: little-endian, padded with zeros to eight bytes."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0

    def _more(self) -> bytes:
        """The next bytes, at least one. Raises Hangup at the end."""
        raise NotImplementedError

    def some(self, limit: int) -> bytes:
        """At least one byte, at most `limit`."""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._more(), 0
        # A slice of the whole buffer is no copy.
        piece = self._buffer[self._at : self._at + limit]
        self._at += len(piece)
        return piece

    def exactly(self, size: int) -> bytes:
        end = self._at + size
        if end <= len(self._buffer):
            piece = self._buffer[self._at : end]
            self._at = end
            return piece
        pieces = []
        while size:
            piece = self.some(size)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def number(self) -> int:
        return int.from_bytes(self.exactly(NUMBER), "little")

    def text(self, maximum: int) -> bytes:
        """The next text. Raises Refused when it is longer than `maximum` or padded with anything but zeros."""
        size = self.number()
        if size > maximum:
            raise Refused(f"a text of {size} bytes")
        data = self.exactly(size)
        self.skip_padding(size)
        return data

    def skip_padding(self, size: int) -> None:
        pad = padding(size)
        if self.exactly(pad) != bytes(pad):
            raise Refused("padding that is not zero")

    def move(self, size: int, sink: Sink) -> None:
        """Pass bytes on unread, as they arrive."""
        while size:
            piece = self.some(size)
            size -= len(piece)
            sink.raw(piece)


class Peer(Source):
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._poll: select.poll | None = None
        self._before: Callable[[], None] | None = None

    def watch(self, other: Peer | None, before: Callable[[], None] | None = None) -> None:
        """Call `before` before each wait. A wait ends with Hangup when the `other` end is gone."""
        self._before = before
        self._poll = None
        if other is None:
            return
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLIN)
        self._poll.register(other._connection, select.POLLRDHUP)  # noqa: SLF001 - of the same class

    def move(self, size: int, sink: Sink) -> None:
        """Pass large contents on without a copy, where the system lends a pipe (splice(2), Python 3.10)."""
        if size < SPLICED or sink.peer is None or not hasattr(os, "splice"):
            super().move(size, sink)
            return
        # This is less than `size`: a buffer holds fewer bytes than are worth a pipe.
        buffered = len(self._buffer) - self._at
        super().move(buffered, sink)
        sink.flush()
        self._splice(size - buffered, sink.peer)

    def _splice(self, size: int, other: Peer) -> None:
        reader, writer = os.pipe()
        try:
            while size:
                self._wait()
                held = os.splice(self._connection.fileno(), writer, min(size, PIPE))
                if not held:
                    raise Hangup("this end has gone")
                size -= held
                while held:
                    held -= os.splice(reader, other._connection.fileno(), held)
        finally:
            os.close(reader)
            os.close(writer)

    def _wait(self) -> None:
        if self._before is not None:
            self._before()
        if self._poll is not None and self._connection.fileno() not in {fd for fd, _ in self._poll.poll()}:
            raise Hangup("the other end has gone")

    def _more(self) -> bytes:
        self._wait()
        data = self._connection.recv(RECEIVED)
        if not data:
            raise Hangup("this end has gone")
        return data

    def send(self, data: bytes | memoryview) -> None:
        self._connection.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


class Frames(Source):
    """A client's contents in frames: unpadded pieces with their lengths before them, ended by an empty one."""

    def __init__(self, client: Source) -> None:
        super().__init__()
        self._client = client
        self._left = 0
        self._ended = False

    def _more(self) -> bytes:
        if not self._is_open():
            raise Refused("contents that end too early")
        piece = self._client.some(self._left)
        self._left -= len(piece)
        return piece

    def _is_open(self) -> bool:
        """Whether this frame or the next one has more."""
        if not self._left and not self._ended:
            self._left = self._client.number()
            if self._left > MAX_FRAME:
                raise Refused(f"a frame of {self._left} bytes")
            self._ended = not self._left
        return not self._ended

    def rest(self) -> Iterator[bytes]:
        while self._at < len(self._buffer) or self._is_open():
            yield self.some(RECEIVED)

    def finish(self) -> None:
        """Raise Refused when there is more than was read."""
        if self._at < len(self._buffer) or self._is_open():
            raise Refused("contents that do not end where they should")


def _nothing(_: bytes) -> None:
    pass


class Sink:
    """Collects bytes for one side and sends them in few pieces.

    `peer` is that side, when the sink writes to it directly. `note` is called with each name that a client asks for.
    """

    def __init__(
        self, send: Callable[[bytes], None], note: Callable[[bytes], None] = _nothing, peer: Peer | None = None
    ) -> None:
        self._send = send
        self._pending = bytearray()
        self.note = note
        self.peer = peer

    def raw(self, data: bytes) -> None:
        if len(data) >= LARGE:
            self.flush()
            self._send(data)
            return
        self._pending += data
        if len(self._pending) >= CHUNK:
            self.flush()

    def number(self, value: int) -> None:
        self.raw(number(value))

    def text(self, value: bytes) -> None:
        self.raw(text(value))

    def flush(self) -> None:
        if self._pending:
            data, self._pending = bytes(self._pending), bytearray()
            self._send(data)


class Framer(Sink):
    """Frames of our own for the daemon: of 64 KiB but for the last ones, and always ended.

    After an error before the first frame, the daemon would read that frame's length as a request. So the first length
    is the number of no request (src/libstore/worker-protocol.hh, `Op`). A single byte of contents has no such length,
    and there the connection ends before anything follows.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__(send)
        self._has_begun = False
        self.has_ended = False

    def raw(self, data: bytes) -> None:
        start = 0
        if self._pending:
            start = CHUNK - len(self._pending)
            self._pending += data[:start]
            if len(self._pending) < CHUNK:
                return
            self._frame(bytes(self._pending))
            self._pending.clear()
        view = memoryview(data)
        while len(data) - start >= CHUNK:
            self._frame(view[start : start + CHUNK])
            start += CHUNK
        self._pending += view[start:]

    def flush(self) -> None:
        """Do nothing: an incomplete frame waits for the rest."""

    def end(self) -> None:
        last = bytes(self._pending)
        if not self._has_begun and NO_REQUEST < len(last) < LARGE:
            self._frame(last[:NO_REQUEST])
            last = last[NO_REQUEST:]
        if last:
            self._frame(last)
        # Set before the frame is sent, as the answer may come at once.
        self.has_ended = True
        self._send(number(0))

    def _frame(self, data: bytes | memoryview) -> None:
        self._has_begun = True
        self._send(b"".join((number(len(data)), data)))


class Nowhere(Sink):
    """A sink that drops everything."""

    def __init__(self) -> None:
        super().__init__(_nothing)

    def raw(self, data: bytes) -> None:
        pass


def padding(size: int) -> int:
    return -size % NUMBER


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: bytes) -> bytes:
    return number(len(value)) + value + bytes(padding(len(value)))


def capped(version: int) -> int:
    major, minor = version >> 8, version & 0xFF
    if major != MAJOR or minor < OLDEST:
        raise Hangup(f"protocol {major}.{minor}")
    return major << 8 | min(minor, NEWEST)
