"""The numbers of one connection of a job: derivations built for it, their bytes, and wanted things already there.

It has two sources: the requests that the filter passed on, and the daemon's messages during its work. Neither is the
job's word. No error here reaches the connection.
"""

# ruff: noqa: INP001 - part of a program by itself, pushed to the hosts

from __future__ import annotations

import contextlib
import socket

from wire import (
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

STDERR_NEXT = 0x6F6C6D67

# Activities with their derivation or path as the first field (src/libutil/logging.hh).
ACT_BUILD = 105
ACT_SUBSTITUTE = 108

QUERY_PATH_INFO = 26
QUERY_OUTPUTS = 41

# Names of one connection; more are not counted.
MAX_NAMES = 10_000
# Longest text of the daemon itself.
MAX_TEXT = 1 << 20
ANSWER_S = 10.0

NO_VERSION = 33
NO_TRUST = 35


class Tally:
    """The counts of one session, which feeds it; `settle` is called after the session."""

    def __init__(self) -> None:
        self._asked: set[bytes] = set()
        self._built: set[bytes] = set()
        self._fetched: set[bytes] = set()

    def asks(self, name: bytes) -> None:
        """Note a derivation with outputs, or a path, that is asked for by name."""
        _add(self._asked, name)

    def began(self, kind: object, fields: object) -> None:
        """Note that the daemon began an activity."""
        names = {ACT_BUILD: self._built, ACT_SUBSTITUTE: self._fetched}.get(kind) if isinstance(kind, int) else None
        if names is not None and isinstance(fields, list) and fields and isinstance(fields[0], bytes):
            _add(names, fields[0])

    def settle(self, daemon: str) -> tuple[int, int, int]:
        """Return (built, found, bytes built). A begun build counts when its outputs exist. Raises Hangup, OSError."""
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
    """A client of the daemon with two questions; the connection is closed after the answers."""

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
        # And two obsolete values: a processor to run on, and whether to keep space in reserve.
        peer.send(number(version) + number(0) + number(0))
        if version & 0xFF >= NO_VERSION:
            peer.text(MAX_TEXT)
        if version & 0xFF >= NO_TRUST:
            peer.number()
        self._wait()

    def _ask(self, code: int, name: bytes) -> bool:
        """Ask; whether there is an answer, which is then next to be read."""
        self._peer.send(number(code) + text(name))
        return self._wait()

    def _wait(self) -> bool:
        """Skip the log, up to the result or the error."""
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
            peer.text(MAX_TEXT)

    def _error(self) -> None:
        peer = self._peer
        peer.text(MAX_TEXT), peer.number(), peer.text(MAX_TEXT), peer.text(MAX_TEXT), peer.number()
        for _ in range(peer.number()):
            peer.number(), peer.text(MAX_TEXT)

    def paths(self, drv: bytes, outputs: bytes) -> list[bytes]:
        """The paths of a derivation's outputs (`*` or names with commas); without outputs, the path itself."""
        if not outputs:
            return [drv]
        if not self._ask(QUERY_OUTPUTS, drv):
            return []
        known = {}
        for _ in range(self._peer.number()):
            output = self._peer.text(MAX_TEXT)
            known[output] = self._peer.text(MAX_TEXT)
        wanted = known if outputs == b"*" else outputs.split(b",")
        return [known.get(output, b"") for output in wanted]

    def size(self, drv: bytes) -> int | None:
        """Bytes of all outputs as Nix counts them (the size of their archives). None when not all outputs exist."""
        sizes = [self.path_size(path) for path in self.paths(drv, b"*")]
        known = [size for size in sizes if size is not None]
        return sum(known) if known and len(known) == len(sizes) else None

    def path_size(self, path: bytes) -> int | None:
        if not path or not self._ask(QUERY_PATH_INFO, path) or not self._peer.number():
            return None
        peer = self._peer
        # Deriver, hash, references, time; after the size: whether it was built here, signatures, content address.
        peer.text(MAX_TEXT), peer.text(MAX_TEXT)
        self._texts()
        peer.number()
        size = peer.number()
        peer.number()
        self._texts()
        peer.text(MAX_TEXT)
        return size

    def _texts(self) -> None:
        for _ in range(self._peer.number()):
            self._peer.text(MAX_TEXT)


def derivation(name: bytes) -> tuple[bytes, bytes]:
    """Split the protocol's name of a wanted thing, `DRV!OUTPUTS` or a path. A path has no outputs."""
    drv, _, outputs = name.partition(b"!")
    return drv, outputs


def _add(names: set[bytes], name: bytes) -> None:
    if len(names) < MAX_NAMES:
        names.add(name)
