"""The worker protocol's alphabet: numbers, texts, and what both ends say first (Nix manual, "Serialization")."""

# ruff: noqa: INP001 - part of a program by itself, pushed to the hosts

from __future__ import annotations

import contextlib
import socket
import struct

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


class Hangup(Exception):
    """A side closed its end, or said what no Nix says."""


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


def capped(version: int) -> int:
    major, minor = version >> 8, version & 0xFF
    if major != MAJOR or minor < OLDEST:
        raise Hangup(f"protocol {major}.{minor}")
    return major << 8 | min(minor, NEWEST)
