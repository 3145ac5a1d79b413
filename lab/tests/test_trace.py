"""Traces for people: stamps and section marks go, continued lines are joined, a growing trace is shown once."""

from __future__ import annotations

import pytest
from nixprov_lab.trace import Reader, readable

RAW = (
    "2026-11-23T14:41:05.231521Z 00O section_start:1795444865:prepare_executor\r\x1b[0K\n"
    '2026-11-23T14:41:05.231671Z 00O+Preparing the "docker" executor\n'
    "2026-11-23T14:41:09.102219Z 01O $ nix-build\n"
    "2026-11-23T14:41:09.239697Z 01E building\n"
    "2026-11-23T14:41:09.300000Z 01E+ more\n"
    "2026-11-23T14:41:09.400000Z 01O \n"
    "2026-11-23T14:41:10.526207Z 00O section_end:1795444870:step_script\r\x1b[0K\n"
    "2026-11-23T14:41:11.099708Z 00O Job succeeded\n"
)
SHOWN = 'Preparing the "docker" executor\n$ nix-build\nbuilding more\n\nJob succeeded\n'


def test_readable() -> None:
    assert readable(RAW) == SHOWN


def test_text_without_stamps_is_kept() -> None:
    assert readable("one\n\ntwo 2026-01-01T00:00:00Z 00O x\n") == "one\n\ntwo 2026-01-01T00:00:00Z 00O x\n"


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_a_growing_trace_is_shown_once_and_whole(size: int) -> None:
    reader = Reader()
    pieces = [RAW[start : start + size] for start in range(0, len(RAW), size)]
    said = [reader.feed(piece) for piece in pieces] + [reader.feed("", is_end=True)]
    assert "".join(said).rstrip("\n") == SHOWN.rstrip("\n")
