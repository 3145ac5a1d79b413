"""JSON lines on stdout: one event a line, in the shapes of `documents`.

ASCII alone, the rest as JSON's own escapes: nothing is lost, and a terminal that shows it is steered by nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO

from provisioner.advisories import Advisory
from provisioner.ci.base import RunnerAction
from provisioner.events import Event, HostResult
from provisioner.machine.counters import Counters, JobCount
from provisioner.machine.flaws import Flaws
from provisioner.machine.origin import Origin
from provisioner.machine.preview import Closure, Preview, UnitChange
from provisioner.plan import HostPlan
from provisioner.report import documents
from provisioner.report.diff import plan_diffs
from provisioner.report.documents import (
    VERSION,
    Host,
    JobCounters,
    KnownFlaw,
    NixStatus,
    Plan,
    RunnerPlan,
    RunnerStatus,
    Status,
    System,
)
from provisioner.report.wording import without_tokens
from provisioner.verbs.status import HostReport, RunnerReport


@dataclass(slots=True)
class JsonLines:
    """`diff`: plans carry their diffs."""

    out: TextIO
    diff: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def event(self, event: Event) -> None:
        host = {"host": event.host} if event.host else {}
        self._write({"event": event.kind, **host, **self._fields(event)})

    def summary(self, fields: Mapping[str, object]) -> None:
        self._write({"event": "summary", **fields})

    def _write(self, document: Mapping[str, object]) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({**document, "time": time, "version": VERSION}, ensure_ascii=True)
        line = without_tokens(line)
        with self._lock:
            self.out.write(line + "\n")
            self.out.flush()

    def _fields(self, event: Event) -> Mapping[str, object]:
        match event.kind:
            case "plan":
                return _plan(event, diff=self.diff)
            case "origin":
                return _origin(event)
            case "status":
                return _status(event.fields["report"])
            case "host":
                return _host(event.fields["result"])
            case _:
                return event.fields


def _plan(event: Event, *, diff: bool) -> Plan:
    plan = event.fields["plan"]
    assert isinstance(plan, HostPlan)  # noqa: S101 - narrows for mypy
    return {
        "host": plan.host,
        "changes": list(plan.lines()),
        "runners": [_action(action) for action in plan.runners],
        "steps": [{"step": action.step, "why": action.why} for action in plan.steps],
        "switch": plan.switch or None,
        "diff": list(plan_diffs(plan, event.fields["files"])) if diff else [],  # type: ignore[arg-type]
        "system": _system(event.fields.get("system")),
    }


def _system(seen: object) -> System | None:
    if not isinstance(seen, Preview):
        return None
    return {
        "build": list(seen.build),
        "fetch": list(seen.fetch),
        "fetch_size": seen.sizes or None,
        "closure": _closure(seen.closure) if seen.closure else None,
        "failed": seen.failed or None,
        "unknown": seen.unknown or None,
    }


def _origin(event: Event) -> documents.Origin:
    found = event.fields["origin"]
    assert isinstance(found, Origin)  # noqa: S101 - narrows for mypy
    return {
        "host": event.host,
        "kind": found.kind.value,
        "why": found.why,
        "running": found.running,
        "boot": found.boot,
        "configured": found.configured or None,
        "built": found.is_built,
        "changes": list(found.changes),
        "units": [_units(change) for change in found.units],
    }


def _closure(closure: Closure) -> documents.Closure:
    return {
        "added": closure.added,
        "removed": closure.removed,
        "size": closure.size,
        "packages": [
            {"name": one.name, "before": list(one.before), "after": list(one.after), "size": one.size}
            for one in closure.packages
        ],
        "units": [_units(change) for change in closure.units],
    }


def _units(change: UnitChange) -> documents.UnitChange:
    return {"verb": change.verb, "units": list(change.units)}


def _action(action: RunnerAction) -> RunnerPlan:
    return {
        "name": action.name,
        "verb": action.verb.value,
        "id": action.id,
        "why": action.why,
        "differences": [{"name": d.name, "before": d.before, "after": d.after} for d in action.differences],
    }


def _host(result: object) -> Host:
    assert isinstance(result, HostResult)  # noqa: S101 - narrows for mypy
    return {
        "host": result.host,
        "outcome": result.outcome.value,
        "seconds": round(result.seconds, 3),
        "remote_commands": result.remote_commands,
        "connections": result.connections,
        "error": result.error or None,
        "hint": result.hint or None,
        "remains": list(result.remains),
    }


def _status(report: object) -> Status:
    assert isinstance(report, HostReport)  # noqa: S101 - narrows for mypy
    return {
        "host": report.host,
        "nixos": report.nixos,
        "nixprov": report.nixprov or None,
        "generation": report.generation,
        "installed": report.is_installed,
        "phase": report.phase,
        "revision": report.revision or None,
        "drift": list(report.drift),
        "runners": [_runner(runner) for runner in report.runners],
        "counters": _counters(report.counters) if report.counters else None,
        "nix": _nix(report.flaws),
    }


def _nix(flaws: Flaws) -> NixStatus:
    return {
        "version": flaws.nix or None,
        "judged": flaws.found is not None,
        "flaws": [_flaw(flaws, one) for one in flaws.all],
        "mended": flaws.mended or None,
        "refused": flaws.refusal() is not None,
    }


def _flaw(flaws: Flaws, advisory: Advisory) -> KnownFlaw:
    return {
        "id": advisory.id,
        "severity": advisory.severity.value,
        "gives": advisory.gives,
        "advice": advisory.advice,
        "accepted": flaws.accepts(advisory),
        "sources": list(advisory.sources),
    }


def _counters(counters: Counters) -> documents.Counters:
    return {
        "since": _iso(counters.since),
        "jobs": counters.jobs,
        "seconds": round(counters.seconds, 3),
        "built": counters.counts.built,
        "found": counters.counts.found,
        "bytes": counters.counts.size,
        "last": [_job(job) for job in counters.last],
    }


def _job(job: JobCount) -> JobCounters:
    return {
        "runner": job.runner,
        "job": job.job,
        "project": job.project,
        "started": _iso(job.started),
        "seconds": None if job.seconds is None else round(job.seconds, 3),
        "built": job.counts.built,
        "found": job.counts.found,
        "bytes": job.counts.size,
    }


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def _runner(report: RunnerReport) -> RunnerStatus:
    runner = report.runner
    return {
        "name": report.name,
        "id": runner.id if runner else None,
        "gitlab_status": runner.state if runner else None,
        "paused": runner.is_paused if runner else None,
        "contacted_at": report.contacted_at,
        "managers": [{"system_id": one.name, "status": one.state} for one in report.managers],
        "unit": report.unit.name if report.unit else None,
        "unit_state": report.unit.active if report.unit else "inactive",
    }
