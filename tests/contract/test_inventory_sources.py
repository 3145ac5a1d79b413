"""What the corpus cannot show: warnings, vaults, programs that hang or lie, plays' variables, speed, the example."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest

from provisioner.errors import InventoryError, NothingSelected
from provisioner.inventory import VaultReader, addresses, load
from provisioner.inventory.export import HIDDEN, graph, listing
from provisioner.model import Secret

ROOT = Path(__file__).parent.parent.parent


def _write(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    return tmp_path


def test_the_example_is_valid_and_quiet() -> None:
    inventory = load([str(ROOT / "inventory.example")])
    specs = {spec.name: spec for spec in inventory.select("all")}
    assert inventory.warnings == ()
    assert [spec.name for spec in inventory.select("builders:!arm")] == ["build1", "build2", "build3"]
    assert specs["arm1"].connection.options == {"proxyjump": "bastion.example.com"}
    assert [runner.name for runner in specs["build3"].runners] == ["small", "large"]


def test_nothing_selected_says_what_was_asked() -> None:
    with pytest.raises(NothingSelected, match="no host matches 'web' within the limit 'db'"):
        load(["h1,"]).match("web", "db")
    with pytest.raises(NothingSelected, match="the inventory has no hosts"):
        load([","]).match("all")


def test_a_term_without_match_is_warned_of_with_the_nearest_name(tmp_path: Path) -> None:
    said: list[str] = []
    _write(tmp_path, hosts="[web]\nh1\n")
    assert load([str(tmp_path / "hosts")], on_warning=said.append).match("h1:!wbe") == ("h1",)
    assert said == ["the pattern 'wbe' matches no host or group; did you mean web?"]


def test_warnings_come_once_and_with_their_place(tmp_path: Path) -> None:
    said: list[str] = []
    _write(tmp_path, hosts="[a]\nh1\nb\n[b]\nh1:22\n[b:vars]\nh2 x=1\n")
    inventory = load([str(tmp_path / "hosts")], on_warning=said.append)
    assert inventory.warnings == tuple(said)
    file = tmp_path / "hosts"
    assert said == [
        f"{file}:5: the port of h1 is ignored: the host is already declared at {file}:2",
        f"{file}:7: 'h2' begins no variable's name; is the line in its section?",
        f"{file}:3: b is the name of a host and of a group",
    ]


def test_variables_beside_the_play_go_over_those_beside_the_inventory(tmp_path: Path) -> None:
    _write(
        tmp_path,
        inv__hosts="[web]\nh1\n",
        inv__group_vars__all="a: inv\nb: inv\n",
        inv__group_vars__web="c: inv\n",
        inv__host_vars__h1="d: inv\n",
        play__group_vars__all="b: play\nc: play\n",
        play__host_vars__h1="d: play\n",
    )
    inventory = load([str(tmp_path / "inv" / "hosts")], play_dir=str(tmp_path / "play"))
    assert dict(inventory.hosts["h1"].vars) == {"a": "inv", "b": "play", "c": "inv", "d": "play"}


def test_an_executable_text_is_read_as_text_and_warned_of(tmp_path: Path) -> None:
    _write(tmp_path, hosts="h1\n")
    (tmp_path / "hosts").chmod(0o755)
    inventory = load([str(tmp_path / "hosts")])
    assert (list(inventory.hosts), len(inventory.warnings)) == (["h1"], 1)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/bin/sh\necho a >&2; echo no such token >&2; exit 3\n", "--list ended with status 3: no such token"),
        ("#!/bin/sh\necho '{'\n", "--list does not print JSON"),
        ("#!/bin/sh\necho '[]'\n", "--list must print a mapping, not a list"),
        ("#!/nowhere/sh\n", "cannot be run"),
        ('#!/bin/sh\n[ $1 = --list ] && echo \'{"g": ["h1"]}\' || exit 4\n', "--host h1 ended with status 4"),
        ('#!/bin/sh\necho \'{"g": {"hosts": [1]}}\'\n', "a host's name must be a string, not a number"),
        ('#!/bin/sh\necho \'{"g": {"children": ["g"]}}\'\n', "group g cannot be a child of g"),
    ],
)
def test_programs_that_fail_are_errors(tmp_path: Path, script: str, message: str) -> None:
    _write(tmp_path, inv=script)
    with pytest.raises(InventoryError) as caught:
        load([str(tmp_path / "inv")])
    assert str(caught.value).startswith(f"{tmp_path / 'inv'}: {message}")


def test_what_a_program_complains_of_is_a_warning(tmp_path: Path) -> None:
    _write(tmp_path, inv="#!/bin/sh\necho '\033[1mold API' >&2; echo '{\"_meta\": {\"hostvars\": {}}}'\n")
    assert load([str(tmp_path / "inv")]).warnings == (f"{tmp_path / 'inv'}: --list says: \x1b[1mold API",)


def test_a_program_does_not_get_our_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIXPROV_GITLAB_TOKEN", "poison")
    monkeypatch.setenv("CLOUD_TOKEN", "theirs")
    _write(tmp_path, inv='#!/bin/sh\necho "{\\"g\\": [\\"h$NIXPROV_GITLAB_TOKEN-$CLOUD_TOKEN\\"]}"\n')
    assert list(load([str(tmp_path / "inv")]).hosts) == ["h-theirs"]


VAULT = "$ANSIBLE_VAULT;1.1;AES256\n6162\n"
ENCRYPTED = {
    "value": {"hosts.yml": "all:\n  hosts:\n    h1:\n      p: !vault |\n        $ANSIBLE_VAULT;1.1;X\n        6162\n"},
    "file": {"hosts.yml": "all: {hosts: {h1: }}", "group_vars__all__vault.yml": VAULT},
    "json": {"hosts.json": json.dumps({"all": {"hosts": {"h1": {"p": {"__ansible_vault": VAULT}}}}})},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "where"), [("value", "hosts.yml:4"), ("file", "group_vars/all/vault.yml"), ("json", "hosts.json:1")]
)
def test_what_is_encrypted_names_its_file(tmp_path: Path, kind: str, where: str) -> None:
    _write(tmp_path, **ENCRYPTED[kind])
    with pytest.raises(InventoryError) as caught:
        load([str(tmp_path / next(iter(ENCRYPTED[kind])))])
    assert str(caught.value) == f"{tmp_path}/{where}: is encrypted with ansible-vault; give --vault-password-file FILE"


@pytest.fixture
def fake_vault(tmp_path: Path) -> Path:
    """A program with ansible-vault's interface whose cipher is a word."""
    program = tmp_path / "bin" / "ansible-vault"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1 $2 $4 $5" = "decrypt --vault-password-file --output -" ] || exit 9\n'
        '[ -z "$NIXPROV_GITLAB_TOKEN" ] || exit 8\n'
        'grep -q right "$3" || { echo bad password >&2; exit 1; }\n'
        'case "$(cat)" in *6162) echo "p: geheim" ;; *) exit 2 ;; esac\n'
    )
    program.chmod(0o755)
    (tmp_path / "password").write_text("right")
    (tmp_path / "wrong").write_text("none")
    return program


@pytest.mark.parametrize("kind", ENCRYPTED)
def test_a_vault_is_opened_and_its_content_stays_secret(
    tmp_path: Path, fake_vault: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIXPROV_GITLAB_TOKEN", "poison")
    _write(tmp_path, **ENCRYPTED[kind])
    reader = VaultReader(str(tmp_path / "password"), str(fake_vault))
    inventory = load([str(tmp_path / next(iter(ENCRYPTED[kind])))], vault=reader)
    [host] = inventory.select("all")
    secret = host.vars["p"]
    assert isinstance(secret, Secret)
    assert "geheim" in secret.reveal()
    for shown in (repr(inventory), repr(host), json.dumps(listing(inventory)), graph(inventory, with_vars=True)):
        assert "geheim" not in shown
    assert HIDDEN in json.dumps(listing(inventory))


@pytest.mark.parametrize(
    ("password", "program", "message"),
    [("wrong", "", "cannot be decrypted"), ("password", "nowhere", "nowhere is not installed, and this is encrypted")],
)
def test_a_vault_that_does_not_open(
    tmp_path: Path, fake_vault: Path, password: str, program: str, message: str
) -> None:
    _write(tmp_path, **ENCRYPTED["value"])
    reader = VaultReader(str(tmp_path / password), program or str(fake_vault))
    with pytest.raises(InventoryError, match=f"hosts.yml:4: {message}"):
        load([str(tmp_path / "hosts.yml")], vault=reader)


def test_the_real_ansible_vault_is_understood(tmp_path: Path) -> None:
    import subprocess

    program = shutil.which("ansible-vault", path=str(Path(sys.executable).parent))
    assert program is not None, "ansible-core is a dependency of the tests"
    (tmp_path / "password").write_text("right\n")
    _write(tmp_path, hosts="h1\n", host_vars__h1="ansible_become_password: geheim\n")
    encrypt = [program, "encrypt", "--vault-password-file", str(tmp_path / "password"), str(tmp_path / "host_vars/h1")]
    subprocess.run(encrypt, check=True, capture_output=True)
    inventory = load([str(tmp_path / "hosts")], vault=VaultReader(str(tmp_path / "password"), program))
    become = inventory.select("all")[0].connection.become
    assert become is not None
    assert become.password == Secret("geheim")


def test_passwords_are_hidden_wherever_variables_are_shown(tmp_path: Path) -> None:
    _write(tmp_path, hosts="h1 ansible_become_password=geheim\n[all:vars]\nansible_password=auch\n")
    inventory = load([str(tmp_path / "hosts")])
    for shown in (
        repr(inventory),
        repr(inventory.select("h1")),
        str(listing(inventory)),
        graph(inventory, with_vars=True),
    ):
        assert "geheim" not in shown
        assert "auch" not in shown


def test_graph_is_drawn_as_ansible_draws_it(tmp_path: Path) -> None:
    _write(tmp_path, hosts="h0\n[web]\nh1 b=1 a=x\n[web:vars]\nc=2\n[p:children]\nweb\n")
    inventory = load([str(tmp_path / "hosts")])
    assert graph(inventory) == "@all:\n  |--@ungrouped:\n  |  |--h0\n  |--@p:\n  |  |--@web:\n  |  |  |--h1"
    assert graph(inventory, "web", with_vars=True).splitlines() == [
        "@web:",
        "  |--h1",
        "  |  |--{a = x}",
        "  |  |--{b = 1}",
        "  |  |--{c = 2}",
        "  |--{c = 2}",
    ]
    with pytest.raises(InventoryError, match="there is no group wbe in the inventory; did you mean web"):
        graph(inventory, "wbe")


def test_an_unknown_host_is_named_with_the_nearest() -> None:
    with pytest.raises(InventoryError, match="there is no host build11 in the inventory; did you mean build1"):
        load(["build1,web"]).host_specs(["build11"])


def test_ranges_are_bounded() -> None:
    with pytest.raises(ValueError, match="more than 65536 hosts"):
        addresses.expand("h[1:300][1:300]")
    with pytest.raises(ValueError, match="more than 65536 hosts"):
        addresses.expand("h[0:999999999]")


def test_a_thousand_hosts_load_in_well_under_a_second(tmp_path: Path) -> None:
    lines = "\n".join(f"node{n} ansible_host=10.0.{n // 250}.{n % 250} note='rack {n % 7}'" for n in range(500))
    groups = "\n".join(f"[g{n}]\nweb[{n * 10:04}:{n * 10 + 9:04}]" for n in range(1, 51))
    _write(
        tmp_path, hosts=f"{lines}\n[web]\nweb[0001:0500] rack=1\n{groups}\n[web:vars]\nx=1\n", group_vars__all="a: 1\n"
    )
    started = time.process_time()
    inventory = load([str(tmp_path / "hosts")])
    assert time.process_time() - started < 1
    assert len(inventory.match("all")) == len(inventory.hosts) >= 1000
