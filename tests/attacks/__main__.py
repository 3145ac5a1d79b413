"""`make attacks`: the whole table, with an exit code of 1 when a result is not what it has to be."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from nixprov_lab import control
from nixprov_lab.process import missing_for_lab

from tests.attacks import arena
from tests.attacks.case import Case, Door, Result
from tests.attacks.cases import ALL


def main(names: list[str]) -> int:
    problem = missing_for_lab()
    if problem:
        sys.stderr.write(f"attacks: {problem}\n")
        return 1
    cases = [case for case in ALL if not names or case.name in names]
    with tempfile.TemporaryDirectory() as home:
        lab = control.start(2, progress=tell)
        try:
            arena.prepare(lab, Path(home))
            results = arena.fight(lab, cases, lambda result: tell(f"{result.door.value:6} {result.case.name}"))
        finally:
            lab.stop()
    sys.stdout.write(table(cases, results))
    wrong = [result for result in results if result.outcome is not result.wanted]
    for result in wrong:
        tell(f"{result.case.name} through {result.door.value} is {result.outcome.value}:\n{result.trace}")
    return 1 if wrong else 0


def tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def table(cases: list[Case], results: list[Result]) -> str:
    found = {(result.case.name, result.door): result for result in results}
    rows = ["| attack | plain socket | ours |", "|---|---|---|"]
    for case in cases:
        ours = found[case.name, Door.OURS].outcome.value
        note = f" ({case.inherent})" if case.inherent else ""
        rows.append(f"| {case.name} | {found[case.name, Door.PLAIN].outcome.value} | {ours}{note} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
