"""The oracle of the unit tests: real Nix, evaluating without a store, a daemon or a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

NixEval = Callable[[str], object]


@pytest.fixture(scope="session")
def nix_eval(tmp_path_factory: pytest.TempPathFactory) -> NixEval:
    """Evaluate an expression strictly and give its JSON as Python values; AssertionError carries what Nix said."""
    program = shutil.which("nix-instantiate")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("nix-instantiate is missing, and in CI these tests are not skipped")
        pytest.skip("nix-instantiate is not installed (Debian package nix-bin)")
    home = tmp_path_factory.mktemp("nix-home")
    command = [program, "--store", "dummy://", "--readonly-mode", "--eval", "--strict", "--json"]

    def evaluate(expression: str) -> object:
        file = home / "expression.nix"
        file.write_bytes(expression.encode())
        done = _run([*command, str(file)], home)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return json.loads(done.stdout)

    return evaluate


def _run(command: list[str], home: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, env={"HOME": str(home)}, stdin=subprocess.DEVNULL, capture_output=True, check=False)
