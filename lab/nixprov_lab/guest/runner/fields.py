"""Decodes a TOML table into a dataclass, strictly. Knows nothing of gitlab-runner's keys."""

from __future__ import annotations

import datetime as dt
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar, Protocol, TypeVar

from .errors import ConfigError


class Section(Protocol):
    """A frozen dataclass with a table's supported keys as fields.

    IGNORED keys are accepted and have no effect here. DOCUMENTED keys are gitlab-runner's too, for features that the
    stand-in lacks, so they are refused. Every other key is refused as unknown.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    IGNORED: ClassVar[frozenset[str]]
    DOCUMENTED: ClassVar[frozenset[str]]


S = TypeVar("S", bound=Section)


def decode(section: type[S], table: Mapping[str, object], where: str) -> S:
    """Decode a table. Raises ConfigError with the names of the key and its table."""
    hints = typing.get_type_hints(section)
    known = {str(field.metadata.get("key", field.name)): field for field in fields(section)}
    values: dict[str, object] = {}
    for key, value in table.items():
        if key in section.IGNORED:
            continue
        if key not in known:
            raise ConfigError(_refusal(section, key, where))
        name = known[key].name
        values[name] = _value(hints[name], value, f"{where}: {key}")
    for key, field in known.items():
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{where}: {key} is missing")
    return section(**values)


def _refusal(section: type[Section], key: str, where: str) -> str:
    if key in section.DOCUMENTED:
        return f"{where}: {key} is gitlab-runner's, but the lab's stand-in does not support it"
    return f"{where}: unknown key {key}"


def _value(hint: Any, value: object, where: str) -> object:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _one_of(typing.get_args(hint), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _mismatch(where, "a list", value)
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    if origin is Mapping or origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(where, "a table", value)
        return {key: _value(typing.get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if hasattr(hint, "IGNORED"):
        if not isinstance(value, dict):
            raise _mismatch(where, "a table", value)
        return decode(hint, value, where)
    return _scalar(hint, value, where)


def _one_of(hints: tuple[Any, ...], value: object, where: str) -> object:
    problem: ConfigError | None = None
    for hint in hints:
        if hint is types.NoneType:
            continue
        try:
            return _value(hint, value, where)
        except ConfigError as error:
            problem = error
    assert problem is not None  # noqa: S101 (a union has at least one other member)
    raise problem


def _scalar(hint: type, value: object, where: str) -> object:
    if hint is bool or isinstance(value, bool):
        matches = hint is bool and isinstance(value, bool)
    else:
        matches = isinstance(value, hint)
    if not matches:
        names = {bool: "true or false", int: "a whole number", str: "a string", dt.datetime: "a date with time"}
        raise _mismatch(where, names.get(hint, hint.__name__), value)
    return value


def _mismatch(where: str, wanted: str, value: object) -> ConfigError:
    # Never with the value, which may be a token in the wrong place.
    return ConfigError(f"{where}: must be {wanted}, not {type(value).__name__}")
