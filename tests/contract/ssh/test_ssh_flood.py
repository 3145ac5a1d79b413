"""Hosts that flood, over real ssh: before any key, from the login shell, from sudo's place, in an answer."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from provisioner import limits
from provisioner.errors import RemoteFailed, Unreachable

if TYPE_CHECKING:
    from tests.contract.ssh.conftest import Lab, Sshd

root_only = pytest.mark.skipif(os.getuid() != 0, reason="a direct root session needs a root login")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HOST_ANSWER", limits.MIB)


@root_only
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("script", [b"cat /dev/zero", b"cat /dev/zero >&2", b"echo first; yes; echo last"])
def test_an_answer_without_end_is_one_line(lab: Lab, server: Sshd, script: bytes) -> None:
    session = lab.open(lab.spec(server))
    with pytest.raises(RemoteFailed, match="it sent more than 1 MiB in answer to one command"):
        session.run(script, timeout_s=60)
    assert session.run(b"echo well", timeout_s=60).stdout == b"well\n"


@root_only
@pytest.mark.usefixtures("_small")
def test_an_answer_of_just_the_limit_comes_whole(lab: Lab, server: Sshd) -> None:
    done = lab.open(lab.spec(server)).run(f"head -c {limits.MIB} /dev/zero".encode(), timeout_s=60)
    assert done.stdout == bytes(limits.MIB)


@root_only
def test_a_login_shell_that_floods_is_one_line(lab: Lab, server: Sshd) -> None:
    (server.folder / ".bashrc").write_text("yes\n")
    with pytest.raises(RemoteFailed, match="it sent more than 1 MiB before the script began"):
        lab.open(lab.spec(server)).run(b":", timeout_s=60)


@root_only
def test_who_floods_is_held_by_the_clock(lab: Lab, server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HOST_LOG", 1 << 60)
    with pytest.raises(RemoteFailed, match=r"did not end within 0\.5 s"):
        lab.open(lab.spec(server)).run(b"yes", timeout_s=0.5, keep=False)


@contextmanager
def talking(said: bytes, *, for_ever: bool = False) -> Iterator[tuple[int, list[int]]]:
    """A port behind which every caller hears `said`, once or again and again; and how many bytes were sent there."""
    sent = [0]
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        try:
            while True:
                client, _ = listener.accept()
                with client:
                    client.sendall(said)
                    sent[0] += len(said)
                    while for_ever:
                        sent[0] += client.send(said)
                    while client.recv(4096):
                        pass
        except OSError:
            return

    threading.Thread(target=talk, daemon=True).start()
    try:
        yield listener.getsockname()[1], sent
    finally:
        listener.close()


def test_a_greeting_without_end_is_no_ssh_server(lab: Lab, server: Sshd) -> None:
    spec = lab.spec(server)
    with (
        talking(b"x" * 4096, for_ever=True) as (port, _),
        pytest.raises(Unreachable, match="not answer as an ssh") as e,
    ):
        lab.open(replace(spec, connection=replace(spec.connection, port=port)), retries=0)
    assert "64 KiB" in str(e.value.__cause__)


def test_a_packet_of_any_length_is_not_waited_for(lab: Lab, server: Sshd) -> None:
    """Its length is announced before any key is known: paramiko itself would read on for 2 GiB."""
    spec = lab.spec(server)
    said = b"SSH-2.0-flood\r\n" + struct.pack(">IB", (1 << 31) + 4, 4) + bytes(11)
    with talking(said) as (port, _), pytest.raises(Unreachable, match="announces a packet of more than 256 KiB"):
        lab.open(replace(spec, connection=replace(spec.connection, port=port)), retries=0)
