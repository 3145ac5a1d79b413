"""Host patterns: `web:&prod:!old`, globs, `~regex`, subscripts, and the `@file` of --limit.

Source: Ansible guide, "Patterns: targeting hosts and groups"; deviations are in docs/inventory.md. Knows only names.
"""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from provisioner.errors import InventoryError, NothingSelected
from provisioner.inventory import addresses
from provisioner.inventory.document import decode, read_bytes
from provisioner.inventory.origin import Notices, Where, nearest
from provisioner.paths import expanded

_TERM: Final = re.compile(r"(?:[^\s:\[\]]|\[[^\]]*\])+")
_SUBSCRIPT: Final = re.compile(
    r"(?P<term>.+)\[(?:"
    r"(?P<index>-?[0-9]{1,9})|(?P<start>-?[0-9]{1,9})?:(?P<end>-?[0-9]{1,9})?|(?P<from>[0-9]{1,9})-(?P<to>[0-9]{0,9})"
    r")\]"
)
_NO_HOST: Final = "~(?!)"
_ALSO_HOSTS: Final = (".", "?", "*", "[")


def split(pattern: str) -> list[str]:
    """The terms of a pattern: by commas if there is one, else by colons unless it is an address."""
    if "," in pattern:
        terms = pattern.split(",")
    elif addresses.parse(pattern):
        terms = [pattern]
    else:
        terms = _TERM.findall(pattern)
    return [term.strip() for term in terms if term.strip()]


@dataclass(slots=True)
class Selector:
    """Answers patterns over one inventory: host names in order, and each group's hosts in order."""

    hosts: Collection[str]
    groups: Mapping[str, tuple[str, ...]]
    notices: Notices
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def select(self, pattern: str, limit: str | None = None) -> tuple[str, ...]:
        """The names that match, in order, each once, perhaps none.

        Raises InventoryError for a bad pattern or limit file, NothingSelected for a subscript beyond the hosts.
        """
        found = self._evaluate(_terms(pattern, "pattern"))
        if limit is not None:
            limited = set(self._evaluate(_limit_terms(limit)))
            found = [name for name in found if name in limited]
        return tuple(dict.fromkeys(found))

    def _evaluate(self, terms: Sequence[str]) -> list[str]:
        """Plain terms, then all `&`, then all `!`, wherever they stand."""
        plain = [term for term in terms if term[:1] not in {"&", "!"}]
        found = [name for term in plain or ["all"] for name in ([term] if term in self.hosts else self._match(term))]
        for term in (term for term in terms if term[:1] == "&"):
            kept = set(self._match(term[1:]))
            found = [name for name in found if name in kept]
        for term in (term for term in terms if term[:1] == "!"):
            dropped = set(self._match(term[1:]))
            found = [name for name in found if name not in dropped]
        return found

    def _match(self, term: str) -> tuple[str, ...]:
        if term not in self._known:
            subscript = None if term.startswith("~") else _SUBSCRIPT.fullmatch(term)
            names = self._named(subscript["term"] if subscript else term)
            self._known[term] = self._subscripted(names, subscript) if subscript else names
        return self._known[term]

    def _named(self, expression: str) -> tuple[str, ...]:
        """Hosts of the matching groups, and matching hosts unless a group has that plain name."""
        regex = self._compiled(expression)
        groups = [name for name in self.groups if regex.match(name)]
        found = [host for name in groups for host in self.groups[name]]
        if not groups or expression.startswith("~") or any(special in expression for special in _ALSO_HOSTS):
            found += [name for name in self.hosts if regex.match(name)]
        if not found and not groups and expression != _NO_HOST:
            self._warn(expression)
        return tuple(found)

    def _compiled(self, expression: str) -> re.Pattern[str]:
        try:
            with warnings.catch_warnings():
                # a FutureWarning is about the operator's own regular expression
                warnings.simplefilter("ignore")
                return re.compile(expression[1:] if expression.startswith("~") else fnmatch.translate(expression))
        except (re.error, RecursionError, OverflowError) as error:
            raise InventoryError(f"the pattern {expression!r} is no regular expression: {error}") from error

    def _subscripted(self, names: tuple[str, ...], subscript: re.Match[str]) -> tuple[str, ...]:
        """One host or an inclusive range of them, negative from the end; duplicates count, as in Ansible."""
        if subscript["index"]:
            index = int(subscript["index"])
            if names and not -len(names) <= index < len(names):
                # an empty result would be wrong after `!`: it would keep a host that was to be left out
                raise NothingSelected(f"{subscript.string!r} is beyond the {len(names)} hosts of {subscript['term']!r}")
            return names[index:][:1]
        if subscript["from"]:
            self.notices.warn(f"write [x:y] instead of [x-y] in the pattern {subscript.string!r}")
        end = int(subscript["end"] or subscript["to"] or -1)
        return names[int(subscript["start"] or subscript["from"] or 0) : end + 1 or None]

    def _warn(self, expression: str) -> None:
        hint = nearest(expression, [*self.groups, *self.hosts])
        self.notices.warn(f"the pattern {expression!r} matches no host or group" + (f"; {hint}" if hint else ""))


def check(pattern: str, where: Where) -> None:
    """Refuse a pattern that can match nothing, with its place. Raises InventoryError."""
    if not split(pattern):
        raise where.error("the pattern of hosts is empty")


def _terms(pattern: str, what: str) -> list[str]:
    # for Ansible an empty pattern means every host; an unset variable of a script must never mean that here
    terms = split(pattern)
    if not terms or any(term in {"!", "&"} for term in terms):
        raise InventoryError(f"the {what} of hosts {pattern!r} is empty", hint="write all to mean every host")
    return terms


def _limit_terms(limit: str) -> list[str]:
    """The terms of --limit; `@file` stands for the file's lines, and one without lines for no host at all."""
    terms: list[str] = []
    for term in _terms(limit, "limit"):
        terms += _lines(term[1:]) if term.startswith("@") else [term]
    return terms


def _lines(file: str) -> list[str]:
    text = decode(read_bytes(str(expanded(file))), file)
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")] or [_NO_HOST]
