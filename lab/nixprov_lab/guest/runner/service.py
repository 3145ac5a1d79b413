"""`gitlab-runner run`: asks for jobs, runs them, obeys signals (gitlab-runner's commands/multi.go).

SIGQUIT takes no new job, waits for the running ones and exits 0. SIGTERM and SIGINT fail the running ones and wait
shutdown_timeout. SIGHUP reads config.toml again; so does a change of its modification time.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Final

from .build import Build
from .config import Config, RunnerConfig, load
from .errors import ConfigError, JobFailed, Reason, RunnerError
from .gitlab import Answer, GitLab, Outcome
from .identity import system_id
from .job import Job, key_of, parse
from .log import Log
from .pool import Health, Pool
from .trace import DEFAULT_LIMIT, Trace, TraceOptions
from .work import Work

_CHECK_CONFIG_S: Final = 3.0
_STOPPING: Final = (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT)
_NAMES: Final = {signal.SIGQUIT: "quit", signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}
STATE_FILE: Final = ".runner_system_id"
# A message of several lines in gitlab-runner 18.4 and newer (checkConfigConcurrency).
_LONG_POLLING: Final = "CONFIGURATION: Long polling issues detected"


class Service:
    """One process. `run` has to be called in the main thread, where signals arrive."""

    def __init__(self, config_file: Path, own_log: Log) -> None:
        self._file = config_file
        self._log = own_log
        self._signals: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()
        self._pool = Pool()
        self._health = Health(own_log)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._work: set[Work] = set()
        self._forced = ""
        self._clients: dict[tuple[str, str, str], GitLab] = {}
        self._config = Config()
        self._changed_at = 0.0
        self._system_id = ""

    def run(self) -> int:
        """Run until a signal; the exit status. Raises RunnerError for a configuration that cannot be used at start."""
        self._log.info(f"Starting multi-runner from {self._file}...")
        self._reload()
        self._system_id, kept = system_id(self._file.parent / STATE_FILE)
        if not kept:
            self._log.warning("Couldn't save new system ID on state file.", system_id=self._system_id)
        for number in (*_STOPPING, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        feeder = threading.Thread(target=self._feed, name="feeder", daemon=True)
        feeder.start()
        return self._stop(self._until_stopped())

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.put(signal.Signals(number))

    def _until_stopped(self) -> signal.Signals:
        while True:
            try:
                received = self._signals.get(timeout=_CHECK_CONFIG_S)
            except queue.Empty:
                self._reload_if_changed()
                continue
            if received in _STOPPING:
                self._log.warning("[runWait] received stop signal", **{"stop-signal": _NAMES[received]})
                return received
            self._reload_or_complain()

    def _reload(self) -> None:
        changed_at = self._file.stat().st_mtime if self._file.exists() else 0.0
        config, _document = load(self._file)
        self._changed_at = changed_at
        self._config = config
        self._log.configure(config.log_level, config.log_format)
        for runner in config.runners:
            self._log.hide(runner.token)
        self._log.info("Configuration loaded", max_builds=config.concurrent)
        few = sum(runner.request_concurrency <= 1 for runner in config.runners)
        if few:
            self._log.warning(
                f"{_LONG_POLLING}: {few} runners have request_concurrency=1", max_builds=config.concurrent
            )

    def _reload_or_complain(self) -> None:
        try:
            self._reload()
        except ConfigError as error:
            self._log.error(f"Failed to load config {error}")

    def _reload_if_changed(self) -> None:
        try:
            changed_at = self._file.stat().st_mtime
        except OSError as error:
            self._log.error(f"Failed to load config {error.strerror}")
            return
        if changed_at > self._changed_at:
            self._changed_at = changed_at
            self._reload_or_complain()

    def _feed(self) -> None:
        """Offer every runner a worker in turn, the interval divided among them."""
        while not self._stopping.is_set():
            config = self._config
            pause = config.interval / max(1, len(config.runners))
            for runner in config.runners:
                self._offer(runner)
                self._stopping.wait(pause)
            if not config.runners:
                self._stopping.wait(pause)

    def _offer(self, runner: RunnerConfig) -> None:
        if not self._health.may_ask(runner):
            return
        if self._pool.enter(lambda: self._config.concurrent, self._stopping.is_set):
            self._start_worker(runner)

    def _start_worker(self, runner: RunnerConfig) -> None:
        threading.Thread(target=self._worker, args=(runner,), name="worker", daemon=True).start()

    def _worker(self, runner: RunnerConfig) -> None:
        try:
            if not self._stopping.is_set() and self._pool.begin_request(runner):
                try:
                    self._request_and_run(runner)
                finally:
                    self._pool.end_job(runner)
        except Exception as error:  # noqa: BLE001 (a worker's end must not end the service)
            self._log.error(f"Failed to process runner: {error}", runner=runner.short_token)
        finally:
            self._pool.leave()

    def _client(self, runner: RunnerConfig) -> GitLab:
        key = (runner.url, runner.token, runner.tls_ca_file)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = GitLab(runner, self._system_id, self._log)
            return self._clients[key]

    def _request_and_run(self, runner: RunnerConfig) -> None:
        gitlab = self._client(runner)
        try:
            document, healthy = gitlab.request_job()
        finally:
            self._pool.end_request(runner)
        self._health.note(runner, healthy=healthy)
        if document is None:
            return
        if (
            not runner.strict_check_interval
            and not self._stopping.is_set()
            and self._pool.try_enter(self._config.concurrent)
        ):
            self._start_worker(runner)
        self._process(runner, gitlab, document)

    def _process(self, runner: RunnerConfig, gitlab: GitLab, document: dict[str, object]) -> None:
        """Accept the job (the second phase of its commit) and run it, unless GitLab has changed its mind."""
        key = key_of(document)
        job = parse(document)
        trace = Trace(gitlab, key, self._log, _trace_options(runner, job))
        trace.start()
        reply = gitlab.update(key)
        if reply.answer is Answer.ABORT:
            trace.discard()
            return
        if reply.cancel:
            trace.finish(Outcome(Reason.UNKNOWN))
            return
        slot = self._pool.take_slot(runner, job.project_id)
        try:
            self._run_job(Work(Build(job, runner, self._system_id, slot), trace.write, self._log), trace)
        except JobFailed as failure:
            trace.write(f"{failure}\n".encode())
            trace.finish(Outcome(Reason.SYSTEM))
        finally:
            self._pool.free_slot(runner, slot)

    def _run_job(self, work: Work, trace: Trace) -> None:
        trace.on_cancel = work.cancel_script
        trace.on_abort = work.abort
        number = work.build.job.key.id
        with self._lock:
            self._work.add(work)
            if self._forced:
                work.interrupt(self._forced)
        self._log.info("Added job to processing list", job=number)
        try:
            outcome = work.run()
        finally:
            with self._lock:
                self._work.discard(work)
        if not trace.finish(outcome):
            self._log.error("Job trace termination failed", job=number)
        self._log.info("Removed job from processing list", job=number)

    def _stop(self, received: signal.Signals) -> int:
        self._stopping.set()
        with self._lock:
            clients = list(self._clients.values())
        for client in clients:
            client.stop_requests()
        if received is signal.SIGQUIT:
            self._log.warning("Starting graceful shutdown, waiting for builds to finish", builds=self._pool.workers)
            received = self._wait_gracefully()
        if received is not signal.SIGQUIT and not self._stop_by_force(received):
            return 1
        self._log.info("All workers stopped.")
        self._log.info("Can exit now!")
        return 0

    def _wait_gracefully(self) -> signal.Signals:
        """Wait for the end of all jobs; SIGQUIT then, or the impatient signal that came before."""
        while not self._pool.wait_empty(0.1):
            try:
                received = self._signals.get_nowait()
            except queue.Empty:
                continue
            if received in _STOPPING and received is not signal.SIGQUIT:
                self._log.warning("[handleGracefulShutdown] received stop signal")
                return received
        return signal.SIGQUIT

    def _stop_by_force(self, received: signal.Signals) -> bool:
        seconds = self._config.shutdown_seconds
        self._log.warning(
            "Starting forceful shutdown", StopSignal=_NAMES[received], **{"shutdown-timeout": f"{seconds:.0f}s"}
        )
        with self._lock:
            self._forced = _NAMES[received]
            running = list(self._work)
        for work in running:
            work.interrupt(_NAMES[received])
        end = time.monotonic() + seconds
        while not self._pool.wait_empty(0.1):
            if time.monotonic() > end:
                self._log.warning("Forceful shutdown not finished properly", error="shutdown timed out")
                return False
            if self._another_signal():
                self._log.warning("Forceful shutdown not finished properly", error="forced exit with stop signal")
                return False
        return True

    def _another_signal(self) -> bool:
        try:
            return self._signals.get_nowait() in _STOPPING
        except queue.Empty:
            return False


def _trace_options(runner: RunnerConfig, job: Job) -> TraceOptions:
    debug = {item.key: item.value.lower() for item in job.variables}
    wanted = any(debug.get(key) in {"true", "1"} for key in ("CI_DEBUG_TRACE", "CI_DEBUG_SERVICES"))
    return TraceOptions(
        limit=runner.output_limit * 1024 or DEFAULT_LIMIT,
        retries=max(1, runner.job_status_final_update_retry_limit),
        debug=wanted and not runner.debug_trace_disabled,
    )


def run(config_file: Path, working_directory: str, own_log: Log) -> int:
    """Raises RunnerError."""
    if working_directory:
        config_file = config_file.absolute()
        try:
            os.chdir(working_directory)
        except OSError as error:
            raise RunnerError(f"chdir {working_directory}: {error.strerror}") from None
    return Service(config_file, own_log).run()
