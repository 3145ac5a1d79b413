"""YAML texts as plain values that know their lines, with the tags `!vault` and `!unsafe`. It alone imports PyYAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import yaml
from typing_extensions import override

from provisioner.errors import InventoryError
from provisioner.inventory.origin import Located, Notices, Where
from provisioner.inventory.vault import VaultReader, open_vault
from provisioner.model import Secret

if TYPE_CHECKING:
    from yaml import SafeLoader as _FastLoader
else:
    _FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# errors that PyYAML's constructors let through for scalars and shapes they do not expect
_LEAKS: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)


def load(text: str, file: str, notices: Notices, vault: VaultReader | None) -> object:
    """Raises InventoryError with the line of the first mistake."""
    try:
        loader = _Loader(text, file, notices, vault)
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
    def __init__(self, text: str, file: str, notices: Notices, vault: VaultReader | None) -> None:
        super().__init__(text)
        self.file, self.notices, self.vault = file, notices, vault

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
        return Secret(open_vault(ciphertext, where, self.vault))

    def _without_tag(self, node: yaml.Node) -> object:
        tag = self.resolve(type(node), node.value, (True, False))  # type: ignore[no-untyped-call]
        return self.construct_object(type(node)(tag, node.value, node.start_mark, node.end_mark), deep=True)

    def _warn_of_duplicates(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen and key_node.value != "<<":
                    where = Where(self.file, key_node.start_mark.line + 1)
                    self.notices.warn(f"{key_node.value!r} is given twice, the last one counts", where)
                seen.add(key_node.value)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.sequence)
_Loader.add_constructor("!unsafe", _Loader.unsafe)
_Loader.add_constructor("!vault", _Loader.vaulted)
_Loader.add_constructor("!vault-encrypted", _Loader.vaulted)


def _within(text: str, mark: yaml.Mark | None) -> int:
    """The line of a mark, from 1. A mark at the end of a text is on its last line."""
    return min(mark.line, text.rstrip("\n").count("\n")) + 1 if mark else 1
