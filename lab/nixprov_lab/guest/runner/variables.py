"""A job's variables: in gitlab-runner's order, expanded as Go's os.Expand does it (its common/spec/variables.go)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Final

from .job import Variable

TEMPORARY: Final = "RUNNER_TEMP_PROJECT_DIR"
_REFERENCE: Final = re.compile(r"\$(?:\{([^{}]*)\}|([*#$@!?\-0-9])|([A-Za-z_][A-Za-z0-9_]*))")


class Variables:
    """Variables by name; the last one of a name wins."""

    def __init__(self, items: Iterable[Variable]) -> None:
        self._items = tuple(items)

    def __iter__(self) -> Iterator[Variable]:
        return iter(self._items)

    def get(self, key: str) -> str:
        """The value; of a file variable, the file's path."""
        found = self._find(key)
        if found is None:
            return ""
        return posixpath.join(self.text(TEMPORARY), key) if found.file else found.value

    def text(self, key: str) -> str:
        """The value, of a file variable as well."""
        found = self._find(key)
        return found.value if found else ""

    def _find(self, key: str) -> Variable | None:
        return next((item for item in reversed(self._items) if item.key == key), None)

    def expand(self, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            key = found[1] or found[2] or found[3] or ""
            return "$" if key == "$" else "" if found[2] else self.get(key)

        return _REFERENCE.sub(value, text)

    def expanded(self) -> Variables:
        return Variables(
            item if item.raw else Variable(item.key, self.expand(item.value), item.file, item.masked, item.raw)
            for item in self._items
        )

    def with_value(self, key: str, value: str) -> Variables:
        """The same with another value for `key`, in its place."""
        return Variables(
            Variable(key, value, item.file, item.masked, item.raw) if item.key == key else item for item in self._items
        )

    def environment(self) -> list[str]:
        return [f"{item.key}={self.get(item.key) if item.file else item.value}" for item in self._items]

    def masked(self) -> tuple[str, ...]:
        return tuple(item.value for item in self._items if item.masked)
