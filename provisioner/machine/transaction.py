"""A host transaction as data, and its one POSIX script.

The script does what a careful person with a root shell would: take the lock, look again at what is about to be
replaced, put every new file beside its place, flush, and only then rename in order. The first thing renamed is the
journal, so whoever comes next knows what was meant even if nothing else happened; but for secrets, which the journal
never names before they are there: an earlier one says that they are awaited. A full or read-only disk shows while
files are put beside their places: then nothing was changed, and the status says so (UNCHANGED_STATUS).

What power loss may not reorder is flushed in between (fsync of file and folder, not the whole computer's disks, which
may have gigabytes of a build to write): new files before the first rename, the journal before anything it announces,
what was changed before commands run on it, and all of it before the journal goes.

Owns no connection: a script is bytes for `sh -s` (POSIX.1-2017, sh; base64, stat, flock, sync: coreutils and
util-linux, which every NixOS has in its system path).
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from provisioner.model import Secret

STATE_DIR: Final = "/var/lib/nixprov"
JOURNAL: Final = f"{STATE_DIR}/journal.json"

STAGED_SUFFIX: Final = ".nixprov-new"
# Stands for the digest of a file that is not there.
ABSENT: Final = "absent"

STALE_STATUS: Final = 81
LOCKED_STATUS: Final = 82
UNCHANGED_STATUS: Final = 85

# The words of strerror(3) in the C locale, and of `replaceable` below, with what to do about it.
_OBSTACLES: Final = {
    "No space left on device": "make room there, then run again",
    "Disk quota exceeded": "make room there, then run again",
    "Read-only file system": "is the disk mounted read-only after an error? see dmesg and mount",
    "write-protected": "see mount and lsattr; chattr -i makes an immutable file an ordinary one",
    "Operation not permitted": "see lsattr; chattr -i makes an immutable folder an ordinary one",
    "Input/output error": "the disk fails: see dmesg",
}

# `flush` takes folders; one that is gone by now, or on a disk that knows no fsync of folders, is left to a sync of all.
# What a login, or a way to root, leaves of the environment is its own business.
PATH: Final = 'export LC_ALL=C PATH="/run/wrappers/bin:/run/current-system/sw/bin:$PATH"\n'
_PROLOGUE = (
    f"set -eu\numask 077\n{PATH}"
    """\
fail() { printf '%s\\n' "$2" >&2; exit "$1"; }
digest() { if [ -f "$1" ]; then sha256sum < "$1" | cut -d' ' -f1; else echo absent; fi; }
expect() { [ "$(digest "$1")" = "$2" ] || fail 81 "$1 is not what it was a moment ago"; }
replaceable() { [ -w "$1" ] || [ ! -e "$1" ] || fail 85 "$1 is write-protected (read-only disk, or chattr +i)"; }
stage() {
  rm -f "$1.nixprov-new"
  base64 -d > "$1.nixprov-new" || fail 85 "$1 cannot be written"
  [ "${4-}" != like ] || cp --attributes-only --preserve=mode,xattr "$1" "$1.nixprov-new" 2>/dev/null || :
  chown "$3" "$1.nixprov-new"
  chmod "$2" "$1.nixprov-new"
}
folder() { [ -d "$1" ] || made="$1 $made"; mkdir -p "$1"; chmod "$2" "$1"; }
flush() { for folder; do [ ! -d "$folder" ] || sync "$folder" 2>/dev/null || sync; done; }
"""
)

# From here on an early end takes back what was staged, and says by its status that nothing else was done.
_LOCK = """\
made=
[ -d /var/lib/nixprov ] || made=/var/lib/nixprov
mkdir -p /var/lib/nixprov || exit 85
exec 9< /var/lib/nixprov
flock -w {wait_s} 9 || fail 82 'another transaction is under way'
# The one that was waited for may have taken the folder away, and the next one would lock another.
[ /proc/self/fd/9 -ef /var/lib/nixprov ] || fail 82 'another transaction has just ended'
touched=no
ended() {{
  status=$1
  {unstage}
  if [ "$touched" = no ]; then
    rmdir $made 2>/dev/null || :
    case $status in 8[1-4]) ;; *) exit 85 ;; esac
  fi
}}
trap 'ended $?' EXIT
"""


@dataclass(frozen=True, slots=True)
class MakeDir:
    path: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Put `content` at `path`; refused when the file's digest is not `expect` ("absent", sha256, or None: any).

    A file that was expected and is replaced keeps its access list and its extended attributes.
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
    """Copy a file that a person changed to `copy` beside it; named before the part that replaces or removes it."""

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
    `first` is shell that runs when all is staged, before the first rename. `wait_s` is how long another transaction is
    waited for, which takes moments. `crash_at` is for tests: "staged", or the number of the change before which the
    script kills itself.
    """

    parts: Sequence[Part]
    journal_before: str
    journal: bytes | None = None
    guard: str = ""
    first: str = ""
    wait_s: int = 0
    crash_at: str = field(default="", kw_only=True)

    def script(self) -> bytes:
        """Render for `sh -s`. Secrets are inside: it goes to standard input and nowhere else."""
        parts: list[Part] = list(self.parts)
        if self.journal is not None:
            parts = [MakeDir(STATE_DIR, 0o700), WriteFile(JOURNAL, self.journal, 0o600), *parts]
        lines = [_PROLOGUE, _LOCK.format(wait_s=self.wait_s, unstage=_unstage(parts))]
        lines += [f"expect {JOURNAL} {self.journal_before}"]
        lines += [self.guard] if self.guard else []
        lines += [line for part in parts for line in _check(part)]
        lines += [line for part in parts for line in _stage(part)]
        lines += [*_flush_staged(parts), *([self.first] if self.first else [])]
        lines += [*self._crash("staged"), "touched=yes"]
        for number, change in enumerate(_changes(sorted(parts, key=lambda part: not _is_secret(part))), 1):
            lines += [*self._crash(str(number)), *change]
        return ("\n".join(lines) + "\n").encode()

    def _crash(self, point: str) -> list[str]:
        return ["sync; kill -9 $$"] if self.crash_at == point else []


def unchanged_because(stderr: str) -> tuple[str, str]:
    """What an end with UNCHANGED_STATUS means: one line, and what to do; `stderr` is what the script said."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    reason = next((words for words in _OBSTACLES if words in stderr), "")
    said = lines[-1] if lines else "no message"
    line = said if reason in said else f"{said} ({reason.lower()})"
    return f"{line}: nothing was changed", _OBSTACLES.get(reason, "")


def _staged(parts: Sequence[Part]) -> list[str]:
    """Where new content lies before its rename, quoted for the shell."""
    places = [part.path for part in parts if isinstance(part, WriteFile)]
    places += [part.copy for part in parts if isinstance(part, KeepCopy)]
    return [shlex.quote(f"{place}{STAGED_SUFFIX}") for place in places]


def _unstage(parts: Sequence[Part]) -> str:
    """A full disk or a signal leaves no staged file behind; after the renames there is none."""
    staged = _staged(parts)
    return f"rm -f {' '.join(staged)}" if staged else ":"


def _flush_staged(parts: Sequence[Part]) -> list[str]:
    """A disk that could not keep the content says so here and not later, when the old content is gone."""
    staged = _staged(parts)
    folders = {path for part in parts if isinstance(part, MakeDir) for path in (part.path, _folder(part.path))}
    return [*([f"sync {' '.join(staged)}"] if staged else []), *_flush(folders)]


def _changes(parts: Sequence[Part]) -> Iterator[list[str]]:
    """One list of lines a change. What the next ones rest on is flushed before them: the journal and copies at once."""
    open_folders: set[str] = set()
    for part in parts:
        change = _apply(part)
        if not change:
            continue
        if isinstance(part, Shell) or (isinstance(part, RemoveTree) and JOURNAL.startswith(f"{part.path}/")):
            change = [*_flush(open_folders), *change]
            open_folders = set()
        open_folders |= _touched(part)
        if isinstance(part, KeepCopy) or _is_secret(part) or (isinstance(part, WriteFile) and part.path == JOURNAL):
            change += _flush(open_folders)
            open_folders = set()
        yield change
    if open_folders:
        yield _flush(open_folders)


def _flush(folders: Collection[str]) -> list[str]:
    return [f"flush {' '.join(map(shlex.quote, sorted(folders)))}"] if folders else []


def _is_secret(part: Part) -> bool:
    return isinstance(part, WriteFile) and isinstance(part.content, Secret)


def _touched(part: Part) -> set[str]:
    """The folders in which a change must be flushed to last."""
    match part:
        case MakeDir() | Shell():
            return set()
        case KeepCopy(copy=path):
            return {_folder(path)}
        case SetMtime(path=path):
            return {path}
        case _:
            return {_folder(part.path)}


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _check(part: Part) -> list[str]:
    """Immutable files and read-only disks are seen before anything is staged: root's rename fails on nothing else."""
    if not isinstance(part, WriteFile | RemoveFile):
        return []
    place = shlex.quote(part.path)
    return [f"replaceable {place}", *([f"expect {place} {part.expect}"] if part.expect is not None else [])]


def _stage(part: Part) -> list[str]:
    """Folders come first and files beside their places: an early end leaves only `.nixprov-new` files behind."""
    if isinstance(part, MakeDir):
        path = shlex.quote(part.path)
        return [f"folder {path} {part.mode:04o}"]
    if isinstance(part, KeepCopy):
        copy = shlex.quote(f"{part.copy}{STAGED_SUFFIX}")
        return [f"rm -f {copy}", f"cp -p {shlex.quote(part.path)} {copy}"]
    if isinstance(part, WriteFile):
        place = shlex.quote(part.path)
        content = part.content.reveal().encode() if isinstance(part.content, Secret) else part.content
        # printf is the shell's own: what it is given appears in no process list, unlike a program's arguments.
        data = base64.b64encode(content).decode()
        like = "" if part.expect in (None, ABSENT) else " like"
        stage = f"printf %s {shlex.quote(data)} | stage {place} {part.mode:04o} {part.owner}{like}"
        return [stage, *([] if part.mtime is None else [f"touch -d @{part.mtime} {place}{STAGED_SUFFIX}"])]
    return []


def _apply(part: Part) -> list[str]:
    match part:
        case MakeDir():
            return []
        case KeepCopy(copy=path) | WriteFile(path=path):
            place = shlex.quote(path)
            return [f"mv -f {place}{STAGED_SUFFIX} {place}"]
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
rm -rf --one-file-system {place}"""
