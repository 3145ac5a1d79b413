from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provisioner.errors import HostRefused
from tests.contract.conftest import listens
from tests.contract.ssh.conftest import until

if TYPE_CHECKING:
    from tests.contract.ssh.conftest import Lab, MakeKey, Sshd


@pytest.fixture
def agent(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty ssh-agent of our own, in SSH_AUTH_SOCK."""
    address = lab.folder / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL) as process:
        until(lambda: process.poll() is not None or listens(address))
        monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
        yield address
        process.terminate()


def add(key: Path, passphrase: str = "") -> None:
    if passphrase:
        plain = key.with_name("plain")
        plain.write_bytes(key.read_bytes())
        plain.chmod(0o600)
        subprocess.run(
            ["ssh-keygen", "-q", "-p", "-P", passphrase, "-N", "", "-f", plain], check=True, capture_output=True
        )
        subprocess.run(["ssh-add", "-q", plain], check=True)
    else:
        subprocess.run(["ssh-add", "-q", key], check=True)


def test_a_key_that_is_not_welcome_is_named_with_user_and_methods(lab: Lab, server: Sshd, make_key: MakeKey) -> None:
    wrong = make_key(lab.folder / "wrong")
    with pytest.raises(HostRefused) as refused:
        lab.open(lab.spec(server, identity_file=str(wrong), options={"identitiesonly": "yes"}))
    message = str(refused.value)
    assert re.search(rf"@127\.0\.0\.1:{server.port} refuses the login", message)
    assert f"tried {wrong} (SHA256:" in message
    assert "the server offers publickey" in message
    assert "\n" not in message


def test_a_missing_key_file_is_named(lab: Lab, server: Sshd) -> None:
    with pytest.raises(HostRefused, match=r"/nonexistent/key \(no such file\)"):
        lab.open(lab.spec(server, identity_file="/nonexistent/key"))


def test_a_file_that_is_no_key_is_named(lab: Lab, server: Sshd) -> None:
    with pytest.raises(HostRefused, match=r"ssh_config \(unreadable: ValueError\)"):
        lab.open(lab.spec(server, identity_file=str(lab.config)))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_every_kind_of_key_works(lab: Lab, make_key: MakeKey, kind: str) -> None:
    lab.key = make_key(lab.folder / "key", kind)
    server = lab.server()
    lab.trust(server)
    lab.open(lab.spec(server))


def test_a_key_with_a_passphrase_needs_an_agent_and_says_so(lab: Lab, make_key: MakeKey) -> None:
    lab.key = make_key(lab.folder / "locked", passphrase="open sesame")
    server = lab.server()
    lab.trust(server)
    with pytest.raises(HostRefused, match=f"locked needs a passphrase.*ssh-add {lab.key}"):
        lab.open(lab.spec(server))


@pytest.mark.usefixtures("agent")
def test_a_key_with_a_passphrase_is_used_from_the_agent(lab: Lab, make_key: MakeKey) -> None:
    lab.key = make_key(lab.folder / "locked", passphrase="open sesame")
    add(lab.key, "open sesame")
    server = lab.server()
    lab.trust(server)
    lab.open(lab.spec(server))


@pytest.mark.usefixtures("agent")
def test_a_key_that_only_the_agent_has_is_used(lab: Lab, server: Sshd) -> None:
    add(lab.key)
    lab.open(lab.spec(server, identity_file=None))


def test_the_agent_of_the_configuration_is_asked(
    lab: Lab, server: Sshd, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(lab.key)
    monkeypatch.delenv("SSH_AUTH_SOCK")
    lab.configure(f"IdentityAgent {agent}")
    lab.open(lab.spec(server, identity_file=None))


@pytest.mark.usefixtures("agent")
def test_with_identitiesonly_other_keys_of_the_agent_are_left_alone(lab: Lab, server: Sshd) -> None:
    add(lab.key)
    with pytest.raises(HostRefused, match="none to try"):
        lab.open(lab.spec(server, identity_file=None, options={"identitiesonly": "yes", "identityfile": "none"}))


@pytest.mark.usefixtures("agent")
def test_an_agent_full_of_other_keys_does_not_use_up_the_servers_patience(lab: Lab, make_key: MakeKey) -> None:
    for number in range(6):
        add(make_key(lab.folder / f"other{number}"))
    server = lab.server(settings=("MaxAuthTries 2",))
    lab.trust(server)
    lab.open(lab.spec(server))
    with pytest.raises(HostRefused, match="the server gave up after"):
        lab.open(lab.spec(server, identity_file=None))


def test_a_dead_agent_is_no_reason_to_fail(lab: Lab, server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(lab.folder / "gone"))
    lab.open(lab.spec(server))


class TestUserCertificates:
    @pytest.fixture
    def server(self, lab: Lab, make_key: MakeKey) -> Sshd:
        """A server that trusts an authority and no key of ours."""
        authority = make_key(lab.folder / "authority")
        key = make_key(lab.folder / "certified")
        user = getpass.getuser()
        subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "t", "-n", user, f"{key}.pub"], check=True)
        server = lab.server(settings=(f"TrustedUserCAKeys {authority}.pub",))
        lab.trust(server)
        lab.key = key
        return server

    def test_a_certificate_beside_the_key_is_shown(self, lab: Lab, server: Sshd) -> None:
        lab.open(lab.spec(server))

    def test_a_certificate_of_the_configuration_is_shown(self, lab: Lab, server: Sshd) -> None:
        Path(f"{lab.key}-cert.pub").rename(lab.folder / "elsewhere.pub")
        with pytest.raises(HostRefused):
            lab.open(lab.spec(server))
        lab.open(lab.spec(server, options={"certificatefile": str(lab.folder / "elsewhere.pub")}))

    @pytest.mark.usefixtures("agent")
    def test_a_certificate_serves_a_key_of_the_agent(self, lab: Lab, server: Sshd) -> None:
        certificate = Path(f"{lab.key}-cert.pub").rename(lab.folder / "elsewhere.pub")
        add(lab.key)
        lab.key.unlink()
        lab.open(lab.spec(server, identity_file=f"{lab.key}.pub", options={"certificatefile": str(certificate)}))


def test_a_server_without_keys_is_refused_with_what_it_offers(lab: Lab) -> None:
    server = lab.server(settings=("PubkeyAuthentication no", "KbdInteractiveAuthentication yes"))
    lab.trust(server)
    with pytest.raises(HostRefused, match=r"the server takes .*nixprov logs in with keys only"):
        lab.open(lab.spec(server))


def test_a_second_factor_is_named(lab: Lab) -> None:
    server = lab.server(settings=("PasswordAuthentication yes", "AuthenticationMethods publickey,password"))
    lab.trust(server)
    with pytest.raises(HostRefused, match="is accepted, but the server wants password as well"):
        lab.open(lab.spec(server))
