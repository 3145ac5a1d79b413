# ruff: noqa: T201 - a program of its own, that prints a table
"""Run the whole matrix on a lab of its own, one thread a host, and print the table. `python -m tests.faults [WORD ...]`

Words select: only faults whose line contains one of them are tried.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from provisioner.lab import control
from provisioner.lab.running import LAB_VARIABLE, Lab, chosen
from tests.faults.matrix import HEADER, TRANSACTIONS, Matrix, Row, all_faults

HOSTS = 2


def main(words: Sequence[str]) -> int:
    given = chosen() if os.environ.get(LAB_VARIABLE) else None
    lab = given or control.start(HOSTS, progress=print)
    started = time.monotonic()
    try:
        rows = _rows(lab, words)
    finally:
        if given is None:
            lab.stop()
    lost = [row for row in rows if row.problems]
    missed = [row for row in rows if not row.reached]
    wanted = sum(row.fault.ends_installed for row in rows)
    orphans = sum(row.runners for row in rows) - wanted
    print(f"\n{len(rows)} tried, {len(lost)} lost, {orphans} orphans, {time.monotonic() - started:.0f} s")
    for row in [*lost, *missed]:
        print(f"  {'not reached' if not row.reached else 'lost'}: {row.fault}")
    return 1 if lost or missed else 0


def _rows(lab: Lab, words: Sequence[str]) -> list[Row]:
    print(HEADER, flush=True)
    hosts = [host.name for host in lab.state.hosts]
    with tempfile.TemporaryDirectory() as homes, ThreadPoolExecutor(len(hosts)) as pool:
        shares = [(Matrix(lab, host, Path(homes)), number) for number, host in enumerate(hosts)]
        done = pool.map(lambda share: list(_share(share[0], share[1], len(hosts), words)), shares)
        return [row for rows in done for row in rows]


def _share(matrix: Matrix, number: int, of: int, words: Sequence[str]) -> Iterator[Row]:
    """Every host takes its part of the work; faults that end where the next begins come together."""
    for index, work in enumerate(_works(matrix, words)):
        if index % of == number:
            for row in work:
                print(row.line(), flush=True)
                yield row


def _works(matrix: Matrix, words: Sequence[str]) -> Iterator[Iterator[Row]]:
    def meant(text: str) -> bool:
        return not words or any(word in text for word in words)

    faults = sorted(all_faults(), key=lambda fault: (fault.starts_installed, fault.ends_installed))
    for fault in faults:
        if meant(str(fault)):
            yield (matrix.run(one) for one in (fault,))
    for verb, names in TRANSACTIONS.items():
        for name in names:
            for then in ("up", "down"):
                if meant(f"{verb} host:{name} then {then}"):
                    yield matrix.transaction(verb, name, then)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
