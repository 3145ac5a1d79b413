"""The first line of every file we write on a host: our mark, and a digest that shows later edits.

Of the file's language it knows only that `#` starts a comment.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final, Self

# The word was the version of the nixprov that wrote the file. It is the same for all by now, but must stay. Without
# one an older nixprov would take the file for a stranger's, and its `down` would leave it.
_WORD: Final = "alone"
_LINE: Final = re.compile(
    rb"# Managed by nixprov (?P<word>[0-9A-Za-z.+!-]+); do not edit \(sha256:(?P<digest>[0-9a-f]{64})\);"
    rb' "nixprov down" removes it\r?\n'
)


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file: `digest` (sha256, hex) of its body when it was written.

    `version` is that of an older nixprov, and empty since then. Two headers are compared without it. `is_intact` is
    true if the body still is that one, byte for byte.
    """

    version: str = field(compare=False)
    digest: str
    is_intact: bool

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """Read the header of a file's content; None when the file is not ours."""
        found = _LINE.match(data)
        if found is None:
            return None
        word, digest = found["word"].decode(), found["digest"].decode()
        return cls("" if word == _WORD else word, digest, digest == _digest(data[found.end() :]))


def managed(body: str) -> str:
    """Put our header above a file's text; without time and version, so that the same text stays the same file."""
    digest = _digest(body.encode())
    return f'# Managed by nixprov {_WORD}; do not edit (sha256:{digest}); "nixprov down" removes it\n{body}'


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
