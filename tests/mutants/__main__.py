"""`make mutants`: each protection of the filter is taken out once, and its unit tests have to notice."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.mutants import trial
from tests.mutants.equivalents import EQUIVALENT
from tests.mutants.rules import mutants
from tests.mutants.trial import Outcome, Trial

# Most of the time they wait for a filter that says nothing.
AT_ONCE: Final = 3 * (os.cpu_count() or 1)


def main(names: Sequence[str]) -> int:
    every = mutants()
    chosen = [mutant for mutant in every if not names or any(name in str(mutant) for name in names)]
    tried = [mutant for mutant in chosen if mutant.key not in EQUIVALENT]
    trial.prepare()
    with tempfile.TemporaryDirectory() as folder:
        # The filter as it is comes first: what its tests say of a mutant is worth nothing when they fail for it.
        for run, outcome in trial.run([None], Path(folder), 1):
            if outcome is not Outcome.SURVIVED:
                tell(f"the tests fail for the filter as it is:\n{run.output}")
                return 1
        survivors = sum(is_survivor(run, outcome) for run, outcome in trial.run(tried, Path(folder), AT_ONCE))
    gone = EQUIVALENT.keys() - {mutant.key for mutant in every}
    for key in sorted(gone):
        tell(f"tests/mutants/equivalents.py has a mutant that is none any more: {key}")
    sys.stdout.write(
        f"{len(tried)} mutants, {len(tried) - survivors} noticed ({len(chosen) - len(tried)} are left out as equivalent)\n"
    )
    return 1 if survivors or gone else 0


def is_survivor(run: Trial, outcome: Outcome) -> bool:
    match outcome:
        case Outcome.SURVIVED:
            tell(f"SURVIVED  {run.mutant}")
        case Outcome.BROKEN:
            tell(f"BROKEN    {run.mutant}\n{run.output}")
        case _:
            if sys.stderr.isatty():
                tell(f"noticed   {run.mutant} ({run.failed})")
            return False
    return True


def tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
