"""The environment of programs that we start for the operator: ssh's helpers, inventory scripts, ansible-vault."""

from __future__ import annotations

import os


def clean_environment() -> dict[str, str]:
    """Ours, without what is meant for us alone: a token may be among it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NIXPROV_")}
