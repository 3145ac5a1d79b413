"""Writes config.toml back when runners are taken out of it; comments are lost, as with gitlab-runner."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from .errors import RunnerError


def save(path: Path, document: Mapping[str, object]) -> None:
    """Replace the file as a whole, readable by its owner only. Raises RunnerError."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_table(document, ()))
        temporary.replace(path)
    except OSError as error:
        raise RunnerError(f"Failed to update {path}: {error.strerror}") from None


def _table(table: Mapping[str, object], path: tuple[str, ...]) -> str:
    lines = [f"{_key(key)} = {_value(value)}\n" for key, value in table.items() if not _is_table(value)]
    for key, value in table.items():
        name = ".".join(_key(part) for part in (*path, key))
        if isinstance(value, dict):
            lines.append(f"\n[{name}]\n{_table(value, (*path, key))}")
        elif _is_table(value) and isinstance(value, list):
            lines += [f"\n[[{name}]]\n{_table(item, (*path, key))}" for item in value]
    return "".join(lines)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if key.replace("-", "_").isidentifier() else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    # Strings and numbers of JSON are strings and numbers of TOML.
    return value.isoformat() if isinstance(value, datetime) else json.dumps(value, ensure_ascii=False)
