"""Counts two habits that make our English hard to read, in prose wherever it stands.

* A clause that opens with `what`, `who` or `which` and has no noun before it. Examples: `What was written goes back`,
  `says who holds the lock`. The words `what`, `whatever`, `whoever` and `whichever` always count. `who` and `which` count
  at the start of a sentence, after a conjunction or after a verb of knowing. A relative clause
  does not count: "the host, which waits", "in which", "an operator who".
* A sentence of more than 20 words. Code in backticks and an address are one word each. A colon does not end a sentence.

    python -m tests.english              figures by room, as the table in tests/unit/test_english.py has them
    python -m tests.english docs         the places in rooms and files with "docs" in their name: file:line: what is wrong
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LONGEST: Final = 20
# Room: the files that it has. Help texts and errors are a room of their own, wherever they stand.
SAID: Final = "help and errors"
ROOMS: Final = {
    "provisioner": "provisioner/**/*.py",
    "lab": "lab/nixprov_lab/**/*.py",
    "templates": "templates/**/*.py",
    "docs": "docs/*.md",
    "README": "README.md",
    "CHANGELOG": "CHANGELOG.md",
}

_ALWAYS: Final = {"what", "whatever", "whoever", "whomever", "whichever"}
_AFTER_NO_NOUN: Final = {"who", "which"}
_CONJUNCTIONS: Final = {"and", "or", "but", "than", "as", "because", "if", "that", "then"}
_KNOWING: Final = {
    *(
        "is",
        "are",
        "was",
        "say",
        "says",
        "said",
        "tell",
        "tells",
        "told",
        "know",
        "knows",
        "known",
        "see",
        "sees",
        "seen",
    ),
    *(
        "ask",
        "asks",
        "asked",
        "name",
        "names",
        "named",
        "show",
        "shows",
        "shown",
        "find",
        "finds",
        "found",
        "read",
        "reads",
    ),
    *("decide", "decides", "decided", "choose", "chooses", "mean", "means"),
}
_WORD: Final = re.compile(r"https?://\S+|`[^`]*`|[^\W_](?:[\w'’./-]*[\w'’/-])?|[.!?](?=\s|$)|[:;,()—-]")  # noqa: RUF001
_COMMENT: Final = re.compile(r"(?:^\s*|\s{2})#(?: (?P<text>.*))?$")
_NO_PROSE: Final = re.compile(r"noqa|type: ignore|pragma|!/")
_MARKUP: Final = re.compile(r"\[([^]]*)\]\([^)]*\)|[*_]{1,2}(?=\S)|(?<=\S)[*_]{1,2}|<[^>]+>")
# An abbreviation does not end a sentence.
_DOTTED: Final = {"e.g", "i.e", "etc", "vs"}


@dataclass(frozen=True)
class Passage:
    """A paragraph, an item of a list, a cell of a table, a docstring's paragraph, a comment or a message."""

    room: str
    file: str
    line: int
    text: str

    @cached_property
    def tokens(self) -> list[str]:
        return _WORD.findall(self.text)

    @property
    def words(self) -> int:
        return sum(map(_is_word, self.tokens))

    def sentences(self) -> Iterator[list[str]]:
        sentence: list[str] = []
        for token in self.tokens:
            if token in ".!?" and not (sentence and sentence[-1].rstrip(".") in _DOTTED):
                yield sentence
                sentence = []
            else:
                sentence.append(token)
        yield sentence

    def clauses(self) -> Iterator[str]:
        """The openings of clauses without a noun, each with three words after it."""
        for sentence in self.sentences():
            for place, token in enumerate(sentence):
                word, before = token.lower(), sentence[place - 1].lower() if place else ""
                opens = not before or before in _CONJUNCTIONS | _KNOWING or (before in ":;(—-")
                if word in _ALWAYS or (word in _AFTER_NO_NOUN and opens):
                    yield " ".join(sentence[place : place + 4])

    def long_sentences(self) -> Iterator[str]:
        for sentence in self.sentences():
            words = list(filter(_is_word, sentence))
            if len(words) > LONGEST:
                yield f"{len(words)} words: {' '.join(words[:6])} ..."


@dataclass(frozen=True)
class Figures:
    """Of a room: clauses and long sentences per 1,000 words."""

    words: int
    clauses: float
    long_sentences: float


def _is_word(token: str) -> bool:
    return token not in ".!?:;,()—-"


def passages() -> Iterator[Passage]:
    for room, pattern in ROOMS.items():
        for path in sorted(ROOT.glob(pattern)):
            file, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            yield from of_python(room, file, text) if path.suffix == ".py" else of_markdown(room, file, text)


def of_python(room: str, file: str, text: str) -> Iterator[Passage]:
    for line, paragraph in comments(text):
        yield Passage(room, file, line, paragraph)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            start = node.body[0].lineno if docstring else 0
            for offset, paragraph in paragraphs(docstring or ""):
                yield Passage(room, file, start + offset, paragraph)
        elif isinstance(node, ast.keyword) and node.arg in ("help", "short_help", "hint", "epilog"):
            yield Passage(SAID, file, node.value.lineno, words_of(node.value))
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args:
                yield Passage(SAID, file, argument.lineno, words_of(argument))


def words_of(node: ast.expr) -> str:
    """A literal's text; a value that is put into it counts as one word."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
    return f"{words_of(node.left)}{words_of(node.right)}" if isinstance(node, ast.BinOp) else ""


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Each comment with the lines below that go on with it."""
    block: list[str] = []
    first, goes_on = 0, False
    for number, line in enumerate(text.splitlines(), 1):
        found = _COMMENT.search(line)
        said = (found["text"] or "") if found else ""
        is_whole = line.lstrip().startswith("#")
        if block and not (said and is_whole and goes_on):
            yield first, " ".join(block)
            block = []
        if said and not _NO_PROSE.search(said):
            first = first if block else number
            block.append(said)
        goes_on = is_whole
    if block:
        yield first, " ".join(block)


def of_markdown(room: str, file: str, text: str) -> Iterator[Passage]:
    for offset, paragraph in paragraphs(re.sub(r"(?ms)^```.*?^```$", lambda code: "\n" * code[0].count("\n"), text)):
        yield Passage(room, file, 1 + offset, _MARKUP.sub(lambda found: found[1] or "", paragraph))


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, items and cells, each with its line from 0; text that is indented by four is code."""
    block: list[str] = []
    first = 0
    for number, line in enumerate([*text.splitlines(), ""]):
        is_item = re.match(r"\s*(?:[*-]|\d+\.|#+|\|)\s", line)
        if block and (not line.strip() or is_item):
            yield first, " ".join(block)
            block = []
        if line.startswith("|"):
            yield from ((number, cell) for cell in re.split(r"(?<!\\)\|", line) if cell.strip(" -:"))
        elif line.strip() and not (line.startswith("    ") and not block):
            first = first if block else number
            block.append(re.sub(r"^\s*(?:[*-]|\d+\.|#+)\s+", "", line).strip())


def figures() -> dict[str, Figures]:
    rooms: dict[str, list[Passage]] = {}
    for passage in passages():
        rooms.setdefault(passage.room, []).append(passage)
    return {room: _figures(found) for room, found in rooms.items()}


def _figures(found: Sequence[Passage]) -> Figures:
    words = sum(passage.words for passage in found)
    clauses = sum(1 for passage in found for _ in passage.clauses())
    long_ones = sum(1 for passage in found for _ in passage.long_sentences())
    return Figures(words, round(1000 * clauses / words, 1), round(1000 * long_ones / words, 1))


def places(name: str) -> Iterator[str]:
    for passage in passages():
        if name in passage.room or name in passage.file or fnmatch(passage.file, name):
            for problem in (*passage.clauses(), *passage.long_sentences()):
                yield f"{passage.file}:{passage.line}: {problem}"


def main(names: Sequence[str]) -> None:
    for name in names:
        sys.stdout.writelines(f"{place}\n" for place in places(name))
    for room, found in figures().items() if not names else ():
        sys.stdout.write(f'    "{room}": ({found.clauses}, {found.long_sentences}),  # {found.words} words\n')


if __name__ == "__main__":
    main(sys.argv[1:])
