"""Paths as operators write them, reads within bounds, and files for their owner alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from provisioner.limits import TooLongError


def expanded(name: str) -> Path:
    """Replace `~` and `~user` by the home. An unknown user's stays as it stands, as in a shell."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises RuntimeError for it


def read(file: Path, limit: int) -> bytes:
    """Its content. Raises OSError, TooLongError beyond `limit` bytes: also /dev/zero ends."""
    with file.open("rb") as opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise TooLongError(limit)
    return content


def private(file: Path) -> IO[str]:
    """Open it anew for writing, for its owner alone. A link or file of that name is replaced. Raises OSError."""
    file.unlink(missing_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    return os.fdopen(handle, "w", encoding="utf-8", buffering=1)
