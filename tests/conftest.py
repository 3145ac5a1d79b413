"""What all tests share: none of them reads the developer's own configuration."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and no settings from the environment, so that a test sees only what it made."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in (
        "NIXPROV_INVENTORY",
        "NIXPROV_GITLAB_URL",
        "NIXPROV_GITLAB_TOKEN_FILE",
        "PYTHON_GITLAB_CFG",
        "SSH_AUTH_SOCK",
    ):
        monkeypatch.delenv(name, raising=False)
    return home
