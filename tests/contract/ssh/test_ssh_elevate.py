"""Becoming root, through a stub `sudo` on the server's PATH that asks, counts and refuses as the real one does."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provisioner.errors import HostRefused
from provisioner.model import Secret
from provisioner.ssh.config import resolve
from provisioner.ssh.elevate import Doas, Elevator, Run0, Sudo
from provisioner.ssh.errors import Cancelled
from tests.contract.ssh.conftest import until

if TYPE_CHECKING:
    from provisioner.ssh.exec import Completed
    from tests.contract.ssh.conftest import Lab, Sshd

PASSWORD = "correct horse"

# Messages of sudo 1.9 (plugins/sudoers, src/tgetpass.c). It takes the password byte by byte, as `read` does.
SUDO = r"""#!/bin/sh
echo "$*" >> "$STUB_LOG"
ask=yes prompt='[sudo] password for tester: '
while :; do
  case $1 in
    -n) ask=never; shift ;;
    -S) shift ;;
    -p) prompt=$2; shift 2 ;;
    --) shift; break ;;
    *) break ;;
  esac
done
case $STUB_MODE in
  free) exec "$@" ;;
  tty) echo 'sudo: sorry, you must have a tty to run sudo' >&2; exit 1 ;;
  stranger) echo 'tester is not in the sudoers file.' >&2; exit 1 ;;
  mute) sleep 60; exit 1 ;;
esac
[ "$ask" = never ] && { echo 'sudo: a password is required' >&2; exit 1; }
echo 'We trust you have received the usual lecture.' >&2
for try in 1 2 3; do
  printf %s "$prompt" >&2
  IFS= read -r word || { echo 'sudo: no password was provided' >&2; exit 1; }
  printf '%s\n' "$word" >> "$STUB_LOG.words"
  if [ "$word" = "$STUB_PASSWORD" ]; then
    if [ "$STUB_MODE" = limited ]; then
      echo 'Sorry, user tester is not allowed to execute sh as root on host.' >&2
      exit 1
    fi
    exec "$@"
  fi
  echo 'Sorry, try again.' >&2
done
echo 'sudo: 3 incorrect password attempts' >&2
exit 1
"""

STEP_ASIDE = r"""#!/bin/sh
echo "$*" >> "$STUB_LOG"
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""


class Host:
    """A login whose way to root is the stub in some mode."""

    def __init__(self, lab: Lab, mode: str, program: str = "sudo", text: str = SUDO) -> None:
        self.log = lab.folder / "stub.log"
        self.server: Sshd = lab.server(STUB_MODE=mode, STUB_LOG=str(self.log), STUB_PASSWORD=PASSWORD)
        lab.trust(self.server)
        stub = self.server.folder / "bin" / program
        stub.write_text(text)
        stub.chmod(0o755)
        self.lab = lab

    def run(
        self, elevator: Elevator, script: bytes, timeout_s: float = 20, cancel: threading.Event | None = None
    ) -> Completed:
        from provisioner.ssh.exec import Order, execute
        from provisioner.ssh.transport import open_link

        spec = self.lab.spec(self.server)
        link = open_link(spec.name, resolve(spec.name, spec.connection, self.lab.options))
        try:
            return execute(link.transport, Order(spec.name, "tester", elevator, script, timeout_s, cancel=cancel))
        finally:
            link.close()

    def words(self) -> list[str]:
        """What the stub took for passwords."""
        file = Path(f"{self.log}.words")
        return file.read_text().splitlines() if file.exists() else []


def test_sudo_without_a_password_runs_the_script_and_hides_its_own_words(lab: Lab) -> None:
    done = Host(lab, "free").run(Sudo(), b"echo out; echo err >&2; exit 4")
    assert (done.status, done.stdout, done.stderr) == (4, b"out\n", "err\n")


def test_sudo_with_a_password_is_asked_and_answered_once(lab: Lab) -> None:
    host = Host(lab, "password")
    done = host.run(Sudo(Secret(PASSWORD)), b"cat; echo out; echo err >&2; exit 4")
    assert (done.status, done.stdout, done.stderr) == (4, b"out\n", "err\n")
    assert host.words() == [PASSWORD]


def test_a_password_that_nobody_asks_for_is_not_run_as_a_command(lab: Lab) -> None:
    host = Host(lab, "free")
    done = host.run(Sudo(Secret(PASSWORD)), b"echo out")
    assert (done.status, done.stdout, done.stderr) == (0, b"out\n", "")
    assert host.words() == []


def test_a_wrong_password_is_said_once_and_the_script_never_read_as_one(lab: Lab) -> None:
    host = Host(lab, "password")
    with pytest.raises(HostRefused, match="sudo does not take tester's password"):
        host.run(Sudo(Secret("wrong")), b"echo a secret token\n" * 10)
    assert host.words() == ["wrong"]


def test_the_password_is_in_no_argument_list(lab: Lab) -> None:
    host = Host(lab, "password")
    host.run(Sudo(Secret(PASSWORD)), b":")
    assert PASSWORD not in host.log.read_text()
    assert "-S" in host.log.read_text()


@pytest.mark.parametrize(
    ("mode", "password", "message", "hint"),
    [
        ("password", None, "sudo asks for tester's password", "become password"),
        ("stranger", None, "tester may not become root with sudo", "NOPASSWD: /run/current-system/sw/bin/sh"),
        ("stranger", PASSWORD, "tester may not become root with sudo", "NOPASSWD"),
        ("limited", PASSWORD, "tester may not become root with sudo", "NOPASSWD"),
        ("tty", None, "sudo wants a terminal", "requiretty"),
    ],
)
def test_every_refusal_has_its_words(lab: Lab, mode: str, password: str | None, message: str, hint: str) -> None:
    with pytest.raises(HostRefused) as refused:
        Host(lab, mode).run(Sudo(Secret(password) if password else None), b"echo never")
    assert message in refused.value.message
    assert hint in refused.value.hint
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("elevator", [Sudo(), Sudo(Secret(PASSWORD)), Doas()])
def test_a_login_that_runs_no_command_is_no_fault_of_sudo(lab: Lab, elevator: Elevator) -> None:
    host = Host(lab, "free")
    host.server.stop()
    host.server.settings = ("ForceCommand echo 'This account is currently not available.'; exit 1",)
    host.server.start()
    with pytest.raises(HostRefused, match=r"login shell of tester runs no script \(status 1\): This account is"):
        host.run(elevator, b"echo never")


@pytest.mark.parametrize("elevator", [Sudo(), Sudo(Secret(PASSWORD)), Doas(), Run0()])
def test_a_method_that_is_not_there_is_said(lab: Lab, elevator: Elevator) -> None:
    host = Host(lab, "free", program="something-else")
    host.server.stop()
    host.server.environment["PATH"] = only_sh(host.server.folder / "empty")
    host.server.start()
    with pytest.raises(HostRefused, match="is not there for tester"):
        host.run(elevator, b"echo never")


@pytest.mark.parametrize(
    ("program", "elevator", "options"), [("doas", Doas(), "-n"), ("run0", Run0(), "--no-ask-password --pipe --")]
)
def test_doas_and_run0_run_the_script(lab: Lab, program: str, elevator: Elevator, options: str) -> None:
    host = Host(lab, "free", program, STEP_ASIDE)
    done = host.run(elevator, b"echo out; exit 2")
    assert (done.status, done.stdout) == (2, b"out\n")
    assert host.log.read_text().startswith(options)


def test_a_sudo_that_neither_asks_nor_answers_can_be_interrupted(lab: Lab) -> None:
    host, cancel, at = Host(lab, "mute"), threading.Event(), list[float]()

    def interrupt() -> None:
        until(host.log.exists)
        at.append(time.monotonic())
        cancel.set()

    threading.Thread(target=interrupt).start()
    with pytest.raises(Cancelled):
        host.run(Sudo(Secret(PASSWORD)), b":", timeout_s=60, cancel=cancel)
    assert time.monotonic() - at[0] < 15


def test_a_sudo_that_neither_asks_nor_answers_is_given_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provisioner.ssh.exec.ELEVATE_TIMEOUT_S", 0.5)
    with pytest.raises(HostRefused, match="no root shell"):
        Host(lab, "mute").run(Sudo(Secret(PASSWORD)), b":")


def only_sh(folder: Path) -> str:
    folder.mkdir()
    (folder / "sh").symlink_to("/bin/sh")
    assert not (folder / "sudo").exists()
    return os.fspath(folder)
