"""The types of the values in plays and `nixprov_*` variables, and the errors that name the expected type.

Knows the spellings that INI and YAML give to a value; knows no key's meaning.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from provisioner.inventory.origin import kind_of
from provisioner.model import Capability, Secret

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SIZE: Final = re.compile(r"[1-9][0-9]*[bkmgBKMG]")
# Pydantic's messages in the words of Python (docs.pydantic.dev, "Validation Errors").
_PLAIN: Final = {
    "extra_forbidden": "there is no such key",
    "missing": "is missing",
    **dict.fromkeys(("bool_parsing", "bool_type"), "expected true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "expected a mapping"),
    **dict.fromkeys(("int_parsing", "int_type"), "expected a whole number"),
    **dict.fromkeys(("string_too_short", "too_short"), "is empty"),
    "string_type": "expected a string",
}
_DECIMAL: Final = re.compile(r"[0-9]+(\.[0-9]+)?")


def _text(value: object) -> object:
    """A string, or a whole number as one, as INI and YAML make numbers of `42`; `1.10` is refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise wrong("a string", value)
    return value


def _tags(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise wrong("a list of tags, or tags with commas between", value)
    return [tag for tag in str(value).split(",") if tag.strip()]


def _images(value: object) -> object:
    """A string is one pattern, because patterns may have commas (`{ruby,python}:*`)."""
    if not isinstance(value, str | list | tuple):
        raise wrong("a list of patterns of images, or one", value)
    if isinstance(value, str) and value.startswith("["):
        # In INI a quoted list is a string. It would fit no image, and every job would be refused.
        raise ValueError("a list that is quoted is no list; leave the quotes out")
    return [value] if isinstance(value, str) else value


def _capabilities(value: object) -> object:
    """As Docker takes them: a list or one, with `CAP_` before the name or without."""
    if not isinstance(value, str | list | tuple):
        raise wrong("a list of capabilities, or one", value)
    names = [value] if isinstance(value, str) else value
    return [name.upper().removeprefix("CAP_") if isinstance(name, str) else name for name in names]


def _whole(value: object) -> object:
    if isinstance(value, bool | float):
        raise wrong("a whole number", value)
    return value


def _flag(value: object) -> object:
    if isinstance(value, float) or value is None:
        raise wrong("true or false", value)
    return value


def _size(value: str) -> str:
    if not _SIZE.fullmatch(value):
        raise ValueError("expected a whole number with its unit, as 512m or 4g")
    return value


def _processors(value: object) -> object:
    """A number is meant, so `1.5` without quotes is right here."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise wrong("a number of processors", value)
    text = str(value)
    if not _DECIMAL.fullmatch(text) or not float(text):
        raise ValueError("expected a number of processors, as 2 or 1.5")
    return text


def wrong(expected: str, value: object) -> ValueError:
    return ValueError(f"expected {expected}, got {kind(value)}" + ("; quote it" if isinstance(value, float) else ""))


def kind(value: object) -> str:
    return "a vaulted value, and this is no secret" if isinstance(value, Secret) else kind_of(value)


def _untemplated(value: str) -> str:
    if "{{" in value or "{%" in value:
        raise ValueError("templates are not evaluated here; write the value itself")
    return value


Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | int)]
Line = Annotated[Text, Field(pattern=r"^[^\x00-\x1f\x7f]*$"), AfterValidator(_untemplated)]
Tag = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^,\x00-\x1f\x7f]+$"), AfterValidator(_untemplated)]
Tags = Annotated[tuple[Tag, ...], BeforeValidator(_tags, json_schema_input_type=list[str | int] | str | int)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Whole = Annotated[int, BeforeValidator(_whole)]
Size = Annotated[Text, AfterValidator(_size)]
Processors = Annotated[str, BeforeValidator(_processors, json_schema_input_type=str | int | float)]
Image = Annotated[Line, Field(min_length=1)]
Images = Annotated[tuple[Image, ...], BeforeValidator(_images, json_schema_input_type=list[str] | str)]
Capabilities = Annotated[tuple[Capability, ...], BeforeValidator(_capabilities, json_schema_input_type=list[str] | str)]
Owner = Annotated[Line, Field(min_length=1)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Value = Annotated[Text, Field(pattern=r"^[^\x00]*$")]


def first_error(error: ValidationError) -> ErrorDetails:
    """The error to show. The values are left out of it: one may be a secret in the wrong place."""
    return error.errors(include_url=False, include_input=False)[0]


def explain(details: ErrorDetails) -> str:
    """Say in one lower-case line which value was expected."""
    if plain := _PLAIN.get(details["type"]):
        return plain
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    return message[:1].lower() + message[1:]
