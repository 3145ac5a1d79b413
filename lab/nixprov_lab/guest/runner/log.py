"""The runner's own log on standard error, in gitlab-runner's look and without tokens."""

from __future__ import annotations

import json
import sys
import threading
from typing import Final, TextIO

_LEVELS: Final = {"debug": 0, "info": 1, "warning": 2, "warn": 2, "error": 3, "fatal": 4, "panic": 4}
_MASK: Final = "[MASKED]"


class Log:
    """A log of lines with fields. Every secret that it knows is masked, in any part of a line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._secrets: set[str] = set()
        self._level = 1
        self._json = False

    def configure(self, level: str, form: str) -> None:
        self._level = _LEVELS.get(level, 1)
        self._json = form == "json"

    def hide(self, secret: str) -> None:
        if secret:
            self._secrets.add(secret)

    def debug(self, message: str, **values: object) -> None:
        self._write("debug", message, values)

    def info(self, message: str, **values: object) -> None:
        self._write("info", message, values)

    def warning(self, message: str, **values: object) -> None:
        self._write("warning", message, values)

    def error(self, message: str, **values: object) -> None:
        self._write("error", message, values)

    def fatal(self, message: str, **values: object) -> None:
        self._write("fatal", message, values)

    def _write(self, level: str, message: str, values: dict[str, object]) -> None:
        if _LEVELS[level] < self._level:
            return
        line = self._as_json(level, message, values) if self._json else _as_text(level, message, values)
        for secret in self._secrets:
            line = line.replace(secret, _MASK)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    @staticmethod
    def _as_json(level: str, message: str, values: dict[str, object]) -> str:
        return json.dumps({"level": level, "msg": message} | {key: str(value) for key, value in values.items()})


def _as_text(level: str, message: str, values: dict[str, object]) -> str:
    prefix = "" if level in {"info", "debug"} else f"{level.upper()}: "
    fields = " ".join(f"{key}={value}" for key, value in sorted(values.items()))
    return f"{prefix + message:<50} {fields}".rstrip()
