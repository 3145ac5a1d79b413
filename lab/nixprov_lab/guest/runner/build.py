"""The constants of one job on one runner: names, directories, variables, labels (as in common/build.go)."""

from __future__ import annotations

import hashlib
import posixpath
import re
import secrets
import socket
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from .config import RunnerConfig, seconds
from .errors import ConfigError, JobFailed, Reason
from .identity import REVISION, VERSION, architecture
from .job import Job, Variable
from .variables import TEMPORARY, Variables

_LABEL: Final = "com.gitlab.gitlab-runner"
_NAME_LENGTH: Final = 63


class GitStrategy(Enum):
    CLONE = "clone"
    FETCH = "fetch"
    NONE = "none"
    EMPTY = "empty"

    @property
    def has_sources(self) -> bool:
        return self in {GitStrategy.CLONE, GitStrategy.FETCH}


@dataclass(frozen=True)
class Slot:
    """The numbers of a running job, unique for its runner, and for its runner and project."""

    runner: int = 0
    project: int = 0


@dataclass(frozen=True)
class Build:
    """One job on one runner. `shared`: the builds directory is a mount of the host, so paths have runner and slot."""

    job: Job
    config: RunnerConfig
    system_id: str
    slot: Slot
    shared: bool = False
    suffix: str = field(default_factory=lambda: secrets.token_hex(8))
    hostname: str = field(default_factory=socket.gethostname)

    @property
    def short_token(self) -> str:
        return self.config.short_token

    @property
    def unique_name(self) -> str:
        name = f"runner-{self.short_token}-project-{self.job.project_id}-concurrent-{self.slot.project}"
        return re.sub(r"^[^a-z0-9]+", "", re.sub(r"[^-a-z0-9]", "", name.lower()))[:_NAME_LENGTH]

    @property
    def job_name(self) -> str:
        return f"{self.unique_name}-{self.suffix}"

    @property
    def real_name(self) -> str:
        """As `unique_name`, from the whole token, so that two runners never share a kept volume."""
        text = f"{self.config.token}-{self.system_id}-{self.job.project_id}-{self.slot.project}"
        return f"runner-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    @property
    def protected(self) -> bool:
        if self.job.git.protected is not None:
            return self.job.git.protected
        first = next((item.value for item in self.job.variables if item.key == "CI_COMMIT_REF_PROTECTED"), "")
        return first.lower() in {"true", "1"}

    @property
    def strategy(self) -> GitStrategy:
        text = Variables(self.job.variables).text("GIT_STRATEGY")
        known = {item.value: item for item in GitStrategy}
        return known.get(text, GitStrategy.FETCH if self.job.fetch else GitStrategy.CLONE)

    @property
    def checkout(self) -> bool:
        text = Variables(self.job.variables).text("GIT_CHECKOUT").lower()
        return self.strategy.has_sources and text not in {"false", "0", "f"}

    @property
    def debug(self) -> bool:
        text = Variables(self.job.variables).text("CI_DEBUG_TRACE").lower()
        return text in {"true", "1", "t"} and not self.config.debug_trace_disabled

    @property
    def project_dir(self) -> str:
        custom = self._clone_path
        return posixpath.normpath(custom) if custom else posixpath.join(self.config.builds_dir, self._relative_dir)

    @property
    def _clone_path(self) -> str:
        root = Variable("CI_BUILDS_DIR", self.config.builds_dir)
        return Variables([root, *self.job.variables]).expanded().text("GIT_CLONE_PATH")

    def check_clone_path(self) -> None:
        """Raise JobFailed for a GIT_CLONE_PATH that may not be used or lies outside of the builds directory."""
        custom, root = self._clone_path, self.config.builds_dir
        if not custom:
            return
        if not self.config.custom_build_dir.enabled:
            message = "setting GIT_CLONE_PATH is not allowed, enable `custom_build_dir` feature"
            raise JobFailed(message, Reason.CONFIGURATION)
        if posixpath.relpath(custom, root).startswith(".."):
            raise JobFailed(f'the GIT_CLONE_PATH="{custom}" has to be within "{root}"', Reason.CONFIGURATION)

    @property
    def _relative_dir(self) -> str:
        parts = urlsplit(self.job.git.repo_url)
        slug = posixpath.normpath(parts.path.removesuffix(".git")).strip("/")
        if not parts.hostname or slug in {"", "."} or ".." in slug:
            slug = f"project-{self.job.project_id}"
        if self.shared:
            slug = posixpath.join(self.short_token, str(self.slot.project), slug)
        return f"{slug}-empty" if self.strategy is GitStrategy.EMPTY else slug

    @property
    def temporary_dir(self) -> str:
        return f"{self.project_dir}.tmp"

    @property
    def labels(self) -> dict[str, str]:
        git = self.job.git
        values: dict[str, object] = {
            "job.id": self.job.key.id,
            "job.url": f"{_without_user(git.repo_url).removesuffix('.git')}/-/jobs/{self.job.key.id}",
            "job.sha": git.sha,
            "job.before_sha": git.before_sha,
            "job.ref": git.ref,
            "job.timeout": go_duration(self.job.timeout),
            "project.id": self.job.project_id,
            "project.runner_id": self.slot.project,
            "pipeline.id": self.job.pipeline_id or self.variables.text("CI_PIPELINE_ID"),
            "runner.id": self.short_token,
            "runner.local_id": self.slot.runner,
            "runner.system_id": self.system_id,
            "managed": "true",
        }
        return {f"{_LABEL}.{key}": str(value) for key, value in values.items()}

    def labels_of(self, **more: str) -> dict[str, str]:
        return self.labels | {f"{_LABEL}.{key}": value for key, value in more.items()}

    @property
    def variables(self) -> Variables:
        """All variables except FF_ ones. Their order decides between two of the same name."""
        before = {
            **({"CI_JOB_IMAGE": self.job.image.name} if self.job.image.name else {}),
            "CI_RUNNER_SHORT_TOKEN": self.short_token,
            **dict(entry.split("=", 1) for entry in self.config.environment if "=" in entry),
            "CI_BUILDS_DIR": self.config.builds_dir,
            "CI_PROJECT_DIR": self.project_dir,
            "CI_CONCURRENT_ID": str(self.slot.runner),
            "CI_CONCURRENT_PROJECT_ID": str(self.slot.project),
            "CI_SERVER": "yes",
            "CI_JOB_STATUS": "running",
            "CI_JOB_TIMEOUT": str(self.job.timeout),
        }
        after = {
            "CI_DISPOSABLE_ENVIRONMENT": "true",
            "CI_RUNNER_VERSION": VERSION,
            "CI_RUNNER_REVISION": REVISION,
            "CI_RUNNER_EXECUTABLE_ARCH": f"linux/{architecture()}",
            TEMPORARY: self.temporary_dir,
        }
        first = [Variable(key, value) for key, value in before.items()]
        return Variables(
            [*first, *self.job.variables, *(Variable(key, text) for key, text in after.items())]
        ).expanded()

    def stage_seconds(self, name: str, default: float | None) -> float | None:
        """RUNNER_SCRIPT_TIMEOUT and its like; a malformed one counts as not given."""
        text = self.variables.text(name)
        try:
            return seconds(text, name) or default if text else default
        except ConfigError:
            return default

    @property
    def remote_url(self) -> str:
        """The URL to fetch from, with the job's token in it. `clone_url` replaces all but the project's path."""
        url = self.config.clone_url
        if not url:
            return self.job.git.repo_url
        parts = urlsplit(url)
        path = posixpath.join(parts.path or "/", f"{self.variables.text('CI_PROJECT_PATH')}.git")
        return parts._replace(netloc=f"gitlab-ci-token:{self.job.key.token}@{parts.netloc}", path=path).geturl()

    @property
    def remote_url_without_token(self) -> str:
        return _without_user(self.remote_url)


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def go_duration(total: int) -> str:
    """Seconds as Go prints them: 2m0s, 1h0m0s."""
    hours, rest = divmod(total, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"
