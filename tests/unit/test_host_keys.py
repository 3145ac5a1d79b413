from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.errors import HostKeyError
from provisioner.ssh.known_hosts import ALGORITHMS, KnownHosts, OfferedKey, check, fingerprint, key_type


def key(kind: str = "ssh-ed25519", fill: bytes = b"a") -> bytes:
    return len(kind).to_bytes(4, "big") + kind.encode() + fill * 36


def line(name: str, blob: bytes, marker: str = "") -> str:
    return f"{marker} {name} {key_type(blob)} {base64.b64encode(blob).decode()} a comment\n".lstrip()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def known(file: Path, *lines: str) -> KnownHosts:
    file.write_text("".join(lines))
    return KnownHosts.load((file, file.with_name("missing")))


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("host", "host", True),
        ("host", "HOST", True),
        ("host,other", "other", True),
        ("h?st", "host", True),
        ("*.example", "a.b.example", True),
        ("*.example", "example", False),
        ("[host]:22*", "[host]:2200", True),
        # A set of letters in fnmatch, plain text here.
        ("[host]", "h", False),
        ("*,!host", "host", False),
        ("!host,*", "other", True),
        ("!host", "other", False),
        ("host", "hosts", False),
        # ssh-keygen -H of "example.com".
        ("|1|broken", "example.com", False),
        ("|1|!|!", "example.com", False),
    ],
)
def test_patterns(file: Path, pattern: str, name: str, fits: bool) -> None:
    assert bool(known(file, line(pattern, key())).of(name)) is fits


def test_lines_that_are_no_entries_are_passed_over_and_counted(file: Path) -> None:
    found = known(
        file,
        "# comment\n",
        "\n",
        "host\n",
        "host ssh-ed25519 !!!\n",
        "@unknown " + line("host", key()),
        line("host", key()),
    )
    assert [entry.line for entry in found.of("host")] == [6]


def test_a_known_key_of_a_host_without_port_serves_other_ports(file: Path) -> None:
    assert check("h", "[host]:2200", OfferedKey(key()), known(file, line("host", key())))
    assert not check("h", "[host]:2200", OfferedKey(key(fill=b"b")), known(file, line("host", key())))


def test_one_of_several_known_keys_is_enough(file: Path) -> None:
    both = known(file, line("host", key(fill=b"a")), line("host", key(fill=b"b")))
    assert check("h", "host", OfferedKey(key(fill=b"b")), both)


@pytest.mark.parametrize("other", ["ssh-rsa", "ssh-ed25519"])
def test_any_other_key_has_changed(file: Path, other: str) -> None:
    with pytest.raises(HostKeyError, match=f"has changed.*{file}:1"):
        check("h", "host", OfferedKey(key(fill=b"b")), known(file, line("host", key(other))))


def test_a_revoked_key_is_no_key_to_compare_with(file: Path) -> None:
    revoked = known(file, line("host", key(), "@revoked"))
    assert not check("h", "host", OfferedKey(key(fill=b"b")), revoked)
    with pytest.raises(HostKeyError, match="revoked"):
        check("h", "host", OfferedKey(key()), revoked)


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("ssh-rsa", ["rsa-sha2-512", "rsa-sha2-256"]),
        ("ecdsa-sha2-nistp256", ["ecdsa-sha2-nistp256"]),
        ("ssh-dss", []),
    ],
)
def test_what_is_known_is_asked_for_first(file: Path, kind: str, first: list[str]) -> None:
    asked = known(file, line("host", key(kind))).algorithms("host")
    assert list(asked[: len(first)]) == first
    assert sorted(asked) == sorted(ALGORITHMS)


def test_certificates_are_asked_for_only_where_an_authority_is_known(file: Path) -> None:
    found = known(file, line("*.example", key(), "@cert-authority"))
    assert found.algorithms("host.example")[0] == "ssh-ed25519-cert-v01@openssh.com"
    assert found.algorithms("host.elsewhere") == ALGORITHMS


def test_sha1_is_never_asked_for() -> None:
    assert "ssh-rsa" not in ALGORITHMS


def test_a_file_that_has_grown_is_read_again(file: Path) -> None:
    assert not known(file, line("one", key())).of("two")
    with file.open("a") as more:
        more.write(line("two", key()))
    assert KnownHosts.load((file,)).of("two")


def test_a_fingerprint_is_the_one_people_compare() -> None:
    blob = base64.b64decode("AAAAC3NzaC1lZDI1NTE5AAAAIDTkLk/oaCVockr0qXAE8klaXsFYPV03bPuWKXPatJGP")
    assert fingerprint(blob) == "SHA256:R6mV7gvtmDX/2Mo9aoAVglgjdZnGH557D+nENpV/7xo"
    assert key_type(blob) == "ssh-ed25519"


@given(st.text(), st.binary())
def test_no_file_and_no_key_breaks_the_reader(text: str, blob: bytes) -> None:
    from provisioner.ssh.known_hosts import _lines

    keys = KnownHosts(tuple(_lines(Path("known_hosts"), text)))
    assert not check("h", "a name that is in no file", OfferedKey(blob), keys)
    assert isinstance(key_type(blob), str)
