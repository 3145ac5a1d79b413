"""Programs of the operator that nixprov asks: they may flood, hang or fail. GitLab's helper, inventory scripts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import gitlab.config
import pytest

from provisioner import limits
from provisioner.ci.gitlab.settings import load
from provisioner.environment import ask
from provisioner.errors import ConfigError, InventoryError
from provisioner.limits import TooLongError
from provisioner.selection import Selection, read_inventory

POISON = "glpat-poison-4711"


def script(folder: Path, text: str) -> str:
    file = folder / "script"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("text", ["cat /dev/zero", "cat /dev/zero >&2", "yes | cat"])
def test_a_program_that_floods_is_ended(tmp_path: Path, text: str) -> None:
    with pytest.raises(TooLongError, match="longer than 1 MiB"):
        ask([script(tmp_path, text)], timeout_s=60, limit=limits.MIB)


def test_a_program_is_not_waited_for_longer_by_way_of_what_it_has_started(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        ask([script(tmp_path, "sleep 5 & exit 0")], timeout_s=0.2, limit=limits.MIB)


def test_both_streams_of_a_program_and_its_status_are_heard(tmp_path: Path) -> None:
    done = ask([script(tmp_path, "cat; echo err >&2; exit 3")], timeout_s=60, limit=9, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"err\n")


def test_an_inventory_script_that_floods_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INVENTORY", limits.MIB)
    with pytest.raises(InventoryError, match=r"script: --list printed more than 1 MiB; run it by hand"):
        read_inventory(Selection((script(tmp_path, "yes '{'"),)))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """python-gitlab's configuration; a test says which helper it names."""
    monkeypatch.setattr(gitlab.config, "_DEFAULT_FILES", [])
    path = tmp_path / "python-gitlab.cfg"
    monkeypatch.setenv("PYTHON_GITLAB_CFG", str(path))
    return path


def names_helper(config: Path, helper: str) -> None:
    config.write_text(
        f"[global]\ndefault = a\n[a]\nurl = https://gitlab.example.org\nprivate_token = helper: {helper}\n"
    )


def test_a_helper_tells_the_token(config: Path) -> None:
    names_helper(config, "echo glpat-helped")
    assert load({}).token.reveal() == "glpat-helped"


def test_a_failing_helper_keeps_its_words_to_itself(config: Path, tmp_path: Path) -> None:
    names_helper(config, script(tmp_path, f"echo {POISON} >&2\nexit 1"))
    with pytest.raises(ConfigError) as caught:
        load({})
    assert POISON not in str(caught.value)
