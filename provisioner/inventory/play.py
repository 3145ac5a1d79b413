"""Plays: data that gives runners to hosts, in an order. No templates, no tasks, no conditions.

Owns: the models, their JSON schema, and errors with file, line and key. Knows nothing of the inventory's content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from provisioner import resources
from provisioner.errors import InventoryError
from provisioner.inventory import patterns
from provisioner.inventory.document import Reader
from provisioner.inventory.fields import explain, first_error
from provisioner.inventory.module import GROUPS, ModuleSettings
from provisioner.inventory.origin import Located, Notices, Where, kind_of, line_of, nearest
from provisioner.inventory.runners import KEYS, RunnerSettings

_PERCENT = re.compile(r"(?:100|[1-9][0-9]?)%")


def _as_list(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _batch(value: object) -> object:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not is_number and not (isinstance(value, str) and _PERCENT.fullmatch(value)):
        raise ValueError("expected a number of hosts from 1 on, or 1% to 100%")
    return value


Pattern = Annotated[str, Field(min_length=1)]
Batch = Annotated[int | str, BeforeValidator(_batch)]
Serial = Annotated[tuple[Batch, ...], BeforeValidator(_as_list, json_schema_input_type=list[int | str] | int | str)]


class Play(ModuleSettings):
    """One play. `serial` are the sizes of batches, hosts or percent, the last one repeated; empty is all at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(description="what people see")] = ""
    hosts: Annotated[Pattern, Field(description="a host pattern, as for --limit")]
    runners: Annotated[
        tuple[RunnerSettings, ...], Field(min_length=1, description="the runners of each host, below the inventory's")
    ] = (RunnerSettings(),)
    order: Literal["inventory", "reverse_inventory", "sorted", "reverse_sorted", "shuffle"] = "inventory"
    serial: Annotated[Serial, Field(description="sizes of batches")] = ()
    max_fail_percentage: Annotated[
        float | None, Field(ge=0, le=100, description="stop when more of a batch failed")
    ] = None
    any_errors_fatal: Annotated[bool, Field(description="stop when any host of a batch failed")] = False

    @field_validator("hosts")
    @classmethod
    def _selects(cls, value: str) -> str:
        if not patterns.split(value):
            raise ValueError("the pattern of hosts is empty")
        return value

    @field_validator("runners")
    @classmethod
    def _unique(cls, value: tuple[RunnerSettings, ...]) -> tuple[RunnerSettings, ...]:
        names = [runner.name for runner in value]
        if len(set(names)) != len(names):
            raise ValueError("two runners have the same name")
        return value

    @property
    def runner_settings(self) -> tuple[Mapping[str, object], ...]:
        """The written keys of each runner, without defaults: for `Inventory.select` and `Inventory.host_specs`."""
        return tuple(runner.model_dump(exclude_unset=True) for runner in self.runners)


def read(file: str, notices: Notices | None = None) -> tuple[Play, ...]:
    """The plays of a YAML file. Raises InventoryError with file, line, key and the nearest valid key."""
    value = Reader(notices or Notices()).document(file)
    if not isinstance(value, list) or not value:
        got = "an empty one" if isinstance(value, list) else kind_of(value)
        raise Where(file, 1).error(f"expected a list of plays, got {got}", hint="begin with - hosts: all")
    return tuple(_play(item, Where(file, _line(value, (number,)) or 1)) for number, item in enumerate(value))


def schema() -> dict[str, object]:
    """The JSON schema of a file of plays, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nixprov plays",
        **TypeAdapter(list[Play]).json_schema(),
    }


def shipped() -> Path:
    """The play that is used when none is named."""
    return Path(str(resources.playbooks() / "default.yml"))


def _play(value: object, where: Where) -> Play:
    if not isinstance(value, Mapping):
        raise where.error(f"a play must be a mapping, not {kind_of(value)}", hint="begin with - hosts: all")
    try:
        return Play.model_validate(value)
    except ValidationError as error:
        details = first_error(error)
        path = [step for step in details["loc"] if not _is_of_a_union(step)]
        line = _line(value, path) or where.line
        name = ".".join(str(step) for step in path)
        hint = _hint(path) if details["type"] == "extra_forbidden" else ""
        message = f"{name}: {explain(details)}" if name else explain(details)
        raise InventoryError(message, file=where.file, line=line, hint=hint) from None


def _is_of_a_union(step: str | int) -> bool:
    """Pydantic puts the member of a union that was tried into the path; it is no key of the file."""
    return isinstance(step, str) and (step in {"int", "str"} or "[" in step)


def _hint(path: Sequence[str | int]) -> str:
    group = GROUPS.get(str(path[0])) if len(path) > 1 else None
    keys = KEYS if path[0] == "runners" else tuple((group or Play).model_fields)
    return nearest(path[-1], keys) or f"the keys are {', '.join(keys)}"


def _line(value: object, path: Sequence[str | int]) -> int:
    """The line of the deepest step of the path that is in the file."""
    line = value.line if isinstance(value, Located) else 0
    for step in path:
        if isinstance(value, Mapping) and step in value:
            line = line_of(value, step) or line
            value = value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
            line = (value.line if isinstance(value, Located) else 0) or line
        else:
            break
    return line
