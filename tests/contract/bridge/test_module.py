"""The NixOS module of the bridge: its evaluation, and systemd's verdict on the unit's exposure."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(shutil.which("nix-instantiate") is None, reason="needs the package nix-bin")
# systemd's scale of exposure, in tenths of its ten points; "OK" ends at 4.9.
MOST_EXPOSURE = 13

SYSTEM = f"""
own: let
  lib = import {ROOT}/lab/nixprov_lab/nixos/lib;
  any = lib.mkOption {{ default = {{ }}; type = lib.types.unspecified; }};
  made = lib.evalModules {{
    specialArgs.pkgs = {{
      git = "/git"; util-linux = "/util-linux"; coreutils = "/coreutils";
      formats.toml = _: {{ generate = name: settings: "/" + name; }};
    }};
    modules = [
      {ROOT}/provisioner/bridge/module.nix
      {{ options.assertions = any; options.environment = any; options.systemd.services.nixprov-bridge = any; }}
      own
    ];
  }};
in {{
  inherit (made.config) assertions;
  etc = made.config.environment.etc or {{ }};
  service = made.config.systemd.services.nixprov-bridge.serviceConfig or null;
}}
"""


def evaluated(settings: str, tmp_path: Path) -> Any:
    library = ROOT / "lab/nixprov_lab/nixos/lib"
    assert library.is_dir()
    expression = f"({SYSTEM}) {{ services.nixprov-bridge = {settings}; }}"
    command = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression]
    environment = {"PATH": "/usr/bin:/bin", "NIX_STATE_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


USED = """{
  enable = true;
  package = derivation { name = "nixprov"; system = "x"; builder = "x"; };
  settings = { };
  credentials."gitlab-token" = "/run/secrets/token";
  addresses = [ "192.0.2.7" ];
}"""


def test_switched_off_it_is_nothing(tmp_path: Path) -> None:
    assert evaluated("{ }", tmp_path)["service"] is None


def test_secrets_are_credentials_and_never_in_the_store(tmp_path: Path) -> None:
    made = evaluated(USED, tmp_path)
    assert made["service"]["LoadCredential"] == ["gitlab-token:/run/secrets/token"]
    assert [one["assertion"] for one in made["assertions"]] == [True]
    stored = evaluated(USED.replace("/run/secrets", "/nix/store/x-secrets"), tmp_path)
    assert [one["assertion"] for one in stored["assertions"]] == [False]


def test_a_person_at_the_machine_finds_its_settings(tmp_path: Path) -> None:
    made = evaluated(USED, tmp_path)
    assert made["etc"]["nixprov/bridge.toml"]["source"] == "/bridge.toml"
    assert made["service"]["ExecStart"].endswith("/bin/nixprov bridge run --config /bridge.toml")


def test_it_connects_where_it_is_allowed_to(tmp_path: Path) -> None:
    assert evaluated(USED, tmp_path)["service"]["IPAddressAllow"] == ["192.0.2.7"]
    anywhere = evaluated(USED.replace('addresses = [ "192.0.2.7" ];', ""), tmp_path)
    assert "IPAddressDeny" not in anywhere["service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_finds_little_exposed(tmp_path: Path) -> None:
    service = evaluated(USED, tmp_path)["service"]
    lines = ["[Service]"]
    for name, value in service.items():
        values = value if isinstance(value, list) and name != "SystemCallFilter" else [value]
        if name == "SystemCallFilter":
            values = value
        lines += [f"{name}={str(one).lower() if isinstance(one, bool) else one}" for one in values]
    unit = tmp_path / "nixprov-bridge.service"
    unit.write_text("\n".join(lines).replace("ExecStart=/nix", "ExecStart=/bin/true #") + "\n")
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", "--no-pager", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-600:] + done.stderr
