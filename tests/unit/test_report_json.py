"""JSON lines against their published schema, kind by kind; the schema and the docs against the types."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, cast, get_type_hints

import jsonschema
import pytest

from provisioner.events import Logged
from provisioner.events.documents import VERSION
from provisioner.report import schema
from provisioner.report.json_lines import JsonLines
from tests.unit.runs import KINDS, SAMPLES, Play

ROOT = Path(__file__).parents[2]


def written(diff: bool = True) -> dict[str, dict[str, Any]]:
    out = io.StringIO()
    play = Play(["host1"], reports=[JsonLines(out, diff=diff)])
    for event in SAMPLES:
        play.emit(event)
    return {line["event"]: line for line in map(json.loads, out.getvalue().splitlines())}


SCHEMA = schema.events()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())


def defined(kind: str) -> dict[str, Any]:
    """What the schema says of a line, found as a reader of it would: by the word in `event`."""
    (found,) = [one for one in SCHEMA["$defs"].values() if one["properties"].get("event", {}).get("const") == kind]
    return cast("dict[str, Any]", found)


def test_each_class_of_event_has_a_sample_and_a_document_of_its_own() -> None:
    assert sorted(map(str, KINDS)) == sorted(str(type(sample)) for sample in SAMPLES)
    made = [get_type_hints(kind.to_json)["return"] for kind in KINDS]
    assert sorted(made, key=str) == sorted(schema.documents().values(), key=str)


@pytest.mark.parametrize("kind", schema.documents())
def test_each_event_is_valid_and_has_no_field_that_the_schema_does_not_name(kind: str) -> None:
    line = written()[kind]
    VALIDATOR.validate(line)
    assert set(line) <= set(defined(kind)["properties"])


@pytest.mark.parametrize("kind", schema.documents())
def test_a_missing_field_and_a_wrong_type_are_seen(kind: str) -> None:
    line = written()[kind]
    for name in defined(kind)["required"]:
        assert not VALIDATOR.is_valid({key: value for key, value in line.items() if key != name}), name
        assert not VALIDATOR.is_valid({**line, name: object()}), name


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert defined("log")["properties"]["version"] == {
        "const": VERSION,
        "description": "grows when a field changes its meaning",
    }


def test_what_the_fields_hold() -> None:
    lines = written()
    plan, status, host = lines["plan"], lines["status"], lines["host"]
    assert plan["runners"][0] == {
        "name": "default",
        "verb": "create",
        "id": None,
        "why": "GitLab has none",
        "differences": [],
    }
    assert plan["runners"][1]["differences"] == [{"name": "tags", "before": "a", "after": "b"}]
    assert any("-b\n+c\n" in text for text in plan["diff"])
    assert written(diff=False)["plan"]["diff"] == []
    assert plan["system"] == {
        "build": [],
        "fetch": [],
        "fetch_size": None,
        "closure": {
            "added": 2,
            "removed": 1,
            "size": 2048,
            "packages": [{"name": "podman", "before": [], "after": ["5.4.2"], "size": 2048}],
            "units": [{"verb": "add", "units": ["a<b>.service"]}],
        },
        "failed": None,
        "unknown": None,
    }
    assert status["nixprov"] == "0.1.0"
    assert status["runners"][0]["contacted_at"] == "2026-01-01T00:00:00Z"
    assert status["runners"][0]["unit_state"] == "active"
    assert status["counters"] == {
        "since": "2026-01-01T00:00:00+00:00",
        "jobs": 7,
        "seconds": 75.5,
        "built": 3,
        "found": 9,
        "bytes": 2048,
        "last": [
            {"runner": "default", "job": 16, "project": 3, "started": "2026-01-01T00:01:40+00:00"}
            | {"seconds": 3.25, "built": 1, "found": 2, "bytes": 120},
            {"runner": "default", "job": 17, "project": None, "started": "2026-01-01T00:03:20+00:00"}
            | {"seconds": None, "built": 0, "found": 0, "bytes": 0},
        ],
    }
    assert (host["outcome"], host["error"], host["hint"]) == ("rolled back", "it broke", "mend it")
    assert host["remains"] == ["a runner"]


def test_what_looks_like_a_token_is_cut() -> None:
    out = io.StringIO()
    Play(["host1"], reports=[JsonLines(out)]).emit(Logged("host1", "token=glrt-AbCdEfGhIjKlMnOp"))
    assert "AbCdEf" not in out.getvalue()
    assert json.loads(out.getvalue())["text"] == "token=glrt-***"


def test_a_stream_that_is_not_utf_8_still_gets_json() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Play(["host1"], reports=[JsonLines(out)]).emit(Logged("host1", "grün 界"))
    assert json.loads(raw.getvalue())["text"] == "grün 界"


def test_the_docs_are_generated_from_the_types() -> None:
    hint = "run scripts/docs"
    assert json.loads((ROOT / "docs/events.schema.json").read_text()) == SCHEMA, hint
    assert schema.table() in (ROOT / "docs/json.md").read_text(), hint
