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


COMPLETES: Final = """
import sys
import provisioner.cli
try:
    provisioner.cli.main([])
finally:
    print("loaded:", *sys.modules)
"""


def test_completion_of_a_host_reads_the_inventory_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inventory").write_text("[ci]\nhost1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent))
    for name, value in {"_NIXPROV_COMPLETE": "bash_complete", "COMP_WORDS": "nixprov up h", "COMP_CWORD": "2"}.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", COMPLETES], capture_output=True, text=True, check=True)
    said, _, loaded = done.stdout.rpartition("loaded:")
    assert said == "plain,host1\n"
    modules = set(loaded.split())
    assert "provisioner.inventory" in modules
    assert modules & {*SLOW_LIBRARIES, "tree_sitter", "pydantic", "cryptography", "yaml"} == set()
    rooms = {name for name in modules if name.startswith("provisioner.")}
    far = ("engine", "verbs", "steps", "machine", "ssh", "app", "events", "plan")
    assert [name for name in rooms if name.split(".")[1] in far] == []
    assert {name for name in rooms if name.startswith("provisioner.ci.gitlab.")} == {"provisioner.ci.gitlab.words"}


def modules_of(package: Path) -> list[str]:
    paths = (path.relative_to(package.parent).with_suffix("") for path in sorted(package.rglob("*.py")))
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


def test_only_a_page_loads_the_templates() -> None:
    modules = [f"import {name}" for name in modules_of(PACKAGE) if not name.endswith(("report.html", "__main__"))]
    assert loaded_by("\n".join(modules)) & {"jinja2", "markupsafe"} == set()
    assert "jinja2" in loaded_by("import provisioner.report.html")


def test_events_and_their_reports_load_no_pydantic() -> None:
    """The schema is made of them by it, and nothing else is."""
    reports = "import provisioner.events, provisioner.report.json_lines, provisioner.report.text"
    assert loaded_by(reports) & {"pydantic", "cryptography"} == set()
    assert "pydantic" in loaded_by("import provisioner.report.schema")


@pytest.mark.parametrize("library", sorted(SLOW_LIBRARIES))
def test_a_slow_library_would_be_seen(library: str) -> None:
    assert library in loaded_by(f"import {library}")


def test_the_interface_imports_no_library() -> None:
    code = "import json, sys, provisioner.ci; print(json.dumps(sorted({'gitlab', 'requests'} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_shipped_folders_are_found() -> None:
    assert (resources.templates() / "core" / "default.nix").is_file()
    assert resources.playbooks().name == "playbooks"


def test_the_folders_inside_a_wheel_come_first(tmp_path: Path) -> None:
    inside = tmp_path / "provisioner" / "templates"
    inside.mkdir(parents=True)
    for file in ("__init__.py", "resources.py"):
        shutil.copy(Path(resources.__file__).parent / file, tmp_path / "provisioner")
    code = "from provisioner import resources; print(resources.templates(), resources.playbooks())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(inside), str(tmp_path / "playbooks")]
