"""Plain lines for people: one a phase and host, the reasons of a plan, failures with what to do next."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TextIO

from provisioner.engine.status import HostReport, RunnerReport
from provisioner.events import Event, HostResult
from provisioner.plan import HostPlan
from provisioner.report.diff import unified

_LOG_LINES_KEPT = 20


@dataclass(slots=True)
class PlainText:
    """`out` gets the progress (stderr); `result` what was asked for (stdout, or stderr under --json)."""

    out: TextIO
    result: TextIO
    verbose: bool = False
    debug: bool = False
    _started: float = field(default_factory=time.monotonic)
    _logs: dict[str, list[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def event(self, event: Event) -> None:
        with self._lock:
            match event.kind:
                case "phase":
                    self._say(event.host, str(event.fields["phase"]))
                case "log":
                    self._log(event.host, str(event.fields["text"]))
                case "warning":
                    self._say(event.host, f"warning: {event.fields['text']}")
                case "plan":
                    self._plan(event)
                case "status":
                    self._status(event.fields["report"])
                case "host":
                    self._host(event.fields["result"])
                case "bug" if self.debug:
                    self._say(event.host, str(event.fields["traceback"]))

    def summary(self, fields: Mapping[str, object]) -> None:
        counts = ", ".join(f"{fields[name]} {name}" for name in ("changed", "unchanged", "failed", "unreachable"))
        self.out.write(f"{fields['hosts']} hosts: {counts}; {fields['seconds']} s\n")
        self.out.flush()

    def _say(self, host: str, text: str) -> None:
        elapsed = time.monotonic() - self._started
        self.out.write(f"{elapsed:6.1f}s {host or '-':<16} {text}\n")
        self.out.flush()

    def _log(self, host: str, text: str) -> None:
        kept = self._logs.setdefault(host, [])
        kept.append(text)
        del kept[:-_LOG_LINES_KEPT]
        if self.verbose:
            self._say(host, f"  {text}")

    def _plan(self, event: Event) -> None:
        plan = event.fields["plan"]
        assert isinstance(plan, HostPlan)  # noqa: S101 - narrows for mypy
        stream = self.result if event.fields["check"] else self.out
        for line in plan.lines():
            stream.write(f"        {plan.host:<16} {line}\n")
        for change in event.fields["files"]:  # type: ignore[attr-defined]
            stream.write(unified(change))
        stream.flush()

    def _host(self, result: object) -> None:
        assert isinstance(result, HostResult)  # noqa: S101 - narrows for mypy
        if result.outcome.is_good:
            self._say(result.host, result.outcome.value)
            return
        if not self.verbose:
            for line in self._logs.get(result.host, ()):
                self._say(result.host, f"  {line}")
        hint = f"; {result.hint}" if result.hint else ""
        self._say(result.host, f"{result.outcome.value}: {result.error}{hint}")

    def _status(self, report: object) -> None:
        assert isinstance(report, HostReport)  # noqa: S101 - narrows for mypy
        state = "installed" if report.is_installed else "not installed"
        self.result.write(f"{report.host}: {state}, {report.nixos}, generation {report.generation}, {report.phase}\n")
        for runner in report.runners:
            self.result.write(f"  runner {runner.name}: {_runner(runner)}\n")
        for line in report.drift:
            self.result.write(f"  drift: {line}\n")
        self.result.flush()


def _runner(report: RunnerReport) -> str:
    unit = report.unit.active if report.unit else "no unit"
    if report.runner is None:
        return f"{unit}; not in GitLab"
    polled = f"polled {report.contacted_at}" if report.contacted_at else "never polled"
    return f"{unit}; GitLab #{report.runner.id} {report.runner.status.value}, {polled}"
