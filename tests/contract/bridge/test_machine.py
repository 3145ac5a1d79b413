"""Acts of people, outages and restarts in any order: the invariants hold after every pass.

The six invariants of docs/bridge.md, over real git and both stand-ins:

    1  every commit that was ever under the prefix was trusted or approved when it was pushed
    2  no other ref has changed, but for mirrored branches
    3  an open pull request that may be built has its head on GitLab
    4  one that is closed, or may not be built any more, has nothing there
    5  a head has one check, and it says what its pipeline says
    6  no token is in anything that was said or kept
"""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from provisioner.bridge.errors import BridgeError
from tests.contract.bridge.github import Fault, Pull
from tests.contract.bridge.rig import MAIN, Rig, rig

PEOPLE = ("owner", "writer", "reader")
STATES = {
    "created": "queued",
    "running": "in_progress",
    "success": "success",
    "failed": "failure",
    "skipped": "failure",
}


class World(RuleBasedStateMachine):
    rig: Rig

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.allowed: set[str] = set()
        self.asked_without_right: set[str] = set()
        self.is_settled = False

    @initialize()
    def begin(self) -> None:
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.rig = self.stack.enter_context(rig(folder))
        self.rig.github.user("writer", "write")
        self.rig.github.user("reader", "read")
        self.bridge = self.rig.bridge()

    def teardown(self) -> None:
        self.stack.close()

    @property
    def pulls(self) -> list[Pull]:
        return list(self.rig.github.pulls.values())

    def pick(self, number: int) -> Pull:
        return self.pulls[number % len(self.pulls)]

    # --- what happens

    @precondition(lambda self: len(self.pulls) < 4)
    @rule(who=st.sampled_from(PEOPLE), fork=st.booleans())
    def open(self, who: str, *, fork: bool) -> None:
        author = self.rig.github.users[who]
        is_fork = fork or who == "reader"
        pull = self.rig.github.open(author, self.rig.commit(), self.rig.source.refs()[MAIN], fork=is_fork)
        self.changed()
        if not is_fork:
            self.allowed.add(pull.head)

    @precondition(lambda self: self.pulls)
    @rule(number=st.integers(0, 3))
    def push(self, number: int) -> None:
        pull = self.pick(number)
        self.rig.github.push(pull, self.rig.commit())
        self.changed()
        if pull.fork and pull.fork[0] == self.rig.github.REPOSITORY:
            self.allowed.add(pull.head)

    @precondition(lambda self: self.pulls)
    @rule(number=st.integers(0, 3), who=st.sampled_from(PEOPLE), edited=st.booleans())
    def approve(self, number: int, who: str, *, edited: bool) -> None:
        pull, person = self.pick(number), self.rig.github.users[who]
        self.rig.clock.advance(1)
        note = self.rig.github.say(person, pull, f"/ci run {pull.head}")
        if edited:
            self.rig.github.edit(note, note.body)
        elif person.permission in {"admin", "write"}:
            self.allowed.add(pull.head)
        elif who == "writer":
            # Their permission counts at the push, not at the comment.
            self.asked_without_right.add(pull.head)
        self.changed()

    @precondition(lambda self: self.pulls)
    @rule(number=st.integers(0, 3))
    def close_or_reopen(self, number: int) -> None:
        pull = self.pick(number)
        pull.is_open = not pull.is_open
        self.changed()

    @rule()
    def demote_or_promote(self) -> None:
        writer = self.rig.github.users["writer"]
        writer.permission = "write" if writer.permission == "read" else "read"
        if writer.permission == "write":
            self.allowed |= self.asked_without_right

    @rule()
    def push_main(self) -> None:
        self.rig.source.set(MAIN, self.rig.commit())
        self.changed()

    @precondition(lambda self: self.rig.gitlab.lab.state.pipelines)
    @rule(number=st.integers(0, 9), status=st.sampled_from(sorted(STATES)))
    def pipeline(self, number: int, status: str) -> None:
        pipelines = [
            one for one in self.rig.gitlab.lab.state.pipelines.values() if one.status in {"created", "running"}
        ]
        if pipelines:
            self.rig.gitlab.lab.state.set_pipeline(pipelines[number % len(pipelines)], status)
            self.changed()

    @rule(seconds=st.sampled_from([1, 130, 700, 4000]))
    def wait(self, seconds: int) -> None:
        self.rig.clock.advance(seconds)
        self.changed()

    @rule(lose=st.booleans())
    def restart(self, *, lose: bool) -> None:
        self.rig.close()
        if lose:
            (self.rig.folder / "state/state.sqlite").unlink(missing_ok=True)
        self.bridge = self.rig.bridge()

    @rule(path=st.sampled_from([r"/pulls\?", "/comments", "/permission", "/check-runs", "/contents/"]))
    def outage_of_github(self, path: str) -> None:
        self.rig.github.faults.append(Fault(re.compile(path), 502, b""))
        self.settle()
        self.rig.github.faults.clear()

    @rule()
    def outage_of_gitlab(self) -> None:
        self.rig.target.status = 503
        self.settle()
        self.rig.target.status = 0

    @rule()
    def settle(self) -> None:
        try:
            self.bridge.settle()
        except BridgeError:
            self.is_settled = False
        else:
            self.is_settled = True

    @rule()
    def settle_to_the_end(self) -> None:
        for _ in range(3):
            self.settle()

    def changed(self) -> None:
        self.is_settled = False

    # --- what holds

    @invariant()
    def only_what_was_allowed_came(self) -> None:
        if hasattr(self, "rig"):
            assert set(self.rig.came()) <= self.allowed
            refs = {move.ref for move in self.rig.target.moves}
            assert all(ref == MAIN or re.fullmatch(r"refs/heads/pr-[1-9]\d*", ref) for ref in refs)

    @invariant()
    def both_sides_agree_once_it_is_quiet(self) -> None:
        if not hasattr(self, "rig") or not self.is_settled:
            return
        target = self.rig.target.refs()
        assert target.get(MAIN) == self.rig.source.refs()[MAIN]
        for pull in self.pulls:
            there = self.rig.ref(pull.number)
            if there:
                assert pull.is_open
                assert there == pull.head
                assert pull.head in self.allowed
            if pull.is_open:
                checks = self.rig.github.checks_of(pull.head)
                assert len(checks) == 1
                self.tells_the_truth(pull, there, checks[0].state)
            is_own = pull.fork is not None and pull.fork[0] == self.rig.github.REPOSITORY
            assert not (pull.is_open and is_own) or there or self.is_put_off(pull)

    def is_put_off(self, pull: Pull) -> bool:
        return self.rig.check(pull.head).title == "Waits for its turn"

    def tells_the_truth(self, pull: Pull, there: str, state: str) -> None:
        if not there:
            assert state in {"action_required", "queued"}
            return
        branch = f"pr-{pull.number}"
        ours = [
            one for one in self.rig.gitlab.lab.state.pipelines.values() if one.sha == pull.head and one.ref == branch
        ]
        newest = max(ours, key=lambda one: one.id)
        assert state == STATES[newest.status]

    @invariant()
    def nothing_secret_is_told(self) -> None:
        if not hasattr(self, "rig"):
            return
        told = json.dumps([check.history for check in self.rig.github.checks.values()]) + str(self.rig.decisions)
        database = self.rig.folder / "state/state.sqlite"
        kept = database.read_bytes() if database.exists() else b""
        for secret in (self.rig.push_token, self.rig.api_token, *self.rig.github.tokens):
            assert secret not in told
            assert secret.encode() not in kept


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=8, stateful_step_count=20, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
