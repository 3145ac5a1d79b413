"""Plain lines for people, logs and pipes: one a phase and host, failures as they come, and the end."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TextIO

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
    Warned,
)
from provisioner.outcome import HostResult, Outcome
from provisioner.report.advice import Typed
from provisioner.report.colour import Painter
from provisioner.report.ending import Ending, asked_for, warning_line
from provisioner.report.foreign import visible
from provisioner.report.lines import that_matter
from provisioner.report.record import HostRecord, RunRecord
from provisioner.report.wording import clean, names, told


@dataclass(slots=True)
class PlainText:
    """`out` gets the progress (stderr); `result` the answer (stdout, or stderr under --json).

    `record` must have been given each event before this report.
    """

    out: TextIO
    result: TextIO
    record: RunRecord
    typed: Typed = field(default_factory=Typed)
    paint: Painter = field(default_factory=Painter)
    paint_result: Painter = field(default_factory=Painter)
    verbose: bool = False
    debug: bool = False
    diff: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def event(self, event: Event) -> None:
        with self._lock:
            match event:
                case HostEvent():
                    self._of_host(event)
                case BatchBegun(hosts=hosts):
                    self._say("", f"{self.record.batch}: {names(hosts)}")
                case Interrupted():
                    self._say("", "interrupted: each host stops at its next safe place")
                case RunDone():
                    self._end()

    def _of_host(self, event: HostEvent) -> None:
        match event:
            case PhaseBegun(host, phase):
                self._say(host, self.paint(clean(phase), "cyan"))
            case Logged(host, text) if self.verbose:
                self._say(host, f"  {clean(text)}")
            case Warned(host, text):
                self._say(host, warning_line(text, self.paint))
            case Draining(host):
                self._say(host, self.record.host(host).last_line)
            case Planned(host, check=False):
                self._plan(self.record.host(host))
            case OriginFound(host) if not self.record.host(host).check:
                for line in self.record.host(host).origin:
                    self._say(host, f"  {line}")
            case HostDone(result=result):
                self._host(result)
            case BugMet(traceback=traceback) if self.debug:
                self.out.write(told(traceback))

    def _end(self) -> None:
        """The answer comes in the order of the inventory, then the recap."""
        with self.record.reading():
            ending = Ending(self.record, self.typed, self.paint)
            self._write(self.result, asked_for(self.record, self.paint_result, diff=self.diff))
            if len(self.record.hosts) > 1:
                self._write(self.out, ending.recap())
            self._write(self.out, (*ending.total(), *ending.advice()))

    def _say(self, host: str, text: str) -> None:
        self._write(self.out, (f"{self.record.now_s:6.1f}s {clean(host) or '-':<16} {text}",))

    def _write(self, stream: TextIO, lines: Iterable[str]) -> None:
        stream.writelines(f"{line}\n" for line in lines)
        stream.flush()

    def _plan(self, host: HostRecord) -> None:
        """The work ahead; a plan as the answer comes at the end."""
        for change in host.changes:
            self._say(host.name, f"{self.paint('~', 'yellow')} {clean(change)}")
        for text in host.diffs if self.diff else ():
            self.out.write(self.paint.diff(visible(text)))

    def _host(self, result: HostResult) -> None:
        if result.outcome is Outcome.SKIPPED:
            return  # the run never began it; the recap names all such hosts
        if result.outcome.is_good:
            self._say(result.host, self.paint.outcome(result.outcome, self.record.word(result.outcome)))
            return
        if not self.verbose:
            for line in that_matter(self.record.host(result.host).log):
                self._say(result.host, f"  {line}")
        hint = f"; {clean(result.hint)}" if result.hint else ""
        outcome = self.paint.outcome(result.outcome, self.record.word(result.outcome))
        self._say(result.host, f"{outcome}: {clean(result.error)}{hint}")
        for line in result.remains:
            self._say(result.host, f"left behind: {clean(line)}")
