"""Types of options beyond click's own: times, shares and sensible names."""

from __future__ import annotations

import math
from typing import Any, Final

import click
from click.types import StringParamType

MOST_S: Final = 30 * 24 * 3600


class Seconds(click.FloatRange):
    """`inf` and `nan` are numbers too, and no wait can use them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if not seconds <= MOST_S:
            self.fail(f"{value!r} is no number of seconds up to {MOST_S}.", param, ctx)
        return seconds


class Percent(click.FloatRange):
    """`nan` passes every range check, and no share is above it: no failure would stop a run."""

    def __init__(self) -> None:
        super().__init__(0, 100)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        percent = float(super().convert(value, param, ctx))
        if math.isnan(percent):
            self.fail(f"{value!r} is no percentage.", param, ctx)
        return percent


class Named(StringParamType):
    """An empty name is often an unset variable of a script: it must not mean the default, or this folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(super().convert(value, param, ctx))
        if not text:
            self.fail("it is empty.", param, ctx)
        return text


NAMED: Final = Named()
