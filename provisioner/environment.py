"""The environment of programs that we start for the operator: ssh's helpers, inventory scripts, ansible-vault."""

from __future__ import annotations

import os


def without_ours() -> dict[str, str]:
    """The program's own, without what is meant for it alone: a token may be among it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NIXPROV_")}
