"""The filter between a real Nix client and a real daemon: this computer's, and the newer one of the lab's machines.

The daemon is the plain one, and the filter runs as an unprivileged user: that is how a host is served whose Nix has no
daemon that trusts nobody. The store is the test's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import tally

from tests.contract.nix_store import DAEMONS, Store, daemon_program, filtered_store

needs_nix = pytest.mark.skipif(
    shutil.which("nix-daemon") is None or os.geteuid() != 0, reason="needs root and the package nix-bin"
)
pytestmark = [needs_nix, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=DAEMONS)
def daemon(request: pytest.FixtureRequest) -> list[str]:
    return daemon_program(request.param)


@pytest.fixture
def store(request: pytest.FixtureRequest, daemon: list[str]) -> Iterator[Store]:
    """With more lines of nix.conf, where a test has some."""
    with filtered_store(daemon, getattr(request, "param", "")) as made:
        yield made


def test_a_build_and_what_belongs_to_it(store: Store) -> None:
    built = store.nix("nix-build", store.expression("built"))
    assert built.returncode == 0, built.stderr
    path = built.stdout.strip()
    assert Path(path).read_text() == "built\n"
    (store.root / "source").write_text("x" * 1_000_000)
    assert store.nix("nix-store", "--add", "./source").returncode == 0
    for question in (
        ["nix-store", "-q", "--references", path],
        ["nix", "path-info", "--all"],
        ["nix-store", "-r", path],
    ):
        answer = store.nix(*question)
        assert answer.returncode == 0, answer.stderr
    # The root of `result` is the client's business only.
    assert not any((store.root / "state/gcroots/auto").glob("*"))


def test_what_is_counted_is_what_nix_says(store: Store) -> None:
    expression = store.expression("counted")
    path = store.nix("nix-build", "--no-out-link", expression).stdout.strip().encode()
    drv = store.nix("nix-instantiate", expression).stdout.strip().encode()
    size = int(store.nix("nix-store", "-q", "--size", path.decode()).stdout)
    with closing(tally.Store(str(store.root / "daemon"))) as asked:
        assert asked.paths(drv, b"*") == asked.paths(drv, b"out") == [path]
        assert asked.size(drv) == asked.path_size(path) == size
        assert asked.paths(drv.replace(b"counted", b"missing"), b"*") == []
        # The connection lives on after an error.
        assert asked.path_size(path.replace(b"counted", b"missing")) is None
        assert asked.path_size(path) == size


@pytest.mark.parametrize(
    "question",
    [["--gc"], ["--verify"], ["--optimise"], ["--gc", "--print-roots"], ["--delete", "/x"]],
    ids=lambda question: question[0] + question[-1],
)
def test_the_stores_upkeep_is_refused(store: Store, question: list[str]) -> None:
    built = store.nix("nix-build", "--no-out-link", store.expression("kept")).stdout.strip()
    answer = store.nix("nix-store", *[built if word == "/x" else word for word in question])
    assert answer.returncode != 0
    assert "refused to jobs" in answer.stderr
    assert Path(built).exists()


@pytest.mark.parametrize(("through", "hooked"), [("socket", False), ("daemon", True)])
def test_root_behind_the_filter_is_nobody_to_the_daemon(store: Store, through: str, hooked: bool) -> None:
    expression = store.expression("hook")
    hook = ["--option", "post-build-hook", f"{store.root}/hook"]
    built = store.nix("nix-build", "--no-out-link", *hook, expression, through=through)
    assert built.returncode == 0, built.stderr
    assert (store.root / "hooked").exists() is hooked


@pytest.mark.parametrize(("through", "after"), [("socket", "mine\n"), ("daemon", "theirs\n")])
def test_what_is_there_is_not_replaced(store: Store, through: str, after: str) -> None:
    """By anybody's content under a content-addressed name, which needs no signature: the daemon alone lets it happen."""
    (store.root / "source").write_text("mine\n")
    victim = store.nix("nix-store", "--add", "./source").stdout.strip()
    digest = store.nix("nix-hash", "--type", "sha256", victim).stdout.strip()
    address = "fixed:r:sha256:" + store.nix("nix-hash", "--type", "sha256", "--base32", victim).stdout.strip()
    store.add(victim, digest, address, through)
    assert Path(victim).read_text() == after


@pytest.mark.parametrize(
    ("store", "taken"), [("require-sigs = true", False), ("require-sigs = false", True)], indirect=["store"]
)
def test_signatures_alone_keep_out_what_nobody_built(store: Store, taken: bool) -> None:
    """A host may do without them; the module then refuses such a Nix as this one, and its own daemon asks for them."""
    (store.root / "source").write_text("theirs\n")
    digest = store.nix("nix-hash", "--type", "sha256", "./source").stdout.strip()
    victim = store.root / "store" / f"{'0' * 32}-poison"
    store.add(str(victim), digest, "")
    assert victim.exists() is taken
