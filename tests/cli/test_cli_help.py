"""What every command says of itself: help that fits a screen, the manual, completion; none of it slow to load."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from provisioner.ci.gitlab import settings
from provisioner.cli import cli
from provisioner.cli.completion import SHELLS, VARIABLE
from provisioner.cli.man import ENVIRONMENT, EXIT_CODES, page

ROOT = Path(__file__).parents[2]
SCREEN_LINES = 24
SCREEN_COLUMNS = 80


def commands(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


ALL = list(commands())


def said(*path: str) -> str:
    # A play's commands are shown only behind the file that `play` asks for.
    words = ("play", __file__, *path[1:]) if path[:1] == ("play",) and path[1:] else path
    done = CliRunner().invoke(cli, [*words, "--help"], prog_name="nixprov", terminal_width=SCREEN_COLUMNS)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_fits_a_screen(path: tuple[str, ...]) -> None:
    lines = said(*path).splitlines()
    assert len(lines) <= SCREEN_LINES
    assert all(len(line) <= SCREEN_COLUMNS for line in lines)
    assert not re.search(r"\\b", "\n".join(lines))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_no_line_of_a_list_of_commands_is_cut(path: tuple[str, ...]) -> None:
    assert not [line for line in said(*path).splitlines() if line.startswith("  ") and line.endswith("...")]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_of_what_can_be_typed_has_an_example(path: tuple[str, ...]) -> None:
    text = said(*path)
    assert re.search(r"^ +Examples?:\s+nixprov ", text, re.MULTILINE), text


def test_examples_are_real_commands() -> None:
    for path in ALL:
        for example in re.findall(r"^ +Example: nixprov ([a-z]+)", said(*path), re.MULTILINE):
            assert example in cli.commands


def test_rare_options_are_named_and_everyday_ones_explained() -> None:
    text = said("up")
    assert re.search(r"--limit PATTERN +Only", text)
    assert re.search(r"^  .*--connect-retries( |$)", text, re.MULTILINE)
    assert not re.search(r"--connect-retries \w+ +With", text)


def manual() -> str:
    return page(click.Context(cli, info_name="nixprov"))


def test_the_manual_has_every_command_and_option() -> None:
    text = manual().replace("\\-", "-")
    for path in ALL:
        inner: click.Command = cli
        for name in path:
            assert isinstance(inner, click.Group)
            inner = inner.commands[name]
        if not isinstance(inner, click.Group) and path[0] != "play":
            assert f'.SS "nixprov {" ".join(path)} ' in text, path
        for option in inner.params:
            names = option.opts if isinstance(option, click.Option) and option.name != "version" else []
            assert isinstance(inner, click.Group) or all(name in text for name in names), (path, names)


def test_the_manual_in_docs_is_current() -> None:
    assert (ROOT / "docs/nixprov.1").read_text() == manual(), "run scripts/docs"


def test_the_manual_is_good_roff() -> None:
    checker = shutil.which("mandoc") or shutil.which("groff")
    if checker is None:
        pytest.skip("neither mandoc nor groff is installed")
    lint = ["-Tlint", "-Wwarning"] if checker.endswith("mandoc") else ["-man", "-ww", "-z", "-Tutf8"]
    done = subprocess.run([checker, *lint], input=manual(), capture_output=True, text=True, check=False)
    problems = [line for line in (done.stdout + done.stderr).splitlines() if "missing date" not in line]
    assert problems == []


def test_the_manual_and_the_docs_agree_on_exit_codes() -> None:
    table = (ROOT / "docs/exit-codes.md").read_text()
    assert re.findall(r"^\| (\d+) \|", table, re.MULTILINE) == [code for code, _ in EXIT_CODES]


def test_every_variable_that_is_read_is_in_the_manual() -> None:
    read = {value for name, value in vars(settings).items() if name.isupper() and str(value).startswith("NIXPROV_")}
    named = {name for name, _ in ENVIRONMENT}
    assert {"NIXPROV_GITLAB_CA", "NIXPROV_GITLAB_URL"} <= read <= named


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    file = tmp_path / "inventory"
    file.write_text("[ci]\nweb1\nweb2\n[eu]\ndb1\n")
    return file


def completed(line: str, inventory: Path, shell: str = "bash") -> list[str]:
    """What `TAB` at the end of a command line offers, through the program itself."""
    environment = {
        **os.environ,
        VARIABLE: f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split())),
        "NIXPROV_INVENTORY": str(inventory),
    }
    done = subprocess.run(
        [sys.executable, "-m", "provisioner"], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return [found.split(",", 1)[1] for found in done.stdout.split()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("nixprov up we", ["web1", "web2"]),
        ("nixprov up c", ["ci"]),
        ("nixprov up ci:&e", ["ci:&eu"]),
        ("nixprov up 'ci:!web", ["ci:!web1", "ci:!web2"]),
        ("nixprov up web1,d", ["web1,db1"]),
        ("nixprov plan --limit d", ["db1"]),
        ("nixprov inventory host d", ["db1"]),
        ("nixprov up @fi", []),
        ("nixprov completion z", ["zsh"]),
        ("nixprov sta", ["status"]),
        ("nixprov up --forc", ["--force"]),
    ],
)
def test_completion(line: str, offered: list[str], inventory: Path) -> None:
    assert completed(line, inventory) == offered


def test_completion_reads_the_inventory_that_is_named_before(inventory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mars1\n")
    assert completed(f"nixprov up -i {other} m", inventory) == ["mars1"]


def test_completion_of_a_broken_inventory_offers_nothing(inventory: Path) -> None:
    inventory.write_text("[[[")
    assert completed("nixprov up w", inventory) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_are_of_their_shell(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell], prog_name="nixprov")
    assert done.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in done.output
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.output, text=True, check=True)


COMPLETE_IN_BASH = """
eval "$SCRIPT"
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
COMP_LINE=$LINE COMP_POINT=${#LINE}
COMP_WORDS=(nixprov up ${LINE##* }) COMP_CWORD=2
compopt() { :; }
_nixprov_completion nixprov
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "replies"),
    [("nixprov up we", ["web1", "web2"]), ("nixprov up ci:we", ["web1", "web2"]), ("nixprov up ci,d", ["ci,db1"])],
)
def test_bash_replaces_only_what_follows_a_colon(
    line: str, replies: list[str], inventory: Path, tmp_path: Path
) -> None:
    program = tmp_path / "nixprov"
    program.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m provisioner "$@"\n')
    program.chmod(0o755)
    script = CliRunner().invoke(cli, ["completion", "bash"], prog_name="nixprov").output
    environment = {**os.environ, "SCRIPT": script, "LINE": line, "NIXPROV_INVENTORY": str(inventory)}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    done = subprocess.run(["bash", "-c", COMPLETE_IN_BASH], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout.splitlines(), done.stderr) == (replies, "")
