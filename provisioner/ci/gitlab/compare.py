"""Compares a wanted runner with GitLab's: pure, for `plan` and for the drift in `status`."""

from __future__ import annotations

from collections.abc import Iterator

from provisioner.ci.base import Difference
from provisioner.ci.gitlab.values import Runner
from provisioner.model import Mark, RunnerSpec


def differences(wanted: RunnerSpec, mark: Mark, actual: Runner) -> tuple[Difference, ...]:
    """Every setting of a runner in GitLab that an update would change; `actual` must have all details.

    Tags are a set to GitLab: neither order nor repetition is a difference. `concurrent`, `image` and `environment` live
    on the host and are not compared. Neither is the owner, which GitLab does not show for certain.
    """
    return tuple(
        Difference(name, before, after) for name, before, after in _pairs(wanted, mark, actual) if before != after
    )


def _pairs(wanted: RunnerSpec, mark: Mark, actual: Runner) -> Iterator[tuple[str, str, str]]:
    yield "type", actual.type.value, wanted.type.value
    yield "description", actual.description, mark.describe(wanted.description)
    yield "tags", _tags(actual.tags), _tags(wanted.tags)
    yield "run_untagged", _flag(actual.run_untagged), _flag(wanted.run_untagged)
    yield "locked", _flag(actual.locked), _flag(wanted.locked)
    yield "access_level", actual.access_level.value, wanted.access_level.value
    yield "maximum_timeout", _seconds(actual.maximum_timeout_s), _seconds(wanted.maximum_timeout_s)
    yield "paused", _flag(actual.paused), _flag(wanted.paused)
    yield "maintenance_note", actual.maintenance_note, wanted.maintenance_note


def settings(wanted: RunnerSpec) -> Iterator[tuple[str, str]]:
    """The settings of a creation, by name and for people, without GitLab's defaults and without the mark."""
    yield "type", wanted.type.value
    if wanted.owner is not None:
        yield "owner", wanted.owner
    if wanted.description:
        yield "description", wanted.description
    yield "tags", _tags(wanted.tags)
    yield "run_untagged", _flag(wanted.run_untagged)
    yield "locked", _flag(wanted.locked)
    yield "paused", _flag(wanted.paused)
    yield "access_level", wanted.access_level.value
    if wanted.maximum_timeout_s is not None:
        yield "maximum_timeout", _seconds(wanted.maximum_timeout_s)
    if wanted.maintenance_note:
        yield "maintenance_note", wanted.maintenance_note


def _tags(tags: tuple[str, ...]) -> str:
    return ", ".join(sorted(set(tags))) or "none"


def _flag(value: bool) -> str:
    return "yes" if value else "no"


def _seconds(value: int | None) -> str:
    return "default" if value is None else f"{value} s"
