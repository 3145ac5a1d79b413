"""bridge.toml, strictly read: an unknown key or an unsafe value is refused."""

from __future__ import annotations

import os
import re
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from provisioner import limits
from provisioner.bridge.policy import Trust
from provisioner.errors import ConfigError
from provisioner.model import Secret
from provisioner.paths import read

CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_FILE: Final = 64 * limits.KIB


def _url(text: str) -> str:
    """https, or http to this very computer for tests; a server and a path, nothing more."""
    parts = urlsplit(text)
    if parts.username or parts.password or parts.query or parts.fragment or not parts.hostname:
        raise ValueError("it holds more or less than a server and a path")
    if not re.fullmatch(r"[a-z]+://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?", text):
        raise ValueError("it is not a plain URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(parts.hostname)):
        raise ValueError("it must begin with https://")
    return text.rstrip("/")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _matching(pattern: str, what: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text) or ".." in text or text.endswith(".lock"):
            raise ValueError(f"it is not {what}")
        return text

    return AfterValidator(check)


_WORD: Final = r"[A-Za-z0-9_.][A-Za-z0-9_.-]*"
Url = Annotated[str, AfterValidator(_url)]
Repository = Annotated[str, _matching(rf"{_WORD}/{_WORD}", "owner/name")]
Project = Annotated[str, _matching(rf"{_WORD}(/{_WORD})+", "group/name")]
Prefix = Annotated[str, _matching(r"[a-z][a-z0-9_]*-", "a word with a hyphen behind it, such as pr-")]
Branch = Annotated[str, _matching(rf"{_WORD}(/{_WORD})*", "the name of a branch")]
Inside = Annotated[str, _matching(rf"{_WORD}(/{_WORD})*", "a path in the repository")]
Line = Annotated[str, _matching(r"[ -~]{1,60}", "a short line of plain characters")]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GitHubTable(_Table):
    """The App and the repository. `private_key_file` is looked for as `Settings.secret` says."""

    repository: Repository
    app_id: Positive
    installation_id: Positive
    private_key_file: str
    api: Url = "https://api.github.com"
    git: Url = "https://github.com"


class GitLabTable(_Table):
    """The project. One token is for pipelines (`api`), one pushes (`write_repository`); it may be the same.

    `git` is where its repositories are, if not at `url`.
    """

    url: Url
    project: Project
    token_file: str
    push_token_file: str = ""
    git: Url | None = None


class PullsTable(_Table):
    """`ci_paths` are the files that define the pipeline; empty if GitLab takes it from another project.

    `runner_tag` is that of the runners for strangers; `public_variables` are known to be no secrets.
    """

    trust: Trust = Trust.APPROVAL
    prefix: Prefix = "pr-"
    ci_paths: tuple[Inside, ...] = (".gitlab-ci.yml",)
    runner_tag: str = "pulls"
    public_variables: tuple[str, ...] = ()


class MirrorTable(_Table):
    branches: tuple[Branch, ...] = ()


class CheckTable(_Table):
    name: Line = "gitlab"
    none_after_s: Positive = 600
    unreachable_after_s: Positive = 900


class LimitsTable(_Table):
    """The most that a stranger may cost: sizes in MiB, times in seconds."""

    branches: Positive = 100
    pushes_per_hour: Positive = 10
    pack_mib: Positive = 512
    base_mib: Positive = 16_384
    memory_mib: Positive = 4096
    fetch_s: Positive = 300
    base_fetch_s: Positive = 3600
    write_interval_s: NotNegative = 1.0


class DoorbellTable(_Table):
    """The address for webhooks, behind a server that speaks TLS. `gitlab_secret_file` may be left out."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8417
    secret_file: str
    gitlab_secret_file: str = ""


class Tables(_Table):
    github: GitHubTable
    gitlab: GitLabTable
    pulls: PullsTable = PullsTable()
    mirror: MirrorTable = MirrorTable()
    check: CheckTable = CheckTable()
    limits: LimitsTable = LimitsTable()
    doorbell: DoorbellTable | None = None
    interval_s: Annotated[int, Field(ge=5)] = 60

    @model_validator(mode="after")
    def _prefix_is_reserved(self) -> Tables:
        if taken := [name for name in self.mirror.branches if name.startswith(self.pulls.prefix)]:
            raise ValueError(f"the branch {taken[0]} begins with the prefix of pull requests")
        return self


class Settings:
    """bridge.toml and its secrets: in $CREDENTIALS_DIRECTORY, as systemd sets it, else beside the file."""

    def __init__(self, tables: Tables, folder: Path) -> None:
        self.tables = tables
        self._folder = folder

    def secret(self, name: str) -> Secret:
        """Read one. Raises ConfigError without its content."""
        file = Path(os.environ.get(CREDENTIALS) or self._folder) / name
        try:
            text = read(file, limits.SECRET).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not plain text"
            raise ConfigError(f"cannot read the secret {file}: {reason}") from None
        if not text:
            raise ConfigError(f"the secret {file} is empty")
        return Secret(text)


def load(file: Path) -> Settings:
    """Read it. Raises ConfigError with one line that names the key."""
    try:
        said = tomllib.loads(read(file, _FILE).decode())
        return Settings(Tables.model_validate(said), file.absolute().parent)
    except OSError as error:
        hint = "`nixprov bridge init` writes one"
        raise ConfigError(f"cannot read {file}: {error.strerror or error}", hint=hint) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{file}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    except ValueError as error:
        raise ConfigError(f"{file}: {str(error).splitlines()[0]}") from None
