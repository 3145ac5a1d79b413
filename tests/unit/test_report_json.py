"""JSON lines against their published schema, kind by kind; the schema and the docs against the types."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from provisioner.ci.gitlab.plan import enrolled
from provisioner.events import HostResult, Outcome, summary
from provisioner.report import schema
from provisioner.report.documents import DOCUMENTS, VERSION
from provisioner.report.json_lines import JsonLines
from provisioner.verbs import prune
from tests.unit.hosts import runner
from tests.unit.runs import CHANGE, FOREIGN, PREVIEW, Play, host_plan, host_report

ROOT = Path(__file__).parents[2]
RESULT = HostResult("host1", Outcome.FAILED, 1.0, error="it broke", hint="mend it", remains=("runner 7",))
SAMPLES: dict[str, tuple[str, Mapping[str, object]]] = {
    "start": ("", {"verb": "up", "run": "r", "operator": "anna@desk", "hosts": ["host1"]}),
    "batch": ("", {"batch": 1, "of": 2, "play": "", "hosts": ["host1"]}),
    "phase": ("host1", {"phase": "probe"}),
    "plan": ("host1", {"plan": host_plan(), "files": (CHANGE,), "system": PREVIEW, "check": True}),
    "origin": ("host1", {"origin": FOREIGN}),
    "log": ("host1", {"text": "building"}),
    "drain": ("host1", {"jobs": 2, "limit_s": 3600.0}),
    "warning": ("", {"text": "careful"}),
    "status": ("host1", {"report": host_report("host1", "hook: not imported")}),
    "gone": ("old", {"runner": "default", "id": 9, "gitlab_status": "stale"}),
    "host": ("host1", {"result": RESULT}),
    "bug": ("host1", {"traceback": "Traceback"}),
    "interrupt": ("", {}),
    "finding": ("host1", prune.fields(prune.Finding("its host does not know it", enrolled(runner(7)), deletes=True))),
    "deleted": ("", {"id": 7}),
}


def written(diff: bool = True) -> dict[str, dict[str, Any]]:
    out = io.StringIO()
    report = JsonLines(out, diff=diff)
    play = Play(["host1"], reports=[report])
    for kind, (host, fields) in SAMPLES.items():
        play.emit(kind, host, **fields)
    fields = {**summary([RESULT], 0, 1.0), "run": "r", "failed_hosts_file": None}
    report.summary(fields)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines[-1]["event"] == "summary"
    return {line["event"]: line for line in lines}


VALIDATOR = jsonschema.Draft202012Validator(schema.events(), format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_each_event_is_valid_and_has_no_field_that_the_schema_does_not_name(kind: str) -> None:
    line = written()[kind]
    VALIDATOR.validate(line)
    named = schema.events()["$defs"][kind]["properties"]
    assert set(line) <= set(named)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_missing_field_and_a_wrong_type_are_seen(kind: str) -> None:
    line = written()[kind]
    for name in schema.events()["$defs"][kind]["required"]:
        assert not VALIDATOR.is_valid({key: value for key, value in line.items() if key != name}), name
        assert not VALIDATOR.is_valid({**line, name: object()}), name


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.events())
    assert schema.events()["$defs"]["log"]["properties"]["version"] == {
        "const": VERSION,
        "description": "grows when a field changes its meaning",
    }


def emitted() -> Iterator[tuple[str, str]]:
    """Every kind of event that the program makes, wherever it does."""
    for file in (ROOT / "provisioner").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = ast.unparse(node.func)
                if (name == "Event" or name.endswith((".emit", ".tell"))) and isinstance(node.args[0].value, str):
                    yield node.args[0].value, file.name


def test_every_kind_that_is_emitted_is_documented() -> None:
    kinds = {kind for kind, _ in emitted()}
    assert {"phase", "plan", "host", "start"} <= kinds
    assert kinds <= set(DOCUMENTS), sorted(kinds - set(DOCUMENTS))


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
    assert (host["outcome"], host["error"], host["hint"]) == ("failed", "it broke", "mend it")
    assert host["remains"] == ["runner 7"]


def test_what_looks_like_a_token_is_cut() -> None:
    out = io.StringIO()
    Play(["host1"], reports=[JsonLines(out)]).emit("log", "host1", text="token=glrt-AbCdEfGhIjKlMnOp")
    assert "AbCdEf" not in out.getvalue()
    assert json.loads(out.getvalue())["text"] == "token=glrt-***"


def test_a_stream_that_is_not_utf_8_still_gets_json() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Play(["host1"], reports=[JsonLines(out)]).emit("log", "host1", text="grün 界")
    assert json.loads(raw.getvalue())["text"] == "grün 界"


def test_the_docs_are_generated_from_the_types() -> None:
    hint = "run scripts/docs"
    assert json.loads((ROOT / "docs/events.schema.json").read_text()) == schema.events(), hint
    assert schema.table() in (ROOT / "docs/json.md").read_text(), hint
