"""Shared by all tests, nixprov's and the lab's: an empty home, and one profile of hypothesis."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Some tests ask real programs, so an example may take its time; failures are printed and not kept in the tree.
settings.register_profile("nixprov", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nixprov")


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
