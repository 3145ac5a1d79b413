"""A converged fleet, asked again: nixprov against an equivalent Ansible role, on the same machines.

Usage: python bench/converged.py [--hosts N] [--rounds N]      (root; boots a lab)

Prints medians and their ratio. The role covers the objects of nixprov's plan: the module's files, the line in
configuration.nix, the token, the unit. It never asks GitLab, so the comparison favours it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from nixprov_lab import control
from nixprov_lab.running import Lab

PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: the module's files
      ansible.builtin.copy: {{src: "{files}/{{{{ item }}}}", dest: "/etc/nixos/nixprov/{{{{ item }}}}", mode: "0644"}}
      loop: [daemon.nix, default.nix, engine.nix, options.nix, runner.nix, settings.nix, toml.nix]
    - name: the line in configuration.nix
      ansible.builtin.lineinfile: {{path: /etc/nixos/configuration.nix, line: "{line}"}}
    - name: the token
      ansible.builtin.file: {{path: /var/lib/nixprov/secrets/default.token, state: file, mode: "0600", owner: root}}
    - name: the unit
      ansible.builtin.systemd_service: {{name: nixprov-runner-default.service, state: started}}
"""


def main() -> None:
    options = _options()
    lab = control.start(options.hosts, progress=lambda line: print(line, file=sys.stderr))
    try:
        with tempfile.TemporaryDirectory() as folder:
            _compare(lab, Path(folder), options.rounds)
    finally:
        lab.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _compare(lab: Lab, folder: Path, rounds: int) -> None:
    environment = os.environ | {
        "HOME": str(folder),
        "NIXPROV_GITLAB_URL": lab.state.gitlab_url,
        "NIXPROV_GITLAB_TOKEN_FILE": str(lab.files.gitlab_token),
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_PYTHON_INTERPRETER": "/opt/lab/bin/python3",
        "ANSIBLE_PIPELINING": "True",
    }
    nixprov = [sys.executable, "-m", "provisioner", "up", "--yes", "-i", str(lab.files.inventory)]
    _run(nixprov, environment)
    ansible = ["ansible-playbook", "-f", "5", "-i", str(lab.files.inventory), str(_play(lab, folder))]
    _run(ansible, environment)
    runs: Mapping[str, list[str]] = {"nixprov up": nixprov, "ansible-playbook": ansible}
    seconds = {
        name: [_timed(lambda argv=argv: _run(argv, environment)) for _ in range(rounds)] for name, argv in runs.items()
    }
    _print(seconds, len(lab.state.hosts))


def _play(lab: Lab, folder: Path) -> Path:
    """The same files, taken from a host that nixprov made, so that both find nothing to change."""
    files = folder / "files"
    files.mkdir()
    host = lab.state.hosts[0].name
    for name in lab.run(host, ["ls", "/etc/nixos/nixprov"]).stdout.split():
        (files / name).write_text(lab.run(host, ["cat", f"/etc/nixos/nixprov/{name}"]).stdout)
    line = next(
        line for line in lab.run(host, ["cat", "/etc/nixos/configuration.nix"]).stdout.splitlines() if "nixprov" in line
    )
    play = folder / "play.yml"
    play.write_text(PLAY.format(files=files, line=line.replace('"', '\\"')))
    return play


def _run(argv: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        argv, env=dict(environment), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        sys.exit(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _timed(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _print(seconds: Mapping[str, list[float]], hosts: int) -> None:
    base = statistics.median(seconds["nixprov up"])
    print(f"{hosts} converged hosts, median of {len(seconds['nixprov up'])} runs")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"  {name:<18} {median:6.2f} s   x{median / base:4.1f}")


if __name__ == "__main__":
    main()
