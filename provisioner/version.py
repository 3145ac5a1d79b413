"""The version of this program, and the order of versions in PEP 440, https://peps.python.org/pep-0440/."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from provisioner import __version__

OWN: Final = __version__

_Part: TypeAlias = tuple[float, ...]
_FORM: Final = re.compile(
    r"(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)(?:(?P<stage>a|b|rc)(?P<pre>\d+))?"
    r"(?:\.post(?P<post>\d+))?(?:\.dev(?P<dev>\d+))?(?:\+(?P<local>[a-z0-9]+(?:\.[a-z0-9]+)*))?",
    re.ASCII,
)
_STAGES: Final = ("a", "b", "rc")
_LAST: Final = float("inf")
_FIRST: Final = -1


def is_newer(one: str, other: str) -> bool:
    """Whether `one` comes after `other`; a version outside of PEP 440's normal form comes after all others."""
    return order(one) > order(other)


def order(version: str) -> tuple[object, ...]:
    """The sort key of a version."""
    found = _FORM.fullmatch(version)
    if found is None:
        return (_LAST,)
    release = tuple(map(int, re.sub(r"(\.0+)+$", "", found["release"]).split(".")))
    return int(found["epoch"] or 0), release, _before_release(found), _number(found["post"], _FIRST), *_rest(found)


def _before_release(found: re.Match[str]) -> _Part:
    if found["stage"]:
        return (_STAGES.index(found["stage"]), int(found["pre"]))
    # 1.0.dev1 comes before 1.0a1, and 1.0.post1.dev1 after 1.0.
    return (_FIRST,) if found["dev"] and not found["post"] else (_LAST,)


def _rest(found: re.Match[str]) -> tuple[object, ...]:
    """The words of a local version come before its numbers."""
    local = found["local"].split(".") if found["local"] else []
    return _number(found["dev"], _LAST), tuple((one.isdigit(), int(one) if one.isdigit() else one) for one in local)


def _number(text: str | None, otherwise: float) -> float:
    return otherwise if text is None else int(text)
