"""The sources of GitLab's URL and token: options, then NIXPROV_GITLAB_* variables, then python-gitlab's own files.

Owns the order and the messages. python-gitlab itself reads its files (config_files.py), and only when options and
variables leave something open. Nothing is sent anywhere here.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from provisioner import limits
from provisioner.ci.gitlab.access import (
    CA_BUNDLE,
    DEFAULT_TIMEOUT_S,
    SECTION,
    SSL_VERIFY,
    TIMEOUT,
    TOKEN,
    TOKEN_FILE,
    URL,
    Access,
    FileSettings,
    TokenKind,
    clean_url,
)
from provisioner.errors import ConfigError
from provisioner.model import Secret
from provisioner.paths import expanded, read

MOST_TIMEOUT_S: Final = 86_400
_NO_WORDS: Final = frozenset({"0", "no", "false", "off"})
_YES_WORDS: Final = frozenset({"1", "yes", "true", "on"})
_WAYS: Final = f"give --gitlab-url and --gitlab-token-file, or set {URL} and {TOKEN_FILE}"


@dataclass(frozen=True, slots=True)
class _Token:
    value: Secret
    kind: TokenKind
    origin: str
    warnings: tuple[str, ...] = field(default=())


def load(
    environ: Mapping[str, str],
    *,
    url: str | None = None,
    token_file: Path | None = None,
) -> Access:
    """Settle URL and token; `url` and `token_file` are the options' values.

    A token of python-gitlab's files is only ever used for the URL it stands beside. A URL from an option or a variable
    never gets a token meant for another server. Raises ConfigError with one line that names the missing or unreadable
    source.
    """
    named_url = _named_url(url, environ)
    token = _named_token(token_file, environ)
    from_files = None if named_url and token and SECTION not in environ else _of_python_gitlab(environ)
    chosen_url, url_origin = named_url or _url_of_files(from_files)
    same_server = from_files is not None and from_files.url == chosen_url
    token = token or _token_of_files(from_files, chosen_url, same_server=same_server)
    verify = _verify(environ, from_files.verify if from_files and same_server else True)
    unchecked = (f"the certificate of {chosen_url} is not checked",) if verify is False else ()
    return Access(
        url=chosen_url,
        token=token.value,
        token_kind=token.kind,
        verify=verify,
        timeout_s=_timeout(environ, from_files.timeout_s if from_files and same_server else DEFAULT_TIMEOUT_S),
        origin=f"url from {url_origin}, token from {token.origin}",
        warnings=token.warnings + unchecked + _in_the_clear(chosen_url),
    )


def _named_url(option: str | None, environ: Mapping[str, str]) -> tuple[str, str] | None:
    if option:
        return clean_url(option, "--gitlab-url"), "--gitlab-url"
    if environ.get(URL):
        return clean_url(environ[URL], URL), URL
    return None


def _named_token(option: Path | None, environ: Mapping[str, str]) -> _Token | None:
    if option:
        return _read_token(option, "--gitlab-token-file")
    if environ.get(TOKEN_FILE):
        return _read_token(expanded(environ[TOKEN_FILE]), TOKEN_FILE)
    if environ.get(TOKEN):
        return _Token(_checked_token(environ[TOKEN], TOKEN), TokenKind.PRIVATE, TOKEN)
    return None


def _read_token(path: Path, origin: str) -> _Token:
    """A token file that others can read is used all the same: a refusal would protect nothing."""
    try:
        text = read(path, limits.SECRET).decode()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"cannot read the token file {path} ({origin}): {reason}") from error
    warnings = (
        (f"{path} can be read by others on this computer; chmod 600 {path}",)
        if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH)
        else ()
    )
    return _Token(_checked_token(text, f"{path} ({origin})"), TokenKind.PRIVATE, origin, warnings)


def _checked_token(text: str, origin: str) -> Secret:
    """Refuse a token that cannot go into a header, without ever showing it."""
    token = text.strip()
    if not token:
        raise ConfigError(f"the GitLab token in {origin} is empty")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"the GitLab token in {origin} is not one word of plain characters")
    return Secret(token)


def _of_python_gitlab(environ: Mapping[str, str]) -> FileSettings | None:
    # This import loads python-gitlab, which the rest of this file does not need.
    from provisioner.ci.gitlab.config_files import read_config_files

    return read_config_files(environ.get(SECTION) or None)


def _in_the_clear(url: str) -> tuple[str, ...]:
    """Private addresses, such as a lab's, are not open to strangers."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return ()
    with suppress(ValueError):
        if ip_address(parts.hostname or "").is_private:
            return ()
    return (f"the token goes to {url} unencrypted; name it with https",)


def _url_of_files(files: FileSettings | None) -> tuple[str, str]:
    if files is None:
        raise ConfigError("no GitLab is named", hint=_WAYS)
    return files.url, "python-gitlab's configuration"


def _token_of_files(files: FileSettings | None, url: str, *, same_server: bool) -> _Token:
    if files is not None and same_server and files.token is not None:
        return _Token(files.token, files.token_kind, "python-gitlab's configuration")
    if files is not None and not same_server:
        message = f"there is no token for {url}: python-gitlab's configuration names {files.url}"
        raise ConfigError(message, hint=f"give --gitlab-token-file or set {TOKEN_FILE}")
    raise ConfigError(f"there is no token for {url}", hint=f"give --gitlab-token-file or set {TOKEN_FILE}")


def _verify(environ: Mapping[str, str], otherwise: bool | str) -> bool | str:
    bundle = environ.get(CA_BUNDLE)
    word = environ.get(SSL_VERIFY, "").lower()
    if word and word not in _NO_WORDS | _YES_WORDS:
        raise ConfigError(f"{SSL_VERIFY} is neither yes nor no: {word!r}")
    if word in _NO_WORDS:
        return False
    verify: bool | str = bundle or (True if word else otherwise)
    if isinstance(verify, str) and not Path(verify).exists():
        raise ConfigError(f"the CA bundle {verify} does not exist", hint=f"see {CA_BUNDLE} or ssl_verify")
    return verify


def _timeout(environ: Mapping[str, str], otherwise: float) -> float:
    text = environ.get(TIMEOUT)
    try:
        seconds = float(text) if text else otherwise
    except ValueError as error:
        raise ConfigError(f"{TIMEOUT} is not a number of seconds: {text!r}") from error
    if not 0 < seconds <= MOST_TIMEOUT_S:
        raise ConfigError(f"{TIMEOUT} must be more than 0 seconds and at most {MOST_TIMEOUT_S}: {seconds:g}")
    return seconds
