"""What to type next after a run that did not go well. Pure: from outcomes to command lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.events import HostResult, Outcome

_NAMED_HOSTS = 12
PLAN_DOWN = "plan down"


@dataclass(frozen=True, slots=True)
class Typed:
    """What the operator typed: the verb, and the options a next command needs as well (inventory, play, ...).

    `rails` are those of a roll-out (--serial, ...): what is typed again must not be bolder than what failed.
    """

    verb: str = "up"
    options: tuple[str, ...] = ()
    rails: tuple[str, ...] = ()

    def command(self, verb: str, *words: str) -> str:
        check = ("--check",) if verb == PLAN_DOWN else ()
        rails = self.rails if verb == self.verb else ()
        told = verb.removeprefix("plan ") if check else verb
        return shlex.join(("nixprov", told, *words, *self.options, *rails, *check))


def next_commands(typed: Typed, results: Sequence[HostResult], retry: Sequence[str] = ()) -> tuple[str, ...]:
    """Command lines, the first one first; none when all is well.

    What may still be going on, or is half-way, is looked at before anything is run again. `retry` replaces naming many
    hosts (`--resume RUN`, `--limit @FILE`).
    """
    unclear = [r.host for r in results if r.outcome in (Outcome.INTERRUPTED, Outcome.ROLLBACK_FAILED)]
    again = [r.host for r in results if not r.outcome.is_good]
    commands = [typed.command("status", ",".join(unclear[:_NAMED_HOSTS]))] if unclear and typed.verb != "status" else []
    if again and (len(again) <= _NAMED_HOSTS or not retry):
        commands.append(typed.command(typed.verb, ",".join(again)))
    elif again:
        commands.append(typed.command(typed.verb, *retry))
    return tuple(commands)
