"""A proxy that shows the request it did not like has the token in its answer; no error of ours has."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from provisioner.ci.gitlab.access import Access, TokenKind
from provisioner.ci.gitlab.client import Client
from provisioner.errors import CiError
from provisioner.model import Mark, RunnerSpec, RunnerType, Secret
from provisioner.transport import Patience

TOKEN = "glpat-poison"
MARK = Mark("host1", "default", "0" * 12)
CALLS: dict[str, Callable[[Client], object]] = {
    "check": lambda client: client.check(),
    "list": lambda client: client.runners(RunnerType.INSTANCE, None),
    "get": lambda client: client.get(7),
    "create": lambda client: client.create(RunnerSpec(), MARK),
    "update": lambda client: client.update(7, RunnerSpec(), MARK),
    "reset": lambda client: client.reset_token(7),
    "delete": lambda client: client.delete(7),
    "managers": lambda client: client.managers(7),
    "jobs": lambda client: client.running_jobs(7),
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
    settings = Access("https://gitlab.example", Secret(TOKEN), kind)
    client = Client(settings, Patience(repetitions=0, sleep=lambda _: None))
    with pytest.raises(CiError) as caught:
        CALLS[call](client)
    assert any(TOKEN in headers for headers in echo), "the proxy had nothing to echo"
    assert TOKEN not in f"{caught.value} {caught.value!r} {caught.value.hint}"
