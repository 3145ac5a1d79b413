"""A job as GitLab hands it out (gitlab-runner's common/spec/spec.go), with the features that the stand-in lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .errors import JobFailed, Reason
from .gitlab import JobKey

DEFAULT_TIMEOUT_S: Final = 7200
AFTER_SCRIPT: Final = "after_script"
_DOCKER_OPTIONS: Final = frozenset({"user", "platform"})


@dataclass(frozen=True)
class Variable:
    key: str
    value: str
    file: bool = False
    masked: bool = False
    raw: bool = False


@dataclass(frozen=True)
class Step:
    name: str
    script: tuple[str, ...]

    @property
    def stage(self) -> str:
        return f"step_{self.name.lower()}"


@dataclass(frozen=True)
class Image:
    name: str = ""
    entrypoint: tuple[str, ...] = ()
    pull_policy: tuple[str, ...] = ()
    user: str = ""


@dataclass(frozen=True)
class GitInfo:
    repo_url: str = ""
    ref: str = ""
    sha: str = ""
    before_sha: str = ""
    depth: int = 0
    refspecs: tuple[str, ...] = ()
    protected: bool | None = None


@dataclass(frozen=True)
class Job:
    """One job, with `timeout` in seconds. `unsupported` has names of features that it needs and the stand-in lacks."""

    key: JobKey
    project_id: int
    name: str
    pipeline_id: int
    git: GitInfo
    timeout: int
    variables: tuple[Variable, ...]
    steps: tuple[Step, ...]
    image: Image
    fetch: bool
    hooks: Mapping[str, tuple[str, ...]]
    sections: bool
    known_reasons: frozenset[str]
    mask_prefixes: tuple[str, ...]
    unsupported: tuple[str, ...]


class _Reader:
    """Values of a JSON object by type; null and absent are the same, as in Go."""

    def __init__(self, value: object) -> None:
        self._map: Mapping[str, Any] = value if isinstance(value, dict) else {}

    def text(self, key: str) -> str:
        value = self._map.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        value = self._map.get(key)
        return int(value) if isinstance(value, int | float) else 0

    def flag(self, key: str) -> bool:
        return self._map.get(key) is True

    def part(self, key: str) -> _Reader:
        return _Reader(self._map.get(key))

    def parts(self, key: str) -> list[_Reader]:
        return [_Reader(item) for item in self.items(key)]

    def items(self, key: str) -> Sequence[object]:
        value = self._map.get(key)
        return value if isinstance(value, list) else []

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(str(item) for item in self.items(key))

    def has(self, key: str) -> bool:
        return bool(self._map.get(key))

    def value(self, key: str) -> object:
        return self._map.get(key)

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self._map)


def key_of(document: Mapping[str, object]) -> JobKey:
    """The job's id and token. Raises JobFailed without an id, as no result could be sent then."""
    reader = _Reader(document)
    if not reader.number("id"):
        raise JobFailed("a job without id", Reason.SYSTEM)
    return JobKey(reader.number("id"), reader.text("token"))


def parse(document: Mapping[str, object]) -> Job:
    reader = _Reader(document)
    info, features = reader.part("job_info"), reader.part("features")
    timeout = reader.part("runner_info").number("timeout")
    return Job(
        key=key_of(document),
        project_id=info.number("project_id"),
        name=info.text("name"),
        pipeline_id=info.number("pipeline_id"),
        git=_git(reader.part("git_info")),
        timeout=timeout if timeout > 0 else DEFAULT_TIMEOUT_S,
        variables=tuple(_variable(item) for item in reader.parts("variables")),
        steps=tuple(Step(item.text("name"), item.texts("script")) for item in reader.parts("steps")),
        image=_image(reader.part("image")),
        fetch=reader.flag("allow_git_fetch"),
        hooks={item.text("name"): item.texts("script") for item in reader.parts("hooks")},
        sections=features.flag("trace_sections"),
        known_reasons=frozenset(features.texts("failure_reasons")),
        mask_prefixes=features.texts("token_mask_prefixes"),
        unsupported=_unsupported(reader),
    )


def _git(reader: _Reader) -> GitInfo:
    protected = reader.value("protected")
    return GitInfo(
        repo_url=reader.text("repo_url"),
        ref=reader.text("ref"),
        sha=reader.text("sha"),
        before_sha=reader.text("before_sha"),
        depth=reader.number("depth"),
        refspecs=reader.texts("refspecs"),
        protected=protected if isinstance(protected, bool) else None,
    )


def _variable(reader: _Reader) -> Variable:
    return Variable(
        reader.text("key"), reader.text("value"), reader.flag("file"), reader.flag("masked"), reader.flag("raw")
    )


def _image(reader: _Reader) -> Image:
    policy = reader.value("pull_policy")
    policies = (policy,) if isinstance(policy, str) else reader.texts("pull_policy")
    user = reader.part("executor_opts").part("docker").text("user")
    return Image(reader.text("name"), reader.texts("entrypoint"), policies, user)


def _unsupported(reader: _Reader) -> tuple[str, ...]:
    artifacts = [item for item in reader.parts("artifacts") if item.has("paths") or item.has("untracked")]
    caches = [item for item in reader.parts("cache") if item.has("paths") or item.has("untracked")]
    dependencies = [item for item in reader.parts("dependencies") if item.part("artifacts_file").text("filename")]
    options = reader.part("image").part("executor_opts")
    asked = {
        "services": reader.has("services"),
        "artifacts": bool(artifacts or dependencies),
        "caches": bool(caches),
        "secrets": reader.has("secrets"),
        "job inputs": reader.has("inputs"),
        "steps (run)": reader.has("run"),
        "these image options": bool(options.keys - {"docker"} or options.part("docker").keys - _DOCKER_OPTIONS),
        "image platforms": bool(options.part("docker").text("platform")),
    }
    return tuple(name for name, wanted in asked.items() if wanted)


def refuse_unsupported(job: Job) -> None:
    """Raise JobFailed, as a system failure like gitlab-runner's for unknown options."""
    if job.unsupported:
        raise JobFailed(f"{', '.join(job.unsupported)} are not supported by the lab's stand-in", Reason.SYSTEM)
    if not any(step.name != AFTER_SCRIPT for step in job.steps):
        raise JobFailed("the job has no script", Reason.SYSTEM)
