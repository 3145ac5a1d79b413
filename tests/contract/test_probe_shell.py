"""The probe's shell, run by a real one: the records that it says, of files, links, locks and nix.conf."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from provisioner.machine import lock
from provisioner.machine.facts import COMMON, PROLOGUE, Facts


def test_say_and_say_file_survive_any_bytes(tmp_path: Path) -> None:
    odd = tmp_path / "odd name"
    odd.write_bytes(b"\x00\n'\"\xff")
    odd.chmod(0o640)
    asks = f"say_file odd '{odd}'\nsay_file none /nowhere\nprintf 'a b\\n' | say text\n"
    script = f"{PROLOGUE}\n{asks}echo yes | say probe-end\n"
    answer = subprocess.run(["sh", "-s"], input=script.encode(), capture_output=True, check=True, timeout=10)
    read = Facts.parse("h", b"welcome to this machine!\n" + answer.stdout)
    file = read.file("odd", str(odd))
    assert file is not None
    assert (file.content, file.mode, file.kind) == (b"\x00\n'\"\xff", 0o640, "regular file")
    assert file.real == str(odd)
    assert read.file("none", "/nowhere") is None
    assert read.text("text") == "a b"


def test_a_link_is_told_by_what_it_leads_to(tmp_path: Path) -> None:
    """Its own mode is 0777, and whoever writes the file back with that opens it to everybody."""
    real, link, dangling = tmp_path / "real", tmp_path / "link", tmp_path / "dangling"
    real.write_bytes(b"x")
    real.chmod(0o600)
    link.symlink_to(real)
    dangling.symlink_to(tmp_path / "nowhere")
    script = f"{PROLOGUE}\nsay_file link {link}\nsay_file dangling {dangling}\necho yes | say probe-end\n"
    answer = subprocess.run(["sh", "-s"], input=script.encode(), capture_output=True, check=True, timeout=10)
    read = Facts.parse("h", answer.stdout)
    found, lost = read.file("link", str(link)), read.file("dangling", str(dangling))
    assert found is not None
    assert (found.mode, found.real, found.kind, found.content) == (0o600, str(real), "regular file", b"x")
    assert lost is not None
    assert (lost.kind, lost.content) == ("symbolic link", None)


def probed(folder: Path, holder: str) -> Facts:
    """The probe of the lock on this computer, whose file says `holder`."""
    (folder / "lock").write_text(holder)
    script = f"{PROLOGUE}{lock.PROBE.replace(lock.LOCK, str(folder / 'lock'))}\necho yes | say probe-end\n"
    return Facts.parse(
        "host1", subprocess.run(["sh", "-s"], input=script.encode(), capture_output=True, check=True).stdout
    )


def alive() -> str:
    fields = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()
    return f"{os.getpid()} {fields[19]} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"


def test_a_lock_is_held_by_the_process_it_names_and_by_no_other(tmp_path: Path) -> None:
    held = probed(tmp_path, f"run1 {alive()}\n")
    assert (held.held_by, held.has_dead_lock) == ("run1", False)
    process, start, boot = alive().split()
    for dead in (f"{process} {int(start) + 1} {boot}", f"{process} {start} another-boot", f"999999999 1 {boot}", ""):
        left = probed(tmp_path, f"run1 {dead}\n")
        assert (left.held_by, left.has_dead_lock) == ("", True), dead


def test_the_probe_reads_nix_conf(tmp_path: Path) -> None:
    (tmp_path / "nix.conf").write_text(
        "sandbox = true\ntrusted-users = root @wheel\n extra-trusted-users=*\nallowed-users = eve\n#trusted-users = no\n"
        "require-sigs = true\nrequire-sigs = false\n"
    )
    asks = [part for part in COMMON.replace("|\n", "| ").splitlines() if "/etc/nix/nix.conf" in part]
    script = "\n".join(asks).replace("/etc/nix/nix.conf", str(tmp_path / "nix.conf"))
    done = subprocess.run(
        ["sh", "-s"], input=f"{PROLOGUE}{script}\necho yes | say probe-end\n".encode(), capture_output=True, check=True
    )
    found = Facts.parse("h", done.stdout)
    assert found.trusted_users == ("root", "@wheel", "*")
    assert found.takes_unsigned
