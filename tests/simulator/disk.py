"""A host's files: path to content, mode, owner and time. Without links, access lists and disk limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.simulator.clock import Clock


@dataclass
class Entry:
    """A file, or a folder where `content` is None; `mtime` is seconds since the epoch, `owner` uid:gid."""

    content: bytes | None
    mode: int
    owner: str
    mtime: int

    @property
    def kind(self) -> str:
        """As stat(1) calls it (%F)."""
        if self.content is None:
            return "directory"
        return "regular file" if self.content else "regular empty file"

    @property
    def stat(self) -> bytes:
        """As `stat -c '%a %u %g %Y %F'` prints it."""
        uid, gid = self.owner.split(":")
        return f"{self.mode:o} {uid} {gid} {self.mtime} {self.kind}".encode()


@dataclass
class Disk:
    clock: Clock
    entries: dict[str, Entry] = field(default_factory=dict)

    def read(self, path: str) -> bytes | None:
        entry = self.entries.get(path)
        return entry.content if entry else None

    def exists(self, path: str) -> bool:
        return path in self.entries

    def below(self, folder: str) -> list[str]:
        return sorted(path for path in self.entries if path.startswith(f"{folder}/"))

    def in_(self, folder: str) -> list[str]:
        """The matches of the glob `folder/*`: no hidden names."""
        names = (path.removeprefix(f"{folder}/") for path in self.below(folder))
        return [f"{folder}/{name}" for name in names if "/" not in name and not name.startswith(".")]

    def write(self, path: str, content: bytes, mode: int = 0o644, owner: str = "0:0") -> None:
        parent = folder_of(path)
        if parent not in self.entries:
            raise FileNotFoundError(parent)
        if path not in self.entries:
            self._touch(parent)
        self.entries[path] = Entry(content, mode, owner, self.clock.epoch)

    def append(self, path: str, text: str) -> None:
        self.write(path, (self.read(path) or b"") + text.encode(), 0o600)

    def make_folder(self, path: str, mode: int = 0o755) -> None:
        """As `mkdir -p` does it; all new folders get the mode."""
        if path in ("", *self.entries):
            return
        parent = folder_of(path)
        self.make_folder(parent, mode)
        self.entries[path] = Entry(None, mode, "0:0", self.clock.epoch)
        self._touch(parent)

    def rename(self, before: str, after: str) -> bool:
        """Whether there was anything to rename."""
        entry = self.entries.pop(before, None)
        if entry is None:
            return False
        self.entries[after] = entry
        self._touch(folder_of(before))
        self._touch(folder_of(after))
        return True

    def remove(self, *paths: str) -> None:
        for path in paths:
            if self.entries.pop(path, None) is not None:
                self._touch(folder_of(path))

    def remove_tree(self, path: str) -> None:
        for inner in self.below(path):
            del self.entries[inner]
        self.remove(path)

    def remove_empty(self, path: str) -> bool:
        if path not in self.entries or self.below(path):
            return False
        self.remove(path)
        return True

    def set_mtime(self, path: str, mtime: int) -> None:
        if path in self.entries:
            self.entries[path].mtime = mtime

    def snapshot(self, folder: str) -> dict[str, tuple[bytes | None, int, str, int]]:
        """Everything below `folder` and the folder itself, to compare two moments."""
        paths = [*([folder] if folder in self.entries else []), *self.below(folder)]
        return {
            path: (entry.content, entry.mode, entry.owner, entry.mtime)
            for path in paths
            for entry in [self.entries[path]]
        }

    def _touch(self, folder: str) -> None:
        if folder in self.entries:
            self.entries[folder].mtime = self.clock.epoch


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]
