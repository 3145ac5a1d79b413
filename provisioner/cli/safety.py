"""Options for the care of a change: runs that may be taken over, confirmation, time for jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from provisioner.cli.edge import CONFIRM_LIMIT_S, DRAIN_LIMIT_S, Options
from provisioner.cli.values import Seconds

if TYPE_CHECKING:
    from provisioner.engine.host import Choices, Limits

SAFETY_OPTIONS: Final = (
    click.option("--take-over", is_flag=True, help="Take over a host from a run that is surely dead."),
    click.option("--confirm/--no-confirm", default=True, help="Roll the host back unless we can log in again."),
    click.option(
        "--confirm-limit",
        "confirm_s",
        default=CONFIRM_LIMIT_S,
        type=click.IntRange(5, 3600),
        metavar="SECONDS",
        help=f"... within this time after the activation; default: {CONFIRM_LIMIT_S}.",
    ),
    click.option(
        "--drain-limit",
        "drain_s",
        default=DRAIN_LIMIT_S,
        type=Seconds(min=0),
        metavar="SECONDS",
        help="Time for running jobs to finish; default: an hour.",
    ),
    click.option(
        "--adopt-configuration",
        is_flag=True,
        help="Replace a running system that the host's configuration does not describe.",
    ),
    click.option("--force", is_flag=True, help="End running jobs instead of waiting for them."),
)


DOWNGRADE: Final = click.option(
    "--downgrade", is_flag=True, help="Put this version's module in the place of a newer nixprov's."
)


def limits(options: Options) -> Limits:
    from provisioner.engine.host import Limits

    confirm_s = options.confirm_s if options.confirm else 0
    # The rest of the time is for a second login and a last look, before the host rolls back.
    contact_s = min(Limits().contact_s, confirm_s * 3 / 4) if confirm_s else Limits().contact_s
    return Limits(confirm_s=confirm_s, contact_s=contact_s, drain_s=options.drain_s)


def choices(options: Options) -> Choices:
    from provisioner.engine.host import Choices

    return Choices(
        take_over=options.take_over,
        force=options.force,
        new_tokens=options.new_tokens,
        downgrade=options.downgrade,
        adopt_configuration=options.adopt_configuration,
    )
