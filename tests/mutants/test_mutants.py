"""`make mutants` finds what it takes out by the syntax tree: a field of a new kind is told before it is run."""

from __future__ import annotations

import ast
from collections import Counter

from tests.mutants.equivalents import EQUIVALENT
from tests.mutants.mutant import FILES, TEMPLATES
from tests.mutants.rules import mutants


def test_each_mutant_is_a_program_and_another_one() -> None:
    sources = {file: (TEMPLATES / file).read_bytes() for file in FILES}
    for mutant in mutants():
        source = sources[mutant.file]
        assert mutant.applied(source) != source
        ast.parse(mutant.applied(source))


def test_each_refusal_is_taken_out() -> None:
    taken = Counter(mutant.file for mutant in mutants() if mutant.after == "False")
    for file in FILES:
        nodes = ast.walk(ast.parse((TEMPLATES / file).read_text()))
        refusals = [node for node in nodes if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise)]
        assert taken[file] >= len(refusals)


def test_what_is_left_out_is_still_there() -> None:
    assert EQUIVALENT.keys() <= {mutant.key for mutant in mutants()}
