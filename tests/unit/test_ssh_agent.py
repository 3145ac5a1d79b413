"""An agent that does not answer is no agent."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import cast

import paramiko
import pytest

from provisioner.errors import HostRefused
from provisioner.ssh import auth
from provisioner.ssh.auth import KeyLogin
from provisioner.ssh.config import Endpoint


class Transport:
    """A server that takes keys, of which there is none."""

    def auth_none(self, _user: str) -> None:
        raise paramiko.BadAuthenticationType("", ["publickey"])


class Way:
    user, identity_agent = "root", ""
    explicit_identities: tuple[Path, ...] = ()
    identity_files: tuple[Path, ...] = ()
    identities_only = False

    def __str__(self) -> str:
        return "root@host1"


def test_an_agent_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is forwarded from a laptop that sleeps: it takes the connection and says nothing."""
    monkeypatch.setattr(auth, "AGENT_TIMEOUT_S", 0.2)
    way = Way()
    way.identity_agent = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(way.identity_agent)
        silent.listen()
        login = KeyLogin("host1", cast("Endpoint", way))
        with pytest.raises(HostRefused, match=r"tried the agent \(timed out\)"):
            login.authenticate(cast("paramiko.Transport", Transport()))
