"""Sends a session of a job through the filter to a daemon, until all of it is read or the filter has ended it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from tally import Tally
from wire import Hangup, Peer

from tests.unit.ends import LIMITS, WAIT_S, Recorded
from tests.unit.protocol import GREETING


class Watched(Peer):
    """Tells how much came, and whether somebody waits for more."""

    is_waited_for = False
    received = 0

    def _more(self) -> bytes:
        self.is_waited_for = True
        data = super()._more()
        self.is_waited_for = False
        self.received += len(data)
        return data


def drive(parts: Sequence[bytes], daemon: socket.socket, store: bytes = b"/nix/store") -> list[int]:
    """The requests that the filter judged to be harmless, in order. Both ends are closed afterwards."""
    client, filters = socket.socketpair()
    peer = Watched(filters)
    session = Recorded(peer, Peer(daemon), LIMITS, Tally(), store)
    ended = threading.Event()
    data = GREETING + b"".join(parts)

    def serve() -> None:
        with suppress(Hangup, OSError):
            session.run()
        ended.set()
        filters.close()
        daemon.close()

    def send() -> None:
        with suppress(OSError):
            client.sendall(data)

    def hear() -> None:
        with suppress(OSError):
            while client.recv(1 << 16):
                pass

    threads = [threading.Thread(target=work, daemon=True) for work in (serve, send, hear)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + WAIT_S
    while not (ended.is_set() or (peer.received == len(data) and peer.is_waited_for)):
        assert time.monotonic() < deadline, "the session hangs"
        ended.wait(0.0005)
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(WAIT_S)
    client.close()
    return session.judged
