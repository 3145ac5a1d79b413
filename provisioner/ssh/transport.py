"""The way to one machine: sockets, jump hosts, host keys, login. These must not be left to fabric.

By default fabric accepts unknown keys, waits for ever, keeps no connection alive, and reads ssh_config a second time.
This file does none of that (source: fabric 3.2, connection.py and config.py). fabric still gives one object per machine
with its gateway and its transport.

Must not know: commands, scripts, elevation.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import fabric
import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST, cMSG_GLOBAL_REQUEST
from paramiko.message import Message
from typing_extensions import override

from provisioner import limits
from provisioner.errors import Unreachable
from provisioner.ssh.auth import KeyLogin
from provisioner.ssh.config import Endpoint
from provisioner.ssh.dial import Proxy, dial
from provisioner.ssh.errors import opening
from provisioner.ssh.known_hosts import ALGORITHMS, KnownHosts, OfferedKey, check, record, unknown

AUTH_TIMEOUT_S: Final = 30.0
CLOSE_TIMEOUT_S: Final = 2.0

# No OpenSSH of the last ten years needs these. Left on, a man in the middle may ask for them.
_TOO_OLD: Final[Mapping[str, list[str]]] = {
    "ciphers": ["aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"],
    "macs": ["hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96"],
    "kex": ["diffie-hellman-group-exchange-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1"],
    "pubkeys": ["ssh-rsa"],
}


class BoundedPackets(paramiko.packet.Packetizer):
    """Limits before any key: paramiko believes any announced length of a packet, and reads an endless banner."""

    _banner = 0

    @override
    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > limits.SSH_PACKET:
            raise paramiko.SSHException(f"it announces a packet of more than {limits.told(limits.SSH_PACKET)}")
        return super().read_all(n, check_rekey)

    def _read_timeout(self, timeout: float) -> bytes:
        piece: bytes = super()._read_timeout(timeout)  # type: ignore[misc]
        self._banner += len(piece)
        if self._banner > limits.SSH_BANNER:
            raise paramiko.SSHException(f" within {limits.told(limits.SSH_BANNER)}")
        return piece


class HostTransport(paramiko.Transport):
    """paramiko's transport with three gaps closed: the choice of host keys, dead peers, and death by signal."""

    host_key_algorithms: tuple[str, ...] = ALGORITHMS
    _unanswered = 0

    @property
    @override
    def preferred_keys(self) -> tuple[str, ...]:
        return self.host_key_algorithms

    def watch(self, interval_s: float, count: int) -> None:
        """Give the connection up after `count` questions without an answer, `interval_s` apart, as ServerAlive* does.

        paramiko's own keepalive wants no answer, so it never notices a dead peer.
        """

        def ask() -> None:
            if self._unanswered >= count:
                raise paramiko.SSHException(f"no answer for {interval_s * count:g} s")
            self._unanswered += 1
            question = Message()
            question.add_byte(cMSG_GLOBAL_REQUEST)
            question.add_string("keepalive@openssh.com")
            question.add_boolean(True)
            self._send_user_message(question)  # type: ignore[attr-defined]

        self.packetizer.set_keepalive(interval_s, ask)

    @override
    def run(self) -> None:
        # Its last act is to close a socket. Behind a lost jump host that is a channel, and cannot be closed. The
        # connection has ended either way, and a thread's traceback would only land on the terminal.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            super().run()

    def _parse_request_success(self, m: Message) -> None:
        self._unanswered = 0
        super()._parse_request_success(m)  # type: ignore[misc]

    def _parse_request_failure(self, m: Message) -> None:
        self._unanswered = 0
        super()._parse_request_failure(m)  # type: ignore[misc]


def _note_signal(channel: Any, m: Any) -> None:
    """Keep `exit-signal` (RFC 4254, 6.10) as the status that a shell would give. paramiko drops it."""
    position = m.packet.tell()
    if m.get_text() == "exit-signal":
        m.get_boolean()
        number = getattr(signal, f"SIG{m.get_text()}", signal.SIGKILL)
        channel.exit_status = 128 + number
        channel.status_event.set()
        return
    m.packet.seek(position)
    channel._handle_request(m)  # noqa: SLF001


# paramiko's own table, with one entry replaced; there is no public way to see `exit-signal`.
HostTransport._channel_handler_table = {  # type: ignore[attr-defined]  # noqa: SLF001
    **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]  # noqa: SLF001
    MSG_CHANNEL_REQUEST: _note_signal,
}


@dataclass(slots=True)
class Verifier(paramiko.MissingHostKeyPolicy):
    """The check of host keys by `known_hosts`. paramiko gets no known_hosts, so to it every key is "missing"."""

    host: str
    endpoint: Endpoint
    known: KnownHosts

    @override
    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        name = self.endpoint.known_as
        certificate = key.public_blob.key_blob if key.public_blob else None
        offered = OfferedKey(key.asbytes(), certificate)
        if check(self.host, name, offered, self.known):
            return
        if not self.endpoint.accept_new:
            raise unknown(self.host, name, offered, self.known)
        if self.endpoint.user_known_hosts:
            file = self.endpoint.user_known_hosts[0]
            record(self.host, name, offered, file, hashed=self.endpoint.hash_known_hosts)


@dataclass(slots=True)
class Link:
    """An open way to one machine: its hops' connections, the proxy command, if any, and the last transport."""

    host: str
    connections: list[Any] = field(default_factory=list)
    proxy: Proxy | None = None
    first: socket.socket | None = None

    @property
    def transport(self) -> HostTransport:
        transport: HostTransport = self.connections[-1].client.get_transport()
        return transport

    def close(self) -> None:
        """Close everything, last hop first. Never raises; safe to repeat."""
        for connection in reversed(self.connections):
            _close(connection.client)
        if self.first is not None:
            self.first.close()
        if self.proxy is not None:
            self.proxy.close()
        self.connections, self.first, self.proxy = [], None, None

    def extend(self, endpoint: Endpoint) -> None:
        """Connect the next machine, after the ones before it."""
        if endpoint.gateway is not None:
            self.extend(endpoint.gateway)
        with opening(self.host, self._words(endpoint)):
            started = time.monotonic()
            try:
                self._open(endpoint)
            except (paramiko.SSHException, EOFError) as error:
                if time.monotonic() - started < endpoint.connect_timeout_s or _is_login(error):
                    raise self._with_proxy_story(error) from error
                raise TimeoutError from error
        self.transport.watch(endpoint.keepalive_s, endpoint.keepalive_count)

    def _open(self, endpoint: Endpoint) -> None:
        known = KnownHosts.load(endpoint.known_hosts)
        kwargs = _connect_kwargs(self.host, endpoint, known)
        gateway = self.connections[-1] if self.connections else None
        if gateway is None:
            self.first = kwargs["sock"] = self._first_socket(endpoint)
        connection = fabric.Connection(
            endpoint.hostname,
            user=endpoint.user,
            port=endpoint.port,
            gateway=gateway,
            # A new one each time, as fabric writes into it. Lazy and with an explicit ssh_config, it reads no file.
            config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
            connect_kwargs=kwargs,
        )
        connection.client.set_missing_host_key_policy(Verifier(self.host, endpoint, known))
        self.connections.append(connection)
        connection.open()

    def _first_socket(self, endpoint: Endpoint) -> socket.socket:
        if endpoint.proxy_command is None:
            return dial(endpoint)
        self.proxy = Proxy.start(endpoint.proxy_command)
        return self.proxy.socket

    def _with_proxy_story(self, error: Exception) -> Exception:
        """Add the reason of a failed proxy command, from its stderr. paramiko sees only the end of the stream."""
        words = self.proxy.last_words() if self.proxy and self.proxy.has_ended and not _is_login(error) else ""
        return Unreachable(self.host, f"the proxy command failed: {words}", hint="try it by hand") if words else error

    def _words(self, endpoint: Endpoint) -> str:
        return f"{endpoint} by way of {self.connections[-1].host}" if self.connections else str(endpoint)


def open_link(host: str, endpoint: Endpoint) -> Link:
    """Connect, verify, log in, hop by hop. Raises Unreachable, HostKeyError or HostRefused, and leaves nothing open."""
    link = Link(host)
    try:
        link.extend(endpoint)
    except BaseException:
        link.close()
        raise
    return link


def quiet(*, debug: bool) -> None:
    """Silence paramiko, unless --debug wants its tracebacks. It writes them to stderr (logging's last resort)."""
    logger = logging.getLogger("paramiko")
    logger.setLevel(logging.DEBUG if debug else logging.CRITICAL + 1)


def _close(client: paramiko.SSHClient) -> None:
    """Close the client. fabric's own close does nothing after a failed login, and leaves a thread behind."""
    transport = client.get_transport()
    # A lost jump host cannot take our goodbye.
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        client.close()
    if transport is not None and transport.ident is not None:
        transport.join(CLOSE_TIMEOUT_S)


def _is_login(error: Exception) -> bool:
    return isinstance(error, paramiko.AuthenticationException)


def _connect_kwargs(host: str, endpoint: Endpoint, known: KnownHosts) -> dict[str, Any]:
    def transport(sock: Any, **kwargs: Any) -> HostTransport:
        made = HostTransport(sock, **{**kwargs, "disabled_algorithms": _TOO_OLD, "packetizer_class": BoundedPackets})
        made.host_key_algorithms = known.algorithms(endpoint.known_as)
        made.handshake_timeout = endpoint.connect_timeout_s
        return made

    return {
        "timeout": endpoint.connect_timeout_s,
        "banner_timeout": endpoint.connect_timeout_s,
        "auth_timeout": max(AUTH_TIMEOUT_S, endpoint.connect_timeout_s),
        "channel_timeout": endpoint.connect_timeout_s,
        "compress": False,
        "transport_factory": transport,
        "auth_strategy": KeyLogin(host, endpoint),
    }
