"""JUnit XML of a run, for CI systems: a test case a host.

The dialect is the one that GitLab and Jenkins read (doc/ci/testing/unit_test_reports). `failure` is an attempt that
failed, `error` a host that could not be tried, `skipped` one that never began.
"""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

from provisioner.outcome import HostResult, Outcome
from provisioner.report.lines import that_matter
from provisioner.report.record import HostRecord, RunRecord
from provisioner.report.wording import clean, told

_NOT_TRIED: Final = (Outcome.UNREACHABLE, Outcome.NOT_DESCRIBED, Outcome.INTERRUPTED)


def document(record: RunRecord) -> bytes:
    """The whole file. Hosts that have no result are `skipped`."""
    with record.reading():
        cases = [_case(record, host) for host in record.hosts.values()]
        suite = ET.Element("testsuite", _attributes(record, cases))
        suite.extend(cases)
        if record.warnings:
            ET.SubElement(suite, "system-err").text = _text("\n".join(record.warnings))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _attributes(record: RunRecord, cases: list[ET.Element]) -> dict[str, str]:
    def having(tag: str) -> str:
        return str(sum(case.find(tag) is not None for case in cases))

    return {
        "name": f"nixprov {record.verb}".rstrip(),
        "timestamp": record.began.isoformat(timespec="seconds"),
        "time": f"{record.now_s:.3f}",
        "tests": str(len(cases)),
        "failures": having("failure"),
        "errors": having("error"),
        "skipped": having("skipped"),
    }


def _case(record: RunRecord, host: HostRecord) -> ET.Element:
    suite = f"nixprov.{record.verb.replace(' ', '-') or 'run'}"
    case = ET.Element("testcase", {"classname": suite, "name": _text(host.name)})
    case.set("time", f"{host.seconds(record.now_s):.3f}")
    result = host.result
    if result is None or result.outcome is Outcome.SKIPPED:
        ET.SubElement(case, "skipped", {"message": _text(result.error if result and result.error else "not begun")})
    elif not result.outcome.is_good:
        case.append(_problem(host, result))
    said = "\n".join(_said(host))
    if said:
        ET.SubElement(case, "system-out").text = _text(said)
    return case


def _problem(host: HostRecord, result: HostResult) -> ET.Element:
    tag = "error" if result.outcome in _NOT_TRIED else "failure"
    problem = ET.Element(tag, {"type": result.outcome.value, "message": _text(clean(result.error))})
    remains = (f"left behind: {line}" for line in result.remains)
    problem.text = _text(
        "\n".join(line for line in (*that_matter(host.log), result.error, *remains, result.hint) if line)
    )
    return problem


def _said(host: HostRecord) -> list[str]:
    drift = [f"drift: {line}" for line in host.status.drift] if host.status else []
    return [*host.changes, *host.origin, *drift, *(f"warning: {text}" for text in host.warnings)]


def _text(text: str) -> str:
    """XML 1.0 cannot hold controls, surrogates and noncharacters, not even escaped: here they are spelled."""
    return told(text)
