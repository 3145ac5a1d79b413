"""The places of the files we ship: templates and playbooks, from a wheel or from a source tree.

Must not know their content.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def templates() -> Traversable:
    """The folder of the files that are pushed to hosts: Nix, and programs of the module."""
    return _folder("templates")


def playbooks() -> Traversable:
    """The folder of the plays we ship (YAML)."""
    return _folder("playbooks")


def _folder(name: str) -> Traversable:
    # The wheel has them inside the package (pyproject.toml, force-include); the repository, beside it.
    packaged = files("provisioner") / name
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / name
