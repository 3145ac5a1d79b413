"""Transactions, run by a real sh in a folder that stands for the host's root."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.hosts.facts import ABSENT, digest
from provisioner.hosts.script import (
    JOURNAL,
    LOCKED_STATUS,
    STALE_STATUS,
    STATE_DIR,
    MakeDir,
    RemoveEmptyDir,
    RemoveFile,
    RemoveTree,
    SetMtime,
    Shell,
    Transaction,
    WriteFile,
)
from provisioner.model import Secret


class Root:
    """A host's root below a folder: paths in the script are moved there, the owner becomes ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, transaction: Transaction) -> subprocess.CompletedProcess[bytes]:
        script = transaction.script().replace(b"/var/lib", f"{self.folder}/var/lib".encode())
        script = script.replace(b"/etc/nixos", f"{self.folder}/etc/nixos".encode())
        script = script.replace(b" 0:0", f" {os.getuid()}:{os.getgid()}".encode())
        return subprocess.run(["sh", "-s"], input=script, capture_output=True, check=False, timeout=30)

    def __truediv__(self, path: str) -> Path:
        return self.folder / path.lstrip("/")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "etc/nixos").mkdir(parents=True)
    return Root(tmp_path)


def first(*parts: object, journal: bytes | None = b"{}") -> Transaction:
    return Transaction(parts, ABSENT, journal)  # type: ignore[arg-type]


def test_writes_files_with_their_modes_and_the_journal(root: Root) -> None:
    parts = (
        MakeDir("/etc/nixos/nixprov"),
        WriteFile("/etc/nixos/nixprov/a.nix", b"\x00\xff bytes\n'quote'"),
        WriteFile(f"{STATE_DIR}/token", Secret("glrt-secret"), 0o600),
    )
    done = root.run(first(*parts))
    assert (done.returncode, done.stderr) == (0, b"")
    assert (root / "etc/nixos/nixprov/a.nix").read_bytes() == b"\x00\xff bytes\n'quote'"
    assert (root / "etc/nixos/nixprov/a.nix").stat().st_mode & 0o777 == 0o644
    assert (root / f"{STATE_DIR}/token").read_text() == "glrt-secret"
    assert (root / f"{STATE_DIR}/token").stat().st_mode & 0o777 == 0o600
    assert (root / STATE_DIR).stat().st_mode & 0o777 == 0o700
    assert (root / JOURNAL).read_bytes() == b"{}"
    assert not list(root.folder.rglob("*.nixprov-new"))


def test_an_overtaken_run_changes_nothing(root: Root) -> None:
    assert root.run(first(journal=b"one")).returncode == 0
    done = root.run(first(WriteFile("/etc/nixos/x", b"x"), journal=b"two"))
    assert done.returncode == STALE_STATUS
    assert (root / JOURNAL).read_bytes() == b"one"
    assert not (root / "etc/nixos/x").exists()


def test_a_changed_file_stops_everything(root: Root) -> None:
    (root / "etc/nixos/configuration.nix").write_bytes(b"edited meanwhile")
    parts = (
        WriteFile("/etc/nixos/new", b"new"),
        WriteFile("/etc/nixos/configuration.nix", b"ours", expect=digest(b"as probed")),
    )
    done = root.run(first(*parts))
    assert done.returncode == STALE_STATUS
    assert b"configuration.nix is not what it was" in done.stderr
    assert (root / "etc/nixos/configuration.nix").read_bytes() == b"edited meanwhile"
    assert not (root / "etc/nixos/new").exists()


def test_a_guard_stops_before_the_first_write(root: Root) -> None:
    done = root.run(replace(first(WriteFile("/etc/nixos/x", b"")), guard="fail 83 'unit is dead'"))
    assert (done.returncode, done.stderr) == (83, b"unit is dead\n")
    assert not (root / JOURNAL).exists()


def test_two_transactions_at_once_are_refused(root: Root) -> None:
    (root / STATE_DIR).mkdir(parents=True)
    with subprocess.Popen(
        ["flock", str(root / STATE_DIR), "sh", "-c", "echo locked; read end"], stdin=-1, stdout=-1
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        done = root.run(first(WriteFile("/etc/nixos/x", b"")))
        holder.communicate(b"\n")
    assert done.returncode == LOCKED_STATUS
    assert not (root / "etc/nixos/x").exists()


def test_takes_back_files_folders_and_times(root: Root) -> None:
    folder = root / "etc/nixos/nixprov"
    folder.mkdir()
    (folder / "ours").write_bytes(b"1")
    (folder / "theirs").write_bytes(b"2")
    parts = (
        RemoveFile("/etc/nixos/nixprov/ours", expect=digest(b"1")),
        RemoveEmptyDir("/etc/nixos/nixprov"),
        WriteFile("/etc/nixos/configuration.nix", b"{ }", mtime=86400),
        SetMtime("/etc/nixos", 172800),
    )
    assert root.run(first(*parts)).returncode == 0
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert (root / "etc/nixos/configuration.nix").stat().st_mtime == 86400
    assert (root / "etc/nixos").stat().st_mtime == 172800


def test_removes_trees_and_runs_shell_last(root: Root) -> None:
    (root / "var/lib/nixprov-x/a/b").mkdir(parents=True)
    parts = (
        Shell("test -f /etc/nixos/x && echo seen"),
        WriteFile("/etc/nixos/x", b""),
        RemoveTree("/var/lib/nixprov-x"),
    )
    done = root.run(first(WriteFile("/etc/nixos/x", b""), *parts[:1], parts[2]))
    assert done.stdout == b"seen\n"
    assert not (root / "var/lib/nixprov-x").exists()


def test_a_secret_is_no_argument_of_any_program(root: Root) -> None:
    """printf must be the shell's own: a program's arguments stand in the process list."""
    script = first(WriteFile(f"{STATE_DIR}/token", Secret("poison"), 0o600)).script()
    traced = subprocess.run(["sh", "-c", "type printf"], capture_output=True, text=True, check=True, timeout=10).stdout
    assert "builtin" in traced
    assert b"cG9pc29u" in script
    assert b"poison" not in script
