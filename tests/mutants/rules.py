"""What is a protection, by the shape of the syntax tree: each rule gives the ways to take one out of a node."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.mutants import fields, patterns
from tests.mutants.mutant import FILES, Module, Mutant

HUGE: Final = "(1 << 62)"
# Beyond what the command line means there is nothing in it; the contract tests start it.
LEFT_OUT: Final = {"main"}


@dataclass(frozen=True)
class Facts:
    """What the files define: whole numbers by name, and functions by how they are declared."""

    numbers: frozenset[str]
    # Those that give back a value of their first argument's type.
    keepers: frozenset[str]
    # Those that give a judge of one value.
    judges: frozenset[str]
    records: frozenset[str]


def mutants() -> list[Mutant]:
    modules = [Module.read(file) for file in FILES]
    facts = facts_of(modules)
    found = [
        mutant
        for module in modules
        for mutant in (*by_node(module, facts), *fields.laxer(module), *patterns.laxer(module))
        if mutant.before != mutant.after
    ]
    return sorted(set(found), key=lambda mutant: (FILES.index(mutant.file), mutant.start, mutant.end, mutant.after))


def facts_of(modules: list[Module]) -> Facts:
    statements = [statement for module in modules for statement in module.tree.body]
    functions = [statement for statement in statements if isinstance(statement, ast.FunctionDef)]
    classes = [statement for statement in statements if isinstance(statement, ast.ClassDef)]
    return Facts(
        numbers=frozenset(name for statement in statements for name in numbers_of(statement)),
        keepers=frozenset(each.name for each in functions if is_keeper(each)),
        judges=frozenset(
            each.name
            for each in functions
            if each.returns and ast.unparse(each.returns) == "Callable[[bytes], bytes | None]"
        ),
        records=frozenset(
            each.name for each in classes if any(ast.unparse(base) == "NamedTuple" for base in each.bases)
        ),
    )


def numbers_of(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Assign) and is_number(statement.value):
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def is_number(value: ast.expr) -> bool:
    match value:
        case ast.Constant(value=int()) | ast.Call(func=ast.Name(id="range")):
            return True
        case ast.BinOp(left=left, right=right):
            return is_number(left) and is_number(right)
    return False


def is_keeper(function: ast.FunctionDef) -> bool:
    first = function.args.args[0].annotation if function.args.args else None
    returned = function.returns
    return first is not None and returned is not None and ast.unparse(first) == ast.unparse(returned)


def by_node(module: Module, facts: Facts) -> Iterator[Mutant]:
    for node in walk(module.tree):
        for rule in (conditions, members, bounds, statements, calls):
            yield from rule(module, facts, node)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that say what is done: neither annotations nor messages nor docstrings."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "exc") and not isinstance(node, ast.Call):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not is_left_out(child):
                yield from walk(child)


def is_left_out(node: ast.AST) -> bool:
    match node:
        case ast.FunctionDef(name=name):
            return name in LEFT_OUT
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.JoinedStr():
            return True
    return False


def conditions(module: Module, _: Facts, node: ast.AST) -> Iterator[Mutant]:
    """A condition that always holds, one that never does, and one with a part of it taken out."""
    match node:
        case ast.If(test=test, body=[*_, ast.Raise()]):
            yield module.replaced(test, "False")
        case ast.If(test=test) | ast.IfExp(test=test):
            yield module.replaced(test, "True")
            yield module.replaced(test, "False")
        case ast.While(test=test) if not isinstance(test, ast.Constant):
            yield module.replaced(test, "False")
        case ast.Return(value=ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()) as said):
            yield module.replaced(said, "True")
            yield module.replaced(said, "False")
        case ast.BoolOp(op=op, values=values):
            for value in values:
                yield module.replaced(value, "True" if isinstance(op, ast.And) else "False")
        case ast.Compare(left=left, ops=[_, _], comparators=[_, right]):
            yield module.replaced(left, "-1")
            yield module.replaced(right, HUGE)
    if isinstance(node, ast.IfExp) and isinstance(node.body, ast.Call) and ast.unparse(node.orelse) == "None":
        # What nobody judges passes.
        yield module.replaced(node.orelse, module.text(node.body.args[0]))


def members(module: Module, _: Facts, node: ast.AST) -> Iterator[Mutant]:
    """A closed list that has one member less."""
    match node:
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Tuple(elts=elements) as whole]):
            for gone in elements:
                rest = [module.text(element) for element in elements if element is not gone]
                yield module.replaced(whole, f"({', '.join(rest)},)")
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                assert key is not None
                yield module.without(module.span(key)[0], module.span(value)[1])


def bounds(module: Module, facts: Facts, node: ast.AST) -> Iterator[Mutant]:
    """A maximum that nothing reaches, and the lesser of two that is one of them."""
    match node:
        case ast.Name(id=name, ctx=ast.Load()) if name in facts.numbers:
            yield module.replaced(node, HUGE)
        case ast.Call(func=ast.Name(id="min" | "max"), args=[first, second]):
            yield module.replaced(node, module.text(first))
            yield module.replaced(node, module.text(second))
        case ast.Attribute(attr="fullmatch"):
            yield module.replaced(node, module.text(node.value) + ".match")


def statements(module: Module, _: Facts, node: ast.AST) -> Iterator[Mutant]:
    """Something that is not done."""
    if isinstance(node, ast.FunctionDef) and node.name == "__init__":
        return
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, [])
        for statement in block if isinstance(block, list) and isinstance(node, ast.stmt | ast.ExceptHandler) else []:
            if is_action(statement) and not (isinstance(statement, ast.Raise) and isinstance(node, ast.If)):
                yield module.replaced(statement, "pass")


def is_action(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Return(value=None):
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return True
        case ast.Assign(value=ast.Attribute(value=ast.Name(id=name))):
            # A member of an enumeration.
            return name.istitle()
    return False


def calls(module: Module, facts: Facts, node: ast.AST) -> Iterator[Mutant]:
    """A value that nobody judges or cuts, and an argument that is not given."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in facts.keepers:
            yield module.replaced(node, module.text(first))
        case ast.Call(func=ast.Name(id=name)) if name in facts.judges:
            yield module.replaced(node, "(lambda value: value)")
        case ast.Call(func=ast.Name(id="_word"), args=[_, _, *words]):
            yield module.replaced(node, "(lambda word: (sink.text(word), word)[1])(source.text(MAX_WORD))")
            if len(words) > 1:
                yield from (module.without(*module.span(word)) for word in words)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        for keyword in node.keywords:
            if node.func.id in facts.records or isinstance(keyword.value, ast.Constant):
                yield module.without(*module.span(keyword))
