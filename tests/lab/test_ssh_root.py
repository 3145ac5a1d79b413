"""The ways to a machine and to root on it, against real sshd, sudo, doas, run0 and polkit: jumps, passwords, what is refused."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from nixprov_lab.control import ACCEPTED
from nixprov_lab.running import Lab

from provisioner import selection
from provisioner.machine import lock
from provisioner.selection import Selection
from provisioner.ssh.session import Session, SshOptions
from provisioner.verb import Verb
from tests.lab.operator import Operator, Said, leftovers

PASSWORD = "poison-4f1d for sudo"
# As NixOS writes them, for the switch itself makes them anew: casey may become root with the password, and robin by doas
# and by run0, but not by sudo.
NIXOS_RULE = r"""
set -e
cp -a /etc/nixos/configuration.nix /root/whole
sed -i '/^}$/d' /etc/nixos/configuration.nix
cat >> /etc/nixos/configuration.nix <<'end'
  security.sudo.extraConfig = "casey ALL=(ALL:ALL) ALL";
  security.doas.enable = true;
  security.doas.extraRules = [ { users = [ "robin" ]; noPass = true; cmd = "sh"; } { users = [ "casey" ]; } ];
  security.polkit.enable = true;
  security.polkit.extraConfig = ''
    polkit.addRule(function(action, subject) {
      if (action.id == "org.freedesktop.systemd1.manage-units" && subject.user == "robin") return polkit.Result.YES;
    });
  '';
}
end
. /etc/set-environment
nixos-rebuild switch
"""
NIXOS_BACK = r"""
mv /root/whole /etc/nixos/configuration.nix
. /etc/set-environment
nixos-rebuild switch
"""
USERS = r"""
set -e
read -r key
for user in casey robin; do
  useradd --create-home --shell /bin/sh "$user"
  echo "$user:$1" | chpasswd
done
for user in ops casey robin; do
  mkdir -p "/home/$user/.ssh"
  echo "$key" > "/home/$user/.ssh/authorized_keys"
  chown -R "$user" "/home/$user/.ssh"
  chmod -R go= "/home/$user/.ssh"
done
"""
USERS_GONE = "rm -rf /home/ops/.ssh; for user in casey robin; do userdel --remove $user 2>/dev/null; done; exit 0"


@pytest.fixture(scope="module")
def operator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(lab, tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def users(lab: Lab) -> Iterator[None]:
    """On both hosts: ops (sudo without a password); on host2: casey (with one), robin (doas and run0, no sudo)."""
    key = Path(f"{lab.files.ssh_key}.pub").read_text()
    for host in ("host1", "host2"):
        lab.run(host, ["sh", "-c", USERS, "sh", PASSWORD], stdin=key)
    lab.run("host2", ["bash", "-c", NIXOS_RULE], timeout_s=300)
    yield
    lab.run("host2", ["bash", "-c", NIXOS_BACK], timeout_s=300)
    for host in ("host1", "host2"):
        lab.run(host, ["sh", "-c", USERS_GONE])


def inventory(lab: Lab, tmp_path: Path, host: str = "host2", *, args: str = "", **variables: str) -> str:
    """An inventory with one machine of the lab, reached as `variables` say; `args` are more words for ssh."""
    address = next(found.address for found in lab.state.hosts if found.name == host)
    known = f"-o UserKnownHostsFile={lab.files.known_hosts}"
    said = {
        "ansible_host": address,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(lab.files.ssh_key),
        "ansible_ssh_common_args": f"'{known} {args}'",
        "nixprov_accept_advisories": ",".join(ACCEPTED),
        **variables,
    }
    file = tmp_path / "inventory"
    file.write_text(f"{host} {' '.join(f'{name}={value}' for name, value in said.items())}\n")
    return str(file)


def line_of(said: Said, *words: str) -> str:
    """The line that says all of this, which must be there."""
    found = [line for line in said.err.splitlines() if all(word in line for word in words)]
    assert found, said.err
    return found[0]


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    return str(file)


def test_up_and_down_as_a_user_with_sudo(operator: Operator, lab: Lab, users: None, tmp_path: Path) -> None:
    hosts = inventory(lab, tmp_path, ansible_user="ops")
    up = operator("up", "-i", hosts, "--yes", "--json")
    assert (up.code, up.summary["changed"]) == (0, 1), up.err
    assert operator("status", "-i", hosts, "--json").reports()["host2"]["drift"] == []
    modes = lab.run("host2", ["stat", "-c", "%a %U", "/var/lib/nixprov", "/var/lib/nixprov/secrets/default.token"])
    assert modes.stdout == "700 root\n600 root\n"
    assert operator("down", "-i", hosts, "--yes").code == 0
    assert leftovers(lab, "host2") == ""


def test_up_and_down_with_a_password_that_is_nowhere(
    operator: Operator, lab: Lab, users: None, tmp_path: Path, password_file: str
) -> None:
    hosts = inventory(lab, tmp_path, ansible_user="casey")
    with Watch(lab, "host2", tmp_path / "watched") as watch:
        runs = [
            operator(verb, "-i", hosts, "--yes", "--debug", "-v", "--become-password-file", password_file)
            for verb in ("up", "down")
        ]
    assert [run.code for run in runs] == [0, 0], runs[0].err
    assert leftovers(lab, "host2") == ""
    assert watch.said.count("looked") > 10
    told = "".join(run.out + run.err for run in runs) + watch.said
    told += "".join(file.read_text() for file in (operator.home / ".local").rglob("*") if file.is_file())
    told += lab.run(
        "host2", ["sh", "-c", "journalctl --sync; journalctl --quiet --no-pager; cat /var/log/auth.log 2>/dev/null; :"]
    ).stdout
    assert "casey" in told
    assert PASSWORD not in told


def test_up_by_doas_and_down_by_run0(operator: Operator, lab: Lab, users: None, tmp_path: Path) -> None:
    by_doas = inventory(lab, tmp_path, ansible_user="robin", ansible_become_method="doas")
    up = operator("up", "-i", by_doas, "--yes", "--json")
    assert (up.code, up.summary["changed"]) == (0, 1), up.err
    by_run0 = inventory(lab, tmp_path, ansible_user="robin", ansible_become_method="run0")
    assert operator("status", "-i", by_run0, "--json").reports()["host2"]["drift"] == []
    down = operator("down", "-i", by_run0, "--yes")
    assert down.code == 0, down.err
    assert leftovers(lab, "host2") == ""


@pytest.mark.parametrize(("user", "method"), [("ops", "sudo"), ("robin", "doas"), ("robin", "run0")])
def test_every_way_to_root_knows_its_connection(lab: Lab, users: None, tmp_path: Path, user: str, method: str) -> None:
    """It is what holds a host for a run (machine/lock.py), and what a plan's look ends with."""
    hosts = inventory(lab, tmp_path, ansible_user=user, ansible_become_method=method)
    [spec] = selection.select(Selection((hosts,)), Verb.PLAN).hosts
    with Session.open(spec, SshOptions()) as session:
        process = session.run(f"{lock.CONNECTION}connection".encode(), timeout_s=30).stdout.split()[0].decode()
        done = session.run(f"cat /proc/{process}/comm".encode(), timeout_s=30)
    assert done.stdout.startswith(b"sshd")


class Watch:
    """Looks at every process of a host, its words and its environment, several times a second."""

    # One program for all of them: with two for each, a look takes seconds on a busy computer.
    LOOK = r"""
    while [ ! -e /run/watch-is-over ]; do
      cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\0' ' '
      echo looked
      sleep 0.1
    done
    rm /run/watch-is-over
    """

    def __init__(self, lab: Lab, host: str, output: Path) -> None:
        self._lab, self._host, self._output = lab, host, output

    @property
    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def see(self) -> None:
        """Wait until all that runs now has been looked at: by the next look but one, for one is under way."""
        wanted, deadline = self.said.count("looked") + 2, time.monotonic() + 60
        while self.said.count("looked") < wanted:
            assert time.monotonic() < deadline, "the watch does not look"
            time.sleep(0.1)

    def __enter__(self) -> Self:
        with self._output.open("wb") as output:
            argv = [*self._lab.ssh_argv(self._host), shlex.join(["sh", "-c", self.LOOK])]
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output)
        self.see()
        return self

    def __exit__(self, *_: object) -> None:
        self._lab.run(self._host, ["touch", "/run/watch-is-over"])
        self._process.wait(60)


def test_the_watch_would_see_a_password(lab: Lab, users: None, tmp_path: Path) -> None:
    with Watch(lab, "host2", tmp_path / "watched") as watch:
        lab.run(
            "host2", ["systemd-run", "--quiet", "--unit=keeps-a-secret", f"--setenv=SECRET={PASSWORD}", "sleep", "600"]
        )
        watch.see()
        lab.run("host2", ["systemctl", "stop", "keeps-a-secret.service"])
    assert f"SECRET={PASSWORD}" in watch.said


def test_a_password_is_asked_for_once(operator: Operator, lab: Lab, users: None, tmp_path: Path) -> None:
    code, screen = at_a_terminal(operator, "plan", "-i", inventory(lab, tmp_path, ansible_user="casey"), "-K")
    assert code == 0, screen
    assert screen.count("Password for sudo") == 1
    assert PASSWORD not in screen


def at_a_terminal(operator: Operator, *arguments: str) -> tuple[int, str]:
    """Run with a terminal for input and output, type the password once it is asked for; gives what was on the screen."""
    keyboard, terminal = pty.openpty()
    argv = [sys.executable, "-m", "provisioner", *arguments]
    process = subprocess.Popen(
        argv, stdin=terminal, stdout=terminal, stderr=terminal, env=operator.environment(), start_new_session=True
    )
    os.close(terminal)
    screen, deadline, typed = b"", time.monotonic() + 60, False
    while time.monotonic() < deadline:
        if not select.select([keyboard], [], [], 0.2)[0]:
            continue
        try:
            screen += os.read(keyboard, 4096)
        except OSError:  # the other end is closed: it has ended
            break
        if b"Password" in screen and not typed:
            typed = bool(os.write(keyboard, PASSWORD.encode() + b"\n"))
    os.close(keyboard)
    return process.wait(30), screen.decode(errors="replace")


def test_the_inventorys_password_is_used_and_never_shown(
    operator: Operator, lab: Lab, users: None, tmp_path: Path
) -> None:
    quoted = f"'{PASSWORD}'"
    hosts = inventory(lab, tmp_path, ansible_user="casey", ansible_become_password=quoted)
    assert operator("plan", "-i", hosts).code == 0
    shown = operator("inventory", "host", "host2", "-i", hosts)
    assert '"ansible_become_password": "***"' in shown.out
    assert PASSWORD not in shown.out


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ansible_user": "casey"}, ("sudo asks for casey's password", "NOPASSWD")),
        ({"ansible_user": "casey", "ansible_become_password": "wrong"}, ("sudo does not take casey's password",)),
        (
            {"ansible_user": "robin", "ansible_become_password": f"'{PASSWORD}'"},
            ("robin may not become root with sudo", "NOPASSWD"),
        ),
        (
            {"ansible_user": "casey", "ansible_become_method": "doas"},
            ("doas asks for casey's password", "terminal only", "permit nopass"),
        ),
        (
            {"ansible_user": "ops", "ansible_become_method": "run0"},
            ("run0 may not act for ops without a password", "polkit"),
        ),
    ],
)
def test_no_way_to_root_is_one_line_and_no_change(
    operator: Operator, lab: Lab, tmp_path: Path, variables: dict[str, str], words: tuple[str, ...]
) -> None:
    hosts = inventory(lab, tmp_path, **variables)
    said = operator("up", "-i", hosts, "--yes", "--json")
    assert said.code == 5, said.err
    line_of(said, "host2", *words)
    assert said.summary["gitlab_writes"] == 0
    assert leftovers(lab, "host2") == ""


def test_doas_that_is_not_there_is_said(operator: Operator, lab: Lab, users: None, tmp_path: Path) -> None:
    said = operator("plan", "-i", inventory(lab, tmp_path, "host1", ansible_user="ops", ansible_become_method="doas"))
    assert said.code == 5
    line_of(said, "host1", "doas is not there for ops")


def test_by_way_of_a_jump_host(operator: Operator, lab: Lab, tmp_path: Path) -> None:
    jump, target = (host.address for host in lab.state.hosts[:2])
    hosts = inventory(lab, tmp_path, args=f"-o ProxyJump=root@{jump}")
    said = operator("plan", "-i", hosts, "--json")
    assert said.code == 0, said.err
    assert said.host("host2")["connections"] == 1
    look = "journalctl --sync; journalctl --quiet --unit='ssh*' --grep='Accepted publickey' -n 2"
    logins = lab.run("host2", ["sh", "-c", look]).stdout
    assert f"from {jump} " in logins, (target, logins)


def test_by_way_of_two_jump_hosts(operator: Operator, lab: Lab, tmp_path: Path) -> None:
    first, second = (host.address for host in lab.state.hosts[:2])
    hosts = inventory(lab, tmp_path, "host1", args=f"-J root@{first},root@{second}")
    assert operator("plan", "-i", hosts).code == 0


def test_a_jump_hosts_key_that_changed_is_refused(operator: Operator, lab: Lab, tmp_path: Path) -> None:
    jump, target = (host.address for host in lab.state.hosts[:2])
    keys = {line.split()[0]: line.split(None, 1)[1] for line in lab.files.known_hosts.read_text().splitlines()}
    known = tmp_path / "known_hosts"
    known.write_text(f"{jump} {keys[target]}\n{target} {keys[target]}\n")
    args = f"'-o UserKnownHostsFile={known} -o ProxyJump=root@{jump}'"
    said = operator("plan", "-i", inventory(lab, tmp_path, ansible_ssh_common_args=args))
    assert said.code == 6
    assert jump in line_of(said, "host2", "has changed", "ssh-keygen")


def test_host_key_checking_off_records_new_keys_and_still_refuses_changed_ones(
    operator: Operator, lab: Lab, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    args = f"'-o UserKnownHostsFile={known}'"
    hosts = inventory(lab, tmp_path, ansible_host_key_checking="false", ansible_ssh_common_args=args)
    assert operator("plan", "-i", hosts).code == 0
    assert "ssh-ed25519" in known.read_text()
    address = lab.state.hosts[1].address
    other = next(line for line in lab.files.known_hosts.read_text().splitlines() if not line.startswith(f"{address} "))
    known.write_text(f"{address} {other.split(None, 1)[1]}\n")
    said = operator("plan", "-i", hosts)
    assert said.code == 6
    line_of(said, "host2", "has changed")


def test_a_host_that_hangs_holds_nobody(operator: Operator, lab: Lab) -> None:
    lab.cut_network("host1")
    try:
        # Long enough for the other one on a busy computer, and shorter than ssh would take to give up.
        said = operator("plan", "--json", "--timeout", "10", "--connect-timeout", "60")
    finally:
        lab.restore_network("host1")
    assert said.code == 4, said.err
    assert (said.host("host1")["outcome"], said.host("host1")["error"]) == ("failed", "not done within 10 s")
    assert said.host("host2")["outcome"] == "changed"
    assert said.summary["seconds"] < 30
