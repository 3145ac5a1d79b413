"""The bridge as a process of its own: `nixprov bridge ...` against a rig, so that it can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.contract.bridge.rig import Rig, app_key


def configured(rig: Rig) -> Path:
    """Write bridge.toml and its secrets into a folder; the clock of GitHub's stand-in has to be the real one."""
    folder = rig.folder / "config"
    folder.mkdir(exist_ok=True)
    for name, text in (("key", app_key()[0]), ("token", rig.api_token), ("push", rig.push_token), ("bell", "ding")):
        (folder / name).write_text(text)
    tables = rig.tables
    lines = [
        "interval_s = 5",
        "[github]",
        'repository = "owner/name"',
        "app_id = 77",
        "installation_id = 7",
        'private_key_file = "key"',
        f"api = {json.dumps(tables.github.api)}",
        f"git = {json.dumps(tables.github.git)}",
        "[gitlab]",
        f"url = {json.dumps(tables.gitlab.url)}",
        f"git = {json.dumps(tables.github.git)}",
        'project = "lab/demo"',
        'token_file = "token"',
        'push_token_file = "push"',
        "[mirror]",
        'branches = ["main"]',
        "[limits]",
        "write_interval_s = 0",
    ]
    if tables.doorbell:
        lines += ["[doorbell]", f"port = {tables.doorbell.port}", f'secret_file = "{tables.doorbell.secret_file}"']
    file = folder / "bridge.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def command(rig: Rig, *words: str) -> list[str]:
    program = [sys.executable, "-m", "provisioner", "bridge", words[0]]
    return [*program, "-c", str(configured(rig)), "--state", str(rig.folder / "state"), *words[1:]]


def run(rig: Rig, *words: str, crash: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NIXPROV_CRASH": crash, "NO_PROXY": "*"}
    return subprocess.run(
        command(rig, *words), check=False, capture_output=True, text=True, env=environment, timeout=60
    )
