"""A host transaction as data, and its one POSIX script.

The script takes the lock and checks again the files that it is about to replace. It puts every new file beside its
place, flushes, and only then renames, in order. The journal is renamed first, so the next run knows the intent even if
nothing else happened. Only secrets are renamed before it: a journal never names an absent secret. The one before says
that they are awaited. A full or read-only disk shows while files are staged. Then nothing is changed, and the status
says so (UNCHANGED_STATUS).

Flushes between the steps keep their order in a power loss. New files are flushed before the first rename, the journal
before its announced changes. Changed files are flushed before commands use them, and all of it before the journal
goes. A flush is fsync of file and folder, not of whole disks. Those may have gigabytes of a build to write.

Owns no connection: a script is bytes for `sh -s`. It needs POSIX.1-2017 sh, and base64, stat, flock and sync of
coreutils and util-linux. Every NixOS has them in its system path.
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
# Stands for the digest of an absent file.
ABSENT: Final = "absent"

STALE_STATUS: Final = 81
LOCKED_STATUS: Final = 82
UNCHANGED_STATUS: Final = 85

# The words of strerror(3) in the C locale, and of `replaceable` below, each with its remedy.
_OBSTACLES: Final = {
    "No space left on device": "make room there, then run again",
    "Disk quota exceeded": "make room there, then run again",
    "Read-only file system": "is the disk mounted read-only after an error? see dmesg and mount",
    "write-protected": "see mount and lsattr; chattr -i makes an immutable file an ordinary one",
    "Operation not permitted": "see lsattr; chattr -i makes an immutable folder an ordinary one",
    "Input/output error": "the disk fails: see dmesg",
}

# `flush` skips a folder that is gone by now. On a disk without fsync of folders it falls back to a sync of all. PATH is
# set here because a login, or a way to root, may leave little of the environment.
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

# From here on an early end removes the staged files. Its status says that nothing else was done.
_LOCK = """\
made=
[ -d /var/lib/nixprov ] || made=/var/lib/nixprov
mkdir -p /var/lib/nixprov || exit 85
exec 9< /var/lib/nixprov
flock -w {wait_s} 9 || fail 82 'another transaction is under way'
# The transaction before may have removed the folder, and the next one would lock a new one.
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

    A replaced file that was expected keeps its access list and its extended attributes. `owner` is `uid:gid`.
    `mtime` (seconds since the epoch) gives a user's file back with its old time; None leaves the time alone.
    """

    path: str
    content: bytes | Secret
    mode: int = 0o644
    owner: str = "0:0"
    expect: str | None = None
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class KeepCopy:
    """Copy a file that a person changed to `copy` beside it. Comes before the part that replaces or removes it."""

    path: str
    copy: str


@dataclass(frozen=True, slots=True)
class RemoveFile:
    path: str
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class RemoveTree:
    """Remove a folder with its content, after unmounting all mounts below it."""

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
    """Commands that no other part can express. They run in order with the renames, and never hold a secret."""

    text: str


Part = MakeDir | KeepCopy | WriteFile | RemoveFile | RemoveTree | RemoveEmptyDir | SetMtime | Shell


@dataclass(frozen=True, slots=True)
class Transaction:
    """The changes of one remote command.

    `journal_before` is the digest of the plan's journal ("absent" or sha256). A run that another operator overtook
    stops with STALE_STATUS and has changed nothing. `journal` is the new content, None to leave it. `guard` is shell
    that runs first, under the lock. Its `fail STATUS TEXT` stops the transaction before any change. `first` is shell
    that runs when all is staged, before the first rename. `wait_s` limits the wait for another transaction, in
    seconds; one takes moments. `crash_at` is for tests: the script kills itself at "staged", or before the change of
    that number.
    """

    parts: Sequence[Part]
    journal_before: str
    journal: bytes | None = None
    guard: str = ""
    first: str = ""
    wait_s: int = 0
    crash_at: str = field(default="", kw_only=True)

    def script(self) -> bytes:
        """Render for `sh -s`. Secrets are inside, so the script goes to standard input and nowhere else."""
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
    """Explain an end with UNCHANGED_STATUS: one line and its remedy. `stderr` is the output of the script."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    reason = next((words for words in _OBSTACLES if words in stderr), "")
    said = lines[-1] if lines else "no message"
    line = said if reason in said else f"{said} ({reason.lower()})"
    return f"{line}: nothing was changed", _OBSTACLES.get(reason, "")


def _staged(parts: Sequence[Part]) -> list[str]:
    """The places of new content before its rename, quoted for the shell."""
    places = [part.path for part in parts if isinstance(part, WriteFile)]
    places += [part.copy for part in parts if isinstance(part, KeepCopy)]
    return [shlex.quote(f"{place}{STAGED_SUFFIX}") for place in places]


def _unstage(parts: Sequence[Part]) -> str:
    """Shell that removes staged files after a full disk or a signal. After the renames there are none."""
    staged = _staged(parts)
    return f"rm -f {' '.join(staged)}" if staged else ":"


def _flush_staged(parts: Sequence[Part]) -> list[str]:
    """Flush the staged content. A disk that cannot keep it fails here, while the old content is still there."""
    staged = _staged(parts)
    folders = {path for part in parts if isinstance(part, MakeDir) for path in (part.path, _folder(part.path))}
    return [*([f"sync {' '.join(staged)}"] if staged else []), *_flush(folders)]


def _changes(parts: Sequence[Part]) -> Iterator[list[str]]:
    """Yield one list of lines per change. Flush the journal, copies and secrets at once: later changes need them."""
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
    """The folders to flush for a change to last."""
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
    """Check for immutable files and read-only disks before anything is staged: root's rename fails on nothing else."""
    if not isinstance(part, WriteFile | RemoveFile):
        return []
    place = shlex.quote(part.path)
    return [f"replaceable {place}", *([f"expect {place} {part.expect}"] if part.expect is not None else [])]


def _stage(part: Part) -> list[str]:
    """Stage folders in place and files beside their places. An early end leaves only `.nixprov-new` files behind."""
    if isinstance(part, MakeDir):
        path = shlex.quote(part.path)
        return [f"folder {path} {part.mode:04o}"]
    if isinstance(part, KeepCopy):
        copy = shlex.quote(f"{part.copy}{STAGED_SUFFIX}")
        return [f"rm -f {copy}", f"cp -p {shlex.quote(part.path)} {copy}"]
    if isinstance(part, WriteFile):
        place = shlex.quote(part.path)
        content = part.content.reveal().encode() if isinstance(part.content, Secret) else part.content
        # printf is the shell's own. Its arguments appear in no process list, unlike those of a program.
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
    """Unmount the deepest mounts first, and lazily: an engine's helper may still use one."""
    place = shlex.quote(path)
    return f"""\
cut -d' ' -f2 /proc/mounts | grep -F {place}/ | sort -r | while read -r mount; do
  umount -l "$mount" || :
done
rm -rf --one-file-system {place}"""
