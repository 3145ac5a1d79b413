"""Shell that the program sends beside its transactions' own lines, recognised by the text that it renders itself.

A text with values in it is rendered once with stand-ins, which become the holes of a pattern. So a change of the shell
is a change of the pattern too. Text that matches no pattern is unknown, and the reader says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from provisioner.engine.switch import restarts
from provisioner.hooks.classic import Classic
from provisioner.machine import lock, switch
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.machine.transaction import Shell
from provisioner.steps import STEPS
from provisioner.steps.secrets import make_private
from provisioner.verbs.down import _END_JOBS
from provisioner.verbs.up import _RESET_FAILED

# Stand-ins that the shell's quoting leaves as they are.
_WORD: Final = "@WORD@"
_NAME: Final = "@NAME@"
_SECONDS: Final = 7654321
_LINE: Final = {_WORD: r"(?P<word>\S+)", _NAME: r"(?P<name>[^;\n]+?)", str(_SECONDS): r"(?P<seconds>\d+)"}


@dataclass(frozen=True)
class Phrase:
    """One known text; `name` selects the simulated host's action."""

    name: str
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class Said:
    """A phrase as it was sent, with the values of its holes."""

    name: str
    values: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.values[name]


def _phrase(name: str, text: str, **more: str) -> Phrase:
    pattern = re.escape(text)
    for stand_in, hole in {**_LINE, **more}.items():
        first, *rest = pattern.split(re.escape(stand_in))
        if rest:
            # The same value wherever it stands again.
            group = re.findall(r"\?P<(\w+)>", hole)[0]
            pattern = first + hole + f"(?P={group})".join(rest)
    return Phrase(name, re.compile(pattern))


def _text(part: object) -> str:
    assert isinstance(part, Shell)
    return part.text


def _start(*build: str) -> str:
    return _text(switch.start(_WORD, _NAME, *build, confirm_s=_SECONDS))


@cache
def guards() -> tuple[Phrase, ...]:
    return (
        _phrase("confirm", switch.confirm((_NAME,), _SECONDS // 5), **{str(_SECONDS // 5 * 5): r"(?P<tries>\d+)"}),
        _phrase("confirm", switch.confirm((), 0)),
    )


@cache
def firsts() -> tuple[Phrase, ...]:
    return (_phrase("take", lock.take(_WORD)), _phrase("release", lock.RELEASE))


@cache
def shells() -> tuple[Phrase, ...]:
    """Each `Shell` that a transaction may hold. A step's own does nothing here but the action in `_OF_STEPS`."""
    remnants = [
        part.text
        for step in STEPS
        for part in step.remove(Facts("", {}), Journal())
        if isinstance(part, Shell) and part.text != switch.DISARM
    ]
    assert len(remnants) == len(_OF_STEPS), "a step has another Shell: say what it does to a simulated host"
    return (
        _phrase("start", _start(*Classic().configuration.build)),
        _phrase("start", _start()),
        _phrase("arm", _text(switch.push(b"")[-1])),
        _phrase("disarm", switch.DISARM),
        _phrase("reset failed", _RESET_FAILED),
        _phrase("restart", _text(restarts([_WORD])[0]), **{_WORD: r"(?P<word>[a-z0-9-]+)"}),
        _phrase("end jobs", _END_JOBS),
        _phrase("make private", make_private(_WORD)),
        *(_phrase(name, text) for name, text in zip(_OF_STEPS, remnants, strict=True)),
    )


# Steps' own, in the order of STEPS: generations of ours go; the watchers of containers end; the bridge goes.
_OF_STEPS: Final = ("generations", "watchers", "bridge")
