"""The switch's scripts in a real sh, with a folder for the host's places and systemd's answers written down before."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pytest

from provisioner.machine import switch
from provisioner.machine.switch import Followed, SwitchResult

MOVED = (
    "/var/lib/nixprov",
    "/etc/nixos",
    "/nix/var/nix",
    "/etc/systemd",
    "/run/current-system",
    "/run/nixos",
    "/etc/set-environment",
)
# Says the next line of `answers` each time; the last one for ever. "-" is no answer.
SYSTEMCTL = """\
#!/bin/sh
case $* in *SubState*) ;; *) exit 0 ;; esac
line=$(head -n 1 ANSWERS)
[ "$(wc -l < ANSWERS)" = 1 ] || sed -i 1d ANSWERS
[ "$line" != - ] || exit 1
echo "$line"
"""


class Host:
    def __init__(self, folder: Path, *substates: str) -> None:
        self.folder = folder
        self.state = folder / "var/lib/nixprov/switch"
        self.state.mkdir(parents=True)
        (folder / "answers").write_text("".join(f"{one}\n" for one in substates or ("dead",)))
        self.program("bin/systemctl", SYSTEMCTL.replace("ANSWERS", str(folder / "answers")))
        for name in ("journalctl", "sync"):
            self.program(f"bin/{name}", "#!/bin/sh\n")
        profiles = folder / "nix/var/nix/profiles"
        profiles.mkdir(parents=True)
        (profiles / "system").symlink_to("system-4-link")

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: bytes, *arguments: str) -> subprocess.CompletedProcess[str]:
        text = script.decode()
        for path in MOVED:
            text = text.replace(path, f"{self.folder}{path}")
        environment = {
            **os.environ,
            "RUNTIME_DIRECTORY": str(self.folder),
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
        }
        return subprocess.run(
            ["sh", "-s", "--", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env=environment,
        )


def ends(done: subprocess.CompletedProcess[str]) -> list[SwitchResult]:
    said = [Followed.parse(line) for line in done.stdout.splitlines()]
    return [one.result for one in said if one.result]


@pytest.mark.parametrize("substates", [("running", "-", "-", "exited"), ("-", "exited")])
def test_a_systemd_that_does_not_answer_just_now_is_no_end_of_the_switch(
    tmp_path: Path, substates: Sequence[str]
) -> None:
    """A switch to another systemd has it execute itself anew."""
    host = Host(tmp_path, *substates)
    (host.state / "result").write_text("commit 0 5 \n")
    assert ends(host.run(switch.follow(""))) == [SwitchResult("commit", 0, 5)]
    assert (tmp_path / "answers").read_text() == "exited\n", "the end came before the switch's"


def test_the_log_of_a_switch_is_found_once_systemd_answers_again(tmp_path: Path) -> None:
    """Who follows over a new connection may come while it does not; of no invocation there is no log."""
    host = Host(tmp_path, "-", "running", "exited")
    host.program("bin/systemctl-before", (tmp_path / "bin/systemctl").read_text())
    asks = f'"$0-before" "$@" || exit 1\ncase $* in *InvocationID*) [ ! -e {tmp_path}/up ] || echo 1234 ;;\n'
    host.program("bin/systemctl", f"#!/bin/sh\n{asks}*) : > {tmp_path}/up ;; esac\n")
    host.program("bin/journalctl", "#!/bin/sh\ncase $* in *_SYSTEMD_INVOCATION_ID=1234*) echo building ;; esac\n")
    assert "log building\n" in host.run(switch.follow("")).stdout


def test_a_systemd_that_never_answers_is_no_result(tmp_path: Path) -> None:
    host = Host(tmp_path, "-")
    host.program("bin/sleep", "#!/bin/sh\n")
    (host.state / "result").write_text("activate running 4 \n")
    assert ends(host.run(switch.follow(""))) == [SwitchResult("activate", 1, 4)]


def test_who_goes_back_after_the_switch_was_killed_cannot_be_confirmed_meanwhile(tmp_path: Path) -> None:
    """Two verdicts would be a run that waits for the host to keep what the host gives back."""
    host = Host(tmp_path)
    (host.state / "open").touch()
    (host.state / "result").write_text("activate 0 4 \n")
    confirm = f"mv {host.state}/open {host.state}/confirmed && echo confirmed\n"
    runs = f"ln -sfn {tmp_path}/nix/var/nix/profiles/system-4-link {tmp_path}/run/current-system\n"
    (tmp_path / "run").mkdir()
    host.program("nix/var/nix/profiles/system-4-link/bin/switch-to-configuration", f"#!/bin/sh\n{confirm}{runs}")
    done = host.run(files("provisioner.machine").joinpath("switch.sh").read_bytes(), "settle")
    assert "confirmed" not in done.stdout
    assert (host.state / "result").read_text() == "back 0 4 ended\n"
    assert sorted(path.name for path in host.state.iterdir()) == ["result"]


@pytest.mark.parametrize("verdict", ["expired", "aborted"])
def test_a_host_that_goes_back_gets_the_lock_that_its_files_need(tmp_path: Path, verdict: str) -> None:
    """The last transaction holds it while it waits for the end of the switch, which waits for the lock."""
    host = Host(tmp_path)
    (host.state / verdict).touch()
    (host.state / "result").write_text("back 0 4\n")
    looks = f"flock --nonblock {host.state} echo free >> {tmp_path}/lock || echo held >> {tmp_path}/lock; echo dead"
    host.program("bin/systemctl", f"#!/bin/sh\n{looks}\n")
    holds = "fail() { exit $1; }\nexec 9< /var/lib/nixprov/switch\nflock 9\n"
    done = host.run(f"{holds}{switch.confirm((), 0)}".encode())
    assert (done.returncode, (tmp_path / "lock").read_text()) == (switch.UNCONFIRMED_STATUS, "free\n")


@pytest.mark.parametrize(
    ("verdict", "result", "status", "words"),
    [
        ("expired", "back running 4 ", switch.UNCONFIRMED_STATUS, switch.EXPIRED),
        ("", "back 0 4 expired", switch.UNCONFIRMED_STATUS, switch.EXPIRED),
        ("", "activate 0 4 ", switch.NOT_ACTIVE_STATUS, "one.service is inactive"),
    ],
)
def test_a_unit_that_the_host_itself_has_stopped_is_not_called_dead(
    tmp_path: Path, verdict: str, result: str, status: int, words: str
) -> None:
    """An operator who was away for longer than the host waits asks for the unit first."""
    host = Host(tmp_path)
    host.program("bin/systemctl", "#!/bin/sh\n[ $1 != is-active ] || { echo inactive; exit 3; }\n")
    if verdict:
        (host.state / verdict).touch()
    (host.state / "result").write_text(f"{result}\n")
    fail = 'fail() { echo "$2" >&2; exit $1; }\n'
    done = host.run(f"{fail}{switch.active(('one.service',), 1)}".encode())
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr


@pytest.mark.parametrize(
    ("programs", "arguments"),
    [
        (("switch.sh",), ("settle",)),
        (("aside.sh", "preview.sh"), ("", "", "/etc/nixos", "no", "nixos-rebuild build", "nixos-rebuild dry-build")),
        (("aside.sh", "origin.sh"), ("", "", "/etc/nixos", "no", "/etc/nixos/configuration.nix", "{ }")),
    ],
)
def test_the_hosts_environment_may_name_what_only_a_session_has(
    tmp_path: Path, programs: Sequence[str], arguments: Sequence[str]
) -> None:
    host = Host(tmp_path)
    host.program("etc/set-environment", 'export SSH_AUTH_SOCK="$OF_A_SESSION/ssh-agent"\n')
    (host.state / "result").write_text("build running 4 \n")
    script = b"".join(files("provisioner.machine").joinpath(program).read_bytes() for program in programs)
    done = host.run(script.replace(b"@EDITS@", b":"), *arguments)
    assert (done.returncode, "OF_A_SESSION" in done.stderr) == (0, False), done.stderr


def test_a_full_disk_leaves_the_result_before_and_no_empty_one(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (host.state / "result").write_text("build running 4 \n")
    (host.state / "result.new").symlink_to("/dev/full")
    host.run(files("provisioner.machine").joinpath("switch.sh").read_bytes(), "settle")
    assert (host.state / "result").read_text() == "build running 4 \n"
