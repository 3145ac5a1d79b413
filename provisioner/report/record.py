"""The memory of a run while it goes on, for the views of it as a whole: table, page, JUnit.

Owns no stream. Bounded: a host costs a few hundred lines at most, whether or not its build says more.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from provisioner.ci import DEFAULT
from provisioner.ci.base import Words
from provisioner.events import (
    BatchBegun,
    BugMet,
    Draining,
    Event,
    HostDone,
    HostEvent,
    Interrupted,
    Logged,
    OriginFound,
    PhaseBegun,
    Planned,
    RunDone,
    RunnerGone,
    RunStarted,
    StatusRead,
    Warned,
)
from provisioner.outcome import HostResult, Outcome
from provisioner.report.diff import for_people
from provisioner.report.system import origin_lines, system_lines
from provisioner.report.wording import clean, draining, without_hashes
from provisioner.verb import Verb

LOG_LINES_KEPT: Final = 300
_LINE_LENGTH_KEPT: Final = 400
# The line of switch.sh once the new system is built.
_SYSTEM: Final = re.compile(r"nixprov: the new system has (.*)")


@dataclass(slots=True)
class Span:
    """One phase of one host; times are seconds since the run began, `end_s` is None while it goes on."""

    phase: str
    start_s: float
    end_s: float | None = None


@dataclass(slots=True)
class HostRecord:
    name: str
    spans: list[Span] = field(default_factory=list)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES_KEPT))
    log_dropped: int = 0
    last_line: str = ""
    warnings: list[str] = field(default_factory=list)
    changes: tuple[str, ...] = ()
    diffs: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    check: bool = False
    status: StatusRead | None = None
    traceback: str = ""
    result: HostResult | None = None

    @property
    def outcome(self) -> Outcome | None:
        return self.result.outcome if self.result else None

    @property
    def is_waiting(self) -> bool:
        return not (self.spans or self.result)

    @property
    def is_active(self) -> bool:
        return bool(self.spans) and self.result is None

    @property
    def is_bad(self) -> bool:
        """Whether there is a failure to explain; a host that never began has none of its own."""
        return self.result is not None and not (self.result.outcome.is_good or self.outcome is Outcome.SKIPPED)

    @property
    def phase(self) -> str:
        return self.spans[-1].phase if self.spans else ""

    @property
    def phase_of_failure(self) -> str:
        """The phase before the unwinding: that one follows a failure and is not its place."""
        return next((span.phase for span in reversed(self.spans) if span.phase != "unwind"), "")

    @property
    def started_s(self) -> float:
        return self.spans[0].start_s if self.spans else 0.0

    def seconds(self, now_s: float) -> float:
        if self.result is not None:
            return self.result.seconds
        return now_s - self.started_s if self.spans else 0.0


class RunRecord:
    """The run so far; read it under `reading()`. Times are seconds since it began."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.verb = ""
        self.run_id = ""
        self.operator = ""
        self.words = DEFAULT.words
        self.began = datetime.now(UTC)
        self.hosts: dict[str, HostRecord] = {}
        self.warnings: list[str] = []
        self.batch = ""
        self.gone: list[str] = []
        self.done: RunDone | None = None
        self.interrupted = False
        self._clock = clock
        self._start = clock()
        self._lock = threading.RLock()

    @property
    def now_s(self) -> float:
        return self._clock() - self._start

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._lock:
            yield

    def word(self, outcome: Outcome) -> str:
        """The word for people. A plan has changed nothing; a failure of CI has the provider's name."""
        if outcome is Outcome.CI:
            return self.words.key
        is_plan = bool(self.verb) and Verb(self.verb).plans
        return "to change" if is_plan and outcome is Outcome.CHANGED else outcome.value

    def counts(self) -> Counter[Outcome]:
        return Counter(host.result.outcome for host in self.hosts.values() if host.result)

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far."""
        return self.done.seconds if self.done else self.now_s

    def event(self, event: Event) -> None:
        with self._lock:
            match event:
                case RunStarted():
                    self._started(event)
                case BatchBegun(number, of):
                    self.batch = f"batch {number} of {of}"
                case Warned("", text):
                    self.warnings.append(clean(text))
                case HostEvent(host):
                    self._host_event(self.host(host), event)
                case RunnerGone():
                    self.gone.append(_gone(event, self.words))
                case Interrupted():
                    self.interrupted = True
                case RunDone():
                    self.done = event

    def host(self, name: str) -> HostRecord:
        return self.hosts.setdefault(name, HostRecord(name))

    def _started(self, event: RunStarted) -> None:
        self.verb, self.run_id, self.operator = event.verb, event.run, event.operator
        self.words = event.words
        self._start = self._clock()
        for name in event.hosts:
            self.host(name)

    def _host_event(self, host: HostRecord, event: HostEvent) -> None:
        match event:
            case PhaseBegun(phase=phase):
                self._end_phase(host)
                host.spans.append(Span(phase, self.now_s))
                host.last_line = ""
            case Logged(text=text):
                _log(host, text)
            case Warned(text=text):
                host.warnings.append(clean(text))
                host.last_line = f"warning: {host.warnings[-1]}"
            case Draining(jobs=jobs, limit_s=limit_s):
                host.last_line = draining(jobs, limit_s)
            case Planned():
                host.changes, host.check = event.changes, event.check
                host.diffs = for_people(event.diffs)
                host.system = tuple(map(clean, system_lines(event.system)))
            case OriginFound(origin=origin):
                host.origin = tuple(map(clean, origin_lines(origin)))
            case StatusRead():
                host.status = event
            case BugMet(traceback=traceback):
                host.traceback = traceback
            case HostDone(result=result):
                self._end_phase(host)
                host.result = result

    def _end_phase(self, host: HostRecord) -> None:
        if host.spans and host.spans[-1].end_s is None:
            host.spans[-1].end_s = self.now_s


def _log(host: HostRecord, text: str) -> None:
    line = clean(text)[:_LINE_LENGTH_KEPT].rstrip()
    host.log_dropped += len(host.log) == LOG_LINES_KEPT
    host.log.append(line)
    host.last_line = without_hashes(line) or host.last_line
    if said := _SYSTEM.match(line):
        host.system = (f"system: {said[1]}",)


def _gone(event: RunnerGone, words: Words) -> str:
    runner = f"{words.runner} {event.runner} (#{event.id}, {event.gitlab_status})"
    return clean(f"{event.host}: not in the inventory, but {words.name} has its {runner}")
