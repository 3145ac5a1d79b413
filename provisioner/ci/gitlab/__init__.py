"""GitLab as a provider: its facts before it is connected. Importing this imports no library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from provisioner.ci.base import Kind, Option, Provider
from provisioner.ci.gitlab.words import HOST_SIDE, SECRETS, WORDS

_URL: Final = Option("--gitlab-url", "URL", "GitLab; else NIXPROV_GITLAB_URL, python-gitlab's files.")
_TOKEN_FILE: Final = Option("--gitlab-token-file", "FILE", "Access token; else NIXPROV_GITLAB_TOKEN_FILE, ...")


def connect(environ: Mapping[str, str], options: Mapping[str, str]) -> Provider:
    from provisioner.ci.gitlab.client import Client
    from provisioner.ci.gitlab.provider import GitLab
    from provisioner.ci.gitlab.settings import load
    from provisioner.paths import expanded

    token_file = options.get(_TOKEN_FILE.parameter)
    path: Path | None = expanded(token_file) if token_file else None
    access = load(environ, url=options.get(_URL.parameter), token_file=path)
    return GitLab(Client(access), access.warnings)


KIND: Final = Kind(
    words=WORDS,
    host_side=HOST_SIDE,
    options=(_URL, _TOKEN_FILE),
    variables=(
        ("NIXPROV_GITLAB_URL", "GitLab's address, when there is no --gitlab-url."),
        ("NIXPROV_GITLAB_TOKEN_FILE", "File with the access token, when there is no --gitlab-token-file."),
        ("NIXPROV_GITLAB_TOKEN", "The access token itself, when no file is named."),
        ("NIXPROV_GITLAB_CONFIG", "Section of python-gitlab's files (PYTHON_GITLAB_CFG) for what is not said above."),
        ("NIXPROV_GITLAB_CA", "File of the authorities (PEM) that GitLab's certificate is checked against."),
        ("NIXPROV_GITLAB_SSL_VERIFY", "no: GitLab's certificate is not checked, and a warning says so."),
        ("NIXPROV_GITLAB_TIMEOUT", "Seconds that GitLab may be silent; default: 30."),
    ),
    secrets=SECRETS,
    identify=lambda text: int(text) if text.isdigit() else None,
    connect=connect,
)
