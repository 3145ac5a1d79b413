"""Options for the reports of a run, and the reports themselves: opened before it, closed after it."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from provisioner.ci import CI_OPTIONS
from provisioner.cli.edge import Options
from provisioner.cli.values import NAMED
from provisioner.errors import ConfigError
from provisioner.paths import expanded

if TYPE_CHECKING:
    from provisioner.app import Report
    from provisioner.report.advice import Typed
    from provisioner.report.record import RunRecord
    from provisioner.verb import Verb

TOLD_OPTIONS: Final = (
    click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout, text for people on stderr."),
    click.option(
        "--progress", type=click.Choice(["auto", "live", "plain"]), default="auto", help="Live table or plain lines."
    ),
    click.option("-v", "--verbose", is_flag=True, help="Show the build's and the switch's log as it comes."),
    click.option("--debug", is_flag=True, help="Show tracebacks, for bug reports."),
)
# Of a run over hosts.
FILE_OPTIONS: Final = (
    click.option("--junit", type=NAMED, metavar="FILE", help="Write JUnit XML: one test case per host."),
    click.option("--report", type=NAMED, metavar="FILE", help="Write a page: outcomes, timeline, diffs, drift."),
    click.option("--log-dir", type=NAMED, metavar="DIR", help="Write one file per host: its phases and whole log."),
)
# Linux's own limit (path_resolution(7)).
_MOST_LINKS: Final = 40
# Options to repeat in the next command about the same hosts.
_REPEATED: Final = {
    "sources": "-i",
    "play": "--play",
    "vault_password_file": "--vault-password-file",
    "become_password_file": "--become-password-file",
    "ssh_config": "--ssh-config",
}


@contextmanager
def reporting(options: Options, verb: Verb) -> Iterator[Report]:
    """The reports that the options ask for; files appear at the end, whole, also when the run was cut short.

    Raises ConfigError, before anything happened, for a file that cannot be written.
    """
    from provisioner.report.both import Both
    from provisioner.report.json_lines import JsonLines
    from provisioner.report.record import RunRecord

    record, told = RunRecord(), typed(options, verb)
    with ExitStack() as stack:
        _files(stack, options, record, told)
        machines = [JsonLines(sys.stdout, diff=options.diff)] if options.as_json else []
        logs = _logs(stack, options.log_dir, record)
        report = Both((record, *logs, *machines, _people(stack, options, record, told)))
        yield report
    for error in report.lost.values():
        if not isinstance(error, BrokenPipeError):  # a reader that has seen enough needs no telling
            _complain(f"what was to be printed is cut short: {error.strerror}")


def typed(options: Options, verb: Verb) -> Typed:
    """The command as it would be typed again, without the hosts."""
    from provisioner.report.advice import Typed

    words: list[str] = []
    for option in CI_OPTIONS:
        if value := options.ci.get(option.parameter):
            words += [option.flag, value]
    for name, flag in _REPEATED.items():
        value = getattr(options, name)
        for one in value if isinstance(value, tuple) else [value] if value else []:
            words += [flag, str(one)]
    flags = {"ask_become_pass": "-K", "accept_new_host_keys": "--accept-new-host-keys"}
    words += [flag for name, flag in flags.items() if getattr(options, name)]
    return Typed(verb, tuple(words), tuple(_rails(options)), has_built=options.build)


def _rails(options: Options) -> Iterator[str]:
    if options.serial:
        yield from ("--serial", options.serial)
    if options.max_fail_percentage is not None:
        yield from ("--max-fail-percentage", f"{options.max_fail_percentage:g}")
    if options.any_errors_fatal:
        yield "--any-errors-fatal"


def _people(stack: ExitStack, options: Options, record: RunRecord, told: Typed) -> Report:
    from provisioner.report.colour import Painter, can_redraw, wants_colour
    from provisioner.report.text import PlainText

    people = sys.stderr if options.as_json else sys.stdout
    with suppress(AttributeError):  # a stream that a test put there
        # A character that the terminal's encoding lacks is written as \u2713 instead of ending the run.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    settings: dict[str, Any] = {
        "typed": told,
        "paint": Painter(wants_colour(sys.stderr, os.environ)),
        "paint_result": Painter(wants_colour(people, os.environ)),
        "verbose": options.verbose,
        "debug": options.debug,
        "diff": options.diff,
    }
    wish = options.progress
    if wish == "plain" or not (wish == "live" or can_redraw(sys.stderr, os.environ)):
        return PlainText(sys.stderr, people, record, **settings)
    from provisioner.report.live import LiveTable

    live = LiveTable(sys.stderr, people, record, **settings)
    stack.callback(_quietly, live.close)
    return live


def _quietly(close: Callable[[], None]) -> None:
    with suppress(OSError):  # of a terminal that is gone
        close()


def _complain(text: str) -> None:
    """A complaint that does not change how the run ended."""
    from provisioner.report.wording import clean

    with suppress(OSError):
        click.echo(f"nixprov: {clean(text)}", err=True)


def _logs(stack: ExitStack, name: str | None, record: RunRecord) -> list[Report]:
    if name is None:
        return []
    from provisioner.report.logs import HostLogs

    folder = expanded(name)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{name} cannot be made: {error.strerror}") from error
    logs = HostLogs(folder, record)
    stack.callback(logs.close)
    return [logs]


def _files(stack: ExitStack, options: Options, record: RunRecord, told: Typed) -> None:
    if options.junit:
        from provisioner.report import junit

        stack.enter_context(_written(options.junit, record, lambda: junit.document(record)))
    if options.report:
        from provisioner.report import html

        stack.enter_context(_written(options.report, record, lambda: html.page(record, told).encode()))


@contextmanager
def _written(name: str, record: RunRecord, content: Callable[[], bytes]) -> Iterator[None]:
    """Write a file once a run has ended, if it had begun.

    Its folder is tried at once, and readers never see half of the file.
    """
    draft = _draft(name)
    try:
        yield
    finally:
        try:
            if record.hosts:
                draft.publish(content())
        except OSError as error:
            # How the run ended must not be lost with it.
            _complain(f"{name} cannot be written: {error.strerror}")
        finally:
            draft.discard()


@dataclass(slots=True)
class _Draft:
    """The file at `path` in the making: written beside it by its handle, for its owner alone, and renamed.

    A pipe or a device (/dev/stdout) is written itself: never replaced.
    """

    path: Path
    place: Path | None = None
    handle: int = -1

    def publish(self, content: bytes) -> None:
        handle, self.handle = self.handle, -1
        with os.fdopen(os.open(self.path, os.O_WRONLY) if self.place is None else handle, "wb") as file:
            file.write(content)
        if self.place is not None:
            self.place.replace(self.path)

    def discard(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
        if self.place is not None:
            self.place.unlink(missing_ok=True)


def _draft(name: str) -> _Draft:
    try:
        path = expanded(name)
        if path.is_dir():
            raise ConfigError(f"{name} cannot be written: it is a folder")
        _refuse_planted(name, path)
        if path.exists() and not path.is_file():
            return _Draft(path)
        path = path.resolve()
        # Private from the first byte on: output and diffs of hosts are for the operator alone.
        handle, place = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ConfigError(f"{name} cannot be written: {error.strerror}") from error
    return _Draft(path, Path(place), handle)


def _refuse_planted(name: str, path: Path) -> None:
    """Refuse a link or pipe of another user, as in /tmp: it would redirect our report, or read it."""
    for _ in range(_MOST_LINKS):
        try:
            there = path.lstat()
        except FileNotFoundError:
            return
        if there.st_uid not in (0, os.geteuid()) and not stat.S_ISREG(there.st_mode):
            raise ConfigError(f"{name} cannot be written: {path} belongs to another user and is no regular file")
        if not stat.S_ISLNK(there.st_mode):
            return
        path = path.parent / path.readlink()
