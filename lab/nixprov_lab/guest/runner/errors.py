"""The errors of the stand-in runner, and the failure reasons of jobs for GitLab.

RunnerError           the command ends with one line on standard error
└── ConfigError       config.toml
JobFailed             the job ends as failed, for a reason that GitLab knows
PreparationFailed     the executor could not be prepared; tried again, then a system failure
DockerError           the Docker Engine API refused or broke; status 0: no answer
Cancelled             a scope was left early, with the reason
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Failure reasons as gitlab-runner names them (its common/network.go)."""

    SCRIPT = "script_failure"
    SYSTEM = "runner_system_failure"
    TIMEOUT = "job_execution_timeout"
    IMAGE_PULL = "image_pull_failure"
    CONFIGURATION = "runner_configuration_error"
    INTERRUPTED = "runner_interrupted"
    CANCELED = "job_canceled"
    UNKNOWN = "unknown_failure"


_ALWAYS_KNOWN: Final = frozenset({Reason.SCRIPT, Reason.SYSTEM, Reason.TIMEOUT})
_OLDER_NAME: Final = {Reason.IMAGE_PULL: Reason.SYSTEM, Reason.CONFIGURATION: Reason.SCRIPT}


def reason_to_send(reason: Reason, known: frozenset[str]) -> Reason:
    """The reason itself if GitLab lists it in `features.failure_reasons`, else its older name, else unknown."""
    if reason in _ALWAYS_KNOWN or reason.value in known:
        return reason
    return _OLDER_NAME.get(reason, Reason.UNKNOWN)


class RunnerError(Exception):
    pass


class ConfigError(RunnerError):
    pass


class JobFailed(Exception):
    def __init__(self, message: str, reason: Reason, exit_code: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.exit_code = exit_code


class PreparationFailed(Exception):
    pass


class DockerError(Exception):
    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Cancelled(Exception):
    pass
