"""The timeline of a run as coordinates: a row a host, a bar a phase. The page draws it (`page.html.j2`).

Places are in the units of the picture, `WIDTH` across, rounded to a tenth. The page's style sheet has the colours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from provisioner.report.record import HostRecord, RunRecord, Span
from provisioner.report.wording import clean, elapsed

# In the order of a run, so that neighbours in time are neighbours in colour.
PHASES: Final = (
    "connect",
    "probe",
    "plan",
    "own",
    "evaluate",
    "claim",
    "create",
    "drain",
    "write",
    "build",
    "switch",
    "confirm",
    "delete",
    "clean",
    "unwind",
)
WIDTH: Final = 1000
LABELS: Final = 170
AXIS: Final = 22
_MARGIN: Final = 24
_LABEL_LENGTH: Final = 22
_ROOMY_HOSTS: Final = 40
_MOST_TICKS: Final = 8
_MINUTE_S: Final = 60
_STEPS_S: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    phase: str
    x: float
    width: float
    took: str


@dataclass(frozen=True, slots=True)
class Row:
    host: HostRecord
    label: str
    top: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """`phases` are those that happened, for the legend."""

    took: str
    row_height: int
    ticks: tuple[Tick, ...]
    rows: tuple[Row, ...]
    phases: tuple[str, ...]

    @property
    def height(self) -> int:
        return AXIS + self.row_height * len(self.rows) + 4


def timeline(record: RunRecord) -> Timeline | None:
    """Lay the picture out; None for a run that never got to a host."""
    hosts = [host for host in record.hosts.values() if host.spans]
    if not hosts:
        return None
    end_s = max(0.1, *(_end(span, record.now_s) for host in hosts for span in host.spans))
    height = 22 if len(hosts) <= _ROOMY_HOSTS else 14
    return Timeline(
        elapsed(end_s),
        height,
        _ticks(end_s),
        tuple(
            Row(host, _label(host.name), AXIS + number * height, _bars(host, end_s, record.now_s))
            for number, host in enumerate(hosts)
        ),
        _in_order(span.phase for host in hosts for span in host.spans),
    )


def css_class(phase: str) -> str:
    return f"p-{phase}" if phase in PHASES else "p-other"


def _in_order(phases: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(dict.fromkeys(phases), key=lambda one: PHASES.index(one) if one in PHASES else len(PHASES)))


def _ticks(end_s: float) -> tuple[Tick, ...]:
    step = next((step for step in _STEPS_S if end_s / step <= _MOST_TICKS), end_s)
    times = (number * step for number in range(int(end_s / step) + 1))
    return tuple(Tick(round(_x(time, end_s), 1), _tick(time)) for time in times)


def _tick(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < _MINUTE_S else elapsed(seconds)


def _label(name: str) -> str:
    name = clean(name)
    return name if len(name) <= _LABEL_LENGTH else f"{name[: _LABEL_LENGTH - 1]}…"


def _bars(host: HostRecord, end_s: float, now_s: float) -> tuple[Bar, ...]:
    def bar(span: Span) -> Bar:
        start, end = _x(span.start_s, end_s), _x(_end(span, now_s), end_s)
        took = elapsed(_end(span, now_s) - span.start_s)
        return Bar(span.phase, round(start, 1), round(max(0.8, end - start - 0.4), 1), took)

    return tuple(map(bar, host.spans))


def _end(span: Span, now_s: float) -> float:
    return now_s if span.end_s is None else span.end_s


def _x(seconds: float, end_s: float) -> float:
    return LABELS + (WIDTH - LABELS - _MARGIN) * seconds / end_s
