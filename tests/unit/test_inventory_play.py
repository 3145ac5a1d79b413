"""Plays are data; an error names file, line, key and the nearest valid key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioner.errors import InventoryError
from provisioner.inventory import load, play
from provisioner.model import Trust


def _read(tmp_path: Path, text: str) -> tuple[play.Play, ...]:
    file = tmp_path / "play.yml"
    file.write_text(text)
    return play.read(str(file))


def test_the_shipped_play_gives_every_host_one_runner() -> None:
    [shipped] = play.read(str(play.shipped()))
    [host] = load(["h1,"]).select(shipped.hosts, None, shipped.runner_settings)
    [runner] = host.runners
    assert (runner.name, runner.tags, runner.run_untagged) == ("default", ("nix", "nixos"), True)


def test_a_play_is_read_whole(tmp_path: Path) -> None:
    text = """
- name: builders
  hosts: build:!old
  order: sorted
  serial: [1, 5, 20%]
  max_fail_percentage: 20
  limits: {tasks: 100, memory_percent: null}
  trust: plain
  runners:
    - {name: a, tags: [x], group: 12}
    - {name: b, concurrent: 8}
- hosts: all
  serial: 25%
"""
    first, second = _read(tmp_path, text)
    assert (first.hosts, first.order, first.serial, first.max_fail_percentage) == (
        "build:!old",
        "sorted",
        (1, 5, "20%"),
        20,
    )
    assert first.runner_settings == ({"name": "a", "tags": ("x",), "group": "12"}, {"name": "b", "concurrent": 8})
    assert first.module_settings == {"limits": {"tasks": 100, "memory_percent": None}, "trust": Trust.PLAIN}
    assert (second.serial, second.runner_settings, second.module_settings) == (("25%",), ({},), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: expected a list of plays, got nothing"),
        ("[]\n", "1: expected a list of plays, got an empty one"),
        ("hosts: all\n", "1: expected a list of plays, got a mapping; begin with - hosts: all"),
        ("- all\n", "1: a play must be a mapping, not a string"),
        ("- name: x\n", "1: hosts: is missing"),
        ("- hosts: all\n  runers: []\n", "2: runers: there is no such key; did you mean runners?"),
        ("- hosts: all\n  runners: []\n", "2: runners: is empty"),
        ("- hosts: all\n  runners:\n    - name: a\n    - tag: x\n", "4: runners.1.tag: there is no such key; did"),
        ("- hosts: all\n  runners:\n    - name: a\n    - name: a\n", "2: runners: two runners have the same name"),
        ("- hosts: all\n  runners:\n    -\n      tags: [1.5]\n", "4: runners.0.tags: expected a string"),
        ("- hosts: all\n  serial: 0\n", "2: serial.0: expected a number of hosts from 1 on, or 1% to 100%"),
        ("- hosts: all\n\n\n  order: srted\n", "4: order: expected 'inventory'"),
        ("- hosts: ':'\n", "1: hosts: the pattern of hosts is empty"),
        ("- hosts: all\n- hosts: [\n", "2: not valid YAML"),
        ("- hosts: all\n  max_fail_percentage: 101\n", "2: max_fail_percentage: expected less than or equal to 100"),
        ("- hosts: all\n  limits:\n    tsks: 5\n", "3: limits.tsks: there is no such key; did you mean tasks?"),
        ("- hosts: all\n  limits: {tasks: 1.5}\n", "2: limits.tasks: expected a whole number, got a number"),
        ("- hosts: all\n  cache: 5\n", "2: cache: expected a mapping"),
        ("- hosts: all\n  trust: full\n", "2: trust: expected 'none' or 'plain'"),
        ("- hosts: all\n  vars: {a: 1}\n", "2: vars: there is no such key; "),
    ],
)  # fmt: skip
def test_errors_name_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InventoryError) as caught:
        _read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'play.yml'}:{message}")


def test_the_schema_describes_what_may_be_written() -> None:
    schema = play.schema()
    assert json.loads(json.dumps(schema)) == schema
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    assert set(definitions["Play"]["properties"]) == set(play.Play.model_fields)
    tags = definitions["RunnerSettings"]["properties"]["tags"]
    assert {"array", "string"} <= {form["type"] for form in tags["anyOf"]}
