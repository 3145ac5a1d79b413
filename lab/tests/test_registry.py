"""The lab's decisions that need no root: names, addresses, dead and living labs, the reasons of refusals."""

from __future__ import annotations

import fcntl
import threading
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from nixprov_lab import control, network, process, registry, running, tree
from nixprov_lab.errors import LabError
from nixprov_lab.paths import RUNTIME_VARIABLE, LabFiles
from nixprov_lab.registry import HostState, LabState

LONGEST_INTERFACE_NAME = 15


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(RUNTIME_VARIABLE, str(tmp_path))
    monkeypatch.delenv(running.LAB_VARIABLE, raising=False)
    return tmp_path


def lab(runtime: Path, lab_id: str) -> LabState:
    subnet = network.subnet_of(lab_id)
    state = LabState(
        id=lab_id,
        started=0,
        bridge=network.bridge_of(lab_id),
        subnet=str(subnet),
        cgroup="/none",
        disks="/none",
        lower=("/tree", "/base"),
        hosts=(HostState("host1", network.address(subnet, 1), "0" * 32),),
    )
    files = LabFiles(runtime / lab_id)
    files.root.mkdir()
    files.lease.touch()
    state.save(files.state)
    return state


def test_interfaces_have_names_the_kernel_takes() -> None:
    last = f"host{network.MOST_HOSTS}"
    assert len(network.link_of("abcdef", last)) <= LONGEST_INTERFACE_NAME
    assert len(network.bridge_of("abcdef")) <= LONGEST_INTERFACE_NAME


def test_addresses_come_from_the_id() -> None:
    subnet = network.subnet_of("0aff99")
    assert str(subnet) == "10.10.255.0/24"
    assert network.gateway(subnet) == "10.10.255.1"
    assert [network.address(subnet, number) for number in (1, 2)] == ["10.10.255.11", "10.10.255.12"]
    assert network.address(subnet, network.MOST_HOSTS) == "10.10.255.109"


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ([], True),
        (["10.10.254.0/24"], True),
        (["10.10.255.7/32"], False),
        (["10.0.0.0/8"], False),
    ],
)
def test_a_subnet_in_use_is_not_taken(taken: list[str], free: bool) -> None:
    assert network.is_free(network.subnet_of("0aff99"), [IPv4Network(name) for name in taken]) is free


def test_a_state_survives_its_file(runtime: Path) -> None:
    state = lab(runtime, "0aff99")
    assert LabState.load(LabFiles(runtime / "0aff99").state) == state


def test_a_lab_lives_while_its_lease_is_locked(runtime: Path) -> None:
    lab(runtime, "0aff99")
    files = LabFiles(runtime / "0aff99")
    assert not registry.is_alive(files)
    with files.lease.open("w") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        assert registry.is_alive(files)
    assert not registry.is_alive(files)


def test_a_lab_that_is_removed_while_another_is_looked_for_is_in_nobodys_way(runtime: Path) -> None:
    lab(runtime, "0aff99")
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            (runtime / "0bff99").mkdir()
            (runtime / "0bff99").rmdir()

    other, met = threading.Thread(target=come_and_go), 0
    other.start()
    try:
        while met < 1000:
            found = [files.id for files in registry.entries()]
            assert "0aff99" in found
            met += len(found) - 1
    finally:
        over.set()
        other.join()


def test_find_takes_the_named_lab_else_the_newest(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for lab_id in ("aaaaaa", "bbbbbb"):
        lab(runtime, lab_id)
    with LabFiles(runtime / "aaaaaa").lease.open("w") as one, LabFiles(runtime / "bbbbbb").lease.open("w") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        assert running.find().id == "aaaaaa", "the other is dead"
        fcntl.flock(other, fcntl.LOCK_EX)
        assert running.find().id == "bbbbbb"
        monkeypatch.setenv(running.LAB_VARIABLE, "aaaaaa")
        assert running.find().id == "aaaaaa"


def test_no_lab_is_said_with_what_to_do() -> None:
    with pytest.raises(LabError, match="no lab is running; nixprov lab start"):
        running.find()


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(process, "ADMIN_PATH", "/nonexistent")
    assert "systemd-nspawn" in process.missing_for_lab()
    assert process.missing_for_lab().endswith("apt-get install debootstrap iproute2 openssh-client systemd-container")


def test_a_cache_overlayfs_cannot_take_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a:b"))
    with pytest.raises(LabError, match="a:b"):
        tree.ensure(print)


def test_a_newer_nix_is_a_layer_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built: list[list[str]] = []

    def build(target: Path, argv: list[str], _: object) -> None:
        built.append(argv)
        target.mkdir()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tree, "_build", build)
    monkeypatch.setattr(tree, "_apt_settings", str)
    own, base = tree.ensure(print)
    other, nix, same = tree.ensure(print, nix_from="forky")
    assert (same, nix.name, nix.parent.name[:4]) == (base, "upper", "nix-")
    assert other != own
    assert [Path(argv[0]).name for argv in built] == ["base.sh", "layer.sh", "newer-nix.sh", "layer.sh"]
    assert (built[2][1:4:2], built[3][1]) == ([str(base), "forky"], f"{nix}:{base}")
    assert tree.ensure(print) == (own, base)
    assert len(built) == 4


def test_a_failed_build_says_the_last_lines_of_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tree, "_IN_NAMESPACES", ())
    script = tmp_path / "script"
    script.write_text("mkdir -p $1/made; echo going on; echo no mirror >&2; exit 3\n")
    said: list[str] = []
    with pytest.raises(LabError, match="could not be built: no mirror; the whole log is"):
        tree._build(tmp_path / "tree", [str(script), "TREE"], said.append)
    assert said == ["going on"]
    assert not (tmp_path / "tree.building").exists()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Failed to create control group inotify object: Too many open files\n", True),
        ("accept: Too many open files\n", False),
        ("watching by inotify\n", False),
    ],
)
def test_too_few_inotify_instances_are_named(tmp_path: Path, said: str, told: bool) -> None:
    (tmp_path / "host1.console.log").write_text("Welcome\n")
    (tmp_path / "host9.console.log").write_text(said)
    hint = control._hint(tmp_path)
    assert hint.endswith(f"its logs are in {tmp_path}")
    assert ("sysctl -w fs.inotify.max_user_instances=" in hint) == told


@pytest.mark.parametrize(("before", "after"), [("128", "1024"), ("4096", "4096"), ("not a number", "not a number")])
def test_more_inotify_instances_are_allowed_and_never_fewer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str, after: str
) -> None:
    setting, said = tmp_path / "max_user_instances", list[str]()
    setting.write_text(before)
    monkeypatch.setattr(process, "INOTIFY", setting)
    process.allow_inotify(said.append)
    assert setting.read_text() == after
    assert bool(said) == (before != after)


def test_no_setting_of_apt_that_runs_a_program_is_copied() -> None:
    settings = ['Acquire::http::Proxy "x";', 'Acquire::http::Proxy-Auto-Detect "/bin/x";', 'Acquire::IndexTargets "";']
    assert [line for line in settings if tree._APT_SETTINGS.match(line)] == settings[:1]
