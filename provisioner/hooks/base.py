"""The protocol of a hook: one way for our module into the configuration of a host's owner.

A hook is a frozen value and talks to no host. It declares its records, detects its hosts, and returns edits of the
owner's files as transaction parts. Each kind is one file and one entry in HOOKS.
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
    """One way into a configuration (ADR 0028). `kind` is its name in the journal and never changes."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def configuration(self) -> Configuration:
        """The owner's files, and the way to make a system of them with our module."""

    @property
    @abstractmethod
    def module(self) -> str:
        """The folder of our module's files."""

    @property
    def folder(self) -> str:
        return self.configuration.folder

    @abstractmethod
    def things(self) -> tuple[Thing, ...]:
        """Things for the probe, in records that no other hook has."""

    @abstractmethod
    def real_folder(self, facts: Facts) -> str:
        """The configuration's folder behind all links."""

    @abstractmethod
    def folder_time(self, facts: Facts) -> int | None:
        """The modification time of that folder, in seconds of the epoch; None when unknown."""

    @abstractmethod
    def detect(self, facts: Facts) -> bool:
        """Whether this is the way into this host's configuration."""

    @abstractmethod
    def refusal(self, facts: Facts) -> HookRefused:
        """The reason to refuse a host without any hook, with a hint for its operator."""

    @abstractmethod
    def missing(self, facts: Facts) -> str:
        """The reason why the module is not in, or empty. Raises HookRefused when it cannot be put in."""

    @abstractmethod
    def is_in(self, facts: Facts) -> bool:
        """Whether the configuration, as it is, has our module in it."""

    @abstractmethod
    def record(self, facts: Facts) -> HookRecord:
        """The owner's file before the first edit, for the journal. Raises HookRefused."""

    @abstractmethod
    def put_in(self, facts: Facts) -> tuple[Part, ...]:
        """Raises HookRefused."""

    @abstractmethod
    def remains(self, facts: Facts) -> tuple[str, ...]:
        """Traces of it in the owner's files, in words; empty when `take_out` has nothing to do."""

    @abstractmethod
    def take_out(self, facts: Facts, before: HookRecord | None) -> tuple[Part, ...]:
        """Raises HookRefused when it cannot be done safely."""

    @abstractmethod
    def give_back(self, before: Facts, now: Facts, record: HookRecord | None) -> tuple[Part, ...]:
        """Back from `now` to `before`, for a run that failed."""

    @abstractmethod
    def is_edited_since(self, facts: Facts, before: HookRecord) -> bool:
        """Whether the owner's file differs from the one before our first edit."""

    @abstractmethod
    def is_our_edit(self, facts: Facts, before: HookRecord | None) -> bool:
        """Whether our edit changed the owner's own file."""

    @property
    @abstractmethod
    def by_hand(self) -> str:
        """Advice for a configuration out of our reach: the line to add."""
