"""The corpus: what nixprov reads from an inventory and selects by a pattern is what the real ansible-core does.

`tests/corpus/inventory/cases.yml` names the inventories and patterns, `tests/corpus/inventory_reference.py` asks
ansible about all of them in one process. What differs on purpose is listed here, and in docs/inventory.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from provisioner.errors import InventoryError, NothingSelected
from provisioner.inventory import Inventory, load
from provisioner.inventory.export import HIDDEN, listing
from provisioner.inventory.hosts import is_password

CORPUS: Final = Path(__file__).parent.parent / "corpus"
CASES: Final[dict[str, dict[str, Any]]] = yaml.safe_load((CORPUS / "inventory" / "cases.yml").read_text())
ERROR: Final = None


class Deviation(NamedTuple):
    ours: object
    why: str


def _read(hostvars: dict[str, dict[str, object]] | None = None, **groups: list[str]) -> dict[str, object]:
    """A listing of groups without children."""
    children = ["ungrouped", *(name for name in groups if name != "ungrouped")]
    hosts = {name: {"hosts": members} for name, members in groups.items()}
    return {"_meta": {"hostvars": hostvars or {}}, "all": {"children": children}, **hosts}


_UNGROUPED: Final = "hosts of `ungrouped` below a group stay hosts"

INVENTORY_DEVIATIONS: Final = {
    "differs-same-name": Deviation(
        _read({"web": {"v": "host"}, "other": {"v": "group"}}, web=["web", "other"]),
        "variables of a host named like a group are the host's, not the group's",
    ),
    "differs-range-letters": Deviation(ERROR, "a range of letters has one letter at each end"),
    "differs-encoding": Deviation(ERROR, "a source is UTF-8"),
    "differs-bom": Deviation(_read(g=["h1"]), "a byte order mark is no part of the first line"),
    "differs-ini-in-yaml": Deviation(ERROR, "the extension says what a file is"),
    "differs-plugin": Deviation(ERROR, "inventory plugins are not supported"),
    "differs-key": Deviation(ERROR, "the name of a variable is a string"),
    "differs-broken-script": Deviation(ERROR, "a program that is not executable is no INI file"),
    "differs-vault": Deviation(ERROR, "what is encrypted needs a password"),
    "differs-host-list-range": Deviation(_read(ungrouped=["w1", "w2"]), "ranges in a list of hosts are expanded"),
    "differs-ungrouped-child": Deviation(
        {
            "_meta": {"hostvars": {"a": {"x": 1}, "c": {"x": 1}}},
            "all": {"children": ["ungrouped", "prod"]},
            "ungrouped": {"hosts": ["a"]},
            "prod": {"children": ["ungrouped", "web"]},
            "web": {"hosts": ["c"]},
        },
        _UNGROUPED,
    ),
    "differs-script-falls-back": Deviation(ERROR, "a program that fails is an error, never read as INI"),
}

_BEYOND: Final = Deviation([], "both refuse; here nothing is selected, which has its own exit code")
_EMPTY: Final = Deviation(ERROR, "an empty pattern or limit never means every host")
_LOCALHOST: Final = "there is no implicit localhost"
_OPEN_SUBSCRIPT: Final = "[:n], [-n:] and negative ends work"

PATTERN_DEVIATIONS: Final = {
    ("differs-subscripts", "w[:2]", None): Deviation(["w1", "w2", "w3"], _OPEN_SUBSCRIPT),
    ("differs-subscripts", "w[-2:]", None): Deviation(["w4", "w5"], _OPEN_SUBSCRIPT),
    ("differs-subscripts", "w[1:-2]", None): Deviation(["w2", "w3", "w4"], _OPEN_SUBSCRIPT),
    ("differs-subscripts", "w[:]", None): Deviation(["w1", "w2", "w3", "w4", "w5"], _OPEN_SUBSCRIPT),
    ("differs-subscripts", "w[2:0]", None): Deviation([], "a range that ends before it begins is empty"),
    ("differs-subscripts", "w[9]", None): _BEYOND,
    ("differs-subscripts", "w[9],w1", None): _BEYOND,
    ("differs-subscripts", "!w[9]", None): _BEYOND,
    ("differs-subscripts", "", None): _EMPTY,
    ("differs-subscripts", " ", None): _EMPTY,
    ("differs-subscripts", ",", None): _EMPTY,
    ("differs-subscripts", "w", ""): _EMPTY,
    ("differs-subscripts", "w", "@differs-empty-limit"): Deviation([], "a limit file without a name limits to no host"),
    ("differs-localhost", "localhost", None): Deviation([], _LOCALHOST),
    ("differs-localhost", "127.0.0.1", None): Deviation([], _LOCALHOST),
    ("differs-localhost", "h1:localhost", None): Deviation(["h1"], _LOCALHOST),
    ("differs-host-list-range", "all", None): Deviation(["w1", "w2"], "ranges in a list of hosts are expanded"),
    ("differs-ungrouped-child", "all", None): Deviation(["a", "c"], _UNGROUPED),
    ("differs-ungrouped-child", "ungrouped", None): Deviation(["a"], _UNGROUPED),
    ("differs-ungrouped-child", "prod", None): Deviation(["a", "c"], _UNGROUPED),
    ("differs-host-list-range", "w1", None): Deviation(["w1"], "ranges in a list of hosts are expanded"),
}


class Pattern(NamedTuple):
    case: str
    pattern: str
    limit: str | None
    number: int


def _pairs(case: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(p[0], p[1]) if isinstance(p, list) else (p, None) for p in case["patterns"]]


def _patterns() -> list[Pattern]:
    return [
        Pattern(name, pattern, limit, number)
        for name, case in CASES.items()
        for number, (pattern, limit) in enumerate(_pairs(case))
    ]


@pytest.fixture(scope="module")
def reference() -> dict[str, dict[str, Any]]:
    questions = [{"sources": case["sources"], "patterns": _pairs(case)} for case in CASES.values()]
    done = subprocess.run(
        [sys.executable, CORPUS / "inventory_reference.py"],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=False,
        cwd=CORPUS / "inventory",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.fixture
def _in_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS / "inventory")


def _load(name: str) -> Inventory:
    return load(CASES[name]["sources"])


def _listing(name: str) -> object:
    try:
        return json.loads(json.dumps(listing(_load(name))))
    except InventoryError:
        return ERROR


def _match(pattern: Pattern) -> object:
    try:
        return list(_load(pattern.case).match(pattern.pattern, pattern.limit))
    except NothingSelected:
        return []
    except InventoryError:
        return ERROR


def _as_ours(value: object, name: str = "") -> object:
    """Ansible's listing without what differs everywhere: marks of untrusted strings, the profile, passwords shown."""
    if is_password(name):
        return HIDDEN
    if isinstance(value, dict):
        if value.keys() == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: _as_ours(item, key) for key, item in value.items() if key != "profile"}
    return [_as_ours(item) for item in value] if isinstance(value, list) else value


def test_corpus_is_as_large_as_promised() -> None:
    assert len(CASES) >= 60
    assert len(_patterns()) >= 150


@pytest.mark.usefixtures("_in_corpus")
@pytest.mark.parametrize("name", CASES)
def test_inventory_is_read_as_ansible_reads_it(name: str, reference: dict[str, dict[str, Any]]) -> None:
    theirs = _as_ours(reference[name]["listing"])
    if name in INVENTORY_DEVIATIONS:
        expected = INVENTORY_DEVIATIONS[name].ours
        assert theirs != expected, "no deviation any more"
    else:
        expected = theirs
    assert _listing(name) == expected, reference[name].get("error")


@pytest.mark.usefixtures("_in_corpus")
@pytest.mark.parametrize("pattern", _patterns(), ids=lambda p: f"{p.case}: {p.pattern} @ {p.limit}")
def test_pattern_selects_what_ansible_selects(pattern: Pattern, reference: dict[str, dict[str, Any]]) -> None:
    theirs = reference[pattern.case]["matches"][pattern.number]
    deviation = PATTERN_DEVIATIONS.get(pattern[:3])
    if deviation is not None:
        assert theirs != deviation.ours, "no deviation any more"
    assert _match(pattern) == (theirs if deviation is None else deviation.ours)


@pytest.mark.usefixtures("_in_corpus")
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("error-ini-", "error-yaml-"))])
def test_error_names_file_and_line(name: str) -> None:
    with pytest.raises(InventoryError) as caught:
        _load(name)
    assert (caught.value.file, caught.value.line >= 1) == (CASES[name]["sources"][0], True)
    assert "\n" not in str(caught.value)


def test_every_deviation_has_its_case() -> None:
    assert INVENTORY_DEVIATIONS.keys() <= CASES.keys()
    assert PATTERN_DEVIATIONS.keys() <= {pattern[:3] for pattern in _patterns()}
