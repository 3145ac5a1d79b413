"""What an operator can get wrong, typed for real: one line, the right code, no traceback; and streams that end early."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from provisioner.ci.gitlab.words import WORDS
from provisioner.cli import main
from provisioner.cli.edge import Options
from provisioner.cli.options import EXIT_CUT_SHORT
from provisioner.cli.reports import reporting
from provisioner.errors import ConfigError
from provisioner.events import RunDone, RunStarted
from provisioner.verb import Verb

ROOT: Final = Path(__file__).parents[2]
DONE: Final = RunDone((), 0, 1.0)
START: Final = RunStarted("up", "r", "o", ("host1",), WORDS)


def typed(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    said = capfd.readouterr()
    return int(str(ended.value.code)), said.out, said.err


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("NIXPROV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NIXPROV_GITLAB_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("NIXPROV_GITLAB_TOKEN", "glpat-x")
    Path("inventory").write_text("host1\nhost2\n[web]\nhost3\n")
    Path("nul").write_text("\0\0\n")
    Path("tilde").write_text("host1 ansible_ssh_private_key_file=~nobody-here/id\n")
    Path("values.json").write_text('{"all": {"hosts": {"h": {"ansible_user": "a\\u0000b"}}}}')
    Path("slip.yml").write_text("web:\n  host:\n    a:\n  hosts:\n    b:\n")
    return "inventory"


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("status -i ~nobody-here/hosts", 2, "~nobody-here/hosts: no such inventory"),
        ("status --limit @~nobody-here/failed", 2, "cannot be read: no such file"),
        ("status --gitlab-token-file ~nobody-here/token", 2, "cannot read the token file ~nobody-here/token"),
        ("status --become-password-file ~nobody-here/p", 2, "~nobody-here/p: No such file"),
        ("status --ssh-config ~nobody-here/config", 2, "--ssh-config ~nobody-here/config cannot be read"),
        ("status --report ~nobody-here/run.html", 2, "run.html cannot be written: No such file"),
        ("status --report .", 2, ". cannot be written: it is a folder"),
        ("status --gitlab-url https://[::1", 2, "is not a URL: 'https://[::1'"),
        ("status --gitlab-url https://gitlab.example.org:port", 2, "is not a URL"),
        ("status -i nul", 2, "nul:1: the host name '\\x00\\x00' is no text; is this a text file?"),
        ("status -i a\udcff,", 2, "the host name 'a\\udcff' is no text"),
        ("status -i values.json", 2, "values.json:1: host h: ansible_user: has a NUL character in it"),
        ("status hosst1", 3, "no host matches 'hosst1'; did you mean host1?"),
        ("status web:nosuch --limit host1", 3, "`nixprov inventory graph` shows what there is"),
        ("status -i tilde", 9, "http://127.0.0.1:1 cannot be reached"),
        (
            "status -T nan",
            2,
            "Invalid value for '-T' / '--connect-timeout': 'nan' is no number of seconds up to 2592000.",
        ),
        ("status --timeout inf", 2, "'inf' is no number of seconds"),
        ("down --drain-limit nan", 2, "'nan' is no number of seconds"),
        ("up --max-fail-percentage nan", 2, "'nan' is no percentage"),
        ("down --gone host1 host2", 2, "--gone names the host itself"),
        ("down --gone host1 --report page.html", 2, "leave --report out"),
        ("prune --junit hosts.xml", 2, "No such option"),
    ],
)
def test_a_mistake_is_one_line(capfd: pytest.CaptureFixture[str], words: str, code: int, said: str) -> None:
    ended, out, err = typed(capfd, *words.split())
    assert said in err
    assert (ended, out) == (code, "")
    assert "bug" not in err
    assert len([line for line in err.splitlines() if not line.startswith(("Usage:", "Try ")) and line]) == 1


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize("option", ["-i", "--play", "--gitlab-url", "--ssh-config", "--report", "--limit", "--resume"])
def test_a_variable_that_is_not_set_never_means_something(capfd: pytest.CaptureFixture[str], option: str) -> None:
    """`-i "$HOSTS"` read the folder it was typed in, `--play "$PLAY"` meant the shipped play."""
    code, _, err = typed(capfd, "up", option, "")
    assert (code, "is empty" in err) == (2, True)


def test_a_password_in_what_is_no_url_is_not_shown(capfd: pytest.CaptureFixture[str], inventory: str) -> None:
    _, _, err = typed(capfd, "status", "-i", inventory, "--gitlab-url", "https://u:poison@host:port")
    assert "is not a URL" in err
    assert "poison" not in err


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize("command", ["list", "graph", "match all", "host b"])
def test_an_inventory_that_is_looked_at_says_what_it_skips(capfd: pytest.CaptureFixture[str], command: str) -> None:
    code, out, err = typed(capfd, "inventory", *command.split(), "-i", "slip.yml")
    assert err == "warning: slip.yml:2: host of group web is skipped; did you mean hosts?\n"
    assert code == 0
    assert "warning" not in out


def test_a_uid_without_a_name_or_home_is_somebody(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, inventory: str
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    code, _, err = typed(capfd, "status", "-i", inventory)
    assert (code, "cannot be reached" in err, os.environ["HOME"]) == (9, True, "/nonexistent")


def test_an_inventory_without_hosts_is_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert typed(capfd, "inventory", "list", "-i", "/dev/null") == (0, "", "")


def run(script: str, inventory: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell, in which `nixprov` is this one."""
    nixprov = f'nixprov() {{ "{sys.executable}" -m provisioner "$@"; }}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "INVENTORY": inventory}
    words = ["bash", "-c", f"{nixprov}\n{script}"]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=environment)


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ('nixprov down -i "$INVENTORY" <&-', 2, "without a terminal, answer with --yes"),
        ('nixprov status -K -i "$INVENTORY" <&-', 2, "no terminal to ask for a password"),
        ('nixprov status -i "$INVENTORY" >&-', 9, "cannot be reached"),
        ('nixprov status -i "$INVENTORY" 2>&-', 9, ""),
    ],
)
def test_a_stream_may_be_closed(inventory: str, script: str, code: int, said: str) -> None:
    done = run(script, inventory)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "bug" not in done.stderr


def options(**given: Any) -> Options:
    return Options(progress="plain", **given)


def test_a_reader_that_left_does_not_end_the_run(tmp_path: Path) -> None:
    """The pipe is broken from the first line on, in all that is printed; the page is written all the same."""
    script = """
from provisioner.cli import _forget_unread
from tests.cli.test_cli_errors import DONE, START, Verb, options, reporting
with reporting(options(as_json=True, report="run.html"), Verb.UP) as report:
    for _ in range(9):
        report.event(START)
    report.event(DONE)
_forget_unread()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-c", script]
    done = subprocess.run(
        words, stdout=writer, stderr=writer, env=environment, cwd=tmp_path, timeout=60, check=False, umask=0o022
    )
    os.close(writer)
    assert done.returncode == 0
    assert "host1" in (tmp_path / "run.html").read_text()


def test_a_full_disk_is_said_and_does_not_end_the_run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with reporting(options(as_json=True), Verb.UP) as report:
            report.event(START)
            report.event(START)
        monkeypatch.undo()
        assert capfd.readouterr().err == "nixprov: what was to be printed is cut short: No space left on device\n"
        # Closing flushes what could not be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_what_only_prints_says_of_a_full_disk_that_it_is_one() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "provisioner", "schema", "events"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stderr == "nixprov: what was to be written is cut short: No space left on device\n"
    assert done.returncode == EXIT_CUT_SHORT


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    """As /dev/stdout is: put in its place, a file would be in every other program's way."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0) as reader:
        with reporting(options(junit=str(pipe)), Verb.UP) as report:
            report.event(START)
        assert (reader.read(5), pipe.is_fifo()) == (b"<?xml", True)
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link.xml"
    link.symlink_to("real.xml")
    with reporting(options(junit=str(link)), Verb.UP) as report:
        report.event(START)
    assert link.is_symlink()
    assert (tmp_path / "real.xml").read_bytes().startswith(b"<?xml")


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes links of others")
@pytest.mark.parametrize("kind", ["link", "pipe", "link to a link"])
def test_what_another_user_has_planted_is_neither_followed_nor_written(tmp_path: Path, kind: str) -> None:
    """As it may wait in /tmp under the name that an operator always uses."""
    victim, planted = tmp_path / "victim", tmp_path / "run.html"
    victim.write_text("mine")
    there = planted if kind != "link to a link" else tmp_path / "next"
    if kind == "pipe":
        os.mkfifo(planted)
    else:
        there.symlink_to(victim)
    os.chown(there, 65534, 65534, follow_symlinks=False)
    if kind == "link to a link":
        planted.symlink_to("next")
    with pytest.raises(ConfigError, match="belongs to another user"), reporting(options(report=str(planted)), Verb.UP):
        pass
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("option", ["junit", "report"])
def test_a_report_is_nobody_elses_to_read(tmp_path: Path, option: str) -> None:
    """Its diffs hold what hosts have. Also where a file was there before that others may read."""
    file = tmp_path / "run"
    file.write_text("before")
    file.chmod(0o666)
    with reporting(options(**{option: str(file)}), Verb.UP) as report:
        report.event(START)
        assert [one.stat().st_mode & 0o777 for one in tmp_path.iterdir() if one != file] == [0o600]
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"host1" in file.read_bytes()


def test_a_report_that_cannot_be_written_at_the_end_changes_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "away"
    folder.mkdir()
    with reporting(options(junit=str(folder / "run.xml")), Verb.UP) as report:
        report.event(START)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert f"{folder}/run.xml cannot be written: No such file" in capfd.readouterr().err


def test_a_page_that_the_disk_did_not_take_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as disk,
        monkeypatch.context() as patched,
        reporting(options(report=str(tmp_path / "run.html")), Verb.UP) as report,
    ):
        patched.setattr(os, "fdopen", lambda *_: disk)
        report.event(START)
    assert "run.html cannot be written: No space left on device" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
