"""One self-contained page of a run: outcomes, timeline, failures, diffs and drift. No script, no request, no cookie.

The page is `page.html.j2`. Every expression in it is spelled (`_drawn`) and then escaped: a template cannot forget it.
Its ids are numbers, never names.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from provisioner.report import timeline
from provisioner.report.advice import Typed
from provisioner.report.colour import Painter
from provisioner.report.ending import Ending, alike, counter_lines, flaw_lines, left_behind, told_counts
from provisioner.report.foreign import visible
from provisioner.report.lines import that_matter
from provisioner.report.record import HostRecord, RunRecord
from provisioner.report.wording import SYMBOLS, clean, count, elapsed, told, totals
from provisioner.verb import Verb

_LOG_LINES: Final = 40
_LOG_LINES_OF_FAILURES: Final = 200
_OPEN_HOSTS: Final = 12
_DIFF_CLASSES: Final = {"+": "add", "-": "del", "@": "hunk", "\\": "hunk"}


def page(record: RunRecord, typed: Typed | None = None) -> str:
    """Write the whole page. Hosts that have no result yet are shown as unfinished."""
    with record.reading():
        counts = list(told_counts(record))
        bad = [host for host in record.hosts.values() if host.is_bad]
        return (
            _environment()
            .get_template("page.html.j2")
            .render(
                record=record,
                counts=counts,
                totals=totals([(number, word) for word, _, number in counts]),
                seconds=record.seconds,
                exit_code=record.done.exit_code if record.done else None,
                failures=alike(bad),
                are_failures_open=len(bad) <= _OPEN_HOSTS,
                next_commands=Ending(record, typed or Typed(Verb(record.verb)), Painter()).commands(),
                timeline=timeline.timeline(record),
                ids={name: f"h{number}" for number, name in enumerate(record.hosts)},
            )
        )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("provisioner", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_drawn,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"line": clean, "elapsed": elapsed, "counted": count, "phase_class": timeline.css_class}
    environment.globals |= {
        "SYMBOLS": SYMBOLS,
        "WIDTH": timeline.WIDTH,
        "LABELS": timeline.LABELS,
        "AXIS": timeline.AXIS,
        "counter_lines": counter_lines,
        "diff_pieces": _diff_pieces,
        "flaw_lines": lambda flaws: flaw_lines(flaws, Painter()),
        "left_behind": left_behind,
        "log_lines": _log_lines,
        "that_matter": that_matter,
    }
    return environment


def _drawn(value: object) -> str:
    """Spell foreign text, which Jinja2 then escapes. Markup comes from a macro, and its pieces came this way too."""
    return value if isinstance(value, Markup) else told(str(value))


def _log_lines(host: HostRecord) -> tuple[list[str], int]:
    """The last lines, and how many came before them."""
    lines = list(host.log)[-(_LOG_LINES_OF_FAILURES if host.is_bad else _LOG_LINES) :]
    return lines, len(host.log) - len(lines) + host.log_dropped


def _diff_pieces(text: str) -> Iterator[tuple[str, str]]:
    """Classes and texts of a diff. Lines that are alike share an element, so that a new file's diff stays small."""
    for name, lines in groupby(visible(text).splitlines(keepends=True), _diff_class):
        yield name, "".join(lines)


def _diff_class(line: str) -> str:
    return "file" if line.startswith(("+++", "---")) else _DIFF_CLASSES.get(line[:1], "same")
