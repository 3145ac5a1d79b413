"""Commands of other packages: the lab's, and those that are not there or do not load."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
from click.testing import CliRunner

from provisioner.cli import cli, plugins


def has(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    found = [EntryPoint(name, value, plugins.GROUP) for name, value in points.items()]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: found if group == plugins.GROUP else [])


def test_the_lab_is_a_command_by_its_entry_point() -> None:
    assert "Start machines and a GitLab." in CliRunner().invoke(cli, ["lab", "--help"]).output


def test_without_the_lab_its_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch)
    done = CliRunner().invoke(cli, ["lab", "start", "--hosts", "2"])
    assert (done.exit_code, done.output) == (
        1,
        "Error: `nixprov lab` is a package of its own: pip install nixprov-lab\n",
    )
    assert "pip install nixprov-lab" in CliRunner().invoke(cli, ["--help"]).output


def test_a_command_that_does_not_load_breaks_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, broken="no_such_module:cli", value="provisioner:__version__")
    assert CliRunner().invoke(cli, ["--help"]).exit_code == 0
    done = CliRunner().invoke(cli, ["broken"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: `nixprov broken` cannot be loaded from no_such_module:cli: ModuleNotFound")
    assert "`nixprov value` is no command" in CliRunner().invoke(cli, ["value"]).output


def test_no_package_replaces_a_command_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, up="nixprov_lab.cli:lab")
    assert "Throw-away" not in CliRunner().invoke(cli, ["up", "--help"]).output


def test_a_name_that_is_nobodys_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch)
    done = CliRunner().invoke(cli, ["nobodys"])
    assert (done.exit_code, "No such command 'nobodys'" in done.output) == (2, True)
