"""The content of the live table: a frame of bounded height from the record of a run.

Pure but for one memory: a host at work keeps its line until it is done. Nothing jumps. Knows no library.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from provisioner.outcome import Outcome
from provisioner.report.colour import COLOURS
from provisioner.report.record import HostRecord, RunRecord
from provisioner.report.wording import SYMBOLS, clean, clock, count, elapsed, names

MAX_ROWS: Final = 30
WAITING: Final = "·"
ACTIVE: Final = "▸"


@dataclass(frozen=True, slots=True)
class Row:
    """One line; `style` is of the symbol and the word, `text` is the last thing said."""

    symbol: str
    style: str
    host: str
    word: str
    time: str
    text: str


@dataclass(frozen=True, slots=True)
class Frame:
    """`ended` of `hosts` in `time`; `rows`; `counts` as (number, word, style); `notes` on hosts without a row."""

    title: str
    time: str
    hosts: int
    ended: int
    rows: Sequence[Row]
    counts: Sequence[tuple[int, str, str]]
    notes: Sequence[str]
    longest_name: int


@dataclass(slots=True)
class Table:
    record: RunRecord
    _slots: list[str] = field(default_factory=list)

    def frame(self, height: int) -> Frame:
        """The run now, in at most `height` lines."""
        with self.record.reading():
            hosts = list(self.record.hosts.values())
            room = max(1, min(height - 4, MAX_ROWS))
            rows, notes = self._all(hosts) if len(hosts) <= room else self._some(hosts, room)
            return Frame(
                title=" ".join(filter(None, ("nixprov", self.record.verb, self.record.batch))),
                time=clock(self.record.now_s),
                hosts=len(hosts),
                ended=sum(host.result is not None for host in hosts),
                rows=rows,
                counts=tuple(_counts(self.record, hosts)),
                notes=notes,
                longest_name=max((len(clean(host.name)) for host in hosts), default=1),
            )

    def fits(self, height: int) -> bool:
        return len(self.record.hosts) <= min(height - 4, MAX_ROWS)

    def _all(self, hosts: Sequence[HostRecord]) -> tuple[Sequence[Row], Sequence[str]]:
        return tuple(_row(self.record, host) for host in hosts), self._interrupted()

    def _some(self, hosts: Sequence[HostRecord], room: int) -> tuple[Sequence[Row], Sequence[str]]:
        """Failures keep up to a third, those at work get the rest; the waiting hosts are one line."""
        bad = [host for host in hosts if host.is_bad]
        active = [host for host in hosts if host.is_active]
        room = max(2, room - 2)
        bad_rows = max(min(len(bad), room // 3), min(len(bad), room - len(active)))
        shown = self._keep_places(active, room - bad_rows)
        rows = [_row(self.record, host) for host in (*shown, *bad[len(bad) - bad_rows :])]
        return rows, (*self._interrupted(), *_unseen(hosts, len(active) - len(shown), len(bad) - bad_rows))

    def _keep_places(self, active: Sequence[HostRecord], room: int) -> list[HostRecord]:
        """A host that ended gives its line to the next one; the others stay where they are."""
        by_name = {host.name: host for host in active}
        fresh = (name for name in by_name if name not in set(self._slots))
        kept = [name if name in by_name else next(fresh, "") for name in self._slots[:room]]
        self._slots = [name for name in kept if name]
        self._slots += [name for name, _ in zip(fresh, range(room - len(self._slots)), strict=False)]
        return [by_name[name] for name in self._slots]

    def _interrupted(self) -> tuple[str, ...]:
        return ("interrupted: each host stops at its next safe place",) if self.record.interrupted else ()


def _unseen(hosts: Sequence[HostRecord], active: int, bad: int) -> Iterator[str]:
    waiting = [host.name for host in hosts if host.is_waiting]
    more = [f"{active} more at work"] * bool(active) + [f"{count(bad, 'more failure')}"] * bool(bad)
    if waiting:
        more.append(f"{len(waiting)} waiting: {names(waiting, 3)}")
    if more:
        yield "; ".join(more)


def _counts(record: RunRecord, hosts: Sequence[HostRecord]) -> Iterator[tuple[int, str, str]]:
    counts = record.counts()
    yield from ((counts[outcome], record.word(outcome), COLOURS[outcome]) for outcome in Outcome if counts[outcome])
    active, waiting = sum(host.is_active for host in hosts), sum(host.is_waiting for host in hosts)
    yield from ((number, word, "dim") for number, word in ((active, "at work"), (waiting, "waiting")) if number)


def _row(record: RunRecord, host: HostRecord) -> Row:
    name = clean(host.name)
    if host.result is not None:
        outcome = host.result.outcome
        text = clean(host.result.error) if host.result.error else _done(host)
        return Row(SYMBOLS[outcome], COLOURS[outcome], name, record.word(outcome), elapsed(host.result.seconds), text)
    if host.is_waiting:
        return Row(WAITING, "dim", name, "waiting", "", "")
    return Row(ACTIVE, "cyan", name, host.phase, clock(host.seconds(record.now_s)), host.last_line.strip())


def _done(host: HostRecord) -> str:
    if host.status is not None:
        return count(len(host.status.drift), "drift") if host.status.drift else "no drift"
    return count(len(host.changes), "change") if host.changes else ""
