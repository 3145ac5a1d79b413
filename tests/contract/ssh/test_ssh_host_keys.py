from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provisioner.errors import HostKeyError

if TYPE_CHECKING:
    from tests.contract.ssh.conftest import Lab, MakeKey, Sshd

ALL = ("ed25519", "ecdsa", "rsa")


def fingerprint(key: Path) -> str:
    listed = subprocess.run(["ssh-keygen", "-lf", f"{key}.pub"], capture_output=True, text=True, check=True)
    return listed.stdout.split()[1]


def is_let_in(lab: Lab, server: Sshd) -> bool:
    lab.open(lab.spec(server))
    return True


def test_an_unknown_key_is_refused_with_its_fingerprint_and_not_recorded(lab: Lab) -> None:
    server = lab.server()
    with pytest.raises(HostKeyError) as refused:
        lab.open(lab.spec(server))
    assert fingerprint(server.host_key()) in refused.value.message
    assert server.name in refused.value.message
    assert "--accept-new-host-keys" in refused.value.hint
    assert "\n" not in str(refused.value)
    assert not lab.known.exists()
    assert "Accepted" not in server.final_log


def test_a_new_key_is_accepted_when_asked_and_recorded_for_the_next_time(lab: Lab) -> None:
    server = lab.server()
    lab.open(lab.spec(server), accept_new_host_keys=True)
    assert lab.known.read_text() == server.known_hosts()
    assert lab.known.stat().st_mode & 0o777 == 0o600
    assert is_let_in(lab, server)


def test_recording_appends_below_a_last_line_without_end(lab: Lab) -> None:
    lab.known.write_text("# mine")
    server = lab.server()
    lab.open(lab.spec(server), accept_new_host_keys=True)
    assert lab.known.read_text() == f"# mine\n{server.known_hosts()}"


def test_recording_hashes_names_where_ssh_config_says_so(lab: Lab) -> None:
    lab.configure("HashKnownHosts yes")
    server = lab.server()
    lab.open(lab.spec(server), accept_new_host_keys=True)
    assert lab.known.read_text().startswith("|1|")
    assert (
        subprocess.run(["ssh-keygen", "-F", server.name, "-f", lab.known], capture_output=True, check=False).returncode
        == 0
    )
    assert is_let_in(lab, server)


def test_a_key_that_cannot_be_recorded_is_not_accepted(lab: Lab) -> None:
    server = lab.server()
    with pytest.raises(HostKeyError, match="cannot be recorded"):
        lab.open(lab.spec(server), accept_new_host_keys=True, known_hosts=(lab.folder / "ssh_config" / "known",))


@pytest.mark.parametrize("word", ["accept-new", "no"])
def test_ssh_config_may_accept_new_keys_but_never_changed_ones(lab: Lab, word: str) -> None:
    lab.configure(f"StrictHostKeyChecking {word}")
    server = lab.server()
    assert is_let_in(lab, server)
    replace_host_key(server)
    with pytest.raises(HostKeyError, match="has changed"):
        lab.open(lab.spec(server))


def test_the_null_device_as_known_hosts_accepts_and_keeps_nothing(lab: Lab) -> None:
    options = {"userknownhostsfile": "/dev/null", "stricthostkeychecking": "no"}
    server = lab.server()
    lab.open(lab.spec(server, options=options))
    assert not Path("/dev/null").is_file()


def test_a_changed_key_names_the_line_and_a_repair_that_works(lab: Lab) -> None:
    lab.known.write_text("# a comment\n\n")
    server = lab.server()
    lab.trust(server)
    old = fingerprint(server.host_key())
    replace_host_key(server)
    with pytest.raises(HostKeyError) as refused:
        lab.open(lab.spec(server), accept_new_host_keys=True)
    assert f"{lab.known}:3" in refused.value.message
    assert old in refused.value.message
    assert fingerprint(server.host_key()) in refused.value.message
    repair = refused.value.hint[refused.value.hint.index("ssh-keygen") :]
    subprocess.run(["sh", "-c", repair], check=True, capture_output=True)
    lab.open(lab.spec(server), accept_new_host_keys=True)


@pytest.mark.parametrize("kind", ALL)
def test_the_key_that_is_known_is_the_one_that_is_asked_for(lab: Lab, kind: str) -> None:
    server = lab.server(kinds=ALL)
    lab.known.write_text(server.known_hosts(kind))
    assert is_let_in(lab, server)


def test_a_key_of_another_type_than_the_known_one_is_not_new(lab: Lab) -> None:
    server = lab.server(kinds=("ecdsa",))
    lab.known.write_text(server.known_hosts("ed25519"))
    with pytest.raises(HostKeyError, match="has changed"):
        lab.open(lab.spec(server), accept_new_host_keys=True)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this kernel has no IPv6")
def test_an_address_of_ipv6_with_its_port(lab: Lab, server: Sshd) -> None:
    server.stop()
    server.settings = (f"ListenAddress [::1]:{server.port}",)
    server.start()
    with pytest.raises(HostKeyError, match=rf"\[::1\]:{server.port}"):
        lab.open(lab.spec(server, "::1"))
    lab.open(lab.spec(server, "::1"), accept_new_host_keys=True)
    assert lab.known.read_text().splitlines()[-1].startswith(f"[::1]:{server.port} ssh-ed25519 ")
    assert lab.open(lab.spec(server, "::1")).run(b"echo $SSH_CONNECTION", timeout_s=10).stdout.startswith(b"::1 ")


def test_a_hashed_name_is_found(lab: Lab, server: Sshd) -> None:
    subprocess.run(["ssh-keygen", "-H", "-f", lab.known], check=True, capture_output=True)
    assert lab.known.read_text().startswith("|1|")
    assert is_let_in(lab, server)


@pytest.mark.parametrize(
    ("name", "is_known"),
    [
        ("127.0.0.1", True),
        ("[127.0.0.*]:*", True),
        ("other,[127.0.0.1]:{port}", True),
        ("[127.0.0.1]:1", False),
        ("[127.0.0.1]:{port},!*", False),
        ("*.example", False),
    ],
)
def test_names_are_patterns(lab: Lab, name: str, is_known: bool) -> None:
    server = lab.server()
    lab.known.write_text(server.known_hosts(name=name.format(port=server.port)))
    if is_known:
        assert is_let_in(lab, server)
    else:
        with pytest.raises(HostKeyError, match="is unknown"):
            lab.open(lab.spec(server))


def test_several_files_are_read_and_the_first_is_written(lab: Lab) -> None:
    old, new = lab.server(), lab.server()
    first, second = lab.folder / "first", lab.folder / "se cond"
    second.write_text(old.known_hosts())
    options = {"userknownhostsfile": f'{first} "{second}"'}
    lab.open(lab.spec(old, options=options))
    assert not first.exists()
    lab.open(lab.spec(new, options=options), accept_new_host_keys=True)
    assert first.read_text() == new.known_hosts()


def test_the_global_file_counts(lab: Lab) -> None:
    server = lab.server()
    system = lab.folder / "system"
    system.write_text(server.known_hosts())
    lab.configure(f"GlobalKnownHostsFile {system}")
    assert is_let_in(lab, server)


def test_files_given_by_the_operator_replace_the_users(lab: Lab, server: Sshd) -> None:
    with pytest.raises(HostKeyError):
        lab.open(lab.spec(server), known_hosts=(lab.folder / "empty",))


def test_a_host_key_alias_is_the_name_to_look_for(lab: Lab) -> None:
    server = lab.server()
    lab.configure("HostKeyAlias build-farm")
    lab.known.write_text(server.known_hosts(name="build-farm"))
    assert is_let_in(lab, server)
    lab.known.write_text(server.known_hosts())
    with pytest.raises(HostKeyError, match="build-farm is unknown"):
        lab.open(lab.spec(server))


def test_a_revoked_key_is_refused_although_it_is_known(lab: Lab, server: Sshd) -> None:
    with lab.known.open("a") as file:
        file.write(f"@revoked * {server.known_hosts().split(maxsplit=1)[1]}")
    with pytest.raises(HostKeyError, match=r"is revoked by .*known_hosts:2"):
        lab.open(lab.spec(server), accept_new_host_keys=True)


class TestCertificates:
    @pytest.fixture
    def authority(self, lab: Lab, make_key: MakeKey) -> Path:
        key = make_key(lab.folder / "authority")
        lab.known.write_text(f"@cert-authority *,[127.0.0.1]:* {Path(f'{key}.pub').read_text()}")
        return key

    def certified(self, lab: Lab, authority: Path, *arguments: str, kinds: tuple[str, ...] = ("ed25519",)) -> Sshd:
        server = lab.server(kinds=kinds)
        server.stop()
        files = []
        for kind in kinds:
            command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "t", *arguments, f"{server.host_key(kind)}.pub"]
            subprocess.run(command, check=True)
            files.append(f"HostCertificate {server.host_key(kind)}-cert.pub")
        server.settings = tuple(files)
        server.start()
        return server

    @pytest.mark.parametrize("kind", ALL)
    def test_a_certificate_of_a_known_authority_is_enough(self, lab: Lab, authority: Path, kind: str) -> None:
        assert is_let_in(lab, self.certified(lab, authority, "-h", "-n", "127.0.0.1", kinds=(kind,)))
        assert len(lab.known.read_text().splitlines()) == 1

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (("-h", "-n", "127.0.0.2"), r"is for 127\.0\.0\.2"),
            (("-h",), "is for no named host"),
            (("-h", "-n", "127.0.0.1", "-V", "20200101:20200102"), "is not valid now"),
        ],
    )
    def test_a_certificate_that_does_not_hold_is_refused(
        self, lab: Lab, authority: Path, arguments: tuple[str, ...], why: str
    ) -> None:
        server = self.certified(lab, authority, *arguments)
        with pytest.raises(HostKeyError, match=why):
            lab.open(lab.spec(server), accept_new_host_keys=True)

    @pytest.mark.usefixtures("authority")
    def test_a_certificate_of_somebody_else_is_an_unknown_key(self, lab: Lab, make_key: MakeKey) -> None:
        server = self.certified(lab, make_key(lab.folder / "stranger"), "-h", "-n", "127.0.0.1")
        with pytest.raises(HostKeyError, match=r"is unknown.*no certificate of the authority in .*known_hosts:1"):
            lab.open(lab.spec(server))

    def test_a_revoked_authority_certifies_nothing(self, lab: Lab, authority: Path) -> None:
        server = self.certified(lab, authority, "-h", "-n", "127.0.0.1")
        with lab.known.open("a") as file:
            file.write(f"@revoked * {Path(f'{authority}.pub').read_text()}")
        with pytest.raises(HostKeyError, match="revoked"):
            lab.open(lab.spec(server))

    @pytest.mark.usefixtures("authority")
    def test_without_a_certificate_the_plain_key_may_be_known(self, lab: Lab) -> None:
        server = lab.server()
        lab.trust(server)
        assert is_let_in(lab, server)


def test_many_at_once_record_whole_lines(lab: Lab) -> None:
    from provisioner.ssh.known_hosts import OfferedKey, record

    keys = [OfferedKey(b"\0\0\0\x0bssh-ed25519" + bytes([n]) * 36) for n in range(40)]
    threads = [
        threading.Thread(target=record, args=("h", f"host{n}", key, lab.known), kwargs={"hashed": False})
        for n, key in enumerate(keys)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = lab.known.read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(f"host{n}" for n in range(40))
    assert {len(line.split()) for line in lines} == {3}


def replace_host_key(server: Sshd) -> None:
    server.stop()
    for file in server.folder.glob("host_*"):
        file.unlink()
    server.start()
