"""Shell completion: the scripts, and the hosts and groups of the inventory for patterns. Reads files, never a host."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from provisioner.cli.help import Command

if TYPE_CHECKING:
    from provisioner.inventory import Inventory

VARIABLE: Final = "_NIXPROV_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")
# The part of a pattern before its last name: other names and an operator (docs/inventory.md).
_BEFORE: Final = re.compile(r"(?P<before>(?:.*[:,])?[&!]?)(?P<name>[^:,]*)", re.DOTALL)

# Text that a shell does not interpret. Other names are left out, because a completed name is typed and then run.
_PLAIN: Final = re.compile(r"[\w@%+=:,./\[\]-]+")

# bash splits words at the colons of a pattern, and replaces only the part after the last one.
_BASH: Final = """\
%(complete_func)s() {
    local IFS=$'\\n' response kind value line=${COMP_LINE:0:COMP_POINT}
    local cur=${line##*[[:space:]]} done=
    [[ $COMP_WORDBREAKS == *:* && $cur == *:* ]] && done=${cur%%"${cur##*:}"}
    response=$(env COMP_WORDS="$line" COMP_CWORD="$COMP_CWORD" %(complete_var)s=bash_complete "$1")
    for response in $response; do
        IFS=, read -r kind value <<< "$response"
        case $kind in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain)
                COMPREPLY+=("${value#"$done"}")
                [[ $value == *[=:,] ]] && compopt -o nospace ;;
        esac
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        return (words, "") if line[-1:].isspace() or not words else (words[:-1], words[-1])


@click.command(cls=Command, short_help="Print a completion script for a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    r"""Print a script that completes commands, options, hosts and groups in SHELL.

    \b
    Example: nixprov completion bash > nixprov.bash
    """
    register()
    cls = get_completion_class(shell)
    assert cls is not None  # noqa: S101 - click has all of SHELLS
    click.echo(cls(context.find_root().command, {}, "nixprov", VARIABLE).source())


def register() -> None:
    add_completion_class(Bash)


def hosts(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Hosts and groups for the last name of a pattern; none when the inventory cannot be read."""
    found = _BEFORE.fullmatch(incomplete)
    if found is None or incomplete.startswith(("@", "~")):
        return []
    names = [name for name in _names(context.params) if name.startswith(found["name"]) and _PLAIN.fullmatch(name)]
    return [CompletionItem(found["before"] + name) for name in names]


def _names(options: dict[str, Any]) -> list[str]:
    try:
        loaded = _inventory(options)
    except Exception:  # noqa: BLE001 - a completion that fails must not write into the operator's line
        return []
    return [*loaded.hosts, *(name for name in loaded.groups if name not in loaded.hosts)]


def _inventory(options: dict[str, Any]) -> Inventory:
    from provisioner.selection import Selection, read_inventory

    return read_inventory(Selection(tuple(options.get("sources") or ())))
