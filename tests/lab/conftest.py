"""Real machines for the tests: one lab for the whole session, and small ones that a test may break."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import pytest
from nixprov_lab import control
from nixprov_lab.paths import RUNTIME_VARIABLE, cache_dir
from nixprov_lab.running import Lab

from tests.lab.machines import skip_without_machines, two_hosts

HERE = Path(__file__).parent
# The first start of a lab on a computer downloads and builds its tree.
TIMEOUT_S = 1200
PROCESS_FILES = ("cmdline", "cgroup", "mountinfo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def _cache() -> Path:
    """Where the tree is, in the real home: seen before each test gets an empty one."""
    skip_without_machines()
    return cache_dir()


@pytest.fixture(scope="session")
def lab(_cache: Path) -> Iterator[Lab]:
    """A lab with the hosts host1 and host2; tests leave it as they found it."""
    with two_hosts() as lab:
        yield lab


@pytest.fixture
def own_registry(_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry of labs for one test, so that `stop --all` stops no other's; what is left in it is removed."""
    directory = Path(f"/run/nixprov-lab-test-{os.getpid()}")
    monkeypatch.setenv(RUNTIME_VARIABLE, str(directory))
    monkeypatch.setenv("XDG_CACHE_HOME", str(_cache.parent.parent))
    monkeypatch.delenv("NIXPROV_LAB", raising=False)
    try:
        yield directory
    finally:
        control.stop_all()
        shutil.rmtree(directory)


@pytest.fixture
def small_lab(own_registry: Path) -> Lab:
    """A lab with one host in a registry of its own: a test may break it."""
    return control.start(1, progress=print)


@pytest.fixture
def traces() -> Callable[[str], list[str]]:
    """What there is of a lab on this computer, by its id: processes, mounts, interfaces, cgroups, files."""
    return _traces


def _traces(lab_id: str) -> list[str]:
    found = [f"interface {path.name}" for path in Path("/sys/class/net").iterdir() if lab_id in path.name]
    files = (f"/run/*/{lab_id}*", f"/run/systemd/nspawn/*/*{lab_id}*", f"{cache_dir()}/*/{lab_id}*")
    found += [f"file {path}" for pattern in files for path in _match(pattern)]
    found += [f"cgroup {path}" for path in _match(f"/sys/fs/cgroup/**/nixprov-lab-{lab_id}")]
    for process in Path("/proc").glob("[0-9]*"):
        if not _is_zombie(process):
            found += [f"{what} of {process.name}" for what in PROCESS_FILES if lab_id in _content(process / what)]
    return found


def _match(pattern: str) -> list[str]:
    """Path.glob raises for a folder that goes while it looks, as those of other labs do."""
    return glob(pattern, recursive=True)  # noqa: PTH207


def _is_zombie(process: Path) -> bool:
    """Whether it has ended and only its parent, which is the computer's process 1, has not looked yet."""
    return _content(process / "stat").rpartition(")")[2].split()[:1] == ["Z"]


def _content(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""
