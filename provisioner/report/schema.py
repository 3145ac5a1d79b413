"""The JSON schema of a line of `--json` (draft 2020-12), and the same as a table. Both come from `documents`.

Pydantic makes the schema of the documents; this file adds the keys that `json_lines` adds to each of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin, get_type_hints

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import is_typeddict, override

from provisioner.events.documents import VERSION, Document, Note

_EVERY: Final = {
    "time": {"type": "string", "format": "date-time", "description": "when, ISO 8601, UTC"},
    "version": {"const": VERSION, "description": "grows when a field changes its meaning"},
}
_Line: TypeAlias = Annotated[Document, Field(discriminator="event")]


class _Plain(GenerateJsonSchema):
    """Without a title for each field that only repeats its name."""

    @override
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def documents() -> dict[str, type]:
    """The type of each event's document, by the word in `event`."""
    return {get_args(get_type_hints(document)["event"])[0]: document for document in get_args(Document)}


def events() -> dict[str, Any]:
    """One schema for a line. Fields that it does not name may appear at any time."""
    made = TypeAdapter[Any](_Line).json_schema(schema_generator=_Plain)
    for document in documents().values():
        line = made["$defs"][document.__name__]
        line["properties"] |= _EVERY
        line["required"] += _EVERY
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "nixprov event",
        "description": "One line of `nixprov ... --json`. New fields and new events may appear at any time.",
        **made,
    }


def table() -> str:
    """An event a row, in Markdown (docs/json.md)."""
    rows = "".join(
        f"| `{kind}` | {_sentence(document)} | {_fields(document)} |\n" for kind, document in documents().items()
    )
    return f"| event | meaning | fields |\n|---|---|---|\n{rows}"


def _sentence(document: type) -> str:
    return " ".join((document.__doc__ or "").split())


def _fields(document: type) -> str:
    hints = get_type_hints(document, include_extras=True)
    return ", ".join(_field(name, hint) for name, hint in hints.items() if name != "event")


def _field(name: str, hint: Any) -> str:
    note = ""
    if get_origin(hint) is Annotated:
        hint, note = get_args(hint)[0], _note(hint)
    inner = next((part for part in (*get_args(hint), hint) if is_typeddict(part)), None)
    each = "each: " if get_origin(hint) is list else ""
    parts = f"{each}{_fields(inner)}" if inner else ""
    values = ", ".join(get_args(hint)) if get_origin(hint) is Literal else ""
    told = "; ".join(text for text in (note, values, parts) if text)
    return f"`{name}`" + (f" ({told})" if told else "")


def _note(hint: Any) -> str:
    return next(one.text for one in get_args(hint) if isinstance(one, Note))
