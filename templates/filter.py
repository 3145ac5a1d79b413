"""Stands between the jobs and the daemon that trusts no client, and lets through only what building needs.

The untrusting daemon still collects garbage, optimises and verifies the store for anybody who asks, and lets a client
raise its own limits. This program speaks the worker protocol (Nix manual, "Serialization" of the store;
src/libstore/worker-protocol.hh and daemon.cc): it reads each request to its end, passes on those it knows to be
harmless without the wish for "repair", caps the limits in SetOptions, and refuses the rest. Both sides are held at
protocol 1.37, so there is one grammar to know whatever Nix the host and the job have. Replies pass as they come;
tally.py reads along and counts.

It runs as a user that owns nothing, holds no secret, and needs Python's standard library alone (3.8 or newer).
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
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from grammar import ALLOWED, PRETENDED, REFUSED, SET_OPTIONS, a_number, drop
from tally import ASKING, MAX_REQUEST, Tally
from wire import (
    CHUNK,
    CLIENT_MAGIC,
    DAEMON_MAGIC,
    STDERR_ERROR,
    STDERR_LAST,
    Hangup,
    Peer,
    capped,
    number,
    text,
)

if TYPE_CHECKING:
    from grammar import Field, Out

MAX_OVERRIDES = 1000
# Of all settings of one request together, since they are held until the last is there.
MAX_SETTINGS = 1 << 20
LISTEN_FD = 3
# Connections that a job needs to work at all.
FEW = 4

# What a job may set for its own builds; the daemon judges the values of the last two.
OVERRIDES = (b"timeout", b"max-silent-time", b"connect-timeout", b"poll-interval", b"substituters", b"builders")


class Limits:
    """Upper bounds of what a client asks for; 0 means no bound of ours."""

    def __init__(self, max_jobs: int, cores: int, timeout: int, max_silent: int) -> None:
        self.max_jobs = max_jobs
        self.cores = cores
        self.timeout = timeout
        self.max_silent = max_silent


class Session:
    """One client and its connection to the daemon."""

    def __init__(self, client: Peer, daemon: Peer, limits: Limits, tally: Tally) -> None:
        self._client = client
        self._daemon = daemon
        self._limits = limits
        self._tally = tally

    def run(self) -> None:
        self._greet()
        threading.Thread(target=self._replies, daemon=True).start()
        while True:
            self._request(self._client.number())

    def _greet(self) -> None:
        if self._client.number() != CLIENT_MAGIC:
            raise Hangup("no Nix client")
        self._daemon.send(number(CLIENT_MAGIC))
        if self._daemon.number() != DAEMON_MAGIC:
            raise Hangup("no Nix daemon")
        self._client.send(number(DAEMON_MAGIC) + number(capped(self._daemon.number())))
        self._daemon.send(number(capped(self._client.number())))
        # Obsolete and still sent: a processor to run on, and whether to keep space in reserve.
        if self._client.number():
            self._client.number()
        self._daemon.send(number(0))
        a_number(self._client, self._daemon.send)

    def _replies(self) -> None:
        try:
            while True:
                piece = self._daemon.some(CHUNK)
                fresh = self._tally.is_fresh()
                self._client.send(piece)
                self._tally.replies(piece, fresh)
        except (Hangup, OSError):
            self._client.close()

    def _request(self, code: int) -> None:
        if code in ALLOWED:
            self._forward(code, ALLOWED[code][1])
        elif code == SET_OPTIONS:
            options = self._options()
            self._tally.forwarded()
            self._daemon.send(number(code) + options)
        elif code in PRETENDED:
            _, fields, reply = PRETENDED[code]
            self._fields(fields, drop)
            self._client.send(number(STDERR_LAST) + reply)
        elif code in REFUSED:
            self._fields(REFUSED[code][1], drop)
            self._refuse(REFUSED[code][0])
        else:
            self._refuse(f"request {code}")
            raise Hangup(f"request {code}")

    def _forward(self, code: int, fields: tuple[Field, ...]) -> None:
        heard = bytearray()

        def out(data: bytes) -> None:
            self._daemon.send(data)
            if code in ASKING and len(heard) < MAX_REQUEST:
                heard.extend(data)

        self._tally.forwarded()
        self._daemon.send(number(code))
        self._fields(fields, out)
        self._tally.asks(code, bytes(heard))

    def _fields(self, fields: tuple[Field, ...], out: Out) -> None:
        for field in fields:
            field(self._client, out)

    def _refuse(self, name: str) -> None:
        say(f"refused {name}")
        message = f"{name} is refused to jobs on this host (nixprov)"
        error = [text(b"Error"), number(0), text(b"Error"), text(message.encode()), number(0), number(0)]
        self._client.send(number(STDERR_ERROR) + b"".join(error))

    def _options(self) -> bytes:
        """SetOptions as the daemon may have it: limits no higher than ours, nothing kept, no setting that is not known.

        The numbers are keep-failed, keep-going, fallback, verbosity, max-jobs, max-silent-time, three of no meaning
        with the build log's level among them, one more, cores, substitute.
        """
        values = [self._client.number() for _ in range(12)]
        values[0] = 0
        values[4] = at_most(values[4], self._limits.max_jobs, zero_is_all=False)
        values[5] = at_most(values[5], self._limits.max_silent)
        values[10] = at_most(values[10], self._limits.cores)
        kept = []
        count = self._client.number()
        if count > MAX_OVERRIDES:
            raise Hangup(f"{count} settings")
        size = 0
        for _ in range(count):
            name, value = self._client.text(), self._client.text()
            size += len(name) + len(value)
            if size > MAX_SETTINGS:
                raise Hangup(f"settings of {size} bytes")
            if name in OVERRIDES:
                kept.append(text(name) + text(self._override(name, value)))
        return b"".join(number(value) for value in values) + number(len(kept)) + b"".join(kept)

    def _override(self, name: bytes, value: bytes) -> bytes:
        limit = {b"timeout": self._limits.timeout, b"max-silent-time": self._limits.max_silent}.get(name)
        if limit is None or not value.isdigit():
            return value if limit is None else b"%d" % limit
        return b"%d" % at_most(int(value[:18]), limit)


def at_most(value: int, limit: int, zero_is_all: bool = True) -> int:
    if not limit:
        return value
    if not value and zero_is_all:
        return limit
    return min(value, limit)


def say(line: str) -> None:
    # One write, so that lines of several processes do not mix.
    os.write(2, (line + "\n").encode())


def peer_of(connection: socket.socket) -> str | None:
    """The control group of the client's process, which is its container."""
    pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return None


def container_of(peer: str | None) -> str | None:
    """The id of the client's container: of the outermost, whatever a job may call a group of its own."""
    found = re.search(r"(?:libpod-|docker[-/])([0-9a-f]{64})", peer or "")
    return found[1] if found else None


class Counters:
    """Where the numbers of a connection go (counters.py): to be had or not, no connection depends on it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def introduce(self, container: str | None) -> int | None:
        """A pipe whose other end the receiver has with the container's id: what is written to it counts for that one.

        So whoever holds the pipe has no say for which job it counts.
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
    """A process per connection: one that is made to misbehave takes no other along."""

    def __init__(
        self, listener: socket.socket, daemon: str, limits: Limits, counters: Counters, *, per_job: int, total: int
    ) -> None:
        self._listener = listener
        self._daemon = daemon
        self._limits = limits
        self._counters = counters
        self._per_job = per_job
        self._total = total
        self._children: dict[int, str | None] = {}

    def run(self) -> NoReturn:
        while True:
            connection, _ = self._listener.accept()
            self._bury()
            self._serve(connection)
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        peer = peer_of(connection)
        mine = sum(other == peer for other in self._children.values())
        if mine >= self._share():
            say(f"too many connections: {mine} of this container, {len(self._children)} in all")
            return
        pipe = self._counters.introduce(container_of(peer))
        pid = os.fork()
        if pid == 0:
            self._child(connection, pipe)
        if pipe is not None:
            os.close(pipe)
        self._children[pid] = peer

    def _share(self) -> int:
        """Of one container. A job may start many, so the last quarter of all is for those that have few."""
        left = self._total - len(self._children)
        if left > self._total // 4:
            return self._per_job
        return min(self._per_job, FEW) if left else 0

    def _child(self, connection: socket.socket, pipe: int | None) -> NoReturn:
        self._listener.close()
        client = Peer(connection)
        upstream = socket.socket(socket.AF_UNIX)
        daemon = Peer(upstream)
        tally = Tally()
        try:
            with contextlib.suppress(Hangup, OSError):
                upstream.connect(self._daemon)
                Session(client, daemon, self._limits, tally).run()
            # The daemon ends the builds of a client that has gone.
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
    said = parser.parse_args()
    if os.environ.get("LISTEN_FDS") != "1":
        sys.exit("systemd hands over no socket")
    limits = Limits(said.max_jobs, said.cores, said.timeout, said.max_silent)
    listener = socket.socket(fileno=LISTEN_FD)
    counters = Counters(said.counters)
    Server(listener, said.daemon, limits, counters, per_job=said.per_job, total=said.total).run()


if __name__ == "__main__":
    main()
