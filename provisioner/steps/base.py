"""What a step is: one kind of thing that we own on a host, reversible alone.

Steps are pure but for their texts: `probe` is shell for the one probe, `compare` looks at what came back, `write` and
`remove` say what a transaction would do. None of them talks to a host.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.machine.transaction import Part
from provisioner.model import FrozenDict, HostSpec, Secret


class State(Enum):
    ABSENT = "absent"
    PRESENT = "present"
    DRIFTED = "drifted"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a host differs from what is wanted; `why` is for people, one line, and never holds a secret."""

    state: State
    why: str = ""

    @property
    def is_present(self) -> bool:
        return self.state is State.PRESENT


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that a host should have: the module's files by name, their revision, and the secrets that are at hand.

    `version` is of the nixprov that wants it: it is in no file, so that a new one alone changes no host.
    `token_versions` names which token each runner's secret should be; `tokens` holds only those made in this run.
    """

    host: HostSpec
    files: Mapping[str, bytes]
    revision: str
    version: str
    token_versions: Mapping[str, str]
    tokens: Mapping[str, Secret] = FrozenDict()


class Step(ABC):
    """One kind of thing; docs/adr/0001 says why steps return data. What a step has nothing to say to, it leaves out.

    `feeds_system`: a change of it needs a switch, so it is taken back before the switch of `down`; what the running
    system itself uses goes after it.
    """

    name: ClassVar[str]
    feeds_system: ClassVar[bool] = False

    @abstractmethod
    def probe(self) -> str:
        """Shell text for the probe, in the functions of facts.PROLOGUE."""

    def compare(self, wanted: Wanted, facts: Facts, journal: Journal) -> Comparison:
        """Raises HostError only for what makes the host unusable for us."""
        return Comparison(State.PRESENT)

    def write(self, wanted: Wanted, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        return ()

    @abstractmethod
    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        """What of ours is on the host, in words; empty when `remove` has nothing to do."""

    @abstractmethod
    def remove(self, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        """Raises HookRefused when it cannot be done surely."""

    def restore(self, before: Facts, now: Facts, journal: Journal) -> tuple[Part, ...]:
        """Back from `now` to `before`, for a run that failed."""
        return ()
