"""The JSON schema of events (draft 2020-12), made from the types in `documents`."""

from __future__ import annotations

import types
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from provisioner.report.documents import DOCUMENTS, VERSION

_SIMPLE: Final = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}
_EVERY: Final = {
    "time": {"type": "string", "format": "date-time", "description": "when, ISO 8601, UTC"},
    "version": {"const": VERSION, "description": "grows when a field changes its meaning"},
}


def events() -> dict[str, Any]:
    """One schema for a line of `--json`. Fields that it does not name may appear at any time."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nixprov event",
        "description": "One line of `nixprov ... --json`. New fields and new events may appear at any time.",
        "type": "object",
        "required": ["event", "time", "version"],
        "properties": {"event": {"enum": list(DOCUMENTS)}},
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in DOCUMENTS],
        "$defs": {kind: _event(kind, document) for kind, document in DOCUMENTS.items()},
    }


def _event(kind: str, document: type) -> dict[str, Any]:
    schema = _object(document)
    return {
        **schema,
        "required": ["event", "time", "version", *schema["required"]],
        "properties": {"event": {"const": kind}, **_EVERY, **schema["properties"]},
    }


def _object(document: type) -> dict[str, Any]:
    hints = get_type_hints(document, include_extras=True)
    told = {"description": document.__doc__} if document.__doc__ and "dict(" not in document.__doc__ else {}
    return {
        "type": "object",
        **told,
        "required": [name for name in hints if name in document.__required_keys__],  # type: ignore[attr-defined]
        "properties": {name: _type(hint) for name, hint in hints.items()},
    }


def _type(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return {**_type(arguments[0]), "description": arguments[1]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _type(arguments[0])}
    if origin in (Union, types.UnionType) and any(map(is_typeddict, arguments)):
        return {"anyOf": [_type(argument) for argument in arguments]}
    if origin in (Union, types.UnionType):
        return {"type": [_SIMPLE[argument] for argument in arguments]}
    return _object(hint) if is_typeddict(hint) else {"type": _SIMPLE[hint]}


def table() -> str:
    """The same for people, in Markdown: an event a row (docs/json.md)."""
    rows = "".join(
        f"| `{kind}` | {_sentence(document)} | {_fields(document)} |\n" for kind, document in DOCUMENTS.items()
    )
    return f"| event | meaning | fields |\n|---|---|---|\n{rows}"


def _sentence(document: type) -> str:
    return " ".join((document.__doc__ or "").split())


def _fields(document: type) -> str:
    return ", ".join(_field(name, hint) for name, hint in get_type_hints(document, include_extras=True).items())


def _field(name: str, hint: Any) -> str:
    note = ""
    if get_origin(hint) is Annotated:
        hint, note = get_args(hint)
    inner = next((part for part in (*get_args(hint), hint) if is_typeddict(part)), None)
    each = "each: " if get_origin(hint) is list else ""
    parts = f"{each}{_fields(inner)}" if inner else ""
    values = ", ".join(get_args(hint)) if get_origin(hint) is Literal else ""
    told = "; ".join(text for text in (note, values, parts) if text)
    return f"`{name}`" + (f" ({told})" if told else "")
