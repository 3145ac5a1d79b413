"""Where a connection leads, by the word of the real `ssh -G`."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import Unreachable
from provisioner.model import Connection
from provisioner.ssh.config import Endpoint, SshOptions, resolve

LookUp = Callable[..., Endpoint]


@pytest.fixture
def look_up(tmp_path: Path) -> LookUp:
    """Resolve `box` with a configuration's text, what the operator asks, and words of the inventory."""
    if shutil.which("ssh") is None:
        pytest.skip("needs the OpenSSH client")

    def look_up(text: str, asked: SshOptions | None = None, **words: Any) -> Endpoint:
        (tmp_path / "config").write_text(text)
        connection = replace(Connection("box"), **words)
        return resolve("h", connection, replace(asked or SshOptions(), config_file=tmp_path / "config"))

    return look_up


def test_the_first_value_wins_and_the_inventory_comes_first(look_up: LookUp) -> None:
    text = "Host box\n  HostName 192.0.2.7\n  Port 2200\n  User alice\nHost *\n  Port 1\n  User bob\n"
    found = look_up(text, user="carol")
    assert (found.hostname, found.port, found.user) == ("192.0.2.7", 2200, "carol")
    assert found.known_as == "[192.0.2.7]:2200"
    assert str(found) == "carol@192.0.2.7:2200"


def test_defaults(look_up: LookUp) -> None:
    found = look_up("")
    assert (found.hostname, found.port, found.known_as) == ("box", 22, "box")
    assert found.gateway is None
    assert found.proxy_command is None
    assert not found.accept_new
    assert (found.connect_timeout_s, found.keepalive_s, found.keepalive_count) == (10.0, 15.0, 3)
    assert Path.home() / ".ssh/id_ed25519" in found.identity_files
    assert [path.name for path in found.user_known_hosts] == ["known_hosts", "known_hosts2"]
    assert found.warnings == ()


def test_paths_are_expanded(look_up: LookUp) -> None:
    text = "Host *\n  HostName 192.0.2.7\n  IdentityFile ~/keys/%h-%r\n  ProxyCommand nc %h %p 100%%\n"
    found = look_up(text, user="alice")
    assert found.identity_files == (Path.home() / "keys/192.0.2.7-alice",)
    assert found.proxy_command == "nc 192.0.2.7 22 100%"


def test_a_proxy_may_be_switched_off(look_up: LookUp) -> None:
    text = "Host *\n  ProxyCommand nc %h %p\n"
    assert look_up(text).proxy_command == "nc box 22"
    options = {"proxycommand": "none"}
    assert look_up(text, options=options).proxy_command is None


@pytest.mark.parametrize(
    ("spec", "chain"),
    [
        ("gate", ["gate:22"]),
        ("alice@gate:2200", ["gate:2200"]),
        ("[2001:db8::1]:2200", ["2001:db8::1:2200"]),
        ("first,second:2200", ["second:2200", "first:22"]),
        ("none", []),
    ],
)
def test_jump_hosts_lead_from_the_last_to_the_first(look_up: LookUp, spec: str, chain: list[str]) -> None:
    found = look_up("", options={"proxyjump": spec})
    hops, hop = [], found.gateway
    while hop is not None:
        hops.append(f"{hop.hostname}:{hop.port}")
        hop = hop.gateway
    assert hops == chain


def test_a_jump_host_sees_the_inventorys_key_and_known_hosts_after_its_own(look_up: LookUp) -> None:
    text = "Host gate\n  UserKnownHostsFile /gate\n  IdentityFile /gate-key\n"
    options = {"proxyjump": "gate", "userknownhostsfile": '"/ours a" /ours-b'}
    found = look_up(text, identity_file="/our key", options=options)
    assert found.user_known_hosts == (Path("/ours a"), Path("/ours-b"))
    assert found.identity_files[0] == found.explicit_identities[0] == Path("/our key")
    assert found.gateway is not None
    assert found.gateway.user_known_hosts == (Path("/gate"), Path("/ours a"), Path("/ours-b"))
    assert found.gateway.identity_files == (Path("/gate-key"), Path("/our key"))


@pytest.mark.parametrize(
    ("word", "accepts"), [("yes", False), ("ask", False), ("accept-new", True), ("no", True), ("off", True)]
)
def test_strictness(look_up: LookUp, word: str, accepts: bool) -> None:
    text = f"Host *\n  StrictHostKeyChecking {word}\n"
    assert look_up(text).accept_new is accepts


def test_the_operators_word_is_above_all(look_up: LookUp) -> None:
    asked = SshOptions(accept_new_host_keys=True, known_hosts=(Path("/mine"),))
    options = {"stricthostkeychecking": "yes", "userknownhostsfile": "/other"}
    found = look_up("", asked=asked, options=options)
    assert found.accept_new
    assert found.user_known_hosts == (Path("/mine"),)


def test_numbers_of_the_host_are_nearer_than_those_of_the_run(look_up: LookUp) -> None:
    text = "Host *\n  ConnectTimeout 3\n  ServerAliveInterval 7\n  ServerAliveCountMax 2\n"
    found = look_up(text, asked=SshOptions(connect_timeout_s=60, keepalive_s=60))
    assert (found.connect_timeout_s, found.keepalive_s, found.keepalive_count) == (3.0, 7.0, 2)


def test_what_ssh_reads_is_read_as_ssh_does(look_up: LookUp, tmp_path: Path) -> None:
    """Comments behind a value, units of time, quotes, Include, and Match by its command."""
    (tmp_path / "more").write_text("ServerAliveInterval 2m\n")
    found = look_up(
        'Host box\n  Port 2222 # not the usual one\n  ConnectTimeout 1h30m\n  CertificateFile "/a b"\n'
        f"Include {tmp_path / 'more'}\n"
        "Match exec false\n  User mallory\nMatch originalhost box exec true\n  User alice\n"
    )
    assert (found.port, found.connect_timeout_s, found.keepalive_s) == (2222, 5400.0, 120.0)
    assert (found.user, found.certificate_files) == ("alice", (Path("/a b"),))


@pytest.mark.parametrize(
    ("said", "agent"),
    [
        ("SSH_AUTH_SOCK", None),
        ("none", "none"),
        ("/run/%n-%r", "/run/box-alice"),
        ("~/agent", "{home}/agent"),
        ("${SOCKET}.2", "/run/mine.2"),
        ("$SOCKET", "/run/mine"),
        ("$NOT_SET", "none"),
    ],
)
def test_the_agent(look_up: LookUp, monkeypatch: pytest.MonkeyPatch, said: str, agent: str | None) -> None:
    monkeypatch.setenv("SOCKET", "/run/mine")
    found = look_up(f"IdentityAgent {said}\n", user="alice").identity_agent
    # ssh takes the home from the user database, and does so before we see it.
    homes = (str(Path.home()), str(Path(f"~{getpass.getuser()}").expanduser()))
    assert found in ([agent.format(home=home) for home in homes] if agent else [None])


def test_a_jump_host_may_be_named_by_the_host(look_up: LookUp) -> None:
    gateway = look_up("Host box\n  HostName 192.0.2.7\n  ProxyJump %r@gate-%n\n", user="alice").gateway
    assert gateway is not None
    assert str(gateway) == "alice@gate-box"


def test_without_the_client_of_openssh_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for options in (SshOptions(), SshOptions(use_ssh_config=False)):
        with pytest.raises(Unreachable) as refused:
            resolve("h", Connection("box"), options)
        assert refused.value.host == "h"
        assert refused.value.message == "there is no ssh program to ask where its address leads"
        assert refused.value.hint == "install the OpenSSH client"


def test_what_protects_and_is_not_supported_is_said(look_up: LookUp) -> None:
    found = look_up("Host *\n  RevokedHostKeys /etc/krl\n")
    assert found.warnings == ("revokedhostkeys is not supported and not used",)


def test_a_secret_of_ours_is_not_in_the_environment_of_helpers(
    look_up: LookUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIXPROV_GITLAB_TOKEN", "poison")
    text = 'Match exec "test -z $NIXPROV_GITLAB_TOKEN"\n  Port 2222\n'
    assert look_up(text).port == 2222
