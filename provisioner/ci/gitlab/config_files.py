"""python-gitlab's own files, read by its own parser."""

from __future__ import annotations

import configparser

import gitlab.config

from provisioner.ci.gitlab.access import SECTION, FileSettings, TokenKind, clean_url
from provisioner.errors import ConfigError
from provisioner.model import Secret


def read_config_files(section: str | None) -> FileSettings | None:
    """The settings of `section`, or of the files' default one; None without any files.

    Raises ConfigError for a missing or wrong file or section, and for a token that cannot manage runners.
    PYTHON_GITLAB_CFG and helper commands work as python-gitlab documents them.
    """
    try:
        parsed = gitlab.config.GitlabConfigParser(section)
    except gitlab.config.ConfigError as error:
        # Only the first line: the standard error of a helper command follows it.
        message = f"python-gitlab's configuration: {str(error).splitlines()[0]}"
        raise ConfigError(message, hint=f"name its section with {SECTION}, or give URL and token") from None
    except (OSError, ValueError, configparser.Error) as error:
        # Their texts quote lines of the file, and a line may be a token.
        raise ConfigError(f"python-gitlab's configuration: {type(error).__name__}") from None
    if parsed.url is None:
        return None
    token = parsed.private_token or parsed.oauth_token
    if token is None and (parsed.job_token or parsed.http_username):
        raise ConfigError(
            f"python-gitlab's section {parsed.gitlab_id} has no token that can manage runners",
            hint="it needs private_token or oauth_token",
        )
    return FileSettings(
        url=clean_url(parsed.url, "python-gitlab's configuration"),
        token=Secret(token) if token else None,
        token_kind=TokenKind.PRIVATE if parsed.private_token else TokenKind.OAUTH,
        verify=parsed.ssl_verify,
        timeout_s=float(parsed.timeout),
    )
