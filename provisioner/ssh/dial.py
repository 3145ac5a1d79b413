"""The first part of a connection: a TCP socket, or a ProxyCommand on a socket pair. No ssh in here."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from typing import IO, Final

from provisioner import limits
from provisioner.environment import without_ours
from provisioner.ssh.config import Endpoint

CLOSE_TIMEOUT_S: Final = 2.0

_FAMILIES: Final = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


def dial(endpoint: Endpoint) -> socket.socket:
    """Try every address of the name, then watch for a dead peer. Raises the OSError of the last address.

    paramiko stops at the first address without a route. TCP_USER_TIMEOUT covers our own bytes without acknowledgement,
    which questions to the peer cannot (tcp(7)).
    """
    family = _FAMILIES.get(endpoint.address_family, socket.AF_UNSPEC)
    last: OSError = OSError("no address")
    for af, kind, protocol, _, address in socket.getaddrinfo(
        endpoint.hostname, endpoint.port, family, socket.SOCK_STREAM
    ):
        made = socket.socket(af, kind, protocol)
        try:
            made.settimeout(endpoint.connect_timeout_s)
            if endpoint.bind_address:
                made.bind((endpoint.bind_address, 0))
            made.connect(address)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            silence_ms = int(1000 * endpoint.keepalive_s * endpoint.keepalive_count)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_ms)
        except OSError as error:
            made.close()
            last = error
        else:
            return made
    raise last


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running ProxyCommand on one end of a socket pair.

    paramiko's own proxy reads for ever once the command has ended, and leaves the process behind.
    """

    process: subprocess.Popen[bytes]
    socket: socket.socket
    stderr: IO[bytes]

    @classmethod
    def start(cls, command: str) -> Proxy:
        """Run the command as ssh does: by the shell, which `exec`s it."""
        ours, theirs = socket.socketpair()
        stderr = tempfile.TemporaryFile()  # noqa: SIM115, lives as long as the proxy
        try:
            # A session of its own: Ctrl-C in our terminal must not cut the connection, which the unwinding needs.
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=stderr,
                env=without_ours(),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            stderr.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours, stderr)

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended. It closes its streams a moment earlier, so this waits 0.2 s."""
        try:
            self.process.wait(0.2)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_words(self) -> str:
        self.stderr.seek(max(0, self.stderr.seek(0, os.SEEK_END) - limits.SSH_WORDS))
        lines = self.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def close(self) -> None:
        self.socket.close()
        if not self.has_ended:
            self._kill()
        self.stderr.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
