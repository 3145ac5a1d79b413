"""Where and as whom to log in, from Ansible's connection variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner.errors import InventoryError
from provisioner.inventory import load, ssh_args
from provisioner.model import Become, Connection, Secret


def _connection(tmp_path: Path, line: str, warnings: list[str] | None = None) -> Connection:
    file = tmp_path / "hosts.ini"
    file.write_text(f"[g]\n{line}\n")
    inventory = load([str(file)], on_warning=(warnings if warnings is not None else []).append)
    return inventory.select("all")[0].connection


def test_a_bare_host_leaves_the_choice_to_ssh(tmp_path: Path) -> None:
    assert _connection(tmp_path, "h1") == Connection(address="h1")


def test_every_variable_has_its_field(tmp_path: Path) -> None:
    line = "h1:22 ansible_host=192.0.2.1 ansible_port=2200 ansible_user=admin ansible_ssh_private_key_file=/k/id"
    assert _connection(tmp_path, line) == Connection("192.0.2.1", 2200, "admin", "/k/id")


def test_home_is_expanded_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/op")
    assert _connection(tmp_path, "h1 ansible_private_key_file=~/.ssh/ci").identity_file == "/home/op/.ssh/ci"


def test_ssh_words_become_options_and_fields(tmp_path: Path) -> None:
    line = (
        "h1 ansible_ssh_common_args='-o ProxyJump=b1,b2 -oUserKnownHostsFile=/k/known -p 2222' "
        "ansible_ssh_extra_args='-o \"ConnectTimeout 7\" -i /k/other -l ops -o ProxyJump=late'"
    )
    connection = _connection(tmp_path, line)
    assert (connection.port, connection.user, connection.identity_file) == (2222, "ops", "/k/other")
    assert connection.options == {"proxyjump": "b1,b2", "userknownhostsfile": "/k/known", "connecttimeout": "7"}


def test_a_variable_wins_over_ssh_words(tmp_path: Path) -> None:
    words = "-p 23 -o StrictHostKeyChecking=yes"
    line = f"h1 ansible_port=22 ansible_host_key_checking=false ansible_ssh_common_args='{words}'"
    connection = _connection(tmp_path, line)
    assert (connection.port, connection.options) == (22, {"stricthostkeychecking": "no"})


def test_options_without_meaning_here_are_named(tmp_path: Path) -> None:
    warnings: list[str] = []
    _connection(tmp_path, "h1 ansible_ssh_common_args='-o ProxyJmp=x -L 1:2:3 -o ControlMaster=auto -vT'", warnings)
    assert [text.partition("args: ")[2] for text in warnings] == [
        "-o ProxyJmp is ignored; did you mean proxyjump?",
        "-L is ignored",
    ]


def test_become_carries_the_password_as_a_secret(tmp_path: Path) -> None:
    become = _connection(
        tmp_path, "h1 ansible_become=yes ansible_become_method=doas ansible_become_password=1234"
    ).become
    assert become == Become("doas", "root", Secret("1234"))
    assert "1234" not in repr(become)


@pytest.mark.parametrize(
    "line", ["h1", "h1 ansible_become=no ansible_become_password=x", "h1 ansible_become_user=root"]
)
def test_no_become_unless_wanted(tmp_path: Path, line: str) -> None:
    assert _connection(tmp_path, line).become is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("h1 ansible_port=ssh", "host h1: ansible_port: expected a whole number from 1 to 65535"),
        ("h1 ansible_port=70000", "host h1: ansible_port: expected a whole number from 1 to 65535"),
        ("h1 ansible_port=True", "host h1: ansible_port: expected a string, got a boolean"),
        ("h1 ansible_host=\"['a']\"", "host h1: ansible_host: expected a string, got a list"),
        ("h1 ansible_host='{{ x }}'", "host h1: ansible_host: templates are not evaluated; write the value itself"),
        ("h1 ansible_become=maybe", "host h1: ansible_become: expected true or false"),
        ("h1 ansible_become_method=su", "host h1: ansible_become_method: su is not one of sudo, doas, run0"),
        ("h1 ansible_become=1 ansible_become_user=www", "host h1: ansible_become_user: must be root"),
        ("h1 ansible_connection=local", "host h1: ansible_connection: local is not supported"),
        ("h1 ansible_ssh_common_args='-o'", "host h1: ansible_ssh_common_args: -o needs a value"),
        ("h1 ansible_ssh_common_args='-J'", "host h1: ansible_ssh_common_args: -J needs a value"),
        ('h1 ansible_ssh_common_args="-o \'x"', "host h1: ansible_ssh_common_args: no closing quotation"),
        ("h1 ansible_ssh_extra_args='-p x'", "host h1: ansible_ssh_extra_args: x is not a valid port"),
    ],
)
def test_wrong_values_name_host_variable_and_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InventoryError) as caught:
        _connection(tmp_path, line)
    assert str(caught.value).startswith(f"{tmp_path / 'hosts.ini'}:2: {message}")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("-J jump", {"proxyjump": "jump"}),
        ("-Jjump -CA", {"proxyjump": "jump", "compression": "yes", "forwardagent": "yes"}),
        ("-o ProxyCommand='ssh -W %h:%p b'", {"proxycommand": "ssh -W %h:%p b"}),
        ("-o 'ProxyCommand ssh -W x=y b'", {"proxycommand": "ssh -W x=y b"}),
        ("-o 'IdentityFile = /a b'", {"identityfile": "/a b"}),
        ("-4 -6", {"addressfamily": "inet"}),
        ('-o UserKnownHostsFile="/a /b"', {"userknownhostsfile": "/a /b"}),
    ],
)
def test_ssh_words(text: str, options: dict[str, str]) -> None:
    assert ssh_args.parse(text) == (options, [])


def test_words_that_are_no_options_are_reported() -> None:
    assert ssh_args.parse("host -Z -o SendEnv=LANG") == ({}, ["host", "-Z", "-o SendEnv"])
