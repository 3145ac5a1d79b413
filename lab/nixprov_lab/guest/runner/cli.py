"""gitlab-runner's commands, as far as the lab needs them. Every other one is refused by name."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from . import service, toml
from .config import Config, RunnerConfig, load
from .errors import RunnerError
from .gitlab import GitLab
from .identity import system_id, version_text
from .log import Log

_ELSEWHERE: Final = (
    *(
        "register",
        "reset-token",
        "run-single",
        "exec",
        "lint",
        "install",
        "uninstall",
        "start",
        "stop",
        "restart",
        "status",
    ),
    *("wrapper", "fleeting", "health-check", "steps", "proxy-exec", "read-logs"),
    *("artifacts-downloader", "artifacts-uploader", "cache-archiver", "cache-extractor"),
)
_ANYONE: Final = 0o777


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RunnerError(message)


def main(argv: Sequence[str]) -> int:
    """Run a command and return its exit status. An error is one line on standard error."""
    own_log = Log()
    try:
        options = _parser(Path(argv[0]).name).parse_args(_with_double_dashes(argv[1:]))
        if options.version:
            sys.stdout.write(version_text())
            return 0
        own_log.configure("debug" if options.debug else options.log_level, options.log_format)
        return _command(options, own_log)
    except RunnerError as error:
        own_log.fatal(str(error))
        return 1


def _with_double_dashes(arguments: Sequence[str]) -> list[str]:
    """-config is --config to gitlab-runner."""
    return [
        f"-{word}" if word.startswith("-") and not word.startswith("--") and len(word.partition("=")[0]) > 2 else word  # noqa: PLR2004
        for word in arguments
    ]


def _parser(program: str) -> _Parser:
    parser = _Parser(prog=program, description="nixprov's stand-in for gitlab-runner", allow_abbrev=False)
    parser.add_argument("-v", "--version", action="store_true")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("-l", "--log-level", default=os.environ.get("LOG_LEVEL", "info"))
    parser.add_argument("--log-format", default=os.environ.get("LOG_FORMAT", "runner"))
    commands = parser.add_subparsers(dest="command", parser_class=_Parser)
    run = commands.add_parser("run", allow_abbrev=False)
    _add_config(run)
    run.add_argument("-d", "--working-directory", default="")
    run.add_argument("-u", "--user", default="")
    run.add_argument("-s", "--service", default="gitlab-runner")
    _add_config(commands.add_parser("list", allow_abbrev=False))
    for name, extra in (("verify", "--delete"), ("unregister", "--all-runners")):
        selecting = commands.add_parser(name, allow_abbrev=False)
        _add_config(selecting)
        for option in ("-n", "--name"), ("-t", "--token"), ("-u", "--url"):
            selecting.add_argument(*option, default="")
        selecting.add_argument(extra, action="store_true")
    commands.add_parser("cache-init").add_argument("paths", nargs="*")
    for name in _ELSEWHERE:
        commands.add_parser(name, add_help=False, prefix_chars="\0").add_argument("rest", nargs="*")
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", default=os.environ.get("CONFIG_FILE", "") or _default_config())


def _default_config() -> str:
    if os.geteuid() == 0:
        return "/etc/gitlab-runner/config.toml"
    return str(Path.home() / ".gitlab-runner" / "config.toml")


def _command(options: argparse.Namespace, own_log: Log) -> int:
    commands: dict[str, Callable[[argparse.Namespace, Log], int]] = {
        "run": _run,
        "list": _list,
        "verify": _verify,
        "unregister": _unregister,
        "cache-init": _cache_init,
    }
    if options.command is None:
        raise RunnerError("no command given")
    if options.command not in commands:
        raise RunnerError(f"{options.command} is gitlab-runner's, but the lab's stand-in does not support it")
    return commands[options.command](options, own_log)


def _run(options: argparse.Namespace, own_log: Log) -> int:
    if options.user:
        raise RunnerError("--user: the lab's stand-in has no shell executor that would use it")
    status = service.run(Path(options.config), options.working_directory, own_log)
    if status:
        # Jobs that did not end in time hold threads, which end with the process, as gitlab-runner's do.
        signal.set_wakeup_fd(-1)
        os._exit(status)
    return 0


def _loaded(options: argparse.Namespace, own_log: Log) -> tuple[Config, dict[str, object], str]:
    path = Path(options.config)
    config, document = load(path)
    for runner in config.runners:
        own_log.hide(runner.token)
    return config, document, system_id(path.parent / service.STATE_FILE)[0]


def _list(options: argparse.Namespace, own_log: Log) -> int:
    """gitlab-runner prints whole tokens here; the stand-in does not."""
    config, _document, _system_id = _loaded(options, own_log)
    own_log.info("Listing configured runners", ConfigFile=options.config)
    for runner in config.runners:
        own_log.info(runner.name, Executor=runner.executor, Token=runner.token, URL=runner.url)
    return 0


def _verify(options: argparse.Namespace, own_log: Log) -> int:
    config, document, own_id = _loaded(options, own_log)
    selected = [index for index, runner in enumerate(config.runners) if _is_selected(runner, options)]
    if not selected and (options.name or options.token or options.url):
        raise RunnerError("no runner matches the filtering parameters")
    gone = [index for index in selected if not GitLab(config.runners[index], own_id, own_log).verify()]
    if not gone:
        return 0
    if not options.delete:
        raise RunnerError("Failed to verify runners")
    _take_out(Path(options.config), document, gone, own_log)
    return 0


def _is_selected(runner: RunnerConfig, options: argparse.Namespace) -> bool:
    if not (options.name or options.token or options.url):
        return True
    by_credentials = (options.url, options.token) == (runner.url, runner.token)
    return bool(options.name and runner.name == options.name) or by_credentials


def _unregister(options: argparse.Namespace, own_log: Log) -> int:
    config, document, own_id = _loaded(options, own_log)
    if options.all_runners:
        chosen = list(range(len(config.runners)))
    elif options.name or options.token:
        chosen = [_only(config, options)]
    else:
        raise RunnerError("at least one of --name or --token must be specified")
    done = [index for index in chosen if GitLab(config.runners[index], own_id, own_log).unregister()]
    if len(done) < len(chosen) and not options.all_runners:
        raise RunnerError(f'failed to unregister runner "{options.name}"')
    if done:
        _take_out(Path(options.config), document, done, own_log)
    return 0


def _only(config: Config, options: argparse.Namespace) -> int:
    for index, runner in enumerate(config.runners):
        if options.name in {"", runner.name} and options.token in {"", runner.token}:
            return index
    what = f"the name '{options.name}'" if options.name else "this token"
    raise RunnerError(f"could not find a runner with {what}")


def _take_out(path: Path, document: dict[str, object], indexes: Sequence[int], own_log: Log) -> None:
    entries = document["runners"]
    kept = [entry for index, entry in enumerate(entries) if index not in indexes] if isinstance(entries, list) else []
    toml.save(path, document | {"runners": kept})
    own_log.info(f"Updated {path}")


def _cache_init(options: argparse.Namespace, own_log: Log) -> int:
    """Make a new volume writable for every user; called in a container."""
    if not options.paths:
        raise RunnerError("No arguments passed, at least 1 path is required.")
    for path in options.paths:
        try:
            Path(path).chmod(_ANYONE)
        except OSError as error:
            own_log.error(f"failed to chmod path: {error}")
    return 0
