"""`make`: an environment in the checkout is kept up to date, one outside of it is never written to."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREREQUISITES = ("Makefile", "pyproject.toml", "lab/pyproject.toml", "constraints.txt", "scripts/install")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that make looks at, with an installer and a check that only say that they ran."""
    folder = tmp_path / "checkout"
    for name in PREREQUISITES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "scripts/install").write_text('#!/bin/sh\necho "installed $1"\nmkdir -p "$1/bin"\n')
    (folder / "scripts/check").write_text('#!/bin/sh\necho "checked with ${PATH%%:*}"\n')
    (folder / "scripts/check").chmod(0o755)
    return folder


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--silent", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("venv", [".venv", "deep/venv", "./.venv/"])
def test_an_environment_in_the_checkout_is_installed_once(checkout: Path, venv: str) -> None:
    first, again = make(checkout, "check", f"VENV={venv}"), make(checkout, "check", f"VENV={venv}")
    assert (first.returncode, f"installed {venv}" in first.stdout) == (0, True), first.stderr
    assert (again.returncode, "installed" in again.stdout) == (0, False)


@pytest.mark.parametrize("venv", ["absolute", "../other/venv", "link"])
def test_an_environment_outside_is_used_as_it_is(checkout: Path, venv: str) -> None:
    other = checkout.parent / "other/venv"
    (other / "bin").mkdir(parents=True)
    (other / "bin/nixprov").write_text("")
    (other / "bin/nixprov").chmod(0o755)
    (checkout / "link").symlink_to(other)
    done = make(checkout, "check", f"VENV={other if venv == 'absolute' else venv}")
    assert (done.returncode, "installed" in done.stdout) == (0, False), done.stderr
    assert done.stdout.startswith("checked with ")
    assert [file.name for file in other.rglob("*")] == ["bin", "nixprov"]


def test_an_environment_outside_without_nixprov_is_one_line(checkout: Path) -> None:
    elsewhere = checkout.parent / "elsewhere"
    done = make(checkout, "check", f"VENV={elsewhere}")
    said = f"{elsewhere} is outside of this checkout and has no nixprov; to have it there: scripts/install {elsewhere}"
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (2, "", said)
    assert not elsewhere.exists()
