"""How our module enters the configuration of a host's owner: what one way of it has to answer.

A hook is a frozen value. It declares what a probe must ask for it, says whether a host is its own, and gives edits of
the owner's files as transaction parts; it talks to no host. Each kind is one file and one entry in HOOKS.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from provisioner.errors import HookRefused
from provisioner.machine.configuration import Configuration
from provisioner.machine.facts import Facts
from provisioner.machine.journal import HookRecord
from provisioner.machine.things import Thing
from provisioner.machine.transaction import Part


class Hook(ABC):
    """One way into a configuration. `kind` is its name in the journal, for ever; docs/adr/0028 says why this cut."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def configuration(self) -> Configuration:
        """Where the owner's files are, and how a system is made of them with our module in it."""

    @property
    @abstractmethod
    def module(self) -> str:
        """The folder of our module's files."""

    @property
    def folder(self) -> str:
        return self.configuration.folder

    @abstractmethod
    def things(self) -> tuple[Thing, ...]:
        """What a probe asks for on behalf of this hook, in records that no other hook has."""

    @abstractmethod
    def real_folder(self, facts: Facts) -> str:
        """The configuration's folder behind all links."""

    @abstractmethod
    def folder_time(self, facts: Facts) -> int | None:
        """The modification time of that folder, in seconds of the epoch; None where nobody could say."""

    @abstractmethod
    def detect(self, facts: Facts) -> bool:
        """Whether this is the way into the host's configuration."""

    @abstractmethod
    def refusal(self, facts: Facts) -> HookRefused:
        """Of a host that it is not for: why, with a hint of what to do."""

    @abstractmethod
    def missing(self, facts: Facts) -> str:
        """Why the module is not in yet, in one line; empty when it is. Raises HookRefused when it cannot be put in."""

    @abstractmethod
    def is_in(self, facts: Facts) -> bool:
        """Whether the configuration, as it is, has our module in it."""

    @abstractmethod
    def record(self, facts: Facts) -> HookRecord:
        """What the journal must remember before the first edit. Raises HookRefused."""

    @abstractmethod
    def put_in(self, facts: Facts) -> tuple[Part, ...]:
        """Raises HookRefused."""

    @abstractmethod
    def remains(self, facts: Facts) -> tuple[str, ...]:
        """What is left of it in the owner's files, in words; empty when `take_out` has nothing to do."""

    @abstractmethod
    def take_out(self, facts: Facts, before: HookRecord | None) -> tuple[Part, ...]:
        """Raises HookRefused when it cannot be done surely."""

    @abstractmethod
    def give_back(self, before: Facts, now: Facts, record: HookRecord | None) -> tuple[Part, ...]:
        """Back from `now` to `before`, for a run that failed."""

    @abstractmethod
    def is_edited_since(self, facts: Facts, before: HookRecord) -> bool:
        """Whether the owner's file is another one than before our first edit."""

    @abstractmethod
    def is_our_edit(self, facts: Facts, before: HookRecord | None) -> bool:
        """Whether it was us who changed the owner's own file, so that without us it is another one."""

    @property
    @abstractmethod
    def by_hand(self) -> str:
        """For a person, where nixprov cannot: what to have in a configuration elsewhere."""
