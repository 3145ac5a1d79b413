"""The way to one GitLab, as values; the names of its variables, and the one spelling of its URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import SplitResult, urlsplit

from provisioner.errors import ConfigError
from provisioner.model import Secret

URL: Final = "NIXPROV_GITLAB_URL"
TOKEN: Final = "NIXPROV_GITLAB_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE: Final = "NIXPROV_GITLAB_TOKEN_FILE"  # noqa: S105 - the name of a variable
SECTION: Final = "NIXPROV_GITLAB_CONFIG"
CA_BUNDLE: Final = "NIXPROV_GITLAB_CA"
SSL_VERIFY: Final = "NIXPROV_GITLAB_SSL_VERIFY"
TIMEOUT: Final = "NIXPROV_GITLAB_TIMEOUT"
DEFAULT_TIMEOUT_S: Final = 30.0
_IMPLIED_PORTS: Final = {"http": ":80", "https": ":443"}
_HOST: Final = re.compile(r"[^\s/\\]+")


class TokenKind(Enum):
    PRIVATE = "private"
    OAUTH = "oauth"


@dataclass(frozen=True, slots=True)
class Access:
    """The way to one GitLab.

    `verify` is False, True, or the path of a CA bundle. `timeout_s` is the longest wait for a connection and for each
    piece of a reply. `origin` names the sources for people; `warnings` are lines to show once.
    """

    url: str
    token: Secret
    token_kind: TokenKind = TokenKind.PRIVATE
    verify: bool | str = True
    timeout_s: float = DEFAULT_TIMEOUT_S
    origin: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileSettings:
    """One section of python-gitlab's files; None is a value that it leaves open."""

    url: str
    token: Secret | None = None
    token_kind: TokenKind = TokenKind.PRIVATE
    verify: bool | str = True
    timeout_s: float = DEFAULT_TIMEOUT_S


def clean_url(text: str, origin: str) -> str:
    """The base URL in one spelling: no trailing slashes, /api/v4 or implied port, and no capitals in the name.

    Hosts are given it, so two spellings would be two systems. Raises ConfigError unless it is an http(s) URL.
    """
    parts = _url(text.strip())
    if parts is None:
        shown = "" if "@" in text else f": {text!r}"  # it may hold a password
        raise ConfigError(f"{origin} is not a URL{shown}", hint="it looks like https://gitlab.example.org")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"{origin} holds more than a server and a path", hint="give the token in a file instead")
    path = parts.path.rstrip("/").removesuffix("/api/v4").rstrip("/")
    server = parts.netloc.lower().removesuffix(_IMPLIED_PORTS[parts.scheme]).removesuffix(":")
    return f"{parts.scheme}://{server}{path}"


def _url(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and _HOST.fullmatch(parts.hostname or "") and parts.port != 0
    except ValueError:  # an unclosed bracket, or no valid port
        return None
    return parts if is_url else None
