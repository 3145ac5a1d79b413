"""Reading YAML and JSON texts into plain values that know their lines; also plain files, as text.

Owns: the tags `!vault` and `!unsafe` in their JSON forms, as `ansible-inventory` writes them; YAML is `yaml_text`'s.
Knows nothing of inventories: the callers interpret the values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provisioner import limits
from provisioner.errors import InventoryError
from provisioner.inventory.origin import Located, Notices, Where, kind_of, line_of
from provisioner.inventory.vault import HEADER, VaultReader, open_vault
from provisioner.model import Secret
from provisioner.paths import read

_JSON_KEY: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:')


@dataclass(frozen=True, slots=True)
class Reader:
    """The needs of a reader beside the text: a way to open vaults, and a place for warnings."""

    notices: Notices
    vault: VaultReader | None = None

    def text(self, file: str) -> str:
        """The file's text, decrypted if it is a vault. Raises InventoryError."""
        text, _ = self._text(file)
        return text

    def document(self, file: str) -> object:
        """The file's JSON or YAML value; every string of a vaulted file is a Secret. Raises InventoryError."""
        text, was_vaulted = self._text(file)
        value = self.parse(text, file)
        return _conceal(value) if was_vaulted else value

    def parse(self, text: str, file: str) -> object:
        """As Ansible does: JSON is read as JSON, all else as YAML. Raises InventoryError."""
        if text.lstrip()[:1] in {"{", "["}:
            try:
                return self._json(text, file)
            except (ValueError, RecursionError):
                pass
        # PyYAML takes a sixth of the time of a completion, and an INI inventory does not need it.
        from provisioner.inventory import yaml_text

        return yaml_text.load(text, file, self.notices, self.vault)

    def parse_json(self, text: str, where: Where, what: str) -> object:
        """A program's answer, which must be JSON. Raises InventoryError with the line of the answer."""
        try:
            return self._json(text, where.file)
        except json.JSONDecodeError as error:
            raise where.error(f"{what} does not print JSON: {error.msg.lower()} at line {error.lineno}") from None
        except (ValueError, RecursionError) as error:
            raise where.error(f"{what} does not print JSON that can be read ({type(error).__name__})") from None

    def _text(self, file: str) -> tuple[str, bool]:
        text = decode(read_bytes(file), file)
        if text.startswith(HEADER):
            return open_vault(text, Where(file), self.vault), True
        return text, False

    def _json(self, text: str, file: str) -> object:
        lines: dict[str, int] = {}
        line, start = 1, 0
        for match in _JSON_KEY.finditer(text):
            line, start = line + text.count("\n", start, match.start()), match.start()
            lines.setdefault(match[1], line)

        def build(pairs: list[tuple[str, object]]) -> object:
            found = Located(min((lines.get(key, 1) for key, _ in pairs), default=1))
            found.update(pairs)
            found.lines = {key: lines.get(key, found.line) for key, _ in pairs}
            return self._marked(found, file)

        return json.loads(text, object_pairs_hook=build)

    def _marked(self, found: Located, file: str) -> object:
        """Ansible's JSON forms of `!unsafe` and `!vault`, else the mapping itself."""
        if len(found) == 1:
            [(key, value)] = found.items()
            if key == "__ansible_unsafe" and isinstance(value, str):
                return value
            if key == "__ansible_vault" and isinstance(value, str):
                return Secret(open_vault(value, Where(file, found.line), self.vault))
        return found


def read_bytes(file: str) -> bytes:
    """The file's content. Raises InventoryError."""
    try:
        return read(Path(file), limits.INVENTORY)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InventoryError(f"cannot be read: {reason[:1].lower()}{reason[1:]}", file=file) from error


def decode(content: bytes, file: str) -> str:
    """UTF-8, with or without a byte order mark. Raises InventoryError with the line of the first wrong byte."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InventoryError("is not UTF-8", file=file, line=line) from None


def variables_of(value: object, where: Where) -> Mapping[str, object]:
    """Check that a value can be a set of variables: a mapping with names as keys. Raises InventoryError."""
    if not isinstance(value, Mapping):
        raise where.error(f"variables must be a mapping, not {kind_of(value)}")
    for key in value:
        if not isinstance(key, str):
            line = line_of(value, key) or where.line
            raise InventoryError(f"a variable's name must be a string: {key}", file=where.file, line=line)
    return value


def _conceal(value: object) -> object:
    """Replace every string by a Secret, in place where the containers are our own."""
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, dict):
        for key in value:
            value[key] = _conceal(value[key])
    if isinstance(value, list):
        value[:] = [_conceal(item) for item in value]
    return value
