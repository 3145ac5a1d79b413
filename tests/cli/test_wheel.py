"""What `pip install .` brings: the package with everything that is not Python in it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from provisioner import __version__

ROOT = Path(__file__).parents[2]


def files(folder: str) -> set[Path]:
    """The files below a folder, without what running them leaves."""
    found = {path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(ROOT) for path in found}


def wheel(folder: Path, into: Path) -> set[str]:
    """The names of all files in the wheel of the project in `folder`."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(into)]
    subprocess.run(build, cwd=folder, check=True, capture_output=True, timeout=60)
    (built,) = into.glob("*.whl")
    return set(zipfile.ZipFile(built).namelist())


def test_the_wheel_has_templates_and_playbooks_and_nothing_of_the_lab(tmp_path: Path) -> None:
    names = wheel(ROOT, tmp_path)
    for folder in ("templates", "playbooks"):
        assert {f"provisioner/{path}" for path in files(folder)} <= names
    assert {str(path) for path in files("provisioner")} <= names
    assert "provisioner/py.typed" in names
    assert not any(name.startswith(("tests/", "bench/", "lab/", "nixprov_lab/")) for name in names)


def test_the_labs_wheel_has_its_files_and_its_command(tmp_path: Path) -> None:
    names = wheel(ROOT / "lab", tmp_path)
    assert {str(path.relative_to("lab")) for path in files("lab/nixprov_lab")} <= names
    assert "nixprov_lab/py.typed" in names
    assert f"nixprov_lab-{__version__}.dist-info/entry_points.txt" in names
    assert f"nixprov_lab-{__version__}.dist-info/licenses/LICENSE" in names
    assert (ROOT / "lab" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert {name.split("/")[0] for name in names} == {"nixprov_lab", f"nixprov_lab-{__version__}.dist-info"}
