"""The hook goes into real shapes of configuration.nix as Nix understands them, and comes out byte for byte.

The cases are files in tests/corpus/imports: NAME.nix, and NAME.out.nix with the hook, or NAME.refused with the reason and
the line to add by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.nix import imports, syntax
from provisioner.nix.imports import (
    ATTRIBUTE,
    ENTRY,
    HOOK,
    INLINE_MARK,
    LINE_MARK,
    Edit,
    Presence,
    Refused,
    Style,
)

add = partial(imports.add, folder="/etc/nixos")
find = partial(imports.find, folder="/etc/nixos")
remove = partial(imports.remove, folder="/etc/nixos")

CORPUS = Path(__file__).parent.parent / "corpus" / "imports"
EDITED = sorted(file.name.removesuffix(".out.nix") for file in CORPUS.glob("*.out.nix"))
REFUSED = sorted(file.stem for file in CORPUS.glob("*.refused"))


def source(name: str) -> bytes:
    return (CORPUS / f"{name}.nix").read_bytes()


def line(text: str) -> bytes:
    return text.replace("HOOK", HOOK).replace("#MARK", LINE_MARK).replace("/*MARK*/", INLINE_MARK).encode()


def test_the_corpus_is_there() -> None:
    assert len(EDITED) >= 60
    assert len(REFUSED) >= 25
    assert {file.name.split(".")[0] for file in CORPUS.glob("*.nix")} == {*EDITED, *REFUSED}


@pytest.mark.parametrize("name", EDITED)
def test_the_hook_goes_in_and_comes_out(name: str) -> None:
    before = source(name)
    assert find(before) is Presence.ABSENT
    edit = add(before)
    assert edit.text == (CORPUS / f"{name}.out.nix").read_bytes()
    assert edit.text == before[: edit.offset] + edit.inserted + before[edit.offset :]
    assert find(edit.text) is Presence.PRESENT
    assert remove(edit.text) == before
    assert remove(before) is None


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_with_the_line_to_add(name: str) -> None:
    with pytest.raises(Refused) as refused:
        add(source(name))
    assert f"{refused.value.reason}\n{refused.value.line}\n" == (CORPUS / f"{name}.refused").read_text()
    assert refused.value.line in {ENTRY, ATTRIBUTE}


def test_the_lines_to_add_by_hand_are_found_again() -> None:
    by_hand = [f"{{ ... }}:\n{{\n  imports = [\n    {ENTRY}\n  ];\n}}\n", f"{{ ... }}:\n{{\n  {ATTRIBUTE}\n}}\n"]
    assert [find(text.encode()) for text in by_hand] == [Presence.PRESENT] * 2
    assert [remove(text.encode()) for text in by_hand] == [
        b"{ ... }:\n{\n  imports = [\n  ];\n}\n",
        b"{ ... }:\n{\n}\n",
    ]


# What people and formatters do to the file afterwards: the text with the hook, and the text without it.
LATER = {
    "formatted": (
        "{\n  imports = [\n    ./a.nix\n    (\n      if builtins.pathExists ./nixprov/default.nix then\n        ./nixprov/default.nix\n      else\n        { }\n    ) #MARK\n  ];\n}\n",
        "{\n  imports = [\n    ./a.nix\n  ];\n}\n",
    ),
    "block mark became a line mark": (
        "{\n  imports = [\n    ./a.nix\n    HOOK # nixprov\n  ];\n}\n",
        "{\n  imports = [\n    ./a.nix\n  ];\n}\n",
    ),
    "mark deleted": ("{\n  imports = [\n    ./a.nix\n    HOOK\n  ];\n}\n", "{\n  imports = [\n    ./a.nix\n  ];\n}\n"),
    "mark replaced": (
        "{\n  imports = [\n    HOOK # ci, see wiki\n  ];\n}\n",
        "{\n  imports = [\n    # ci, see wiki\n  ];\n}\n",
    ),
    "moved to the front": ("{ imports = [ HOOK /*MARK*/ ./a.nix ]; }", "{ imports = [ ./a.nix ]; }"),
    "line moved to the front": (
        "{\n  imports = [\n    HOOK #MARK\n    ./a.nix\n  ];\n}\n",
        "{\n  imports = [\n    ./a.nix\n  ];\n}\n",
    ),
    "joined": ("{ imports = [ ./a.nix HOOK ./b.nix ]; }", "{ imports = [ ./a.nix ./b.nix ]; }"),
    "no blanks around": ("{ imports = [ ./a.nix HOOK./b.nix ]; }", "{ imports = [ ./a.nix ./b.nix ]; }"),
    "entry beside ours in our attribute": (
        "{\n  imports = [ HOOK ./mine.nix ]; #MARK\n}\n",
        "{\n  imports = [ ./mine.nix ];\n}\n",
    ),
    "our attribute over lines": (
        "{\n  imports = [\n    HOOK\n    ./mine.nix\n  ]; #MARK\n}\n",
        "{\n  imports = [\n    ./mine.nix\n  ];\n}\n",
    ),
    "only ours over lines": ("{\n  imports = [\n    HOOK\n  ]; #MARK\n  a = 1;\n}\n", "{\n  a = 1;\n}\n"),
    "a remark in our attribute": (
        "{\n  imports = [ /* why? */ HOOK ]; #MARK\n}\n",
        "{\n  imports = [ /* why? */ ];\n}\n",
    ),
    "entry beside ours in our prefix": (
        "{ imports = [ HOOK ./b.nix ] /*MARK*/ ++ map f x; }",
        "{ imports = [ ./b.nix ] ++ map f x; }",
    ),
    "prefix over lines": (
        "{\n  imports =\n    [ HOOK ] # nixprov\n    ++ map f x;\n}\n",
        "{\n  imports =\n    map f x;\n}\n",
    ),
    "rest of the prefix deleted": ("{ imports = [ HOOK ] /*MARK*/; }", "{ imports = [ ]; }"),
    "after a line comment": (
        "{\n  imports = [\n    ./a.nix # x\n    HOOK /*MARK*/ ];\n}\n",
        "{\n  imports = [\n    ./a.nix # x\n    ];\n}\n",
    ),
    "twice": ("{ imports = [ HOOK ./a.nix HOOK /*MARK*/ ]; }", "{ imports = [ ./a.nix ]; }"),
    "in a nested module": (
        "{ imports = [ { imports = [ ./a.nix HOOK ]; } ]; }",
        "{ imports = [ { imports = [ ./a.nix ]; } ]; }",
    ),
    "in a call": ("{ imports = f [ ./a.nix HOOK ]; }", "{ imports = f [ ./a.nix ]; }"),
    "commented out": (
        "{\n  imports = [\n    ./a.nix\n    # HOOK #MARK\n  ];\n}\n",
        "{\n  imports = [\n    ./a.nix\n  ];\n}\n",
    ),
    "attribute commented out": ("{\n  #imports = [ HOOK ]; #MARK\n}\n", "{\n}\n"),
    "commented out in the line": ("{ imports = [ ./a.nix /* HOOK */ ]; }", "{ imports = [ ./a.nix ]; }"),
    "commented out and back again": (
        "{\n  imports = [\n    # HOOK #MARK\n    HOOK #MARK\n  ];\n}\n",
        "{\n  imports = [\n  ];\n}\n",
    ),
    "crlf": ("{\r\n  imports = [\r\n    HOOK #MARK\r\n  ];\r\n}\r\n", "{\r\n  imports = [\r\n  ];\r\n}\r\n"),
    "broken elsewhere": (
        "{\n  imports = [\n    HOOK #MARK\n  ];\n  a = ;\n}\n",
        "{\n  imports = [\n  ];\n  a = ;\n}\n",
    ),
}


@pytest.mark.parametrize("name", LATER)
def test_the_hook_is_taken_out_of_a_file_that_people_worked_on(name: str) -> None:
    before, after = LATER[name]
    assert (remove(line(before)) or b"").decode() == after


@pytest.mark.parametrize(
    ("text", "presence"),
    [
        ("{ }", Presence.ABSENT),
        ("{ imports = [ HOOK ]; }", Presence.PRESENT),
        ("{ imports = [ ] ++ ([ HOOK ]); }", Presence.PRESENT),
        (f"{{ imports = [ {HOOK.replace('./', '/etc/nixos/')} ]; }}", Presence.PRESENT),
        ("{ imports = [ HOOK HOOK ]; }", Presence.SEVERAL),
        ("{ x = [ HOOK ]; }", Presence.ELSEWHERE),
        ("{ x.imports = [ HOOK ]; }", Presence.ELSEWHERE),
        ("lib.mkMerge [ HOOK ]", Presence.ELSEWHERE),
        ("{ imports = f [ HOOK ]; }", Presence.ELSEWHERE),
        ("{\n # HOOK\n}", Presence.COMMENTED_OUT),
        ("{ imports = [\n # HOOK #MARK\n HOOK ]; }", Presence.PRESENT),
        ('{ x = "HOOK"; }', Presence.ABSENT),
        ("{ x = ''\n  HOOK #MARK\n''; }", Presence.ABSENT),
        ("{ # the line was HOOK once\n}", Presence.ABSENT),
        ("{ imports = [ ./nixprov ]; }", Presence.CHANGED),
        ("{ imports = [ HOOK ./nixprov/module.nix ]; }", Presence.CHANGED),
        ("{ imports = HOOK; }", Presence.CHANGED),
        ("{ imports = [ (if true then ./nixprov/default.nix else { }) ]; }", Presence.CHANGED),
        ("{ imports = [ ./nixprov.nix ./nixprov-x ../nixprov <nixprov> ]; }", Presence.ABSENT),
        ("{ imports = [ HOOK ]", Presence.UNREADABLE),
        ("", Presence.UNREADABLE),
    ],
)
def test_what_a_file_says_about_the_hook(text: str, presence: Presence) -> None:
    assert find(line(text)) is presence
    assert (syntax.parse(line(text)) is None) is (presence is Presence.UNREADABLE)


@pytest.mark.parametrize(
    "text",
    [
        "{ imports = [ ./nixprov ]; }",
        "{ imports = [ HOOK ./nixprov/module.nix ]; }",
        "{ imports = HOOK; }",
        "{ imports = [ (if true then ./nixprov/default.nix else { }) #MARK\n ]; }",
        "{ imports = [ HOOK /*MARK*/ ]",
    ],
)
def test_a_file_that_would_still_need_the_directory_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"\./nixprov"):
        remove(line(text))


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    deep = b"{ imports = [ ./a.nix ]; x = " + b"[" * 5000 + b"]" * 5000 + b"; }"
    assert remove(add(deep).text) == deep


@dataclass(frozen=True)
class Change:
    """A change of the original text; `shifted` is the same change after the hook went in."""

    start: int
    end: int
    text: bytes

    def apply(self, before: bytes) -> bytes:
        return before[: self.start] + self.text + before[self.end :]

    def shifted(self, edit: Edit) -> Change:
        by = len(edit.inserted) if self.start > edit.offset else 0
        return Change(self.start + by, self.end + by, self.text)


ADDED = [
    "",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\n  # a note ]\n",
    "\n  services.x.enable = true;\n",
    " ./mine.nix ",
    "[ ]",
    "{",
    "}",
    "]",
    ";",
    "(",
    "x",
    "\n  /* block */ ",
]


@st.composite
def changes(draw: st.DrawFn) -> tuple[bytes, Change]:
    """Draw a case and a change that does not touch the place of the insertion."""
    before = source(draw(st.sampled_from(EDITED)))
    offset = add(before).offset
    sides = [side for side in ((0, offset - 1), (offset + 1, len(before))) if side[0] <= side[1]]
    low, high = draw(st.sampled_from(sides))
    start = draw(st.integers(low, high))
    end = draw(st.integers(start, min(high, start + draw(st.sampled_from([0, 0, 1, 8, 80])))))
    return before, Change(start, end, draw(st.sampled_from(ADDED)).encode())


@settings(max_examples=150)
@given(changes())
def test_changes_elsewhere_survive_the_undo(drawn: tuple[bytes, Change]) -> None:
    before, change = drawn
    edit = add(before)
    wanted, edited = change.apply(before), change.shifted(edit).apply(edit.text)
    if find(edited) is Presence.PRESENT:
        undone = remove(edited) or b""
        assert undone.split() == wanted.split()
        # Within a line, blanks and line ends that were put beside ours may go with it; a line is a line.
        assert undone == wanted or not edit.inserted.endswith(b"\n")
        return
    try:
        assert remove(edited) in {wanted, None}
    except Refused:
        assert None in (syntax.parse(edited), syntax.parse(wanted)) or find(edited) is Presence.CHANGED


def with_neighbour(edit: Edit, *, is_before: bool) -> tuple[bytes, bytes]:
    """Add an entry on one side of ours; give what was added, and the whole text."""
    added = b"    ./mine.nix # mine\n" if edit.inserted.endswith(b"\n") else b" ./mine.nix"
    place = edit.offset + (0 if is_before else len(edit.inserted))
    return added, edit.text[:place] + added + edit.text[place:]


@pytest.mark.parametrize("name", EDITED)
@pytest.mark.parametrize("is_before", [True, False])
def test_an_entry_beside_ours_survives_the_undo(name: str, is_before: bool) -> None:
    before = source(name)
    edit = add(before)
    if edit.style in {Style.ENTRY_LINE, Style.ENTRY_INLINE}:
        added, text = with_neighbour(edit, is_before=is_before)
        wanted = before[: edit.offset] + added + before[edit.offset :]
    else:
        both = f"./mine.nix {HOOK}" if is_before else f"{HOOK} ./mine.nix"
        text = edit.text.replace(HOOK.encode(), both.encode())
        kept = edit.inserted.replace(HOOK.encode(), b"./mine.nix")
        for mark in (LINE_MARK, INLINE_MARK):
            kept = kept.replace(b" " + mark.encode(), b"")
        wanted = before[: edit.offset] + kept + before[edit.offset :]
    assert (remove(text) or b"").split() == wanted.split()


TWO_LISTS = b"{ imports = [ ./a.nix ]; others = [ ./b.nix ]; }\n"


@pytest.mark.parametrize(
    ("before", "more"),
    [(b" ]; }", b""), (b" ]; others", b" ./more.nix")],
    ids=["where it is no import", "with more than is taken out"],
)
def test_an_edit_that_could_not_be_taken_back_is_refused(
    monkeypatch: pytest.MonkeyPatch, before: bytes, more: bytes
) -> None:
    """The last look, for a file that the rest of the code misjudges: the edit is one that no undo gives back."""
    place = (TWO_LISTS.index(before), f" {HOOK} {INLINE_MARK}".encode() + more, Style.ENTRY_INLINE)
    monkeypatch.setattr("provisioner.nix.imports._place", lambda *_: place)
    with pytest.raises(Refused, match="could not be taken back exactly"):
        add(TWO_LISTS)
