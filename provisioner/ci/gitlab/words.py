"""GitLab's nouns for people, and its part on the machine. Importing this imports no library."""

from __future__ import annotations

from typing import Final

from provisioner.ci.base import HostSide, Words

WORDS: Final = Words(key="gitlab", name="GitLab", runner="runner", process="manager", credential="token")
HOST_SIDE: Final = HostSide(
    templates="gitlab",
    files=("runner.nix", "toml.nix"),
    address="gitlabUrl",
    # The SIGQUIT of a normal stop waits for the jobs instead (gitlab-runner, "Signals").
    end_jobs="SIGTERM",
)
# By the prefixes that GitLab gives them (doc/security/tokens, "Token prefixes").
SECRETS: Final = r"\b(gl(?:pat|rt|rtr|cbt|dt|ptt|oas|soat|agent|imt|ft)-)[\w.-]{6,}"
