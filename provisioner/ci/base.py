"""A provider of CI by intent: the verbs' requests to GitLab, or to another, and its nouns for people.

    look       what the provider has of one host, by id and by mark; what becomes of its runners follows from that
    enrol      make a runner, or renew its credential
    adjust     change the settings that the provider keeps
    confirm    whether a process of the runner asks for jobs
    quiesce    no more jobs; `running_jobs` are then waited for, `resume` is the way back
    withdraw   gone, and seen gone
    listed     all of ours, for `prune` and for hosts that left the inventory

A provider knows no host: it gets names, marks and the journal's ids, and answers with values. Ids are opaque here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from provisioner.model import HostSpec, Identity, Mark, RunnerSpec, Secret


@dataclass(frozen=True, slots=True)
class Words:
    """The provider's nouns, as people read them. `key` begins a plan's lines; `name` is the server's.

    `runner` is the provider's object for one runner of a host. `process` is its program that asks for jobs, and
    `credential` the secret to log in with. All in the singular, with a plural in -s.
    """

    key: str
    name: str
    runner: str
    process: str
    credential: str


@dataclass(frozen=True, slots=True)
class HostSide:
    """The provider's part on the machine, beside templates/core.

    `templates` is its folder below templates/, `files` are pushed from there. `address` is the setting of the module
    that holds `Server.url`. Its unit for a runner is nixprov-runner-NAME.service, and
    reads /var/lib/nixprov/secrets/NAME.token. `end_jobs`: the signal that ends the unit's jobs at once.
    """

    templates: str
    files: tuple[str, ...]
    address: str
    end_jobs: str


@dataclass(frozen=True, slots=True)
class Server:
    """One CI server, as known outside of its provider.

    `url` is as hosts reach it, in one spelling; the journal names it beside each id.
    """

    words: Words
    host_side: HostSide
    url: str


@dataclass(frozen=True, slots=True)
class Credential:
    """A new runner, or a renewed one: the provider shows `secret` only once. `expires_at` is ISO 8601, or None."""

    id: Identity
    secret: Secret
    expires_at: str | None = None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """One runner as the provider has it; `state` is the provider's own word.

    `polls`: by the provider's word, a process of it asks for jobs now.
    """

    id: Identity
    mark: Mark | None
    state: str
    polls: bool = False
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Presence:
    """One process that works for a runner. `contacted_at` is ISO 8601 as the provider says it, or None.

    `remark`: a reason to list it in `prune`; empty for none.
    """

    name: str
    state: str
    contacted_at: str | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """One runner of a host: the id in its journal, and whether the credential of that runner is there."""

    id: Identity
    has_credential: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that is not as wanted; `before` is the provider's value, `after` the wanted one, both for people."""

    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before} -> {self.after}"


class RunnerVerb(Enum):
    KEEP = "keep"
    CREATE = "create"
    UPDATE = "update"
    RESET_TOKEN = "reset token"  # noqa: S105 - a verb
    DELETE = "delete"

    @property
    def makes_a_token(self) -> bool:
        return self in (RunnerVerb.CREATE, RunnerVerb.RESET_TOKEN)


@dataclass(frozen=True, slots=True)
class RunnerAction:
    """The change to one runner at the provider; `id` is None when it is still to be created.

    `differences` are the settings that `adjust` is to change; `settings` those of a creation, by name and for people.
    """

    name: str
    verb: RunnerVerb
    why: str = ""
    id: Identity | None = None
    differences: tuple[Difference, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()


class View(Protocol):
    """The provider's answer about one host, as a value: all decisions from it are pure."""

    @property
    def found(self) -> Mapping[str, Sequence[Enrolled]]:
        """By the names of the wanted runners; empty for one that the provider does not have."""

    def to_have(
        self, spec: HostSpec, machine: str, held: Mapping[str, Held], *, renew: bool = False
    ) -> Sequence[RunnerAction]:
        """The actions that make it as `spec` has it; `held` is by runner name; `renew`: new credentials throughout.

        Actions with DELETE are done last, once the host is confirmed. A provider whose old and new credentials may
        overlap then creates first, and deletes the old one so.
        """

    def to_lose(self) -> Sequence[RunnerAction]:
        """The actions that leave nothing of the host there."""


class Provider(Protocol):
    """One CI server seen with one credential of the operator. Every method is safe to call from several threads.

    Calls raise CiRefused (the provider understood and said no: a repetition is useless). They raise CiUnavailable (no
    usable answer; a later run may succeed). They raise no exception of a library below.
    """

    @property
    def server(self) -> Server: ...

    @property
    def warnings(self) -> Sequence[str]:
        """Lines to show once about the way to the server, such as a token that others can read."""

    @property
    def writes(self) -> int:
        """The number of changing calls that reached the server so far."""

    def check(self) -> None:
        """Check that the operator's credential is accepted, so that a run fails before it touches a host."""

    def look(self, spec: HostSpec, machine: str, known: Collection[Identity]) -> View:
        """The host's runners: those with the mark of `machine` where `spec` looks for it, and the ids `known`.

        Lists that grow with the number of hosts are read once for the life of the provider.
        """

    def enrol(self, spec: RunnerSpec, mark: Mark, runner: Identity | None = None) -> Credential:
        """Make a runner, or renew the credential of `runner`; the old one is dead from then on.

        Never twice: after an unclear answer the provider looks for the new runner by its mark. CiUnavailable of a
        renewal leaves unclear whether the old credential still counts; CiRefused means that it does.
        """

    def adjust(self, runner: Identity, spec: RunnerSpec, mark: Mark) -> None:
        """Make all settings that the provider keeps as wanted."""

    def presences(self, runner: Identity) -> Sequence[Presence]:
        """The processes that work for the runner; empty for a fresh or unknown one."""

    def confirm(self, runner: Identity) -> bool:
        """Whether a process of the runner has asked for jobs; each provider has its own proof of that."""

    def quiesce(self, runner: Identity) -> bool:
        """Give it no more jobs. True: `running_jobs` are to be waited for before its unit is stopped.

        False: it is not there, or its unit finishes its jobs by itself as it stops.
        """

    def running_jobs(self, runner: Identity) -> int: ...

    def is_quiet(self, runner: Identity) -> bool:
        """Whether it is there and gets no jobs."""

    def resume(self, runner: Identity) -> None:
        """Undo `quiesce`; nothing to do for one that is gone."""

    def withdraw(self, runner: Identity) -> None:
        """Delete it with its processes and see it gone; a missing one is fine. Else raises CiUnavailable."""

    def listed(self, hosts: Iterable[HostSpec]) -> Sequence[Enrolled]:
        """All runners with a mark, wherever a runner of these hosts could be."""

    def find(self, runner: Identity) -> Enrolled | None: ...

    def close(self) -> None:
        """Give back the connections."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the command line for the provider; all of them take one value."""

    flag: str
    metavar: str
    help: str

    @property
    def parameter(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Kind:
    """A provider before it is connected: its facts for a command line, a page and a machine.

    `variables` are those of the environment, each with its meaning. `secrets` is the shape of the provider's
    credentials, a regular expression whose first group may be shown. `identify` gives the id that a person means by a
    word, None where it can only be a host's name. `connect` takes the environment and the options' values by
    `Option.parameter`, sends nothing, and raises ConfigError.
    """

    words: Words
    host_side: HostSide
    options: tuple[Option, ...]
    variables: tuple[tuple[str, str], ...]
    secrets: str
    identify: Callable[[str], Identity | None]
    connect: Callable[[Mapping[str, str], Mapping[str, str]], Provider]
