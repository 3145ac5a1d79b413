"""Words for hosts, times and foreign text. Pure; knows no stream and no colour."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from provisioner.masking import without_tokens
from provisioner.outcome import Outcome
from provisioner.report.foreign import visible, without_colours

SYMBOLS: Final = {
    Outcome.UNCHANGED: "=",
    Outcome.CHANGED: "✓",
    Outcome.UNREACHABLE: "!",
    Outcome.NOT_DESCRIBED: "≠",
    Outcome.FAILED: "✗",
    Outcome.CI: "✗",
    Outcome.ROLLED_BACK: "↶",
    Outcome.ROLLBACK_FAILED: "✗",
    Outcome.INTERRUPTED: "■",
    Outcome.SKIPPED: "·",
}
_MINUTE_S: Final = 60
_KIBI: Final = 1024
_STORE_PATH: Final = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-")


def elapsed(seconds: float) -> str:
    """`8.3 s` below a minute, then `4:05`, then `1:02:09`."""
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(number: int) -> str:
    """`812 B`, `1.4 KiB`, `23.0 GiB`."""
    value, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < _KIBI:
            break
        value, unit = value / _KIBI, larger
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


def ago(time: str, now: datetime) -> str:
    """`3 min ago` for an ISO 8601 time; any other text stays as it is."""
    try:
        seconds = (now - datetime.fromisoformat(time)).total_seconds()
    except (ValueError, TypeError):
        return time
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def clock(seconds: float) -> str:
    """Whole seconds for a text that is redrawn again and again: `0:08`, `4:05`, `1:02:09`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def names(hosts: Sequence[str], limit: int = 8) -> str:
    """`a, b, c and 40 more`."""
    shown = ", ".join(map(clean, hosts[:limit]))
    return f"{shown} and {len(hosts) - limit} more" if len(hosts) > limit else shown


def clean(text: str) -> str:
    """One line of foreign text that can neither steer a terminal nor show a token."""
    return without_tokens(visible(without_colours(text).replace("\n", " ").expandtabs(4)))


def told(text: str) -> str:
    """Lines of foreign text that keep their ends: a traceback."""
    return without_tokens(visible(text))


def without_hashes(text: str) -> str:
    """Store paths by their names, where there is room for little more."""
    return _STORE_PATH.sub("", text)


def draining(jobs: int, limit_s: float) -> str:
    return f"waits for {count(jobs, 'job')}, {elapsed(limit_s)} at most"


def totals(numbers: Sequence[tuple[int, str]]) -> str:
    """`3 changed, 1 failed`: zeros are left out."""
    return ", ".join(f"{number} {word}" for number, word in numbers if number) or "nothing done"
