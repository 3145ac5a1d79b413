"""The lab is released with nixprov, under the same version, and works with that version alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

from provisioner import __version__

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_the_version_is_nixprovs() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    assert project["version"] == __version__
    assert f"nixprov=={__version__}" in project["dependencies"]
