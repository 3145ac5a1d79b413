"""Each threat of docs/bridge.md against the whole bridge: real git over HTTP, strict stand-ins of both APIs.

Every test here fails when its defence is taken out; the defence is named in its first line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from provisioner.bridge.config import Tables
from provisioner.bridge.errors import BridgeError, BridgeUnavailable
from provisioner.bridge.store import Store
from provisioner.errors import ConfigError
from tests.contract.bridge.githttp import git
from tests.contract.bridge.github import Fault, Note, Pull, User
from tests.contract.bridge.rig import CI, MAIN, Rig


def opened(rig: Rig, head: str = "", **more: object) -> Pull:
    """A stranger's pull request from a fork."""
    author = more.pop("author", None) or rig.stranger()
    return rig.github.open(author, head or rig.commit(), rig.source.refs()[MAIN], **more)  # type: ignore[arg-type]


def approve(rig: Rig, pull: Pull, by: User | None = None) -> Note:
    return rig.github.say(by or rig.owner, pull, f"/ci run {pull.head}")


def built(rig: Rig) -> Pull:
    """A pull request that was approved and is on GitLab."""
    pull = opened(rig)
    approve(rig, pull)
    rig.settle()
    assert rig.ref(pull.number) == pull.head
    return pull


# --- 3: whose commits move


def test_a_strangers_commit_waits_and_an_approval_brings_it_over(rig: Rig) -> None:
    pull = opened(rig)
    rig.settle()
    assert rig.came() == []
    assert rig.check(pull.head).state == "action_required"
    assert f"/ci run {pull.head}" in rig.check(pull.head).now["output"]["summary"]
    approve(rig, pull)
    rig.settle()
    assert rig.ref(1) == pull.head
    rig.run_pipeline(pull.head, "running")
    rig.settle()
    assert rig.check(pull.head).state == "in_progress"
    rig.run_pipeline(pull.head, "success")
    rig.settle()
    assert rig.check(pull.head).state == "success"
    pull.is_open = False
    rig.settle()
    assert rig.ref(1) == ""


def test_writers_rule_is_for_forks_that_are_the_authors_alone(rig: Rig) -> None:
    rig.changed(pulls={"trust": "writers"})
    writer, reader = rig.github.user("writer", "write"), rig.stranger()
    theirs = opened(rig, author=writer)
    shared = opened(rig, author=writer, owner=reader)
    strangers = opened(rig, author=reader)
    rig.settle()
    assert [rig.ref(pull.number) for pull in (theirs, shared, strangers)] == [theirs.head, "", ""]


def test_a_deleted_fork_is_no_branch_of_the_repository(rig: Rig) -> None:
    pull = opened(rig)
    pull.fork = None
    rig.settle()
    assert rig.came() == []
    assert rig.check(pull.head).state == "action_required"


def test_a_second_pull_request_for_a_commit_does_not_take_its_check(rig: Rig) -> None:
    """One check for each commit: a stranger may open a pull request for somebody else's."""
    own = rig.github.open(rig.owner, rig.commit(), rig.source.refs()[MAIN], fork=False)
    rig.settle()
    opened(rig, own.head)
    rig.run_pipeline(own.head, "success")
    rig.settle()
    assert rig.check(own.head).state == "success"
    assert rig.came() == [own.head]


# --- 4: the commit that was read is the one that moves


def test_a_force_push_after_the_approval_waits_again(rig: Rig) -> None:
    pull = built(rig)
    rig.github.push(pull, rig.commit("evil"))
    rig.settle()
    assert rig.ref(1) == ""
    assert rig.came() == [rig.target.moves[-1].old]
    assert rig.check(pull.head).state == "action_required"


def test_a_head_that_moves_between_the_list_and_the_fetch_is_not_pushed(rig: Rig) -> None:
    """The fetched id is compared with the approved one."""
    pull = opened(rig)
    approve(rig, pull)
    approved, evil = pull.head, rig.commit("evil")
    rig.source.before = lambda request: rig.github.push(pull, evil) if "git-upload-pack" in request else None
    rig.settle()
    assert rig.came() == []
    rig.source.before = lambda _request: None
    rig.settle()
    assert rig.came() == []
    assert rig.check(evil).state == "action_required"
    assert rig.check(approved).state == "cancelled"


def test_a_head_that_moves_between_fetch_and_push_changes_nothing(rig: Rig) -> None:
    """The id is pushed, never a name."""
    rig.settle()
    pull = opened(rig)
    approve(rig, pull)
    approved, evil = pull.head, rig.commit("evil")
    rig.target.before = lambda request: rig.github.push(pull, evil) if "git-receive-pack" in request else None
    rig.settle()
    assert rig.came() == [approved]
    rig.target.before = lambda _request: None
    rig.settle()
    assert rig.came() == [approved]
    assert rig.ref(1) == ""


def test_an_approval_of_what_came_back_is_no_approval_of_what_is_there(rig: Rig) -> None:
    pull = opened(rig)
    first = pull.head
    rig.github.push(pull, rig.commit("other"))
    rig.github.say(rig.owner, pull, f"/ci run {first}")
    rig.settle()
    rig.settle()
    assert rig.came() == []


# --- 5: whose approval


@pytest.mark.parametrize(
    ("permission", "counts"),
    [("read", False), ("triage", False), ("write", True), ("maintain", True), ("admin", True)],
)
def test_an_approval_is_a_writers(rig: Rig, permission: str, *, counts: bool) -> None:
    pull = opened(rig)
    approve(rig, pull, rig.github.user("somebody", permission))
    rig.settle()
    assert (rig.ref(1) == pull.head) is counts


def test_somebody_who_may_write_no_more_does_not_approve(rig: Rig) -> None:
    pull = opened(rig)
    somebody = rig.github.user("somebody", "write")
    approve(rig, pull, somebody)
    somebody.permission = "read"
    rig.settle()
    somebody.permission = "write"
    rig.settle()
    assert rig.came() == []


def test_a_login_that_is_somebody_elses_by_now_does_not_approve(rig: Rig) -> None:
    pull = opened(rig)
    somebody = rig.github.user("somebody", "read")
    approve(rig, pull, somebody)
    rig.github.user("somebody", "admin")
    rig.settle()
    assert rig.came() == []


def test_an_approval_that_was_edited_or_deleted_meanwhile_does_not_count(rig: Rig) -> None:
    """The comment is read again before the push."""
    first, second = opened(rig), opened(rig)
    notes = [approve(rig, first), approve(rig, second)]

    def withdraw(call: str) -> None:
        if "/permission" in call and notes:
            rig.github.edit(notes.pop(0), "no!")
            rig.github.notes.pop(notes.pop(0).id)

    rig.github.before = withdraw
    rig.settle()
    rig.settle()
    assert rig.came() == []


def test_a_permission_is_asked_for_again_when_a_pass_takes_long(rig: Rig) -> None:
    rig.settle()
    first, second = opened(rig), opened(rig)
    writer = rig.github.user("writer", "write")
    for pull in (first, second):
        approve(rig, pull, writer)

    def take_long(request: str) -> None:
        if "service=git-receive-pack" in request:
            rig.clock.advance(60)
            writer.permission = "read"

    rig.target.before = take_long
    rig.settle()
    assert rig.came() == [first.head]
    assert rig.check(second.head).state == "action_required"


@pytest.mark.parametrize("type_", ["Bot", "Organization", "Mannequin"])
def test_a_machines_comment_does_not_approve(rig: Rig, type_: str) -> None:
    pull = opened(rig)
    approve(rig, pull, rig.github.user("machine", "admin", type=type_))
    rig.github.say(None, pull, f"/ci run {pull.head}")
    rig.settle()
    assert rig.came() == []


# --- 6, 7, 18: arguments, environment and secrets of git


@pytest.fixture
def said_to_git(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A git in front of the real one that notes its arguments and environment."""
    log, real = tmp_path / "git.log", shutil.which("git")
    folder = tmp_path / "bin"
    folder.mkdir()
    wrapper = folder / "git"
    wrapper.write_text(f'#!/bin/sh\n{{ echo "ARGV $*"; env; }} >> {log}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_SSH_COMMAND", "touch /tmp/owned")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'alias.fetch=!touch /tmp/owned'")
    return lambda: log.read_text().splitlines()


@pytest.mark.parametrize("name", ["-x", "--upload-pack=touch /tmp/owned", "$(id)", "a;b", "pr-5", "\u202e"])
def test_no_name_of_a_pull_request_reaches_git(rig: Rig, said_to_git: Callable[[], list[str]], name: str) -> None:
    """Refs are made of numbers, commits of ids, URLs of bridge.toml."""
    pull = opened(rig)
    pull.ref = name
    approve(rig, pull)
    rig.settle()
    assert rig.ref(1) == pull.head
    words = {word for line in said_to_git() if line.startswith("ARGV") for word in line.split()[1:]}
    foreign = {word for word in words if name in word and not re.fullmatch(r"\S*refs/heads/pr-\d+\S*", word)}
    assert foreign - {word for word in words if word.startswith("--") and name == "-x"} == set()
    assert not any("owned" in word for word in words)
    pushed = [word for word in words if ":refs/heads/" in word and not word.startswith(("+", "--"))]
    assert pushed
    assert all(re.match(r"[0-9a-f]{40}:", word) for word in pushed)
    variables = {line.partition("=")[0] for line in said_to_git() if "=" in line and not line.startswith("ARGV")}
    assert variables & {"GIT_SSH_COMMAND", "GIT_CONFIG_PARAMETERS"} == set()


def test_a_redirect_is_not_followed(rig: Rig) -> None:
    pull = opened(rig)
    approve(rig, pull)
    rig.source.redirect = "elsewhere/name.git"
    with pytest.raises(BridgeUnavailable):
        rig.settle()
    assert rig.target.requests == []


HOSTILE_TABLES = [
    {"github": {"git": "ext::sh -c touch% /tmp/owned"}},
    {"github": {"git": "http://github.example.org"}},
    {"github": {"git": "https://me:secret@github.com"}},
    {"github": {"git": "--upload-pack=x"}},
    {"github": {"repository": "../../etc"}},
    {"github": {"repository": "-o/name"}},
    {"github": {"repository": "owner/name.git/x"}},
    {"gitlab": {"url": "file:///srv/git"}},
    {"gitlab": {"project": "lab/demo?private_token=x"}},
    {"pulls": {"prefix": "--"}},
    {"pulls": {"prefix": "refs/"}},
    {"pulls": {"prefix": ""}},
    {"pulls": {"trust": "everybody"}},
    {"mirror": {"branches": ["pr-5"]}},
    {"mirror": {"branches": ["-f"]}},
    {"mirror": {"branches": ["a b", "a:b"]}},
    {"mirror": {"branches": ["+main"]}},
    {"mirror": {"branches": ["a..b"]}},
    {"check": {"name": "a\nb"}},
    {"limits": {"pack": 5}},
    {"unknown": {}},
]


@pytest.mark.parametrize("tables", HOSTILE_TABLES, ids=str)
def test_bridge_toml_has_no_way_to_say_it(rig: Rig, tables: dict[str, dict[str, object]]) -> None:
    said = rig.tables.model_dump(mode="json")
    for name, table in tables.items():
        said[name] = {**(said.get(name) or {}), **table}
    with pytest.raises(ValueError, match="validation error"):
        Tables.model_validate(said)


def test_no_token_is_in_arguments_environments_logs_or_files(rig: Rig) -> None:
    """The credential is in a memory file that git inherits, and is read there by its helper."""
    pull = opened(rig)
    approve(rig, pull)
    rig.source.is_private = True
    seen: list[str] = []

    def look(_request: str) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    seen.append((process / name).read_bytes().decode(errors="replace"))
                except OSError:
                    continue

    rig.target.before = rig.source.before = look
    rig.source.password = ""

    def give(call: str) -> None:
        rig.source.password = next(iter(rig.github.tokens), "")

    rig.github.before = give
    rig.settle()
    assert rig.ref(1) == pull.head
    secrets = [rig.push_token, rig.api_token, *rig.github.tokens]
    files = [path.read_bytes().decode(errors="replace") for path in (rig.folder / "state").rglob("*") if path.is_file()]
    told = [str(decision) for decision in rig.decisions] + [json.dumps(c.history) for c in rig.github.checks.values()]
    assert [text[:80] for text in seen + files + told for secret in secrets if secret in text] == []
    assert any("receive-pack" in text or "git-remote-http" in text for text in seen)


def test_a_token_would_be_seen() -> None:
    """The search of the test above finds what is there."""
    poison = "poison-4711"
    with subprocess.Popen(["sleep", "60"], env={"TOKEN": poison, "PATH": os.environ["PATH"]}) as process:
        environment = Path(f"/proc/{process.pid}/environ")
        # Empty for a moment, while the kernel puts the new program in the place of the old one.
        while not (found := environment.read_text()):
            assert process.poll() is None
        process.kill()
    assert poison in found


def test_a_wrong_token_is_named_and_not_shown(rig: Rig) -> None:
    opened(rig)
    rig.target.is_private = True
    rig.push_token = "wrong-and-secret"
    with pytest.raises(ConfigError, match="not accepted") as refused:
        rig.settle()
    assert "wrong-and-secret" not in str(refused.value)


# --- 8 to 11: contents of a commit


def refused(rig: Rig, head: str, **limits: object) -> str:
    """Push it with a good neighbour; give what is said of it."""
    pull, good = opened(rig, head), opened(rig)
    for one in (pull, good):
        approve(rig, one)
    rig.settle(**limits)
    assert rig.ref(pull.number) == ""
    assert rig.ref(good.number) == good.head
    assert list((rig.folder / "state/quarantine").iterdir()) == []
    assert rig.check(head).state == "failure"
    return str(rig.check(head).now["output"]["summary"])


def test_a_huge_commit_is_refused_and_leaves_nothing(rig: Rig) -> None:
    head = rig.commit("x", large=os.urandom(3_000_000).hex())
    assert "larger" in refused(rig, head, pack=1_000_000)


def raw(rig: Rig, kind: str, content: bytes) -> str:
    return git(rig.source.folder, "hash-object", "-w", "--literally", "-t", kind, "--stdin", stdin=content)


def tree_of(rig: Rig, mode: bytes, name: bytes, oid: str) -> str:
    tree = raw(rig, "tree", mode + b" " + name + b"\0" + bytes.fromhex(oid))
    return git(rig.source.folder, "commit-tree", tree, "-p", rig.source.refs()[MAIN], "-m", "x")


@pytest.mark.parametrize(
    ("mode", "name", "content"),
    [
        (b"40000", b".git", None),
        (b"40000", b"..", None),
        (b"0100644", b"zero-padded", b"x"),
        (b"100644", b".gitmodules", b'[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch /tmp/owned\n'),
        (b"100644", b".gitmodules", b'[submodule "../../x"]\n\tpath = x\n\turl = https://example.org\n'),
        (b"120000", b".gitmodules", b"/etc/passwd"),
    ],
)
def test_objects_that_git_refuses_to_make_are_not_passed_on(
    rig: Rig, mode: bytes, name: bytes, content: bytes | None
) -> None:
    """fsck on fetch, in a quarantine: the base store stays as it was."""
    rig.settle()
    base = rig.folder / "state/base.git"
    before = sorted(path.name for path in (base / "objects").rglob("*"))
    oid = git(rig.source.folder, "mktree") if content is None else raw(rig, "blob", content)
    assert "refuses" in refused(rig, tree_of(rig, mode, name, oid))
    assert sorted(path.name for path in (base / "objects").rglob("*")) == before


def test_a_tree_of_ten_billion_files_costs_nothing(rig: Rig) -> None:
    """Nothing walks through a stranger's tree."""
    tree = git(rig.source.folder, "hash-object", "-w", "--stdin", stdin=b"bomb")
    kind = "100644 blob"
    for _ in range(10):
        listing = "".join(f"{kind} {tree}\tf{number}\n" for number in range(10))
        tree, kind = git(rig.source.folder, "mktree", stdin=listing.encode()), "040000 tree"
    head = git(rig.source.folder, "commit-tree", tree, "-p", rig.source.refs()[MAIN], "-m", "bomb")
    rig.settle()
    pull = opened(rig, head)
    approve(rig, pull)
    began = time.monotonic()
    rig.settle(memory=512 * 1024 * 1024)
    assert rig.ref(1) == head
    assert time.monotonic() - began < 10


def test_links_submodules_and_attributes_are_only_data(rig: Rig) -> None:
    """Nothing is checked out: no filter, hook, driver or submodule has a turn."""
    folder = rig.source.folder
    blob = git(folder, "hash-object", "-w", "--stdin", stdin=b"* filter=evil merge=evil diff=evil\n")
    listing = f"100644 blob {blob}\t.gitattributes\n120000 blob {blob}\tlink\n160000 commit {rig.source.refs()[MAIN]}\tmodule\n"
    tree = git(folder, "mktree", "--missing", stdin=listing.encode())
    pull = opened(rig, git(folder, "commit-tree", tree, "-p", rig.source.refs()[MAIN], "-m", "x"))
    approve(rig, pull)
    rig.settle()
    assert rig.ref(1) == pull.head
    assert not list((rig.folder / "state").rglob("link"))


def test_what_gitlab_refuses_is_said_once_and_tried_again_when_asked(rig: Rig) -> None:
    """As it does for LFS objects that it lacks."""
    hook = rig.target.folder / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'LFS objects are missing </script>' >&2\nexit 1\n")
    hook.chmod(0o755)
    pull = opened(rig)
    approve(rig, pull)
    rig.settle()
    assert rig.check(pull.head).state == "failure"
    assert "script" not in json.dumps(rig.check(pull.head).history)
    count = len(rig.target.requests)
    rig.settle()
    assert [request for request in rig.target.requests[count:] if "receive-pack" in request] == []
    hook.unlink()
    rig.clock.advance(2)
    approve(rig, pull)
    rig.settle()
    assert rig.ref(1) == pull.head


# --- 12, 13, 14: the meaning of green


def linked(rig: Rig) -> str:
    """A commit whose pipeline is a link to another file."""
    blob = git(rig.source.folder, "hash-object", "-w", "--stdin", stdin=b"evil.yml")
    tree = git(rig.source.folder, "mktree", stdin=f"120000 blob {blob}\t{CI}\n".encode())
    return git(rig.source.folder, "commit-tree", tree, "-p", rig.source.refs()[MAIN], "-m", "x")


def folder(rig: Rig) -> str:
    """A commit with a folder in place of its pipeline."""
    inner = git(rig.source.folder, "mktree")
    tree = git(rig.source.folder, "mktree", stdin=f"040000 tree {inner}\t{CI}\n".encode())
    return git(rig.source.folder, "commit-tree", tree, "-p", rig.source.refs()[MAIN], "-m", "x")


@pytest.mark.parametrize("how", ["same", "changed", "removed", "link", "folder", "included", "unreadable", "broken"])
def test_a_pull_request_that_changes_its_pipeline_says_so(rig: Rig, how: str) -> None:
    rig.changed(pulls={"ci_paths": (CI, "ci/build.yml")})
    heads: dict[str, Callable[[], str]] = {
        "same": rig.commit,
        "changed": lambda: rig.commit("x", **{CI: "build: {script: curl evil}\n"}),
        "removed": lambda: rig.source.commit({"file": "x"}, rig.source.refs()[MAIN]),
        "link": lambda: linked(rig),
        "included": rig.commit,
        "folder": lambda: folder(rig),
        "unreadable": rig.commit,
        "broken": rig.commit,
    }
    pull = opened(rig, heads[how]())
    if how == "included":
        blob = git(rig.source.folder, "hash-object", "-w", "--stdin", stdin=b"evil")
        inner = git(rig.source.folder, "mktree", stdin=f"100644 blob {blob}\tbuild.yml\n".encode())
        ci = git(rig.source.folder, "rev-parse", f"{rig.source.refs()[MAIN]}:{CI}")
        tree = git(rig.source.folder, "mktree", stdin=f"100644 blob {ci}\t{CI}\n040000 tree {inner}\tci\n".encode())
        rig.github.push(pull, git(rig.source.folder, "commit-tree", tree, "-p", rig.source.refs()[MAIN], "-m", "x"))
    if how in {"unreadable", "broken"}:
        status = 422 if how == "unreadable" else 502
        rig.github.faults.append(Fault(re.compile("/contents/"), status, b'{"message": "no"}', times=100))
    rig.settle()
    assert ("pipeline is changed" in rig.check(pull.head).title) is (how != "same")
    approve(rig, pull)
    rig.settle()
    rig.run_pipeline(pull.head, "success")
    rig.settle()
    assert ("own definition" in rig.check(pull.head).title) is (how != "same")


def test_another_base_is_another_question(rig: Rig) -> None:
    """Each pull request with this commit is asked about, against its base of now."""
    evil = {CI: "build: {script: curl evil}\n"}
    trap = rig.commit("trap", **evil)
    pull = rig.github.open(rig.stranger(), rig.commit("x", **evil), trap)
    rig.settle()
    assert "pipeline is changed" not in rig.check(pull.head).title
    pull.base = rig.source.refs()[MAIN]
    rig.settle()
    assert "pipeline is changed" in rig.check(pull.head).title
    pull.base = trap
    opened(rig, pull.head)
    rig.settle()
    assert "pipeline is changed" in rig.check(pull.head).title


def test_a_pull_request_for_the_tip_of_a_branch_does_not_take_its_check(rig: Rig) -> None:
    tip = rig.source.refs()[MAIN]
    rig.settle()
    rig.run_pipeline(tip, "success")
    rig.settle()
    opened(rig, tip)
    rig.settle()
    assert rig.check(tip).state == "success"
    assert rig.came() == []


def test_a_page_of_the_longest_comments_is_read(rig: Rig) -> None:
    """Six bytes for each character; one stranger's comments may not stop every pass."""
    pull = opened(rig)
    for _ in range(64):
        rig.github.say(rig.stranger(), pull, "\u00fc" * 65_536)
    approve(rig, pull)
    rig.settle()
    assert rig.ref(1) == pull.head


STATES = {
    "created": "queued",
    "waiting_for_resource": "queued",
    "preparing": "queued",
    "pending": "queued",
    "scheduled": "queued",
    "running": "in_progress",
    "canceling": "in_progress",
    "success": "success",
    "failed": "failure",
    "canceled": "cancelled",
    "manual": "action_required",
    "skipped": "failure",
    "zzz": "failure",
}


def test_each_state_of_a_pipeline_is_told_and_only_success_is_green(rig: Rig) -> None:
    pull = built(rig)
    for status in ("zzz", "manual", *(one for one in STATES if one not in policy_final()), "success"):
        rig.run_pipeline(pull.head, status)
        rig.settle()
        assert rig.check(pull.head).state == STATES[status], status
        assert "neutral" not in str(rig.check(pull.head).history)
    assert f"/-/pipelines/{rig.pipeline(pull.head).id}" in rig.check(pull.head).now["details_url"]


def policy_final() -> set[str]:
    return {"success", "failed", "canceled", "skipped"}


@pytest.mark.parametrize("status", sorted(policy_final()))
def test_each_end_of_a_pipeline(rig: Rig, status: str) -> None:
    pull = built(rig)
    rig.run_pipeline(pull.head, status)
    rig.settle()
    assert rig.check(pull.head).state == STATES[status]


def test_no_pipeline_is_never_green(rig: Rig) -> None:
    rig.target.on_move = lambda _move: None
    pull = built(rig)
    rig.clock.advance(601)
    rig.settle()
    assert rig.check(pull.head).state == "failure"


def test_somebody_elses_pipeline_is_not_told_of(rig: Rig) -> None:
    """Only a push of ours, on this ref, of this commit."""
    pull = built(rig)
    state = rig.gitlab.lab.state
    for ref, head, source in (
        ("pr-1", pull.head, "web"),
        ("other", pull.head, "push"),
        ("pr-1", rig.source.refs()[MAIN], "push"),
    ):
        state.set_pipeline(state.add_pipeline(rig.project, ref, head, source), "success")
    rig.settle()
    assert rig.check(pull.head).state == "queued"


# --- 17, 20, 21: things that stay as they are


def test_refs_of_others_are_never_touched(rig: Rig) -> None:
    built(rig)
    other = rig.target.commit({"x": "y"})
    for ref in ("refs/heads/pr-x", "refs/heads/release", "refs/heads/pr-01", "refs/tags/pr-7"):
        rig.target.set(ref, other)
    rig.github.pulls[1].is_open = False
    rig.settle()
    assert {move.ref for move in rig.target.moves} == {MAIN, "refs/heads/pr-1"}
    assert rig.target.refs()["refs/heads/pr-x"] == other


def test_what_somebody_pushes_under_our_prefix_goes_again(rig: Rig) -> None:
    rig.settle()
    rig.target.set("refs/heads/pr-9", rig.target.refs()[MAIN])
    rig.settle()
    assert rig.ref(9) == ""


def test_a_force_push_to_a_mirrored_branch_is_mirrored(rig: Rig) -> None:
    rig.settle()
    rig.source.set(MAIN, rig.source.commit({CI: "rewritten"}))
    rig.settle()
    assert rig.target.refs()[MAIN] == rig.source.refs()[MAIN]


OUTAGES = {
    "500": Fault(re.compile(r"/pulls\?")),
    "not JSON": Fault(re.compile(r"/pulls\?"), 200, b"[{"),
    "a page": Fault(re.compile(r"/pulls\?"), 200, b"<html>", {"Content-Type": "text/html"}),
    "an object": Fault(re.compile(r"/pulls\?"), 200, b"{}"),
    "hung up": Fault(re.compile(r"/pulls\?"), 0, None),
    "foreign next": Fault(re.compile(r"/pulls\?"), 200, b"[]", {"Link": '<ELSEWHERE/x>; rel="next"'}),
    "half a pull": Fault(re.compile(r"/pulls\?"), 200, b'[{"number": 1}]'),
    "short id": Fault(re.compile(r"/pulls\?"), 200, b'[{"number": 1, "head": {"sha": "main"}}]'),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_answer_that_is_none_changes_nothing(rig: Rig, outage: str) -> None:
    pull = built(rig)
    moves = len(rig.target.moves)
    fault = OUTAGES[outage]
    headers = {name: text.replace("ELSEWHERE", rig.tables.github.git) for name, text in fault.headers.items()}
    rig.github.faults.append(Fault(fault.path, fault.status, fault.body, headers))
    with pytest.raises(BridgeUnavailable):
        rig.settle()
    assert len(rig.target.moves) == moves
    rig.settle()
    assert rig.ref(1) == pull.head


def test_an_empty_list_deletes_nothing_that_is_open(rig: Rig) -> None:
    """A list can be short; each pull request is asked for itself before its branch goes."""
    pull = built(rig)
    rig.github.faults.append(Fault(re.compile(r"/pulls\?"), 200, b"[]"))
    rig.settle()
    assert rig.ref(1) == pull.head


def test_a_missing_second_page_is_no_end_of_the_list(rig: Rig) -> None:
    base = rig.source.refs()[MAIN]
    for _ in range(101):
        rig.github.open(rig.stranger(), base, base)
    rig.github.faults.append(Fault(re.compile(r"page=2"), 502, b""))
    with pytest.raises(BridgeUnavailable):
        rig.settle()


def test_when_gitlab_is_gone_whoever_waits_is_told(rig: Rig) -> None:
    pull = built(rig)
    rig.target.status = 503
    with pytest.raises(BridgeUnavailable):
        rig.settle()
    assert rig.check(pull.head).state == "queued"
    rig.clock.advance(901)
    with pytest.raises(BridgeUnavailable):
        rig.settle()
    assert "cannot reach GitLab" in rig.check(pull.head).title
    rig.target.status = 0
    rig.run_pipeline(pull.head, "success")
    rig.settle()
    assert rig.check(pull.head).state == "success"


# --- 22: limits of GitHub's


def test_a_used_up_budget_is_waited_for(rig: Rig) -> None:
    pull = opened(rig)
    rig.github.budget, rig.github.reset_at = 1, rig.clock() + 1800
    with pytest.raises(BridgeUnavailable) as limited:
        rig.settle()
    assert 1700 < limited.value.wait_s <= 1800
    rig.clock.advance(1801)
    rig.settle()
    assert rig.check(pull.head).state == "action_required"


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "77"}), (403, {"Retry-After": "77"})])
def test_a_secondary_limit_is_waited_for(rig: Rig, status: int, headers: dict[str, str]) -> None:
    opened(rig)
    message = b'{"message": "You have exceeded a secondary rate limit."}'
    rig.github.faults.append(Fault(re.compile("/check-runs"), status, message, headers, times=3))
    with pytest.raises(BridgeUnavailable) as limited:
        rig.settle()
    assert limited.value.wait_s in {0.0, 77.0}


def test_what_did_not_change_costs_next_to_nothing(rig: Rig) -> None:
    """Lists are asked for by ETag, and a check is only written when it says something else."""
    built(rig)
    rig.run_pipeline(rig.github.pulls[1].head, "success")
    bridge = rig.bridge()
    bridge.settle()
    bridge.settle()
    rig.github.calls.clear()
    rig.github.spent = 0
    bridge.settle()
    assert rig.github.spent == 0
    assert [call.partition("?")[0] for call in rig.github.calls] == [
        "GET /repos/owner/name/pulls",
        "GET /repos/owner/name/issues/comments",
    ]


# --- 19: rights


@pytest.mark.parametrize("name", ["contents", "pull_requests", "checks"])
def test_a_right_that_is_missing_is_said(rig: Rig, name: str) -> None:
    opened(rig)
    del rig.github.granted[name]
    with pytest.raises(BridgeError, match="access_tokens") as refused_:
        rig.settle()
    assert "permission" in refused_.value.hint


def test_a_token_has_no_more_rights_than_are_used(rig: Rig) -> None:
    rig.github.granted |= {"contents": "write", "administration": "write"}
    built(rig)
    ((_, permissions),) = {tuple(sorted(one[1].items())): one for one in rig.github.tokens.values()}.values()
    assert permissions == {"metadata": "read", "contents": "read", "pull_requests": "read", "checks": "write"}


# --- 25: texts that are shown


def test_nothing_that_a_stranger_wrote_is_shown(rig: Rig) -> None:
    pull = built(rig)
    rig.run_pipeline(pull.head, "failed")
    rig.settle()
    texts = json.dumps([check.history for check in rig.github.checks.values()])
    assert not any(word in texts for word in ("reboot", "stranger", "patch", "Bot merge", "owned"))


def test_a_check_that_github_refuses_keeps_no_other_back(rig: Rig) -> None:
    first, second = opened(rig), opened(rig)
    rig.github.faults.append(Fault(re.compile(f"{first.head}/check-runs"), 422, b'{"message": "No commit found"}'))
    rig.settle()
    assert rig.check(second.head).state == "action_required"
    rig.settle()
    assert rig.check(first.head).state == "action_required"


# --- 26: how much of it


def test_a_pull_request_is_pushed_so_often_in_an_hour(rig: Rig) -> None:
    rig.changed(limits={"pushes_per_hour": 2})
    pull = rig.github.open(rig.owner, rig.commit(), rig.source.refs()[MAIN], fork=False)
    for _ in range(3):
        rig.settle()
        rig.github.push(pull, rig.commit())
    rig.settle()
    assert len(rig.came()) == 2
    assert rig.check(pull.head).state == "queued"
    rig.clock.advance(3601)
    rig.settle()
    assert rig.ref(1) == pull.head


def test_so_many_branches_are_open_at_once(rig: Rig) -> None:
    rig.changed(limits={"branches": 2})
    for _ in range(3):
        rig.github.open(rig.owner, rig.commit(), rig.source.refs()[MAIN], fork=False)
    rig.settle()
    assert [bool(rig.ref(number)) for number in (1, 2, 3)] == [True, True, False]
    rig.github.pulls[1].is_open = False
    rig.settle()
    assert rig.ref(3)


def test_comments_without_use_are_not_kept(rig: Rig) -> None:
    pull = opened(rig)
    for number in range(30):
        rig.github.say(rig.stranger(), pull, f"/ci run {number:040x}")
    rig.settle()
    rig.settle()
    bridge = rig.bridge()
    assert bridge._store.claims() == ()


def test_a_stranger_who_asks_often_costs_one_question(rig: Rig) -> None:
    pull = opened(rig)
    for _ in range(20):
        approve(rig, pull, rig.stranger())
    rig.settle()
    assert sum("/permission" in call for call in rig.github.calls) == 1


# --- 27: running again


def test_a_writers_second_line_runs_it_again_and_a_readers_does_not(rig: Rig) -> None:
    pull = built(rig)
    rig.run_pipeline(pull.head, "failed")
    rig.settle()
    rig.clock.advance(2)
    approve(rig, pull, rig.stranger())
    rig.settle()
    assert rig.pipeline(pull.head).status == "failed"
    rig.clock.advance(2)
    approve(rig, pull)
    rig.settle()
    assert rig.pipeline(pull.head).status == "running"
    rig.run_pipeline(pull.head, "success")
    rig.settle()
    assert rig.check(pull.head).state == "success"
    rig.clock.advance(2)
    approve(rig, pull)
    rig.settle()
    assert rig.pipeline(pull.head).source == "api"
    assert rig.check(pull.head).state == "queued"


def test_a_run_that_gitlab_refuses_is_asked_for_once(rig: Rig) -> None:
    pull = built(rig)
    rig.run_pipeline(pull.head, "success")
    rig.settle()
    del rig.project.heads["pr-1"]
    rig.clock.advance(2)
    approve(rig, pull)
    rig.settle()
    rig.settle()
    assert [decision.what for decision in rig.decisions].count("not run again") == 1
    assert rig.check(pull.head).state == "success"


def test_an_approval_counts_once(rig: Rig) -> None:
    pull = built(rig)
    rig.run_pipeline(pull.head, "failed")
    for _ in range(3):
        rig.settle()
    assert rig.pipeline(pull.head).status == "failed"
    assert len(rig.gitlab.lab.state.pipelines) == 2


# --- 23: two at once


def test_what_somebody_changes_meanwhile_is_not_overwritten(rig: Rig) -> None:
    """Each push names the value that it replaces."""
    pull = built(rig)
    theirs: list[str] = []
    rig.github.push(pull, rig.commit())
    approve(rig, pull)

    def meddle(request: str) -> None:
        if "service=git-receive-pack" in request:
            theirs.append(rig.target.commit({"x": str(len(theirs))}))
            rig.target.set("refs/heads/pr-1", theirs[-1])

    rig.target.before = meddle
    rig.settle()
    assert rig.ref(1) == theirs[-1]
    rig.github.pulls[1].is_open = False
    rig.settle()
    assert rig.ref(1) == theirs[-1]
    rig.target.before = lambda _request: None
    rig.settle()
    assert rig.ref(1) == ""


def test_two_bridges_on_one_state_do_not_work_at_once(rig: Rig) -> None:
    opened(rig)
    entered, leave = threading.Event(), threading.Event()

    def hold(call: str) -> None:
        entered.set()
        leave.wait(10)

    rig.github.before = hold
    first, second = rig.bridge(), rig.bridge()
    thread = threading.Thread(target=first.settle)
    thread.start()
    assert entered.wait(10)
    with pytest.raises(BridgeError, match="another bridge"):
        second.settle()
    leave.set()
    thread.join()


def test_two_bridges_with_a_state_each_end_in_the_same(rig: Rig) -> None:
    pulls = [rig.github.open(rig.owner, rig.commit(), rig.source.refs()[MAIN], fork=False) for _ in range(3)]
    errors: list[BaseException] = []

    def work(state: str) -> None:
        try:
            rig.bridge(state).settle()
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(state,)) for state in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(rig.came()) == sorted(pull.head for pull in pulls)
    for state in ("one", "two"):
        rig.settle(state=state)
    assert [rig.ref(pull.number) for pull in pulls] == [pull.head for pull in pulls]


# --- state can be lost


@pytest.mark.parametrize("loss", ["deleted", "garbage"])
def test_lost_state_is_read_again_from_both_sides(rig: Rig, loss: str) -> None:
    pull = built(rig)
    rig.run_pipeline(pull.head, "success")
    rig.settle()
    rig.close()
    rig.clock.advance(7200)
    file = rig.folder / "state/state.sqlite"
    file.unlink() if loss == "deleted" else file.write_bytes(b"garbage" * 1000)
    rig.settle()
    rig.settle()
    assert rig.came() == [pull.head]
    assert rig.check(pull.head).state == "success"
    assert len(rig.gitlab.lab.state.pipelines) == 2


def test_state_that_is_in_use_is_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    built(rig)
    file = rig.folder / "state/state.sqlite"
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *words, **more: connect(*words, **{**more, "timeout": 0}))
    with closing(connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BridgeError, match="locked"):
            Store(file.parent)
    assert not file.with_suffix(".broken").exists()
    with closing(Store(file.parent)) as store:
        assert store.builds()


def test_new_state_is_made_once(tmp_path: Path) -> None:
    """The version is read under the lock: whoever opens a file that another process makes waits for it."""
    Store(tmp_path / "made").close()
    with closing(sqlite3.connect(tmp_path / "made/state.sqlite")) as made:
        tables = [row[0] for row in made.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
        version = made.execute("PRAGMA user_version").fetchone()[0]
    folder = tmp_path / "state"
    folder.mkdir()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            Store(folder).close()
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    thread = threading.Thread(target=work)
    with closing(sqlite3.connect(folder / "state.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        thread.start()
        time.sleep(0.5)
        for statement in tables:
            other.execute(statement)
        other.execute(f"PRAGMA user_version = {version}")
        other.execute("COMMIT")
    thread.join()
    assert errors == []
    assert not (folder / "state.broken").exists()
