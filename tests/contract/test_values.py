"""Values written as Nix come back from Nix as the same values, whatever is in them."""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from provisioner.errors import ConfigError
from provisioner.model import Secret
from provisioner.nix.values import to_nix

# Compares without coercion: `==` looks only at outPath when two sets say they are derivations, and thinks 1 is 1.0.
SAME = """
let
  same = a: b: builtins.typeOf a == builtins.typeOf b && (
    if builtins.isList a then
      builtins.length a == builtins.length b
      && builtins.all (i: same (builtins.elemAt a i) (builtins.elemAt b i)) (builtins.genList (i: i) (builtins.length a))
    else if builtins.isAttrs a then
      builtins.attrNames a == builtins.attrNames b
      && builtins.all (name: same a.${name} b.${name}) (builtins.attrNames a)
    else a == b
  );
"""

ATTACKS = [
    "${builtins.readFile /etc/passwd}",
    "$${x}",
    "$$${x}",
    "\\${x}",
    "\\\\${x}",
    "$\\{x}",
    '"; evil = builtins.abort "x"; a = "',
    '" + (builtins.abort "x") + "',
    "'' + builtins.abort ''x'' + ''",
    "''${x}",
    "''\\n",
    "'''",
    "'",
    '"',
    "\\",
    "\\\\",
    "\\n",
    "\r\n",
    "\r",
    "\n\n  # comment",
    "/* */",
    "# not a comment",
    "$",
    "$$",
    "${",
    "}",
    "\\$",
    "{{ 7 * 7 }}{% raw %}",
    "\x01\x1b[31m\x7f\x80\x9f",
    "\u2028\u2029\ufeff\u202e",
    "ΑΒΓ \U0001f600 e\u0301 \ufdd0\uffff\U0010ffff",
    "/etc/passwd",
    "./x",
    "~/x",
    "<nixpkgs>",
    "https://example.org",
    "/nix/store/00000000000000000000000000000000-x",
    "__functor",
    "true",
    "",
    " ",
    "a.b",
    "or",
    "if",
    "0",
    "-a",
    "a-b'",
    "outPath",
    "__toString",
    "_type",
    "type",
]

risky_text = st.lists(
    st.sampled_from(["$", "{", "}", "\\", '"', "'", "''", "\n", "\r", "\t", "a", " ", "#", "/*"])
).map("".join)
text = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    risky_text,
    st.sampled_from(ATTACKS),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    text,
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5), max_leaves=12
)


@pytest.fixture(scope="module")
def are_same(
    nix_eval: Callable[[str], object], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[list[object]], object]:
    """Ask Nix which of the values, as we write them, equal the same JSON read from a file."""
    wanted = tmp_path_factory.mktemp("values") / "wanted.json"

    def ask(cases: list[object]) -> object:
        wanted.write_text(json.dumps(cases))
        written = "\n".join(f"({to_nix(case)})" for case in cases)
        return nix_eval(
            f"{SAME} wanted = builtins.fromJSON (builtins.readFile {Path(wanted)}); written = [\n{written}\n];"
            "in builtins.genList (i: same (builtins.elemAt wanted i) (builtins.elemAt written i)) (builtins.length wanted)"
        )

    return ask


@settings(max_examples=25)
@given(cases=st.lists(values, min_size=1, max_size=25))
@example(cases=list[object](ATTACKS))
@example(
    cases=[
        {attack: attack for attack in ATTACKS},
        [ATTACKS],
        *([[attack, -1, {attack: [attack]}] for attack in ATTACKS]),
    ]
)
@example(
    cases=[
        1e5,
        1e22,
        1e-7,
        1e16,
        -1.5,
        0.1 + 0.2,
        5e-324,
        -5e-324,
        2.2250738585072014e-308,
        1.7976931348623157e308,
        123456789.123,
    ]
)
@example(cases=[0, -1, 2**63 - 1, -(2**63), [-1, -2.5, [-(2**63)]], {"a": -1}])
def test_every_value_comes_back_from_nix(are_same: Callable[[list[object]], object], cases: list[object]) -> None:
    assert are_same(cases) == [True] * len(cases)


def test_the_comparison_sees_a_difference(nix_eval: Callable[[str], object]) -> None:
    unequal = [
        "1 1.0",
        '"a" "b"',
        "[ 1 ] [ 1 2 ]",
        "{ a = 1; } { a = 2; }",
        '{ type = "derivation"; outPath = "x"; a = 1; } { type = "derivation"; outPath = "x"; a = 2; }',
    ]
    assert nix_eval(f"{SAME} in [ {' '.join(f'(same {pair})' for pair in unequal)} ]") == [False] * len(unequal)


def test_attacks_print_as_themselves(nix_eval: Callable[[str], object]) -> None:
    assert nix_eval(to_nix(ATTACKS)) == ATTACKS


def test_the_sign_of_zero_is_kept(nix_eval: Callable[[str], object]) -> None:
    assert nix_eval(f"map builtins.toJSON [ ({to_nix(0.0)}) ({to_nix(-0.0)}) ]") == ["0", "-0"]


def test_no_text_ends_the_string_around_it() -> None:
    """What the program counts on: inside of the two quotes no character is one that Nix looks for."""
    head, inside, tail = re.split("(?<='')\n|\n(?='')", to_nix([*ATTACKS, dict.fromkeys(ATTACKS, 1)]))
    assert (head, tail) == ("builtins.fromJSON ''", "''")
    assert not set("'$") & set(inside)


def test_equal_values_are_equal_text_and_one_line_each() -> None:
    value = {"b": [1, -2], "a": {"x": []}, "c": "ä"}
    assert to_nix(dict(reversed(value.items()))) == to_nix(value)
    assert to_nix(value).splitlines() == [
        "builtins.fromJSON ''",
        "{",
        '  "a": {',
        '    "x": []',
        "  },",
        '  "b": [',
        "    1,",
        "    -2",
        "  ],",
        '  "c": "ä"',
        "}",
        "''",
    ]


class Level(enum.StrEnum):
    HIGH = "high ${x}"


class OldLevel(str, enum.Enum):  # noqa: UP042 (prints as its name, which is what this is for)
    LOW = "low"


def test_subclasses_are_written_as_the_text_they_are(nix_eval: Callable[[str], object]) -> None:
    assert nix_eval(to_nix([Level.HIGH, OldLevel.LOW])) == ["high ${x}", "low"]
    assert nix_eval(to_nix({Level.HIGH: 1, OldLevel.LOW: 1})) == {"high ${x}": 1, "low": 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**63, "the value has an integer beyond 64 bits"),
        (-(2**63) - 1, "the value has an integer beyond 64 bits"),
        ({"a": [1, 2**64]}, "a[1] has an integer beyond 64 bits"),
        ({"runners": {"a b": "x\0y"}}, "runners.a b has a NUL character"),
        (["\ud800"], "[0] has half of a surrogate pair"),
        ({"\0": 1}, "a key of the settings has a NUL character"),
        ({"a": {"\udfff": 1}}, "a key of a has half of a surrogate pair"),
    ],
)
def test_what_nix_would_not_read_back_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        to_nix(value)
    assert message in refused.value.message
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [b"x", Path("/x"), {"when": date(2024, 1, 1)}, {1, 2}, {"a": {1: 2}}, {None: 1}])
def test_what_is_no_json_is_an_error_of_ours(value: object) -> None:
    with pytest.raises(TypeError, match=r"not JSON serializable|where Nix has only strings"):
        to_nix(value)


@pytest.mark.parametrize("value", [math.nan, [-math.inf]])
def test_a_number_that_is_not_finite_is_an_error_of_ours(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_nix(value)


@pytest.mark.parametrize(
    "value", [Secret("poison"), ["x", Secret("poison")], {"a": {"b": (Secret("poison"),)}}, {Secret("poison"): 1}]
)
def test_a_secret_is_never_written(value: object) -> None:
    with pytest.raises(TypeError) as refused:
        to_nix(value)
    assert "poison" not in str(refused.value)
