"""The next commands to type after a run that did not go well. Pure: from outcomes to command lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.outcome import HostResult, Outcome
from provisioner.verb import Verb

_NAMED_HOSTS = 12


@dataclass(frozen=True, slots=True)
class Typed:
    """The typed command: the verb, and the options a next command needs as well (inventory, play, ...).

    `has_built`: a plan with a build. `rails` are those of a roll-out (--serial, ...): a second try must not be bolder
    than the failed one.
    """

    verb: Verb = Verb.UP
    options: tuple[str, ...] = ()
    rails: tuple[str, ...] = ()
    has_built: bool = False

    def command(self, verb: Verb, *words: str) -> str:
        rails = self.rails if verb is self.verb else ()
        return shlex.join(("nixprov", verb.command, *words, *self.options, *rails, *verb.flags))


def next_commands(typed: Typed, results: Sequence[HostResult], retry: Sequence[str] = ()) -> tuple[str, ...]:
    """Command lines, the first one first; none when all is well.

    Work that may still be going on, or is half-way, is looked at before any second run. `retry` replaces naming many
    hosts (`--resume RUN`, `--limit @FILE`).
    """
    unclear = [r.host for r in results if r.outcome in (Outcome.INTERRUPTED, Outcome.ROLLBACK_FAILED)]
    other = [r.host for r in results if r.outcome is Outcome.NOT_DESCRIBED]
    again = [r.host for r in results if not (r.outcome.is_good or r.outcome is Outcome.NOT_DESCRIBED)]
    commands = []
    if unclear and typed.verb is not Verb.STATUS:
        commands.append(typed.command(Verb.STATUS, ",".join(unclear[:_NAMED_HOSTS])))
    if again and (len(again) <= _NAMED_HOSTS or not retry):
        commands.append(typed.command(typed.verb, ",".join(again)))
    elif again:
        commands.append(typed.command(typed.verb, *retry))
    return (*commands, *_for_not_described(typed, other))


def _for_not_described(typed: Typed, hosts: Sequence[str]) -> tuple[str, ...]:
    """First a look at the files to be replaced, then the word that they may be."""
    if not hosts:
        return ()
    adopt = typed.command(typed.verb.applied, "--adopt-configuration", ",".join(hosts))
    return (adopt,) if typed.has_built else (typed.command(Verb.PLAN, "--build", ",".join(hosts)), adopt)
