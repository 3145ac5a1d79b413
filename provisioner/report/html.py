"""One self-contained page of a run: outcomes, timeline, failures, diffs and drift. No script, no request, no cookie.

Every foreign text (host names, log lines, errors, diffs) passes through `foreign.markup`; ids are never names.
By hand instead of a template: Jinja2 has one place (docs/adr/0002), and here each piece is a function with a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

from provisioner import resources
from provisioner.report.advice import Typed
from provisioner.report.colour import Painter
from provisioner.report.ending import Ending, alike, counter_lines, flaw_lines, left_behind, told_counts
from provisioner.report.foreign import markup, visible
from provisioner.report.lines import that_matter
from provisioner.report.record import HostRecord, RunRecord
from provisioner.report.timeline import css_class, svg, used_phases
from provisioner.report.wording import SYMBOLS, clean, count, elapsed, told
from provisioner.verbs.status import RunnerReport

_LOG_LINES: Final = 40
_LOG_LINES_OF_FAILURES: Final = 200
_OPEN_HOSTS: Final = 12
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_DIFF_CLASSES: Final = {"+": "add", "-": "del", "@": "hunk", "\\": "hunk"}


def page(record: RunRecord, typed: Typed | None = None) -> str:
    """The whole page. Hosts that have no result yet are shown as unfinished."""
    with record.reading():
        ids = {name: f"h{number}" for number, name in enumerate(record.hosts)}
        title = markup(f"nixprov {record.verb}".rstrip())
        body = (*_head(record), *_failures(record, ids), *_next(record, typed), *_notes(record), *_timeline(record))
        body = (*body, *_hosts(record, ids))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}: {markup(_told(record))}</title>\n<style>{_css()}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _css() -> str:
    return resources.templates().joinpath("report.css").read_text(encoding="utf-8")


def _told(record: RunRecord) -> str:
    return ", ".join(f"{number} {word}" for word, _, number in told_counts(record)) or "nothing done"


def _head(record: RunRecord) -> Iterator[str]:
    verb = markup(record.verb)
    yield f"<h1>nixprov {verb}: {count(len(record.hosts), 'host')}</h1>"
    seconds = float(record.totals.get("seconds", record.now_s))
    code = record.totals.get("exit_code")
    facts = (
        f"{record.began:%Y-%m-%d %H:%M:%S} UTC",
        f"took {elapsed(seconds)}",
        f"by {clean(record.operator)}" if record.operator else "",
        f"run {clean(record.run_id)}" if record.run_id else "",
        "did not end" if code is None else f"exit code {code}",
    )
    yield f'<p class="meta">{markup(" · ".join(fact for fact in facts if fact))}</p>'
    counts = list(told_counts(record))
    bars = "".join(f'<span class="o-{name}" style="flex:{number}"></span>' for _, name, number in counts)
    yield f'<div class="tally" aria-hidden="true">{bars}</div>'
    items = "".join(f'<li class="o-{name}"><b>{number}</b> {word}</li>' for word, name, number in counts)
    yield f'<ul class="counts">{items}</ul>'


def _failures(record: RunRecord, ids: dict[str, str]) -> Iterator[str]:
    groups = alike([host for host in record.hosts.values() if host.is_bad])
    if groups:
        yield "<h2>What failed</h2>"
    for hosts in groups:
        yield _failure(hosts, ids)


def _failure(hosts: Sequence[HostRecord], ids: dict[str, str]) -> str:
    result = hosts[0].result
    if result is None:
        return ""
    links = ", ".join(_link(host, ids) for host in hosts)
    lines = "\n".join(that_matter(hosts[0].log))
    phase = hosts[0].phase_of_failure
    what = markup(f"{result.outcome.value} in {phase}" if phase else result.outcome.value)
    return (
        f'<section class="card o-{result.outcome.name.lower()}">'
        f'<p class="head">{SYMBOLS[result.outcome]} {what}: {links}</p>'
        f"<p>{markup(clean(result.error))}</p>"
        + "".join(f"<p>{markup(line)}</p>" for line in left_behind(hosts))
        + (f'<p class="hint">{markup(clean(result.hint))}</p>' if result.hint else "")
        + (f"<pre>{markup(lines)}</pre>" if lines else "")
        + "</section>"
    )


def _next(record: RunRecord, typed: Typed | None) -> Iterator[str]:
    commands = Ending(record, typed or Typed(record.verb), Painter()).commands()
    if commands:
        lines = markup("\n".join(commands))
        yield f'<section class="card next"><p class="head">Next</p><pre>{lines}</pre></section>'


def _notes(record: RunRecord) -> Iterator[str]:
    notes = [*record.warnings, *record.gone]
    if notes:
        yield f"<h2>Notes</h2><ul>{''.join(f'<li>{markup(note)}</li>' for note in notes)}</ul>"


def _timeline(record: RunRecord) -> Iterator[str]:
    picture = svg(record)
    if picture:
        legend = "".join(f'<li><i class="{css_class(phase)}"></i>{markup(phase)}</li>' for phase in used_phases(record))
        yield f'<h2>Timeline</h2><ul class="legend">{legend}</ul><div class="wide">{picture}</div>'


def _outcome(record: RunRecord, host: HostRecord) -> str:
    if host.outcome is None:
        return '<span class="o-unfinished">… unfinished</span>'
    return f'<span class="o-{host.outcome.name.lower()}">{SYMBOLS[host.outcome]} {record.word(host.outcome)}</span>'


def _link(host: HostRecord, ids: dict[str, str]) -> str:
    return f'<a href="#{ids[host.name]}">{markup(clean(host.name))}</a>'


def _hosts(record: RunRecord, ids: dict[str, str]) -> Iterator[str]:
    """A line a host that opens; failures are open from the start, unless there are many."""
    bad = sum(host.is_bad for host in record.hosts.values())
    yield "<h2>Hosts</h2>"
    for host in record.hosts.values():
        is_open = len(record.hosts) == 1 or (host.is_bad and bad <= _OPEN_HOSTS)
        inside = "".join(_inside(host)) or "<p>Nothing to do.</p>"
        yield (
            f'<details id="{ids[host.name]}"{" open" if is_open else ""}><summary>{_line(record, host)}</summary>'
            f"<div>{inside}</div></details>"
        )


def _line(record: RunRecord, host: HostRecord) -> str:
    result = host.result
    drift = len(host.status.drift) if host.status else 0
    said = result.error if result and result.error else _numbers(len(host.changes), drift)
    return (
        f'<span class="name">{markup(clean(host.name))}</span>{_outcome(record, host)}'
        f'<span class="number">{elapsed(host.seconds(record.now_s))}</span>'
        f'<span class="said">{markup(clean(said))}</span>'
    )


def _numbers(changes: int, drift: int) -> str:
    told = ((changes, "change"), (drift, "drift"))
    return ", ".join(count(number, noun) for number, noun in told if number)


def _inside(host: HostRecord) -> Iterator[str]:
    if host.result and host.result.error:
        hint = f'<br><span class="meta">{markup(clean(host.result.hint))}</span>' if host.result.hint else ""
        yield f"<p>{markup(clean(host.result.error))}{hint}</p>"
    yield from _list("Changes", host.changes)
    if host.system:
        yield f"<h3>System</h3><pre>{markup(chr(10).join(host.system))}</pre>"
    yield from _list("Origin", host.origin)
    if host.status is not None:
        yield from _list("Runners", map(_runner, host.status.runners))
        yield from _list("Jobs", counter_lines(host.status.counters) if host.status.counters else ())
        yield from _list("Known flaws of its Nix", flaw_lines(host.status.flaws, Painter()))
        yield from _list("Drift", host.status.drift)
    yield from _list("Warnings", host.warnings)
    if host.diffs:
        yield "<h3>Diffs</h3>" + "".join(map(_diff, host.diffs))
    if host.log:
        yield _log(host)
    if host.traceback:
        yield f"<h3>Traceback</h3><pre>{markup(told(host.traceback))}</pre>"


def _list(title: str, lines: Iterable[str]) -> Iterator[str]:
    items = "".join(f"<li>{markup(clean(line))}</li>" for line in lines)
    if items:
        yield f"<h3>{title}</h3><ul>{items}</ul>"


def _runner(report: RunnerReport) -> str:
    unit = report.unit.active if report.unit else "no unit"
    if report.runner is None:
        return f"{report.name}: {unit}; not in GitLab"
    polled = f"polled {report.contacted_at}" if report.contacted_at else "never polled"
    return f"{report.name}: {unit}; GitLab #{report.runner.id} {clean(report.runner.state)}, {polled}"


def _diff(text: str) -> str:
    """Lines that are alike share an element: a diff of a new file stays small."""
    spans = (
        f'<span class="{name}">{markup("".join(lines))}</span>'
        for name, lines in groupby(visible(text).splitlines(keepends=True), _diff_class)
    )
    return f'<pre class="diff">{"".join(spans)}</pre>'


def _diff_class(line: str) -> str:
    return "file" if line.startswith(("+++", "---")) else _DIFF_CLASSES.get(line[:1], "same")


def _log(host: HostRecord) -> str:
    lines = list(host.log)[-(_LOG_LINES_OF_FAILURES if host.is_bad else _LOG_LINES) :]
    left_out = len(host.log) - len(lines) + host.log_dropped
    more = f"[{count(left_out, 'earlier line')}]\n" if left_out else ""
    return f"<h3>Log</h3><pre>{markup(more + chr(10).join(lines))}</pre>"
