"""Click's parameters and the frozen value that is made of them: the same names, and the same defaults."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import click
import pytest

from provisioner.ci import CI_OPTIONS
from provisioner.cli import cli
from provisioner.cli.edge import Options, PlayFile, with_options

COMMANDS = ("up", "plan", "status", "down", "prune")
FIELDS = {field.name for field in dataclasses.fields(Options)}


def parameters(name: str) -> dict[str, Any]:
    """What click hands to a command that is typed without a word more."""
    return cli.commands[name].make_context(name, []).params


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_not_typed_has_the_default_of_the_value(name: str) -> None:
    assert Options.of(parameters(name)) == Options()


def test_each_field_can_be_typed() -> None:
    typed = set().union(*(parameters(name) for name in COMMANDS))
    of_providers = {option.parameter for option in CI_OPTIONS}
    assert of_providers <= typed
    assert typed - of_providers | {"ci"} == FIELDS


def test_options_of_providers_are_told_apart_from_ours() -> None:
    options = Options.of({"gitlab_url": "https://x", "gitlab_token_file": None, "yes": True})
    assert (dict(options.ci), options.yes) == ({"gitlab_url": "https://x"}, True)


def test_options_are_frozen_and_travel() -> None:
    options = Options(pattern="host1", sources=("a",), serial="1,20%")
    assert pickle.loads(pickle.dumps(options)) == options  # noqa: S301 - our own
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.pattern = "host2"  # type: ignore[misc]


@click.command
@click.option("--play")
@with_options
def shown(options: Options) -> None:
    click.echo(options.play)


@pytest.mark.parametrize(("words", "said"), [([], "p.yml\n"), (["--play", "q.yml"], None)])
def test_a_play_is_named_once(words: list[str], said: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    context = shown.make_context("shown", words, obj=PlayFile("p.yml"))
    if said is None:
        with pytest.raises(click.UsageError, match="both name a play"):
            shown.invoke(context)
    else:
        shown.invoke(context)
        assert capsys.readouterr().out == said
