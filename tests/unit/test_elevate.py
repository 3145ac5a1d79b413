from __future__ import annotations

import re
import shlex

import pytest

from provisioner.errors import HostRefused
from provisioner.model import Become, Secret
from provisioner.ssh.elevate import MARK, Doas, Elevator, Run0, Sudo, elevator


def test_root_needs_no_way_to_root() -> None:
    assert elevator("h", "root", Become("doas")) is None


@pytest.mark.parametrize(
    ("become", "wanted"),
    [
        (None, Sudo()),
        (Become(), Sudo()),
        (Become(password=Secret("x")), Sudo(Secret("x"))),
        (Become("doas"), Doas()),
        (Become("run0", password=Secret("of another host")), Run0()),
    ],
    ids=str,
)
def test_others_go_the_way_of_the_inventory_or_sudo(become: Become | None, wanted: Elevator) -> None:
    assert elevator("h", "alice", become) == wanted


@pytest.mark.parametrize(
    ("become", "text"),
    [
        (Become("su"), "become method 'su' is not known; use one of sudo, doas, run0"),
        (Become(user="bob"), "nixprov works as root, not as bob"),
        (Become(password=Secret("a\nb")), "line break"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(become: Become, text: str) -> None:
    with pytest.raises(HostRefused, match=text) as refused:
        elevator("h", "alice", become)
    assert "a\nb" not in str(refused.value)


@pytest.mark.parametrize("way", [Sudo(), Sudo(Secret("hunter2")), Doas(), Run0()], ids=repr)
def test_the_command_line_is_plain_and_without_secrets(way: Elevator) -> None:
    words = shlex.split(way.command)
    assert words[-3:-1] == ["sh", "-c"]
    assert MARK.decode().strip() in words[-1]
    assert "hunter2" not in way.command
    # What fish, csh and POSIX shells read differently has no place in it, between single quotes or elsewhere.
    assert not set("!\\\n") & set(way.command)
    assert not set('$`"') & set(re.sub("'[^']*'", "", way.command))


@pytest.mark.parametrize(
    ("way", "stderr", "text"),
    [
        (
            Sudo(),
            "sudo: a terminal is required to read the password; either use -S\nsudo: a password is required\n",
            "asks for",
        ),
        (Sudo(), "alice is not in the sudoers file.\n", "may not become root"),
        (Sudo(), "Sorry, user alice may not run sudo on host.\n", "may not become root"),
        (Sudo(), "sudo: Ein Passwort ist notwendig\n", "Ein Passwort ist notwendig"),
        (Sudo(), "", "it said nothing"),
        (Sudo(), "fish: Unknown command: sudo\n", "is not there"),
        (Sudo(), "sudo: command not found\n", "is not there"),
        (Doas(), "doas: Authorization required\n", "from a terminal only"),
        (Doas(), "doas: Operation not permitted\n", "may not become root"),
        (
            Run0(),
            "Failed to start transient service unit: Interactive authentication required.\n",
            "without a password",
        ),
        (Run0(), "Failed to start transient service unit: Access denied\n", "without a password"),
    ],
)
def test_refusals_are_told_apart(way: Elevator, stderr: str, text: str) -> None:
    message, hint = way.refusal("alice", 1, stderr)
    assert text in message
    assert hint
