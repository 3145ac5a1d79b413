from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import Unreachable
from provisioner.model import Connection
from provisioner.ssh.config import Endpoint, SshOptions, resolve

BOTH = pytest.mark.parametrize("has_ssh", [pytest.param(True, id="ssh -G"), pytest.param(False, id="without ssh")])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


def look_up(
    config: Path,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_ssh: bool,
    asked: SshOptions | None = None,
    **words: Any,
) -> Endpoint:
    if not has_ssh:
        monkeypatch.setattr(shutil, "which", lambda _: None)
    elif shutil.which("ssh") is None:
        pytest.skip("needs the ssh client")
    config.write_text(text)
    connection = replace(Connection("box"), **words)
    return resolve("h", connection, replace(asked or SshOptions(), config_file=config))


@BOTH
def test_the_first_value_wins_and_the_inventory_comes_first(
    config: Path, monkeypatch: pytest.MonkeyPatch, has_ssh: bool
) -> None:
    text = "Host box\n  HostName 192.0.2.7\n  Port 2200\n  User alice\nHost *\n  Port 1\n  User bob\n"
    found = look_up(config, text, monkeypatch, has_ssh=has_ssh, user="carol")
    assert (found.hostname, found.port, found.user) == ("192.0.2.7", 2200, "carol")
    assert found.known_as == "[192.0.2.7]:2200"
    assert str(found) == "carol@192.0.2.7:2200"


@BOTH
def test_defaults(config: Path, monkeypatch: pytest.MonkeyPatch, has_ssh: bool) -> None:
    found = look_up(config, "", monkeypatch, has_ssh=has_ssh)
    assert (found.hostname, found.port, found.known_as) == ("box", 22, "box")
    assert found.gateway is None
    assert found.proxy_command is None
    assert not found.accept_new
    assert (found.connect_timeout_s, found.keepalive_s, found.keepalive_count) == (10.0, 15.0, 3)
    assert Path.home() / ".ssh/id_ed25519" in found.identity_files
    assert [path.name for path in found.user_known_hosts] == ["known_hosts", "known_hosts2"]
    assert found.warnings == ()


@BOTH
def test_paths_are_expanded(config: Path, monkeypatch: pytest.MonkeyPatch, has_ssh: bool) -> None:
    text = "Host *\n  HostName 192.0.2.7\n  IdentityFile ~/keys/%h-%r\n  ProxyCommand nc %h %p 100%%\n"
    found = look_up(config, text, monkeypatch, has_ssh=has_ssh, user="alice")
    assert found.identity_files == (Path.home() / "keys/192.0.2.7-alice",)
    assert found.proxy_command == "nc 192.0.2.7 22 100%"


@BOTH
def test_a_proxy_may_be_switched_off(config: Path, monkeypatch: pytest.MonkeyPatch, has_ssh: bool) -> None:
    text = "Host *\n  ProxyCommand nc %h %p\n"
    assert look_up(config, text, monkeypatch, has_ssh=has_ssh).proxy_command == "nc box 22"
    options = {"proxycommand": "none"}
    assert look_up(config, text, monkeypatch, has_ssh=has_ssh, options=options).proxy_command is None


@BOTH
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
def test_jump_hosts_lead_from_the_last_to_the_first(
    config: Path, monkeypatch: pytest.MonkeyPatch, has_ssh: bool, spec: str, chain: list[str]
) -> None:
    found = look_up(config, "", monkeypatch, has_ssh=has_ssh, options={"proxyjump": spec})
    hops, hop = [], found.gateway
    while hop is not None:
        hops.append(f"{hop.hostname}:{hop.port}")
        hop = hop.gateway
    assert hops == chain


@BOTH
def test_a_jump_host_sees_the_inventorys_key_and_known_hosts_after_its_own(
    config: Path, monkeypatch: pytest.MonkeyPatch, has_ssh: bool
) -> None:
    text = "Host gate\n  UserKnownHostsFile /gate\n  IdentityFile /gate-key\n"
    options = {"proxyjump": "gate", "userknownhostsfile": '"/ours a" /ours-b'}
    found = look_up(config, text, monkeypatch, has_ssh=has_ssh, identity_file="/our key", options=options)
    assert found.user_known_hosts == (Path("/ours a"), Path("/ours-b"))
    assert found.identity_files[0] == found.explicit_identities[0] == Path("/our key")
    assert found.gateway is not None
    assert found.gateway.user_known_hosts == (Path("/gate"), Path("/ours a"), Path("/ours-b"))
    assert found.gateway.identity_files == (Path("/gate-key"), Path("/our key"))


@BOTH
@pytest.mark.parametrize(
    ("word", "accepts"), [("yes", False), ("ask", False), ("accept-new", True), ("no", True), ("off", True)]
)
def test_strictness(config: Path, monkeypatch: pytest.MonkeyPatch, has_ssh: bool, word: str, accepts: bool) -> None:
    text = f"Host *\n  StrictHostKeyChecking {word}\n"
    assert look_up(config, text, monkeypatch, has_ssh=has_ssh).accept_new is accepts


@BOTH
def test_the_operators_word_is_above_all(config: Path, monkeypatch: pytest.MonkeyPatch, has_ssh: bool) -> None:
    asked = SshOptions(accept_new_host_keys=True, known_hosts=(Path("/mine"),))
    options = {"stricthostkeychecking": "yes", "userknownhostsfile": "/other"}
    found = look_up(config, "", monkeypatch, has_ssh=has_ssh, asked=asked, options=options)
    assert found.accept_new
    assert found.user_known_hosts == (Path("/mine"),)


@BOTH
def test_numbers_of_the_host_are_nearer_than_those_of_the_run(
    config: Path, monkeypatch: pytest.MonkeyPatch, has_ssh: bool
) -> None:
    text = "Host *\n  ConnectTimeout 3\n  ServerAliveInterval 7\n  ServerAliveCountMax 2\n"
    found = look_up(config, text, monkeypatch, has_ssh=has_ssh, asked=SshOptions(connect_timeout_s=60, keepalive_s=60))
    assert (found.connect_timeout_s, found.keepalive_s, found.keepalive_count) == (3.0, 7.0, 2)


def test_what_protects_and_is_not_supported_is_said(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = look_up(config, "Host *\n  RevokedHostKeys /etc/krl\n", monkeypatch, has_ssh=True)
    assert found.warnings == ("revokedhostkeys is not supported and not used",)


@pytest.mark.parametrize("line", ["Include more", "Match exec true"])
def test_without_ssh_what_is_not_followed_is_said(config: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    found = look_up(config, f"Host other\n  Port 1\n{line}\n  User alice\n", monkeypatch, has_ssh=False)
    assert found.warnings == (f"no ssh binary here: {line.partition(' ')[0]} in ssh_config is not followed",)


def test_without_ssh_a_broken_configuration_is_one_line(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable, match="ssh_config cannot be read"):
        look_up(config, "Host a\n  this is = no ! config\n  Port\n", monkeypatch, has_ssh=False)


def test_a_secret_of_ours_is_not_in_the_environment_of_helpers(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIXPROV_GITLAB_TOKEN", "poison")
    text = 'Match exec "test -z $NIXPROV_GITLAB_TOKEN"\n  Port 2222\n'
    assert look_up(config, text, monkeypatch, has_ssh=True).port == 2222
