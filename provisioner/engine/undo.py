"""The opposite of a transaction's changes of files, for the host to run when its switch is not confirmed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from provisioner.hooks import Hook
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


def undo(parts: Iterable[Part], before: Facts, hook: Hook) -> tuple[Part, ...]:
    """Parts that give back the user's files as `before` has them; newest change first.

    Each expects the file as `parts` leaves it: a person's edit meanwhile stops it, and nothing is lost.
    """
    files = _Files(before, hook)
    undone = [opposite for part in parts for opposite in _opposite(part, files)][::-1]
    time = hook.folder_time(before)
    times = [SetMtime(hook.folder, time)] if undone and time is not None else []
    return (*undone, *times)


class _Files:
    """The file found at a part's path: the folder may be a link, and so may a file in it."""

    def __init__(self, facts: Facts, hook: Hook) -> None:
        self._found = facts.files()
        self._known, self._real = f"{hook.folder}/", f"{hook.real_folder(facts)}/"

    def get(self, path: str) -> FileFact | None:
        return self._found.get(self._real + path.removeprefix(self._known) if self.is_in(path) else path)

    def is_in(self, path: str) -> bool:
        return path.startswith(self._known)

    def has_had(self, path: str) -> bool:
        """Whether `path` is to be given back: all of the folder, and the targets of its links."""
        return self.is_in(path) or self.get(path) is not None


def _opposite(part: Part, before: _Files) -> Iterator[Part]:
    match part:
        case RemoveFile(path=path) if path.endswith(STAGED_SUFFIX):
            return
        case WriteFile(path=path, content=bytes(content)) if before.has_had(path):
            yield from _back(path, digest(content), before.get(path))
        case RemoveFile(path=path) if before.get(path) is not None:
            yield from _back(path, digest(None), before.get(path))
        case MakeDir(path=path) if before.is_in(path):
            yield RemoveEmptyDir(path)
        case RemoveEmptyDir(path=path) if before.is_in(path):
            # In the reversed order it stands before the files that go back into it.
            yield MakeDir(path)
        case _:
            return


def _back(path: str, now: str, old: FileFact | None) -> Iterator[Part]:
    if old is None or old.content is None:
        yield RemoveFile(path, expect=now)
    else:
        yield WriteFile(path, old.content, old.mode, old.owner, expect=now, mtime=old.mtime)
