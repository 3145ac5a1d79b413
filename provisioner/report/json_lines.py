"""JSON lines on stdout: one event a line, as docs/json.md says. The version grows when a field changes meaning."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from provisioner.engine.status import HostReport, RunnerReport
from provisioner.events import Event, HostResult
from provisioner.plan import HostPlan
from provisioner.report.diff import unified

VERSION: Final = 1


@dataclass(slots=True)
class JsonLines:
    out: TextIO
    verbose: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def event(self, event: Event) -> None:
        fields = _fields(event)
        if fields is not None:
            host = {"host": event.host} if event.host else {}
            self._write({"event": event.kind, **host, **fields})

    def summary(self, fields: Mapping[str, object]) -> None:
        self._write({"event": "summary", **fields})

    def _write(self, document: Mapping[str, object]) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({**document, "time": time, "version": VERSION}, ensure_ascii=False)
        with self._lock:
            self.out.write(line + "\n")
            self.out.flush()


def _fields(event: Event) -> Mapping[str, Any] | None:
    match event.kind:
        case "plan":
            return _plan(event)
        case "status":
            return _status(event.fields["report"])
        case "host":
            return _host(event.fields["result"])
        case _:
            return dict(event.fields)


def _plan(event: Event) -> Mapping[str, Any]:
    plan = event.fields["plan"]
    assert isinstance(plan, HostPlan)  # noqa: S101 - narrows for mypy
    runners = [
        {"name": action.name, "verb": action.verb.value, "id": action.id, "why": action.why} for action in plan.runners
    ]
    steps = [{"step": action.step, "why": action.why} for action in plan.steps]
    diff = [unified(change) for change in event.fields["files"]]  # type: ignore[attr-defined]
    return {
        "changes": list(plan.lines()),
        "runners": runners,
        "steps": steps,
        "switch": plan.switch or None,
        "diff": diff,
    }


def _host(result: object) -> Mapping[str, Any]:
    assert isinstance(result, HostResult)  # noqa: S101 - narrows for mypy
    return {
        "outcome": result.outcome.value,
        "seconds": round(result.seconds, 3),
        "remote_commands": result.remote_commands,
        "connections": result.connections,
        "error": result.error or None,
        "hint": result.hint or None,
    }


def _status(report: object) -> Mapping[str, Any]:
    assert isinstance(report, HostReport)  # noqa: S101 - narrows for mypy
    return {
        "nixos": report.nixos,
        "generation": report.generation,
        "installed": report.is_installed,
        "phase": report.phase,
        "revision": report.revision or None,
        "drift": list(report.drift),
        "runners": [_runner(runner) for runner in report.runners],
    }


def _runner(report: RunnerReport) -> Mapping[str, Any]:
    runner = report.runner
    return {
        "name": report.name,
        "id": runner.id if runner else None,
        "gitlab_status": runner.status.value if runner else None,
        "paused": runner.paused if runner else None,
        "contacted_at": report.contacted_at,
        "managers": [{"system_id": m.system_id, "status": m.status.value} for m in report.managers],
        "unit": report.unit.name if report.unit else None,
        "unit_state": report.unit.active if report.unit else "inactive",
    }
