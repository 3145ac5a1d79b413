"""The jobs' own Nix daemon on a real machine: the caches that it uses, and what the owner's nix.conf may tell it."""

from __future__ import annotations

import base64
import io
import json
import secrets
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from nixprov_lab.running import Lab

from tests.lab.operator import Operator, Pause, installed, poll, succeeds

HOST = "host1"
DAEMON = "nixprov-nix-daemon.service"
HOME = "/var/cache/nixprov-nix-daemon"
TABLE = "/etc/nixos/nixprov/nix-settings.nix"


@pytest.fixture(scope="module", autouse=True)
def _installed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    operator = Operator(lab, tmp_path_factory.mktemp("operator"))
    with installed(operator, HOST):
        yield


@contextmanager
def told(lab: Lab, text: str) -> Iterator[None]:
    """The host's nix.conf with more in it, for a daemon of the jobs' that starts anew."""
    lines = base64.b64encode(text.encode()).decode()
    lab.run(
        HOST,
        [
            "sh",
            "-c",
            f"mv /etc/nix/nix.conf /etc/nix/nix.conf.old; {{ cat /etc/nix/nix.conf.old; echo {lines} | base64 -d; }} > /etc/nix/nix.conf",
        ],
    )
    try:
        lab.run(HOST, ["systemctl", "restart", DAEMON])
        yield
    finally:
        lab.run(HOST, ["mv", "-f", "/etc/nix/nix.conf.old", "/etc/nix/nix.conf"])
        lab.run(HOST, ["systemctl", "restart", DAEMON])


class Cache(SimpleHTTPRequestHandler):
    """Gives the files of a folder and writes down which were asked for."""

    def __init__(self, *arguments: Any, asked: list[str], **keywords: Any) -> None:
        self.asked = asked
        super().__init__(*arguments, **keywords)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_request(self, *arguments: Any) -> None:
        pass

    def log_error(self, *arguments: Any) -> None:
        pass


@contextmanager
def serving(lab: Lab, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A folder on this computer as a cache for the machines: its address, and what was asked of it so far."""
    asked: list[str] = []
    address = urlsplit(lab.state.gitlab_url).hostname
    assert address
    with ThreadingHTTPServer((address, 0), partial(Cache, directory=str(folder), asked=asked)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{address}:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


# A path that is at the cache alone, signed with the cache's own key.
PUBLISH = r"""
set -e
export HOME=/tmp/publish-$stamp
mkdir $HOME
echo "from the cache $stamp" > $HOME/published
path=$(nix-store --add $HOME/published)
nix="nix --extra-experimental-features nix-command"
$nix key generate-secret --key-name cache-$stamp > $HOME/key
$nix key convert-secret-to-public < $HOME/key > $HOME/public
$nix copy --to "file://$HOME/cache?secret-key=$HOME/key&compression=none" $path
nix-store --delete $path > /dev/null 2>&1
echo "$path $(cat $HOME/public) $(tar -C $HOME/cache -c . | base64 -w 0)"
rm -r $HOME
"""


def test_a_job_fetches_from_the_hosts_cache_and_what_is_known_of_it_stays(lab: Lab, tmp_path: Path) -> None:
    stamp = secrets.token_hex(6)
    path, key, archive = lab.run(HOST, ["bash", "-c", f"stamp={stamp}\n{PUBLISH}"]).stdout.split()
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive))) as files:
        files.extractall(tmp_path, filter="data")
    fetch = f"nix-store --realise {path}\ncat {path}"
    info = f"/{Path(path).name[:32]}.narinfo"
    with (
        serving(lab, tmp_path) as (address, asked),
        told(lab, f"extra-substituters = {address}\nextra-trusted-public-keys = {key}\n"),
    ):
        assert f"from the cache {stamp}" in succeeds(lab, HOST, fetch).trace
        assert asked.count(info) == 1
        assert any(one.startswith("/nar/") for one in asked), asked
        lab.run(HOST, ["nix-store", "--delete", path])
        lab.run(HOST, ["systemctl", "restart", DAEMON])
        asked.clear()
        assert f"from the cache {stamp}" in succeeds(lab, HOST, fetch).trace
        assert [one for one in asked if not one.startswith("/nar/")] == []
    assert lab.run(HOST, ["stat", "--format=%A %U", HOME]).stdout == "drwx------ root\n"


SLOW = """
export COREUTILS=$(ls -d /nix/store/*-coreutils-[0-9]*/bin/cat | head -n 1 | cut -d/ -f1-4)
cat > slow.nix <<'NIX'
derivation {{
  name = "slow-{stamp}";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  PATH = "${{builtins.storePath (builtins.getEnv "COREUTILS")}}/bin";
  args = [ "-c" "{work}; echo > $out" ];
}}
NIX
nix-build --no-out-link slow.nix
"""
LINKS = "nsenter --net=/run/nixprov/network/namespace ip -brief link | grep -c '^build'"


def test_with_a_job_go_its_builds_and_their_network(lab: Lab) -> None:
    pause = Pause(lab, HOST, 601)
    job_id = lab.gitlab.queue_job(SLOW.format(stamp=secrets.token_hex(6), work=pause.shell), host=HOST)
    pause.begun()
    poll(lab, HOST, "the build has a link", LINKS)
    lab.gitlab.cancel_job(job_id)
    poll(lab, HOST, "the build is gone", "! pgrep -xf 'sleep 601'")
    poll(lab, HOST, "no link is left", f"! {LINKS}")


# What a careless owner may say, by setting. Each is one that a job would gain by.
CARELESS = {
    "access-tokens": "github.com=owner-token",
    "allow-new-privileges": "true",
    "allowed-users": "*",
    "build-dir": "/tmp",
    "build-hook": "/run/owner-hook",
    "build-users-group": "",
    "builders": "ssh://builder x86_64-linux /root/.ssh/id 4",
    "diff-hook": "/run/owner-hook",
    "experimental-features": "nix-command flakes ca-derivations recursive-nix configurable-impure-env cgroups",
    "external-builders": '[{"systems": ["x86_64-linux"], "program": "/run/owner-hook", "args": []}]',
    "filter-syscalls": "false",
    "impure-env": "TOKEN=owner-token",
    "json-log-path": "/var/log/nix.json",
    "keep-build-log": "true",
    "keep-failed": "true",
    "max-build-log-size": "0",
    "max-free": "9000000000000",
    "max-silent-time": "0",
    "min-free": "9000000000000",
    "netrc-file": "/etc/nix/netrc",
    "post-build-hook": "/run/owner-hook",
    "require-drop-supplementary-groups": "false",
    "require-sigs": "false",
    "run-diff-hook": "true",
    "sandbox": "false",
    "sandbox-fallback": "true",
    "secret-key-files": "/etc/nix/owner-key",
    "store": "daemon",
    "timeout": "0",
    "trusted-users": "*",
    "use-cgroups": "true",
}

# The jobs' daemon's own command, asked what it would go by.
EFFECTIVE = r"""
set -e
pid=$(systemctl show --property=MainPID --value nixprov-nix-daemon.service)
mapfile -d "" command < /proc/$pid/cmdline
mapfile -d "" environment < /proc/$pid/environ
while [ "${command[0]}" != -- ]; do command=("${command[@]:1}"); done
exec env --ignore-environment "${environment[@]}" "${command[@]:1:${#command[@]}-4}" config show --json
"""
CLASSED = f"""
let table = import {TABLE}; in {{
  inherit (table) measured withheld harmless since;
  inherited = builtins.attrNames table.inherited;
  forced = builtins.attrNames (table.forced {{ nix = ""; keepHook = ""; buildDir = ""; limits = {{
    buildLogMiB = 0; buildTimeout = 0; buildSilence = 0; }}; }});
}}"""


def effective(lab: Lab) -> dict[str, Any]:
    shown = json.loads(lab.run(HOST, ["bash", "-c", EFFECTIVE]).stdout)
    return {name: setting["value"] for name, setting in shown.items()}


@pytest.fixture
def table(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        lab.run(HOST, ["nix-instantiate", "--eval", "--strict", "--json", "--expr", CLASSED]).stdout
    )
    return found


def test_every_setting_of_the_machines_nix_is_classed(lab: Lab, table: dict[str, Any]) -> None:
    classed = {*table["forced"], *table["measured"], *table["inherited"], *table["harmless"]}
    lab.run(HOST, ["systemctl", "start", DAEMON])
    assert set(effective(lab)) - classed == set()


def test_nothing_that_a_careless_owner_says_of_a_forced_setting_counts(lab: Lab, table: dict[str, Any]) -> None:
    lab.run(HOST, ["systemctl", "start", DAEMON])
    before = effective(lab)
    assert set(CARELESS) == {*table["forced"], *table["measured"]}
    with told(lab, "".join(f"{name} = {value}\n" for name, value in sorted(CARELESS.items()))):
        now = effective(lab)
        features = now.pop("experimental-features")
        assert not {*features} & {"recursive-nix", *table["withheld"]}
        # What builds of a host may need is theirs.
        assert {"ca-derivations", "daemon-trust-override"} <= {*features}
        for name in set(CARELESS) & set(now):
            assert now[name] == before[name], name
        careful = {name: now[name] for name in ("secret-key-files", "builders", "impure-env", "use-cgroups", "store")}
    assert careful == {"secret-key-files": [], "builders": "", "impure-env": {}, "use-cgroups": False, "store": "local"}
