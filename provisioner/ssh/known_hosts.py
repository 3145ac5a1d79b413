"""The check of host keys: known_hosts files, read and judged as OpenSSH does, and new keys recorded.

Format and rules: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". Host certificates: OpenSSH's PROTOCOL.certkeys, checked with
`cryptography`. Two rules are stricter than OpenSSH's. A key of another type than the known ones counts as changed.
There it counts as new, and accept-new would take it. A host certificate that names no host is refused.

Must not know: connections, ssh_config. A key is bytes here, the wire form of RFC 4253, section 6.6.
"""

from __future__ import annotations

import base64
import fcntl
import functools
import hashlib
import hmac
import os
import re
import shlex
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from typing_extensions import override

from provisioner.errors import HostKeyError

CERT_SUFFIX: Final = "-cert-v01@openssh.com"
# ssh-rsa (SHA-1) is left out on purpose. OpenSSH gave it up in 8.8; every NixOS since 20.09 signs with SHA-2.
ALGORITHMS: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


class Marker(Enum):
    NONE = ""
    CERT_AUTHORITY = "@cert-authority"
    REVOKED = "@revoked"


@dataclass(frozen=True, slots=True)
class OfferedKey:
    """The public key that a server proved to hold, and the certificate over it, if sent."""

    blob: bytes
    certificate: bytes | None = None

    @override
    def __str__(self) -> str:
        return f"{key_type(self.blob)} {fingerprint(self.blob)}"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One line of a known_hosts file; `line` counts from 1."""

    marker: Marker
    names: tuple[str, ...]
    blob: bytes
    file: Path
    line: int

    def matches(self, name: str) -> bool:
        """Match the list of patterns: a negated one that fits overrules all others."""
        fitting = [pattern for pattern in self.names if _fits(pattern.removeprefix("!"), name)]
        return bool(fitting) and not any(pattern.startswith("!") for pattern in fitting)

    @override
    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class KnownHosts:
    """All lines of some files, in order. A file that does not exist is empty, as for OpenSSH."""

    keys: tuple[KnownKey, ...]

    @classmethod
    def load(cls, files: tuple[Path, ...]) -> KnownHosts:
        return cls(tuple(key for file in files for key in _read(file)))

    def of(self, name: str, marker: Marker = Marker.NONE) -> list[KnownKey]:
        return [key for key in self.keys if key.marker is marker and key.matches(name)]

    def algorithms(self, name: str) -> tuple[str, ...]:
        """Host key algorithms in the order of preference: the ones with a known key come first.

        Otherwise a server known by its ed25519 key fails as soon as it prefers another.
        """
        known = {key_type(key.blob) for key in self.of(name)}
        preferred = [a for a in ALGORITHMS if _type_of_algorithm(a) in known]
        plain = [*preferred, *(a for a in ALGORITHMS if a not in preferred)]
        certified = [a + CERT_SUFFIX for a in plain] if self.of(name, Marker.CERT_AUTHORITY) else []
        return (*certified, *plain)


def check(host: str, name: str, offered: OfferedKey, known: KnownHosts) -> bool:
    """True when the key is known for `name` (`host`, `[host]:port` or an alias), False when `name` has no known key.

    Raises HostKeyError for a revoked key, an invalid certificate, and any key but the known ones.
    """
    _refuse_revoked(host, name, offered, known)
    if offered.certificate is not None and _is_certified(host, name, offered.certificate, known):
        return True
    entries = known.of(name)
    if any(entry.blob == offered.blob for entry in entries):
        return True
    bare = re.fullmatch(r"\[(.*)\]:\d+", name)
    if bare and any(entry.blob == offered.blob for entry in known.of(bare[1])):
        # OpenSSH, too, takes the same key under the name without a port (sshconnect.c, "checking without port").
        return True
    if entries:
        raise _changed(host, name, offered, entries)
    return False


def unknown(host: str, name: str, offered: OfferedKey, known: KnownHosts) -> HostKeyError:
    """The refusal of a key that nobody has vouched for yet."""
    kind = key_type(offered.blob).removeprefix("ssh-").split("-")[0]
    authority = known.of(name, Marker.CERT_AUTHORITY)
    without = f", and no certificate of the authority in {authority[0]}" if authority else ""
    return HostKeyError(
        host,
        f"the host key of {name} is unknown: {offered}{without}",
        hint=f"compare with `ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub` on the machine, "
        "then repeat with --accept-new-host-keys",
    )


def record(host: str, name: str, offered: OfferedKey, file: Path, *, hashed: bool) -> None:
    """Append the key to `file`, made 0600 if new. One write under a lock, so parallel runs do not mix lines.

    Raises HostKeyError when it cannot be written: without a record the next run would take any key.
    """
    shown = _hashed(name) if hashed else name
    line = f"{shown} {key_type(offered.blob)} {base64.b64encode(offered.blob).decode()}\n".encode()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, line if _ends_in_newline(descriptor) else b"\n" + line)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HostKeyError(
            host, f"the new host key of {name} cannot be recorded in {file}: {error.strerror}", hint="name another file"
        ) from error


def fingerprint(blob: bytes) -> str:
    """The fingerprint as printed by `ssh-keygen -l`."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def key_type(blob: bytes) -> str:
    """The type by the name inside the key, as that one counts; empty if `blob` is no key."""
    if len(blob) < 4:  # noqa: PLR2004, the length field
        return ""
    (length,) = struct.unpack(">I", blob[:4])
    return blob[4 : 4 + length].decode("ascii", "replace")


def _type_of_algorithm(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _ends_in_newline(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _read(file: Path) -> tuple[KnownKey, ...]:
    try:
        status = file.stat()
        return _parse(file, status.st_mtime_ns, status.st_size)
    except OSError:
        return ()


@functools.lru_cache(maxsize=64)
def _parse(file: Path, _mtime_ns: int, _size: int) -> tuple[KnownKey, ...]:
    """Parse a file once per time and size: hundreds of hosts share few files, and new records show at once."""
    return tuple(_lines(file, file.read_text(errors="replace")))


def _lines(file: Path, text: str) -> Iterator[KnownKey]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = Marker.NONE
        if words[0].startswith("@"):
            if words[0] not in {m.value for m in Marker}:
                continue
            marker = Marker(words.pop(0))
        try:
            blob = base64.b64decode(words[2], validate=True)
        except (IndexError, ValueError):
            continue
        yield KnownKey(marker, tuple(words[0].split(",")), blob, file, number)


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):
        return _fits_hash(pattern, name)
    # Not fnmatch: there `[host]:22` would be a set of letters.
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(c, re.escape(c)) for c in pattern.lower()), name.lower()) is not None


def _fits_hash(pattern: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in pattern[3:].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)


def _hashed(name: str) -> str:
    salt = os.urandom(20)
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def _refuse_revoked(host: str, name: str, offered: OfferedKey, known: KnownHosts) -> None:
    for entry in known.of(name, Marker.REVOKED):
        if entry.blob == offered.blob:
            raise HostKeyError(
                host,
                f"the host key of {name} is revoked by {entry}: {offered}",
                hint="do not log in; ask for the reason of the revocation",
            )


def _changed(host: str, name: str, offered: OfferedKey, entries: list[KnownKey]) -> HostKeyError:
    kind = key_type(offered.blob)
    entry = next((e for e in entries if key_type(e.blob) == kind), entries[0])
    return HostKeyError(
        host,
        f"the host key of {name} has changed: it is {offered}, but {entry} says {key_type(entry.blob)} "
        f"{fingerprint(entry.blob)}",
        hint="someone may be in between; only if you know why it changed: "
        f"ssh-keygen -f {shlex.quote(str(entry.file))} -R {shlex.quote(name)}",
    )


def _is_certified(host: str, name: str, certificate: bytes, known: KnownHosts) -> bool:
    """False when no known authority signed it (the plain key may still be known). Raises HostKeyError if invalid."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization

    text = f"{key_type(certificate)} {base64.b64encode(certificate).decode()}".encode()
    try:
        cert = serialization.load_ssh_public_identity(text)
        if not isinstance(cert, serialization.SSHCertificate):
            return False
        cert.verify_cert_signature()
    except (ValueError, InvalidSignature) as error:
        raise HostKeyError(
            host, f"the host certificate of {name} is not valid: {str(error) or 'wrong signature'}"
        ) from error
    signer = cert.signature_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    authority = base64.b64decode(signer.split()[1])
    _refuse_revoked(host, name, OfferedKey(authority), known)
    if all(entry.blob != authority for entry in known.of(name, Marker.CERT_AUTHORITY)):
        return False
    fault = _fault_of(cert, name)
    if fault:
        raise HostKeyError(
            host,
            f"the host certificate of {name} {fault}",
            hint=f"have it signed again; authority {fingerprint(authority)}",
        )
    return True


def _fault_of(cert: object, name: str) -> str:
    from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType

    assert isinstance(cert, SSHCertificate)  # noqa: S101, for the type checker
    bare = re.sub(r"^\[(.*)\]:\d+$", r"\1", name)
    principals = [p.decode("utf-8", "replace") for p in cert.valid_principals]
    now = time.time()
    if cert.type is not SSHCertificateType.HOST:
        return "is one for users"
    if not cert.valid_after <= now < cert.valid_before:
        return "is not valid now: it has expired or its time has not come"
    if not any(_fits(principal, bare) for principal in principals):
        return f"is for {', '.join(principals) or 'no named host'}"
    if cert.critical_options:
        options = ", ".join(o.decode("utf-8", "replace") for o in cert.critical_options)
        return f"has options that are not understood: {options}"
    return ""
