"""Whatever is in an inventory, a play or a pattern, nixprov either understands it or says where it does not."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.errors import InventoryError, NothingSelected
from provisioner.inventory import load, play
from provisioner.inventory.export import graph, listing

CORPUS: Final = Path(__file__).parent.parent / "corpus" / "inventory"
FILES: Final = sorted(p for p in CORPUS.iterdir() if p.suffix in {".ini", ".yml", ".yaml", ".json", ""} and p.is_file())
EXAMPLES: Final = settings(max_examples=150)

INI_WORDS: Final = st.sampled_from(
    [
        "[g]",
        "[g:vars]",
        "[p:children]",
        "g",
        "h1",
        "h[1:3]",
        "h[01:",
        ":22",
        "[::1]:2",
        "a=1",
        "b='x",
        "c=[1",
        " ",
        "\t",
        "\n",
        "\n",
        "#",
        ";",
        "=",
        '"',
        "\\",
        "{",
        "}",
        "---",
        "ansible_port=x",
        "ansible_group_priority=1",
        "é",
        "\x0b",
        "nixprov_tags=a,b",
        "nixprov_runners=[{}]",
        "nixprov_typ=x",
        "ansible_ssh_common_args='-J a -oB'",
        "all",
        "\x00",
    ]
)
YAML_WORDS: Final = st.sampled_from(
    [
        "all",
        "hosts",
        "vars",
        "children",
        ": ",
        ":\n",
        "\n",
        "  ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "h[1:2]",
        "&a ",
        "*a",
        "<<",
        "!vault ",
        "!unsafe ",
        "!!int ",
        "!!set ",
        "!!binary ",
        "? ",
        "| ",
        "> ",
        "'",
        '"',
        "2001-13-45",
        "0b2",
        "1:99",
        "~",
        "nixprov_tags",
        "ansible_port",
        "nixprov_environment",
        "x",
        "\t",
        "%YAML 9.9\n",
        "---\n",
        "...\n",
        "=",
        "1e999",
        "#",
    ]
)
TEXTS: Final = st.one_of(
    st.text(max_size=80),
    st.lists(INI_WORDS, max_size=30).map("".join),
    st.lists(YAML_WORDS, max_size=30).map("".join),
)


@st.composite
def _mutated(draw: st.DrawFn) -> tuple[bytes, str]:
    """A file of the corpus with a few bytes taken out, put in or changed, and its extension."""
    file = draw(st.sampled_from(FILES))
    content = bytearray(file.read_bytes())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(content), file.suffix


def _refusal(work: Callable[[], object]) -> InventoryError | NothingSelected | None:
    try:
        work()
    except (InventoryError, NothingSelected) as error:
        return error
    return None


def _use(content: bytes, extension: str) -> None:
    """Load, list, draw and select; an error must say where it is."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, f"source{extension}")
        file.write_bytes(content)
        error = _refusal(lambda: _load_and_show(str(file)))
    if isinstance(error, InventoryError):
        assert error.file == str(file)
        assert 1 <= error.line <= len(content.decode(errors="replace").splitlines() or [""])
        assert "\n" not in str(error)


def _load_and_show(file: str) -> None:
    inventory = load([file])
    json.dumps(listing(inventory))
    graph(inventory, with_vars=True)
    inventory.select("all")


@EXAMPLES
@given(TEXTS, st.sampled_from([".ini", ".yml", ".json"]))
def test_any_text_is_read_or_refused(text: str, extension: str) -> None:
    _use(text.encode(errors="surrogatepass"), extension)


@EXAMPLES
@given(_mutated())
def test_broken_inventories_are_read_or_refused(broken: tuple[bytes, str]) -> None:
    if broken[0].startswith(b"#!"):
        return
    _use(*broken)


@EXAMPLES
@given(TEXTS)
def test_any_play_is_read_or_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "play.yml")
        file.write_bytes(text.encode(errors="surrogatepass"))
        error = _refusal(lambda: play.read(str(file)))
    if isinstance(error, InventoryError):
        assert (error.file, error.line >= 1) == (str(file), True)


@EXAMPLES
@given(
    st.one_of(st.text(max_size=20), st.lists(st.sampled_from(list("wd14:,!&~*?[]-. ()@|")), max_size=12).map("".join)),
    st.none() | st.text(max_size=8),
)
def test_any_pattern_selects_or_is_refused(pattern: str, limit: str | None) -> None:
    inventory = load([str(CORPUS / "limits" / "hosts")])
    error = _refusal(lambda: inventory.match(pattern, limit))
    if error is not None:
        assert "\n" not in str(error)
        return
    names = inventory.match(pattern, limit)
    assert names
    assert set(names) <= set(inventory.hosts)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("depth", [50, 3000])
def test_deep_nesting_is_read_or_refused(depth: int) -> None:
    _use(("[g]\nh a=" + "[" * depth + "]" * depth).encode(), ".ini")
    _use(b'{"a": {"children": ' * depth + b"null" + b"}}" * depth, ".json")
    chain = (
        "".join(f"[g{number}:children]\ng{number + 1}\n" for number in range(depth // 10)) + f"[g{depth // 10}]\nh\n"
    )
    _use(chain.encode(), ".ini")
