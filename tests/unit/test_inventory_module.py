"""What is wanted of the module on a host: a play's keys below, the host's variables above, nothing where nothing is said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from provisioner import resources
from provisioner.errors import InventoryError
from provisioner.inventory import load
from provisioner.inventory.module import GROUPS, VARIABLES
from provisioner.inventory.runners import VARIABLES as OF_RUNNERS
from provisioner.model import Capability, Engine, ModuleSpec, Trust

PAGE = Path(__file__).parents[2] / "docs" / "inventory.md"


def _module(tmp_path: Path, variables: dict[str, object], play: Mapping[str, object] | None = None) -> ModuleSpec:
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"all": {"hosts": {"h1": variables}}}, indent=1))
    return load([str(file)]).host_specs(["h1"], (), play or {})[0].module


def test_nothing_said_is_nothing_written(tmp_path: Path) -> None:
    assert _module(tmp_path, {}) == ModuleSpec()


def test_every_variable_is_an_option_of_the_module(tmp_path: Path) -> None:
    """By name, and no option of these groups is without a variable."""
    words = {
        "nixprov_trust": "plain",
        "nixprov_engine": "docker",
        "nixprov_share_socket": "yes",
        "nixprov_accept_advisories": "CVE-2026-39860",
    }
    said = _module(tmp_path, {name: words.get(name, 7) for name in VARIABLES})
    text = (resources.templates() / "core" / "options.nix").read_text()
    for group in GROUPS:
        block = re.search(rf"^    {group} = {{\n(.*?)^    }};", text, re.MULTILINE | re.DOTALL)
        assert block
        assert set(said.settings[group]) == set(re.findall(r"^      (\w+) = ", block[1], re.MULTILINE))
        assert set(said.settings[group].values()) == {7}
    assert (said.trust, said.engine, said.accepted_advisories) == (Trust.PLAIN, Engine.DOCKER, ("CVE-2026-39860",))
    assert "acceptedAdvisories = mkOption" in text
    assert said.share_socket


def test_the_capabilities_of_the_inventory_are_the_modules() -> None:
    text = (resources.templates() / "core" / "options.nix").read_text()
    block = re.search(r"^      capAdd = .*?^      };", text, re.MULTILINE | re.DOTALL)
    assert block
    assert re.findall(r'^ +"(\w+)"$', block[0], re.MULTILINE) == [capability.value for capability in Capability]


def test_the_page_says_the_defaults_of_the_module() -> None:
    text = (resources.templates() / "core" / "options.nix").read_text()
    defaults = dict(re.findall(r"^      (\w+) = (?:amount|positive|percent|weight) (\d+) ", text, re.MULTILINE))
    assert defaults
    page = dict(re.findall(r"^\| `(nixprov_\w+)` \|.*\| (\S*) \|$", PAGE.read_text(), re.MULTILINE))
    for name, place in VARIABLES.items():
        if len(place) > 1:
            option = place[1].replace("_mib", "_MiB")
            camel = re.sub(r"_(\w)", lambda found: found[1].upper(), option)
            assert page[name] == defaults[camel]
    assert set(VARIABLES) | set(OF_RUNNERS) <= set(re.findall(r"`(nixprov_\w+)`", PAGE.read_text()))


def test_a_variable_goes_over_its_key_of_the_play_alone(tmp_path: Path) -> None:
    play = {"limits": {"tasks": 5, "cpu_weight": 20}, "cache": {"keep_days": 3}, "trust": "plain"}
    said = _module(tmp_path, {"nixprov_limits_tasks": "9", "nixprov_trust": "none"}, play)
    assert said == ModuleSpec({"limits": {"tasks": 9, "cpuWeight": 20}, "cache": {"keepDays": 3}})


def test_null_gives_a_setting_its_default_back(tmp_path: Path) -> None:
    play = {"limits": {"tasks": 5}, "cache": {"keep_days": 3}}
    said = _module(tmp_path, {"nixprov_limits_tasks": None, "nixprov_cache_keep_days": None}, play)
    assert said == ModuleSpec()


def test_a_group_and_its_host_each_say_theirs(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("[g]\nh1 nixprov_limits_tasks=5\n[g:vars]\nnixprov_limits_io_weight=7\nnixprov_limits_tasks=6\n")
    assert load([str(file)]).host_specs(["h1"])[0].module.settings == {"limits": {"tasks": 5, "ioWeight": 7}}


@pytest.mark.parametrize(
    "value", ["CVE-2026-39860,CVE-2026-44028", " CVE-2026-39860 , CVE-2026-44028", ["CVE-2026-39860", "CVE-2026-44028"]]
)
def test_advisories_are_accepted_by_name(tmp_path: Path, value: object) -> None:
    both = ("CVE-2026-39860", "CVE-2026-44028")
    assert _module(tmp_path, {"nixprov_accept_advisories": value}).accepted_advisories == both
    assert _module(tmp_path, {}, {"accept_advisories": value}).accepted_advisories == both


def test_a_hosts_own_list_of_accepted_advisories_replaces_the_plays(tmp_path: Path) -> None:
    play = {"accept_advisories": ["CVE-2026-39860"]}
    assert _module(tmp_path, {"nixprov_accept_advisories": []}, play).accepted_advisories == ()
    assert _module(tmp_path, {"nixprov_accept_advisories": None}, play).accepted_advisories == ()


@pytest.mark.parametrize(
    ("variables", "message", "line"),
    [
        ({"x": 1, "nixprov_limits_tasks": "many"}, "host h1: nixprov_limits_tasks: expected a whole number", 6),
        ({"nixprov_limits_tasks": 1.5}, "host h1: nixprov_limits_tasks: expected a whole number, got a number", 5),
        ({"nixprov_limits_tasks": True}, "host h1: nixprov_limits_tasks: expected a whole number, got a boolean", 5),
        ({"nixprov_limits_tasks": 0}, "host h1: nixprov_limits_tasks: expected greater than or equal to 1", 5),
        (
            {"nixprov_limits_memory_percent": 101},
            "nixprov_limits_memory_percent: expected less than or equal to 100",
            5,
        ),
        ({"nixprov_cache_keep_days": -1}, "nixprov_cache_keep_days: expected greater than or equal to 1", 5),
        ({"nixprov_trust": "full"}, "host h1: nixprov_trust: expected 'none' or 'plain'", 5),
        ({"nixprov_share_socket": "all"}, "host h1: nixprov_share_socket: expected true or false", 5),
        ({"nixprov_engine": "lxc"}, "host h1: nixprov_engine: expected 'podman' or 'docker'", 5),
        (
            {"nixprov_accept_advisories": ["CVE-2026-39860", "CVE-1"]},
            "nixprov_accept_advisories: there is no advisory CVE-1; known are CVE-2024-27297, CVE-2024-38531,",
            5,
        ),
        (
            {"nixprov_accept_advisories": "CVE-2026-39860;CVE-2026-44028"},
            "nixprov_accept_advisories: there is no advisory CVE-2026-39860;CVE-2026-44028; known are CVE-",
            5,
        ),
        ({"nixprov_accept_advisories": 2026}, "nixprov_accept_advisories: expected a list of ids, or ids with", 5),
        ({"nixprov_limits_task": 1}, "no variable nixprov_limits_task; did you mean nixprov_limits_tasks?", 5),
        (
            {"nixprov_limits": {"tasks": 1}},
            "there is no variable nixprov_limits; did you mean nixprov_limits_tasks?",
            5,
        ),
        (
            {"nixprov_cache_min_free_percent": 20, "nixprov_cache_max_free_percent": 10},
            "host h1: cache: min_free_percent is above max_free_percent",
            5,
        ),
    ],
)
def test_wrong_values_name_host_variable_and_line(
    tmp_path: Path, variables: dict[str, object], message: str, line: int
) -> None:
    with pytest.raises(InventoryError) as caught:
        _module(tmp_path, variables)
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "hosts.json"), line)
