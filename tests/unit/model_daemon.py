"""A stand-in for the daemon's reading: as src/libstore/daemon.cc reads, and errs, and goes on reading where it was.

It is as strict as the real one where that is strict (whole numbers of 32 bits, zeros for padding, no request that it does
not know) and as careless where that is careless: an error after its work has begun keeps the connection, and what the
destructor of FramedSource cannot read it leaves. tests/contract/test_filter_agrees_nix.py holds the filter against the real one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.unit.protocol import (
    ADD_MULTIPLE,
    ADD_NAR,
    ADD_TO_STORE,
    CLIENT_MAGIC,
    DAEMON_MAGIC,
    ERROR,
    LAST,
    PASSED,
    QUERY_REALISATION,
    REFUSED,
    SET_OPTIONS,
    number,
    text,
)

WORD: Final = 2**32
# Longer announcements take its memory; here they end the test.
MAX_TEXT: Final = 2**28
ERR: Final = number(ERROR) + text("Error") + number(0) + text("Error") + text("no") + number(0) * 2

# n: a number of any size; i: one of 32 bits; s: a text; S: texts; P: pairs of texts.
LAYOUT: Final = {
    **dict.fromkeys((1, 6, 10, 11, 12, 21, 22, 26, 28, 29, 33, 38, 41, 42, 43), "s"),
    **dict.fromkeys((9, 46), "Sb"),
    **dict.fromkeys((32, 40), "S"),
    **dict.fromkeys((13, 14, 23, 34), ""),
    ADD_TO_STORE: "ssSn",
    SET_OPTIONS: "iiiiiiiiiiiiP",
    20: "iSnniii",
    30: "P",
    31: "Si",
    35: "nn",
    36: "sQSssSPb",
    37: "sS",
    ADD_NAR: "sssSnnnSsnn",
    ADD_MULTIPLE: "nn",
    45: "s",
    47: "ss",
}
FRAMED: Final = (ADD_TO_STORE, ADD_NAR, ADD_MULTIPLE, 45)
EARLY: Final = (*FRAMED, 42, QUERY_REALISATION)
METHODS: Final = (
    b"text:sha256",
    *(b"fixed:" + way + name for way in (b"", b"r:") for name in (b"md5", b"sha1", b"sha256", b"sha512")),
)
REPLIES: Final = {request.code: request.reply for request in (*PASSED, *REFUSED)}


class Err(Exception):
    """An error of the daemon's own making."""


@dataclass
class ModelDaemon:
    """Serves one connection; `errs` says at which places of its work it errs: "early", "before",
    "unread", "within" or "after"."""

    connection: socket.socket
    errs: Callable[[int], str] = lambda _: ""
    performed: list[int] = field(default_factory=list)

    def run(self) -> None:
        try:
            self._greet()
            while True:
                if not self._perform(self._word()):
                    return
        except (EOFError, OSError, Err):
            pass
        finally:
            self.connection.close()

    def _greet(self) -> None:
        assert self._number() == CLIENT_MAGIC
        self._send(number(DAEMON_MAGIC) + number(0x126))
        assert self._number() <= 0x125
        self._number(), self._number()
        self._send(text("2.26.3") + number(2) + number(LAST))

    def _perform(self, code: int) -> bool:
        """Whether the connection lives on."""
        if code not in LAYOUT:
            self._send(ERR)
            return False
        place = self.errs(code)
        if place == "early" and code in EARLY and code not in FRAMED:
            self._send(ERR)
            return True
        fields = [self._field(kind) for kind in LAYOUT[code]]
        self.performed.append(code)
        if code in FRAMED and not self._contents(code, fields, place):
            self._send(ERR)
            return True
        self._send(ERR if place == "after" and code not in FRAMED else number(LAST) + REPLIES.get(code, b""))
        return True

    def _contents(self, code: int, fields: list[object], place: str) -> bool:
        if place == "before" or (code == ADD_TO_STORE and fields[1] not in METHODS):
            return False
        if place == "unread":
            self._drain()
            return False
        try:
            while (size := self._word()) and place != "within":
                self._exactly(size)
        except Err:
            self._drain()
            return False
        if size:
            self._exactly(size)
            self._drain()
        return place not in ("within", "after")

    def _drain(self) -> None:
        """The destructor's: what cannot be read is left where it is."""
        try:
            while size := self._word():
                self._exactly(size)
        except Err:
            pass

    def _field(self, kind: str) -> object:
        match kind:
            case "n":
                return self._number()
            case "i" | "b":
                return self._word()
            case "s":
                return self._text()
            case "S":
                return [self._text() for _ in range(self._number())]
            case "P":
                return [(self._text(), self._text()) for _ in range(self._number())]
            case _:
                return [[self._text() for _ in range(4)] for _ in range(self._number())]

    def _number(self) -> int:
        return int.from_bytes(self._exactly(8), "little")

    def _word(self) -> int:
        value = self._number()
        if value >= WORD:
            raise Err
        return value

    def _text(self) -> bytes:
        size = self._number()
        assert size < MAX_TEXT, f"the daemon would take {size} bytes of memory"
        data = self._exactly(size)
        if self._exactly(-size % 8) != bytes(-size % 8):
            raise Err
        return data

    def _exactly(self, size: int) -> bytes:
        assert size < MAX_TEXT, f"the daemon would take {size} bytes of memory"
        pieces = []
        while size:
            piece = self.connection.recv(min(size, 1 << 20))
            if not piece:
                raise EOFError
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _send(self, data: bytes) -> None:
        self.connection.sendall(data)
