"""Paths as operators write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(name: str) -> Path:
    """`~` and `~user` are homes. That of nobody stays as it stands, as in a shell, and is then just not there."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises RuntimeError for it
