"""The beginning of a bridge: the text of bridge.toml, and the App and tokens to make for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlencode

from provisioner.bridge.github import PERMISSIONS

_TOML: Final = """\
# nixprov bridge: docs/bridge.md. Files of secrets are looked for beside this file, or where systemd puts credentials.
interval_s = 60

[github]
repository = {repository}
app_id = 0           # the App's settings, "App ID"
installation_id = 0  # the number at the end of the URL of its installation
private_key_file = "github-key.pem"

[gitlab]
url = {url}
project = {project}
token_file = "gitlab-token"             # project access token, Developer, scope api
push_token_file = "gitlab-push-token"   # project access token, Developer, scope write_repository

[pulls]
trust = "approval"  # or "writers": forks of people who may write are built unasked
prefix = "pr-"
runner_tag = "pulls"
ci_paths = [".gitlab-ci.yml"]

[mirror]
branches = {branches}
"""


def bridge_toml(repository: str, url: str, project: str, branches: Sequence[str]) -> str:
    """The file's text. Each string of JSON is one of TOML."""
    said = {"repository": repository, "url": url, "project": project}
    return _TOML.format(branches=json.dumps(list(branches)), **{name: json.dumps(text) for name, text in said.items()})


def steps(repository: str, url: str, project: str) -> Iterator[str]:
    """The steps to do by hand, line by line, with links."""
    owner = repository.partition("/")[0]
    query = {"name": f"{owner}-ci", "url": f"https://github.com/{repository}", "public": "false"}
    query |= {"webhook_active": "false", **{name: level for name, level in PERMISSIONS.items() if name != "metadata"}}
    yield ""
    yield "1. Make a GitHub App with no more than these permissions, and install it on this repository alone:"
    yield f"     {', '.join(f'{name}: {level}' for name, level in PERMISSIONS.items())}"
    yield f"     https://github.com/organizations/{owner}/settings/apps/new?{urlencode(query)}"
    yield f"     (of a person: https://github.com/settings/apps/new?{urlencode(query)})"
    yield "   Put its key into github-key.pem, and its two numbers into bridge.toml."
    yield "2. Make two project access tokens, role Developer, scopes api and write_repository:"
    yield f"     {url}/{project}/-/settings/access_tokens"
    yield "   Put them into gitlab-token and gitlab-push-token. Allow the second one's bot to push to what is mirrored:"
    yield f"     {url}/{project}/-/settings/repository"
    yield "3. Make a runner for pull requests (docs/bridge.md), then run: nixprov bridge check"
    yield "4. Try it: nixprov bridge once --dry-run"
