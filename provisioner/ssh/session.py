"""A session with one machine: open once, run scripts as root, close. The only door to fabric and paramiko.

    config     the target of the way          known_hosts  the check for the right machine
    transport  the way itself, hop by hop     auth         the login
    exec       one command over it            elevate      the way to root
    errors     foreign exceptions made ours

Importing this imports neither library: they come with the first `Session.open`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from provisioner.errors import ConnectionLost, Unreachable
from provisioner.model import HostSpec
from provisioner.ssh.config import Endpoint, SshOptions, resolve
from provisioner.ssh.elevate import Elevator, elevator
from provisioner.ssh.errors import Cancelled, is_worth_retrying
from provisioner.ssh.exec import Completed, Order, execute

if TYPE_CHECKING:
    from provisioner.ssh.transport import Link

__all__ = ["Cancelled", "Completed", "Session", "SshOptions"]

BACKOFF_S: Final = 0.5


@dataclass(slots=True)
class Session:
    """One connection to one host, kept for the whole run. Not for two threads at once.

    `commands` and `connections` count remote commands and transports to the host (jump hosts are not counted).
    `warnings` names unsupported options of the operator's ssh_config.
    """

    spec: HostSpec
    options: SshOptions
    endpoint: Endpoint
    commands: int = 0
    connections: int = 0
    _elevator: Elevator | None = None
    _link: Link | None = None

    @classmethod
    def open(cls, spec: HostSpec, options: SshOptions, *, cancel: threading.Event | None = None) -> Self:
        """Resolve, connect, verify the host key and log in.

        Raises Unreachable, HostKeyError, HostRefused, or Cancelled when `cancel` is set between attempts. A silent,
        refusing or restarting machine is tried `options.retries` more times, with growing, jittered pauses.
        """
        endpoint = resolve(spec.name, spec.connection, options)
        session = cls(spec, options, endpoint)
        session._elevator = elevator(spec.name, endpoint.user, spec.connection.become)
        session._connect(cancel)
        return session

    def run(
        self,
        script: bytes,
        *,
        timeout_s: float,
        on_output: Callable[[bytes], None] | None = None,
        cancel: threading.Event | None = None,
        keep: bool = True,
    ) -> Completed:
        """Run `script` as root with POSIX sh and wait for its end. A status other than 0 is no error.

        The script is sent in brackets, so the shell reads it whole before it starts, and never runs a part. Its own
        standard input is empty. `on_output` gets the bytes of stdout and stderr as they come, in this thread. Without
        `keep` they only pass there, and there may be more of them (provisioner/limits.py). The script is the one place
        for secrets: it goes to standard input of a shell that is root already.

        Raises HostRefused without a way to root, and ConnectionLost (then `reconnect`). Raises RemoteFailed after
        `timeout_s` seconds or for too much output, and Cancelled soon after `cancel` is set. After the last three the
        command may still be running.
        """
        if self._link is None:
            raise ConnectionLost(self.spec.name, "there is no connection")
        order = Order(self.spec.name, self.endpoint.user, self._elevator, script, timeout_s, on_output, cancel, keep)
        self.commands += 1
        return execute(self._link.transport, order)

    def reconnect(self, *, cancel: threading.Event | None = None) -> None:
        """Drop the rest of the connection and make a new one. Raises the errors of `open`."""
        self.close()
        self._connect(cancel)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.endpoint.warnings

    def close(self) -> None:
        """Close the connection and every hop. Never raises, and may be repeated."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _connect(self, cancel: threading.Event | None) -> None:
        from provisioner.ssh.transport import open_link, quiet

        quiet(debug=self.options.debug)
        for attempt in range(self.options.retries + 1):
            try:
                self._link = open_link(self.spec.name, self.endpoint)
            except Unreachable as error:
                if attempt == self.options.retries or not is_worth_retrying(error):
                    raise
                _pause(self.spec.name, attempt, cancel)
            else:
                self.connections += 1
                return


def _pause(host: str, attempt: int, cancel: threading.Event | None) -> None:
    """Wait half a second, one, two ..., stretched at random, so that a fleet does not come back all at once."""
    pause_s = BACKOFF_S * 2**attempt * random.uniform(1.0, 1.5)  # noqa: S311, no secret
    if cancel is None:
        time.sleep(pause_s)
    elif cancel.wait(pause_s):
        raise Cancelled(host, "interrupted while connecting")
