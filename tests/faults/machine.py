"""What tests do to a machine behind nixprov's back, and what they ask it afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nixprov_lab.running import Lab

from tests.lab.operator import Operator, leftovers, snapshot

CONFIGURATION = "/etc/nixos/configuration.nix"


@contextmanager
def edited(lab: Lab, host: str, *lines: str) -> Iterator[None]:
    """The owner has these lines at the end of configuration.nix; taken out again, mode and time included."""
    lab.run(host, ["cp", "-a", CONFIGURATION, "/root/kept"])
    text = lab.run(host, ["cat", CONFIGURATION]).stdout.rstrip().removesuffix("}")
    lab.run(host, ["tee", CONFIGURATION], stdin="\n".join([text, *(f"  {line}" for line in lines), "}\n"]))
    try:
        yield
    finally:
        lab.run(host, ["mv", "/root/kept", CONFIGURATION])


@contextmanager
def edited_for_us(lab: Lab, host: str, *lines: str) -> Iterator[None]:
    """The same, but only a system with our module gets these lines: what runs is what the rest of it describes.

    So `up` gets as far as the switch that the lines are to spoil. An edit that waits to be switched to stops it before.
    """
    folder = CONFIGURATION.rpartition("/")[0]
    lab.run(host, ["cp", "-a", CONFIGURATION, "/root/kept"])
    body = "\n".join(f"  {line}" for line in lines)
    module = (
        f"{{ config, lib, pkgs, ... }}:\nlib.optionalAttrs (builtins.pathExists ./nixprov/default.nix) {{\n{body}\n}}\n"
    )
    lab.run(host, ["tee", f"{folder}/theirs.nix"], stdin=module)
    lab.run(host, ["sed", "-i", r"s#\./hardware-configuration\.nix#& ./theirs.nix#", CONFIGURATION])
    try:
        yield
    finally:
        lab.run(host, ["mv", "/root/kept", CONFIGURATION])
        lab.run(host, ["rm", f"{folder}/theirs.nix"])


@contextmanager
def untouched(lab: Lab, host: str, operator: Operator) -> Iterator[None]:
    """Whatever happens inside, afterwards a `down` leaves nothing on the host and nothing in GitLab."""
    before = snapshot(lab, host)
    try:
        yield
    finally:
        lab.restore_network(host)
        lab.gitlab.clear_faults()
        said = operator("down", host, "--yes", "--force", "--take-over")
    assert said.code == 0, said.err
    assert leftovers(lab, host) == ""
    assert snapshot(lab, host) == before
    assert runners(lab, host) == []


def runners(lab: Lab, host: str) -> list[int]:
    return [runner["id"] for runner in lab.gitlab.runners() if runner["host"] == host]


def system(lab: Lab, host: str) -> tuple[str, str]:
    """What runs and what would boot."""
    links = ["/run/current-system", "/nix/var/nix/profiles/system"]
    running, boot = lab.run(host, ["readlink", "-f", *links]).stdout.split()
    return running, boot


def journal(lab: Lab, host: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(lab.run(host, ["cat", "/var/lib/nixprov/journal.json"]).stdout)
    return read


def until_phase(lab: Lab, host: str, phase: str, limit_s: float = 60) -> None:
    """Wait until the host's journal says so: it does alone what is waited for."""
    deadline = time.monotonic() + limit_s
    while journal(lab, host)["phase"] != phase:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def until_running(lab: Lab, job: int) -> None:
    while lab.gitlab.job(job).status != "running":
        assert not lab.gitlab.job(job).has_ended
        time.sleep(0.2)


class Begun:
    """A run that a test watches while it goes on; its output is JSON lines."""

    def __init__(self, operator: Operator, *arguments: str, **settings: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "provisioner", *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=operator.environment(**settings),
        )

    def collect(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Read events up to the first that is wanted, and give them all."""
        assert self.process.stdout is not None
        events: list[dict[str, Any]] = []
        for line in self.process.stdout:
            events.append(json.loads(line))
            if wanted(events[-1]):
                return events
        raise AssertionError(f"it ended before: {self.process.communicate()[1]}")

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read events up to the first that is wanted."""
        return self.collect(wanted)[-1]

    def phase(self, name: str) -> dict[str, Any]:
        return self.until(lambda event: event["event"] == "phase" and event["phase"] == name)

    def log(self, text: str) -> dict[str, Any]:
        return self.until(lambda event: event["event"] == "log" and text in event["text"])

    def end(self) -> tuple[int, str]:
        """Wait for the end: its code, and what it told people."""
        err = self.process.communicate(timeout=300)[1]
        return self.process.returncode, err
