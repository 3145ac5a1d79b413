r"""The one way to a person for foreign text: from a host, an inventory, a provider or the command line.

A terminal obeys escape sequences, and every screen reorders at a bidirectional control. So each invisible character is
spelled, in one spelling everywhere: `\x1b`, `\u202e`, `\U000e0041`. Lines are joined from such text. All of standard
output and standard error goes through `Guard`, which spells forgotten text (ADR 0021).
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, TextIO

from typing_extensions import Buffer, override

from provisioner.report.colour import PAINT

# Controls, formats (bidirectional and zero-width among them), surrogates, private and unassigned characters.
# Separators of lines and paragraphs too. Blanks of other widths stay: they are seen.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks without a glyph (Unicode, DerivedCoreProperties.txt, Default_Ignorable_Code_Point).
_BLANK: Final = frozenset(
    chr(code)
    for codes in (
        *((0x34F,), range(0x115F, 0x1161), range(0x17B4, 0x17B6), range(0x180B, 0x1810), (0x3164,)),
        *(range(0xFE00, 0xFE10), (0xFFA0,), range(0xE0100, 0xE01F0)),
    )
    for code in codes
)
_SPECIAL: Final = re.compile(r"[^\t\n -~]")
# The sequences of compilers and Nix: colours of lines (SGR), and the erasing to the end of a line (EL).
_COLOURS: Final = re.compile(r"\x1b\[[0-9;:]*[mK]")


def visible(text: str) -> str:
    """The same text with every invisible character spelled; line ends and tabs stay, as layouts own them."""
    return _SPECIAL.sub(_spelled, text)


def without_colours(text: str) -> str:
    """A log's own colours are neither obeyed nor worth reading."""
    return _COLOURS.sub("", text)


def _spelled(found: re.Match[str]) -> str:
    return _spelling(found[0])


@lru_cache(maxsize=4096)
def _spelling(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN and character not in _BLANK:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004


class Guard:
    """A stream to people: no text that is printed on it steers a terminal. Our own colours pass (`colour.PAINT`)."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.buffer = _Bytes(self)

    def write(self, text: str) -> int:
        return self.stream.write(text if _SPECIAL.search(text) is None else _guarded(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Bytes(io.BufferedIOBase):
    """The same for writers of bytes, such as click for completions."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Buffer, /) -> int:
        self._guard.write(bytes(data).decode("utf-8", "backslashreplace"))
        return memoryview(data).nbytes

    @override
    def flush(self) -> None:
        self._guard.stream.flush()

    @override
    def close(self) -> None:
        """Leave the stream open: it is not ours."""


def _guarded(text: str) -> str:
    pieces, end = [], 0
    for paint in PAINT.finditer(text):
        pieces += [visible(text[end : paint.start()]), paint[0]]
        end = paint.end()
    return "".join((*pieces, visible(text[end:])))


def unguarded(stream: TextIO) -> TextIO:
    """For a table that moves the cursor itself; each of its cells is `visible`."""
    return stream.stream if isinstance(stream, Guard) else stream
