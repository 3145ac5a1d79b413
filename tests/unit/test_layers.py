"""The architecture, checked on the syntax tree: imports go down only, and each foreign library has one place."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "provisioner"
# A package of its own, called lab/ here.
LAB: Final = ROOT / "lab" / "nixprov_lab"

# From the top down; what shares a line must not import each other.
LAYERS: Final = (
    {"__main__"},
    {"cli"},
    {"report", "bridge"},
    {"app"},
    {"verbs"},
    {"selection", "engine"},
    {"runs", "events", "diff"},
    {"plan", "masking"},
    {"steps"},
    {"hooks"},
    {"machine", "ci", "nix", "inventory"},
    {"ssh"},
    {"advisories", "batches"},
    {"sealing", "transport"},
    {"verb", "model", "outcome", "resources", "paths", "environment", "version"},
    {"limits"},
    {"errors"},
)
# The lab stands beside the layers: nixprov knows it by an entry point only, and it uses what knows nothing of hosts.
LAB_IMPORTS: Final = {"model", "resources", "errors"}
LAB_CLI_IMPORTS: Final = LAB_IMPORTS | {"cli", "report"}

_SSH: Final = ("ssh/*",)
_GITLAB: Final = ("ci/gitlab/client.py", "ci/gitlab/config_files.py")
_HTTP: Final = ("ci/gitlab/client.py", "transport.py")
SEAMS: Final = {
    "fabric": _SSH,
    "invoke": _SSH,
    "paramiko": _SSH,
    "cryptography": (*_SSH, "sealing.py"),
    "gitlab": (*_GITLAB, "bridge/gitlab.py"),
    "requests": (*_HTTP, "bridge/github.py", "bridge/gitlab.py"),
    "urllib3": _HTTP,
    "jwt": ("bridge/github.py",),
    "jinja2": ("report/html.py",),
    "markupsafe": ("report/html.py",),
    "tree_sitter": ("nix/syntax.py",),
    "tree_sitter_nix": ("nix/syntax.py",),
    "click": ("cli/*", "lab/cli.py"),
    "rich": ("report/live.py",),
    "yaml": ("inventory/yaml_text.py",),
    "pydantic": ("inventory/*", "report/schema.py", "bridge/config.py"),
    "pydantic_core": ("inventory/*",),
    "starlette": ("lab/gitlab/*", "bridge/doorbell.py"),
    "uvicorn": ("lab/gitlab/*", "bridge/doorbell.py"),
    "typing_extensions": ("*",),
}
VOICES: Final = ("cli/*", "lab/cli.py", "lab/__main__.py", "lab/*/__main__.py", "lab/guest/*", "lab/nixos/*")
# What a machine of the lab runs has no package beside it.
ALONE: Final = ("lab/guest/*", "lab/nixos/*")
ALONG: Final = {"runner"}  # ... but lab/guest/runner, as a package of its own


@dataclass(frozen=True)
class Import:
    """One import, wherever it stands in the file; `module` is absolute and dotted."""

    file: str
    line: int
    module: str

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    @property
    def component(self) -> str:
        """What is imported of ours, by its place in the layers; "" is the package itself."""
        return "lab" if self.top == LAB.name else [*self.module.split("."), ""][1]


def component_of(file: str) -> str:
    return file.split("/", maxsplit=1)[0].removesuffix(".py").replace("__init__", "")


def trees(package: Path, lab: Path | None = None) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).as_posix(), parsed(path)
    if lab:
        yield from ((f"lab/{file}", tree) for file, tree in trees(lab))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(file: str, tree: ast.Module, package: Path) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(file, node)
            # `from provisioner import nix` imports a module, `from provisioner import __version__` the package.
            for alias in node.names if base == "provisioner" else []:
                is_module = (package / alias.name).is_dir() or (package / f"{alias.name}.py").is_file()
                yield Import(file, node.lineno, f"provisioner.{alias.name}" if is_module else base)
            if base != "provisioner":
                yield Import(file, node.lineno, base)
            if base == "provisioner.ci":
                yield from (Import(file, node.lineno, f"{base}.{alias.name}") for alias in node.names)


def absolute(file: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = ["provisioner", *file.split("/")] if not file.startswith("lab/") else [LAB.name, *file.split("/")[1:]]
    return ".".join([*parts[: len(parts) - node.level], *(node.module or "").split(".")]).rstrip(".")


def rank(component: str) -> int | None:
    return next((number for number, layer in enumerate(LAYERS) if component in layer), None)


def wrong_direction(found: Import) -> str | None:
    here, there = component_of(found.file), found.component
    if found.top not in ("provisioner", LAB.name) or here == there or not there or not here:
        return None
    if there == "lab":
        return "nothing imports the lab"
    if here == "lab":
        is_fine = there in (LAB_CLI_IMPORTS if found.file == "lab/cli.py" else LAB_IMPORTS)
        return None if is_fine else "the lab imports only model, resources, errors"
    above, below = rank(here), rank(there)
    if above is None or below is None:
        return f"has no layer: give {here if above is None else there} one in LAYERS"
    return None if above < below else f"{here} is not above {there}"


def wrong_provider(found: Import, package: Path) -> str | None:
    """A provider of CI is known by its line in the registry alone, so that another one is only another folder."""
    _, ci, name, *_ = [*found.module.split("."), "", "", ""]
    if found.top != "provisioner" or ci != "ci" or not (package / "ci" / name / "__init__.py").is_file() or not name:
        return None
    is_its_own = found.file == "ci/__init__.py" or found.file.startswith(f"ci/{name}/")
    return None if is_its_own else f"only ci/__init__.py imports the provider {name}"


def wrong_place(found: Import) -> str | None:
    if found.top in sys.stdlib_module_names:
        return None
    if is_in(found.file, ALONE):
        is_beside = found.top in ALONG or is_in(found.module.replace(LAB.name, "lab").replace(".", "/"), ALONE)
        return None if is_beside else "a machine of the lab has the standard library only"
    if found.top in ("provisioner", LAB.name):
        return None
    if found.top not in SEAMS:
        return f"{found.top} has no place: give it one in SEAMS"
    return None if is_in(found.file, SEAMS[found.top]) else f"{found.top} belongs to {' '.join(SEAMS[found.top])}"


def is_in(file: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


def voices(file: str, tree: ast.Module) -> Iterator[str]:
    """Find what prints or ends the process."""
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
        if name in {"print", "exit", "quit", "sys.exit", "SystemExit"} and not is_in(file, VOICES):
            assert isinstance(node, ast.expr)
            yield f"{file}:{node.lineno}: {name}: only the command line prints and exits"


def violations(package: Path, lab: Path | None = None) -> list[str]:
    found = []
    for file, tree in trees(package, lab):
        for item in imports_of(file, tree, package):
            problems = (wrong_direction(item), wrong_place(item), wrong_provider(item, package))
            found += [f"{file}:{item.line}: {item.module}: {problem}" for problem in problems if problem]
        found += voices(file, tree)
    return found


def test_imports_go_down_only_and_stay_in_their_place() -> None:
    assert violations(PACKAGE, LAB) == []


PLANTED = {
    "nix/a.py": ("from provisioner.steps import hook", "nix is not above steps"),
    "hooks/a.py": ("from provisioner.steps import base", "hooks is not above steps"),
    "machine/f.py": ("from provisioner import hooks", "machine is not above hooks"),
    "nix/b.py": ("def f():\n    import provisioner.cli.run", "nix is not above cli"),
    "nix/c.py": ("from ..machine import facts", "nix is not above machine"),
    "nix/d.py": ("from provisioner import plan", "nix is not above plan"),
    "nix/e.py": ("if TYPE_CHECKING:\n    from provisioner.app import App", "nix is not above app"),
    "nix/f.py": ("import jinja2", "jinja2 belongs to report/html.py"),
    "nix/g.py": ("def f():\n    from tree_sitter import Node", "tree_sitter belongs to nix/syntax.py"),
    "nix/h.py": ("import numpy", "numpy has no place"),
    "machine/a.py": ("import paramiko.client", "paramiko belongs to ssh/"),
    "machine/b.py": ("from fabric import Connection", "fabric belongs to ssh/"),
    "machine/c.py": ("def f():\n    print()", "only the command line prints"),
    "machine/d.py": ("import sys\nsys.exit(1)", "only the command line prints"),
    "machine/e.py": ("raise SystemExit(1)", "only the command line prints"),
    "ssh/a.py": ("from provisioner.machine import facts", "ssh is not above machine"),
    "app.py": ("from provisioner.bridge import git", "app is not above bridge"),
    "report/a.py": ("from provisioner.bridge import git", "report is not above bridge"),
    "ci/a.py": ("import gitlab.v4.objects", "gitlab belongs to ci/gitlab/client.py"),
    "ci/gitlab/__init__.py": ("from provisioner.ci.gitlab import client", ""),
    "ci/__init__.py": ("from provisioner.ci import gitlab", ""),
    "ci/base.py": ("from provisioner.ci import gitlab", "only ci/__init__.py imports the provider gitlab"),
    "verbs/a.py": (
        "from provisioner.ci.gitlab.client import Client",
        "only ci/__init__.py imports the provider gitlab",
    ),
    "engine/a.py": ("from nixprov_lab import control", "nothing imports the lab"),
    "engine/b.py": ("from provisioner.verbs import up", "engine is not above verbs"),
    "selection.py": ("from provisioner.engine import host", "selection is not above engine"),
    "cli/a.py": ("import nixprov_lab.cli", "nothing imports the lab"),
    "lab/a.py": ("from provisioner.verbs import up", "the lab imports only model"),
    "lab/b.py": ("from provisioner.cli import help", "the lab imports only model"),
    "lab/guest/a.py": ("import provisioner.model", "the standard library only"),
    "errors.py": ("from provisioner.model import Secret", "errors is not above model"),
    "new.py": ("from provisioner import model", "give new one in LAYERS"),
    "plan.py": ("", ""),
    "model.py": ("", ""),
}


def test_planted_violations_are_caught(tmp_path: Path) -> None:
    for file, (text, _) in PLANTED.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    found = violations(tmp_path)
    for file, (_, problem) in PLANTED.items():
        about = [line for line in found if line.startswith(f"{file}:")]
        assert [problem in line for line in about] == [True] * bool(problem), (file, about)


# Circles that are left, each by its modules. They go with the refactoring of their rooms.
KNOWN_CIRCLES: Final[set[frozenset[str]]] = set()


def module_of(file: str) -> str:
    return ".".join(["provisioner", *file.removesuffix(".py").split("/")]).removesuffix(".__init__")


def module_imports(package: Path) -> dict[str, set[str]]:
    """Each module of the package and those of it that it imports, at its top, in a function or for types only."""
    sources = dict(trees(package))
    modules = {module_of(file) for file in sources}
    found: dict[str, set[str]] = {module: set() for module in modules}
    for file, tree in sources.items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = absolute(file, node)
                # A name of a package is a module of it, or else the package's own.
                names = [name if (name := f"{base}.{alias.name}") in modules else base for alias in node.names]
            found[module_of(file)] |= {name for name in names if name in modules}
    return found


def circles(imports: Mapping[str, Collection[str]]) -> set[frozenset[str]]:
    """The largest sets of modules that all lead to each other."""
    reached = {module: reachable(module, imports) for module in imports}
    return {
        frozenset(other for other in seen if module in reached[other])
        for module, seen in reached.items()
        if module in seen
    }


def reachable(module: str, imports: Mapping[str, Collection[str]]) -> set[str]:
    seen, waiting = set[str](), [*imports[module]]
    while waiting:
        if (one := waiting.pop()) not in seen:
            seen.add(one)
            waiting += imports[one]
    return seen


def test_no_circle_between_modules() -> None:
    assert circles(module_imports(PACKAGE)) == KNOWN_CIRCLES


def test_planted_circles_are_caught(tmp_path: Path) -> None:
    planted = {
        "a.py": "def f():\n    from provisioner.nix import b",
        "nix/b.py": "if TYPE_CHECKING:\n    from ..machine.c import C",
        "machine/c.py": "import provisioner.a",
        "machine/d.py": "from provisioner.machine import c",
        "nix/__init__.py": "",
        "machine/__init__.py": "",
    }
    for file, text in planted.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    assert circles(module_imports(tmp_path)) == {
        frozenset({"provisioner.a", "provisioner.nix.b", "provisioner.machine.c"})
    }
