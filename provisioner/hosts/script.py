"""A host transaction as data, and its one POSIX script.

The script does what a careful person with a root shell would: take the lock, look again at what is about to be
replaced, put every new file beside its place, flush, and only then rename in order. The first thing renamed is the
journal, so whoever comes next knows what was meant even if nothing else happened.

Owns no connection: a script is bytes for `sh -s` (POSIX.1-2017, sh; base64, stat, flock, sync: coreutils and
util-linux, which every NixOS has in its system path).
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from provisioner.model import Secret

STATE_DIR: Final = "/var/lib/nixprov"
JOURNAL: Final = f"{STATE_DIR}/journal.json"

STAGED_SUFFIX: Final = ".nixprov-new"

STALE_STATUS: Final = 81
LOCKED_STATUS: Final = 82

_PROLOGUE = """\
set -eu
umask 077
export LC_ALL=C PATH="/run/wrappers/bin:/run/current-system/sw/bin:$PATH"
fail() { printf '%s\\n' "$2" >&2; exit "$1"; }
digest() { if [ -f "$1" ]; then sha256sum < "$1" | cut -d' ' -f1; else echo absent; fi; }
expect() { [ "$(digest "$1")" = "$2" ] || fail 81 "$1 is not what it was a moment ago"; }
stage() { base64 -d > "$1.nixprov-new"; chown "$3" "$1.nixprov-new"; chmod "$2" "$1.nixprov-new"; }
"""

_LOCK = """\
mkdir -p /var/lib/nixprov
exec 9< /var/lib/nixprov
flock -w {wait_s} 9 || fail 82 'another transaction is under way'
"""


@dataclass(frozen=True, slots=True)
class MakeDir:
    path: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Put `content` at `path`; refused when the file's digest is not `expect` ("absent", sha256, or None: any).

    `owner` is `uid:gid`; `mtime` (seconds since the epoch) is set when given, to give a user's file back as it was.
    """

    path: str
    content: bytes | Secret
    mode: int = 0o644
    owner: str = "0:0"
    expect: str | None = None
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class KeepCopy:
    """Copy a file that a person changed to `copy` beside it, before it is replaced or removed. Made while staging."""

    path: str
    copy: str


@dataclass(frozen=True, slots=True)
class RemoveFile:
    path: str
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class RemoveTree:
    """Remove a folder with all in it, after unmounting what is mounted below."""

    path: str


@dataclass(frozen=True, slots=True)
class RemoveEmptyDir:
    path: str


@dataclass(frozen=True, slots=True)
class SetMtime:
    """Give a folder or file its time back (seconds since the epoch), if it is still there."""

    path: str
    mtime: int


@dataclass(frozen=True, slots=True)
class Shell:
    """Commands that no other part can say; run after all renames, in order. Never holds a secret."""

    text: str


Part = MakeDir | KeepCopy | WriteFile | RemoveFile | RemoveTree | RemoveEmptyDir | SetMtime | Shell


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one remote command changes.

    `journal_before` is the digest of the journal that the plan was made from ("absent" or sha256): a run that another
    operator overtook stops with STALE_STATUS and has changed nothing. `journal` is the new content, None to leave it.
    `guard` runs first, under the lock; by `fail STATUS TEXT` it stops the transaction before anything is touched.
    `first` is shell that runs when all is checked, before anything is staged. `wait_s` is how long another transaction,
    which takes moments, is waited for. `crash_at` is for tests: "staged", or the number of the change before which the
    script kills itself.
    """

    parts: Sequence[Part]
    journal_before: str
    journal: bytes | None = None
    guard: str = ""
    first: str = ""
    wait_s: int = 10
    crash_at: str = field(default="", kw_only=True)

    def script(self) -> bytes:
        """Render for `sh -s`. Secrets are inside: it goes to standard input and nowhere else."""
        parts: list[Part] = list(self.parts)
        if self.journal is not None:
            parts = [MakeDir(STATE_DIR, 0o700), WriteFile(JOURNAL, self.journal, 0o600), *parts]
        lines = [_PROLOGUE, _LOCK.format(wait_s=self.wait_s), f"expect {JOURNAL} {self.journal_before}"]
        lines += [self.guard] if self.guard else []
        lines += [line for part in parts for line in _check(part)]
        lines += [self.first] if self.first else []
        lines += [f"trap {shlex.quote(_unstage(parts))} EXIT"]
        lines += [line for part in parts for line in _stage(part)]
        lines += ["sync", *self._crash("staged")]
        changes = [change for part in parts if (change := _apply(part))]
        lines += [line for number, change in enumerate(changes, 1) for line in (*self._crash(str(number)), *change)]
        lines += ["sync"]
        return ("\n".join(lines) + "\n").encode()

    def _crash(self, point: str) -> list[str]:
        return ["sync; kill -9 $$"] if self.crash_at == point else []


def _unstage(parts: Sequence[Part]) -> str:
    """A full disk or a signal leaves no staged file behind; after the renames there is none."""
    places = [f"{shlex.quote(part.path)}.nixprov-new" for part in parts if isinstance(part, WriteFile)]
    return f"rm -f {' '.join(places)}" if places else ":"


def _check(part: Part) -> list[str]:
    if isinstance(part, WriteFile | RemoveFile) and part.expect is not None:
        return [f"expect {shlex.quote(part.path)} {part.expect}"]
    return []


def _stage(part: Part) -> list[str]:
    """Folders come first and files beside their places: an early end leaves only `.nixprov-new` files behind."""
    if isinstance(part, MakeDir):
        path = shlex.quote(part.path)
        return [f"mkdir -p {path}", f"chmod {part.mode:04o} {path}"]
    if isinstance(part, KeepCopy):
        return [f"cp -p {shlex.quote(part.path)} {shlex.quote(part.copy)}"]
    if isinstance(part, WriteFile):
        content = part.content.reveal().encode() if isinstance(part.content, Secret) else part.content
        # printf is the shell's own: what it is given appears in no process list, unlike a program's arguments.
        data = base64.b64encode(content).decode()
        return [f"printf %s {shlex.quote(data)} | stage {shlex.quote(part.path)} {part.mode:04o} {part.owner}"]
    return []


def _apply(part: Part) -> list[str]:
    match part:
        case MakeDir() | KeepCopy():
            return []
        case WriteFile(path=path, mtime=mtime):
            place = shlex.quote(path)
            touch = [] if mtime is None else [f"touch -d @{mtime} {place}.nixprov-new"]
            return [*touch, f"mv -f {place}.nixprov-new {place}"]
        case RemoveFile(path=path):
            return [f"rm -f {shlex.quote(path)}"]
        case RemoveEmptyDir(path=path):
            return [f"rmdir {shlex.quote(path)} 2>/dev/null || :"]
        case SetMtime(path=path, mtime=mtime):
            place = shlex.quote(path)
            return [f"[ ! -e {place} ] || touch -d @{mtime} {place}"]
        case Shell(text=text):
            return [text]
        case RemoveTree(path=path):
            return [_remove_tree(path)]


def _remove_tree(path: str) -> str:
    """Deepest mounts first; a lazy unmount, because an engine's helper may still stand in one."""
    place = shlex.quote(path)
    return f"""\
cut -d' ' -f2 /proc/mounts | grep -F {place}/ | sort -r | while read -r mount; do
  umount -l "$mount" || :
done
rm -rf {place}"""
