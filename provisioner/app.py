"""Wiring of one run: inventory and play to hosts, events to a report, results to an exit code."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from provisioner import runs
from provisioner.ci import KINDS
from provisioner.ci.base import Provider
from provisioner.engine.executor import Threads
from provisioner.engine.host import Choices, Depth, Limits
from provisioner.engine.rollout import Rollout
from provisioner.engine.visit import Brief, Job, Visitor
from provisioner.errors import CiError, CiUnavailable
from provisioner.events import Event, HostDone, RunDone, RunnerGone, RunStarted, Warned
from provisioner.machine.journal import Run
from provisioner.outcome import HostResult
from provisioner.runs import RunFile
from provisioner.selection import Fleet
from provisioner.ssh.session import SshOptions
from provisioner.verb import Verb
from provisioner.verbs import perform, prune


class Report(Protocol):
    def event(self, event: Event) -> None: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run beside its hosts; `ci` is the provider's key, `ci_options` are its own, by parameter."""

    ci: str
    ci_options: Mapping[str, str]
    ssh: SshOptions
    limits: Limits
    forks: int = 5
    diff: bool = False
    depth: Depth = Depth.FILES
    host_limit_s: float | None = None
    choices: Choices = field(default_factory=Choices)


class App:
    """One run over some hosts; `interrupt()` may be called from a signal handler."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._cancel = threading.Event()
        self._stop = threading.Event()
        self._has_begun = False

    def interrupt(self) -> None:
        """First signal: leave the work on the hosts to itself. Second: stop it and take it back.

        Raises KeyboardInterrupt while only the provider is asked: there is nothing to leave in order, and it may be
        slow.
        """
        if not self._has_begun:
            raise KeyboardInterrupt
        if self._cancel.is_set():
            self._stop.set()
        self._cancel.set()

    def run(self, verb: Verb, fleet: Fleet) -> int:
        """Run and report; gives the exit code. Raises ConfigError, CiError before any host is touched."""
        started = time.monotonic()
        for text in fleet.warnings:
            self._warn(text)
        ci = self._open_ci(verb)
        record = RunFile(runs.directory(), new_run(verb))
        self._has_begun = True
        self._begin(verb, fleet, record)
        try:
            results = self._execute(verb, fleet, ci, record)
            if verb is Verb.STATUS:
                self._name_gone(ci, fleet)
        finally:
            ci.close()
        done = self._recorded(record, RunDone(tuple(results), ci.writes, time.monotonic() - started))
        self._report.event(done)
        return done.exit_code

    @contextmanager
    def ci(self) -> Iterator[Provider]:
        """The provider alone, for a task without hosts. Raises ConfigError, CiError."""
        ci = self._open_ci(Verb.STATUS)
        try:
            yield ci
        finally:
            ci.close()

    def known(self, ci: Provider, fleet: Fleet, *, retries: int | None = None) -> dict[str, prune.Known]:
        """The answers of the hosts about themselves; silent hosts are reported and left out. Changes nothing."""
        ssh = self._settings.ssh if retries is None else replace(self._settings.ssh, retries=retries)
        brief = Brief(new_run(Verb.STATUS), Verb.STATUS, ssh)
        threads = Threads(Visitor(ci, perform), self._settings.forks)
        return threads.probe([Job(host, brief) for host in fleet.hosts], self._report.event, prune.Known.of)

    def tell(self, event: Event) -> None:
        """An event of a command that visits no host."""
        self._report.event(event)

    def _begin(self, verb: Verb, fleet: Fleet, record: RunFile) -> None:
        """Only a run that changes something leaves a record: there is nothing else to resume."""
        names = tuple(host.name for host in fleet.hosts)
        if verb.changes:
            record.begin(names)
        self._report.event(RunStarted(verb.value, record.run.id, record.run.by, names, KINDS[self._settings.ci].words))

    def _execute(self, verb: Verb, fleet: Fleet, ci: Provider, record: RunFile) -> Sequence[HostResult]:
        said = self._settings
        brief = Brief(record.run, verb, said.ssh, said.limits, said.choices, said.diff, said.depth)
        threads = Threads(Visitor(ci, perform, self._stop), said.forks, said.host_limit_s, self._cancel)
        return Rollout(threads, lambda event: self._event(event, record), brief, self._cancel).roll_out(fleet.stages)

    def _event(self, event: Event, record: RunFile) -> None:
        if isinstance(event, HostDone):
            record.record(event.result)
        self._report.event(event)

    def _recorded(self, record: RunFile, done: RunDone) -> RunDone:
        """Add the id to resume, unless the run changes nothing or could not be recorded."""
        failed = record.end(done.exit_code)
        if record.problem:
            self._warn(record.problem)
        if not record.is_kept:
            return done
        return replace(done, run=record.run.id, failed_hosts_file=None if failed is None else str(failed))

    def _name_gone(self, ci: Provider, fleet: Fleet) -> None:
        """Hosts that left the inventory while the provider still has a runner of ours for them.

        The lists are the run's own, read once already. Runners of another inventory that serves the same group look
        the same. Only a person can tell them apart.
        """
        try:
            found = ci.listed(fleet.hosts)
        except CiError as error:
            self._warn(f"hosts that left the inventory are not looked for: {error.message}")
            return
        for runner in found:
            if runner.mark is not None and runner.mark.host not in fleet.inventory:
                gone = RunnerGone(runner.mark.host, runner.mark.runner, runner.id, runner.state)
                self._report.event(gone)

    def _warn(self, text: str) -> None:
        self._report.event(Warned("", text))

    def _open_ci(self, verb: Verb) -> Provider:
        ci = KINDS[self._settings.ci].connect(os.environ, self._settings.ci_options)
        for warning in ci.warnings:
            self._warn(warning)
        try:
            ci.check()
        except CiUnavailable as error:
            # Taking a machine out must not wait for the provider: a deletion that failed is queued.
            if not verb.removes:
                raise
            self._warn(error.message)
        return ci


def new_run(verb: Verb) -> Run:
    now = datetime.now(UTC)
    run_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    return Run(run_id, verb.value, f"{_user()}@{socket.gethostname()}", now.isoformat(timespec="seconds"))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return str(os.getuid())
