"""config.toml as the module writes it: values stay what they are, and what the host fills in has a place of its own."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import nixprov_lab
import pytest

from provisioner import resources
from provisioner.nix.values import to_nix

LIB: Final = Path(nixprov_lab.__file__).parent / "nixos" / "lib"
FILLED: Final = {"token": "glrt-secret", "image": "localhost/image:1"}
# What a template's place, a blank of ours or the end of a string might look like.
SPITEFUL: Final = (
    "@TOKEN@",
    "@IMAGE@",
    "$token ${token} $(token) `token`",
    "''${token}",
    '"\ntoken = "other',
    '\\"%s\\"',
    '{ _type = "blank"; name = "token"; }',
    "\x7f\t\r\n\\",
    "glrt-secret",
)


@pytest.fixture
def parts(nix_eval: Callable[[str], object]) -> Callable[[str], list[Any]]:
    def parts(attributes: str) -> list[Any]:
        file = Path(str(resources.templates())) / "gitlab" / "toml.nix"
        found = nix_eval(f"let toml = import {file} {{ lib = import {LIB}; }}; in toml.parts ({attributes})")
        assert isinstance(found, list)
        return found

    return parts


def filled(parts: list[Any]) -> dict[str, Any]:
    """As the script of the unit does it: the parts one after the other, a blank in quotes."""
    return tomllib.loads("".join(part if isinstance(part, str) else f'"{FILLED[part["name"]]}"' for part in parts))


@pytest.mark.parametrize("text", SPITEFUL)
def test_a_value_is_never_a_place_for_the_token(parts: Callable[[str], list[Any]], text: str) -> None:
    said = to_nix({"name": text, "environment": [f"A={text}"], "docker": {"image": text}})
    found = parts(f'{said} // {{ token = toml.blank "token"; }}')
    assert [part["name"] for part in found if not isinstance(part, str)] == ["token"]
    assert filled(found) == {
        "name": text,
        "environment": [f"A={text}"],
        "docker": {"image": text},
        "token": FILLED["token"],
    }


def test_blanks_stand_where_they_were_put(parts: Callable[[str], list[Any]]) -> None:
    found = parts(
        """{
          concurrent = 2;
          runners = [ { token = toml.blank "token"; shell = true; docker = { image = toml.blank "image"; cap_drop = [ ]; }; } ];
        }"""
    )
    assert filled(found) == {
        "concurrent": 2,
        "runners": [
            {"token": FILLED["token"], "shell": True, "docker": {"image": FILLED["image"], "cap_drop": []}},
        ],
    }


def test_texts_that_meet_are_one(parts: Callable[[str], list[Any]]) -> None:
    found = parts('{ a = 1; b = toml.blank "token"; c = "x"; d.e = [ "y" 2 ]; }')
    assert [type(part) for part in found] == [str, dict, str]
