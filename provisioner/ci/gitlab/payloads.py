"""The values sent to GitLab for a wanted runner (docs api/users, api/runners); the counterpart of replies.py."""

from __future__ import annotations

from provisioner.ci.gitlab.values import Runner, RunnerStatus
from provisioner.model import Mark, RunnerSpec, RunnerType


def creation(spec: RunnerSpec, mark: Mark, owner_id: int | None) -> dict[str, object]:
    owner = {RunnerType.GROUP: "group_id", RunnerType.PROJECT: "project_id"}.get(spec.type)
    values = {"runner_type": spec.type.value, **settings(spec, mark)}
    # GitLab's form has no way to say "default": leave out unset values.
    return {name: value for name, value in values.items() if value is not None} | ({owner: owner_id} if owner else {})


def settings(spec: RunnerSpec, mark: Mark) -> dict[str, object]:
    return {
        "description": mark.describe(spec.description),
        "tag_list": list(spec.tags),
        "run_untagged": spec.run_untagged,
        "locked": spec.locked,
        "access_level": spec.access_level.value,
        "maximum_timeout": spec.maximum_timeout_s,
        "paused": spec.paused,
        "maintenance_note": spec.maintenance_note,
    }


def as_listed(runner_id: int, spec: RunnerSpec, mark: Mark) -> Runner:
    status = RunnerStatus.NEVER_CONTACTED
    return Runner(runner_id, mark.describe(spec.description), spec.type, spec.paused, status)


def word(kind: RunnerType) -> str:
    return kind.value.removesuffix("_type")
