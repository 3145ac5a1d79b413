"""The grammar of host names: ports, IPv6, and ranges such as `db[01:20:2]`.

Source: Ansible inventory guide, "Adding ranges of hosts". Does not know where names are written.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import string
from collections.abc import Sequence
from typing import Final

MOST_HOSTS: Final = 65_536

_RANGE: Final = r"\[(?:[a-z]:[a-z]|[0-9]+:[0-9]+)(?::[0-9]+)?\]"
_LABEL: Final = rf"(?:\w|{_RANGE})(?:[\w-]|{_RANGE})*(?<![_-])"
_HOSTNAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.IGNORECASE)
_IPV6_RANGE: Final = re.compile(r"\[[0-9a-f]+:[0-9a-f]+(?::[0-9]+)?\]", re.IGNORECASE)
_BRACKETED_PORT: Final = re.compile(r"\[(?P<host>.+)\]:(?P<port>[0-9]{1,9})")
_PORT: Final = re.compile(r"(?P<host>(?:[^:\[\]]|\[[^\]]*\])*):(?P<port>[0-9]{1,9})")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


def parse(text: str) -> tuple[str, int | None] | None:
    """Split `name`, `name:port`, `[address]:port` into host and port; None when it is no host name.

    The host may contain ranges.
    """
    if _PLAIN_NAME.fullmatch(text) and ".." not in text and ".-" not in text and "-." not in text:
        return text, None
    match = _BRACKETED_PORT.fullmatch(text) or _PORT.fullmatch(text)
    host, port = (match["host"], int(match["port"])) if match else (text, None)
    return (host, port) if _HOSTNAME.fullmatch(host) or _is_ipv6(host) else None


def expand(text: str) -> tuple[list[str], int | None]:
    """All names that a host pattern of an inventory stands for, and their port.

    Text that is not recognised as an address is a name as it stands, as in Ansible. Raises ValueError for a range that
    cannot be read or has more than MOST_HOSTS hosts.
    """
    host, port = parse(text) or (text, None)
    if "[" not in host:
        return [host], port
    literals, ranges = _split_ranges(host)
    count = 1
    for values in ranges:
        count *= len(values)
        if count > MOST_HOSTS:
            raise ValueError(f"{text} stands for more than {MOST_HOSTS} hosts")
    tail = literals[-1]
    return [
        "".join(itertools.chain.from_iterable(zip(literals, chosen, strict=False))) + tail
        for chosen in itertools.product(*ranges)
    ], port


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(_IPV6_RANGE.sub("1", text))
    except ValueError:
        return False
    return "%" not in text


def _split_ranges(text: str) -> tuple[list[str], list[Sequence[str]]]:
    literals, ranges = [], []
    rest = text
    while "[" in rest:
        literal, _, rest = rest.partition("[")
        bounds, closed, rest = rest.partition("]")
        if not closed:
            raise ValueError(f"the range in {text} is not closed")
        literals.append(literal)
        ranges.append(_range(bounds))
    return [*literals, rest], ranges


def _range(bounds: str) -> Sequence[str]:
    begin, *others = bounds.split(":")
    if len(others) not in {1, 2}:
        raise ValueError(f"the range [{bounds}] must be begin:end or begin:end:step")
    end, step_text = others[0], others[1] if len(others) == 2 else "1"  # noqa: PLR2004
    if not end:
        raise ValueError(f"the range [{bounds}] has no end")
    step = _number(step_text, bounds)
    if step < 1:
        raise ValueError(f"the step of the range [{bounds}] must be at least 1")
    letters = string.ascii_letters
    if len(begin) == len(end) == 1 and begin in letters and end in letters:
        return _letters(letters.index(begin), letters.index(end), step, bounds)
    return _numbers(begin or "0", end, step, bounds)


def _letters(begin: int, end: int, step: int, bounds: str) -> Sequence[str]:
    if begin > end:
        raise ValueError(f"the range [{bounds}] must begin before it ends")
    return string.ascii_letters[begin : end + 1 : step]


def _numbers(begin: str, end: str, step: int, bounds: str) -> Sequence[str]:
    width = len(begin) if begin.startswith("0") and len(begin) > 1 else 0
    if width and width != len(end):
        raise ValueError(f"begin and end of the range [{bounds}] must be equally wide")
    values = range(_number(begin, bounds), _number(end, bounds) + 1, step)
    if len(values) > MOST_HOSTS:
        raise ValueError(f"the range [{bounds}] stands for more than {MOST_HOSTS} hosts")
    return [str(value).zfill(width) for value in values]


def _number(text: str, bounds: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004
        raise ValueError(f"the range [{bounds}] is neither numbers nor single letters")
    return int(text)
