"""Named places at which tests kill the program: before and after every effect of `up` and `down`.

NIXPROV_CRASH holds one or more of them, separated by commas:

    before:EFFECT, after:EFFECT      this program gets kill -9 there; EFFECT is one of EFFECTS or DETOURS
    before:EFFECT:NAME, ...          the same, for the runner of that name only
    host:TRANSACTION:staged          the script on the host gets it, with everything staged and nothing renamed,
    host:TRANSACTION:N               ... or before its N-th change; this program dies with it, as in a power cut
    unit:PHASE                       the switch gets it (switch.sh); this program lives and has to cope

Without the variable nothing here has any effect. It can only kill this program, so it needs no protection.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

VARIABLE: Final = "NIXPROV_CRASH"
EFFECTS: Final = {
    "up": ("claim", "create", "reset", "update", "write", "follow", "contact", "login", "commit", "surplus"),
    "down": ("claim", "pause", "drain", "write", "follow", "login", "commit", "delete", "clean"),
}
# Effects off the straight path: ending a dead run's switch, unwinding a failure, doing a deletion that waits.
DETOURS: Final = ("settle", "unwind", "disown", "release", "resume", "queue", "prune")
_KILLED: Final = 128 + signal.SIGKILL


def reach(*points: str) -> None:
    if not set(points).isdisjoint(_wished()):
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def around(effect: str, name: str = "") -> Iterator[None]:
    """One effect on a host or at the provider, of the runner `name`. `after` is reached only on success."""
    reach(f"before:{effect}", f"before:{effect}:{name}")
    yield
    reach(f"after:{effect}", f"after:{effect}:{name}")


def in_transaction(name: str) -> str:
    """The place of death in the transaction `name`, in the words of transaction.Transaction."""
    prefix = f"host:{name}:"
    return next((point.removeprefix(prefix) for point in _wished() if point.startswith(prefix)), "")


def after_transaction(name: str, status: int) -> None:
    """Die with the host's script."""
    if status == _KILLED and in_transaction(name):
        os.kill(os.getpid(), signal.SIGKILL)


def in_unit() -> str:
    return next((point for point in _wished() if point.startswith("unit:")), "")


def _wished() -> tuple[str, ...]:
    return tuple(os.environ.get(VARIABLE, "").split(",")) if VARIABLE in os.environ else ()
