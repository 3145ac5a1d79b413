"""The edge: click's parameters become one frozen value, once, and the rest of the program takes that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, Self, TypeVar

import click

from provisioner.ci import CI_OPTIONS
from provisioner.model import FrozenDict

CONFIRM_LIMIT_S: Final = 180
CONNECT_RETRIES: Final = 2
CONNECT_TIMEOUT_S: Final = 10.0
DRAIN_LIMIT_S: Final = 3600.0
FORKS: Final = 5

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A command as it was typed, by the names of click's parameters; a field without a parameter keeps its default.

    `ci` has the options of providers of CI, by the same names. Times are in seconds. Holds names of files with
    secrets, never a secret.
    """

    pattern: str | None = None
    sources: tuple[str, ...] = ()
    limit: str | None = None
    play: str | None = None
    vault_password_file: str | None = None
    resume: str | None = None
    all_hosts: bool = False

    forks: int = FORKS
    host_limit_s: float | None = None
    serial: str | None = None
    max_fail_percentage: float | None = None
    any_errors_fatal: bool = False

    ci: Mapping[str, str] = FrozenDict()

    ask_become_pass: bool = False
    become_password_file: str | None = None
    connect_timeout: float = CONNECT_TIMEOUT_S
    connect_retries: int = CONNECT_RETRIES
    accept_new_host_keys: bool = False
    ssh_config: str | None = None

    as_json: bool = False
    progress: str = "auto"
    verbose: bool = False
    debug: bool = False
    junit: str | None = None
    report: str | None = None
    log_dir: str | None = None

    yes: bool = False
    check: bool = False
    diff: bool = False
    build: bool = False
    gone: str | None = None
    new_tokens: bool = False
    downgrade: bool = False
    take_over: bool = False
    confirm: bool = True
    confirm_s: int = CONFIRM_LIMIT_S
    drain_s: float = DRAIN_LIMIT_S
    adopt_configuration: bool = False
    force: bool = False

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        names = {option.parameter for option in CI_OPTIONS}
        ci = {name: value for name, value in parameters.items() if name in names and value is not None}
        return cls(ci=FrozenDict(ci), **{name: value for name, value in parameters.items() if name not in names})


@dataclass(frozen=True, slots=True)
class PlayFile:
    """Hand the file of `nixprov play FILE` to the command after it."""

    path: str


def with_options(command: Callable[[Options], Result]) -> Callable[..., Result]:
    """Make a command of a function of `Options`: the decorator next to the function. Raises click.UsageError."""

    @wraps(command)
    def typed(**parameters: Any) -> Result:
        if of_group := click.get_current_context().find_object(PlayFile):
            if parameters["play"]:
                raise click.UsageError("--play and `nixprov play FILE` both name a play: leave one out")
            parameters["play"] = of_group.path
        return command(Options.of(parameters))

    return typed
