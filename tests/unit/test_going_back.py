"""What a run that fails leaves behind: which token the journal may name, who is to be asked, what was confirmed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provisioner.engine import down, up
from provisioner.engine.drain import StillBusy
from provisioner.engine.host import Choices
from provisioner.engine.unwind import RolledBack
from provisioner.errors import ForgeRefused, ForgeUnavailable, NixprovError
from provisioner.hosts.journal import NO_TOKEN
from tests.unit.engine_fakes import QUICK, Stage, lost, stage, switch_ends
from tests.unit.hosts import converged, new_host, runner

UNIT = "nixprov-runner-default.service"


def fails(it: Stage) -> NixprovError:
    wanted = up.plan(it.run)
    with pytest.raises(NixprovError) as caught:
        up.apply(it.run, wanted)
    return caught.value


def token_version(it: Stage) -> str:
    return str(it.session.journal["runners"]["default"]["token_version"])


def restarts(it: Stage) -> bool:
    return any(f"try-restart --no-block {UNIT}" in script for script in it.session.scripts)


def test_a_unit_whose_token_was_replaced_is_restarted_when_no_switch_does_it() -> None:
    """The token before is dead, so the files go back and the token does not: the unit must read it."""
    it = stage(*converged(), runner(), new_tokens=True)
    it.session.answers = switch_ends("failed build 20 4")
    assert isinstance(fails(it), RolledBack)
    assert (token_version(it), restarts(it)) == ("run-1", True)
    it.run.choices = Choices()
    assert up.plan(it.run).lines() == (), "no later run would have mended it"


def test_a_token_that_never_came_to_the_host_is_not_said_to_be_there() -> None:
    it = stage(*converged(), runner(), new_tokens=True)
    it.session.answers = lambda script: lost() if "touched=yes" in script and "default.token" in script else None
    assert isinstance(fails(it), RolledBack)
    assert (token_version(it), restarts(it)) == (NO_TOKEN, False)
    assert any("has ended: `nixprov up` makes another" in text for text in it.texts("warning"))


def test_a_reset_whose_answer_was_lost_may_have_been_done() -> None:
    it = stage(*converged(), runner(), new_tokens=True)
    it.forge.fails["reset"] = ForgeUnavailable("no answer")
    assert isinstance(fails(it), ForgeUnavailable)
    assert token_version(it) == NO_TOKEN


def cleans(it: Stage) -> bool:
    return any("rm -rf --one-file-system /var/lib/nixprov-containers" in script for script in it.session.scripts)


def test_a_machine_whose_journal_was_moved_away_is_not_cleaned_under_its_runner() -> None:
    """As the hint for a broken journal says; the runner works, and its jobs run."""
    it = stage(converged()[0], None, runner())
    it.forge.fails["reset"] = ForgeRefused("403")
    assert isinstance(fails(it), ForgeRefused)
    assert ("journal.data" in it.session.records, cleans(it)) == (False, False)


def test_a_down_that_waits_in_vain_cleans_nothing_either() -> None:
    it = stage(converged()[0], None, runner(), verb="down", limits=replace(QUICK, drain_s=0.02))
    it.forge.jobs = 1
    wanted = down.plan(it.run)
    with pytest.raises(StillBusy):
        down.apply(it.run, wanted)
    assert ("journal.data" in it.session.records, cleans(it)) == (False, False)


def test_a_new_machine_is_cleaned() -> None:
    it = stage(new_host(), None)
    it.forge.fails["create"] = ForgeRefused("403")
    assert isinstance(fails(it), ForgeRefused)
    assert cleans(it)
