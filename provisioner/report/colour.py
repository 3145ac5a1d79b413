"""Whether a stream gets colour and a moving table, and how words are painted. Knows names, not meanings, of colours.

The first match wins: NO_COLOR not empty (no-color.org); CLICOLOR_FORCE or FORCE_COLOR not 0; CLICOLOR=0
(bixense.com/clicolors); TERM=dumb or unset. Without a match a terminal gets colours, another stream none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

from provisioner.outcome import Outcome

_SGR: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "magenta": "35"}
_CODE: Final = f"(?:{'|'.join(_SGR.values())})"
# The sequences that a `Painter` writes, and no others.
PAINT: Final = re.compile(rf"\x1b\[(?:0|{_CODE}(?:;{_CODE})*)m")
COLOURS: Final = {
    Outcome.UNCHANGED: "dim",
    Outcome.CHANGED: "green",
    Outcome.UNREACHABLE: "yellow",
    Outcome.NOT_DESCRIBED: "yellow",
    Outcome.FAILED: "red",
    Outcome.CI: "red",
    Outcome.ROLLED_BACK: "magenta",
    Outcome.ROLLBACK_FAILED: "red",
    Outcome.INTERRUPTED: "yellow",
    Outcome.SKIPPED: "dim",
}


@dataclass(frozen=True, slots=True)
class Painter:
    """Paints, or leaves as it is."""

    on: bool = False

    def __call__(self, text: str, *styles: str) -> str:
        codes = ";".join(_SGR[style] for style in styles if style)
        return f"\x1b[{codes}m{text}\x1b[0m" if self.on and codes and text else text

    def outcome(self, outcome: Outcome, text: str) -> str:
        return self(text, COLOURS[outcome])

    def diff(self, text: str) -> str:
        """A diff of `visible` text, line by line."""
        return "".join(self(line, _diff_style(line)) + "\n" for line in text.splitlines())


def _diff_style(line: str) -> str:
    if line.startswith(("+++", "---")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    if environment.get("NO_COLOR"):
        return False
    if any(environment.get(name, "0") not in ("", "0") for name in ("CLICOLOR_FORCE", "FORCE_COLOR")):
        return True
    if environment.get("CLICOLOR") == "0":
        return False
    return can_redraw(stream, environment)


def can_redraw(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal that can move its cursor; independent of colour."""
    return stream.isatty() and environment.get("TERM", "dumb") not in ("", "dumb")
