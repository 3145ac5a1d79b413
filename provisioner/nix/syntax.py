"""Nix source as a tree; the only importer of tree-sitter.

Owns parsing, and the places of things in a NixOS module. These are the set that is the module, its bindings, and the
list literals of a value. Reads only, and does not know the reason of a search.

The grammar (tree-sitter-nix 0.1.0) rejects one thing that Nix accepts, a trailing comma in a function's arguments.
That is cured here. It accepts things that Nix rejects: a byte order mark, attributes set twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Final, TypeAlias

import tree_sitter
import tree_sitter_nix

Node: TypeAlias = tree_sitter.Node

SETS: Final = frozenset({"attrset_expression", "rec_attrset_expression"})
SCOPES: Final = frozenset({"with_expression", "let_expression", "assert_expression"})
_TRAILING_COMMA: Final = re.compile(rb",(?=(?>\s+|#[^\n]*\n|/\*.*?\*/)*+\})", re.DOTALL)


class NotUnderstood(ValueError):
    """A file of an unknown shape; the text names the line and the shape."""

    def __init__(self, node: Node, problem: str) -> None:
        super().__init__(f"line {line_of(node)}: {problem}")


def parse(source: bytes) -> Node | None:
    """Give the root of the tree, with byte offsets into `source`; None when the text is not one whole expression."""
    root = _parser().parse(source).root_node
    if root.has_error:
        # A blank in place of the comma keeps every offset. In a string or a comment it does not matter.
        root = _parser().parse(_TRAILING_COMMA.sub(b" ", source)).root_node
    return None if root.has_error or root.child_by_field_name("expression") is None else root


@cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_nix.language()))


def walk(top: Node) -> Iterator[Node]:
    """Give all nodes in the order of the text; a loop, since files may nest deeper than Python's stack."""
    stack = [top]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def field(node: Node, name: str) -> Node:
    child = node.child_by_field_name(name)
    if child is None:
        raise NotUnderstood(node, f"an expression without its {name}")
    return child


def line_of(node: Node) -> int:
    return node.start_point.row + 1


def module(root: Node) -> Node:
    """Find the set that is the module, behind its arguments, `let`, `with`, `assert` and parentheses.

    Raises NotUnderstood for everything that is computed: calls, `if`, `//`, functions of functions.
    """
    node = field(root, "expression")
    is_function = False
    while node.type not in SETS:
        if node.type == "parenthesized_expression":
            node = field(node, "expression")
        elif node.type in SCOPES or (node.type == "function_expression" and not is_function):
            is_function = is_function or node.type == "function_expression"
            node = field(node, "body")
        else:
            kind = node.type.removesuffix("_expression").replace("_", " ")
            raise NotUnderstood(node, f"the module is not written as one set, but as: {kind}")
    return node


def bindings(module_set: Node) -> list[Node]:
    """Give the `a.b = …;` and `inherit …;` of a set."""
    groups = [child for child in module_set.named_children if child.type == "binding_set"]
    return [child for group in groups for child in group.named_children if child.type != "comment"]


def names(binding: Node) -> list[str]:
    """Give the parts of a binding's attribute path, or the names it inherits, without quotes."""
    holders = [child for child in binding.named_children if child.type in {"attrpath", "inherited_attrs"}]
    attrs = [attr for holder in holders for attr in holder.children_by_field_name("attr")]
    texts = [((attr.text or b"").decode("latin-1"), attr.type) for attr in attrs]
    return [text.strip('"') if kind == "string_expression" else text for text, kind in texts]


def lists(value: Node) -> Iterator[Node]:
    """Give the list literals that are surely part of a value, first to last: operands of `++`, not arguments."""
    stack = [value]
    while stack:
        node = stack.pop()
        if node.type == "list_expression":
            yield node
        elif node.type == "parenthesized_expression":
            stack.append(field(node, "expression"))
        elif node.type in SCOPES:
            stack.append(field(node, "body"))
        elif is_concatenation(node):
            stack += [field(node, "right"), field(node, "left")]


def is_concatenation(node: Node) -> bool:
    return node.type == "binary_expression" and field(node, "operator").type == "++"
