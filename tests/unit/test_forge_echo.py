"""A proxy that shows the request it did not like has the token in its answer; no error of ours has."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from provisioner.errors import ForgeError
from provisioner.forge.gitlab import GitLabForge
from provisioner.forge.settings import ForgeSettings, TokenKind
from provisioner.forge.transport import Patience
from provisioner.model import Mark, RunnerSpec, RunnerType, Secret

TOKEN = "glpat-poison"
MARK = Mark("host1", "default", "0" * 12)
CALLS: dict[str, Callable[[GitLabForge], object]] = {
    "check": lambda forge: forge.check(),
    "list": lambda forge: forge.runners(RunnerType.INSTANCE, None),
    "get": lambda forge: forge.get(7),
    "create": lambda forge: forge.create(RunnerSpec(), MARK),
    "update": lambda forge: forge.update(7, RunnerSpec(), MARK),
    "reset": lambda forge: forge.reset_token(7),
    "delete": lambda forge: forge.delete(7),
    "managers": lambda forge: forge.managers(7),
    "jobs": lambda forge: forge.running_jobs(7),
}


@pytest.fixture(params=[400, 502])
def echo(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All headers of the request stand in the answer, as text and in a field of GitLab's; what was sent."""
    sent: list[str] = []

    def send(_: HTTPAdapter, asked: requests.PreparedRequest, *__: object) -> requests.Response:
        sent.append(str(dict(asked.headers)))
        response = requests.Response()
        response.status_code, response.request, response.url = request.param, asked, str(asked.url)
        response.headers["Content-Type"] = "application/json"
        body = json.dumps({"message": {"request": [sent[-1]]}}).encode()
        response.raw = urllib3.HTTPResponse(io.BytesIO(body), preload_content=False)
        return response

    monkeypatch.setattr(HTTPAdapter, "send", send)
    return sent


@pytest.mark.parametrize("kind", TokenKind)
@pytest.mark.parametrize("call", CALLS)
def test_the_token_is_in_no_error(echo: list[str], call: str, kind: TokenKind) -> None:
    settings = ForgeSettings("https://gitlab.example", Secret(TOKEN), kind)
    forge = GitLabForge(settings, Patience(repetitions=0, sleep=lambda _: None))
    with pytest.raises(ForgeError) as caught:
        CALLS[call](forge)
    assert any(TOKEN in headers for headers in echo), "the proxy had nothing to echo"
    assert TOKEN not in f"{caught.value} {caught.value!r} {caught.value.hint}"
