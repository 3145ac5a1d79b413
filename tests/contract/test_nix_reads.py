"""Real Nix reads the files that nixprov writes or edits: the hook, the settings, the header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.nix.header import managed
from provisioner.nix.imports import add
from tests.unit.test_imports import EDITED, source

# Calls a module as NixOS would and tells what its top level says, without looking into the imports.
LOOK = """
let
  lib = {
    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: values: if condition then values else [ ];
    mkIf = condition: content: { inherit condition content; };
  };
  given = { inherit lib; config = { }; pkgs = { }; modulesPath = /modules; };
  call = module:
    if !builtins.isFunction module then module
    else if builtins.functionArgs module == { } then module given
    else module (builtins.intersectAttrs (builtins.functionArgs module) given);
  show = value:
    if builtins.isFunction value then "a function"
    else if builtins.isAttrs value then builtins.attrNames value
    else toString value;
  look = file: let module = call (import file); in {
    names = builtins.attrNames module;
    imports = map show (module.imports or [ ]);
  };
in
"""


def look_at(nix_eval: Callable[[str], object], files: list[Path]) -> list[dict[str, list[object]]]:
    seen = nix_eval(f"{LOOK} map look [ {' '.join(map(str, files))} ]")
    assert isinstance(seen, list)
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out every case before and after, with and without the directory that the hook is about."""
    top = tmp_path_factory.mktemp("imports")
    for part in ("with", "without"):
        (top / part).mkdir()
        (top / part / "generated.nix").write_text("arguments: arguments")
        for name in EDITED:
            (top / part / f"{name}.before.nix").write_bytes(source(name))
            (top / part / f"{name}.after.nix").write_bytes(add(source(name), "/etc/nixos").text)
    (top / "with" / "nixprov").mkdir()
    (top / "with" / "nixprov" / "default.nix").write_text("{ }")
    return top


@pytest.mark.parametrize("part", ["with", "without"])
def test_nix_sees_one_more_import_and_nothing_else(nix_eval: Callable[[str], object], folder: Path, part: str) -> None:
    ours: object = str(folder / "with" / "nixprov" / "default.nix") if part == "with" else []
    before = look_at(nix_eval, [folder / part / f"{name}.before.nix" for name in EDITED])
    after = look_at(nix_eval, [folder / part / f"{name}.after.nix" for name in EDITED])
    for name, old, new in zip(EDITED, before, after, strict=True):
        assert new["names"] == sorted({*old["names"], "imports"}, key=str), name
        assert new["imports"].count(ours) == old["imports"].count(ours) + 1, name
        new["imports"].remove(ours)
        assert new["imports"] == old["imports"], name


def test_a_header_does_not_change_what_nix_reads(nix_eval: Callable[[str], object]) -> None:
    assert nix_eval(managed('{ a = "x"; }\n')) == {"a": "x"}
