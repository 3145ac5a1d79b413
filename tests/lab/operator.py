"""An operator at a keyboard: the real program in a process of its own, with its own home, against a lab."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nixprov_lab.gitlab_client import Job
from nixprov_lab.running import Lab

TIMEOUT_S = 300
POLL_S = 60
# What a process of a job's container has: capabilities(7), by their numbers.
USUAL = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31))


@dataclass(frozen=True)
class Said:
    """What one run printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        last = self.events[-1]
        assert last["event"] == "summary", self.out
        return last

    def host(self, name: str) -> dict[str, Any]:
        return next(event for event in self.events if event["event"] == "host" and event["host"] == name)

    def warnings(self) -> list[str]:
        """All but what every run says of the Nix of the lab's machines."""
        texts = [str(event["text"]) for event in self.events if event["event"] == "warning"]
        return [text for text in texts if not text.startswith("nix 2.26.3 ")]

    def reports(self) -> dict[str, dict[str, Any]]:
        return {event["host"]: event for event in self.events if event["event"] == "status"}


@dataclass(frozen=True)
class Operator:
    lab: Lab
    home: Path

    def __call__(self, *arguments: str, **settings: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "provisioner", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=self.environment(**settings),
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def at_a_terminal(self, *arguments: str, columns: int = 140, lines: int = 50) -> Said:
        """What is for people goes to a terminal of this size; `err` is all that was ever drawn there, without escapes."""
        keyboard, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        argv = [sys.executable, "-m", "provisioner", *arguments]
        environment = self.environment(TERM="xterm-256color", LANG="C.UTF-8")
        with tempfile.TemporaryFile("w+") as out, os.fdopen(keyboard, "rb", 0) as screen:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=terminal, env=environment)
            os.close(terminal)
            drawn = _all_of(screen)
            code = process.wait(TIMEOUT_S)
            out.seek(0)
            return Said(code, out.read(), _ESCAPES.sub("", drawn.decode()).replace("\r", "\n"))

    def environment(self, **settings: str) -> dict[str, str]:
        mine = {
            "HOME": str(self.home),
            "NIXPROV_INVENTORY": str(self.lab.files.inventory),
            "NIXPROV_GITLAB_URL": self.lab.state.gitlab_url,
            "NIXPROV_GITLAB_TOKEN_FILE": str(self.lab.files.gitlab_token),
        }
        names = ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV")
        return {name: os.environ[name] for name in names if name in os.environ} | mine | settings


_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def _all_of(screen: IO[bytes]) -> bytes:
    drawn = b""
    with suppress(OSError):  # EIO: the other end is closed
        while data := screen.read(65536):
            drawn += data
    return drawn


# Everything in /etc/nixos with type, mode, owner, size and content; times of files that nobody should have touched.
SNAPSHOT = r"""
cd /etc/nixos
find . -printf '%P %y %m %U %G %l\n' | sort
find . -type f -exec sha256sum {} + | sort
find . -type f ! -name configuration.nix -printf '%P %T@\n' | sort
"""


def snapshot(lab: Lab, host: str) -> str:
    return lab.run(host, ["sh", "-c", SNAPSHOT]).stdout


# What nobody but nixprov would have made.
LEFTOVERS = r"""
ls -d /etc/nixos/nixprov /etc/nixprov* /etc/systemd/system.control /var/lib/nixprov* /var/cache/nixprov* /run/nixprov* 2>/dev/null
systemctl list-units --all --plain --no-legend 'nixprov*' | grep -v '^nixprov-lab'
systemctl list-unit-files --no-legend 'nixprov*' | grep -v '^nixprov-lab'
getent passwd nixprov-runner nixprov-filter nixprov-counters
getent group nixprov-runner nixprov-filter nixprov-counters
ls -d /nix/var/nix/gcroots/nixprov /nix/var/nix/nixprov-builds 2>/dev/null
ls /run/podman 2>/dev/null
ls -d /sys/class/net/nixprov0 2>/dev/null
podman images --quiet
podman ps --all --quiet
for link in /nix/var/nix/profiles/system-*-link; do [ ! -e "$link/etc/nixprov-revision" ] || echo "$link"; done
for link in /nix/var/nix/gcroots/auto/*; do
  case $(readlink "$link") in /var/lib/nixprov/*) echo "$link" ;; esac
done
grep -hE 'nixprov-(runner|podman|nix-daemon|nix-filter|network|image|counters)' /proc/[0-9]*/cgroup 2>/dev/null
grep -E '(lib|run)/nixprov' /proc/mounts
exit 0
"""


def leftovers(lab: Lab, host: str) -> str:
    return lab.run(host, ["sh", "-c", LEFTOVERS]).stdout


@contextmanager
def installed(operator: Operator, host: str) -> Iterator[None]:
    """The runner on a host for as long as the block runs; afterwards nothing of it is left."""
    said = operator("up", host, "--yes", "--json")
    assert said.code == 0, said.err
    yield
    assert operator("down", host, "--yes", "--json").code == 0
    assert leftovers(operator.lab, host) == ""


def succeeds(lab: Lab, host: str, script: str, **fields: object) -> Job:
    """Run a job on a host to its end, which is success."""
    job = lab.gitlab.wait_for_job(lab.gitlab.queue_job(script, host=host, **fields))
    assert job.is_success, job.trace
    return job


def nix_job(stamp: str) -> str:
    """A job's script that builds something only it can name; it says `built-here STAMP` when a builder ran."""
    return f"""\
cat > job.nix <<'NIX'
derivation {{
  name = "job-{stamp}";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-c" "echo built-here {stamp}; echo {stamp} > $out" ];
}}
NIX
path=$(nix-build --no-out-link job.nix)
echo "path $path"
cat "$path"
"""


@dataclass(frozen=True)
class Pause:
    """What a job or a build does until a test lets it go on, however slow the computer is: a sleep of its own length."""

    lab: Lab
    host: str
    seconds: int

    @property
    def shell(self) -> str:
        return f"{self._words} || :"

    @property
    def _words(self) -> str:
        return f"sleep {self.seconds}"

    def begun(self) -> None:
        poll(self.lab, self.host, f"`{self._words}` runs", f"pgrep -xf '{self._words}'")

    def end(self) -> None:
        self.lab.run(self.host, ["pkill", "-xf", self._words])


def poll(lab: Lab, host: str, what: str, command: str) -> None:
    """Wait until a shell command on the host ends with 0."""
    deadline = time.monotonic() + POLL_S
    while lab.run(host, ["bash", "-c", command], check=False).returncode:
        assert time.monotonic() < deadline, f"not within {POLL_S} s: {what}"
        time.sleep(0.2)
