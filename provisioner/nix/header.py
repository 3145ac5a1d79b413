"""The first line of every file we write on a host: whose it is, and whether somebody edited it since.

Knows nothing of the language of the file, but that `#` starts a comment in it.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, Self

_LINE: Final = re.compile(
    rb"# Managed by nixprov (?P<version>[0-9A-Za-z.+!-]+); do not edit \(sha256:(?P<digest>[0-9a-f]{64})\);"
    rb' "nixprov down" removes it\r?\n'
)


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a file says: `version` of the nixprov that wrote it, `digest` (sha256, hex) of its body then.

    `is_intact` is whether the body still is that one, byte for byte.
    """

    version: str
    digest: str
    is_intact: bool

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """Read the header of a file's content; None when the file is not ours."""
        found = _LINE.match(data)
        if found is None:
            return None
        digest = found["digest"].decode()
        return cls(found["version"].decode(), digest, digest == _digest(data[found.end() :]))


def managed(body: str) -> str:
    """Put our header above a file's text; without a time in it, so that the same text stays the same file."""
    digest = _digest(body.encode())
    return f'# Managed by nixprov {_version()}; do not edit (sha256:{digest}); "nixprov down" removes it\n{body}'


@functools.cache
def _version() -> str:
    """Looked up once: the metadata is read from disk, and every file of every host has a header."""
    return version("nixprov")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
