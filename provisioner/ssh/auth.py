"""Login with keys, in OpenSSH's order, and an exact list of the tried keys when none fits.

The order is that of sshconnect2.c, pubkey_prepare. First come the agent's keys of the configuration. Its other
keys follow unless IdentitiesOnly, and then keys that are only in files. Each comes with its certificate first.
One change: the inventory's identity is the first of all. An agent full of other keys would use up the server's patience
(MaxAuthTries).

Passwords and keyboard-interactive are not offered: a run over many hosts has nobody to ask.
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from paramiko.agent import AgentSSH

from provisioner.errors import HostRefused
from provisioner.ssh.config import Endpoint
from provisioner.ssh.known_hosts import fingerprint

AGENT_TIMEOUT_S: Final = 10.0


class Agent(AgentSSH):
    """The agent behind a socket. paramiko's own knows SSH_AUTH_SOCK only, and leaks the socket of a dead agent."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX)
        # A hanging agent (its far end is a sleeping laptop) must not hold the run. No Ctrl-C could end it then.
        connection.settimeout(AGENT_TIMEOUT_S)
        try:
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined]
            # A signature may wait for a person's finger; the login's own limit ends that.
            connection.settimeout(None)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key to try and its name for an error."""

    key: paramiko.PKey
    name: str
    certificate: str | None = None

    def prepared(self) -> paramiko.PKey:
        """The key in the form for the server: paramiko offers the certificate whenever one is attached."""
        self.key.public_blob = None
        if self.certificate is not None:
            self.key.load_certificate(self.certificate)
        return self.key


@dataclass(slots=True)
class KeyLogin:
    """An authentication strategy for `paramiko.SSHClient.connect`, which calls `authenticate` once."""

    host: str
    endpoint: Endpoint
    tried: list[str] = field(default_factory=list)
    locked: list[Path] = field(default_factory=list)

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Log in or raise HostRefused with the keys that were tried and the methods that the server offers."""
        methods = _methods(transport, self.endpoint.user)
        if methods is None:
            return
        if "publickey" not in methods:
            raise self._refused(f"the server takes {_list(methods)}, and nixprov logs in with keys only")
        agent = self._agent()
        try:
            for candidate in self._candidates(agent):
                if self._is_accepted(transport, candidate):
                    return
        finally:
            if agent is not None:
                agent.close()
        raise self._refused(f"no key is accepted; {self._story()}; the server offers {_list(methods)}")

    def _is_accepted(self, transport: paramiko.Transport, candidate: Candidate) -> bool:
        self.tried.append(candidate.name)
        try:
            missing = transport.auth_publickey(self.endpoint.user, candidate.prepared())
        except (paramiko.SSHException, ValueError) as error:
            if not transport.is_active():
                raise self._refused(f"the server gave up after {len(self.tried)} keys; {self._story()}") from error
            return False
        if missing:
            raise self._refused(f"{candidate.name} is accepted, but the server wants {_list(missing)} as well")
        return True

    def _candidates(self, agent: Agent | None) -> Iterator[Candidate]:
        """Each key once, best first; files are read only when their turn comes."""
        held = {key.asbytes(): key for key in (agent.get_keys() if agent else ())}
        explicit = self.endpoint.explicit_identities
        others = [path for path in self.endpoint.identity_files if path not in explicit]
        in_agent = [path for path in others if _public_part(path) in held]
        seen: set[bytes] = set()
        for path in (*explicit, *in_agent):
            yield from self._of_file(path, held, seen)
        if not self.endpoint.identities_only:
            for blob, key in held.items():
                yield from self._once(key, f"{key.comment or 'a key'} of the agent", blob, seen, None)
        for path in others:
            yield from self._of_file(path, held, seen)

    def _of_file(self, path: Path, held: dict[bytes, paramiko.AgentKey], seen: set[bytes]) -> Iterator[Candidate]:
        certificate = path.with_name(path.name + "-cert.pub")
        blob = _public_part(path)
        if blob in held:
            yield from self._once(held[blob], f"{path} (agent)", blob, seen, certificate)
            return
        key = self._load(path)
        if key is not None:
            yield from self._once(key, str(path), key.asbytes(), seen, certificate)

    def _once(
        self, key: paramiko.PKey, name: str, blob: bytes, seen: set[bytes], beside: Path | None
    ) -> Iterator[Candidate]:
        if blob in seen:
            return
        seen.add(blob)
        files = (*self.endpoint.certificate_files, *((beside,) if beside else ()))
        for text in (_certificate(file, blob) for file in files):
            if text is not None:
                yield Candidate(key, f"{name} with its certificate", text)
        yield Candidate(key, f"{name} ({fingerprint(blob)})")

    def _load(self, path: Path) -> paramiko.PKey | None:
        """Read a private key; None, and a note for the error, when the file is missing or no readable key."""
        try:
            key = paramiko.PKey.from_path(path)
        except FileNotFoundError:
            if path in self.endpoint.explicit_identities:
                self.tried.append(f"{path} (no such file)")
            return None
        except TypeError:
            # `cryptography` raises this when a passphrase is needed. There is nobody to ask.
            self.locked.append(path)
            return None
        except (
            OSError,
            ValueError,
            UnsupportedAlgorithm,
            paramiko.SSHException,
            paramiko.pkey.UnknownKeyType,
        ) as error:
            self.tried.append(f"{path} (unreadable: {type(error).__name__})")
            return None
        return key

    def _agent(self) -> Agent | None:
        """Connect to the agent. One without an answer counts as none: the files may do."""
        path = self.endpoint.identity_agent or os.environ.get("SSH_AUTH_SOCK")
        if not path or path == "none":
            return None
        try:
            return Agent(path)
        except (OSError, paramiko.SSHException) as error:
            self.tried.append(f"the agent ({error})")
            return None

    def _story(self) -> str:
        tried = f"tried {', '.join(self.tried)}" if self.tried else "there was none to try"
        locked = f"; {', '.join(map(str, self.locked))} needs a passphrase" if self.locked else ""
        return tried + locked

    def _refused(self, why: str) -> HostRefused:
        if self.locked:
            hint = f"put it into an agent: ssh-add {self.locked[0]}"
        elif len(self.tried) > 3:  # noqa: PLR2004, half of sshd's MaxAuthTries
            hint = "name the right key in ansible_ssh_private_key_file"
        else:
            hint = f"add your public key to authorized_keys of {self.endpoint.user}, or name another user or key"
        return HostRefused(self.host, f"{self.endpoint} refuses the login: {why}", hint=hint)


def _methods(transport: paramiko.Transport, user: str) -> list[str] | None:
    """Ask for the server's methods by the request "none" (RFC 4252, 5.2); None when that already lets us in."""
    try:
        transport.auth_none(user)
    except paramiko.BadAuthenticationType as error:
        return list(error.allowed_types)
    return None


def _list(words: list[str]) -> str:
    return ", ".join(words) or "nothing"


def _public_part(path: Path) -> bytes | None:
    """The public key beside a private one, or the file's own if that is the public half of an agent's."""
    for file in (path.with_name(path.name + ".pub"), path):
        try:
            words = file.read_bytes().split(None, 2)
            if len(words) > 1 and words[0].startswith((b"ssh-", b"ecdsa-", b"sk-")):
                return base64.b64decode(words[1])
        except (OSError, ValueError):
            continue
    return None


def _certificate(file: Path, blob: bytes) -> str | None:
    """The text of a certificate file if it is over the key `blob`."""
    try:
        data = file.read_bytes()
        found = serialization.load_ssh_public_identity(data)
    except (OSError, ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(found, serialization.SSHCertificate):
        return None
    public = found.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return data.decode("ascii", "replace") if base64.b64decode(public.split()[1]) == blob else None
