"""The cost of a converged host in a fleet of 10, 100, 200: time, memory, round trips. Flat is the promise.

Usage: python -m bench.scale [--sizes 10,100,200] [--rounds N] [--forks N]      (from the root of the repository)

The hosts are one real sshd on loopback that answers as converged hosts do (tests/fleet200/loopback.py). All of it runs
on this computer, so the seconds contain sshd's and GitLab's share. The ratio is of nixprov's own processor time, which
other load leaves alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass

from tests.fleet200.loopback import Fleet, Measured, fleet


@dataclass(frozen=True)
class Row:
    """Medians for one size of fleet; `commands` and `calls` (to GitLab) are of one run."""

    hosts: int
    seconds: float
    cpu_s: float
    peak_mb: float
    commands: float
    calls: float


def main() -> None:
    options = _options()
    alone = _measure(1, options.rounds, options.forks)
    rows = [_measure(int(size), options.rounds, options.forks) for size in options.sizes.split(",")]
    print(f"converged hosts, median of {options.rounds} runs, {options.forks} at once")
    print(f"  {'hosts':>5} {'seconds':>8} {'cpu ms/host':>12} {'ratio':>6} {'MB':>5} {'commands':>8} {'calls':>6}")
    first = _ms_per_host(rows[0], alone)
    for row in rows:
        own = _ms_per_host(row, alone)
        each = f"{row.commands / row.hosts:>8.2f} {row.calls / row.hosts:>6.2f}"
        print(f"  {row.hosts:>5} {row.seconds:>8.2f} {own:>12.1f} {own / first:>6.2f} {row.peak_mb:>5.0f} {each}")
    print(f"  per host; processor time is beyond the {alone.cpu_s:.2f} s that a run with one host takes")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", default="10,100,200")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--forks", type=int, default=10)
    return parser.parse_args()


def _ms_per_host(row: Row, alone: Row) -> float:
    return (row.cpu_s - alone.cpu_s) * 1000 / (row.hosts - 1)


def _measure(size: int, rounds: int, forks: int) -> Row:
    with fleet(size) as made:
        runs = [_run(made, forks) for _ in range(rounds)]
        calls = len(made.gitlab.lab.journal.entries) / rounds
    return Row(
        size,
        statistics.median(run.seconds for run in runs),
        statistics.median(run.cpu_s for run in runs),
        statistics.median(run.peak_mb for run in runs),
        statistics.median(run.summary["remote_commands"] for run in runs),
        calls,
    )


def _run(made: Fleet, forks: int) -> Measured:
    run = made.run("up", "--yes", "--forks", str(forks))
    if run.code != 0:
        sys.exit(f"nixprov ended with {run.code}:\n{run.text[-2000:]}")
    return run


if __name__ == "__main__":
    main()
