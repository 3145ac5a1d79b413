"""kill -9 before and after each effect of a pass: the next one ends where it would have ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from provisioner.bridge.reconcile import EFFECTS
from tests.contract.bridge import process
from tests.contract.bridge.rig import MAIN, Rig

POINTS = [f"{when}:{effect}" for effect in EFFECTS for when in ("before", "after")]


@pytest.mark.parametrize("point", POINTS)
def test_a_pass_that_is_killed_is_ended_by_the_next(rig: Rig, point: str) -> None:
    """All effects at once: one to push, one to delete, one to run again, a check to make and one to change."""
    base = rig.source.refs()[MAIN]
    gone, again, new = (rig.github.open(rig.owner, rig.commit(), base, fork=False) for _ in range(3))
    rig.github.push(new, old := new.head)
    new.is_open = False
    rig.settle()
    gone.is_open, new.is_open = False, True
    rig.run_pipeline(again.head, "failed")
    rig.settle()
    new.is_open = True
    rig.github.push(new, rig.commit())
    rig.github.say(rig.owner, again, f"/ci run {again.head}")
    late = rig.github.open(rig.owner, rig.commit(), base, fork=False)
    closing = rig.github.open(rig.owner, rig.commit(), base, fork=False)
    rig.target.set(f"refs/heads/pr-{closing.number}", base)
    closing.is_open = False

    killed = process.run(rig, "once", crash=point)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    done = process.run(rig, "once")
    assert done.returncode == 0, done.stderr

    assert [rig.ref(pull.number) for pull in (gone, again, new, late, closing)] == [
        "",
        again.head,
        new.head,
        late.head,
        "",
    ]
    for pull in (again, new, late):
        assert len(rig.github.checks_of(pull.head)) == 1
    assert rig.check(again.head).state in {"in_progress", "queued"}
    assert rig.check(late.head).state == "queued"
    assert old not in rig.target.refs().values()


def test_a_decision_outlives_the_pass_that_made_it(rig: Rig) -> None:
    """The intent is kept before the push: a pushed commit stays, even if its approval goes meanwhile."""
    pull = rig.github.open(rig.stranger(), rig.commit(), rig.source.refs()[MAIN])
    rig.github.say(rig.owner, pull, f"/ci run {pull.head}")
    rig.settle()
    rig.github.push(pull, rig.commit())
    note = rig.github.say(rig.owner, pull, f"/ci run {pull.head}")
    assert process.run(rig, "once", crash="after:carry").returncode == -signal.SIGKILL
    del rig.github.notes[note.id]
    assert process.run(rig, "once").returncode == 0
    assert rig.ref(1) == pull.head
    assert rig.check(pull.head).state == "queued"


def test_git_that_outlives_the_bridge_is_no_harm(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push without its parent may still come through: a dead process proves no failure."""
    folder = tmp_path / "bin"
    folder.mkdir()
    wrapper = folder / "git"
    real = shutil.which("git")
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *push*pr-1*) touch {tmp_path}/pushing; sleep 1;; esac\nexec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    pull = rig.github.open(rig.owner, rig.commit(), rig.source.refs()[MAIN], fork=False)
    bridge = subprocess.Popen(
        process.command(rig, "once"), env={**os.environ, "NO_PROXY": "*"}, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "pushing").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    bridge.kill()
    bridge.wait()
    while not rig.ref(1) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert rig.ref(1) == pull.head
    assert process.run(rig, "once").returncode == 0
    assert rig.came() == [pull.head]
    assert len(rig.github.checks_of(pull.head)) == 1
