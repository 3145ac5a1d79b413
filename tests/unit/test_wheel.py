"""What `pip install .` brings: the package with everything that is not Python in it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files(folder: str) -> set[Path]:
    """The files below a folder, without what running them leaves."""
    found = {path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(ROOT) for path in found}


def test_the_wheel_has_templates_playbooks_and_the_labs_files(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("templates", "playbooks"):
        assert {f"provisioner/{path}" for path in files(folder)} <= names
    assert {str(path) for path in files("provisioner")} <= names
    assert not any(name.startswith(("tests/", "bench/")) for name in names)
