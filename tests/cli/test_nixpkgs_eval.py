"""tests/nixpkgs-eval where it has nothing to evaluate; tests/lab/test_module_eval.py runs it on a tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "nixpkgs-eval"


def run(path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(SCRIPT)], env={"PATH": path, **environment}, capture_output=True, text=True, check=False
    )


def test_without_a_tree_it_says_in_one_line_that_it_was_skipped() -> None:
    done = run("/usr/bin:/bin")
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")
    assert done.stdout.startswith("skipped: ")


@pytest.fixture
def nix(tmp_path: Path) -> str:
    """A PATH on which there is a Nix, as far as the script asks."""
    program = tmp_path / "nix-instantiate"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return f"{tmp_path}:/usr/bin:/bin"


def test_a_folder_that_is_no_tree_is_named(nix: str, tmp_path: Path) -> None:
    done = run(nix, NIXPROV_NIXPKGS=f"{tmp_path}/none")
    assert done.returncode == 2
    assert done.stderr == f"nixpkgs-eval: no nixpkgs tree: {tmp_path}/none\n"


def test_without_nix_it_cannot_try(tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    done = run(str(tmp_path), NIXPROV_NIXPKGS="/somewhere")
    assert done.returncode == 2
    assert "nix-instantiate is missing" in done.stderr
