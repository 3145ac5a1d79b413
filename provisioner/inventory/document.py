"""Reading YAML and JSON texts into plain values that know their lines; also plain files, as text.

Owns: the YAML loader, the tags `!vault` and `!unsafe`, and their JSON forms as `ansible-inventory` writes them.
Knows nothing of inventories: what the values mean is the callers' business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from typing_extensions import override

from provisioner import limits
from provisioner.errors import InventoryError
from provisioner.inventory.origin import Notices, Where, kind_of
from provisioner.inventory.vault import HEADER, VaultReader, open_vault
from provisioner.model import Secret
from provisioner.paths import read

if TYPE_CHECKING:
    from yaml import SafeLoader as _FastLoader
else:
    _FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# what PyYAML's constructors let through for scalars and shapes they do not expect
_LEAKS: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
_JSON_KEY: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:')


class Located(dict[object, object]):
    """A mapping that remembers the line of itself and of each key (0 where it is not known)."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int = 0) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[object, int] = {}


def line_of(mapping: Mapping[Any, object], key: object) -> int:
    return mapping.lines.get(key, mapping.line) if isinstance(mapping, Located) else 0


@dataclass(frozen=True, slots=True)
class Reader:
    """What reading needs beside the text: how to open vaults, and where warnings go."""

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
        """As Ansible does: what is JSON is read as JSON, all else as YAML. Raises InventoryError."""
        if text.lstrip()[:1] in {"{", "["}:
            try:
                return self._json(text, file)
            except (ValueError, RecursionError):
                pass
        return self._yaml(text, file)

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

    def _yaml(self, text: str, file: str) -> object:
        try:
            loader = _Loader(text, file, self)
            try:
                return loader.get_single_data()
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = " ".join(str(error.problem or error.context or "cannot be read").split())
            raise InventoryError(f"not valid YAML: {problem}", file=file, line=_within(text, mark)) from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
            raise InventoryError(f"not valid YAML: {error.reason}", file=file, line=line) from None
        except (yaml.YAMLError, *_LEAKS) as error:
            raise InventoryError(f"not valid YAML ({type(error).__name__})", file=file, line=1) from None


class _Loader(_FastLoader):
    def __init__(self, text: str, file: str, reader: Reader) -> None:
        super().__init__(text)
        self.file = file
        self.reader = reader

    @override
    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            return super().construct_object(node, deep)
        except _LEAKS as error:
            problem = f"this value cannot be read ({type(error).__name__})"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def mapping(self, node: yaml.MappingNode) -> Located:
        """Built deeply at once, so that PyYAML itself refuses mappings that contain themselves."""
        found = Located(node.start_mark.line + 1)
        self._warn_of_duplicates(node)
        self.flatten_mapping(node)
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if key.__hash__ is None:
                raise yaml.constructor.ConstructorError(None, None, "a key must be a scalar", key_node.start_mark)
            found[key] = self.construct_object(value_node, deep=True)
            found.lines[key] = key_node.start_mark.line + 1
        return found

    def sequence(self, node: yaml.SequenceNode) -> list[object]:
        return [self.construct_object(child, deep=True) for child in node.value]

    def unsafe(self, node: yaml.Node) -> object:
        return self._without_tag(node)

    def vaulted(self, node: yaml.Node) -> object:
        where = Where(self.file, node.start_mark.line + 1)
        ciphertext = self._without_tag(node)
        if not isinstance(ciphertext, str):
            raise where.error("a !vault value must be a string")
        return Secret(open_vault(ciphertext, where, self.reader.vault))

    def _without_tag(self, node: yaml.Node) -> object:
        tag = self.resolve(type(node), node.value, (True, False))  # type: ignore[no-untyped-call]
        return self.construct_object(type(node)(tag, node.value, node.start_mark, node.end_mark), deep=True)

    def _warn_of_duplicates(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen and key_node.value != "<<":
                    where = Where(self.file, key_node.start_mark.line + 1)
                    self.reader.notices.warn(f"{key_node.value!r} is given twice, the last one counts", where)
                seen.add(key_node.value)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.sequence)
_Loader.add_constructor("!unsafe", _Loader.unsafe)
_Loader.add_constructor("!vault", _Loader.vaulted)
_Loader.add_constructor("!vault-encrypted", _Loader.vaulted)


def _within(text: str, mark: yaml.Mark | None) -> int:
    """The line of a mark; that of the end of a text is its last line, not the one after it."""
    return min(mark.line, text.rstrip("\n").count("\n")) + 1 if mark else 1


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
