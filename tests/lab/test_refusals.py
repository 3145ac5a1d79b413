"""What a user can cause: one clear line each, its own exit code, and nothing changed."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from nixprov_lab.control import ACCEPTED
from nixprov_lab.running import Lab

from tests.lab.operator import Operator, Said, leftovers, snapshot


@pytest.fixture
def operator(lab: Lab, tmp_path: Path) -> Operator:
    return Operator(lab, tmp_path)


def one_line(said: Said, *words: str) -> None:
    """The complaint is one line with these words; no traceback stands anywhere."""
    assert "Traceback" not in said.err
    lines = [line for line in said.err.splitlines() if all(word in line for word in words)]
    assert len(lines) == 1, said.err


def writes(lab: Lab) -> list[dict[str, Any]]:
    return [call for call in lab.gitlab.calls() if call["method"] != "GET" and call["token"].startswith("personal")]


def test_a_wrong_inventory(operator: Operator, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("[ci]\nhost1 ansible_host\n")
    said = operator("up", "--yes", "-i", str(wrong))
    assert said.code == 2
    one_line(said, f"{wrong}:2", "ansible_host")


def test_no_host_selected(operator: Operator) -> None:
    said = operator("up", "nosuch", "--yes")
    assert said.code == 3
    one_line(said, "nosuch")


def test_no_inventory_at_all(operator: Operator, tmp_path: Path) -> None:
    said = operator("up", "--yes", "-i", str(tmp_path / "missing"))
    assert said.code == 2
    one_line(said, "missing")


def test_a_host_that_is_down(operator: Operator, lab: Lab, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        inventory = tmp_path / "hosts"
        inventory.write_text(f"gone ansible_host=127.0.0.1 ansible_port={closed.getsockname()[1]} ansible_user=root\n")
        said = operator("up", "--yes", "-i", str(inventory), "--json")
    assert said.code == 6
    assert (said.summary["unreachable"], said.summary["gitlab_writes"]) == (1, 0)
    one_line(said, "gone", "unreachable")


def test_a_wrong_host_key(operator: Operator, lab: Lab, tmp_path: Path) -> None:
    ours, other = (host.address for host in lab.state.hosts[:2])
    lines = lab.files.known_hosts.read_text().splitlines()
    known = tmp_path / "known_hosts"
    known.write_text("\n".join(line.replace(other, ours) for line in lines if line.startswith(other)) + "\n")
    inventory = tmp_path / "hosts"
    text = lab.files.inventory.read_text().replace(str(lab.files.known_hosts), str(known))
    inventory.write_text(text)
    before = writes(lab)
    said = operator("up", "host1", "--yes", "-i", str(inventory), "--json")
    assert said.code == 6
    one_line(said, "host1", "has changed", "ssh-keygen")
    assert writes(lab) == before


def test_an_unknown_host_key_is_refused_and_accepted_on_request(operator: Operator, lab: Lab, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    inventory = tmp_path / "hosts"
    inventory.write_text(lab.files.inventory.read_text().replace(str(lab.files.known_hosts), str(known)))
    said = operator("plan", "host1", "-i", str(inventory))
    assert said.code == 6
    one_line(said, "host1", "--accept-new-host-keys")
    assert operator("plan", "host1", "-i", str(inventory), "--accept-new-host-keys").code == 0
    assert operator("plan", "host1", "-i", str(inventory)).code == 0


def test_a_nix_with_a_way_to_root_that_nobody_accepted(operator: Operator, lab: Lab, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts"
    every, one = ",".join(ACCEPTED), ACCEPTED[0]
    text = lab.files.inventory.read_text()
    assert f"={every}\n" in text
    inventory.write_text(text.replace(f"={every}\n", f"={one}\n"))
    before, disk = writes(lab), snapshot(lab, "host1")
    for verb, options in (("plan", ()), ("up", ("--yes",))):
        said = operator(verb, "host1", "-i", str(inventory), "--json", *options)
        assert said.code == 5
        one_line(
            said, "failed: nix 2.26.3 lets jobs become root", *ACCEPTED[1:], "switch the host to Nix 2.28.7 or newer"
        )
        one_line(said, "warning: nix 2.26.3 lets jobs become root", f"this is accepted: {one}; 2.28.7 mends it")
        assert said.host("host1")["remote_commands"] == 1
    assert (writes(lab), snapshot(lab, "host1"), leftovers(lab, "host1")) == (before, disk, "")
    told = operator("status", "host1", "-i", str(inventory), "--json")
    nix = told.reports()["host1"]["nix"]
    assert (told.code, nix["version"], nix["judged"], nix["refused"], nix["mended"]) == (
        0,
        "2.26.3",
        True,
        True,
        "2.28.7",
    )
    assert {flaw["id"]: flaw["accepted"] for flaw in nix["flaws"] if flaw["severity"] == "root"} == {
        id_: id_ == one for id_ in ACCEPTED
    }
    assert operator("down", "host1", "--yes", "-i", str(inventory)).code == 0


def test_one_machine_under_two_names(operator: Operator, lab: Lab, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts"
    line = f"host1 ansible_host={lab.state.hosts[0].address}\n"
    text = lab.files.inventory.read_text()
    assert line in text
    inventory.write_text(text.replace(line, line + line.replace("host1", "twin")))
    before = writes(lab)
    said = operator("down", "host1,twin", "--yes", "-i", str(inventory), "--json")
    assert (said.code, said.summary["failed"], said.summary["unchanged"]) == (4, 1, 1)
    one_line(said, "machine id of", "which this run is at")
    assert writes(lab) == before


def test_gitlab_down(operator: Operator, lab: Lab) -> None:
    before = snapshot(lab, "host1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        said = operator("up", "--yes", NIXPROV_GITLAB_URL=f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert said.code == 9
    one_line(said, "127.0.0.1")
    assert (snapshot(lab, "host1"), leftovers(lab, "host1")) == (before, "")


def test_a_token_without_the_scope(operator: Operator, lab: Lab, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(lab.gitlab.token(["read_api"]))
    token.chmod(0o600)
    before, runners = snapshot(lab, "host1"), lab.gitlab.runners()
    said = operator("up", "host1", "--yes", NIXPROV_GITLAB_TOKEN_FILE=str(token))
    assert said.code == 9
    one_line(said, "host1", "scope")
    assert (snapshot(lab, "host1"), leftovers(lab, "host1"), lab.gitlab.runners()) == (before, "", runners)


def test_an_unknown_token(operator: Operator, lab: Lab, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("glpat-nobody")
    said = operator("up", "host1", "--yes", NIXPROV_GITLAB_TOKEN_FILE=str(token))
    assert said.code == 9
    one_line(said, "401")
    assert "glpat-nobody" not in said.err + said.out


@pytest.fixture
def broken(lab: Lab) -> object:
    """host2's configuration.nix parses and does not evaluate, by its owner's own fault."""
    path = "/etc/nixos/configuration.nix"
    lab.run(
        "host2",
        ["sh", "-c", f"cp -a {path} /root/whole && sed -i 's/^}}$/  services.nosuch.enable = true;\\n}}/' {path}"],
    )
    yield
    lab.run("host2", ["cp", "-a", "/root/whole", path])


def test_a_configuration_that_does_not_evaluate(operator: Operator, lab: Lab, broken: object) -> None:
    before = snapshot(lab, "host2")
    generation = lab.run("host2", ["readlink", "/nix/var/nix/profiles/system"]).stdout
    said = operator("up", "host2", "--yes", "--json")
    assert said.code == 5
    one_line(said, "host2", "a switch would fail", "services.nosuch")
    assert said.summary["gitlab_writes"] == 0
    assert (snapshot(lab, "host2"), leftovers(lab, "host2"), lab.gitlab.runners()) == (before, "", [])
    assert lab.run("host2", ["readlink", "/nix/var/nix/profiles/system"]).stdout == generation


def test_a_configuration_that_does_not_parse_is_refused_before_anything(operator: Operator, lab: Lab) -> None:
    path = "/etc/nixos/configuration.nix"
    lab.run("host2", ["sh", "-c", f"cp -a {path} /root/whole && echo '{{' >> {path}"])
    try:
        before = snapshot(lab, "host2")
        said = operator("up", "host2", "--yes", "--json")
        assert said.code == 5
        one_line(said, "host2", path)
        assert said.summary["gitlab_writes"] == 0
        assert (snapshot(lab, "host2"), leftovers(lab, "host2")) == (before, "")
    finally:
        lab.run("host2", ["cp", "-a", "/root/whole", path])


def test_down_asks_and_without_a_terminal_wants_yes(operator: Operator) -> None:
    said = operator("down")
    assert said.code == 2
    one_line(said, "host1, host2", "--yes")
