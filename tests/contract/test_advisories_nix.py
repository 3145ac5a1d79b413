"""The Nix that evaluates a host's configuration says of a Nix what nixprov says of it, and stops at the same ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioner import advisories
from provisioner.machine.facts import Facts
from provisioner.machine.flaws import Flaws
from provisioner.model import ModuleSpec, Trust
from provisioner.nix.values import to_nix

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("nix-instantiate") is None, reason="needs the package nix-bin")

VERSIONS = (
    *("2.26", "2.26.3", "2.26.3+dfsg-1+b2", "2.4pre-rc1", "2.8pre20220512_d354fc3", "2.18.1", "2.24.4pre1", "2.35.0"),
    *("2.31.4pre20260101_abc", "2.34.7pre1", "2.35.0pre20260301_abc", "2.36.0pre1", "2.36.0", "3.0.0", "1.11.16"),
    *("", "2", "2.x", "unknown", "x2.26.3", "2-26-3", "2..26", "2.26.3.1", "02.026.03"),
)
# Each release that the table names, the one before it and the one after it.
NEIGHBOURS = tuple(
    f"{release.major}.{release.minor}.{patch}"
    for release in sorted(
        {
            release
            for one in advisories.known()
            for range_ in one.affected.values()
            for release in (*range_.since, *range_.fixed)
        }
    )
    for patch in range(max(release.patch - 1, 0), release.patch + 2)
)

SYSTEM = f"""
let
  lib = import {ROOT}/lab/nixprov_lab/nixos/lib;
  list = type: lib.mkOption {{ default = [ ]; type = lib.types.listOf type; }};
  of = own: lib.evalModules {{
    specialArgs.pkgs = {{ }};
    modules = [
      {ROOT}/templates/core/options.nix
      {ROOT}/templates/core/advisories.nix
      {{
        options.assertions = list lib.types.unspecified;
        options.warnings = list lib.types.str;
        options.nix.package = lib.mkOption {{ type = lib.types.unspecified; }};
      }}
      own
    ];
  }};
in
own:
let inherit (of own) config; in {{
  failed = map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
  inherit (config) warnings;
}}
"""


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """Nix makes folders of its own at its first word."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def evaluate(state: Path, expression: str) -> Any:
    places = {f"NIX_{name}_DIR": str(state / name.lower()) for name in ("STATE", "LOG", "STORE")}
    done = subprocess.run(
        ["nix-instantiate", "--eval", "--strict", "--json", "-"],
        input=expression,
        capture_output=True,
        text=True,
        env={**os.environ, **places, "HOME": str(state), "NIX_REMOTE": "", "NIX_CONFIG": "build-users-group ="},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_both_sides_agree_of_every_version(state: Path) -> None:
    asked = [(product, version) for product in ("nix", "lix", "other") for version in (*VERSIONS, *NEIGHBOURS)]
    answers = evaluate(
        state,
        f"""
        let
          table = (builtins.fromTOML (builtins.readFile {ROOT}/templates/core/advisories.toml)).advisory;
          ids = map (one: one.id);
          ask = asked:
            let found = import {ROOT}/templates/core/affected.nix {{
              advisories = table;
              product = builtins.elemAt asked 0;
              version = builtins.elemAt asked 1;
            }}; in
            if found == null then null else [ (ids found.root) (ids found.less) found.mended ];
        in map ask ({to_nix([list(two) for two in asked])})
        """,
    )
    assert len(answers) == len(asked)
    for (product, version), answer in zip(asked, answers, strict=True):
        found = advisories.of(product, version)
        ours = found and [[one.id for one in found.root], [one.id for one in found.less], found.mended]
        assert answer == ours, (product, version)


@pytest.mark.parametrize("trust", Trust)
@pytest.mark.parametrize("accepted", [(), ("CVE-2026-39860",), ("CVE-2026-39860", "CVE-2026-44028")])
@pytest.mark.parametrize(("pname", "version"), [("nix", "2.28.5"), ("nix", "2.28.7"), ("lix", "2.93.3"), ("ix", "2.1")])
def test_the_configuration_stops_where_up_refuses(
    state: Path, pname: str, version: str, accepted: tuple[str, ...], trust: Trust
) -> None:
    own = {
        "nix": {"package": {"pname": pname, "version": version, "name": f"{pname}-{version}"}},
        "services": {"nixprov": {"acceptedAdvisories": list(accepted), "trust": trust.value}},
    }
    said = evaluate(state, f"({SYSTEM}) ({to_nix(own)})")
    facts = Facts("h", {"nix-version": f"nix ({pname}) {version}".encode()})
    flaws = Flaws.of(ModuleSpec(trust=trust, accepted_advisories=accepted), facts)
    refusal = flaws.refusal()
    assert len(said["failed"]) == (refusal is not None)
    assert len(said["warnings"]) == len(list(flaws.warnings()))
    refused = [one.id for one in flaws.all if one.is_root and not flaws.accepts(one)]
    for message in said["failed"]:
        assert f"nixprov: {pname} {version} lets jobs become root of this host: {', '.join(refused)}; " in message
        assert f"{flaws.mended} mends it; set nix.package" in message


def test_a_name_that_is_none_stops_with_those_that_are(state: Path) -> None:
    own = {
        "nix": {"package": {"pname": "nix", "version": "2.35.3", "name": "nix-2.35.3"}},
        "services": {"nixprov": {"acceptedAdvisories": ["CVE-1"]}},
    }
    said = evaluate(state, f"({SYSTEM}) ({to_nix(own)})")
    assert [message.partition("; ")[0] for message in said["failed"]] == [
        "nixprov: acceptedAdvisories names what is no advisory: CVE-1"
    ]
    assert ", ".join(one.id for one in advisories.known()) in said["failed"][0]
