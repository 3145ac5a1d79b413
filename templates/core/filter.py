"""The filter between the jobs and the daemon that trusts no client. It passes only the requests that building needs.

The untrusting daemon still collects garbage, optimises and verifies the store for any client. It also lets a client
raise its own limits. This program speaks the worker protocol with both sides. grammar.py has its operations, session.py
one connection, wire.py and archive.py its alphabet. Each value of a client's request is judged and written anew; no
byte of the request itself reaches the daemon. Both sides are held at protocol 1.37, however new their Nix is.

It runs as a user that owns nothing, holds no secret, and needs only Python's standard library (3.8 or newer).
"""

# ruff: noqa: INP001 - a program by itself, pushed to the hosts

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import struct
import sys
from pathlib import Path
from typing import NoReturn

from grammar import Limits
from session import STORE, Session, say
from tally import Tally
from wire import Hangup, Peer

LISTEN_FD = 3
# Connections without which a job cannot work.
FEW = 4
# Connections of unknown containers, all together. A job can make such ones by processes that end at once.
UNKNOWN = 16


def container_of(connection: socket.socket) -> str | None:
    """The id of the client's container, by the control group of its process. None when there is none to be read."""
    pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    try:
        return container_in(Path(f"/proc/{pid}/cgroup").read_text())
    except OSError:
        return None


def container_in(groups: str) -> str | None:
    """The outermost container of these groups. A job may give its own, inner groups any name."""
    found = re.search(r"(?:libpod-|docker[-/])([0-9a-f]{64})", groups)
    return found[1] if found else None


class Counters:
    """The receiver of a connection's numbers (counters.py). Connections work without it, too."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def introduce(self, container: str | None) -> int | None:
        """A pipe for the numbers of this container. The receiver has its other end and the id. None without a receiver.

        So the writer of the pipe has no say in the job that its numbers count for.
        """
        if not self._path or container is None:
            return None
        try:
            reader, writer = os.pipe()
        except OSError:
            return None
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", reader))]
        try:
            self._socket.sendmsg([container.encode()], rights, socket.MSG_DONTWAIT, self._path)
        except OSError:
            os.close(writer)
            return None
        finally:
            os.close(reader)
        return writer


def report(tally: Tally, daemon: str, pipe: int) -> None:
    with contextlib.suppress(Hangup, OSError):
        built, found, size = tally.settle(daemon)
        if built or found:
            os.write(pipe, json.dumps({"built": built, "found": found, "bytes": size}).encode())


class Server:
    """A process per connection, so that one that misbehaves ends alone."""

    def __init__(
        self,
        listener: socket.socket,
        daemon: str,
        limits: Limits,
        counters: Counters,
        *,
        per_job: int,
        total: int,
        store: bytes = STORE,
    ) -> None:
        self._listener = listener
        self._daemon = daemon
        self._limits = limits
        self._counters = counters
        self._per_job = per_job
        self._total = total
        self._store = store
        self._children: dict[int, str | None] = {}

    def run(self) -> NoReturn:
        while True:
            connection, _ = self._listener.accept()
            self._bury()
            self._serve(connection)
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        container = container_of(connection)
        mine = sum(other == container for other in self._children.values())
        if mine >= self._share(container):
            whose = "this container" if container else "nobody known"
            say(f"too many connections: {mine} of {whose}, {len(self._children)} in all")
            return
        pipe = self._counters.introduce(container)
        pid = os.fork()
        if pid == 0:
            self._child(connection, pipe)
        if pipe is not None:
            os.close(pipe)
        self._children[pid] = container

    def _share(self, container: str | None) -> int:
        """How many connections a container may have. The last quarter of all is for containers with few."""
        left = self._total - len(self._children)
        share = self._per_job if container else min(self._per_job, UNKNOWN)
        if left > self._total // 4:
            return share
        return min(share, FEW) if left else 0

    def _child(self, connection: socket.socket, pipe: int | None) -> NoReturn:
        self._listener.close()
        client = Peer(connection)
        upstream = socket.socket(socket.AF_UNIX)
        daemon = Peer(upstream)
        tally = Tally()
        try:
            with contextlib.suppress(Hangup, OSError):
                upstream.connect(self._daemon)
                Session(client, daemon, self._limits, tally, self._store).run()
            # The daemon ends the builds of a client that is gone.
            client.close()
            daemon.close()
            if pipe is not None:
                report(tally, self._daemon, pipe)
        finally:
            os._exit(0)

    def _bury(self) -> None:
        while self._children:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._children.pop(pid, None)


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--daemon", required=True, help="the untrusting daemon's socket")
    for name in ("max-jobs", "cores", "timeout", "max-silent"):
        parser.add_argument("--" + name, type=int, default=0, help="upper bound of what a client asks for; 0: none")
    parser.add_argument("--counters", default="", help="where the numbers of connections go; nothing: nowhere")
    parser.add_argument("--per-job", type=int, default=64, help="connections of one container at once")
    parser.add_argument("--total", type=int, default=512, help="connections at once")
    parser.add_argument("--store", default=STORE.decode(), help="the store's folder")
    said = parser.parse_args()
    if os.environ.get("LISTEN_FDS") != "1":
        sys.exit("systemd hands over no socket")
    limits = Limits(said.max_jobs, said.cores, said.timeout, said.max_silent)
    listener = socket.socket(fileno=LISTEN_FD)
    counters = Counters(said.counters)
    bounds = {"per_job": said.per_job, "total": said.total}
    Server(listener, said.daemon, limits, counters, store=said.store.encode(), **bounds).run()


if __name__ == "__main__":
    main()
