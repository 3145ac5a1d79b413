"""Stands between the jobs and the daemon that trusts no client, and lets through only what building needs.

The untrusting daemon still collects garbage, optimises and verifies the store for anybody who asks, and lets a client
raise its own limits. This program speaks the worker protocol (Nix manual, "Serialization" of the store;
src/libstore/worker-protocol.hh and daemon.cc): it reads each request to its end, passes on those it knows to be
harmless, caps the limits in SetOptions, and refuses the rest. Both sides are held at protocol 1.37, so there is one
grammar to know whatever Nix the host and the job have; replies pass unread.

It runs as a user that owns nothing, holds no secret, and needs Python's standard library alone (3.9 or newer).
"""

# ruff: noqa: INP001 - a program by itself, pushed to the hosts

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

CLIENT_MAGIC = 0x6E697863
DAEMON_MAGIC = 0x6478696F
OLDEST = 32
NEWEST = 37
MAJOR = 1

STDERR_LAST = 0x616C7473
STDERR_ERROR = 0x63787470

CHUNK = 1 << 16
# Longest text that is kept in memory; everything longer is passed on in pieces or refused.
MAX_TEXT = 1 << 20
MAX_OVERRIDES = 1000
LISTEN_FD = 3

# What a job may set for its own builds; the daemon judges the values of the last two.
OVERRIDES = (b"timeout", b"max-silent-time", b"connect-timeout", b"poll-interval", b"substituters", b"builders")


class Hangup(Exception):
    """A side closed its end, or said what no Nix says."""


class Limits:
    """Upper bounds of what a client asks for; 0 means no bound of ours."""

    def __init__(self, max_jobs: int, cores: int, timeout: int, max_silent: int) -> None:
        self.max_jobs = max_jobs
        self.cores = cores
        self.timeout = timeout
        self.max_silent = max_silent


class Peer:
    """One end: whole numbers and byte strings as the protocol has them, little-endian and padded to eight bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self._at = 0

    def some(self, limit: int) -> bytes:
        """At least one byte, at most `limit`."""
        if self._at == len(self._buffer):
            self._buffer = self._connection.recv(CHUNK)
            self._at = 0
            if not self._buffer:
                raise Hangup("the other side has gone")
        piece = self._buffer[self._at : self._at + limit]
        self._at += len(piece)
        return piece

    def exactly(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self.some(size)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def number(self) -> int:
        return int(struct.unpack("<Q", self.exactly(8))[0])

    def text(self) -> bytes:
        size = self.number()
        if size > MAX_TEXT:
            raise Hangup(f"a text of {size} bytes")
        return self.exactly(size + padding(size))[:size]

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


def padding(size: int) -> int:
    return -size % 8


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: bytes) -> bytes:
    return number(len(value)) + value + b"\0" * padding(len(value))


# A field is read from the client to its end and handed to `out`, which passes it on or drops it.
Out = Callable[[bytes], None]
Field = Callable[[Peer, Out], None]


def a_number(client: Peer, out: Out) -> None:
    out(client.exactly(8))


def a_text(client: Peer, out: Out) -> None:
    size = client.number()
    out(number(size))
    copy(client, out, size + padding(size))


def texts(client: Peer, out: Out) -> None:
    repeat(client, out, (a_text,))


def pairs(client: Peer, out: Out) -> None:
    repeat(client, out, (a_text, a_text))


def outputs(client: Peer, out: Out) -> None:
    """Of a derivation: name, path, hash algorithm, hash."""
    repeat(client, out, (a_text, a_text, a_text, a_text))


def frames(client: Peer, out: Out) -> None:
    """Pieces with their lengths before them, ended by an empty one; not padded."""
    while True:
        size = client.number()
        out(number(size))
        if not size:
            return
        copy(client, out, size)


def repeat(client: Peer, out: Out, fields: tuple[Field, ...]) -> None:
    count = client.number()
    out(number(count))
    for _ in range(count):
        for field in fields:
            field(client, out)


def copy(client: Peer, out: Out, size: int) -> None:
    while size:
        piece = client.some(min(size, CHUNK))
        out(piece)
        size -= len(piece)


# Requests that building, evaluating and copying need, with their fields (protocol 1.32 to 1.37).
ALLOWED: dict[int, tuple[str, tuple[Field, ...]]] = {
    1: ("IsValidPath", (a_text,)),
    6: ("QueryReferrers", (a_text,)),
    7: ("AddToStore", (a_text, a_text, texts, a_number, frames)),
    9: ("BuildPaths", (texts, a_number)),
    10: ("EnsurePath", (a_text,)),
    11: ("AddTempRoot", (a_text,)),
    21: ("QuerySubstitutablePathInfo", (a_text,)),
    22: ("QueryDerivationOutputs", (a_text,)),
    23: ("QueryAllValidPaths", ()),
    26: ("QueryPathInfo", (a_text,)),
    28: ("QueryDerivationOutputNames", (a_text,)),
    29: ("QueryPathFromHashPart", (a_text,)),
    30: ("QuerySubstitutablePathInfos", (pairs,)),
    31: ("QueryValidPaths", (texts, a_number)),
    32: ("QuerySubstitutablePaths", (texts,)),
    33: ("QueryValidDerivers", (a_text,)),
    36: ("BuildDerivation", (a_text, outputs, texts, a_text, a_text, texts, pairs, a_number)),
    38: ("NarFromPath", (a_text,)),
    39: (
        "AddToStoreNar",
        (a_text, a_text, a_text, texts, a_number, a_number, a_number, texts, a_text, a_number, a_number, frames),
    ),
    40: ("QueryMissing", (texts,)),
    41: ("QueryDerivationOutputMap", (a_text,)),
    43: ("QueryRealisation", (a_text,)),
    44: ("AddMultipleToStore", (a_number, a_number, frames)),
    46: ("BuildPathsWithResults", (texts, a_number)),
}

# Read to their end, so that the client hears why and the connection lives on. Any other request ends the connection.
REFUSED: dict[int, tuple[str, tuple[Field, ...]]] = {
    14: ("FindRoots", ()),
    # Action, paths, whether live ones too, most to free; three numbers of no meaning.
    20: ("CollectGarbage", (a_number, texts, a_number, a_number, a_number, a_number, a_number)),
    34: ("OptimiseStore", ()),
    35: ("VerifyStore", (a_number, a_number)),
    37: ("AddSignatures", (a_text, texts)),
    # The daemon takes a realisation without looking at its signatures.
    42: ("RegisterDrvOutput", (a_text,)),
    45: ("AddBuildLog", (a_text, frames)),
    47: ("AddPermRoot", (a_text, a_text)),
}

# Done here, by doing nothing: a root in a container's file system means nothing on the host, where thousands of them
# would only slow the collector down. What jobs built is held by the daemon's own hook.
PRETENDED: dict[int, tuple[str, tuple[Field, ...], bytes]] = {
    12: ("AddIndirectRoot", (a_text,), number(1)),
    13: ("SyncWithGC", (), number(1)),
}

SET_OPTIONS = 19


def drop(_: bytes) -> None:
    pass


class Session:
    """One client and its connection to the daemon."""

    def __init__(self, client: Peer, daemon: Peer, limits: Limits) -> None:
        self._client = client
        self._daemon = daemon
        self._limits = limits

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
                self._client.send(self._daemon.some(CHUNK))
        except (Hangup, OSError):
            self._client.close()

    def _request(self, code: int) -> None:
        if code in ALLOWED:
            self._daemon.send(number(code))
            self._fields(ALLOWED[code][1], self._daemon.send)
        elif code == SET_OPTIONS:
            self._daemon.send(number(code) + self._options())
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
        for _ in range(count):
            name, value = self._client.text(), self._client.text()
            if name in OVERRIDES:
                kept.append(text(name) + text(self._override(name, value)))
        return b"".join(number(value) for value in values) + number(len(kept)) + b"".join(kept)

    def _override(self, name: bytes, value: bytes) -> bytes:
        limit = {b"timeout": self._limits.timeout, b"max-silent-time": self._limits.max_silent}.get(name)
        if limit is None or not value.isdigit():
            return value if limit is None else b"%d" % limit
        return b"%d" % at_most(int(value[:18]), limit)


def capped(version: int) -> int:
    major, minor = version >> 8, version & 0xFF
    if major != MAJOR or minor < OLDEST:
        raise Hangup(f"protocol {major}.{minor}")
    return major << 8 | min(minor, NEWEST)


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


class Server:
    """A process per connection: one that is made to misbehave takes no other along."""

    def __init__(self, listener: socket.socket, daemon: str, limits: Limits, per_job: int, total: int) -> None:
        self._listener = listener
        self._daemon = daemon
        self._limits = limits
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
        mine = [pid for pid, other in self._children.items() if other == peer]
        if len(mine) >= self._per_job or len(self._children) >= self._total:
            say(f"too many connections: {len(mine)} of this job, {len(self._children)} in all")
            return
        pid = os.fork()
        if pid == 0:
            self._child(connection)
        self._children[pid] = peer

    def _child(self, connection: socket.socket) -> NoReturn:
        self._listener.close()
        client = Peer(connection)
        upstream = socket.socket(socket.AF_UNIX)
        try:
            with contextlib.suppress(Hangup, OSError):
                upstream.connect(self._daemon)
                Session(client, Peer(upstream), self._limits).run()
        finally:
            # The daemon ends the builds of a client that has gone.
            client.close()
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
    parser.add_argument("--per-job", type=int, default=64, help="connections of one container at once")
    parser.add_argument("--total", type=int, default=512, help="connections at once")
    said = parser.parse_args()
    if os.environ.get("LISTEN_FDS") != "1":
        sys.exit("systemd hands over no socket")
    limits = Limits(said.max_jobs, said.cores, said.timeout, said.max_silent)
    listener = socket.socket(fileno=LISTEN_FD)
    Server(listener, said.daemon, limits, said.per_job, said.total).run()


if __name__ == "__main__":
    main()
