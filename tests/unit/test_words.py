"""The words that people read of a provider are the provider's: no text outside of its folder names it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from tests.unit.test_layers import PACKAGE, trees

# Interface: fields of events, an outcome.
NAMES: Final = {"gitlab", "gitlab_status", "gitlab_writes"}
# The bridge joins two services by name (ADR 0032).
BY_NAME: Final = ("ci/gitlab/", "bridge/", "cli/bridge.py")
# The program about itself, as long as there is one provider.
ABOUT: Final = {r"nixprov \- NixOS machines as GitLab CI runners, and back"}


def texts(tree: ast.Module) -> Iterator[ast.Constant]:
    """Literals that are no docstrings."""
    docs = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in docs)


def named(file: str, tree: ast.Module) -> list[str]:
    found = (node for node in texts(tree) if isinstance(node.value, str) and "gitlab" in node.value.lower())
    return [f"{file}:{node.lineno}: {node.value!r}" for node in found if node.value not in NAMES | ABOUT]


def test_no_text_outside_of_its_folder_names_gitlab() -> None:
    outside = [(file, tree) for file, tree in trees(PACKAGE) if not file.startswith(BY_NAME)]
    assert [line for file, tree in outside for line in named(file, tree)] == []


def test_a_text_that_does_would_be_seen() -> None:
    text = 'def f(x):\n    """GitLab is fine here."""\n    return f"runner {x} in GitLab"'
    assert named("a.py", ast.parse(text)) == ["a.py:3: ' in GitLab'"]
