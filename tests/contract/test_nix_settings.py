"""Every setting that a Nix from 2.18 to 2.34 has is in one class of templates/core/nix-settings.nix, and in one only."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# By name, the first and the last of these versions that has it, from Nix' own source.
NAMES: dict[str, tuple[str, str]] = json.loads((ROOT / "tests/data/nix-settings.json").read_text())
TABLE = f"""
let table = import {ROOT}/templates/core/nix-settings.nix; in {{
  inherit (table) measured inherited harmless since features withheld;
  forced = table.forced {{ nix = "nix"; keepHook = "hook"; buildDir = "/builds"; limits = {{
    buildLogMiB = 1; buildTimeout = 2; buildSilence = 3; }}; }};
}}"""

pytestmark = pytest.mark.skipif(shutil.which("nix-instantiate") is None, reason="needs the package nix-bin")


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    command = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", TABLE]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def test_every_setting_is_in_one_class_and_no_other_is(table: dict[str, Any]) -> None:
    classed = Counter([*table["forced"], *table["measured"], *table["inherited"], *table["harmless"]])
    assert classed == Counter([*NAMES])


def test_a_forced_setting_is_told_to_a_nix_that_knows_it_and_to_no_other(table: dict[str, Any]) -> None:
    younger = {name: first for name, (first, _) in NAMES.items() if name in table["forced"] and first != "2.18"}
    assert table["since"] == younger
    gone = {name for name, (_, last) in NAMES.items() if name in table["forced"] and last != "2.34"}
    assert gone == set()


def test_what_a_setting_needs_a_feature_for_is_withheld_again(table: dict[str, Any]) -> None:
    assert set(table["features"]) <= set(table["forced"])
    assert set(table["features"].values()) < set(table["withheld"])


def test_why_a_setting_is_the_owners_is_said(table: dict[str, Any]) -> None:
    assert all(reason.strip() for reason in table["inherited"].values())
