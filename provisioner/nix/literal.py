"""Any plain Python value as a Nix expression that evaluates to exactly that value, and to nothing else.

Owns the quoting rules of the Nix language (Nix manual, "Data types" and "String literals"; lexer.l of Nix 2.8 where the
manual is silent). Knows nothing of templates, options or NixOS.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Final, TypeAlias

from provisioner.errors import ConfigError
from provisioner.model import Secret

WIDTH: Final = 100
_INDENT: Final = 2
_MAX_DEPTH: Final = 64
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
_SMALLEST_NORMAL: Final = 2.0**-1022
_SUBNORMAL_SHIFT: Final = 2.0**600
_Path: TypeAlias = tuple[str | int, ...]
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*")
_KEYWORDS: Final = frozenset({"if", "then", "else", "assert", "with", "let", "in", "rec", "inherit", "or"})
# A raw carriage return would be read back as a newline; everything else that is not listed stands for itself.
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "${": "\\${"}
_SPECIAL: Final = re.compile(r'["\\\n\r\t]|\$\{')


def to_nix(value: object, indent: int = 0) -> str:
    """Write `value` as Nix: None, bool, int, float, str, list, tuple, or a mapping with string keys.

    The result is always one primary expression (negative numbers carry parentheses), so it may stand wherever a
    template puts it: in a list, as an argument, a string as an attribute name. `indent` is the column, in spaces, of
    the line it stands in; further lines are indented from there. Mappings are sorted by key: equal values give equal
    text.

    Raises ConfigError, naming the place but never the value, for what Nix cannot hold: integers beyond 64 bits, NaN and
    infinity, NUL, lone surrogates, other types, nesting beyond 64 levels. Raises TypeError for a Secret at any depth:
    what is written as Nix ends up readable by all in the store.
    """
    return _write(value, indent, ())


def _write(value: object, indent: int, path: _Path) -> str:
    if len(path) > _MAX_DEPTH:
        raise _refusal("is nested too deeply, or contains itself", path[:4])
    match value:
        case Secret():
            raise TypeError("a secret is never written as Nix")
        case None | bool():
            return json.dumps(value)  # null, true and false are spelled alike
        case int():
            return _write_int(int(value), path)
        case float():
            return _write_float(float(value), path)
        case str():
            # A subclass (an enum, a tagged string of an inventory) may print as something else than it is.
            return _write_str(str.__str__(value), path)
        case list() | tuple():
            return _write_list(value, indent, path)
        case Mapping():
            return _write_attrs(value, indent, path)
    raise _refusal(f"is of type {type(value).__name__}, which Nix does not have", path)


def _write_int(value: int, path: _Path) -> str:
    if not _INT_MIN <= value <= _INT_MAX:
        raise _refusal("is an integer beyond 64 bits", path)
    if value == _INT_MIN:
        return f"(-{_INT_MAX} - 1)"  # Nix reads the digits before the sign, and they do not fit
    return f"({value})" if value < 0 else str(value)


def _write_float(value: float, path: _Path) -> str:
    if not math.isfinite(value):
        raise _refusal("is not a finite number", path)
    if value < 0:
        return f"(-{_write_float(-value, path)})"
    if math.copysign(1.0, value) < 0:
        return "(0.0 * (-1))"  # `-0.0` is `0 - 0.0` in Nix, which loses the sign
    if 0 < value < _SMALLEST_NORMAL:
        # Nix refuses a literal that underflows; both factors are exact, and so is their product.
        return f"({_decimal(value * _SUBNORMAL_SHIFT)} * {_decimal(1 / _SUBNORMAL_SHIFT)})"
    return _decimal(value)


def _decimal(value: float) -> str:
    """Give the shortest digits that read back the same, with the dot without which Nix sees an application."""
    digits, exponent, power = repr(value).partition("e")
    return (digits if "." in digits else f"{digits}.0") + exponent + power


def _write_str(value: str, path: _Path) -> str:
    if "\0" in value:
        raise _refusal("contains a NUL character", path)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _refusal("contains a lone surrogate, which is not text", path)
    return '"' + _SPECIAL.sub(lambda found: _ESCAPES[found[0]], value) + '"'


def _write_list(value: Sequence[object], indent: int, path: _Path) -> str:
    if not value:
        return "[ ]"
    inner = indent + _INDENT
    items = [_write(item, inner, (*path, number)) for number, item in enumerate(value)]
    line = f"[ {' '.join(items)} ]"
    if "\n" not in line and indent + len(line) <= WIDTH:
        return line
    pad = " " * inner
    return "\n".join(["[", *(pad + item for item in items), " " * indent + "]"])


def _write_attrs(value: Mapping[object, object], indent: int, path: _Path) -> str:
    if not value:
        return "{ }"
    inner = indent + _INDENT
    items = sorted(((_key(key, path), item) for key, item in value.items()), key=itemgetter(0))
    named = [(_write_name(key, path), item) for key, item in items]
    lines = [f"{name} = {_write(item, inner, (*path, name))};" for name, item in named]
    pad = " " * inner
    return "\n".join(["{", *(pad + line for line in lines), " " * indent + "}"])


def _key(key: object, path: _Path) -> str:
    if isinstance(key, Secret):
        raise TypeError("a secret is never written as Nix")
    if not isinstance(key, str):
        raise _refusal(f"has a key of type {type(key).__name__}, where Nix has only strings", path)
    return str.__str__(key)


def _write_name(key: str, path: _Path) -> str:
    plain = _PLAIN_NAME.fullmatch(key) and key not in _KEYWORDS
    return key if plain else _write_str(key, (*path, "(a key)"))


def _refusal(problem: str, path: _Path) -> ConfigError:
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    return ConfigError(f"{place or 'the value'} {problem}", hint="it cannot be written as a Nix value")
