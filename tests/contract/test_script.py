"""Transactions, run by a real sh in a folder that stands for the host's root."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.machine.facts import digest
from provisioner.machine.transaction import (
    ABSENT,
    JOURNAL,
    LOCKED_STATUS,
    STALE_STATUS,
    STATE_DIR,
    UNCHANGED_STATUS,
    KeepCopy,
    MakeDir,
    RemoveEmptyDir,
    RemoveFile,
    RemoveTree,
    SetMtime,
    Shell,
    Transaction,
    WriteFile,
    unchanged_because,
)
from provisioner.model import Secret


class Root:
    """A host's root below a folder: paths in the script are moved there, the owner becomes ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, transaction: Transaction, path: str = "") -> subprocess.CompletedProcess[bytes]:
        script = transaction.script().replace(b"/var/lib", f"{self.folder}/var/lib".encode())
        script = script.replace(b"/etc/nixos", f"{self.folder}/etc/nixos".encode())
        script = script.replace(b" 0:0", f" {os.getuid()}:{os.getgid()}".encode())
        environment = os.environ | ({"PATH": path} if path else {})
        return subprocess.run(["sh", "-s"], input=script, capture_output=True, check=False, timeout=30, env=environment)

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


def test_a_lock_on_a_folder_that_went_meanwhile_is_none(root: Root) -> None:
    (root / STATE_DIR).mkdir(parents=True)
    # By the time that it has the lock, for it waits for one whose folder is there.
    program = root / "bin/flock"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nrmdir {root / STATE_DIR}\nexec {shutil.which("flock")} "$@"\n')
    program.chmod(0o755)
    done = root.run(first(WriteFile("/etc/nixos/x", b"")), path=f"{program.parent}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (LOCKED_STATUS, b"another transaction has just ended\n")
    assert not (root / STATE_DIR).exists()


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


def test_the_journal_names_no_token_that_is_not_there_yet(root: Root) -> None:
    token = f"{STATE_DIR}/secrets/default.token"
    assert root.run(first(MakeDir(f"{STATE_DIR}/secrets", 0o700), journal=b"awaited")).returncode == 0
    found = []
    for point in map(str, range(1, 5)):
        parts = (MakeDir(f"{STATE_DIR}/secrets", 0o700), Shell(":"), WriteFile(token, Secret("glrt-x"), 0o600))
        done = root.run(Transaction(parts, digest(b"awaited"), b"there", crash_at=point))
        found.append((done.returncode, (root / token).exists(), (root / JOURNAL).read_bytes()))
        (root / token).unlink(missing_ok=True)
        (root / JOURNAL).write_bytes(b"awaited")
    assert found == [(-9, False, b"awaited"), (-9, True, b"awaited"), (-9, True, b"there"), (0, True, b"there")]


def test_what_cannot_be_staged_changes_nothing_and_says_so(root: Root) -> None:
    assert root.run(first(journal=b"one")).returncode == 0
    (root / "etc/nixos/mine").write_bytes(b"mine")
    parts = (
        WriteFile("/etc/nixos/mine", b"ours"),
        RemoveFile("/etc/nixos/mine"),
        WriteFile("/etc/nixos/nowhere/x", b"x"),
    )
    done = root.run(Transaction(parts, digest(b"one"), b"two"))
    assert done.returncode == UNCHANGED_STATUS
    assert "nowhere/x cannot be written: nothing was changed" in unchanged_because(done.stderr.decode())[0]
    assert ((root / JOURNAL).read_bytes(), (root / "etc/nixos/mine").read_bytes()) == (b"one", b"mine")
    assert not list(root.folder.rglob("*.nixprov-new"))


def test_on_a_new_host_not_even_the_state_folder_stays(root: Root) -> None:
    (root / "etc/nixos/file").touch()
    parts = (MakeDir("/etc/nixos/nixprov"), MakeDir("/etc/nixos/file/folder"))
    assert root.run(first(*parts)).returncode == UNCHANGED_STATUS
    assert not (root / "etc/nixos/nixprov").exists()
    assert not (root / STATE_DIR).exists()


def test_a_failure_after_the_first_change_is_no_longer_nothing(root: Root) -> None:
    done = root.run(first(WriteFile("/etc/nixos/x", b"x"), Shell("false")))
    assert (done.returncode, (root / "etc/nixos/x").read_bytes()) == (1, b"x")


def test_a_link_in_place_of_a_staged_file_is_not_followed(root: Root) -> None:
    victim = root / "victim"
    victim.write_bytes(b"theirs")
    (root / "etc/nixos/x.nixprov-new").symlink_to(victim)
    assert root.run(first(WriteFile("/etc/nixos/x", b"ours"))).returncode == 0
    assert (victim.read_bytes(), (root / "etc/nixos/x").read_bytes()) == (b"theirs", b"ours")


@pytest.mark.parametrize(
    ("stderr", "line", "hint"),
    [
        (
            "base64: write error: No space left on device\n/etc/nixos/x cannot be written\n",
            "/etc/nixos/x cannot be written (no space left on device)",
            "room",
        ),
        ("mkdir: cannot create 'x': Read-only file system\n", "mkdir: cannot create 'x': Read-only file", "dmesg"),
        ("/etc/nixos/x is write-protected (chattr)\n", "/etc/nixos/x is write-protected", "lsattr"),
        ("", "no message", ""),
    ],
)
def test_why_nothing_was_changed(stderr: str, line: str, hint: str) -> None:
    said = unchanged_because(stderr)
    assert line in said[0]
    assert hint in said[1]


def test_power_loss_finds_what_each_change_rests_on(root: Root, tmp_path: Path) -> None:
    """Content before names, secrets before the journal, that before what it announces, all before commands and its end."""
    (root / "etc/nixos/nixprov").mkdir()
    (root / "etc/nixos/nixprov/x").write_bytes(b"edited")
    parts = (
        KeepCopy("/etc/nixos/nixprov/x", "/etc/nixos/nixprov/x.edited"),
        WriteFile("/etc/nixos/nixprov/x", b"new"),
        WriteFile(f"{STATE_DIR}/token", Secret("glrt-x")),
        Shell("logged start"),
        RemoveFile("/etc/nixos/y"),
        RemoveTree(STATE_DIR),
    )
    done, log = logged(root, first(*parts), tmp_path)
    assert done.returncode == 0, done.stderr
    token, journal = f"mv {STATE_DIR}/token", f"mv {JOURNAL}"
    copy, new = "mv /etc/nixos/nixprov/x.edited", "mv /etc/nixos/nixprov/x"
    state, module, folder = f"sync {STATE_DIR}", "sync /etc/nixos/nixprov", "sync /etc/nixos"
    staged = log[0].split()[1:]
    assert log[0].startswith("sync ")
    names = ("journal.json", "token", "x", "x.edited")
    assert {Path(path).name for path in staged} == {f"{name}.nixprov-new" for name in names}
    after_staging = log[log.index(token) :]
    assert after_staging == [
        *(token, state, journal, state, copy, module, new, module, "start"),
        *("rm /etc/nixos/y", folder, f"rm {STATE_DIR}", "sync /var/lib"),
    ]


LOGGED = """\
#!/bin/sh
name=${0##*/}
for word; do case $word in -*) set -- "$@" ;; *) last=$word ;; esac; done
case $name in
  mv | rm) echo "$name $last" >> LOG ;;
  logged) echo "$1" >> LOG; exit ;;
  *) echo "$name $*" >> LOG ;;
esac
exec /usr/bin/env -S PATH=REST "$name" "$@"
"""


def logged(
    root: Root, transaction: Transaction, tmp_path: Path
) -> tuple[subprocess.CompletedProcess[bytes], list[str]]:
    """Run with `sync`, `mv` and `rm` that write down what they are asked for; staged files taken away do not count."""
    tools, log = tmp_path / "tools", tmp_path / "log"
    tools.mkdir()
    for name in ("sync", "mv", "rm", "logged"):
        text = LOGGED.replace("LOG", str(log)).replace("REST", os.environ["PATH"])
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    done = root.run(transaction, path=f"{tools}:{os.environ['PATH']}")
    lines = log.read_text().replace(str(root.folder), "").splitlines()
    return done, [line for line in lines if not (line.startswith("rm ") and line.endswith(".nixprov-new"))]
