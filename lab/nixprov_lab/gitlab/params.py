"""Reads request parameters as GitLab's parameter validator does: query, body and path merged, then coerced.

Unknown parameters are ignored, known ones are checked together and reported in one reply.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import parse_qsl

from nixprov_lab.gitlab.errors import ApiError, bad_parameters, plain_error

TRUE: Final = frozenset({"1", "on", "On", "ON", "t", "true", "True", "TRUE", "T", "y", "yes", "Yes", "YES", "Y"})
FALSE: Final = frozenset({"0", "off", "Off", "OFF", "f", "false", "False", "FALSE", "F", "n", "no", "No", "NO", "N"})
JSON_TYPE: Final = "application/json"
FORM_TYPE: Final = "application/x-www-form-urlencoded"


def body_params(content_type: str, body: bytes) -> dict[str, object]:
    """Parse a request's body; anything but JSON or a form is refused, `null` and an empty body hold nothing."""
    if not body:
        return {}
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == FORM_TYPE:
        return query_params(body.decode(errors="replace"))
    if media_type != JSON_TYPE:
        raise plain_error(415, f"The provided content-type '{media_type}' is not supported.")
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise plain_error(400, "message body does not match declared format") from error
    return parsed if isinstance(parsed, dict) else {}


def query_params(query: str) -> dict[str, object]:
    """Decode a query string; `name[]=a&name[]=b` becomes a list, as Rack does."""
    params: dict[str, object] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.endswith("[]"):
            values = params.setdefault(name[:-2], [])
            if isinstance(values, list):
                values.append(value)
        else:
            params[name] = value
    return params


class Reader:
    """Takes typed values out of merged parameters and collects complaints; `finish` raises them as one 400."""

    def __init__(self, params: Mapping[str, object]) -> None:
        self._params = params
        self._complaints: list[str] = []

    def has(self, name: str) -> bool:
        return name in self._params

    def complain(self, text: str) -> None:
        self._complaints.append(text)

    def finish(self) -> None:
        if self._complaints:
            raise bad_parameters(self._complaints)

    def string(self, name: str, *, required: bool = False, values: Collection[str] = ()) -> str | None:
        value = self._raw(name, required=required)
        if isinstance(value, (dict, list)):
            self._invalid(name)
            return None
        if value is None and not required:
            return None
        text = None if value is None else str(value)
        if values and text not in values and self.has(name):
            self.complain(f"{name} does not have a valid value")
            return None
        return text

    def integer(self, name: str, *, required: bool = False, default: int | None = None) -> int | None:
        value = self._raw(name, required=required)
        if value is None or value == "":
            return default
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            self._invalid(name)
            return None
        try:
            return int(value)
        except ValueError:
            self._invalid(name)
            return None

    def boolean(self, name: str, *, default: bool | None = None) -> bool | None:
        value = self._raw(name)
        if value is None or value == "":
            return default
        text = str(value)
        if text in TRUE:
            return True
        if text in FALSE:
            return False
        self._invalid(name)
        return None

    def strings(self, name: str) -> list[str] | None:
        """A list, or one comma-separated string; both forms are in use for tags."""
        value = self._raw(name)
        if value is None:
            return None
        if isinstance(value, dict):
            self._invalid(name)
            return None
        parts = value if isinstance(value, list) else [value]
        return [word.strip() for part in parts for word in str(part).split(",") if word.strip()]

    def mapping(self, name: str) -> dict[str, object] | None:
        value = self._raw(name)
        if value is None:
            return None
        if isinstance(value, dict):
            return value
        self._invalid(name)
        return None

    def exclusive(self, *names: str) -> None:
        present = [name for name in names if self.has(name)]
        if len(present) > 1:
            self.complain(f"{', '.join(present)} are mutually exclusive")

    def at_least_one(self, *names: str) -> None:
        if not any(self.has(name) for name in names):
            self.complain(f"{', '.join(names)} are missing, at least one parameter must be provided")

    def _raw(self, name: str, *, required: bool = False) -> object:
        if required and not self.has(name):
            self.complain(f"{name} is missing")
        return self._params.get(name)

    def _invalid(self, name: str) -> None:
        self.complain(f"{name} is invalid")


def required_string(params: Mapping[str, object], name: str) -> str:
    """One required string on its own, for calls that check nothing else before authentication."""
    reader = Reader(params)
    value = reader.string(name, required=True)
    reader.finish()
    if value is None:
        raise ApiError(400, {"error": f"{name} is invalid"})
    return value
