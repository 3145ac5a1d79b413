"""What is wanted on a host: the play below, the inventory's variables above."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from provisioner.errors import InventoryError
from provisioner.inventory import load
from provisioner.inventory.runners import VARIABLES
from provisioner.model import AccessLevel, Capability, RunnerSpec, RunnerType

PLAY = ({"name": "default", "tags": ["nix"], "concurrent": 4, "group": "ci/all"},)


def _runners(
    tmp_path: Path, variables: dict[str, object], play: Sequence[dict[str, object]] = ()
) -> tuple[RunnerSpec, ...]:
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"all": {"hosts": {"h1": variables}}}, indent=1))
    return load([str(file)]).host_specs(["h1"], play)[0].runners


def test_nothing_said_is_one_default_runner(tmp_path: Path) -> None:
    assert _runners(tmp_path, {}) == (RunnerSpec(),)


def test_every_variable_reaches_the_spec(tmp_path: Path) -> None:
    variables = {
        "nixprov_type": "project",
        "nixprov_project": 42,
        "nixprov_description": "big one",
        "nixprov_tags": "nix, nixos,nix",
        "nixprov_run_untagged": "no",
        "nixprov_locked": True,
        "nixprov_protected": "yes",
        "nixprov_maximum_timeout": 3600,
        "nixprov_paused": 1,
        "nixprov_maintenance_note": "ask\nops",
        "nixprov_concurrent": "8",
        "nixprov_image": "alpine:3",
        "nixprov_allowed_images": ["{ruby,python}:*", "local/*"],
        "nixprov_memory": "4g",
        "nixprov_cpus": 1.5,
        "nixprov_no_new_privileges": "no",
        "nixprov_cap_add": ["NET_RAW", "cap_sys_ptrace", "NET_RAW"],
        "nixprov_environment": {"A": "b", "N": 3},
        "nixprov_stop_timeout": "600",
    }
    assert {*variables, "nixprov_group", "nixprov_runners"} == set(VARIABLES)
    assert _runners(tmp_path, variables) == (
        RunnerSpec(
            type=RunnerType.PROJECT,
            owner="42",
            description="big one",
            tags=("nix", "nixos"),
            run_untagged=False,
            locked=True,
            access_level=AccessLevel.REF_PROTECTED,
            maximum_timeout_s=3600,
            paused=True,
            maintenance_note="ask\nops",
            concurrent=8,
            image="alpine:3",
            allowed_images=("{ruby,python}:*", "local/*"),
            memory="4g",
            cpus="1.5",
            no_new_privileges=False,
            cap_add=(Capability.NET_RAW, Capability.SYS_PTRACE),
            stop_timeout_s=600,
            environment={"A": "b", "N": "3"},
        ),
    )


def test_host_goes_over_play(tmp_path: Path) -> None:
    [spec] = _runners(tmp_path, {"nixprov_tags": "big", "nixprov_project": "a/b"}, PLAY)
    assert (spec.tags, spec.concurrent, spec.type, spec.owner) == (("big",), 4, RunnerType.PROJECT, "a/b")


def test_host_goes_over_each_of_several(tmp_path: Path) -> None:
    specs = _runners(tmp_path, {"nixprov_paused": True}, ({"name": "a", "paused": False}, {"name": "b"}))
    assert [(spec.name, spec.paused) for spec in specs] == [("a", True), ("b", True)]


def test_runners_of_the_host_replace_those_of_the_play(tmp_path: Path) -> None:
    entries = [{"name": "fast", "tags": "x"}, {"name": "slow", "project": 7}]
    specs = _runners(tmp_path, {"nixprov_runners": entries, "nixprov_tags": "all", "nixprov_group": "g"}, PLAY)
    assert [(s.name, s.tags, s.type, s.owner, s.concurrent) for s in specs] == [
        ("fast", ("x",), RunnerType.GROUP, "g", None),
        ("slow", ("all",), RunnerType.PROJECT, "7", None),
    ]


@pytest.mark.parametrize(
    ("variables", "field", "value"),
    [
        ({"nixprov_cpus": 2}, "cpus", "2"),
        ({"nixprov_cpus": "0.25"}, "cpus", "0.25"),
        ({"nixprov_memory": "512M"}, "memory", "512M"),
        ({"nixprov_memory": None}, "memory", None),
        ({"nixprov_allowed_images": "{a,b}:*"}, "allowed_images", ("{a,b}:*",)),
        ({"nixprov_cap_add": "net_raw"}, "cap_add", (Capability.NET_RAW,)),
        ({"nixprov_no_new_privileges": None}, "no_new_privileges", None),
    ],
)
def test_what_a_container_gets_is_spelled_as_people_do(
    tmp_path: Path, variables: dict[str, object], field: str, value: object
) -> None:
    [spec] = _runners(tmp_path, variables)
    assert getattr(spec, field) == value


def test_no_runner_at_all_can_be_said(tmp_path: Path) -> None:
    assert _runners(tmp_path, {"nixprov_runners": []}, PLAY) == ()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"nixprov_tag": "x"}, "host h1: there is no variable nixprov_tag; did you mean nixprov_tags?"),
        ({"nixprov_name": "x"}, "host h1: there is no variable nixprov_name; did you mean"),
        ({"nixprov_locked": "maybe"}, "host h1: nixprov_locked: expected true or false"),
        ({"nixprov_locked": None}, "host h1: nixprov_locked: expected true or false, got nothing"),
        ({"nixprov_tags": 1.1}, "host h1: nixprov_tags: expected a list of tags, or tags with commas between, got"),
        ({"nixprov_tags": ["a", 1.1]}, "host h1: nixprov_tags: expected a string, got a number; quote it"),
        ({"nixprov_maximum_timeout": 599}, "host h1: nixprov_maximum_timeout: expected greater than or equal to 600"),
        ({"nixprov_maximum_timeout": "1h"}, "host h1: nixprov_maximum_timeout: expected a whole number"),
        ({"nixprov_concurrent": True}, "host h1: nixprov_concurrent: expected a whole number, got a boolean"),
        ({"nixprov_concurrent": 0}, "host h1: nixprov_concurrent: expected greater than or equal to 1"),
        ({"nixprov_memory": 4}, "host h1: nixprov_memory: expected a whole number with its unit, as 512m or 4g"),
        ({"nixprov_memory": "4 GiB"}, "host h1: nixprov_memory: expected a whole number with its unit"),
        ({"nixprov_memory": 1.5}, "host h1: nixprov_memory: expected a string, got a number; quote it"),
        ({"nixprov_cpus": 0}, "host h1: nixprov_cpus: expected a number of processors, as 2 or 1.5"),
        ({"nixprov_cpus": "two"}, "host h1: nixprov_cpus: expected a number of processors, as 2 or 1.5"),
        ({"nixprov_cpus": True}, "host h1: nixprov_cpus: expected a number of processors, got a boolean"),
        ({"nixprov_allowed_images": 5}, "host h1: nixprov_allowed_images: expected a list of patterns of images, or one"),
        ({"nixprov_allowed_images": ["a", 5.0]}, "host h1: nixprov_allowed_images: expected a string, got a number"),
        ({"nixprov_allowed_images": "['a/*']"}, "host h1: nixprov_allowed_images: a list that is quoted is no list;"),
        ({"nixprov_allowed_images": [""]}, "host h1: nixprov_allowed_images: is empty"),
        ({"nixprov_cap_add": ["SYS_ADMIN"]}, "host h1: nixprov_cap_add: expected 'AUDIT_WRITE', 'IPC_LOCK', 'MKNOD', "),
        ({"nixprov_cap_add": "ALL"}, "host h1: nixprov_cap_add: expected 'AUDIT_WRITE', 'IPC_LOCK', 'MKNOD', "),
        ({"nixprov_cap_add": 5}, "host h1: nixprov_cap_add: expected a list of capabilities, or one, got a number"),
        ({"nixprov_no_new_privileges": "sudo"}, "host h1: nixprov_no_new_privileges: expected true or false"),
        ({"nixprov_stop_timeout": 0}, "host h1: nixprov_stop_timeout: expected greater than or equal to 1"),
        ({"nixprov_allowed_image": "x"}, "there is no variable nixprov_allowed_image; did you mean nixprov_allowed_images"),
        ({"nixprov_type": "world"}, "host h1: nixprov_type: expected 'instance', 'group' or 'project'"),
        ({"nixprov_type": "group"}, "host h1: a runner of type group needs a group"),
        ({"nixprov_type": "instance", "nixprov_group": 1}, "host h1: a runner of type instance has no group"),
        ({"nixprov_group": 1, "nixprov_project": 2}, "host h1: a runner serves a group or a project, not both"),
        ({"nixprov_run_untagged": False}, "host h1: a runner without tags that takes no untagged jobs"),
        ({"nixprov_description": "[nixprov a/b 0123456789ab]"}, "host h1: the description contains nixprov's own mark"),
        ({"nixprov_description": "{{ x }}"}, "host h1: nixprov_description: templates are not evaluated here"),
        ({"nixprov_environment": ["A=1"]}, "host h1: nixprov_environment: expected a mapping"),
        ({"nixprov_environment": {"A": True}}, "host h1: nixprov_environment: expected a string, got a boolean"),
        ({"nixprov_runners": {"name": "a"}}, "host h1: nixprov_runners: expected a list of mappings, got a mapping"),
        ({"nixprov_runners": [{"name": "A b"}]}, "host h1: nixprov_runners: name: string should match pattern"),
        ({"nixprov_runners": [{"name": "a", "tag": 1}]}, "host h1: nixprov_runners: tag: there is no such key;"),
        ({"nixprov_runners": [{}, {}]}, "host h1: two runners are named default; give each a name of its own"),
    ],
)  # fmt: skip
def test_wrong_values_name_host_and_variable(tmp_path: Path, variables: dict[str, object], message: str) -> None:
    with pytest.raises(InventoryError) as caught:
        _runners(tmp_path, variables)
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.line >= 1) == (str(tmp_path / "hosts.json"), True)


def test_the_line_is_that_of_the_variable(tmp_path: Path) -> None:
    with pytest.raises(InventoryError) as caught:
        _runners(tmp_path, {"x": 1, "nixprov_tags": "a", "nixprov_locked": "maybe"})
    assert caught.value.line == 7


def test_a_runner_of_the_play_that_does_not_fit_names_the_host(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="host h1: tgs: there is no such key; did you mean tags"):
        _runners(tmp_path, {}, ({"tgs": 1},))
