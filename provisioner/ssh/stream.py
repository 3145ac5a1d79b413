"""A host's output, read piece by piece. The time grows with its size, not with the number of pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from provisioner import limits


@dataclass(slots=True)
class Prelude:
    """The output before `mark`. Each byte is kept once and searched once; `since` is the start of the last piece."""

    mark: bytes
    said: bytearray = field(default_factory=bytearray)
    since: int = 0

    def feed(self, data: bytes) -> bytes | None:
        """The bytes after the mark, once it has come; None until then."""
        self.since = len(self.said)
        self.said += data
        place = self.said.find(self.mark, self._from(self.mark))
        if place < 0:
            return None
        rest = bytes(self.said[place + len(self.mark) :])
        del self.said[place:]
        return rest

    def fresh(self, words: bytes) -> int:
        """The number of `words` that ended in the last piece."""
        return self.said.count(words, self._from(words))

    def text(self) -> str:
        return self.said.decode("utf-8", "replace")

    def _from(self, words: bytes) -> int:
        return max(0, self.since - len(words) + 1)


@dataclass(slots=True)
class Lines:
    """Cut a stream into lines. One beyond `limit` comes in pieces, so that no endless line is kept."""

    limit: int = limits.HOST_LINE
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0
    _goes_on: bool = False

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bool]]:
        """Lines without their ends, and whether each is only the next piece of the one before."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._keep(end)
            yield self._take(goes_on=False)
        self._keep(rest)
        if self._size > self.limit:
            yield self._take(goes_on=True)

    def _keep(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self._size += len(part)

    def _take(self, *, goes_on: bool) -> tuple[str, bool]:
        taken = b"".join(self._parts).decode("utf-8", "replace"), self._goes_on
        self._parts, self._size, self._goes_on = [], 0, goes_on
        return taken
