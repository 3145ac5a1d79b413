"""The timeline of a run as one SVG: a row a host, a bar a phase. Colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from provisioner.report.foreign import markup
from provisioner.report.record import HostRecord, RunRecord, Span
from provisioner.report.wording import SYMBOLS, clean, elapsed

# In the order of a run, so that neighbours in time are neighbours in colour.
PHASES: Final = (
    "connect",
    "probe",
    "plan",
    "own",
    "evaluate",
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
_WIDTH: Final = 1000
_LABELS: Final = 170
_AXIS: Final = 22
_LABEL_LENGTH: Final = 22
_ROOMY_HOSTS: Final = 40
_MOST_TICKS: Final = 8
_MINUTE_S: Final = 60
_STEPS_S: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)


def svg(record: RunRecord) -> str:
    """The picture; empty for a run that never got to a host."""
    hosts = [host for host in record.hosts.values() if host.spans]
    if not hosts:
        return ""
    end_s = max(0.1, *(_end(span, record.now_s) for host in hosts for span in host.spans))
    row = 22 if len(hosts) <= _ROOMY_HOSTS else 14
    height = _AXIS + row * len(hosts) + 4
    parts = [*_axis(end_s, height)]
    for number, host in enumerate(hosts):
        parts += _row(host, _AXIS + number * row, row, end_s, record.now_s)
    title = f"Phases of {len(hosts)} hosts over {elapsed(end_s)}"
    return (
        f'<svg class="timeline" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}">'
        f"<title>{title}</title>{''.join(parts)}</svg>"
    )


def used_phases(record: RunRecord) -> Sequence[str]:
    """For the legend: those that happened, in the order of a run."""
    seen = dict.fromkeys(span.phase for host in record.hosts.values() for span in host.spans)
    return sorted(seen, key=lambda phase: PHASES.index(phase) if phase in PHASES else len(PHASES))


def css_class(phase: str) -> str:
    return f"p-{phase}" if phase in PHASES else "p-other"


def _axis(end_s: float, height: int) -> Iterator[str]:
    step = next((step for step in _STEPS_S if end_s / step <= _MOST_TICKS), end_s)
    for number in range(int(end_s / step) + 1):
        x = _x(number * step, end_s)
        yield f'<line class="tick" x1="{x:.1f}" y1="{_AXIS - 4}" x2="{x:.1f}" y2="{height}"/>'
        yield f'<text class="axis" x="{x:.1f}" y="{_AXIS - 9}" text-anchor="middle">{_tick(number * step)}</text>'


def _tick(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < _MINUTE_S else elapsed(seconds)


def _row(host: HostRecord, y: int, height: int, end_s: float, now_s: float) -> Iterator[str]:
    name = clean(host.name)
    short = name if len(name) <= _LABEL_LENGTH else f"{name[: _LABEL_LENGTH - 1]}…"
    middle = y + height / 2
    state = host.outcome.name.lower() if host.outcome else "unfinished"
    yield f'<text class="label" x="{_LABELS - 20}" y="{middle + 4:.1f}" text-anchor="end">{markup(short)}</text>'
    symbol = SYMBOLS[host.outcome] if host.outcome else "…"
    yield f'<text class="o-{state}" x="{_LABELS - 9}" y="{middle + 4:.1f}" text-anchor="middle">{symbol}</text>'
    for span in host.spans:
        yield _bar(span, name, (y + 2, height - 4), end_s, now_s)


def _bar(span: Span, host: str, place: tuple[int, int], end_s: float, now_s: float) -> str:
    y, height = place
    start, end = _x(span.start_s, end_s), _x(_end(span, now_s), end_s)
    took = elapsed(_end(span, now_s) - span.start_s)
    return (
        f'<rect class="{css_class(span.phase)}" x="{start:.1f}" y="{y}" width="{max(0.8, end - start - 0.4):.1f}" '
        f'height="{height}" rx="2"><title>{markup(host)}: {markup(clean(span.phase))}, {took}</title></rect>'
    )


def _end(span: Span, now_s: float) -> float:
    return now_s if span.end_s is None else span.end_s


def _x(seconds: float, end_s: float) -> float:
    return _LABELS + (_WIDTH - _LABELS - 24) * seconds / end_s
