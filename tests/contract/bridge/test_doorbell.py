"""The doorbell over HTTP: nothing unsigned rings, and a ring does no more than a pass would find by itself."""

from __future__ import annotations

import gzip
import hmac
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from provisioner.bridge import service
from provisioner.bridge.config import load
from provisioner.bridge.doorbell import Doorbell, Pressed, listening
from provisioner.bridge.errors import BridgeError, BridgeUnavailable, Side, Unsafe
from provisioner.bridge.policy import Refs
from provisioner.bridge.store import Store
from provisioner.bridge.values import Claim, Person, Source
from provisioner.model import Secret
from tests.contract.bridge import process
from tests.contract.bridge.rig import MAIN, Rig

SECRET = "a long shared secret"
HEAD = "a" * 40


class Bell:
    def __init__(self) -> None:
        self.rings = 0
        self.presses: list[Pressed] = []
        self.port = 0

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", path, body, headers)
            return connection.getresponse().status
        except (BrokenPipeError, ConnectionResetError):
            return 413
        finally:
            connection.close()

    def ring(self) -> None:
        self.rings += 1

    def github(self, event: Any, kind: str = "check_run", **headers: str) -> int:
        body = json.dumps(event).encode()
        said = {"X-Hub-Signature-256": signature(body), "Content-Type": "application/json", "X-GitHub-Event": kind}
        return self.post("/github", body, said | headers)


def signature(body: bytes, secret: str = SECRET, how: str = "sha256") -> str:
    return f"{how}={hmac.new(secret.encode(), body, how).hexdigest()}"


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    doorbell = Doorbell("owner/name", 77, Secret(SECRET), Secret("glabber"), made.ring, made.presses.append)
    with listening(doorbell, "127.0.0.1", 0) as port:
        made.port = port
        yield made


BODY = b'{"zen": "x"}'
LARGE = b'"' + b"x" * 30_000_000 + b'"'
GOOD = {"X-Hub-Signature-256": signature(BODY), "Content-Type": "application/json"}
FORGED: dict[str, tuple[bytes, dict[str, str]]] = {
    "no header": (BODY, {"Content-Type": "application/json"}),
    "sha1": (BODY, {"X-Hub-Signature": signature(BODY, how="sha1"), "Content-Type": "application/json"}),
    "sha1 by the new name": (BODY, {**GOOD, "X-Hub-Signature-256": signature(BODY, how="sha1")}),
    "another secret": (BODY, {**GOOD, "X-Hub-Signature-256": signature(BODY, "x")}),
    "empty secret": (BODY, {**GOOD, "X-Hub-Signature-256": signature(BODY, "")}),
    "capitals": (BODY, {**GOOD, "X-Hub-Signature-256": signature(BODY).upper()}),
    "cut": (BODY, {**GOOD, "X-Hub-Signature-256": signature(BODY)[:-1]}),
    "not ASCII": (BODY, {**GOOD, "X-Hub-Signature-256": "sha256=\xe9"}),
    "another body": (BODY + b" ", GOOD),
    "gzip": (gzip.compress(BODY), {**GOOD, "Content-Encoding": "gzip"}),
    "form": (BODY, {**GOOD, "Content-Type": "application/x-www-form-urlencoded"}),
    "no JSON": (b"{", {**GOOD, "X-Hub-Signature-256": signature(b"{")}),
    "deep": (b"[" * 100_000, {**GOOD, "X-Hub-Signature-256": signature(b"[" * 100_000)}),
    "30 MB": (LARGE, {**GOOD, "X-Hub-Signature-256": signature(LARGE)}),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_request_that_is_not_signed_does_not_ring(bell: Bell, how: str) -> None:
    body, headers = FORGED[how]
    assert 400 <= bell.post("/github", body, headers) < 500
    assert (bell.rings, bell.presses) == (0, [])
    assert bell.post("/github", BODY, GOOD) == 202
    assert bell.rings == 1


@pytest.mark.parametrize(("token", "status"), [("glabber", 202), ("", 401), ("x", 401), ("\xe9", 401)])
def test_gitlab_rings_with_its_token(bell: Bell, token: str, status: int) -> None:
    assert bell.post("/gitlab", b"{}", {"X-Gitlab-Token": token}) == status
    assert bell.rings == (status == 202)


def test_without_a_secret_of_gitlabs_nobody_rings_there() -> None:
    made = Bell()
    with listening(Doorbell("o/n", 7, Secret(SECRET), None, made.ring, made.presses.append), "127.0.0.1", 0) as port:
        made.port = port
        assert made.post("/gitlab", b"{}", {"X-Gitlab-Token": ""}) == 401
        assert made.post("/gitlab", b"{}", {}) == 401
    assert made.rings == 0


def event(**changes: Any) -> dict[str, Any]:
    return {
        "action": "requested_action",
        "requested_action": {"identifier": "approve"},
        "check_run": {"id": 5, "head_sha": HEAD, "external_id": "nixprov-bridge", "app": {"id": 77}},
        "repository": {"full_name": "owner/name"},
        "sender": {"id": 3, "login": "somebody", "type": "User"},
        **changes,
    }


def test_a_button_names_a_commit_and_a_person(bell: Bell) -> None:
    assert bell.github(event()) == 202
    assert bell.github(event(action="rerequested", requested_action=None)) == 202
    somebody = Person(3, "somebody")
    assert bell.presses == [Pressed(HEAD, somebody), Pressed(HEAD, somebody, is_rerun=True)]


OTHERS: dict[str, dict[str, Any]] = {
    "another action": event(action="created"),
    "another button": event(requested_action={"identifier": "x"}),
    "another App": event(check_run={**event()["check_run"], "app": {"id": 78}}),
    "another check": event(check_run={**event()["check_run"], "external_id": ""}),
    "no commit": event(check_run={**event()["check_run"], "head_sha": "main"}),
    "another repository": event(repository={"full_name": "owner/other"}),
    "a machine": event(sender={"id": 3, "login": "x[bot]", "type": "Bot"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_events_only_ring(bell: Bell, name: str) -> None:
    assert bell.github(OTHERS[name]) == 202
    assert (bell.rings, bell.presses) == (1, [])
    assert bell.github(event(), kind="issue_comment") == 202
    assert bell.presses == []


# --- what a button does


def press(rig: Rig, head: str, person: Person | None = None, *, is_rerun: bool = False) -> None:
    pressed = Pressed(head, person or Person(rig.owner.id, "owner"), is_rerun)
    service.press(rig.folder / "state", Refs("pr-", ("main",)), pressed)


@pytest.mark.parametrize(("permission", "counts"), [("write", True), ("read", False)])
def test_approve_by_the_button_is_a_writers(rig: Rig, permission: str, *, counts: bool) -> None:
    pull = rig.github.open(rig.stranger(), rig.commit(), rig.source.refs()[MAIN])
    rig.settle()
    user = rig.github.user("somebody", permission)
    press(rig, pull.head, Person(user.id, user.login))
    press(rig, rig.commit())
    rig.settle()
    assert rig.came() == [pull.head] * counts


def test_a_button_on_what_was_there_before_is_no_approval_of_what_came(rig: Rig) -> None:
    pull = rig.github.open(rig.stranger(), rig.commit(), rig.source.refs()[MAIN])
    rig.settle()
    press(rig, pull.head)
    rig.github.push(pull, rig.commit())
    rig.settle()
    assert rig.came() == []


def test_rerun_is_for_a_commit_that_was_built(rig: Rig) -> None:
    """Another pull request's build of the same commit, such as main's, is none of this one."""
    waiting = rig.github.open(rig.stranger(), rig.commit(), rig.source.refs()[MAIN])
    tip = rig.github.open(rig.stranger(), rig.source.refs()[MAIN], rig.source.refs()[MAIN])
    rig.settle()
    for pull in (waiting, tip):
        press(rig, pull.head, is_rerun=True)
    rig.settle()
    assert rig.came() == []

    press(rig, waiting.head)
    rig.settle()
    rig.run_pipeline(waiting.head, "failed")
    rig.settle()
    press(rig, waiting.head, is_rerun=True)
    rig.settle()
    assert rig.pipeline(waiting.head).status == "running"


def test_a_thousand_rings_are_one_pass(rig: Rig) -> None:
    """A replay after a force-push: the payload counts for nothing, GitLab gets the present head."""
    pull = rig.github.open(rig.owner, rig.commit(), rig.source.refs()[MAIN], fork=False)
    port = free_port()
    rig.changed(doorbell={"port": port, "secret_file": "bell"})
    words = process.command(rig, "run")
    with subprocess.Popen(words, env={**os.environ, "NO_PROXY": "*"}, stdout=subprocess.PIPE) as running:
        try:
            until(lambda: rig.ref(1) == pull.head)
            rig.github.push(pull, rig.commit())
            before = len(rig.github.calls)
            bell = Bell()
            bell.port = port
            body = json.dumps({"action": "synchronize", "number": 1, "after": "f" * 40}).encode()
            headers = {"X-Hub-Signature-256": signature(body, "ding"), "Content-Type": "application/json"}
            for _ in range(1000):
                assert bell.post("/github", body, headers) == 202
            until(lambda: rig.ref(1) == pull.head)
            assert len(rig.github.calls) - before < 40
            assert "f" * 40 not in rig.came()
        finally:
            running.kill()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(is_so: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- passes


class Passes:
    """A bridge whose passes end as they are told; the last one ends the service."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.ends = list(ends)

    def settle(self) -> None:
        if not self.ends:
            raise KeyboardInterrupt
        if end := self.ends.pop(0):
            raise end


def pauses(rig: Rig, monkeypatch: pytest.MonkeyPatch, *ends: BaseException | None) -> list[float]:
    """The times for which the service sleeps between such passes, with an interval that is the shortest."""
    slept: list[float] = []

    @contextmanager
    def assembled(*_: object) -> Iterator[Passes]:
        yield Passes(*ends)

    settings = load(process.configured(rig))
    assert settings.tables.interval_s == service.SHORTEST_S
    monkeypatch.setattr(service, "assembled", assembled)
    monkeypatch.setattr(service, "time", SimpleNamespace(sleep=slept.append, time=time.time, monotonic=time.monotonic))
    with pytest.raises(KeyboardInterrupt):
        service.serve(settings, rig.folder / "state", lambda _decision: None, lambda _error: None)
    return slept


def test_a_bell_that_never_stops_is_heard_at_most_so_often(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pauses(rig, monkeypatch, None, None) == [service.SHORTEST_S] * 2


def test_a_bell_does_not_cut_patience_short(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = BridgeUnavailable(Side.GITHUB, "asks to wait", wait_s=900.0)
    first, second, third = pauses(rig, monkeypatch, asked, BridgeError("no"), None)
    assert first == 900.0
    assert second >= 7.5
    assert third == service.SHORTEST_S


def test_unsafe_settings_refuse_the_start(rig: Rig) -> None:
    rig.project.tags.append("pr-3")

    def failed(error: Exception) -> None:
        raise AssertionError(f"it goes on: {error}")

    with pytest.raises(Unsafe, match="the tag pr-3"):
        service.serve(load(process.configured(rig)), rig.folder / "state", rig.decisions.append, failed)
    assert rig.target.moves == []


def test_unsafe_settings_stop_the_passes_until_they_are_mended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[float] = []
    told: list[str] = []
    hours = iter(range(100))

    class Counted:
        def settle(self) -> None:
            passes.append(len(told))
            if len(passes) == 1:
                rig.project.tags.append("pr-3")
            if len(passes) == 2:
                raise KeyboardInterrupt

    def failed(error: Exception) -> None:
        told.append(str(error))
        if len(told) == 2:
            rig.project.tags.clear()

    @contextmanager
    def assembled(*_: object) -> Iterator[Counted]:
        yield Counted()

    monkeypatch.setattr(service, "assembled", assembled)
    clock = SimpleNamespace(sleep=lambda _s: None, time=time.time, monotonic=lambda: next(hours) * service.CHECK_S)
    monkeypatch.setattr(service, "time", clock)
    with pytest.raises(KeyboardInterrupt):
        service.serve(load(process.configured(rig)), rig.folder / "state", lambda _decision: None, failed)
    assert passes == [0, 2]
    assert all("the tag pr-3" in text for text in told)


def test_a_side_that_is_silent_at_the_start_is_asked_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([BridgeUnavailable(Side.GITLAB, "silent"), None])

    def refuse_unsafe(*_: object) -> None:
        if error := next(answers):
            raise error

    monkeypatch.setattr(service, "refuse_unsafe", refuse_unsafe)
    assert len(pauses(rig, monkeypatch, None)) == 2


def test_pauses_grow_differ_and_obey() -> None:
    all_pauses = [service.pause_s(60, failures, 0.0) for failures in range(1, 30)]
    assert 45 <= all_pauses[0] <= 75
    assert 90 <= all_pauses[1] <= 150
    assert max(all_pauses) <= service.LONGEST_S * 1.25
    assert len(set(all_pauses[-10:])) > 1
    assert service.pause_s(60, 1, 1800.0) == 1800.0


def test_claims_of_both_doors_are_kept_apart(rig: Rig) -> None:
    store = Store(rig.folder / "state")
    for source in Source:
        store.add_claim(Claim(source, store.next_claim_id(source), 1, HEAD, Person(1, "x")))
    assert [(claim.source, claim.id) for claim in store.claims()] == [(source, 1) for source in Source]
    store.close()
