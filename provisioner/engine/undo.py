"""The opposite of a transaction's changes of files, for the host to run when nobody confirms what they led to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from provisioner.machine.facts import Facts, FileFact, digest
from provisioner.machine.transaction import (
    STAGED_SUFFIX,
    MakeDir,
    Part,
    RemoveEmptyDir,
    RemoveFile,
    SetMtime,
    WriteFile,
)

FOLDER = "/etc/nixos"


def undo(parts: Iterable[Part], before: Facts) -> tuple[Part, ...]:
    """Parts that give back the user's files as `before` has them; newest change first.

    Each expects what `parts` leaves: a file that a person edited meanwhile stops it, and nothing is lost.
    """
    files = _Files(before)
    undone = [opposite for part in parts for opposite in _opposite(part, files)][::-1]
    time = before.text("etc-nixos-mtime")
    times = [SetMtime(FOLDER, int(time))] if undone and time.isdigit() else []
    return (*undone, *times)


class _Files:
    """What was found where a part's path leads to: /etc/nixos may be a link, and so may configuration.nix."""

    def __init__(self, facts: Facts) -> None:
        self._found = facts.files()
        self._folder = facts.text("etc-nixos") or FOLDER

    def get(self, path: str) -> FileFact | None:
        real = f"{self._folder}{path.removeprefix(FOLDER)}" if path.startswith(f"{FOLDER}/") else path
        return self._found.get(real)

    def has_had(self, path: str) -> bool:
        """Whether `path` is of those that are to be given back: all of the folder, and what its links lead to."""
        return path.startswith(f"{FOLDER}/") or self.get(path) is not None


def _opposite(part: Part, before: _Files) -> Iterator[Part]:
    match part:
        case RemoveFile(path=path) if path.endswith(STAGED_SUFFIX):
            return
        case WriteFile(path=path, content=bytes(content)) if before.has_had(path):
            yield from _back(path, digest(content), before.get(path))
        case RemoveFile(path=path) if before.get(path) is not None:
            yield from _back(path, digest(None), before.get(path))
        case MakeDir(path=path) if path.startswith(f"{FOLDER}/"):
            yield RemoveEmptyDir(path)
        case RemoveEmptyDir(path=path) if path.startswith(f"{FOLDER}/"):
            # It stands in front of the files that go back into it once the order is turned round.
            yield MakeDir(path)
        case _:
            return


def _back(path: str, now: str, old: FileFact | None) -> Iterator[Part]:
    if old is None or old.content is None:
        yield RemoveFile(path, expect=now)
    else:
        yield WriteFile(path, old.content, old.mode, old.owner, expect=now, mtime=old.mtime)
