"""What a run that fails leaves behind: which token the journal may name, who is to be asked, what was confirmed."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from provisioner.engine.drain import drain
from provisioner.engine.host import Limits
from provisioner.engine.switch import Switch
from provisioner.engine.unwind import RollbackFailed, RolledBack
from provisioner.errors import CiRefused, ConnectionLost, Locked, NixprovError
from provisioner.events import Logged, Warned
from provisioner.machine.facts import Facts
from provisioner.machine.journal import NO_TOKEN, Phase, RunnerRecord
from provisioner.machine.lock import WAIT
from provisioner.machine.transaction import LOCKED_STATUS, STALE_STATUS, UNCHANGED_STATUS
from provisioner.model import machine_key
from provisioner.ssh.exec import Completed
from tests.unit.engine_fakes import QUICK, Stage, lost, stage, switch_ends
from tests.unit.hosts import URL, converged, new_host, runner

UNIT = "nixprov-runner-default.service"


def fails(it: Stage) -> NixprovError:
    it.plan()
    with pytest.raises(NixprovError) as caught:
        it.apply()
    return caught.value


def token_version(it: Stage) -> str:
    return str(it.session.journal["runners"]["default"]["token_version"])


def goes_back_first(it: Stage, *, run: str = "this-run") -> Callable[[str], Completed | None]:
    """The host's own script writes the journal a moment before the last transaction comes."""

    def answer(script: str) -> Completed | None:
        if "touched=yes" not in script or "mv /var/lib/nixprov/switch/open" not in script:
            return None
        changed = {**it.session.journal, "phase": "rolled back by the host"}
        changed["run"]["id"] = run
        it.session.records["journal.data"] = json.dumps(changed).encode()
        return Completed(STALE_STATUS, b"", "journal.json is not what it was a moment ago")

    return answer


def test_a_host_that_is_giving_its_files_back_is_waited_for() -> None:
    """On a busy disk that takes longer than the last transaction waits."""
    it = stage(new_host(), None)
    goes_back = goes_back_first(it)
    busy = Completed(LOCKED_STATUS, b"", "another transaction is under way")

    def answer(script: str) -> Completed | None:
        if "touched=yes" in script and "mv /var/lib/nixprov/switch/open" in script:
            return busy
        if script.startswith(WAIT) and it.session.journal["phase"] == "up: written":
            goes_back("touched=yes mv /var/lib/nixprov/switch/open")
        return None

    it.session.answers = answer
    error = fails(it)
    assert isinstance(error, RolledBack), error
    assert ("delete", 99) in it.api.said


def test_a_journal_that_another_operator_changed_is_theirs() -> None:
    it = stage(new_host(), None)
    it.session.answers = goes_back_first(it, run="another")
    assert isinstance(fails(it), Locked)
    assert it.session.journal["run"]["id"] == "another"


@pytest.mark.parametrize(
    ("phase", "verb", "result", "verdict"),
    [
        (Phase.WRITTEN, "up", "0", "confirmed"),
        (Phase.WRITTEN, "down", "0", "aborted"),
        (Phase.REMOVING, "down", "0", "confirmed"),
        (Phase.REMOVING, "up", "0", "aborted"),
        (Phase.WRITTEN, "up", "2", "aborted"),
    ],
)
def test_a_switch_that_a_dead_run_left_waiting_is_kept_only_when_it_goes_our_way(
    phase: Phase, verb: str, result: str, verdict: str
) -> None:
    facts, journal = converged()
    left = {"switch": b"ActiveState=active\nSubState=running\n", "switch-result": b"activate 0 5"}
    it = stage(Facts("host1", {**facts.records, **left}), replace(journal, phase=phase), runner(), verb=verb)
    it.session.answers = switch_ends(f"waits activate {result} 5")
    it.plan()
    ends = [script for script in it.session.scripts if "mv /var/lib/nixprov/switch/open" in script]
    assert [f"mv /var/lib/nixprov/switch/open /var/lib/nixprov/switch/{verdict}" in script for script in ends] == [True]


def test_an_interrupt_does_not_cut_short_what_unwinds() -> None:
    it = stage(new_host(), None)

    def interrupted_as_it_fails(script: str) -> Completed | None:
        if "after=" in script:
            it.host.machine.cancel.set()
        return switch_ends("failed build 20 4")(script)

    it.session.answers = interrupted_as_it_fails
    assert isinstance(fails(it), RolledBack)
    assert ("delete", 99) in it.api.said


def test_a_host_that_another_run_took_is_not_unwound_and_keeps_the_runner_that_run_uses() -> None:
    it = stage(new_host(), None)

    def taken_over(script: str) -> Completed | None:
        if "after=" in script:
            theirs = it.session.journal
            theirs["run"]["id"] = "another"
            it.session.records["journal.data"] = json.dumps(theirs).encode()
        return switch_ends("failed build 20 4")(script)

    it.session.answers = taken_over
    assert isinstance(fails(it), Locked)
    assert "unwinding" not in [json.loads(one)["phase"] for one in it.session.journals]
    assert ("delete", 99) not in it.api.said


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_write_that_changed_nothing_leaves_nothing_to_undo(verb: str) -> None:
    """A full disk (ADR 0017): the claim goes, and no file is touched."""
    is_down = verb == "down"
    it = stage(*(converged() if is_down else (new_host(), None)), *([runner()] if is_down else []), verb=verb)
    full = Completed(UNCHANGED_STATUS, b"", "No space left on device")
    it.session.answers = lambda script: full if "systemd-run" in script else None
    error = fails(it)
    assert isinstance(error, RolledBack), error
    assert "nothing was changed; rolled back" in error.message
    assert "unwinding" not in [json.loads(one)["phase"] for one in it.session.journals]
    assert ("resume", 7) in it.api.said if is_down else ("delete", 99) in it.api.said


def test_what_takes_long_on_a_host_has_the_time_for_it() -> None:
    it = stage(*converged(), runner(), new_tokens=True)
    it.plan()
    it.apply()
    limits = list(zip(it.session.scripts, it.session.limits, strict=True))
    assert {limit for script, limit in limits if "touched=yes" in script} == {it.host.context.limits.transaction_s}
    assert {limit for script, limit in limits if "say probe-end" in script} == {it.host.context.limits.command_s}
    assert it.host.context.limits.transaction_s >= 10 * it.host.context.limits.command_s
    # A job of hours may end in it, as a unit that has changed is stopped.
    assert {limit for script, limit in limits if "after=" in script} == {it.host.context.limits.switch_s}
    assert it.host.context.limits.switch_s > 4 * Limits().drain_s


def test_whose_token_is_to_go_is_on_record_before_it_goes() -> None:
    """GitLab has lost the runner, and the file of its token will get another's."""
    it = stage(*converged(), new_tokens=False)
    it.plan()
    it.apply()
    versions = [json.loads(one)["runners"]["default"]["token_version"] for one in it.session.journals]
    assert versions == [NO_TOKEN, "this-run", "this-run"]


def fails_on_the_way_back(script: str) -> Completed | None:
    """The build fails, and then the transaction that takes the files back."""
    is_back = "touched=yes" in script and "unwinding" in journal_in(script)
    return Completed(1, b"", "no") if is_back else switch_ends("failed build 20 4")(script)


def journal_in(script: str) -> str:
    staged = re.search(r"printf %s (\S+) \| stage /var/lib/nixprov/journal.json ", script)
    return base64.b64decode(staged[1]).decode() if staged else ""


def test_what_a_failed_way_back_leaves_is_named() -> None:
    it = stage(new_host(), None)
    it.session.answers = fails_on_the_way_back
    assert isinstance(fails(it), RollbackFailed)
    assert it.host.ledger.remains == ["runner 99 in GitLab", "/var/lib/nixprov/secrets/default.token"]


def test_what_was_there_before_is_nothing_that_a_failed_way_back_leaves() -> None:
    it = stage(*converged(), runner(), new_tokens=True)
    it.session.answers = fails_on_the_way_back
    assert isinstance(fails(it), RollbackFailed)
    assert it.host.ledger.remains == []


def test_a_host_that_cannot_be_asked_what_is_left_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provisioner.engine.host.RECONNECT_WAITS_S", ())
    it = stage(new_host(), None)
    build_fails = switch_ends("failed build 20 4")

    def dies_after_the_build(script: str) -> Completed | None:
        if len(it.session.journals) > 1 and "after=" not in script:
            lost()
        return build_fails(script)

    it.session.answers = dies_after_the_build
    assert isinstance(fails(it), RollbackFailed)
    assert [what.endswith("the host cannot be asked") for what in it.host.ledger.remains] == [False, True]


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_copy_whose_run_died_after_its_claim_does_not_delete_the_runner_of_its_original_either(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provisioner.engine.host.RECONNECT_WAITS_S", ())
    facts, journal = converged()
    copied = replace(journal, machine=machine_key("another"), pending_deletions=(RunnerRecord(6, URL, "run-0"),))
    other = runner(machine=machine_key("another"))
    it = stage(facts, copied, other, verb=verb)
    it.plan()
    it.session.answers = lambda _: lost() if len(it.session.journals) == 1 else None
    with pytest.raises(NixprovError):
        it.apply()
    after = stage(Facts("host1", it.session.records), None, other, verb="down")
    assert [action.id for action in after.plan().runners if action.id in (6, 7)] == []


def test_a_gitlab_that_is_silent_as_long_as_jobs_are_waited_for_says_nothing_of_them() -> None:
    """A limit of the jobs that is below GitLab's: `down` is not for it to hold up."""
    it = stage(*converged(), runner(), verb="down", limits=replace(QUICK, contact_s=30, drain_s=0.05))
    it.host.machine.probe()
    it.api.silent_for = 1000
    drain(it.host, [7])
    assert any("not drained: 502" in text for text in it.texts(Warned))


def test_a_runner_that_gitlab_has_no_more_is_not_said_to_be_paused() -> None:
    it = stage(*converged(), verb="down")
    it.api.fails["resume"] = CiRefused("404 Runner Not Found")
    it.session.answers = switch_ends("failed build 20 4")
    assert isinstance(fails(it), RolledBack)
    assert (it.host.ledger.remains, it.texts(Warned)) == ([], [])


def test_a_runner_that_is_left_paused_by_a_failed_way_back_is_named() -> None:
    it = stage(*converged(), runner(), verb="down")
    it.session.answers = fails_on_the_way_back
    assert isinstance(fails(it), RollbackFailed)
    assert it.host.ledger.remains == ["runner 7 in GitLab is paused"]


TRIES = "back tries:24 5 expired process 7 of nixos-upgrade.service"


def goes_on_trying(it: Stage, result: str = TRIES) -> None:
    """The host is switching back and says why it could not yet, until it is told to leave that."""

    def answer(script: str) -> Completed | None:
        if "/var/lib/nixprov/switch/leave" in script and "touched=yes" not in script:
            it.session.records["switch"] = b"ActiveState=active\nSubState=exited\n"
        return Completed(0, f"end tries {result}\n".encode(), "") if "after=" in script else None

    it.session.records |= {"switch": b"ActiveState=active\nSubState=running\n", "switch-result": result.encode()}
    it.session.answers = answer


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_host_that_waits_for_somebody_elses_switch_to_go_back_is_not_planned_for(verb: str) -> None:
    it = stage(*converged(), runner(), verb=verb)
    goes_on_trying(it)
    with pytest.raises(
        Locked, match=r"still going back .* \(process 7 of nixos-upgrade.service\) holds the lock"
    ) as caught:
        it.plan()
    assert "--take-over" in caught.value.hint


@pytest.mark.parametrize(
    ("result", "take_over"),
    [(TRIES, True), (TRIES.replace("24", "2"), False)],
    ids=["said so", "cannot come"],
)
def test_who_takes_over_ends_a_way_back_and_looks_again(result: str, *, take_over: bool) -> None:
    """An old system that does not come is no other's work: the next run goes on without being told to."""
    it = stage(*converged(), runner(), take_over=take_over)
    goes_on_trying(it, result)
    assert it.plan().lines() == ()
    assert not it.host.machine.facts.is_switching
    assert any("this run goes on from there instead" in text for text in it.texts(Warned))


def test_a_host_that_still_goes_back_is_no_rolled_back_one() -> None:
    it = stage(new_host(), None)

    def answer(script: str) -> Completed | None:
        if "after=" in script:
            goes_on_trying(it)
            return Completed(0, b"end waits activate 2 5\n", "")
        return None

    it.session.answers = answer
    error = fails(it)
    assert isinstance(error, RollbackFailed), error
    assert "the host is still going back to the old system and tries again by itself" in error.message
    assert ("delete", 99) not in it.api.said, "the host may use it"


def test_a_recorded_generation_that_cannot_be_gone_back_to_yet_is_a_failed_rollback() -> None:
    """After a switch that was kept at once; the files are back by then."""
    it = stage(new_host(), None)
    ends = iter(["exited activate 2 5", "tries rollback tries:24 4 - process 7 of nixos-upgrade.service"])

    def answer(script: str) -> Completed | None:
        if "after=" not in script:
            return None
        it.session.records["profile"] = b"/nix/store/new-system"
        return Completed(0, f"end {next(ends)}\n".encode(), "")

    it.session.answers = answer
    error = fails(it)
    assert isinstance(error, RollbackFailed), error
    assert "somebody else's switch (process 7 of nixos-upgrade.service) holds the lock" in error.message


def test_a_lock_that_is_held_at_the_beginning_is_said_to_be() -> None:
    it = stage(new_host(), None)
    it.session.answers = switch_ends("exited activate 24 4")
    error = fails(it)
    assert isinstance(error, RolledBack), error
    assert "somebody else's switch holds the lock of switch-to-configuration" in error.message
    assert error.hint == "wait for the other switch to end, then run again"


@pytest.mark.parametrize(("substate", "goes_on"), [("auto-restart", True), ("exited", False), ("failed", False)])
def test_a_switch_between_two_starts_goes_on(substate: str, *, goes_on: bool) -> None:
    assert Facts("host1", {"switch": f"SubState={substate}\n".encode()}).is_switching == goes_on


@pytest.mark.parametrize(
    "first",
    [
        b"log step 1.\ncursor c1\nlog step 2.\n",
        b"log step 1.\ncursor c1\nlog step 2.\ncursor c",
        b"log step 1.\ncursor c1\nlog step 2.\nlog ste",
    ],
    ids=["before the cursor", "in the cursor", "in a line"],
)
def test_a_line_cut_off_from_its_cursor_is_told_once(first: bytes) -> None:
    """The next connection goes on after the last cursor, so the host says that line again."""
    it = stage(new_host(), None)
    it.session.cuts.append(first)
    it.session.answers = lambda _: Completed(0, b"log step 2.\nlog step 3.\ncursor c3\nend exited activate 0 4\n", "")
    it.host.machine.cancel.set()  # no pause between two connections
    assert Switch(it.host.machine).follow().is_done
    assert it.texts(Logged) == ["step 1.", "step 2.", "step 3."]
    assert "--after-cursor=c1" in it.session.scripts[1]


def test_the_wait_for_somebody_elses_switch_is_told_while_it_lasts() -> None:
    it = stage(new_host(), None)
    it.session.cuts.append(b"log nixprov: somebody else's switch holds the lock\n")
    with pytest.raises(ConnectionLost):
        Switch(it.host.machine).roll_back()
    assert it.texts(Logged) == ["nixprov: somebody else's switch holds the lock"]
