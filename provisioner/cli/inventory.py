"""`nixprov inventory`: an inventory's content, in the words and shapes of ansible-inventory. Touches no host."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from provisioner.cli.completion import hosts
from provisioner.cli.help import Group
from provisioner.cli.options import SOURCES, VAULT
from provisioner.report.wording import clean, told

if TYPE_CHECKING:
    from provisioner.inventory import Inventory

_SOURCES = (SOURCES, VAULT)


def _source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SOURCES):
        command = option(command)
    return command


@click.group("inventory", cls=Group, short_help="Show hosts, groups, and a pattern's matches.")
def inventory() -> None:
    r"""Show hosts, groups and variables, and the matches of a pattern; no host is touched.

    \b
    Example: nixprov inventory match 'ci:&eu'
    """


@inventory.command("list")
@_source_options
@click.option("--json", "as_json", is_flag=True, help="The JSON of `ansible-inventory --list`.")
def list_(sources: tuple[str, ...], vault_password_file: str | None, as_json: bool) -> None:
    r"""List the hosts, one a line.

    \b
    Example: nixprov inventory list --json
    """
    from provisioner.inventory import export

    loaded = _loaded(sources, vault_password_file)
    if as_json:
        click.echo(json.dumps(export.listing(loaded), indent=2))
    else:
        click.echo("".join(f"{clean(name)}\n" for name in loaded.hosts), nl=False)


@inventory.command()
@_source_options
@click.option("--vars", "with_vars", is_flag=True, help="Show variables too.")
@click.argument("group", default="all", shell_complete=hosts)
def graph(sources: tuple[str, ...], vault_password_file: str | None, group: str, with_vars: bool) -> None:
    r"""Draw GROUP (default: all) with its groups and hosts.

    \b
    Example: nixprov inventory graph ci --vars
    """
    from provisioner.inventory import export

    drawn = export.graph(_loaded(sources, vault_password_file), group, with_vars=with_vars)
    click.echo(told(drawn).rstrip("\n"))


@inventory.command()
@_source_options
@click.argument("name", shell_complete=hosts)
def host(sources: tuple[str, ...], vault_password_file: str | None, name: str) -> None:
    r"""Show the merged variables of one host as JSON.

    \b
    Example: nixprov inventory host host1
    """
    from provisioner.inventory import export

    click.echo(json.dumps(export.host_variables(_loaded(sources, vault_password_file), name), indent=2))


@inventory.command()
@_source_options
@click.option(
    "--limit", metavar="PATTERN", shell_complete=hosts, help="Only hosts that match this too; @FILE reads names."
)
@click.option("--json", "as_json", is_flag=True, help="An array of names.")
@click.argument("pattern", shell_complete=hosts)
def match(
    sources: tuple[str, ...], vault_password_file: str | None, pattern: str, limit: str | None, as_json: bool
) -> None:
    r"""List the hosts that PATTERN selects, in order.

    \b
    Example: nixprov inventory match 'ci:&eu:!old'
    """
    names = _loaded(sources, vault_password_file).match(pattern, limit)
    click.echo(json.dumps(list(names)) if as_json else "\n".join(map(clean, names)))


def _loaded(sources: tuple[str, ...], vault_password_file: str | None) -> Inventory:
    """Its warnings go to standard error: standard output has the answer alone."""
    from provisioner.selection import Selection, read_inventory

    selection = Selection(sources, vault_password_file=vault_password_file)
    return read_inventory(selection, lambda text: click.echo(f"warning: {clean(text)}", err=True))
