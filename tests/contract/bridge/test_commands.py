"""`nixprov bridge` as people type it: against both sides, as a process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from nixprov_lab.gitlab.records import AccessToken, Role, Variable
from nixprov_lab.gitlab.state import NewRunner

from provisioner.cli import main
from provisioner.model import AccessLevel, RunnerType
from tests.contract.bridge import process
from tests.contract.bridge.rig import CI, MAIN, Rig


def typed(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["bridge", *words])
    return int(ended.value.code or 0)


def test_init_writes_what_is_then_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed("init", "owner/name", "https://gitlab.example.org", "lab/demo", "--branch", "main") == 0
    out = capsys.readouterr().out
    assert "checks: write" in out
    assert "https://gitlab.example.org/lab/demo/-/settings/access_tokens" in out
    file = tmp_path / "bridge.toml"
    before = file.read_text()
    assert typed("init", "owner/name", "https://gitlab.example.org", "lab/demo") == 2
    assert file.read_text() == before
    assert typed("once") == 2
    assert "github.app_id" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("status",), ("status", "--json")])
def test_status_before_any_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert typed(*words, "--state", str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "none yet" in out or json.loads(out) == {"last_pass": None, "pulls": []}


def test_a_day_of_one_pull_request(rig: Rig) -> None:
    pull = rig.github.open(rig.stranger(), rig.commit(), rig.source.refs()[MAIN])
    dry = process.run(rig, "once", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert json.loads(dry.stdout.splitlines()[0])["what"] == "would push"
    assert rig.target.moves == []

    assert process.run(rig, "once").returncode == 0
    status = json.loads(process.run(rig, "status", "--json").stdout)
    assert status["pulls"] == [{"pull": 1, "head": pull.head, "state": "Waits for an approval"}]
    assert status["last_pass"].endswith(" done")

    assert process.run(rig, "approve", "1", rig.commit()).returncode != 0
    assert process.run(rig, "approve", "2", pull.head).returncode != 0
    assert process.run(rig, "approve", "1", pull.head).returncode == 0
    told = process.run(rig, "once").stdout
    assert rig.ref(1) == pull.head
    allowed = next(line for line in map(json.loads, told.splitlines()) if line["what"] == "allow")
    assert (allowed["head"], allowed["why"]) == (pull.head, "approved")
    assert set(allowed) == {"time", "what", "ref", "head", "why", "by"}


def test_check_names_what_is_unsafe_and_then_nothing(rig: Rig) -> None:
    state = rig.gitlab.lab.state
    admin = state.add_token(AccessToken("glpat-admin", state.users[1], frozenset({"api"})))
    (rig.folder / "admin").write_text(admin.token)
    state.groups[1001].variables.append(Variable("DEPLOY_KEY", masked=True))
    rig.project.tags.append("pr-3")
    rig.project.instance_runners = True
    words = ("check", "--gitlab-token-file", str(rig.folder / "admin"))
    found = process.run(rig, *words)
    assert found.returncode == 5, found.stderr
    for what in ("variable DEPLOY_KEY of the group lab", "tag pr-3", "instance runners", "no runner is there"):
        assert what in found.stdout

    state.groups[1001].variables.clear()
    rig.project.tags.clear()
    rig.project.instance_runners = False
    mark = "[nixprov host1/pulls 0123456789ab]"
    for tag, level in (("pulls", AccessLevel.NOT_PROTECTED), ("nix", AccessLevel.REF_PROTECTED)):
        new = NewRunner(
            RunnerType.PROJECT,
            state.users[1],
            description=mark,
            tags=(tag,),
            run_untagged=False,
            access_level=level,
            project=rig.project,
        )
        state.add_runner(new)
    (rig.folder / "hosts").write_text("host1\n")
    inventory = ("-i", str(rig.folder / "hosts"))
    clean = process.run(rig, *words, *inventory)
    assert (clean.returncode, clean.stdout) == (0, "nothing unsafe was found\n"), clean.stderr

    blind = process.run(rig, *words)
    assert blind.returncode == 5
    assert "not checked: no inventory given" in blind.stdout

    own = process.run(rig, "check")
    assert own.returncode == 5
    assert "cannot be read" in own.stdout

    (rig.folder / "hosts").write_text("host1 nixprov_trust=plain\n")
    plain = process.run(rig, *words, *inventory)
    assert "host1 trusts its jobs" in plain.stdout

    (rig.folder / "hosts").write_text("host1\n")
    play = rig.folder / "ci.yml"
    play.write_text("- hosts: host1\n  trust: plain\n  runners: [{name: pulls, project: lab/demo}]\n")
    plain = process.run(rig, *words, *inventory, "--play", str(play))
    assert "host1 trusts its jobs" in plain.stdout, plain.stderr


def test_a_runner_beyond_the_tokens_reach_is_named(rig: Rig) -> None:
    """The list of runners is a Maintainer's; details of another owner's runner are not."""
    state = rig.gitlab.lab.state
    user = state.add_user("maintainer", roles={"lab/demo": Role.MAINTAINER})
    (rig.folder / "maintainer").write_text(state.add_token(AccessToken("glpat-m", user, frozenset({"api"}))).token)
    made = state.add_runner(NewRunner(RunnerType.GROUP, state.users[1], description="shared", group=state.groups[1001]))
    found = process.run(rig, "check", "--gitlab-token-file", str(rig.folder / "maintainer"))
    assert found.returncode == 5
    assert f"not checked: runner {made.id} (shared) cannot be read" in found.stdout, found.stdout + found.stderr


def test_one_pass_is_refused_while_a_setting_is_unsafe(rig: Rig) -> None:
    rig.settle()
    rig.github.open(rig.owner, rig.commit(), rig.source.refs()[MAIN], fork=False)
    rig.project.tags.append("pr-3")
    refused = process.run(rig, "once")
    assert refused.returncode != 0
    assert "the tag pr-3" in refused.stderr
    assert rig.came() == []
    assert process.run(rig, "once", "--dry-run").returncode == 0
    rig.project.tags.clear()
    told = process.run(rig, "once")
    assert "the runners cannot be read" in json.loads(told.stdout.splitlines()[0])["why"]
    assert len(rig.came()) == 1


def test_a_relative_folder_of_state(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the bridge has already does not come again with each pull request, and counts for no limit."""
    large = os.urandom(2_000_000).hex()
    rig.source.set(MAIN, rig.source.commit({CI: "build: {script: make}\n", "large": large}))
    pull = rig.github.open(rig.owner, rig.commit(), rig.source.refs()[MAIN], fork=False)
    monkeypatch.chdir(rig.folder)
    config = process.configured(rig)
    config.write_text(config.read_text() + "pack_mib = 1\n")
    assert typed("once", "-c", str(config), "--state", "here") == 0
    assert rig.came() == [pull.head]


def test_a_bridge_without_its_extra_says_what_to_install(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "jwt", None)
    for name in [name for name in sys.modules if name.startswith("provisioner.bridge")]:
        monkeypatch.delitem(sys.modules, name)
    assert typed("once", "-c", str(process.configured(rig))) == 2
