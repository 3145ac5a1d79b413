"""The images that a job may use, and their pulls (gitlab-runner's pull manager and common/allowed_images.go)."""

from __future__ import annotations

import re
from typing import Final

from .config import DockerConfig
from .docker import Docker, ImageInfo
from .errors import DockerError, JobFailed, PreparationFailed, Reason
from .output import JobLog

# A reference of Docker's client (github.com/distribution/reference), without transports such as `dir:`.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::\d+)?"
_PART: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    rf"(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@[\w+.-]+:[0-9a-fA-F]{{32,}})?", re.ASCII
)
_NOT_FOUND: Final = ("no such image", "not found", "manifest unknown", "does not exist")


def matches(pattern: str, name: str) -> bool:
    """Doublestar globs: `**` crosses slashes, `*` and `?` do not."""
    parts = re.split(r"(\*\*/?|\*|\?)", pattern)
    translated = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.fullmatch("".join(translated.get(part, re.escape(part)) for part in parts), name) is not None


def is_reference(name: str) -> bool:
    return _REFERENCE.fullmatch(name) is not None


def check_allowed(name: str, config: DockerConfig, default: str, job_log: JobLog) -> None:
    """Raise PreparationFailed, with the allowed images in the log. The default image is always allowed."""
    if not config.allowed_images or name == default or any(matches(item, name) for item in config.allowed_images):
        return
    job_log.line("")
    job_log.error(f'The "{name}" image is not present on list of allowed images:')
    for item in config.allowed_images:
        job_log.line(f"- {item}")
    job_log.line("")
    job_log.line(
        "Please check runner's allowed_images configuration: "
        "https://docs.gitlab.com/runner/configuration/advanced-configuration/"
    )
    raise PreparationFailed("disallowed image")


def effective_policies(asked: tuple[str, ...], config: DockerConfig, name: str) -> tuple[str, ...]:
    """The wanted policies that are allowed. Raises JobFailed when there are none."""
    wanted = asked or config.pull_policies or ("always",)
    allowed = config.allowed_pull_policies or config.pull_policies or ("always",)
    chosen = tuple(policy for policy in wanted if policy in allowed)
    if not chosen:
        source = "GitLab pipeline config" if asked else "Runner config"
        message = (
            f'invalid pull policy for image "{name}": pull_policy ([{" ".join(wanted)}]) defined in {source} '
            f"is not one of the allowed_pull_policies ([{' '.join(allowed)}])"
        )
        raise JobFailed(message, Reason.CONFIGURATION)
    return chosen


class Images:
    """The images of one job, with gitlab-runner's lines about them in the log."""

    def __init__(self, docker: Docker, config: DockerConfig, job_log: JobLog) -> None:
        self._docker = docker
        self._config = config
        self._log = job_log
        self._used: dict[str, str] = {}

    def get(self, name: str, asked: tuple[str, ...] = ()) -> ImageInfo:
        """Find or pull an image. Raises JobFailed (policy, pull) or PreparationFailed (a missing image)."""
        policies = effective_policies(asked, self._config, name)
        self._log.line(f"Using effective pull policy of [{' '.join(policies)}] for container {name}")
        problem: Exception | None = None
        for attempt, policy in enumerate(policies, start=1):
            if attempt > 1:
                self._log.info(f'Attempt #{attempt}: Trying "{policy}" pull policy')
            try:
                image = self._by_policy(name, policy)
            except (DockerError, JobFailed) as error:
                self._log.warning(f'Failed to pull image with policy "{policy}": {error}')
                problem = error
                continue
            return self._note(name, image)
        message = f'failed to pull image "{name}" with specified policies [{" ".join(policies)}]: {problem}'
        if isinstance(problem, JobFailed):
            raise JobFailed(message, problem.reason) from problem
        raise PreparationFailed(message) from problem

    def _by_policy(self, name: str, policy: str) -> ImageInfo:
        try:
            image = self._docker.image(name)
        except DockerError:
            if policy == "never":
                raise
            return self._pull(name)
        if policy == "never" or self._used.get(name) == image.id or image.id == name:
            return image
        if policy == "if-not-present":
            self._log.line('Using locally found image version due to "if-not-present" pull policy')
            return image
        return self._pull(name)

    def _pull(self, name: str) -> ImageInfo:
        self._log.line(f"Pulling docker image {name} ...")
        if not is_reference(name):
            raise JobFailed("invalid reference format", Reason.IMAGE_PULL)
        try:
            self._docker.pull(name)
            return self._docker.image(name)
        except DockerError as error:
            missing = any(text in str(error).lower() for text in _NOT_FOUND)
            raise JobFailed(str(error), Reason.IMAGE_PULL if missing else Reason.SYSTEM) from error

    def _note(self, name: str, image: ImageInfo) -> ImageInfo:
        self._used[name] = image.id
        if name != image.id:
            digest = f" with digest {image.digests[0]}" if image.digests else ""
            self._log.line(f"Using docker image {image.id} for {name}{digest} ...")
        return image
