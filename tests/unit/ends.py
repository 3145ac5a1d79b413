"""Both ends of one session of the filter, held by a test."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from grammar import Limits, Operation
from session import Session
from tally import Tally
from wire import Hangup, Peer

from tests.unit.protocol import CLIENT_MAGIC, DAEMON_MAGIC, ERROR, LAST, PATH, VALID_PATH, number, text

# Shorter where many filters are tried that are known to be wrong (tests/mutants).
WAIT_S = float(os.environ.get("NIXPROV_FILTER_WAIT_S", "20"))
LIMITS = Limits(max_jobs=0, cores=0, timeout=0, max_silent=0)
NEWEST = 0x125


class Recorded(Session):
    """Keeps which requests it passes on."""

    def __init__(self, client: Peer, daemon: Peer, limits: Limits, tally: Tally, store: bytes = b"/nix/store") -> None:
        super().__init__(client, daemon, limits, tally, store)
        self.judged: list[int] = []

    def _pass(self, code: int, operation: Operation) -> None:
        self.judged.append(code)
        super()._pass(code, operation)


@dataclass
class Ends:
    """The client's and the daemon's side."""

    client: socket.socket
    daemon: socket.socket
    session: Recorded
    thread: threading.Thread
    senders: list[threading.Thread] = field(default_factory=list)

    def say(self, data: bytes) -> None:
        """From the client; in a thread of its own where it is much, since nobody may read it."""
        self._from(self.client, data)

    def answer(self, data: bytes) -> None:
        self._from(self.daemon, data)

    def _from(self, end: socket.socket, data: bytes) -> None:
        def send() -> None:
            with suppress(OSError):
                end.sendall(data)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        self.senders.append(sender)
        if len(data) < 1 << 12:
            sender.join()

    def told(self, size: int) -> bytes:
        """The next bytes that the daemon has. Raises EOFError when the connection ends before."""
        return _exactly(self.daemon, size)

    def heard(self, size: int) -> bytes:
        return _exactly(self.client, size)

    def greet(self, client: int = NEWEST, daemon: int = NEWEST) -> tuple[int, int]:
        """The versions that the client and the daemon see."""
        self.say(number(CLIENT_MAGIC))
        assert self.told(8) == number(CLIENT_MAGIC)
        self.answer(number(DAEMON_MAGIC) + number(daemon))
        assert self.heard(8) == number(DAEMON_MAGIC)
        (seen,) = struct.unpack("<Q", self.heard(8))
        self.say(number(client) + number(0) + number(0))
        (shown,) = struct.unpack("<Q", self.told(8))
        assert self.told(16) == number(0) * 2
        minor = shown & 0xFF
        said = (text("2.26.3") if minor >= 33 else b"") + (number(2) if minor >= 35 else b"") + number(LAST)
        self.answer(said)
        assert self.heard(len(said)) == said
        return seen, shown

    def is_alive(self) -> bool:
        """A question and its answer pass."""
        question = number(VALID_PATH) + text(PATH)
        self.say(question)
        assert self.told(len(question)) == question
        self.answer(number(LAST) + number(1))
        return self.heard(16) == number(LAST) + number(1)

    def is_refused(self) -> str:
        """The client hears why, nothing more comes to the daemon, and the connection ends."""
        reason = self.hears_error()
        assert self.client_hears_the_end()
        self.daemon_hears_the_end()
        return reason

    def hears_error(self) -> str:
        assert self.heard(8) == number(ERROR)
        assert self.heard(40) == text("Error") + number(0) + text("Error")
        (size,) = struct.unpack("<Q", self.heard(8))
        message = self.heard(size + -size % 8)[:size].decode()
        assert self.heard(16) == number(0) * 2
        return message

    def client_hears_the_end(self) -> bool:
        return _rest(self.client) == b""

    def daemon_hears_the_end(self) -> bytes:
        """What it had until then."""
        return _rest(self.daemon)


def _exactly(end: socket.socket, size: int) -> bytes:
    pieces: list[bytes] = []
    while size:
        piece = end.recv(min(size, 1 << 20))
        if not piece:
            raise EOFError(f"ended after {b''.join(pieces)[-200:]!r}")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _rest(end: socket.socket) -> bytes:
    pieces: list[bytes] = []
    with suppress(ConnectionResetError):
        while piece := end.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


@contextmanager
def ends_of(limits: Limits = LIMITS, tally: Tally | None = None) -> Iterator[Ends]:
    client, filters_client = socket.socketpair()
    daemon, filters_daemon = socket.socketpair()
    session = Recorded(Peer(filters_client), Peer(filters_daemon), limits, tally or Tally())

    def run() -> None:
        with suppress(Hangup, OSError):
            session.run()
        # As the end of its process does.
        filters_client.close()
        filters_daemon.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    for end in (client, daemon):
        end.settimeout(WAIT_S)
    ends = Ends(client, daemon, session, thread)
    try:
        yield ends
    finally:
        for end in (client, daemon):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        thread.join(WAIT_S)
        assert not thread.is_alive()
        for sender in ends.senders:
            sender.join(WAIT_S)
