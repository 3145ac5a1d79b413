"""One job from acceptance to its outcome: its stages in gitlab-runner's order (its common/build.go)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Final

from . import shell
from .build import Build, go_duration
from .errors import Cancelled, DockerError, JobFailed, PreparationFailed, Reason, reason_to_send
from .executor import Executor, Kind, on_shared_mount
from .gitlab import Outcome
from .identity import NAME, REVISION, VERSION
from .job import AFTER_SCRIPT, Step, refuse_unsupported
from .log import Log
from .output import JobLog
from .scope import Ending, Scope
from .variables import Variables

_TRIES: Final = 3
_RETRY_S: Final = 3.0
_AFTER_SCRIPT_S: Final = 300.0
_AFTER_SCRIPT_FAILED: Final = "after_script failed, but job will continue unaffected"
_TITLES: Final = {
    "prepare_script": "Preparing environment",
    "get_sources": "Getting source from Git repository",
    "step_after_script": "Running after_script",
    "cleanup_file_variables": "Cleaning up project directory and file based variables",
}
_TIMEOUT_HINT: Final = (
    "could not run to completion because the timeout was exceeded. For more control over job and script timeouts see: "
    "https://docs.gitlab.com/ci/runners/configure_runners/#set-script-and-after_script-timeouts"
)


@dataclass(frozen=True)
class _Stage:
    name: str
    lines: list[str]
    scope: Scope
    kind: Kind = Kind.PREDEFINED


class Work:
    """One job. `interrupt` (a signal's name) and `abort` may be called from other threads, and end the job soon."""

    def __init__(self, build: Build, write: Callable[[bytes], None], own_log: Log) -> None:
        self.build = build
        self._own_log = own_log
        variables = build.variables
        self._timestamps = _timestamps(build, variables)
        self._log = functools.partial(
            JobLog, write, variables.masked(), build.job.mask_prefixes, timestamps=self._timestamps
        )
        self._job_scope = Scope(build.job.timeout)
        self._script_scope = Scope(build.stage_seconds("RUNNER_SCRIPT_TIMEOUT", None), self._job_scope)
        self._interrupted = ""

    def abort(self) -> None:
        self._job_scope.cancel()

    def cancel_script(self) -> None:
        """End the script only, as GitLab asks for a graceful end: after_script and later stages still run."""
        self._script_scope.cancel()

    def interrupt(self, signal_name: str) -> None:
        self._interrupted = signal_name
        self._job_scope.cancel()

    def run(self) -> Outcome:
        """Run the job. Never raises: every failure becomes an outcome and a line in the job's log."""
        try:
            self._run()
        except JobFailed as failure:
            return self._failed(self._true_cause(failure))
        except Cancelled as ending:
            return self._failed(self._true_cause(ending))
        except Exception as error:  # noqa: BLE001 (the job's end must reach GitLab)
            return self._failed(JobFailed(str(error) or type(error).__name__, Reason.SYSTEM))
        job_log = self._log()
        job_log.info("Job succeeded")
        job_log.close()
        self._own_log.info("Job succeeded", job=self.build.job.key.id)
        return Outcome()

    def _failed(self, failure: JobFailed) -> Outcome:
        word = " (system failure)" if failure.reason is Reason.SYSTEM else ""
        job_log = self._log()
        job_log.error(f"Job failed{word}: {failure}")
        job_log.close()
        self._own_log.warning(f"Job failed{word}: {failure}", job=self.build.job.key.id, failure_reason=failure.reason)
        return Outcome(reason_to_send(failure.reason, self.build.job.known_reasons), failure.exit_code)

    def _true_cause(self, error: Exception) -> JobFailed:
        """The end of the whole job outranks the failures that it caused."""
        if self._interrupted:
            return JobFailed(f"aborted: {self._interrupted}", Reason.INTERRUPTED)
        if self._job_scope.ending is Ending.CANCELED:
            return JobFailed("canceled", Reason.CANCELED)
        if self._job_scope.ending is Ending.TIMEOUT:
            text = f"execution took longer than {go_duration(self.build.job.timeout)} seconds"
            return JobFailed(text, Reason.TIMEOUT)
        return error if isinstance(error, JobFailed) else JobFailed(str(error), Reason.CANCELED)

    def _run(self) -> None:
        job_log = self._log()
        try:
            job_log.line(f"Running with {NAME} {VERSION} ({REVISION})")
            config = self.build.config
            job_log.line(f"  on {config.name} {config.short_token}, system ID: {self.build.system_id}")
            if not self._timestamps:
                job_log.line("  feature flags: FF_TIMESTAMPS:false")
            refuse_unsupported(self.build.job)
            self.build = on_shared_mount(self.build)
            executor = self._prepared(job_log)
            try:
                self._stages(executor, job_log)
            finally:
                executor.clean()
        finally:
            job_log.close()

    def _prepared(self, job_log: JobLog) -> Executor:
        def prepare() -> Executor:
            job_log.title('Preparing the "docker" executor')
            return self._tried(job_log)

        return self._section("prepare_executor", job_log, prepare)

    def _tried(self, job_log: JobLog) -> Executor:
        problem: Exception | None = None
        for _attempt in range(_TRIES):
            executor = Executor(self.build, job_log, self._own_log)
            try:
                executor.prepare()
            except PreparationFailed as error:
                executor.clean()
                problem = error
                job_log.error(f"Preparation failed: {error}")
                job_log.info(f"Will be retried in {_RETRY_S:.0f}s ...")
                self._job_scope.wait(_RETRY_S)
            except BaseException:
                executor.clean()
                raise
            else:
                return executor
        raise JobFailed(str(problem), Reason.SYSTEM)

    def _section(self, name: str, job_log: JobLog, action: Callable[[], Executor]) -> Executor:
        self._mark("section_start", name, job_log)
        try:
            return action()
        finally:
            self._mark("section_end", name, job_log)

    def _mark(self, what: str, name: str, job_log: JobLog) -> None:
        if self.build.job.sections:
            job_log.raw(f"{what}:{int(time())}:{name}\r\033[0K")

    def _stages(self, executor: Executor, job_log: JobLog) -> None:
        self._environment(executor, job_log)
        try:
            self._stage(executor, job_log, _Stage("get_sources", shell.get_sources(self.build), self._job_scope))
            self._scripts(executor, job_log)
        finally:
            if self._job_scope.ending is None:
                self._clean_up(executor, job_log)

    def _environment(self, executor: Executor, job_log: JobLog) -> None:
        try:
            self._stage(executor, job_log, _Stage("prepare_script", shell.prepare(self.build), self._job_scope))
        except (DockerError, JobFailed) as error:
            message = (
                f"prepare environment: {error}. "
                "Check https://docs.gitlab.com/runner/shells/#shell-profile-loading for more information"
            )
            reason = error.reason if isinstance(error, JobFailed) else Reason.SYSTEM
            raise JobFailed(message, reason, getattr(error, "exit_code", 0)) from error

    def _scripts(self, executor: Executor, job_log: JobLog) -> None:
        failure = self._user_scripts(executor, job_log)
        if self._job_scope.ending is Ending.CANCELED and self._ignores_after_script:
            job_log.warning(f"{_AFTER_SCRIPT_FAILED}: context canceled")
        self._job_scope.check()
        self._after_script(executor, job_log, failure)
        if failure:
            raise failure

    def _user_scripts(self, executor: Executor, job_log: JobLog) -> JobFailed | None:
        try:
            for step in self.build.job.steps:
                if step.name != AFTER_SCRIPT:
                    lines = shell.user_script(self.build, step, self.build.variables)
                    self._stage(executor, job_log, _Stage(step.stage, lines, self._script_scope, Kind.BUILD))
        except JobFailed as failure:
            return failure
        except Cancelled:
            return self._script_ended(job_log)
        return None

    def _script_ended(self, job_log: JobLog) -> JobFailed | None:
        """The reason why the script was left, or None when the whole job has ended, which the caller handles."""
        if self._job_scope.ending is not None:
            return None
        if self._script_scope.ending is Ending.CANCELED:
            job_log.warning("script canceled externally (UI, API)")
            return JobFailed("canceled", Reason.CANCELED)
        return JobFailed("script timeout: context deadline exceeded", Reason.TIMEOUT)

    @property
    def _ignores_after_script(self) -> bool:
        return self.build.variables.text("AFTER_SCRIPT_IGNORE_ERRORS").lower() not in {"false", "0"}

    def _after_script(self, executor: Executor, job_log: JobLog, failure: JobFailed | None) -> None:
        """Run after_script. Its failure is only logged, unless AFTER_SCRIPT_IGNORE_ERRORS is off."""
        step = next((item for item in self.build.job.steps if item.name == AFTER_SCRIPT), None)
        if step is None or not step.script:
            return
        try:
            self._run_after_script(executor, job_log, step, failure)
        except (JobFailed, Cancelled) as error:
            self._job_scope.check()
            if self._ignores_after_script:
                job_log.warning(f"{_AFTER_SCRIPT_FAILED}: {error}")
            elif failure is None:
                raise

    def _run_after_script(self, executor: Executor, job_log: JobLog, step: Step, failure: JobFailed | None) -> None:
        status = _status(failure)
        variables = self.build.variables.with_value("CI_JOB_STATUS", status)
        scope = Scope(self.build.stage_seconds("RUNNER_AFTER_SCRIPT_TIMEOUT", _AFTER_SCRIPT_S), self._job_scope)
        lines = shell.user_script(self.build, step, variables)
        self._stage(executor, job_log, _Stage(step.stage, lines, scope, Kind.BUILD))

    def _clean_up(self, executor: Executor, job_log: JobLog) -> None:
        try:
            self._stage(
                executor, job_log, _Stage("cleanup_file_variables", shell.clean_up(self.build), self._job_scope)
            )
        except (JobFailed, Cancelled, DockerError, PreparationFailed) as error:
            self._own_log.warning(f"Error while executing file based variables removal script: {error}")

    def _stage(self, executor: Executor, job_log: JobLog, stage: _Stage) -> None:
        shown = "after_script" if stage.name == "step_after_script" else stage.name
        self._mark("section_start", shown, job_log)
        try:
            job_log.title(_TITLES.get(stage.name, f'Executing "{stage.name}" stage of the job script'))
            executor.run(stage.kind, shell.finish(stage.lines, debug=self.build.debug), stage.scope)
        finally:
            self._mark("section_end", shown, job_log)
            if stage.scope.ending is Ending.TIMEOUT:
                job_log.warning(f"{shown} {_TIMEOUT_HINT}")


def _status(failure: JobFailed | None) -> str:
    if failure is None:
        return "success"
    return {Reason.CANCELED: "canceled", Reason.TIMEOUT: "timedout"}.get(failure.reason, "failed")


def _timestamps(build: Build, variables: Variables) -> bool:
    """Whether lines get times; config.toml outranks the job's variable."""
    if "FF_TIMESTAMPS" in build.config.feature_flags:
        return build.config.timestamps
    return variables.text("FF_TIMESTAMPS").lower() not in {"false", "0"}
