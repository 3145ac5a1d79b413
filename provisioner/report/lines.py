"""The last lines of a log that matter: the place of the fault, without the usual lines of a build. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

LIMIT: Final = 14
_LOOK_BACK: Final = 60
# A builder says why before Nix says that it failed.
_BEFORE: Final = 4
# The usual lines of Nix, nixos-rebuild and nixprov in a good run.
_NOISE: Final = re.compile(
    r"^(?:building '/nix/store|building the system configuration|copying path '|copying \d+ paths"
    r"|th(?:is|ese)(?: \d+)? (?:derivation|path)s? will be|  /nix/store/|evaluating |unpacking |\s*$"
    r"|nixprov: |Done\. The new configuration is|/nix/store/\S+$)"
)
_ERROR: Final = re.compile(r"\b(?:error|fatal|failed|panic)\b|^Failed ", re.IGNORECASE)
_TRACE: Final = re.compile(r"^\s*(?:… |\(stack trace truncated|\.\.\. )|^\s*(?:at /nix/store/.*|\s*\d*\|.*|\^)$")


def that_matter(log: Iterable[str], limit: int = LIMIT) -> tuple[str, ...]:
    """At most `limit` lines, from a little before the first complaint on; the middle goes first when there are more."""
    told = [line for line in log if not _NOISE.match(line)][-_LOOK_BACK:]
    first = next((number for number, line in enumerate(told) if _ERROR.search(line)), max(0, len(told) - limit))
    told = told[max(0, first - _BEFORE) :]
    if len(told) > limit:
        # Frames inside nixpkgs are the least telling part of an evaluation's trace.
        told = [line for line in told if not _TRACE.match(line)]
    if len(told) <= limit:
        return tuple(told)
    head = limit // 3
    return (*told[:head], f"[… {len(told) - limit + 1} lines]", *told[-(limit - head - 1) :])
