"""From the values inside events to the shapes inside their documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from provisioner.advisories import Advisory
    from provisioner.ci.base import RunnerAction
    from provisioner.events import documents
    from provisioner.machine.counters import Counters, JobCount
    from provisioner.machine.flaws import Flaws
    from provisioner.machine.preview import Closure, Preview, UnitChange


def runner_plan(action: RunnerAction) -> documents.RunnerPlan:
    return {
        "name": action.name,
        "verb": action.verb.value,
        "id": action.id,
        "why": action.why,
        "differences": [{"name": d.name, "before": d.before, "after": d.after} for d in action.differences],
    }


def system(seen: Preview) -> documents.System:
    return {
        "build": list(seen.build),
        "fetch": list(seen.fetch),
        "fetch_size": seen.sizes or None,
        "closure": _closure(seen.closure) if seen.closure else None,
        "failed": seen.failed or None,
        "unknown": seen.unknown or None,
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
        "units": [units(change) for change in closure.units],
    }


def units(change: UnitChange) -> documents.UnitChange:
    return {"verb": change.verb, "units": list(change.units)}


def counters(book: Counters) -> documents.Counters:
    return {
        "since": _iso(book.since),
        "jobs": book.jobs,
        "seconds": round(book.seconds, 3),
        "built": book.counts.built,
        "found": book.counts.found,
        "bytes": book.counts.size,
        "last": [_job(job) for job in book.last],
    }


def _job(job: JobCount) -> documents.JobCounters:
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


def nix(flaws: Flaws) -> documents.NixStatus:
    return {
        "version": flaws.nix or None,
        "judged": flaws.found is not None,
        "flaws": [_flaw(flaws, one) for one in flaws.all],
        "mended": flaws.mended or None,
        "refused": flaws.refusal() is not None,
    }


def _flaw(flaws: Flaws, advisory: Advisory) -> documents.KnownFlaw:
    return {
        "id": advisory.id,
        "severity": advisory.severity.value,
        "gives": advisory.gives,
        "advice": advisory.advice,
        "accepted": flaws.accepts(advisory),
        "sources": list(advisory.sources),
    }
