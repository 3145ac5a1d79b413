"""The start of a new process: the libraries that it loads, and the folders where it finds its templates."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from provisioner import resources
from tests.unit.test_layers import PACKAGE

SLOW_LIBRARIES: Final = {"fabric", "invoke", "paramiko", "gitlab", "requests", "jinja2", "rich"}


def loaded_by(code: str) -> set[str]:
    report = (
        f"import sys\nsys.argv = ['nixprov', '--help']\n{code}\nprint('loaded:', *sys.modules, file=sys.__stderr__)"
    )
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("loaded:")[2].split())


def test_help_loads_no_slow_library() -> None:
    loaded = loaded_by("import provisioner.cli\ntry:\n    provisioner.cli.main()\nexcept SystemExit:\n    pass")
    assert "provisioner.cli" in loaded
    assert loaded & SLOW_LIBRARIES == set()


def modules_of(package: Path) -> list[str]:
    paths = (path.relative_to(package.parent).with_suffix("") for path in sorted(package.rglob("*.py")))
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


def test_only_a_page_loads_the_templates() -> None:
    modules = [f"import {name}" for name in modules_of(PACKAGE) if not name.endswith(("report.html", "__main__"))]
    assert loaded_by("\n".join(modules)) & {"jinja2", "markupsafe"} == set()
    assert "jinja2" in loaded_by("import provisioner.report.html")


@pytest.mark.parametrize("library", sorted(SLOW_LIBRARIES))
def test_a_slow_library_would_be_seen(library: str) -> None:
    assert library in loaded_by(f"import {library}")


def test_the_interface_imports_no_library() -> None:
    code = "import json, sys, provisioner.forge; print(json.dumps(sorted({'gitlab', 'requests'} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_shipped_folders_are_found() -> None:
    assert (resources.templates() / "default.nix").is_file()
    assert resources.playbooks().name == "playbooks"


def test_the_folders_inside_a_wheel_come_first(tmp_path: Path) -> None:
    inside = tmp_path / "provisioner" / "templates"
    inside.mkdir(parents=True)
    for file in ("__init__.py", "resources.py"):
        shutil.copy(Path(resources.__file__).parent / file, tmp_path / "provisioner")
    code = "from provisioner import resources; print(resources.templates(), resources.playbooks())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(inside), str(tmp_path / "playbooks")]
