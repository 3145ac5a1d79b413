"""A Nix archive, read to its end and written anew (Nix manual, "Nix Archive (NAR) Format"; src/libutil/archive.cc)."""

# ruff: noqa: INP001 - part of a program by itself, pushed to the hosts

from __future__ import annotations

from typing import TYPE_CHECKING

from wire import Refused, padding

if TYPE_CHECKING:
    from wire import Sink, Source

MAGIC = b"nix-archive-1"
MAX_WORD = 32
MAX_NAME = 255
MAX_TARGET = 4095
# Nix' own bounds since CVE-2026-44028. An older Nix recurses on a fixed stack, and lets a length claim any memory.
DEEPEST = 64
LARGEST = 1 << 40


def archive(source: Source, sink: Sink) -> None:
    """Copy a client's archive. Raises Refused for anything else, or larger or deeper than any that Nix writes."""
    _archive(source, sink, DEEPEST, LARGEST)


def trusted_archive(source: Source, sink: Sink) -> None:
    """Copy the daemon's archive, as deep and as large as it is in the store."""
    _archive(source, sink, None, None)


def _archive(source: Source, sink: Sink, deepest: int | None, largest: int | None) -> None:
    _word(source, sink, MAGIC)
    depth = int(_opens_directory(source, sink, largest))
    while depth:
        if _word(source, sink, b"entry", b")") == b")":
            depth -= 1
            if depth:
                _word(source, sink, b")")
            continue
        if deepest is not None and depth >= deepest:
            raise Refused(f"an archive of more than {deepest} levels")
        _entry(source, sink)
        if _opens_directory(source, sink, largest):
            depth += 1
        else:
            _word(source, sink, b")")


def _entry(source: Source, sink: Sink) -> None:
    _word(source, sink, b"(")
    _word(source, sink, b"name")
    name = source.text(MAX_NAME)
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise Refused(f"an archive with a file named {name!r}")
    sink.text(name)
    _word(source, sink, b"node")


def _opens_directory(source: Source, sink: Sink, largest: int | None) -> bool:
    """Read a file or link whole, or a directory up to its first entry; whether it is a directory."""
    _word(source, sink, b"(")
    _word(source, sink, b"type")
    kind = _word(source, sink, b"regular", b"symlink", b"directory")
    if kind == b"regular":
        _file(source, sink, largest)
    elif kind == b"symlink":
        _word(source, sink, b"target")
        target = source.text(MAX_TARGET)
        if not target or b"\0" in target:
            raise Refused("an archive with an empty link")
        sink.text(target)
        _word(source, sink, b")")
    return kind == b"directory"


def _file(source: Source, sink: Sink, largest: int | None) -> None:
    word = _word(source, sink, b"executable", b"contents", b")")
    if word == b"executable":
        _word(source, sink, b"")
        word = _word(source, sink, b"contents", b")")
    if word == b"contents":
        size = source.number()
        if largest is not None and size > largest:
            raise Refused(f"an archive with a file of {size} bytes")
        sink.number(size)
        source.move(size, sink)
        source.skip_padding(size)
        sink.raw(bytes(padding(size)))
        _word(source, sink, b")")


def _word(source: Source, sink: Sink, *allowed: bytes) -> bytes:
    word = source.text(MAX_WORD)
    if word not in allowed:
        raise Refused(f"an archive with {word!r} where {b' or '.join(allowed)!r} belongs")
    sink.text(word)
    return word
