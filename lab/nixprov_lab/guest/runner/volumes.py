"""Volumes of a job's containers: entries of `volumes`, and gitlab-runner's names for its own."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .errors import JobFailed, Reason

_DIR: Final = r'/(?:[^\\/:*?"<>|\r\n]+/?)*'
_NAME: Final = r'[^\\/:*?"<>|\r\n]+'
_VOLUME: Final = re.compile(
    rf"(?:(?P<source>{_DIR}|{_NAME}):)?(?P<target>{_DIR})"
    r"(?::(?P<mode>(?i:ro|rw|O)))?(?:[:,](?P<label>(?i:z)))?"
    r"(?:[:,](?P<propagation>(?i:shared|slave|private|rshared|rslave|rprivate)))?"
)


@dataclass(frozen=True)
class Volume:
    """One volume. An empty `source` is a volume that the runner makes itself."""

    source: str
    target: str
    options: tuple[str, ...] = ()

    @property
    def bind(self) -> str:
        return ":".join(part for part in (self.source, self.target, ",".join(self.options)) if part)


def parse(text: str, expand: Callable[[str], str], base: str) -> Volume:
    """Parse an entry. Only its target has variables expanded; a relative one lies below `base`. Raises JobFailed."""
    found = _VOLUME.fullmatch(text)
    if not found:
        raise JobFailed(f"parse volume: invalid volume specification: {text!r}", Reason.SYSTEM)
    target = expand(found["target"])
    if posixpath.normpath(target) == "/":
        raise JobFailed("build directory needs to be a non-root path", Reason.SYSTEM)
    options = tuple(option for option in (found["mode"], found["label"], found["propagation"]) if option)
    return Volume(found["source"] or "", posixpath.join(base, target), options)


def contains(target: str, path: str) -> bool:
    """Whether a mount on `target` holds `path`."""
    target, path = posixpath.normpath(target), posixpath.normpath(path)
    return path == target or path.startswith(target.rstrip("/") + "/")


def cache_name(owner: str, target: str, *, protected: bool) -> str:
    """The name of the volume for `target`. `owner` is the project (it is kept) or the job (it is not)."""
    digest = hashlib.md5(target.encode(), usedforsecurity=False).hexdigest()
    return f"{owner}-cache-{digest}{'-protected' if protected else ''}"
