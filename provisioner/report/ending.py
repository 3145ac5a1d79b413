"""The end of a run for people: the answer, the failures and their reasons, the next commands, the totals.

Gives lines; knows neither streams nor the table.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from provisioner.ci.base import Words
from provisioner.events import RunnerReport, StatusRead
from provisioner.machine.counters import Counters, Counts
from provisioner.machine.flaws import Flaws
from provisioner.outcome import HostResult, Outcome
from provisioner.report.advice import Typed, next_commands
from provisioner.report.colour import COLOURS, Painter
from provisioner.report.foreign import visible
from provisioner.report.lines import that_matter
from provisioner.report.record import HostRecord, RunRecord
from provisioner.report.wording import SYMBOLS, ago, clean, count, elapsed, names, size, told, totals

_GROUPS_SHOWN = 8
_LAST_JOBS = 5
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\[?[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){3,}\]?(?::\d+)?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Ending:
    record: RunRecord
    typed: Typed
    paint: Painter
    debug: bool = False
    width: int | None = None

    def failures(self) -> Iterator[str]:
        """The failures, alike ones together: 200 hosts that cannot be reached are one paragraph."""
        groups = alike([host for host in self.record.hosts.values() if host.is_bad])
        for hosts in groups[:_GROUPS_SHOWN]:
            yield ""
            yield from self._failure(hosts)
        if len(groups) > _GROUPS_SHOWN:
            left = [host.name for hosts in groups[_GROUPS_SHOWN:] for host in hosts]
            yield ""
            yield self.paint(f"… and {count(len(left), 'more host')} for other reasons: {names(left)}", "bold")

    def _failure(self, hosts: Sequence[HostRecord]) -> Iterator[str]:
        first, *others = hosts
        result = first.result
        assert result is not None  # noqa: S101 - only what ended badly comes here
        phase = f" in {clean(first.phase_of_failure)}" if first.phase_of_failure else ""
        what = f"{self.record.word(result.outcome)}{phase} after {elapsed(result.seconds)}"
        yield self.paint(f"{SYMBOLS[result.outcome]} {clean(first.name)}: {what}", "bold", COLOURS[result.outcome])
        for line in that_matter(first.log):
            yield from self._wrap(line, "  │ ")
        yield from self._wrap(clean(result.error), "  ")
        for line in first.origin[1:]:  # the first is the error
            yield from self._wrap(line, "  ")
        for line in left_behind(hosts):
            yield from self._wrap(line, "  ", "red")
        yield from self._wrap(clean(result.hint), "  ", "cyan")
        if others:
            yield from self._wrap(f"the same on {names([host.name for host in others])}", "  ")
        if self.debug and first.traceback:
            yield from (f"  {line}" for line in told(first.traceback).splitlines())

    def _wrap(self, text: str, prefix: str, style: str = "") -> Iterator[str]:
        """Fold as the terminal would fold anyhow, so that the margin stays."""
        lines = textwrap.wrap(text, self.width - len(prefix), drop_whitespace=False) if self.width else [text]
        yield from (self.paint(f"{prefix}{line}", style) for line in lines if text)

    def recap(self) -> Iterator[str]:
        """The bad ones by outcome, a line each."""
        for outcome in Outcome:
            hosts = [host.name for host in self.record.hosts.values() if host.outcome is outcome]
            if hosts and not outcome.is_good:
                label = self.paint.outcome(outcome, f"{SYMBOLS[outcome]} {self.record.word(outcome)}")
                yield f"{label}: {names(hosts)}"

    def advice(self) -> Iterator[str]:
        for number, command in enumerate(self.commands()):
            yield f"{'next:' if number == 0 else 'then:'} {self.paint(clean(command), 'bold')}"
        done = self.record.done
        if done and done.run and done.failed_hosts_file:
            yield f"or all that is not done: --resume {clean(done.run)}"
            yield f"or what failed: --limit @{clean(done.failed_hosts_file)}"

    def commands(self) -> tuple[str, ...]:
        """The next commands to type; none when all is well."""
        results = [host.result for host in self.record.hosts.values() if host.result]
        failed = self.record.done and self.record.done.failed_hosts_file
        retry = ("--limit", f"@{failed}") if failed else ()
        return next_commands(self.typed, results, retry)

    def total(self) -> Iterator[str]:
        yield from self._wrap(_total(self.record), "", "bold")


def _total(record: RunRecord) -> str:
    told = totals([(number, word) for word, _, number in told_counts(record)])
    writes = record.done.gitlab_writes if record.done else 0
    written = f"; {count(writes, 'write')} to {record.words.name}" if writes else ""
    return f"{count(len(record.hosts), 'host')}: {told}; {elapsed(record.seconds)}{written}"


def alike(hosts: Sequence[HostRecord]) -> list[list[HostRecord]]:
    """Failures by outcome and error, the largest groups first; names, addresses and numbers make no difference."""
    groups: dict[tuple[object, ...], list[HostRecord]] = {}
    for host in hosts:
        groups.setdefault(_kind(host), []).append(host)
    order = list(Outcome)
    return sorted(groups.values(), key=lambda group: (-order.index(_outcome(group[0])), -len(group)))


def left_behind(hosts: Sequence[HostRecord]) -> Iterator[str]:
    """A line for each thing that could not be taken back: hosts with like failures have different ones."""
    for host in hosts:
        where = f" on {host.name}" if len(hosts) > 1 else ""
        yield from (clean(f"left behind{where}: {line}") for line in (host.result.remains if host.result else ()))


def _kind(host: HostRecord) -> tuple[object, ...]:
    result = host.result
    assert isinstance(result, HostResult)  # noqa: S101 - narrows for mypy
    text = _ADDRESS.sub("ADDRESS", result.error.replace(host.name, "HOST"))
    log = "\n".join(that_matter(host.log)).replace(host.name, "HOST")
    return result.outcome, host.phase_of_failure, host.origin[1:], _NUMBER.sub("N", text), _NUMBER.sub("N", log)


def _outcome(host: HostRecord) -> Outcome:
    assert host.outcome is not None  # noqa: S101 - narrows for mypy
    return host.outcome


def plan_groups(hosts: Iterable[HostRecord], *, diff: bool) -> list[list[HostRecord]]:
    """Hosts with changes; those with the very same plan stand together, at the place of the first."""
    groups: dict[object, list[HostRecord]] = {}
    for host in hosts:
        if host.changes:
            key = (host.changes, host.system, host.origin, host.diffs if diff else ())
            groups.setdefault(key, []).append(host)
    return list(groups.values())


def plan_lines(hosts: Sequence[HostRecord], paint: Painter, *, diff: bool) -> Iterator[str]:
    """The plan that these hosts share, and with `diff` the texts behind it."""
    host = hosts[0]
    yield f"{paint(names([host.name for host in hosts]), 'bold')}: {count(len(host.changes), 'change')}"
    for change in host.changes:
        yield f"  {paint('~', 'yellow')} {clean(change)}"
    for text in host.diffs if diff else ():
        yield from paint.diff(visible(text)).splitlines()
    # Last, where the eye is when all has been printed.
    yield from (f"  {paint(line, '' if line.startswith(' ') else 'cyan')}" for line in (*host.system, *host.origin))


def status_lines(report: StatusRead, words: Words, paint: Painter) -> Iterator[str]:
    state = paint("installed", "green") if report.is_installed else "not installed"
    state += f" by nixprov {clean(report.nixprov)}" if report.is_installed and report.nixprov else ""
    system = f"{clean(report.nixos)}, generation {report.generation}" + (
        f", {clean(report.phase)}" if report.is_installed else ""
    )
    yield f"{paint(clean(report.host), 'bold')}: {state}, {system}"
    for runner in report.runners:
        yield f"  {words.runner} {clean(runner.name)}: {_runner(runner, words, paint)}"
    if report.counters:
        yield from (f"  {line}" for line in counter_lines(report.counters))
    yield from (f"  {line}" for line in flaw_lines(report.flaws, paint))
    yield from (f"  {paint('drift', 'yellow')}: {clean(line)}" for line in report.drift)


def flaw_lines(flaws: Flaws, paint: Painter) -> Iterator[str]:
    """Each way to root for jobs with its consequence, whether it is accepted or not. The rest by name."""
    for one in (one for one in flaws.all if one.is_root):
        accepted = " (accepted)" if flaws.accepts(one) else ""
        yield f"{paint('way to root', 'red')}: {one.id}{accepted}: {one.gives}"
    less = [one.id for one in flaws.all if not one.is_root]
    if less:
        yield f"{paint('less', 'yellow')}: {', '.join(less)}"


def counter_lines(counters: Counters) -> Iterator[str]:
    """The store's work for jobs: all of them, and the last ones, newest first."""
    told = f"{elapsed(counters.seconds)}, {_counts(counters.counts)}"
    yield f"{count(counters.jobs, 'job')} since {counters.since:%Y-%m-%d}: {told}"
    for job in reversed(counters.last[-_LAST_JOBS:]):
        time = "runs" if job.seconds is None else elapsed(job.seconds)
        yield f"  job {job.job} of {clean(job.runner)}: {time}, {_counts(job.counts)}"


def _counts(counts: Counts) -> str:
    return f"{counts.built} built ({size(counts.size)}), {counts.found} found"


def _runner(report: RunnerReport, words: Words, paint: Painter) -> str:
    unit = clean(report.unit.active) if report.unit else "no unit"
    unit = paint(unit, "green" if unit == "active" else "red")
    if report.runner is None:
        return f"{unit}; not in {words.name}"
    polled = f"polled {clean(ago(report.contacted_at, datetime.now(UTC)))}" if report.contacted_at else "never polled"
    paused = ", paused" if report.runner.is_paused else ""
    return f"{unit}; {words.name} #{report.runner.id} {clean(report.runner.state)}{paused}, {polled}"


def asked_for(record: RunRecord, paint: Painter, *, diff: bool, applied: bool = False) -> Iterator[str]:
    """The answer, in the order of the inventory: status; plans not carried out, with `applied` all plans."""
    for host in record.hosts.values():
        if host.status is not None:
            yield from status_lines(host.status, record.words, paint)
    planned = [host for host in record.hosts.values() if host.check or applied]
    for hosts in plan_groups(planned, diff=diff):
        yield from plan_lines(hosts, paint, diff=diff)
    yield from (f"{paint('gone', 'yellow')}: {line}" for line in record.gone)


def told_counts(record: RunRecord) -> Iterator[tuple[str, str, int]]:
    """Word, name and number of each outcome, from good to bad; then the hosts that did not end."""
    counts = record.counts()
    seen = [host.status for host in record.hosts.values() if host.status]
    if seen:
        states = Counter(
            "drifted" if one.drift else "as wanted" if one.is_installed else "not installed" for one in seen
        )
        names = {"as wanted": "changed", "not installed": "unchanged", "drifted": "drifted"}
        yield from ((word, name, states[word]) for word, name in names.items() if states[word])
        counts[Outcome.UNCHANGED] -= len(seen)
    yield from ((record.word(one), one.name.lower(), counts[one]) for one in Outcome if counts[one] > 0)
    unfinished = sum(host.result is None for host in record.hosts.values())
    if unfinished:
        yield "unfinished", "unfinished", unfinished


def warning_line(text: str, paint: Painter) -> str:
    return f"{paint('warning', 'yellow')}: {clean(text)}"
