# ruff: noqa: T201 - a program of its own, that prints a table
"""Run the whole matrix on a lab of its own, one thread a host, and print the table. `python -m tests.faults [WORD ...]`

Words select: only faults whose line contains one of them are tried.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeAlias

from nixprov_lab import control
from nixprov_lab.running import LAB_VARIABLE, Lab, chosen

from tests.faults.matrix import BOTH, HEADER, TRANSACTIONS, Fault, Matrix, Row, all_faults

# On two processors too: a trial waits more than it works.
HOSTS = 4

Works: TypeAlias = "SimpleQueue[tuple[int, Callable[[Matrix], Iterable[Row]]]]"


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
    orphans = sum(max(0, row.runners - row.fault.runners) for row in rows)
    print("\n".join(("", *_table(rows))))
    print(f"\n{len(rows)} tried, {len(lost)} lost, {orphans} orphans, {time.monotonic() - started:.0f} s")
    for row in [*lost, *missed]:
        print(f"  {'not reached' if not row.reached else 'lost'}: {row.fault}")
    for name in (uneven := _uneven(rows)):
        print(f"  not tried to the end: {name}")
    return 1 if lost or missed or uneven else 0


def _uneven(rows: Sequence[Row]) -> list[str]:
    """Transactions that had fewer changes before the one verb than before the other: they end before either begins."""
    tried = Counter((row.fault.transaction, row.fault.then) for row in rows if row.fault.transaction)
    names = dict.fromkeys(name for name, _ in tried)
    return [name for name in names if len({tried[name, then] for then in BOTH} - {0}) > 1]


def _table(rows: Sequence[Row]) -> Iterator[str]:
    """Fault by fault, what `up` and what `down` made of it."""
    title = f"{'end':<10}{'runners':>8}{'left':>6}"
    yield f"{'':<48}{'then up':<28}then down"
    yield f"{'died at':<48}{title:<28}{title}"
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.fault.name, {})[row.fault.then] = row
    for name, ends in found.items():
        cells = [ends[then].cell() if then in ends else "" for then in BOTH]
        yield f"{name:<48}{cells[0]:<28}{cells[1]}".rstrip()


def _rows(lab: Lab, words: Sequence[str]) -> list[Row]:
    print(HEADER, flush=True)
    hosts = [host.name for host in lab.state.hosts]
    works: Works = SimpleQueue()
    for work in enumerate(_works(words)):
        works.put(work)
    with tempfile.TemporaryDirectory() as homes, ThreadPoolExecutor(len(hosts)) as pool:
        done = pool.map(lambda host: list(_share(Matrix(lab, host, Path(homes)), works)), hosts)
        placed = sorted((one for rows in done for one in rows), key=lambda one: one[0])
    return [row for _, row in placed]


def _share(matrix: Matrix, works: Works) -> Iterator[tuple[int, Row]]:
    """Every host takes the next one until there is none; faults that end where the next begins come together."""
    while True:
        try:
            index, work = works.get_nowait()
        except Empty:
            break
        for row in work(matrix):
            print(row.line(), flush=True)
            yield index, row
    matrix.leave()


def _works(words: Sequence[str]) -> Iterator[Callable[[Matrix], Iterable[Row]]]:
    """The longest first, so that the hosts end together."""

    def meant(text: str) -> bool:
        return not words or any(word in text for word in words)

    for verb, scene, first, name in TRANSACTIONS:
        for then in BOTH:
            if meant(str(Fault(verb, f"{first}host:{name}", then, scene))):
                yield partial(Matrix.transaction, verb=verb, scene=scene, first=first, name=name, then=then)
    for fault in sorted(all_faults(), key=lambda fault: (fault.starts_installed, fault.ends_installed)):
        if meant(str(fault)):
            yield partial(_one, fault=fault)


def _one(matrix: Matrix, fault: Fault) -> tuple[Row]:
    return (matrix.run(fault),)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
