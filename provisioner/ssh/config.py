"""The target of a connection: the inventory's words and the operator's ssh_config, made one `Endpoint`.

Resolution is OpenSSH's own: `ssh -G` gets the inventory's words as command line options. So Include, Match, units of
time and precedence are right by construction (ssh_config(5): the first value obtained is used).

Must not know: sockets, keys, sessions. Nothing here opens a connection.

One difference from OpenSSH is deliberate. A jump host also gets the inventory's known_hosts files and identity for the
machine behind it. OpenSSH passes neither on, and an inventory has no other place to name them.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from typing_extensions import override

from provisioner import limits
from provisioner.environment import ask
from provisioner.errors import Unreachable
from provisioner.model import Connection
from provisioner.paths import expanded

RESOLVE_TIMEOUT_S: Final = 20.0
MAX_HOPS: Final = 8

# Options about trust or login keys that have no effect here: a warning is better than silence.
_NOT_SUPPORTED: Final = ("revokedhostkeys", "knownhostscommand", "pkcs11provider")

_DESTINATION: Final = re.compile(
    r"(?:ssh://)?(?:(?P<user>.+)@)?(?:\[(?P<bracketed>[^]]+)]|(?P<host>[^:/]+))(?::(?P<port>\d+))?/?"
)

_Values = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class SshOptions:
    """The operator's options for every connection of a run.

    `retries` counts further attempts after the first. `known_hosts` replaces the user's files; new keys are recorded
    in the first. `config_file` is read instead of ~/.ssh/config and the system's (as `ssh -F`); without
    `use_ssh_config` none is read. A ConnectTimeout or ServerAliveInterval of an inventory or ssh_config is nearer to
    the host. It wins over the two numbers here.
    """

    connect_timeout_s: float = 10.0
    keepalive_s: float = 15.0
    retries: int = 2
    accept_new_host_keys: bool = False
    known_hosts: tuple[Path, ...] | None = None
    use_ssh_config: bool = True
    config_file: Path | None = None
    debug: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One machine on the way and its login, all defaults filled in.

    `gateway` is the jump host to come from; `identity_agent` is a socket's path, "none", or None for SSH_AUTH_SOCK.
    `explicit_identities` are those of the inventory. `accept_new` covers StrictHostKeyChecking accept-new, no and
    off: a changed key is refused under any configuration.
    """

    alias: str
    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    certificate_files: tuple[Path, ...]
    explicit_identities: tuple[Path, ...]
    identities_only: bool
    identity_agent: str | None
    user_known_hosts: tuple[Path, ...]
    global_known_hosts: tuple[Path, ...]
    accept_new: bool
    hash_known_hosts: bool
    host_key_alias: str | None
    connect_timeout_s: float
    keepalive_s: float
    keepalive_count: int
    address_family: str
    bind_address: str | None
    proxy_command: str | None
    gateway: Endpoint | None
    warnings: tuple[str, ...] = ()

    @property
    def known_hosts(self) -> tuple[Path, ...]:
        return self.user_known_hosts + self.global_known_hosts

    @property
    def known_as(self) -> str:
        """The name of its key in known_hosts: `alias`, `host` or `[host]:port` (sshd(8), SSH_KNOWN_HOSTS)."""
        if self.host_key_alias:
            return self.host_key_alias
        host = self.hostname.lower()
        return host if self.port == 22 else f"[{host}]:{self.port}"  # noqa: PLR2004, the port of ssh

    @override
    def __str__(self) -> str:
        host = f"[{self.hostname}]" if ":" in self.hostname else self.hostname
        return f"{self.user}@{host}" if self.port == 22 else f"{self.user}@{host}:{self.port}"  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class _Target:
    """A question to the resolver: a destination, and the values that take precedence over the files."""

    alias: str
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def resolve(host: str, connection: Connection, options: SshOptions) -> Endpoint:
    """Ask OpenSSH where `connection` leads; `host` is the inventory's name, for errors.

    Raises Unreachable when there is no ssh program, or it rejects the configuration, or the jump hosts never end.
    Source: ssh(1) -G; ssh_config(5).
    """
    target = _Target(connection.address, connection.port, connection.user, connection.identity_file, connection.options)
    return _Resolver(host, options).endpoint(target, depth=0)


@dataclass(frozen=True, slots=True)
class _Resolver:
    host: str
    options: SshOptions

    def endpoint(self, target: _Target, depth: int) -> Endpoint:
        if depth > MAX_HOPS:
            raise Unreachable(
                self.host,
                f"the jump hosts never end: {depth} deep at {target.alias}",
                hint="see ProxyJump in ssh_config",
            )
        values = self._values(target)
        endpoint = _read(target, values, self.options)
        jump = _Expander.of(target, values)(_one(values, "proxyjump"), home=False)
        return self._behind(endpoint, jump, depth) if jump else endpoint

    def _values(self, target: _Target) -> _Values:
        ssh = shutil.which("ssh")
        if ssh is None:
            raise Unreachable(
                self.host, "there is no ssh program to ask where its address leads", hint="install the OpenSSH client"
            )
        try:
            return _ask_ssh((ssh, *_arguments(target, self.options)))
        except (OSError, subprocess.SubprocessError) as error:
            raise Unreachable(
                self.host,
                f"ssh cannot resolve {target.alias}: {_last_line(error)}",
                hint=f"see its output: {shlex.join(('ssh', *_arguments(target, self.options)))}",
            ) from error

    def _behind(self, endpoint: Endpoint, jump: str, depth: int) -> Endpoint:
        """Put `endpoint` behind the last hop of `a,b`. That hop in turn is behind the ones before it."""
        *before, last = jump.split(",")
        hop = _destination(last)
        if self._is_itself(hop, endpoint):
            return endpoint
        via = {"proxyjump": ",".join(before)} if before else {}
        gateway = self.endpoint(replace(hop, options=via), depth + 1)
        return replace(
            endpoint, gateway=_with_trust_of(endpoint, gateway), warnings=endpoint.warnings + gateway.warnings
        )

    def _is_itself(self, hop: _Target, endpoint: Endpoint) -> bool:
        """Whether `hop` is `endpoint`. `Host *` with a ProxyJump also matches the jump host, which needs no jump."""
        found = _read(hop, self._values(hop), self.options)
        return (found.hostname, found.port) == (endpoint.hostname, endpoint.port)


def _with_trust_of(target: Endpoint, hop: Endpoint) -> Endpoint:
    return replace(
        hop,
        user_known_hosts=tuple(dict.fromkeys(hop.user_known_hosts + target.user_known_hosts)),
        identity_files=tuple(dict.fromkeys(hop.identity_files + target.explicit_identities)),
        gateway=_with_trust_of(target, hop.gateway) if hop.gateway else None,
    )


def _destination(text: str) -> _Target:
    """Read `[user@]host[:port]` or an ssh:// URI, as ssh(1) -J takes them."""
    found = _DESTINATION.fullmatch(text.strip())
    if found is None:
        return _Target(text.strip())
    port = int(found["port"]) if found["port"] else None
    return _Target(found["bracketed"] or found["host"], port, found["user"])


def _arguments(target: _Target, options: SshOptions) -> tuple[str, ...]:
    """The command line after `ssh`. The first value wins, so the values nearest to the operator come first."""
    arguments = ["-G"]
    if not options.use_ssh_config:
        arguments += ["-F", "none"]
    elif options.config_file is not None:
        arguments += ["-F", str(options.config_file)]
    if options.accept_new_host_keys:
        arguments += ["-o", "StrictHostKeyChecking=accept-new"]
    arguments += ["-p", str(target.port)] if target.port else []
    arguments += ["-l", target.user] if target.user else []
    # Not -i: ssh silently drops such a file when it is missing, and goes on with its defaults.
    arguments += ["-o", f'IdentityFile="{target.identity_file}"'] if target.identity_file else []
    for name, value in target.options.items():
        arguments += ["-o", f"{name}={value}"]
    # After `--` no word of an inventory becomes an option.
    return (*arguments, "--", target.alias)


@functools.lru_cache(maxsize=4096)
def _ask_ssh(argv: tuple[str, ...]) -> _Values:
    done = ask(argv, timeout_s=RESOLVE_TIMEOUT_S, limit=limits.SSH_WORDS, stdin=subprocess.DEVNULL)
    done.check_returncode()
    return _parse(done.stdout.decode("utf-8", "replace"))


def _parse(text: str) -> _Values:
    values: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        values[name] = (*values.get(name, ()), value)
    return values


def _last_line(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {error.timeout:g} s"
    stderr: bytes | None = getattr(error, "stderr", None)
    text = stderr.decode("utf-8", "replace") if stderr else str(error)
    return text.strip().splitlines()[-1]


def _one(values: _Values, name: str) -> str:
    """The value of an option; empty when it is unset, or set to none."""
    value = values.get(name, ("",))[0]
    return "" if value.lower() == "none" else value


def _read(target: _Target, values: _Values, options: SshOptions) -> Endpoint:
    """Read the answer of ssh. For hosts, users, ports, times and files of keys it has the defaults too."""
    expand = _Expander.of(target, values)
    explicit = expand.paths((target.identity_file,) if target.identity_file else ())
    return Endpoint(
        alias=target.alias,
        hostname=expand.hostname,
        port=expand.port,
        user=expand.user,
        identity_files=expand.paths(values.get("identityfile", ())),
        certificate_files=expand.paths(values.get("certificatefile", ())),
        explicit_identities=explicit,
        identities_only=_one(values, "identitiesonly") == "yes",
        identity_agent=_identity_agent(values, expand),
        user_known_hosts=options.known_hosts or _known_hosts("userknownhostsfile", target, values, expand),
        global_known_hosts=_known_hosts("globalknownhostsfile", target, values, expand),
        accept_new=_one(values, "stricthostkeychecking") in {"accept-new", "no", "off", "false"},
        hash_known_hosts=_one(values, "hashknownhosts") == "yes",
        host_key_alias=_one(values, "hostkeyalias") or None,
        connect_timeout_s=float(_one(values, "connecttimeout") or options.connect_timeout_s),
        keepalive_s=float(_one(values, "serveraliveinterval")) or options.keepalive_s,
        keepalive_count=int(_one(values, "serveralivecountmax")),
        address_family=_one(values, "addressfamily"),
        bind_address=_one(values, "bindaddress") or None,
        proxy_command=expand(_one(values, "proxycommand"), home=False) or None,
        gateway=None,
        warnings=tuple(f"{name} is not supported and not used" for name in _NOT_SUPPORTED if _one(values, name)),
    )


def _known_hosts(name: str, target: _Target, values: _Values, expand: _Expander) -> tuple[Path, ...]:
    """Paths of an option. `ssh -G` prints several without quotes, so an inventory's own value is split here instead."""
    given = target.options.get(name)
    words = shlex.split(given) if given else _one(values, name).split()
    return expand.paths(tuple(words))


def _identity_agent(values: _Values, expand: _Expander) -> str | None:
    """ssh_config(5), IdentityAgent: a path, none, SSH_AUTH_SOCK, or $NAME of another variable with the path."""
    said = values.get("identityagent", ("SSH_AUTH_SOCK",))[0]
    if said in {"none", "SSH_AUTH_SOCK"}:
        return None if said == "SSH_AUTH_SOCK" else said
    if said.startswith("$") and not said.startswith("${"):
        return os.environ.get(said[1:], "none")
    return expand(said)


@dataclass(frozen=True, slots=True)
class _Expander:
    """The tokens of ssh_config(5), TOKENS, that are known here; any other is left as it is."""

    alias: str
    hostname: str
    port: int
    user: str

    @classmethod
    def of(cls, target: _Target, values: _Values) -> Self:
        hostname, port, user = (values[name][0] for name in ("hostname", "port", "user"))
        return cls(target.alias, hostname, int(port), user)

    def __call__(self, text: str, *, home: bool = True) -> str:
        tokens = {
            "%": "%",
            "d": str(Path.home()),
            "h": self.hostname,
            "i": str(os.getuid()),
            "k": self.alias,
            "n": self.alias,
            "p": str(self.port),
            "r": self.user,
        }
        text = re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), text)
        text = re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), text) if home else text
        return str(expanded(text)) if home and text.startswith("~") else text

    def paths(self, texts: tuple[str, ...]) -> tuple[Path, ...]:
        return tuple(Path(self(text)) for text in texts if text.lower() != "none")
