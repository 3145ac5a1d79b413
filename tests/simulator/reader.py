"""Reads the program's commands to a host back into values, and nothing that it does not know.

A script is taken apart, rendered again by the program's own code, and compared byte for byte. So no test
succeeds silently over a new kind of part, a new line or a changed order. It is `UnknownScript` until the reader has
learned it.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Final

from provisioner import steps
from provisioner.hooks.classic import Classic
from provisioner.machine import lock, origin, switch, transaction
from provisioner.machine.transaction import (
    ABSENT,
    JOURNAL,
    PATH,
    STAGED_SUFFIX,
    STATE_DIR,
    KeepCopy,
    MakeDir,
    Part,
    RemoveEmptyDir,
    RemoveFile,
    RemoveTree,
    SetMtime,
    Shell,
    Transaction,
    WriteFile,
)
from provisioner.model import Secret
from tests.simulator.texts import Phrase, Said, firsts, guards, shells


class UnknownScript(AssertionError):
    """The program sends a script that the simulator has not learned."""


@dataclass(frozen=True)
class Transact:
    """A transaction; `guard` and `first` are its shell, `shells` that of each `Shell` part, by its text."""

    transaction: Transaction
    guard: Said | None
    first: Said | None
    shells: Mapping[str, Said]


@dataclass(frozen=True)
class Probe:
    """`waits`: for a transaction under way, before it looks."""

    script: str
    waits: bool


@dataclass(frozen=True)
class Follow:
    """`keeps`: the run that goes on holding the host through this connection; `cursor` is empty at the beginning."""

    keeps: str
    cursor: str


@dataclass(frozen=True)
class Active:
    units: tuple[str, ...]
    limit_s: int


@dataclass(frozen=True)
class Keep:
    """The waiting switch is confirmed, outside of a transaction."""


@dataclass(frozen=True)
class Abort:
    pass


@dataclass(frozen=True)
class Leave:
    pass


@dataclass(frozen=True)
class Origin:
    """`edits` are files as they are to be for this question, None for one that is to be away."""

    run: str
    edits: Mapping[str, bytes | None]


Command = Transact | Probe | Follow | Active | Keep | Abort | Leave | Origin


def read(script: bytes) -> Command:
    """Raises UnknownScript."""
    text = script.decode()
    if text.startswith(transaction._PROLOGUE):
        return _transaction(text)
    if (waits := text.startswith(lock.WAIT)) or text == _probe():
        return _same(text, lock.WAIT * waits + _probe(), Probe(text, waits))
    if found := re.search(r"--unit=nixprov-origin-(\S+)", text):
        edits = dict(_edits(text))
        return _same(text, origin.script(found[1], Classic().configuration, edits).decode(), Origin(found[1], edits))
    if found := re.search(
        r"\A.*?\[ \"\$holder\" != (\S+) \].*?^@?.*?after=(\S+) invocation=$", text, re.DOTALL | re.MULTILINE
    ):
        (cursor,) = shlex.split(found[2])
        after = cursor.removeprefix("--after-cursor=")
        return _same(text, lock.keep(found[1]) + switch.follow(after).decode(), Follow(found[1], after))
    if text.startswith(PATH) and text.removeprefix(PATH).startswith("fail() {"):
        return _plain(text.removeprefix(PATH).partition("\n")[2])
    raise UnknownScript(text[:2000])


def _plain(text: str) -> Command:
    for known, command in (
        (switch.abort(), Abort()),
        (switch.leave(), Leave()),
        (switch.confirm((), 0).encode(), Keep()),
    ):
        if text == known.decode():
            return command
    found = re.search(r"\Atries=(\d+)\n.*^for unit in ([^;]+); do$", text, re.DOTALL | re.MULTILINE)
    if not found:
        raise UnknownScript(text[:2000])
    active = Active(tuple(shlex.split(found[2])), int(found[1]) // 5)
    return _same(text, switch.active(active.units, active.limit_s), active)


def _same(sent: str, rendered: str, command: Command) -> Command:
    if sent != rendered:
        raise UnknownScript(f"sent:\n{sent[:2000]}\nread as {command}")
    return command


@cache
def _probe() -> str:
    return steps.probe().decode()


_REMOVED: Final = re.compile(r"  rm -f (.+)$")
_REPLACED: Final = re.compile(r'  mkdir -p "\$\(dirname (\S+)\)" && rm -f \S+ && printf %s (\S+) \| base64 -d > \S+$')


def _edits(text: str) -> Iterator[tuple[str, bytes | None]]:
    """The lines between the copy of the folder and its mount (aside.sh)."""
    block = text.partition('is a link"\n')[2].partition("  mount --bind")[0]
    for line in block.splitlines():
        if found := _REPLACED.match(line):
            place, data = (_unquoted(word) for word in found.groups())
            yield f"{Classic().folder}/{place}", base64.b64decode(data)
        elif found := _REMOVED.match(line):
            yield f"{Classic().folder}/{_unquoted(found[1])}", None


# One word as shlex.quote gives it.
_W: Final = r"((?:'[^']*'(?:\"'\"'[^']*')*|[^\s'\"]+))"
# The text before the transaction's first own line, the same for all changes.
_HEAD: Final = re.compile(r"flock -w (\d+) 9 .*?^expect " + re.escape(JOURNAL) + r" (\S+)\n", re.DOTALL | re.MULTILINE)
_FOLDER: Final = re.compile(rf"folder {_W} (\d+)\n")
_COPY: Final = re.compile(rf"rm -f {_W}\ncp -p {_W} \1\n")
_FILE: Final = re.compile(rf"printf %s {_W} \| stage {_W} (\d+) (\S+?)( like)?\n(?:touch -d @(\d+) \2\S+\n)?")
_CHECK: Final = re.compile(rf"replaceable {_W}\n(?:expect \1 (\S+)\n)?")
_FLUSH: Final = re.compile(r"(?:sync|flush) .*\n")
_TOUCHED: Final = re.compile(r"touched=yes\n")
_MOVE: Final = re.compile(rf"mv -f {_W}{re.escape(STAGED_SUFFIX)} \1\n")
_REMOVE: Final = re.compile(rf"rm -f {_W}\n")
_EMPTY: Final = re.compile(rf"rmdir {_W} 2>/dev/null \|\| :\n")
_TIME: Final = re.compile(rf"\[ ! -e {_W} \] \|\| touch -d @(\d+) \1\n")
_TREE: Final = re.compile(rf"cut -d' ' -f2 /proc/mounts .*\n.*\ndone\nrm -rf --one-file-system {_W}\n")


@dataclass
class _Text:
    """A text and how far it is read."""

    text: str
    at: int = 0

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found

    def take_phrase(self, phrases: Sequence[Phrase]) -> tuple[str, Said] | None:
        for phrase in phrases:
            found = phrase.pattern.match(self.text, self.at)
            if found and self.text[found.end() : found.end() + 1] == "\n":
                self.at = found.end() + 1
                return found[0], Said(phrase.name, found.groupdict())
        return None

    def unknown(self) -> UnknownScript:
        return UnknownScript(self.text[self.at : self.at + 2000])


@dataclass
class _Parts:
    """Parts by the names in a script's sections, and the order that gives such sections."""

    found: dict[str, Part] = field(default_factory=dict)
    order: TopologicalSorter[str] = field(default_factory=TopologicalSorter)

    def chain(self, keys: Sequence[str]) -> None:
        for before, after in pairwise(keys):
            self.order.add(after, before)

    def sorted(self) -> list[Part]:
        for key in self.found:
            self.order.add(key)
        return [self.found[key] for key in self.order.static_order()]


def _transaction(text: str) -> Transact:
    head = _HEAD.search(text)
    assert head
    rest = _Text(text, head.end())
    parts = _Parts()
    guard = rest.take_phrase(guards())
    checks = dict(_checks(rest))
    staged = list(_staged(rest, checks, parts))
    while rest.take(_FLUSH):
        pass
    first = rest.take_phrase(firsts())
    if not rest.take(_TOUCHED):
        raise rest.unknown()
    said: dict[str, Said] = {}
    changed = list(_changed(rest, checks, parts, said))
    parts.chain(staged)
    parts.chain(list(checks))
    parts.chain([key for key in changed if not _is_secret(parts.found[key])])
    ordered = parts.sorted()
    journal, entry = None, parts.found.get(f"file {JOURNAL}")
    if isinstance(entry, WriteFile):
        assert isinstance(entry.content, bytes)
        journal = entry.content
        ordered = [part for part in ordered if part is not entry]
        ordered.remove(MakeDir(STATE_DIR, 0o700))
    read = Transaction(ordered, head[2], journal, guard[0] if guard else "", first[0] if first else "", int(head[1]))
    if read.script().decode() != text:
        raise UnknownScript(f"{text}\nread as {read}")
    return Transact(read, guard and guard[1], first and first[1], said)


def _checks(rest: _Text) -> Iterator[tuple[str, str | None]]:
    """By the key of the part: the digest that it expects."""
    while found := rest.take(_CHECK):
        yield f"file {_unquoted(found[1])}", found[2]


def _staged(rest: _Text, checks: Mapping[str, str | None], parts: _Parts) -> Iterator[str]:
    key: str
    part: Part
    while True:
        if found := rest.take(_FOLDER):
            path = _unquoted(found[1])
            key, part = f"folder {path} {len(parts.found)}", MakeDir(path, int(found[2], 8))
        elif found := rest.take(_COPY):
            staged, path = (_unquoted(word) for word in found.groups())
            copy = staged.removesuffix(STAGED_SUFFIX)
            key, part = f"file {copy}", KeepCopy(path, copy)
        elif found := rest.take(_FILE):
            key, part = _file(found, checks)
        else:
            return
        parts.found[key] = part
        yield key


def _file(found: re.Match[str], checks: Mapping[str, str | None]) -> tuple[str, Part]:
    data, path = (_unquoted(word) for word in found.groups()[:2])
    content = base64.b64decode(data)
    expect = checks[f"file {path}"]
    assert (found[5] is not None) == (expect not in (None, ABSENT)), path
    # No line says that a content is a secret, only the order shows it. Tokens are secrets.
    held: bytes | Secret = Secret(content.decode()) if path.endswith(".token") else content
    mtime = None if found[6] is None else int(found[6])
    return f"file {path}", WriteFile(path, held, int(found[3], 8), found[4], expect, mtime)


def _changed(rest: _Text, checks: Mapping[str, str | None], parts: _Parts, said: dict[str, Said]) -> Iterator[str]:
    while rest.at < len(rest.text):
        if rest.take(_FLUSH):
            continue
        key = f"change {rest.at}"
        if found := rest.take(_MOVE):
            yield f"file {_unquoted(found[1])}"
            continue
        if found := rest.take(_REMOVE):
            path = _unquoted(found[1])
            if f"file {path}" in checks:
                key = f"file {path}"
                parts.found[key] = RemoveFile(path, checks[key])
                yield key
                continue
            raise rest.unknown()
        if phrase := rest.take_phrase(shells()):
            parts.found[key] = Shell(phrase[0])
            said[phrase[0]] = phrase[1]
        elif found := rest.take(_EMPTY):
            parts.found[key] = RemoveEmptyDir(_unquoted(found[1]))
        elif found := rest.take(_TIME):
            parts.found[key] = SetMtime(_unquoted(found[1]), int(found[2]))
        elif found := rest.take(_TREE):
            parts.found[key] = RemoveTree(_unquoted(found[1]))
        else:
            raise rest.unknown()
        yield key


def _unquoted(word: str) -> str:
    """The opposite of shlex.quote; shlex.split takes a second for the module's files."""
    return word[1:-1].replace("'\"'\"'", "'") if word.startswith("'") else word


def _is_secret(part: Part) -> bool:
    return isinstance(part, WriteFile) and isinstance(part.content, Secret)
