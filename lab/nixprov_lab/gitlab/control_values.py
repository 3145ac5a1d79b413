"""Reads the bodies of control calls into typed values. Every mistake is named, nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from nixprov_lab.gitlab.faults import KINDS, Fault
from nixprov_lab.gitlab.records import JobSpec, Role

_JOB_KEYS: Final = frozenset(
    {"script", "name", "host", "runner_id", "tags", "image", "variables", "timeout_s", "protected", "project"}
)
_FAULT_KEYS: Final = frozenset(
    {"kind", "match", "method", "path_regex", "times", "seconds", "retry_after", "location"},
)


class BadRequestError(ValueError):
    """A wrong control call. The text is shown to the caller."""


def text_of(body: Mapping[str, object], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise BadRequestError(f"{key} must be text")
    return value


def number_of(body: Mapping[str, object], key: str, default: float) -> float:
    value = body.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadRequestError(f"{key} must be a number")
    return value


def _known(body: Mapping[str, object], keys: frozenset[str]) -> None:
    unknown = sorted(set(body) - keys)
    if unknown:
        raise BadRequestError(f"unknown: {', '.join(unknown)}")


def job_spec_of(body: Mapping[str, object]) -> JobSpec:
    _known(body, _JOB_KEYS)
    runner_id = body.get("runner_id")
    if runner_id is not None and not isinstance(runner_id, int):
        raise BadRequestError("runner_id must be a number")
    return JobSpec(
        script=_lines(body.get("script")),
        name=text_of(body, "name") or "lab",
        tags=_texts(body, "tags"),
        host=text_of(body, "host"),
        runner_id=runner_id,
        image=text_of(body, "image"),
        variables=_variables(body),
        timeout_s=int(number_of(body, "timeout_s", 3600)),
        protected=bool(body.get("protected", True)),
    )


def _lines(script: object) -> tuple[str, ...]:
    """The script's entries. A text is one entry, as a block in .gitlab-ci.yml is: its lines share one shell command."""
    if isinstance(script, str) and script.strip():
        return (script.rstrip("\n"),)
    if isinstance(script, list) and script and all(isinstance(line, str) for line in script):
        return tuple(script)
    raise BadRequestError("script must be text or a list of lines")


def _texts(body: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = body.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRequestError(f"{key} must be a list of texts")
    return tuple(value)


def _variables(body: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    value = body.get("variables", {})
    if not isinstance(value, dict):
        raise BadRequestError("variables must be an object")
    return tuple((str(name), str(text)) for name, text in value.items())


def fault_of(body: Mapping[str, object]) -> Fault:
    _known(body, _FAULT_KEYS)
    kind = text_of(body, "kind")
    if kind not in KINDS:
        raise BadRequestError(f"kind must be one of {', '.join(sorted(KINDS))}")
    match = body.get("match", body)
    if not isinstance(match, dict):
        raise BadRequestError("match must be an object")
    pattern = text_of(match, "path_regex")
    times = body.get("times", 1)
    return Fault(
        kind=kind,
        method=text_of(match, "method"),
        path=re.compile(pattern) if pattern else None,
        times=times if isinstance(times, int) else None,
        seconds=number_of(body, "seconds", 1.0),
        retry_after=int(number_of(body, "retry_after", 60)),
        location=text_of(body, "location") or "",
    )


def roles_of(body: Mapping[str, object]) -> dict[str, Role]:
    roles = body.get("roles", {})
    if not isinstance(roles, dict):
        raise BadRequestError("roles must be an object")
    try:
        return {str(path): Role[str(name).upper()] for path, name in roles.items()}
    except KeyError as error:
        raise BadRequestError(f"no such role: {error.args[0]}") from error
