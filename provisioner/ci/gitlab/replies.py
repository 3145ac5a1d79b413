"""Reads GitLab's JSON into the model; a reply of another shape is refused, unknown words are tolerated.

Source: docs api/runners, the reply examples, and the entities of GitLab 17 to 19.
"""

from __future__ import annotations

from collections.abc import Mapping

from provisioner.ci.gitlab.values import Manager, Registration, Runner, RunnerStatus
from provisioner.model import AccessLevel, RunnerType, Secret


class MalformedReplyError(ValueError):
    """JSON of another shape than the call's; never quotes the reply, which may hold a token."""


def runner(data: object) -> Runner:
    """From the list or the details entity; the list lacks tags and notes, which then keep the model's defaults."""
    fields = _fields(data)
    return Runner(
        id=_integer(fields, "id"),
        description=_text(fields, "description"),
        type=_runner_type(fields),
        paused=_flag(fields, "paused", default=not _flag(fields, "active", default=True)),
        status=_status(fields),
        tags=_tags(fields),
        run_untagged=_flag(fields, "run_untagged", default=True),
        locked=_flag(fields, "locked", default=False),
        access_level=_access_level(fields),
        maximum_timeout_s=_optional_integer(fields, "maximum_timeout"),
        maintenance_note=_text(fields, "maintenance_note"),
    )


def manager(data: object) -> Manager:
    fields = _fields(data)
    contacted_at, version = fields.get("contacted_at"), fields.get("version")
    return Manager(
        id=_integer(fields, "id"),
        system_id=_text(fields, "system_id"),
        contacted_at=contacted_at if isinstance(contacted_at, str) else None,
        status=_status(fields),
        version=version if isinstance(version, str) else None,
    )


def is_active(data: object) -> bool:
    """Whether GitLab says that a manager, or a runner, works on a job (since 18.x; absent before)."""
    return _fields(data).get("job_execution_status") == "active"


def registration(data: object, runner_id: int | None = None) -> Registration:
    """From the reply of create, or of a token reset, which leaves out the id (`runner_id`)."""
    fields = _fields(data)
    token, expires = fields.get("token"), fields.get("token_expires_at")
    if not isinstance(token, str) or not token:
        raise MalformedReplyError("no token in it")
    number = _integer(fields, "id") if runner_id is None else runner_id
    return Registration(number, Secret(token), expires if isinstance(expires, str) else None)


def identifier(data: object) -> int:
    return _integer(_fields(data), "id")


def _fields(data: object) -> Mapping[str, object]:
    if not isinstance(data, Mapping):
        raise MalformedReplyError("no JSON object")
    return data


def _integer(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedReplyError(f"no number as {name}")
    return value


def _optional_integer(fields: Mapping[str, object], name: str) -> int | None:
    return None if fields.get(name) is None else _integer(fields, name)


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _flag(fields: Mapping[str, object], name: str, *, default: bool) -> bool:
    value = fields.get(name)
    return value if isinstance(value, bool) else default


def _tags(fields: Mapping[str, object]) -> tuple[str, ...]:
    value = fields.get("tag_list")
    return tuple(str(tag) for tag in value) if isinstance(value, list) else ()


def _runner_type(fields: Mapping[str, object]) -> RunnerType:
    try:
        return RunnerType(_text(fields, "runner_type"))
    except ValueError as error:
        raise MalformedReplyError("no known runner_type") from error


def _status(fields: Mapping[str, object]) -> RunnerStatus:
    try:
        return RunnerStatus(_text(fields, "status"))
    except ValueError:
        return RunnerStatus.UNKNOWN


def _access_level(fields: Mapping[str, object]) -> AccessLevel:
    try:
        return AccessLevel(_text(fields, "access_level"))
    except ValueError:
        return AccessLevel.NOT_PROTECTED
