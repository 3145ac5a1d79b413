"""What a job may ask of Nix, and how each request is read to its end."""

# ruff: noqa: INP001 - part of a program by itself, pushed to the hosts

from __future__ import annotations

from typing import TYPE_CHECKING

from wire import CHUNK, Peer, number, padding

NORMAL = 0
REPAIR = 1

# A field is read from the client to its end and handed to `out`, which passes it on or drops it.
if TYPE_CHECKING:
    from collections.abc import Callable

    Out = Callable[[bytes], None]
    Field = Callable[[Peer, Out], None]


def a_number(client: Peer, out: Out) -> None:
    out(client.exactly(8))


def no_repair(client: Peer, out: Out) -> None:
    """Whether to write again what is there already: the daemon deletes a path before it knows what comes in its place,
    and keeps that when the hash turns out to be wrong. Who asks so replaces any source, .drv or download of others.
    """
    client.number()
    out(number(0))


def a_mode(client: Peer, out: Out) -> None:
    """Of a build: normal, repair (as above) or check."""
    mode = client.number()
    out(number(NORMAL if mode == REPAIR else mode))


def a_text(client: Peer, out: Out) -> None:
    size = client.number()
    out(number(size))
    copy(client, out, size + padding(size))


def drop(_: bytes) -> None:
    pass


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
    7: ("AddToStore", (a_text, a_text, texts, no_repair, frames)),
    9: ("BuildPaths", (texts, a_mode)),
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
    36: ("BuildDerivation", (a_text, outputs, texts, a_text, a_text, texts, pairs, a_mode)),
    38: ("NarFromPath", (a_text,)),
    39: (
        "AddToStoreNar",
        (a_text, a_text, a_text, texts, a_number, a_number, a_number, texts, a_text, no_repair, a_number, frames),
    ),
    40: ("QueryMissing", (texts,)),
    41: ("QueryDerivationOutputMap", (a_text,)),
    43: ("QueryRealisation", (a_text,)),
    44: ("AddMultipleToStore", (no_repair, a_number, frames)),
    46: ("BuildPathsWithResults", (texts, a_mode)),
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
