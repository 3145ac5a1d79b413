"""The worker protocol as a client writes it, told apart from the filter's own table: good values of each field, and bad.

Source: src/libstore/remote-store.cc and worker-protocol.cc of Nix (`Serialise`). A request is a list of field kinds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

CLIENT_MAGIC: Final = 0x6E697863
DAEMON_MAGIC: Final = 0x6478696F
LAST: Final = 0x616C7473
ERROR: Final = 0x63787470
NEXT: Final = 0x6F6C6D67
START: Final = 0x53545254
STOP: Final = 0x53544F50
RESULT: Final = 0x52534C54
BUILD: Final = 105


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return number(len(data)) + data + b"\0" * (-len(data) % 8)


def texts(*values: str | bytes) -> bytes:
    return number(len(values)) + b"".join(map(text, values))


def frames(*pieces: bytes) -> bytes:
    return b"".join(number(len(piece)) + piece for piece in pieces if piece) + number(0)


def node(*words: str | bytes) -> bytes:
    return b"".join(map(text, ("(", "type", *words)))


def file(contents: bytes = b"contents", *, executable: bool = False) -> bytes:
    return node("regular", *(("executable", "") if executable else ()), "contents", contents, ")")


def link(target: str | bytes) -> bytes:
    return node("symlink", "target", target, ")")


def folder(**entries: bytes) -> bytes:
    return entries_of([(name.encode(), entry) for name, entry in entries.items()])


def entries_of(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    inner = [text("entry") + text("(") + text("name") + text(n) + text("node") + e + text(")") for n, e in entries]
    return node("directory") + b"".join(inner) + text(")")


def nested(levels: int) -> bytes:
    found = file(b"")
    for _ in range(levels):
        found = folder(d=found)
    return found


def nar(root: bytes) -> bytes:
    return text("nix-archive-1") + root


GREETING: Final = number(CLIENT_MAGIC) + number(0x125) + number(0) * 2
PATH: Final = "/nix/store/" + "0123456789abcdfghijklmnpqrsvwxyz" + "-x"
DRV: Final = "/nix/store/" + "z" * 32 + "-y.drv"
HASH: Final = "0a" * 32
ADDRESS: Final = "fixed:r:sha256:" + "0" * 52
TOO_LONG: Final = number(2**63)
DIRTY: Final = number(3) + b"abc\0\0\0\0\1"
MANY: Final = number(2**18 + 1)

LARGEST_NAME: Final = 4095
BAD_FREE: Final = (TOO_LONG, number(2**64 - 1), DIRTY)
BAD_TEXTS: Final = (*BAD_FREE, number(LARGEST_NAME + 1))
BAD_PATHS: Final = (
    *BAD_TEXTS,
    *map(
        text,
        (
            *("/etc/passwd", "x", "/nix/store", "/nix/store/" + "0" * 32, PATH + "/bin/sh", PATH + "\n", PATH + "\0"),
            *(PATH.replace("b", "e"), PATH.replace("0123", "012"), PATH.replace("/nix/", "/nux/"), PATH + "é"),
            "/nix/store/" + "0" * 32 + "-" + "n" * 212,
        ),
    ),
)


@dataclass(frozen=True)
class Kind:
    """What a field may be on the wire: (as sent, as the daemon has it), and values that no job may send."""

    good: tuple[tuple[bytes, bytes], ...]
    bad: tuple[bytes, ...]


def same(*values: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((value, value) for value in values)


def listed(kind: Kind, maximum: int, many: int = 2) -> Kind:
    """A list of it: with none, one, several, and with a bad one after a good one."""
    good = [(number(0), number(0)), *((number(1) + sent, number(1) + had) for sent, had in kind.good)]
    sent, had = kind.good[0]
    good.append((number(many) + sent * many, number(many) + had * many))
    bad = [number(maximum + 1), number(2**64 - 1), *(number(2) + sent + value for value in kind.bad)]
    return Kind(tuple(good), tuple(bad))


def sequence(*kinds: Kind) -> Kind:
    """One after another: bad when one of them is."""
    sent = [kind.good[0][0] for kind in kinds]
    had = [kind.good[0][1] for kind in kinds]
    good = [
        (b"".join([*sent[:at], value, *sent[at + 1 :]]), b"".join([*had[:at], passed, *had[at + 1 :]]))
        for at, kind in enumerate(kinds)
        for value, passed in kind.good
    ]
    bad = [b"".join([*sent[:at], value]) for at, kind in enumerate(kinds) for value in kind.bad]
    return Kind(tuple(dict.fromkeys(good)), tuple(bad))


FLAG: Final = Kind(same(number(0), number(1)), (number(2), number(2**63)))
DENIED: Final = Kind(((number(0), number(0)), (number(1), number(0))), FLAG.bad)
MODE: Final = Kind(((number(0), number(0)), (number(1), number(0)), (number(2), number(2))), (number(3), number(2**32)))
WORD: Final = Kind(same(number(0), number(2**32 - 1)), (number(2**32), number(2**64 - 1)))
LEVEL: Final = Kind(same(number(0), number(7)), (number(8), number(2**32)))
SIZE: Final = Kind(same(number(0), number(2**40)), (number(2**40 + 1), number(2**64 - 1)))
ANY_NUMBER: Final = Kind(same(number(0), number(2**64 - 1)), ())
A_PATH: Final = Kind(same(text(PATH), text("/nix/store/" + "0" * 32 + "-" + "n" * 211)), (*BAD_PATHS, text("")))
A_DRV: Final = Kind(
    same(text(DRV)), (*BAD_PATHS, *map(text, ("", PATH, DRV + "x", "/nix/store/" + "0" * 32 + "-.drv")))
)
PATH_OR_NONE: Final = Kind(same(text(PATH), text("")), BAD_PATHS)
PATHS: Final = listed(A_PATH, 2**18)
A_WISH: Final = Kind(
    same(*map(text, (PATH, DRV + "!*", DRV + "!out", DRV + "!out,dev", DRV + "!out!*", DRV + "!o!o!o!o"))),
    (*BAD_PATHS, *map(text, ("", DRV + "!", DRV + "!,", DRV + "!a b", DRV + "!*,x", DRV + "!o!o!o!o!o"))),
)
WISHES: Final = listed(A_WISH, 2**18)
A_NAME: Final = Kind(
    same(text("x"), text("aZ09+-._?="), text("n" * 211)),
    (*BAD_TEXTS, *map(text, ("", "a/b", "..\0", "a b", "é", "n" * 212))),
)
METHOD: Final = Kind(
    same(*map(text, ("fixed:sha256", "text:sha256", "fixed:md5", "fixed:sha1", "fixed:sha512"))),
    (
        *BAD_TEXTS,
        *map(text, ("", "nonsense", "text:sha512", "fixed:blake3", "fixed:r:blake3", "fixed:git:sha1", "sha256")),
    ),
)
METHOD_OF_ARCHIVE: Final = Kind(same(text("fixed:r:sha256"), text("fixed:r:sha1")), METHOD.bad)
A_HASH: Final = Kind(same(text(HASH)), (*BAD_TEXTS, *map(text, ("", HASH[1:], HASH + "0", "g" * 64, "A" * 64))))
ADDRESS_OR_NONE: Final = Kind(
    same(text(ADDRESS), text(""), text("text:sha256:" + "0" * 52), text("fixed:md5:" + "0" * 26)),
    (
        *BAD_TEXTS,
        *map(text, ("x", "fixed:git:sha1:" + "0" * 32, "fixed:blake3:" + "0" * 52, ADDRESS[:40], ADDRESS[:-1] + "A")),
        *map(text, ("nar:sha256:" + "0" * 52, ADDRESS + "0" * 52)),
    ),
)
SIGNATURE: Final = Kind(
    same(text("key:c2ln==")),
    (*BAD_TEXTS, *map(text, ("", "key", "a b:c", "k:a b", "k" * 256 + ":s", "k:" + "s" * 256, ":s", "k:"))),
)
SIGNATURES: Final = listed(SIGNATURE, 2**8)
PART: Final = Kind(same(text("0" * 32)), (*BAD_TEXTS, *map(text, ("", "0" * 31, "0" * 33, "e" * 32))))
REALISATION: Final = Kind(
    same(text(f"sha256:{HASH}!out")),
    (
        *BAD_TEXTS,
        *map(text, ("", f"sha1:{HASH}!out", f"sha256:{HASH}!", HASH, f"sha256:{HASH[1:]}!out")),
        *map(text, (f"sha256:{'g' * 64}!out", f"sha256:{HASH}!a b")),
    ),
)


def free(maximum: int) -> Kind:
    """Any bytes, up to so many."""
    return Kind(same(text(""), text(b"\0\xff\n"), text(b"x" * 9)), (*BAD_FREE, number(maximum + 1)))


DERIVATION: Final = sequence(
    listed(
        sequence(
            A_NAME,
            PATH_OR_NONE,
            Kind(
                same(*map(text, ("r:sha256", "", "sha1", "text:sha256"))), (*BAD_TEXTS, *map(text, ("x:", "git:sha1")))
            ),
            Kind(same(*map(text, (HASH, "", "impure"))), (*BAD_TEXTS, *map(text, ("0" * 25, "0" * 129, "A" * 64)))),
        ),
        2**12,
    ),
    PATHS,
    Kind(same(text("x86_64-linux"), text("builtin")), (*BAD_TEXTS, *map(text, ("", "a b", "p" * 65)))),
    free(LARGEST_NAME),
    listed(free(2**20), 2**12),
    listed(sequence(free(LARGEST_NAME), free(2**23)), 2**12),
)
INFO: Final = (A_PATH, PATH_OR_NONE, A_HASH, PATHS, WORD, SIZE, DENIED, SIGNATURES, ADDRESS_OR_NONE)
ARCHIVES: Final = Kind(
    same(
        *map(
            nar,
            (
                *(file(), file(b""), file(b"x" * 70_001, executable=True), link("../else"), link("t" * 4095)),
                *(
                    folder(),
                    folder(a=file(), b=link("a"), c=folder(d=file())),
                    nested(63),
                    folder(**{"n" * 255: file()}),
                ),
                node("regular", ")"),
                node("regular", "executable", "", ")"),
            ),
        )
    ),
    (
        *(TOO_LONG, number(33), text("nix-archive-2"), nar(file()) + b"\0", nar(file()) * 2),
        *(nar(nested(64)), nar(nested(2000)), nar(link("")), nar(link(b"a\0")), nar(link("t" * 4096))),
        *(nar(entries_of([(name, file())])) for name in (b"", b".", b"..", b"a/b", b"a\0", b"n" * 256)),
        *(nar(node(word)) for word in ("socket", "")),
        *(nar(node("regular", word)) for word in ("other", "Contents")),
        nar(node("regular", "executable", "", "other")),
        nar(node("regular", "executable", "", "executable")),
        nar(node("regular", "executable", "x", "contents", "", ")")),
        nar(node("regular", "contents") + number(2**40 + 1)),
        nar(node("regular", "contents") + DIRTY + text(")")),
        nar(text("[") + text("type")),
        nar(text("(") + text("tape") + text("regular") + text(")")),
        nar(node("regular", "contents", "x", "]")),
        nar(node("directory") + text("entry") + text("[")),
        nar(node("directory") + text("entry") + text("(") + text("nome")),
        nar(node("directory") + text("entry") + text("(") + text("name") + text("a") + text("nude")),
        nar(
            node("directory") + text("entry") + text("(") + text("name") + text("a") + text("node") + file() + text("]")
        ),
        nar(node("directory") + b"".join(map(text, ("entry", "(", "name", "a", "node"))) + folder() + text("]")),
        nar(node("directory") + text("else")),
        nar(node("symlink", "tarquin", "x", ")")),
        nar(node("symlink", "target", "x", "]")),
    ),
)
CUT_ARCHIVES: Final = (b"", nar(b""), nar(file()[:-8]), nar(folder(a=file())[:-24]), nar(link("x")[:-16]))
BYTES: Final = Kind(same(b"", b"x", b"xy", b"x" * 47, b"x" * 200_000), ())
SEVERAL: Final = listed(sequence(*INFO, Kind(ARCHIVES.good, ())), 2**18)

VALID_PATH: Final = 1
ADD_TO_STORE: Final = 7
SET_OPTIONS: Final = 19
NAR_FROM_PATH: Final = 38
ADD_NAR: Final = 39
QUERY_REALISATION: Final = 43
ADD_MULTIPLE: Final = 44

OPTIONS: Final = (DENIED, FLAG, FLAG, LEVEL, WORD, WORD, FLAG, LEVEL, LEVEL, FLAG, WORD, FLAG)


@dataclass(frozen=True)
class Request:
    """One that jobs may make: its fields, its contents in frames, and a reply at protocol 1.37."""

    code: int
    name: str
    fields: tuple[Kind, ...] = ()
    reply: bytes = b""
    contents: Kind | None = None

    @property
    def head(self) -> bytes:
        return number(self.code) + b"".join(kind.good[0][0] for kind in self.fields)

    def good(self) -> Iterator[tuple[bytes, bytes]]:
        """(sent, had) without contents, with each good value of each field once."""
        for sent, had in sequence(*self.fields).good if self.fields else [(b"", b"")]:
            yield number(self.code) + sent, number(self.code) + had

    def bad(self) -> Iterator[bytes]:
        for value in sequence(*self.fields).bad if self.fields else ():
            yield number(self.code) + value


KNOWN: Final = text(DRV) + text(HASH) + texts(PATH) + number(5) * 2 + number(1) + texts("k:s") + text(ADDRESS)
SUBSTITUTABLE: Final = text(DRV) + texts(PATH, PATH) + number(7) * 2
BUILT: Final = (
    *(number(0), text("no error"), number(1), number(0), number(10), number(20)),
    *(number(1) + number(77), number(0)),
    number(1) + text(f"sha256:{HASH}!out") + text('{"id": "x"}'),
)
ONE: Final = number(1)

PASSED: Final = (
    Request(1, "IsValidPath", (A_PATH,), ONE),
    Request(6, "QueryReferrers", (A_PATH,), texts(PATH, DRV)),
    Request(7, "AddToStore", (A_NAME, METHOD, PATHS, DENIED), text(PATH) + KNOWN, BYTES),
    Request(7, "AddToStore of an archive", (A_NAME, METHOD_OF_ARCHIVE, PATHS, DENIED), text(PATH) + KNOWN, ARCHIVES),
    Request(9, "BuildPaths", (WISHES, MODE), ONE),
    Request(10, "EnsurePath", (A_PATH,), ONE),
    Request(11, "AddTempRoot", (A_PATH,), ONE),
    Request(21, "QuerySubstitutablePathInfo", (A_PATH,), ONE + SUBSTITUTABLE),
    Request(22, "QueryDerivationOutputs", (A_PATH,), texts(PATH)),
    Request(23, "QueryAllValidPaths", (), texts(*[PATH] * 3000)),
    Request(26, "QueryPathInfo", (A_PATH,), ONE + KNOWN),
    Request(28, "QueryDerivationOutputNames", (A_PATH,), texts("out", "dev")),
    Request(29, "QueryPathFromHashPart", (PART,), text(PATH)),
    Request(
        30,
        "QuerySubstitutablePathInfos",
        (listed(sequence(A_PATH, ADDRESS_OR_NONE), 2**18),),
        ONE + text(PATH) + SUBSTITUTABLE,
    ),
    Request(31, "QueryValidPaths", (PATHS, FLAG), texts(PATH)),
    Request(32, "QuerySubstitutablePaths", (PATHS,), texts()),
    Request(33, "QueryValidDerivers", (A_PATH,), texts(DRV)),
    Request(36, "BuildDerivation", (A_DRV, DERIVATION, MODE), b"".join(BUILT)),
    Request(38, "NarFromPath", (A_PATH,), nar(nested(200))),
    Request(39, "AddToStoreNar", (*INFO, DENIED, DENIED), b"", ARCHIVES),
    Request(40, "QueryMissing", (WISHES,), texts(PATH) + texts() + texts(DRV) + number(7) * 2),
    Request(41, "QueryDerivationOutputMap", (A_PATH,), ONE + text("out") + text(PATH)),
    Request(43, "QueryRealisation", (REALISATION,), texts("{}")),
    Request(44, "AddMultipleToStore", (DENIED, DENIED), b"", SEVERAL),
    Request(46, "BuildPathsWithResults", (WISHES, MODE), ONE + text(DRV + "!*") + b"".join(BUILT)),
)

PRETENDED: Final = (
    Request(12, "AddIndirectRoot", (free(LARGEST_NAME),)),
    Request(13, "SyncWithGC"),
)
REFUSED: Final = (
    Request(14, "FindRoots"),
    Request(20, "CollectGarbage", (LEVEL, PATHS, FLAG, ANY_NUMBER, WORD, WORD, WORD)),
    Request(34, "OptimiseStore"),
    Request(35, "VerifyStore", (FLAG, FLAG)),
    Request(37, "AddSignatures", (A_PATH, SIGNATURES)),
    Request(42, "RegisterDrvOutput", (free(2**20),)),
    Request(45, "AddBuildLog", (free(LARGEST_NAME),), contents=BYTES),
    Request(47, "AddPermRoot", (A_PATH, free(LARGEST_NAME))),
)
# What Nix has removed, reserved, or has for builds alone; and no numbers at all.
UNKNOWN: Final = (0, 2, 3, 4, 5, 8, 16, 18, 24, 25, 27, 48, 49, 50, 1000, 1001, 2**32, 2**63)


def by_name(request: Request) -> str:
    return request.name
