"""Plain values as Nix expressions: JSON inside of `builtins.fromJSON`.

Nix reads the JSON itself, so no rule of its own literals is kept here: https://nix.dev/manual/nix/2.18/language/builtins.
"""

from __future__ import annotations

import json
from typing import Final

from provisioner.errors import ConfigError

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
# In an indented string only `''` and `${` are special. JSON has neither outside of its own strings, and there an
# escape is the same text. With both escaped, no value can end the Nix string.
_ESCAPES: Final = str.maketrans({"$": r"\u0024", "'": r"\u0027"})


def to_nix(value: object) -> str:
    """Write a value as a Nix expression that evaluates to exactly that: None, bool, int, float, str, list, dict.

    Equal values give equal text: keys are sorted. As an argument or in a list the expression needs parentheses.

    Raises ConfigError for a value that Nix would not read back. These are NUL, half of a surrogate pair, an integer
    beyond 64 bits. The error names the place, never the value. Raises TypeError for any other type, a Secret included.
    Raises ValueError for a number that is not finite.
    """
    _check(value, "")
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True)
    return f"builtins.fromJSON ''\n{text.translate(_ESCAPES)}\n''"


def _check(value: object, place: str) -> None:
    match value:
        case str():
            _check_text(value, place)
        case int() if not _INT_MIN <= value <= _INT_MAX:
            raise _refusal(place, "an integer beyond 64 bits")
        case list() | tuple():
            for number, item in enumerate(value):
                _check(item, f"{place}[{number}]")
        case dict():
            for key, item in value.items():
                # json.dumps would write 1 and None as "1" and "null".
                if not isinstance(key, str):
                    raise TypeError(f"a key of type {type(key).__name__}, where Nix has only strings")
                _check_text(key, f"a key of {place or 'the settings'}")
                _check(item, f"{place}.{key}" if place else key)


def _check_text(text: str, place: str) -> None:
    if "\0" in text:
        raise _refusal(place, "a NUL character")
    if text != text.encode(errors="ignore").decode():
        raise _refusal(place, "half of a surrogate pair, which is no text")


def _refusal(place: str, what: str) -> ConfigError:
    return ConfigError(f"{place or 'the value'} has {what}", hint="Nix cannot hold it: change it in the inventory")
