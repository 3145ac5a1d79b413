"""Our English gets plainer and never less plain: two habits are counted by room (tests/english.py says how, and where they are)."""

from __future__ import annotations

from typing import Final

import pytest

from tests import english
from tests.english import Passage, comments, of_markdown, of_python

# By room, per 1,000 words: clauses that open with what, who or which; sentences of more than 20 words. A limit may only sink.
# Python's English has 0.0 to 0.4 clauses in the projects that we learn from.
LIMITS: Final = {
    "provisioner": (0.4, 0.4),
    "help and errors": (0.6, 0.4),
    "lab": (0.6, 0.4),
    "templates": (0.4, 0.4),
    "docs": (0.4, 0.8),
    "README": (0.4, 0.4),
    "CHANGELOG": (0.4, 0.4),
}
# How far below its limit a room may be before the limit has to follow.
SLACK: Final = 4.0


def test_each_room_keeps_its_limits_and_its_limits_follow() -> None:
    found = english.figures()
    assert set(found) == set(LIMITS)
    for room, (clauses, long_sentences) in LIMITS.items():
        figures = found[room]
        for habit, limit, now in (
            ("clauses that open with what, who or which", clauses, figures.clauses),
            (f"sentences of more than {english.LONGEST} words", long_sentences, figures.long_sentences),
        ):
            assert now <= limit, (
                f"{room}: {habit}: {now} per 1,000 words; {limit} is allowed. python -m tests.english '{room}'"
            )
            assert now > limit - SLACK, f"{room}: {habit}: {now} per 1,000 words; lower its limit, which is {limit}"


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("What nobody reads is removed.", 1),
        ("It says who holds the lock and which host waits.", 2),
        ("Whoever asks is told; whatever comes is kept.", 2),
        ("The host, which waits, names an operator who answers.", 0),
        ("A file in which, and by which, it is kept.", 0),
        ("Read `what who which` as code.", 0),
    ],
)
def test_clauses_without_a_noun_are_counted(text: str, clauses: int) -> None:
    assert len(list(Passage("", "", 1, text).clauses())) == clauses


def test_sentences_end_at_stops_and_code_is_one_word() -> None:
    twenty = " ".join(["word"] * 19) + " `a b c`."
    assert list(Passage("", "", 1, f"{twenty} {twenty} e.g. x.").long_sentences()) == []
    assert len(list(Passage("", "", 1, f"One {twenty}").long_sentences())) == 1
    plain = " ".join(["word"] * 15) + "."
    assert list(Passage("", "", 1, f"{plain} {plain}").long_sentences()) == []


def test_prose_is_found_with_its_line_and_code_is_not() -> None:
    source = '"""First.\n\nThird."""\nx = 1  # fourth\n# fifth\n# goes on\nraise E(f"no {x}", hint="what")\n'
    found = {(one.line, one.text, one.room) for one in of_python("here", "a.py", source)}
    said = {(7, "no VALUE", english.SAID), (7, "what", english.SAID)}
    assert (
        found
        == {(1, "First.", "here"), (3, "Third.", "here"), (4, "fourth", "here"), (5, "fifth goes on", "here")} | said
    )
    page = "# Title\n\nText\ngoes on.\n\n    code what\n\n* [item](what.md)\n| a | b |\n|---|---|\n"
    assert [(one.line, one.text) for one in of_markdown("", "", page)] == [
        (1, "Title"),
        (3, "Text goes on."),
        (8, "item"),
        (9, " a "),
        (9, " b "),
    ]
    assert list(comments("# one\n\n# two  # noqa: X\n")) == [(1, "one")]
