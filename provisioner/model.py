"""The values nixprov thinks in: frozen, typed, without I/O. Words as in docs/architecture.md."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, Self, TypeAlias, TypeVar, final

from typing_extensions import override

MARK_PATTERN: Final = re.compile(r"\[nixprov (?P<host>[^\s/\]]+)/(?P<runner>[^\s/\]]+) (?P<machine>[0-9a-f]{12})\]")
NAME_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
# A provider's id of a runner, opaque to all others; GitLab's are numbers.
Identity: TypeAlias = int | str


Key = TypeVar("Key")
Value_co = TypeVar("Value_co", covariant=True)


@final
class FrozenDict(Mapping[Key, Value_co], Generic[Key, Value_co]):
    """A mapping that cannot be changed, equal to any of the same items. It pickles; MappingProxyType does not."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[Key, Value_co] | None = None) -> None:
        self._items = dict(items or {})

    @override
    def __getitem__(self, key: Key) -> Value_co:
        return self._items[key]

    @override
    def __iter__(self) -> Iterator[Key]:
        return iter(self._items)

    @override
    def __len__(self) -> int:
        return len(self._items)

    @override
    def __repr__(self) -> str:
        return f"FrozenDict({self._items!r})"

    @override
    def __hash__(self) -> int:
        """Raises TypeError where a value has no hash."""
        return hash(frozenset(self._items.items()))


@final
class Secret:
    """A string that prints as stars everywhere; only `reveal()` gives it away.

    Equal to other secrets of the same value, and to nothing else. Refuses to be pickled: see `provisioner.sealing`.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled; provisioner.sealing seals it")


class RunnerType(Enum):
    """The users of a runner, in the words of GitLab's API (doc/api/users, "Create a runner")."""

    INSTANCE = "instance_type"
    GROUP = "group_type"
    PROJECT = "project_type"

    @property
    def needs_owner(self) -> bool:
        return self is not RunnerType.INSTANCE

    @classmethod
    def parse(cls, text: str) -> Self:
        """`instance`, `group`, `project`, with or without `_type`. Raises ValueError."""
        return cls(text if text.endswith("_type") else f"{text}_type")


class AccessLevel(Enum):
    NOT_PROTECTED = "not_protected"
    REF_PROTECTED = "ref_protected"


class Trust(Enum):
    """The host's Nix treats a job as this user. PLAIN: as root of the host, where the job is root in its container."""

    NONE = "none"
    PLAIN = "plain"


class Engine(Enum):
    """The container engine for jobs: a podman of ours, or the Docker that the host has."""

    PODMAN = "podman"
    DOCKER = "docker"


class Capability(Enum):
    """Extra capabilities of a job's own container: capabilities(7), but for those that reach out of it."""

    AUDIT_WRITE = "AUDIT_WRITE"
    IPC_LOCK = "IPC_LOCK"
    MKNOD = "MKNOD"
    NET_ADMIN = "NET_ADMIN"
    NET_RAW = "NET_RAW"
    SYS_NICE = "SYS_NICE"
    SYS_PTRACE = "SYS_PTRACE"


@dataclass(frozen=True, slots=True)
class Become:
    """The way to become root when the login user is not."""

    method: str = "sudo"
    user: str = "root"
    password: Secret | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """The address and user to log in; None leaves the choice to ssh_config and the defaults.

    `options` are OpenSSH options by lower-case name (from ansible_ssh_common_args and the like).
    """

    address: str
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    become: Become | None = None
    options: Mapping[str, str] = FrozenDict()


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """One runner that is wanted on one host.

    `owner` is a group or project, numeric id or full path, for those types. `maximum_timeout_s` is in seconds, at least
    600; None is GitLab's default. From `concurrent` (jobs at once) on, None or empty means the module's default
    (templates/core/options.nix). `memory` and `cpus` are of one container, in Docker's spelling. `cap_add` is beside
    the usual ones.
    """

    name: str = "default"
    type: RunnerType = RunnerType.INSTANCE
    owner: str | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    run_untagged: bool = True
    locked: bool = False
    access_level: AccessLevel = AccessLevel.NOT_PROTECTED
    maximum_timeout_s: int | None = None
    paused: bool = False
    maintenance_note: str = ""
    concurrent: int | None = None
    image: str | None = None
    allowed_images: tuple[str, ...] = ()
    memory: str | None = None
    cpus: str | None = None
    no_new_privileges: bool | None = None
    cap_add: tuple[Capability, ...] = ()
    stop_timeout_s: int | None = None
    environment: Mapping[str, str] = FrozenDict()


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """The module's settings for one host, beside its runners; a missing one has the module's default.

    `settings` are options of templates/core/options.nix by group and name, such as `limits` and `buildTimeout`.
    `accepted_advisories` are ids (templates/core/advisories.toml).
    `share_socket`: the host's users may use the jobs' socket too.
    """

    settings: Mapping[str, Mapping[str, int]] = FrozenDict()
    trust: Trust = Trust.NONE
    engine: Engine = Engine.PODMAN
    accepted_advisories: tuple[str, ...] = ()
    share_socket: bool = False


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One machine of the inventory with all that is wanted on it; `vars` are all its variables, merged."""

    name: str
    connection: Connection
    runners: tuple[RunnerSpec, ...] = (RunnerSpec(),)
    module: ModuleSpec = ModuleSpec()
    groups: tuple[str, ...] = ()
    vars: Mapping[str, object] = FrozenDict()


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of ours in a runner's description: `[nixprov HOST/RUNNER MACHINE]`.

    HOST is the inventory's name, for people and for `down --gone`. MACHINE is a hash of the machine's id: two
    inventories with a `host1` each never take each other's runner.
    """

    host: str
    runner: str
    machine: str

    def __str__(self) -> str:
        return f"[nixprov {self.host}/{self.runner} {self.machine}]"

    @classmethod
    def find(cls, description: str) -> Self | None:
        found = MARK_PATTERN.search(description)
        return cls(found["host"], found["runner"], found["machine"]) if found else None

    def describe(self, text: str) -> str:
        """The description that the provider gets: the operator's text, then the mark."""
        return f"{text} {self}".lstrip()

    def is_same_runner(self, other: Mark) -> bool:
        return (self.machine, self.runner) == (other.machine, other.runner)


def machine_key(machine_id: str) -> str:
    """Hash a machine id for use outside the machine, as machine-id(5) asks (12 hex digits)."""
    return hashlib.sha256(b"nixprov\0" + machine_id.strip().encode()).hexdigest()[:12]
