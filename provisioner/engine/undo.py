"""The opposite of a transaction's changes of files, for the host to run when nobody confirms what they led to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from provisioner.hosts.facts import FileFact, digest
from provisioner.hosts.script import MakeDir, Part, RemoveEmptyDir, RemoveFile, SetMtime, WriteFile

FOLDER = "/etc/nixos"


def undo(parts: Iterable[Part], before: Mapping[str, FileFact], directory_mtime: int | None) -> tuple[Part, ...]:
    """Parts that give back the files of /etc/nixos as `before` has them (by path); newest change first.

    Each expects what `parts` leaves: a file that a person edited meanwhile stops it, and nothing is lost.
    """
    undone = [opposite for part in parts for opposite in _opposite(part, before)][::-1]
    times = [] if directory_mtime is None or not undone else [SetMtime(FOLDER, directory_mtime)]
    return (*undone, *times)


def _opposite(part: Part, before: Mapping[str, FileFact]) -> Iterator[Part]:
    match part:
        case WriteFile(path=path, content=bytes(content)) if path.startswith(f"{FOLDER}/"):
            yield from _back(path, digest(content), before.get(path))
        case RemoveFile(path=path) if path.startswith(f"{FOLDER}/") and path in before:
            yield from _back(path, digest(None), before[path])
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
