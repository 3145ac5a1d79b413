"""Commands of other packages: an entry point of the group `nixprov.commands` is a command here, as nixprov-lab's is.

Source: packaging.python.org, "Entry points specification". Packages are searched only for a name that is not ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from typing_extensions import override

from provisioner.cli.help import Group

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "nixprov.commands"
# Commands of ours in packages of their own: the name of the command, the package to install for it.
_APART: Final = {"lab": "nixprov-lab"}


class Extensible(Group):
    """A group with the commands of other packages after its own; its own win."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *sorted({*_found(), *_APART} - set(own))]

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _load(cmd_name)


def _found() -> dict[str, EntryPoint]:
    # It imports Python's e-mail package, and a command of ours does not need it.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def _load(name: str) -> click.Command | None:
    point = _found().get(name)
    if point is None:
        return _unusable(name, f"is a package of its own: pip install {_APART[name]}") if name in _APART else None
    try:
        command = point.load()
    except Exception as error:  # noqa: BLE001 - a package that is broken breaks its own command and no other
        return _unusable(name, f"cannot be loaded from {point.value}: {type(error).__name__}: {error}")
    return command if isinstance(command, click.Command) else _unusable(name, f"is no command: {point.value}")


def _unusable(name: str, why: str) -> click.Command:
    def fail(words: tuple[str, ...]) -> None:  # noqa: ARG001 - whatever follows the name
        raise click.ClickException(f"`nixprov {name}` {why}")

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    settings = {"ignore_unknown_options": True, "allow_interspersed_args": False}
    return click.Command(
        name, callback=fail, params=[words], context_settings=settings, short_help=why, add_help_option=False
    )
