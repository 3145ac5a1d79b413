"""One remote command over an open transport: feed it, read it, watch the clock, and report its end.

Must not know: the making of the transport, the content of the script.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from provisioner import limits
from provisioner.errors import ConnectionLost, HostError, HostRefused, RemoteFailed
from provisioner.ssh.elevate import MARK, PROMPT, ROOT_COMMAND, Elevator
from provisioner.ssh.errors import Cancelled, describe, running
from provisioner.ssh.stream import Prelude

if TYPE_CHECKING:
    import paramiko

OPEN_TIMEOUT_S: Final = 30.0
ELEVATE_TIMEOUT_S: Final = 30.0
# sshd holds a channel open while any process on the host has its output, even a carelessly started daemon.
LINGER_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 1.0
TICK_S: Final = 0.2
CHUNK: Final = 1 << 16
# Read all at once: a pipe of paramiko moves its remaining bytes at every read.
ALL: Final = 1 << 30
# The script's first word. Output on stdout before it is the login shell's (a greeting in ~/.bashrc), not ours.
BEGUN: Final = b"nixprov-begins\n"
NO_STATUS: Final = -1


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of a script: `status` as in a shell (128 + N: killed by signal N), stdout byte for byte."""

    status: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True, slots=True)
class Order:
    """A script to run, and the way to its user: `elevator` is None for root. `host` and `user` are for errors.

    Without `keep` the output only passes by `on_output`, and may be longer.
    """

    host: str
    user: str
    elevator: Elevator | None
    script: bytes
    timeout_s: float
    on_output: Callable[[bytes], None] | None = None
    cancel: threading.Event | None = None
    keep: bool = True

    @property
    def command(self) -> str:
        return self.elevator.command if self.elevator else ROOT_COMMAND

    @property
    def limit(self) -> int:
        return limits.HOST_ANSWER if self.keep else limits.HOST_LOG

    @property
    def waits_for_root(self) -> bool:
        """Whether to send the script only after the mark. With -n a refusal reads nothing, which saves a round trip."""
        return self.elevator is not None and self.elevator.password is not None


def execute(transport: paramiko.Transport, order: Order) -> Completed:
    """Run the order's script to its end. Raises the errors of `Session.run`."""
    channel = _open_channel(transport, order)
    exchange = _Exchange(order, channel, _Feeder(channel, order), transport, is_root=order.elevator is None)
    try:
        return exchange.run()
    finally:
        exchange.close()


def _open_channel(transport: paramiko.Transport, order: Order) -> paramiko.Channel:
    import paramiko

    with running(order.host):
        try:
            return transport.open_session(timeout=min(OPEN_TIMEOUT_S, order.timeout_s))
        except paramiko.ChannelException as error:
            why = f"the server opens no session for {order.user}: {describe(error)}"
            raise HostRefused(order.host, why, hint="look for MaxSessions in sshd_config") from error


class _Feeder(threading.Thread):
    """The writer's thread: it starts the command and feeds it. So no full pipe or silent peer stops the reader."""

    def __init__(self, channel: paramiko.Channel, order: Order) -> None:
        super().__init__(name="ssh-stdin", daemon=True)
        self._channel = channel
        self._order = order
        self._decided = threading.Event()
        self._may_send = False
        self.error: Exception | None = None

    def decide(self, *, may_send: bool) -> None:
        """Send the script, or never send it. Only the first decision counts."""
        if not self._decided.is_set():
            self._may_send = may_send
            self._decided.set()

    @override
    def run(self) -> None:
        try:
            self._channel.exec_command(self._order.command)
            self._decided.wait()
            if self._may_send:
                self._send(_whole(self._order.script))
                self._channel.shutdown_write()
        except Exception as error:  # noqa: BLE001, the reader looks at it and knows whether it matters
            self.error = error

    def _send(self, data: bytes) -> None:
        """Send in pieces: `sendall` would copy the whole rest after every packet."""
        sent = 0
        while sent < len(data):
            sent += self._channel.send(data[sent : sent + CHUNK])
            if self._channel.closed:
                return


def _whole(script: bytes) -> bytes:
    """Put the script in brackets, so the shell reads it whole first: a cut connection never runs half of it."""
    return b"{ echo " + BEGUN + script + b"\n}\n"


@dataclass(slots=True)
class _Exchange:
    """The reader's side, and the state of one command.

    `early` is the output on stderr before the root shell; `noise` is that on stdout before the script began.
    """

    order: Order
    channel: paramiko.Channel
    feeder: _Feeder
    transport: paramiko.Transport
    is_root: bool
    stdout: list[bytes] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)
    early: Prelude = field(default_factory=lambda: Prelude(MARK))
    noise: Prelude = field(default_factory=lambda: Prelude(BEGUN))
    heard: int = 0
    prompts: int = 0
    has_begun: bool = False
    answered: bool = False
    last_byte_at: float = 0.0

    def run(self) -> Completed:
        started = time.monotonic()
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        if not self.order.waits_for_root:
            self.feeder.decide(may_send=True)
        self.feeder.start()
        while True:
            # Before the read, which then surely gets all output from before the end.
            is_over = self._is_over()
            self._read()
            if is_over:
                return self._result()
            self._watch(time.monotonic() - started)
            self._wait(poll)

    def close(self) -> None:
        """Give the channel back. If the peer takes no more bytes, close the whole connection instead."""
        self.feeder.decide(may_send=False)
        closer = threading.Thread(target=self._close_channel, name="ssh-close", daemon=True)
        closer.start()
        closer.join(CLOSE_TIMEOUT_S)
        if closer.is_alive():
            self.transport.close()
            closer.join(CLOSE_TIMEOUT_S)
        if self.feeder.ident is not None:
            self.feeder.join(CLOSE_TIMEOUT_S)

    def _close_channel(self) -> None:
        with contextlib.suppress(Exception):
            self.channel.close()

    def _wait(self, poll: select.poll) -> None:
        if self.channel.eof_received:
            # The descriptor stays readable from here on. Only the status is missing.
            self.channel.status_event.wait(TICK_S)
        else:
            poll.poll(TICK_S * 1000)

    def _is_over(self) -> bool:
        if self.channel.closed:
            return True
        if not self.channel.exit_status_ready():
            return False
        return bool(self.channel.eof_received) or time.monotonic() - self.last_byte_at > LINGER_S

    def _read(self) -> None:
        """Read the waiting bytes once, then return: even a host that never stops sending must not stop the clock."""
        if self.channel.recv_ready():
            self._listen(self.channel.recv(ALL))
        if self.channel.recv_stderr_ready():
            data = self.channel.recv_stderr(ALL)
            if self.is_root:
                self._take(data, self.stderr)
            else:
                self._hear(data)
        if not self.channel.exit_status_ready():
            self.last_byte_at = time.monotonic()

    def _take(self, data: bytes, into: list[bytes]) -> None:
        self.last_byte_at = time.monotonic()
        self.heard += len(data)
        self._bound(self.heard, self.order.limit, "in answer to one command")
        if self.order.keep:
            into.append(data)
        if self.order.on_output is not None and data:
            self.order.on_output(data)

    def _listen(self, data: bytes) -> None:
        if self.has_begun:
            self._take(data, self.stdout)
            return
        rest = self.noise.feed(data)
        self.has_begun = rest is not None
        if rest:
            self._take(rest, self.stdout)
        self._bound(len(self.noise.said), limits.HOST_GREETING, "before the script began")

    def _hear(self, data: bytes) -> None:
        """Follow the way to root. The mark means success; the prompt asks for the password, once."""
        rest = self.early.feed(data)
        self._bound(len(self.early.said), limits.HOST_ELEVATION, "on the way to root")
        if rest is not None:
            self.is_root = True
            self.feeder.decide(may_send=True)
            if rest:
                self._take(rest, self.stderr)
            return
        self.prompts += self.early.fresh(PROMPT)
        if self.prompts and self.order.elevator and self.order.elevator.password and not self.answered:
            self.answered = True
            with running(self.order.host):
                self.channel.sendall(self.order.elevator.password.reveal().encode() + b"\n")
        elif self.prompts > 1:
            raise self._refused(NO_STATUS)

    def _bound(self, size: int, limit: int, when: str) -> None:
        if size > limit:
            raise RemoteFailed(
                self.order.host,
                f"it sent more than {limits.told(limit)} {when}",
                hint="log in by hand: look at its output, and check that it is still yours; its command may go on",
            )

    def _watch(self, elapsed_s: float) -> None:
        if self.order.cancel is not None and self.order.cancel.is_set():
            raise Cancelled(self.order.host, "interrupted", hint="its command may still be running on the host")
        if elapsed_s > self.order.timeout_s:
            raise RemoteFailed(
                self.order.host,
                f"the command did not end within {self.order.timeout_s:g} s",
                hint="its command may still be running on the host",
            )
        if self.order.waits_for_root and not self.is_root and elapsed_s > ELEVATE_TIMEOUT_S:
            raise self._refused(NO_STATUS)

    def _result(self) -> Completed:
        status = self.channel.exit_status
        if status == NO_STATUS:
            raise self._lost()
        # Every way to root refuses with a word on stderr. Output on stdout alone came from the login shell.
        if not self.is_root and (self.early.said.strip() or not self.noise.said.strip()):
            raise self._refused(status)
        if not self.is_root or (status and not self.has_begun):
            raise self._not_run(status)
        return Completed(status, b"".join(self.stdout), b"".join(self.stderr).decode("utf-8", "replace"))

    def _refused(self, status: int) -> HostRefused:
        assert self.order.elevator is not None  # noqa: S101, root needs no way to root
        message, hint = self.order.elevator.refusal(self.order.user, status, self.early.text())
        return HostRefused(self.order.host, message, hint=hint)

    def _not_run(self, status: int) -> HostRefused:
        said = self.noise.text() + b"".join(self.stderr).decode("utf-8", "replace")
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
        return HostRefused(
            self.order.host,
            f"the login shell of {self.order.user} runs no script (status {status}): {last}",
            hint="it needs a shell (not nologin or git-shell), and its key no command= in authorized_keys",
        )

    def _lost(self) -> HostError:
        """Explain a missing status: a lost connection, or a server that would not run the command at all."""
        self.transport.join(CLOSE_TIMEOUT_S)
        if not self.transport.is_active():
            cause = self.transport.get_exception() or self.feeder.error or EOFError()
            return ConnectionLost(self.order.host, f"the connection was lost while a command ran: {describe(cause)}")
        return ConnectionLost(self.order.host, "the server closed the command's channel and gave no status")
