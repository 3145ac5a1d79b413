"""The operations of the worker protocol: the fields of each request and reply, and the requests that jobs may make.

Sources: src/libstore/worker-protocol.hh (`Op`), daemon.cc (`performOp`) and worker-protocol.cc of Nix 2.4 to 2.36.
A field reads one value from a source and writes it to a sink anew. A job's values are judged by type, pattern and
maximum, and a value out of bounds ends the connection. The daemon's values are read only to find their ends.
"""

# ruff: noqa: INP001 - part of a program by itself, pushed to the hosts

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, NamedTuple

from archive import archive, trusted_archive
from wire import STDERR_ERROR, STDERR_LAST, Frames, Refused, Sink, Source, number, padding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Field = Callable[[Source, Sink], object]
    # Contents in frames; the values before them in the request decide how they are read.
    Contents = Callable[[Sequence[object], Frames, Sink], None]

# Minor versions of the protocol that added to the daemon's greeting.
TELLS_VERSION = 33
TELLS_TRUST = 35
TELLS_TIMES = 37

SET_OPTIONS = 19
NORMAL, REPAIR, CHECK = range(3)
VOMIT = 7

MAX_WORD = (1 << 32) - 1
MAX_BYTES = 1 << 40
MAX_TEXT = 1 << 20
# Structured attributes of a derivation are one value of its environment.
MAX_VARIABLE = 1 << 23
MAX_FILE_NAME = 4095
MAX_PATHS = 1 << 18
MAX_NAMES = 1 << 12
MAX_SIGNATURES = 1 << 8
MAX_SETTINGS = 1000
# Bytes of all settings of one request together, since they are held until the last one arrives.
MAX_SETTINGS_SIZE = 1 << 20
# The daemon's texts up to this size are kept and can be asked for afterwards.
MAX_KEPT = 1 << 12

NAME = rb"[0-9A-Za-z+\-._?=]{1,211}"
HASH_PART = rb"[0-9a-df-np-sv-z]{32}"
OUTPUTS = rb"(?:\*|%b(?:,%b)*)" % (NAME, NAME)
ALGORITHM = rb"(?:md5|sha1|sha256|sha512)"
# Neither blake3 nor git: a daemon without that feature reports an error before it reads the rest.
METHOD = rb"(?:text:sha256|fixed:(?:r:)?%b)" % ALGORITHM
ADDRESS = rb"(?:text|fixed(?::r)?):%b:[0-9a-z]{26,103}" % ALGORITHM
NAR_HASH = rb"[0-9a-f]{64}"
SIGNATURE = rb"[^:\s]{1,255}:[0-9A-Za-z+/=]{1,255}"
# The result of a content-addressed build: the hash of its derivation, and the name of the output.
REALISATION = rb"sha256:[0-9a-f]{64}!%b" % NAME
PLATFORM = rb"[0-9A-Za-z_.+\-]{1,64}"
OUTPUT_METHOD = rb"(?:(?:r:|text:)?%b)?" % ALGORITHM
OUTPUT_HASH = rb"(?:[0-9a-z]{26,128}|impure)?"
SECONDS = rb"[0-9]{1,10}"
ADDRESSES = rb"[\x20-\x7e\t\n]{0,8192}"


class Verdict(enum.Enum):
    """The fate of a request: passed on, refused by name, or answered here without an effect."""

    PASSED = "passed"
    REFUSED = "refused"
    PRETENDED = "pretended"


class Operation(NamedTuple):
    """One request. With `begins_early` the daemon may err in the middle of it, and take the rest for a new request."""

    name: str
    request: tuple[Field, ...] = ()
    reply: tuple[Field, ...] = ()
    contents: Contents | None = None
    verdict: Verdict = Verdict.PASSED
    begins_early: bool = False


class Limits(NamedTuple):
    """Upper bounds of a client's wishes; 0 means no bound of ours."""

    max_jobs: int
    cores: int
    timeout: int
    max_silent: int


# --- fields of requests, from jobs


def whole(maximum: int) -> Field:
    def field(source: Source, sink: Sink) -> int:
        value = source.number()
        if value > maximum:
            raise Refused(f"the number {value}")
        sink.number(value)
        return value

    return field


def no(source: Source, sink: Sink) -> None:
    """A wish that is always sent on as "no": repair, unsigned paths, a build directory that is kept.

    Repair is the worst. The daemon deletes a path before its replacement is built. It keeps the replacement even when
    the hash turns out to be wrong.
    """
    if source.number() > 1:
        raise Refused("a wish that is neither yes nor no")
    sink.number(0)


def a_mode(source: Source, sink: Sink) -> None:
    """The mode of a build: normal, repair (see `no`) or check."""
    mode = source.number()
    if mode not in (NORMAL, REPAIR, CHECK):
        raise Refused(f"the build mode {mode}")
    sink.number(NORMAL if mode == REPAIR else mode)


def capped_at(limit: int, *, zero_is_all: bool = True) -> Field:
    def field(source: Source, sink: Sink) -> None:
        value = source.number()
        if value > MAX_WORD:
            raise Refused(f"the number {value}")
        sink.number(at_most(value, limit, zero_is_all=zero_is_all))

    return field


def at_most(value: int, limit: int, *, zero_is_all: bool = True) -> int:
    if not limit:
        return value
    if not value and zero_is_all:
        return limit
    return min(value, limit)


def free(maximum: int) -> Field:
    """A text of any bytes."""

    def field(source: Source, sink: Sink) -> bytes:
        value = source.text(maximum)
        sink.text(value)
        return value

    return field


def like(pattern: bytes, maximum: int = MAX_FILE_NAME) -> Field:
    matches = re.compile(pattern, re.DOTALL).fullmatch

    def field(source: Source, sink: Sink) -> bytes:
        value = source.text(maximum)
        if not matches(value):
            raise Refused(f"the value {value[:100]!r}")
        sink.text(value)
        return value

    return field


def many(maximum: int, *fields: Field) -> Field:
    def field(source: Source, sink: Sink) -> None:
        count = source.number()
        if count > maximum:
            raise Refused(f"a list of {count}")
        sink.number(count)
        for _ in range(count):
            for each in fields:
                each(source, sink)

    return field


def asked(field: Field, suffix: bytes = b"") -> Field:
    """A name that counts as asked for."""

    def noted(source: Source, sink: Sink) -> None:
        value = field(source, sink)
        if isinstance(value, bytes):
            sink.note(value + suffix)

    return noted


def settings(limits: Limits) -> Field:
    """The client's settings by name: only those that a job may set for its own builds, none above its limit."""
    judged: dict[bytes, Callable[[bytes], bytes | None]] = {
        b"timeout": _seconds_up_to(limits.timeout),
        b"max-silent-time": _seconds_up_to(limits.max_silent),
        b"connect-timeout": _if_like(SECONDS),
        b"poll-interval": _if_like(SECONDS),
        # The daemon itself checks each address.
        b"substituters": _if_like(ADDRESSES),
        # No remote builders but the host's.
        b"builders": _if_like(b""),
    }

    def field(source: Source, sink: Sink) -> None:
        count = source.number()
        if count > MAX_SETTINGS:
            raise Refused(f"a list of {count}")
        kept, size = [], 0
        for _ in range(count):
            name = source.text(MAX_SETTINGS_SIZE - size)
            value = source.text(MAX_SETTINGS_SIZE - size - len(name))
            size += len(name) + len(value)
            granted = judged[name](value) if name in judged else None
            if granted is not None:
                kept.append((name, granted))
        sink.number(len(kept))
        for name, value in kept:
            sink.text(name)
            sink.text(value)

    return field


def _seconds_up_to(limit: int) -> Callable[[bytes], bytes | None]:
    def judge(value: bytes) -> bytes | None:
        if re.fullmatch(SECONDS, value):
            return b"%d" % at_most(int(value), limit)
        return b"%d" % limit if limit else None

    return judge


def _if_like(pattern: bytes) -> Callable[[bytes], bytes | None]:
    return lambda value: value if re.fullmatch(pattern, value) else None


flag = whole(1)


# --- contents in frames


def an_archive(_: Sequence[object], frames: Frames, sink: Sink) -> None:
    archive(frames, sink)


def added(values: Sequence[object], frames: Frames, sink: Sink) -> None:
    """An archive or the bytes of a file, by the method of the request (its second field)."""
    method = values[1]
    if isinstance(method, bytes) and method.startswith(b"fixed:r:"):
        archive(frames, sink)
    else:
        any_bytes(values, frames, sink)


def any_bytes(_: Sequence[object], frames: Frames, sink: Sink) -> None:
    for piece in frames.rest():
        sink.raw(piece)


# --- fields of replies, from the daemon


def a_number(source: Source, sink: Sink) -> int:
    value = source.number()
    sink.number(value)
    return value


def a_text(source: Source, sink: Sink) -> bytes | None:
    """A text, or None when it is too long to be kept."""
    size = source.number()
    if size <= MAX_KEPT:
        value = source.exactly(size)
        source.skip_padding(size)
        sink.text(value)
        return value
    sink.number(size)
    source.move(size, sink)
    source.skip_padding(size)
    sink.raw(bytes(padding(size)))
    return None


def a_list(*fields: Field) -> Field:
    def field(source: Source, sink: Sink) -> None:
        for _ in range(a_number(source, sink)):
            for each in fields:
                each(source, sink)

    return field


def optional(*fields: Field) -> Field:
    def field(source: Source, sink: Sink) -> None:
        if a_number(source, sink):
            for each in fields:
                each(source, sink)

    return field


def log_fields(source: Source, sink: Sink) -> list[int | bytes | None]:
    """The fields of an activity or its result: numbers (0) and texts (1)."""
    values: list[int | bytes | None] = []
    for _ in range(a_number(source, sink)):
        kind = a_number(source, sink)
        values.append(a_text(source, sink) if kind else a_number(source, sink))
        del values[MAX_LOG_FIELDS:]
    return values


MAX_LOG_FIELDS = 8
TEXTS = a_list(a_text)
# Deriver, hash, references, time, size, whether it was built here, signatures, content address.
PATH_INFO = (a_text, a_text, TEXTS, a_number, a_number, a_number, TEXTS, a_text)

STDERR_NEXT = 0x6F6C6D67
STDERR_START_ACTIVITY = 0x53545254
STDERR_STOP_ACTIVITY = 0x53544F50
STDERR_RESULT = 0x52534C54

# The daemon's messages before the result of a request, up to the last one (src/libutil/logging.hh).
MESSAGES: dict[int, tuple[Field, ...]] = {
    STDERR_NEXT: (a_text,),
    # Activity, level, kind, text, fields, parent.
    STDERR_START_ACTIVITY: (a_number, a_number, a_number, a_text, log_fields, a_number),
    STDERR_STOP_ACTIVITY: (a_number,),
    STDERR_RESULT: (a_number, a_number, log_fields),
    STDERR_LAST: (),
    # Type, level, name, text, place, traces.
    STDERR_ERROR: (a_text, a_number, a_text, a_text, a_number, a_list(a_number, a_text)),
}


def greeting(minor: int) -> tuple[Field, ...]:
    """The daemon's words on itself: its version, and whether it trusts the client."""
    return (*((a_text,) if minor >= TELLS_VERSION else ()), *((a_number,) if minor >= TELLS_TRUST else ()))


def operations(store: bytes, minor: int, limits: Limits) -> dict[int, Operation]:
    """All known requests by number, for protocol 1.`minor` and the store at `store`."""
    a_path = like(rb"%b/%b-%b" % (re.escape(store), HASH_PART, NAME))
    # A name without the ending aborts the daemon (`nameFromPath`).
    a_drv = like(rb"%b/%b-%b\.drv" % (re.escape(store), HASH_PART, NAME))
    path_or_none = like(rb"(?:%b/%b-%b)?" % (re.escape(store), HASH_PART, NAME))
    # A path, or outputs of a derivation, which may itself be an output.
    a_wish = like(rb"%b/%b-%b(?:!%b){0,4}" % (re.escape(store), HASH_PART, NAME, OUTPUTS))
    paths, wishes = many(MAX_PATHS, a_path), many(MAX_PATHS, a_wish)
    address_or_none = like(rb"(?:%b)?" % ADDRESS)
    names = many(MAX_NAMES, free(MAX_TEXT))
    signatures = many(MAX_SIGNATURES, like(SIGNATURE))
    # Deriver, hash, references, time, size, whether it was built here, signatures, content address.
    path_info = (
        a_path,
        path_or_none,
        like(NAR_HASH),
        paths,
        whole(MAX_WORD),
        whole(MAX_BYTES),
        no,
        signatures,
        address_or_none,
    )
    # Name, path, method and hash of each output; sources, platform, builder, arguments, environment.
    derivation = (
        many(MAX_NAMES, like(NAME), path_or_none, like(OUTPUT_METHOD), like(OUTPUT_HASH)),
        paths,
        like(PLATFORM),
        free(MAX_FILE_NAME),
        names,
        many(MAX_NAMES, free(MAX_FILE_NAME), free(MAX_VARIABLE)),
    )
    # Status, error, times built, whether results differ, start, stop, processor times, outputs.
    times = (optional(a_number), optional(a_number)) if minor >= TELLS_TIMES else ()
    result = (a_number, a_text, a_number, a_number, a_number, a_number, *times, a_list(a_text, a_text))
    substitutable = (a_text, TEXTS, a_number, a_number)
    refused, pretended = Verdict.REFUSED, Verdict.PRETENDED

    def several(_: Sequence[object], frames: Frames, sink: Sink) -> None:
        """The number of paths, then each path with its archive."""
        many(MAX_PATHS, *path_info, archive)(frames, sink)

    return {
        1: Operation("IsValidPath", (a_path,), (a_number,)),
        6: Operation("QueryReferrers", (a_path,), (TEXTS,)),
        7: Operation(
            "AddToStore",
            (like(NAME), like(METHOD), paths, no),
            (a_text, *PATH_INFO),
            contents=added,
            begins_early=True,
        ),
        9: Operation("BuildPaths", (many(MAX_PATHS, asked(a_wish)), a_mode), (a_number,)),
        10: Operation("EnsurePath", (asked(a_path),), (a_number,)),
        11: Operation("AddTempRoot", (a_path,), (a_number,)),
        # A root in a container's file system means nothing on the host. Thousands of them would only slow the collector
        # down. The jobs' builds are held by the daemon's own hook.
        12: Operation("AddIndirectRoot", (free(MAX_FILE_NAME),), verdict=pretended),
        13: Operation("SyncWithGC", verdict=pretended),
        14: Operation("FindRoots", verdict=refused),
        # Keep failed, keep going, fallback, verbosity, jobs, silence, one without meaning, level of the build log.
        # Then: two without meaning, processors, substitute, settings by name.
        SET_OPTIONS: Operation(
            "SetOptions",
            (
                *(no, flag, flag, whole(VOMIT)),
                *(capped_at(limits.max_jobs, zero_is_all=False), capped_at(limits.max_silent)),
                *(flag, whole(VOMIT), whole(VOMIT), flag),
                *(capped_at(limits.cores), flag, settings(limits)),
            ),
        ),
        # Action, paths, whether live ones too, most to free; three without meaning.
        20: Operation(
            "CollectGarbage",
            (whole(VOMIT), paths, flag, whole((1 << 64) - 1), *(whole(MAX_WORD),) * 3),
            verdict=refused,
        ),
        21: Operation("QuerySubstitutablePathInfo", (a_path,), (optional(*substitutable),)),
        22: Operation("QueryDerivationOutputs", (a_path,), (TEXTS,)),
        23: Operation("QueryAllValidPaths", (), (TEXTS,)),
        26: Operation("QueryPathInfo", (a_path,), (optional(*PATH_INFO),)),
        28: Operation("QueryDerivationOutputNames", (a_path,), (TEXTS,)),
        29: Operation("QueryPathFromHashPart", (like(HASH_PART),), (a_text,)),
        30: Operation(
            "QuerySubstitutablePathInfos",
            (many(MAX_PATHS, a_path, address_or_none),),
            (a_list(a_text, *substitutable),),
        ),
        31: Operation("QueryValidPaths", (paths, flag), (TEXTS,)),
        32: Operation("QuerySubstitutablePaths", (paths,), (TEXTS,)),
        33: Operation("QueryValidDerivers", (a_path,), (TEXTS,)),
        34: Operation("OptimiseStore", verdict=refused),
        35: Operation("VerifyStore", (flag, flag), verdict=refused),
        36: Operation("BuildDerivation", (asked(a_drv, b"!*"), *derivation, a_mode), result),
        37: Operation("AddSignatures", (a_path, signatures), verdict=refused),
        38: Operation("NarFromPath", (a_path,), (trusted_archive,)),
        39: Operation("AddToStoreNar", (*path_info, no, no), contents=an_archive, begins_early=True),
        40: Operation("QueryMissing", (wishes,), (TEXTS, TEXTS, TEXTS, a_number, a_number)),
        41: Operation("QueryDerivationOutputMap", (a_path,), (a_list(a_text, a_text),)),
        # The daemon takes a realisation without a look at its signatures.
        42: Operation("RegisterDrvOutput", (free(MAX_TEXT),), verdict=refused),
        43: Operation("QueryRealisation", (like(REALISATION),), (TEXTS,), begins_early=True),
        44: Operation("AddMultipleToStore", (no, no), contents=several, begins_early=True),
        45: Operation("AddBuildLog", (free(MAX_FILE_NAME),), contents=any_bytes, verdict=refused),
        46: Operation("BuildPathsWithResults", (many(MAX_PATHS, asked(a_wish)), a_mode), (a_list(a_text, *result),)),
        47: Operation("AddPermRoot", (a_path, free(MAX_FILE_NAME)), verdict=refused),
    }


PRETENCE = number(STDERR_LAST) + number(1)
