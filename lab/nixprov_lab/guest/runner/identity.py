"""The identity of this runner: version, system id."""

from __future__ import annotations

import hashlib
import hmac
import os
import platform
import re
import secrets
import string
from pathlib import Path
from typing import Final

NAME: Final = "gitlab-runner"
VERSION: Final = "19.4.0-nixprov-lab"
REVISION: Final = "stand-in"
BRANCH: Final = "nixprov"
SYSTEM_ID: Final = re.compile(r"[sr]_[0-9a-zA-Z]{12}")
_ID_LENGTH: Final = 12


def architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def user_agent() -> str:
    return f"{NAME} {VERSION} ({BRANCH}; python{platform.python_version()}; linux/{architecture()})"


def version_text() -> str:
    """The output of `--version`, in gitlab-runner's layout. Its second line tells that this is no gitlab-runner."""
    rows = (
        ("Version:", VERSION),
        ("Git revision:", f"{REVISION} (nixprov's lab; not GitLab's gitlab-runner)"),
        ("Git branch:", BRANCH),
        ("Python:", platform.python_version()),
        ("OS/Arch:", f"linux/{architecture()}"),
    )
    return "".join(f"{label:<14}{text}\n" for label, text in rows)


def system_id(state_file: Path) -> tuple[str, bool]:
    """The id in `.runner_system_id` beside config.toml, made if missing, and whether it could be kept there."""
    try:
        found = state_file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        found = ""
    if SYSTEM_ID.fullmatch(found):
        return found, True
    made = _make()
    try:
        state_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(state_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(made)
    except OSError:
        return made, False
    return made, True


def _make() -> str:
    for file in (Path("/var/lib/dbus/machine-id"), Path("/etc/machine-id")):
        try:
            machine = file.read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if machine:
            return "s_" + hmac.new(machine.encode(), b"gitlab-runner", hashlib.sha256).hexdigest()[:_ID_LENGTH]
    alphabet = string.ascii_letters + string.digits
    return "r_" + "".join(secrets.choice(alphabet) for _ in range(_ID_LENGTH))
