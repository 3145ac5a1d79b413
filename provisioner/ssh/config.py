"""Where a connection goes: the inventory's words and the operator's ssh_config, made one `Endpoint`.

Resolution is OpenSSH's own: `ssh -G` gets what the inventory says as command line options, so Include, Match and the
order of precedence are right by construction (ssh_config(5): the first value obtained is used). Without an ssh binary
paramiko's reader is used, which does not follow Include; `Endpoint.warnings` says so then.

Must not know: sockets, keys, sessions. Nothing here opens a connection.

One deliberate difference from OpenSSH: a jump host also sees the known_hosts files and the identity that the inventory
gives for the machine behind it. OpenSSH passes neither on, and an inventory has no other place to name them.
"""

from __future__ import annotations

import functools
import getpass
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from typing_extensions import override

from provisioner import limits
from provisioner.environment import ask
from provisioner.errors import Unreachable
from provisioner.model import Connection
from provisioner.paths import expanded

RESOLVE_TIMEOUT_S: Final = 20.0
MAX_HOPS: Final = 8
KEEPALIVE_COUNT: Final = 3
SYSTEM_CONFIG: Final = Path("/etc/ssh/ssh_config")

# Options that say whom to trust or what to log in with, and that nothing here acts on: better said than dropped.
_NOT_SUPPORTED: Final = ("revokedhostkeys", "knownhostscommand", "pkcs11provider")

_DEFAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "identityfile": ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"),
    "userknownhostsfile": ("~/.ssh/known_hosts ~/.ssh/known_hosts2",),
    "globalknownhostsfile": ("/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",),
}

_DESTINATION: Final = re.compile(
    r"(?:ssh://)?(?:(?P<user>.+)@)?(?:\[(?P<bracketed>[^]]+)]|(?P<host>[^:/]+))(?::(?P<port>\d+))?/?"
)

_Values = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class SshOptions:
    """What the operator asks of every connection of a run.

    `retries` counts further attempts after the first. `known_hosts` replaces the user's files; the first is the one
    that new keys are recorded in. `config_file` is read instead of ~/.ssh/config and the system's (as `ssh -F`);
    with `use_ssh_config` off none is read. A ConnectTimeout or ServerAliveInterval of an inventory or ssh_config is
    nearer to the host and wins over the two numbers here.
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
    """One machine on the way and how to get in, all defaults filled in.

    `gateway` is the jump host to come from; `identity_agent` is a socket's path, "none", or None for SSH_AUTH_SOCK.
    `explicit_identities` are those the inventory names. `accept_new` covers StrictHostKeyChecking accept-new, no and
    off: a changed key is refused whatever the configuration says.
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
        """The name its key goes by in known_hosts: `alias`, `host` or `[host]:port` (sshd(8), SSH_KNOWN_HOSTS)."""
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
    """What is asked of the resolver: a destination and what takes precedence over the files."""

    alias: str
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def resolve(host: str, connection: Connection, options: SshOptions) -> Endpoint:
    """Ask OpenSSH where `connection` leads; `host` is the inventory's name, for errors.

    Raises Unreachable when ssh cannot make sense of the configuration or the jump hosts lead nowhere.
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
        values, warnings = self._values(target)
        endpoint = _read(target, values, self.options, warnings)
        jump = _one(values, "proxyjump")
        return self._behind(endpoint, jump, depth) if jump else endpoint

    def _values(self, target: _Target) -> tuple[_Values, tuple[str, ...]]:
        ssh = shutil.which("ssh")
        if ssh is None:
            return _without_ssh(target, self.options)
        try:
            return _ask_ssh((ssh, *_arguments(target, self.options))), ()
        except (OSError, subprocess.SubprocessError) as error:
            raise Unreachable(
                self.host,
                f"ssh cannot resolve {target.alias}: {_last_line(error)}",
                hint=f"see what it says: {shlex.join(('ssh', *_arguments(target, self.options)))}",
            ) from error

    def _behind(self, endpoint: Endpoint, jump: str, depth: int) -> Endpoint:
        """Put `endpoint` behind the last hop of `a,b`; that hop is in turn reached by way of the ones before it."""
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
        """`Host *` with a ProxyJump also matches the jump host, which is not to be reached by way of itself."""
        values, _ = self._values(hop)
        found = _read(hop, values, self.options, ())
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
    """The command line after `ssh`: what stands first wins, so what is nearest to the operator stands first."""
    arguments = ["-G"]
    if not options.use_ssh_config:
        arguments += ["-F", "none"]
    elif options.config_file is not None:
        arguments += ["-F", str(options.config_file)]
    if options.accept_new_host_keys:
        arguments += ["-o", "StrictHostKeyChecking=accept-new"]
    arguments += ["-p", str(target.port)] if target.port else []
    arguments += ["-l", target.user] if target.user else []
    # Not -i: ssh drops such a file when it is missing and goes on with its defaults, and nobody is told.
    arguments += ["-o", f'IdentityFile="{target.identity_file}"'] if target.identity_file else []
    for name, value in target.options.items():
        arguments += ["-o", f"{name}={value}"]
    # What follows `--` is no option, whatever an inventory says.
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


def _without_ssh(target: _Target, options: SshOptions) -> tuple[_Values, tuple[str, ...]]:
    """Do what can be done with paramiko's reader, which takes an unknown Match for true, and runs exec on our stdin."""
    import paramiko

    files = [options.config_file] if options.config_file else [Path("~/.ssh/config").expanduser(), SYSTEM_CONFIG]
    texts = [f.read_text(errors="replace") for f in files if options.use_ssh_config and f.is_file()]
    text, left_out = _followed("\n".join(texts))
    try:
        found = paramiko.SSHConfig.from_text("\n".join((*_first_lines(target, options), text))).lookup(target.alias)
    except (paramiko.SSHException, ValueError) as error:
        raise Unreachable(target.alias, f"ssh_config cannot be read: {error}", hint="install the ssh client") from error
    values = {name: tuple(value) if isinstance(value, list) else (str(value),) for name, value in found.items()}
    return {**_DEFAULTS, **values}, tuple(
        f"no ssh binary here: {word} in ssh_config is not followed" for word in left_out
    )


def _first_lines(target: _Target, options: SshOptions) -> list[str]:
    """What takes precedence, as the first lines of a configuration."""
    lines = ["Host *"]
    lines += ["StrictHostKeyChecking accept-new"] if options.accept_new_host_keys else []
    lines += [f"Port {target.port}"] if target.port else []
    lines += [f"User {target.user}"] if target.user else []
    lines += [f"IdentityFile {target.identity_file}"] if target.identity_file else []
    return lines + [f"{name} {value}" for name, value in target.options.items()]


def _followed(text: str) -> tuple[str, list[str]]:
    """Take out Include lines and Match blocks, and say which of the two there were."""
    kept, left_out, in_match = [], dict[str, None](), False
    for line in text.splitlines():
        word = line.strip().partition(" ")[0].lower()
        if word in {"host", "match"}:
            in_match = word == "match"
        if word in {"match", "include"}:
            left_out[word.capitalize()] = None
        elif not in_match:
            kept.append(line)
    return "\n".join(kept), list(left_out)


def _one(values: _Values, name: str, default: str = "") -> str:
    value = values.get(name, (default,))[0]
    return default if value.lower() == "none" else value


def _read(target: _Target, values: _Values, options: SshOptions, warnings: tuple[str, ...]) -> Endpoint:
    user = _one(values, "user") or getpass.getuser()
    hostname = _one(values, "hostname", target.alias)
    port = int(_one(values, "port", "22"))
    expand = _Expander(target.alias, hostname, port, user)
    explicit = expand.paths((target.identity_file,) if target.identity_file else ())
    agent = values.get("identityagent", ("SSH_AUTH_SOCK",))[0]
    return Endpoint(
        alias=target.alias,
        hostname=hostname,
        port=port,
        user=user,
        identity_files=expand.paths(values.get("identityfile", ())),
        certificate_files=expand.paths(values.get("certificatefile", ())),
        explicit_identities=explicit,
        identities_only=_one(values, "identitiesonly", "no") == "yes",
        identity_agent=None if agent == "SSH_AUTH_SOCK" else agent if agent == "none" else expand(agent),
        user_known_hosts=options.known_hosts or _known_hosts("userknownhostsfile", target, values, expand),
        global_known_hosts=_known_hosts("globalknownhostsfile", target, values, expand),
        accept_new=_one(values, "stricthostkeychecking", "ask").lower() in {"accept-new", "no", "off", "false"},
        hash_known_hosts=_one(values, "hashknownhosts", "no") == "yes",
        host_key_alias=_one(values, "hostkeyalias") or None,
        connect_timeout_s=float(_one(values, "connecttimeout") or options.connect_timeout_s),
        keepalive_s=float(_one(values, "serveraliveinterval", "0")) or options.keepalive_s,
        keepalive_count=int(_one(values, "serveralivecountmax") or KEEPALIVE_COUNT),
        address_family=_one(values, "addressfamily", "any"),
        bind_address=_one(values, "bindaddress") or None,
        proxy_command=expand(_one(values, "proxycommand"), home=False) or None,
        gateway=None,
        warnings=warnings
        + tuple(f"{name} is not supported and not used" for name in _NOT_SUPPORTED if _one(values, name)),
    )


def _known_hosts(name: str, target: _Target, values: _Values, expand: _Expander) -> tuple[Path, ...]:
    """`ssh -G` prints several paths on one line without quotes: what the inventory says is read from there."""
    given = target.options.get(name)
    words = shlex.split(given) if given else _one(values, name).split()
    return expand.paths(tuple(words))


@dataclass(frozen=True, slots=True)
class _Expander:
    """ssh_config(5), TOKENS: those that can be known here; any other is left as it is."""

    alias: str
    hostname: str
    port: int
    user: str

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
        return tuple(Path(self(text.strip('"'))) for text in texts if text.lower() != "none")
