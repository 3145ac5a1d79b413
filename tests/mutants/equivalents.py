"""Mutants that no test can notice, or that take no protection out: each with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TYPES: Final = "always so, for the type checker"
_COUNTS: Final = "counts: no protection; a client of the tests is in no container"
_COPIES: Final = "passes the same with more copies, or with fewer"

# (file, function, what stands there, what stands there instead): why.
EQUIVALENT: Final[Mapping[tuple[str, str, str, str], str]] = {
    ("wire.py", "Source._more", "raise NotImplementedError", "pass"): "each source has its own",
    ("wire.py", "Source.exactly", "end <= len(self._buffer)", "False"): _COPIES,
    ("wire.py", "Peer.move", 'size < SPLICED or sink.peer is None or not hasattr(os, "splice")', "True"): _COPIES,
    ("wire.py", "Peer.move", "size < SPLICED", "False"): _COPIES,
    ("wire.py", "Peer.move", "SPLICED", "(1 << 62)"): _COPIES,
    ("wire.py", "Peer.move", "sink.peer is None", "False"): _TYPES,
    ("wire.py", "Peer.move", "sink.flush()", "pass"): "the wait that follows sends it",
    ("wire.py", "Peer._splice", "min(size, PIPE)", "size"): "the system's pipe takes no more",
    ("wire.py", "Peer._splice", "PIPE", "(1 << 62)"): "the system's pipe takes no more",
    (
        "wire.py",
        "Frames.rest",
        "self._at < len(self._buffer)",
        "False",
    ): "begins with an empty buffer, or nobody hears it",
    ("wire.py", "Frames.rest", "RECEIVED", "(1 << 62)"): "a buffer has no more than was received at once",
    ("wire.py", "Sink.raw", "len(data) >= LARGE", "False"): _COPIES,
    ("wire.py", "Sink.raw", "LARGE", "(1 << 62)"): _COPIES,
    ("wire.py", "Sink.flush", "self._pending", "True"): "nothing is sent of nothing",
    ("wire.py", "Framer.raw", "self._pending", "True"): _COPIES,
    ("session.py", "Session.run", "raise", "pass"): "the run ends there as well",
    (
        "session.py",
        "Session._send",
        "listener.join()",
        "pass",
    ): "one of two; what it waits for ends at once in the tests",
    ("filter.py", "Counters.introduce", "not self._path", "False"): "nobody listens at no path",
    (
        "filter.py",
        "Server._serve",
        "pipe is not None",
        "False",
    ): _COUNTS,
    (
        "filter.py",
        "Server._serve",
        "os.close(pipe)",
        "pass",
    ): _COUNTS,
    (
        "filter.py",
        "Server._child",
        "pipe is not None",
        "False",
    ): _COUNTS,
    ("filter.py", "Server._child", "client.close()", "pass"): "the end of the process closes it, a little later",
    ("filter.py", "Server._child", "daemon.close()", "pass"): "the end of the process closes it, a little later",
    ("filter.py", "Server._child", "pipe is not None", "True"): _COUNTS,
    ("filter.py", "Server._child", "report(tally, self._daemon, pipe)", "pass"): _COUNTS,
    ("grammar.py", "asked.noted", "isinstance(value, bytes)", "True"): _TYPES,
    ("grammar.py", "added", "isinstance(method, bytes)", "True"): _TYPES,
    ("grammar.py", "operations", "whole((1 << 64) - 1)", "a_number"): "no number of the protocol is larger",
}
