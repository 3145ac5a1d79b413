"""The settings of the module on a host, in a play or in `nixprov_*` variables.

Owns the keys and their ranges; the defaults are the module's alone (templates/core/options.nix). A variable is one
setting (`nixprov_limits_tasks`), so that a group and a host of it may each set one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from provisioner import advisories
from provisioner.inventory.fields import Flag, Line, Whole, explain, first_error, wrong
from provisioner.inventory.origin import Var, Where
from provisioner.model import Engine, ModuleSpec, Trust


class _Settings(BaseModel):
    """The keys have our names when read, and the names of the module's options when written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def options(self) -> dict[str, int]:
        said = self.model_dump(exclude_none=True)
        aliases = {name: field.serialization_alias for name, field in type(self).model_fields.items()}
        return {aliases[name] or to_camel(name): value for name, value in said.items()}


Amount = Annotated[Whole, Field(ge=0)]
Positive = Annotated[Whole, Field(ge=1)]
Percent = Annotated[Whole, Field(ge=1, le=100)]
Weight = Annotated[Whole, Field(ge=1, le=10_000)]


def _advisories(value: object) -> object:
    """A list of ids, or ids with commas between, as an INI file has them."""
    if value is None:
        return ()
    if not isinstance(value, str | list | tuple):
        raise wrong("a list of ids, or ids with commas between", value)
    if isinstance(value, str):
        value = value.split(",")
    return [one.strip() if isinstance(one, str) else one for one in value]


def _known(said: tuple[str, ...]) -> tuple[str, ...]:
    ids = [advisory.id for advisory in advisories.known()]
    for id_ in said:
        if id_ not in ids:
            raise ValueError(f"there is no advisory {id_}; known are {', '.join(ids)}")
    return said


Advisories = Annotated[
    tuple[Line, ...],
    AfterValidator(_known),
    BeforeValidator(_advisories, json_schema_input_type=list[str] | str),
]


class Limits(_Settings):
    """The share of a host that builds may take. Times are in seconds."""

    build_timeout: Annotated[Amount | None, Field(description="seconds that one build may take; 0: no limit")] = None
    build_silence: Annotated[Amount | None, Field(description="seconds without a word of it; 0: no limit")] = None
    build_log_mib: Annotated[
        Amount | None,
        Field(description="MiB of output that end a build; 0: no limit", serialization_alias="buildLogMiB"),
    ] = None
    builds_per_client: Annotated[
        Amount | None, Field(description="builds of one command at once; 0: as the host's max-jobs")
    ] = None
    connections_per_job: Annotated[Positive | None, Field(description="connections of one container to Nix")] = None
    cpu_weight: Annotated[Weight | None, Field(description="against the host's other work, which has 100")] = None
    io_weight: Annotated[Weight | None, Field(description="the same of the disk")] = None
    memory_percent: Annotated[Percent | None, Field(description="of the memory, all builds together")] = None
    tasks: Annotated[Positive | None, Field(description="processes and threads of all builds together")] = None
    tasks_per_container: Annotated[
        Positive | None, Field(description="processes and threads of one container, in podman")
    ] = None


class Cache(_Settings):
    """The time for which the builds of jobs are kept."""

    keep_days: Annotated[Positive | None, Field(description="days for which it is held from the collector")] = None
    min_free_percent: Annotated[
        Percent | None, Field(description="free disk below which a running build makes Nix collect")
    ] = None
    max_free_percent: Annotated[Percent | None, Field(description="free disk that there is to be then")] = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        least, most = self.min_free_percent, self.max_free_percent
        if least is not None and most is not None and least > most:
            raise ValueError("min_free_percent is above max_free_percent")
        return self


class ModuleSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    limits: Annotated[Limits, Field(description="what builds may take of a host")] = Limits()
    cache: Annotated[Cache, Field(description="for how long what jobs built is kept")] = Cache()
    trust: Annotated[
        Trust, Field(description="plain: jobs get the host's own Nix daemon, and with it root of the host")
    ] = Trust.NONE

    engine: Annotated[
        Engine, Field(description="docker: jobs run in the host's own Docker, not in a podman of nixprov's")
    ] = Engine.PODMAN
    share_socket: Annotated[Flag, Field(description="whether the host's users may use the jobs' socket to Nix")] = False

    accept_advisories: Annotated[
        Advisories,
        Field(description="known ways to root for jobs that the host's Nix has and that are accepted, by id"),
    ] = ()

    @property
    def module_settings(self) -> Mapping[str, Any]:
        """The written keys, without defaults: for `Inventory.host_specs`."""
        return self.model_dump(exclude_unset=True, include=set(KEYS))


KEYS: Final = tuple(ModuleSettings.model_fields)
GROUPS: Final[Mapping[str, type[_Settings]]] = {"limits": Limits, "cache": Cache}
# Each variable with the place of its value: the group and the key, or the key alone.
VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    f"nixprov_{'_'.join(place)}": place
    for place in (
        ("trust",),
        ("engine",),
        ("share_socket",),
        ("accept_advisories",),
        *((group, key) for group, model in GROUPS.items() for key in model.model_fields),
    )
}


def spec(host: str, variables: Mapping[str, Var], play: Mapping[str, Any]) -> ModuleSpec:
    """The wanted module of a host: a play's keys of ModuleSettings, each under the host's variable for it.

    Raises InventoryError.
    """
    own = {place: variables[name] for name, place in VARIABLES.items() if name in variables}
    layers = {key: dict(value) if isinstance(value, Mapping) else value for key, value in play.items()}
    for (*group, key), var in own.items():
        (layers.setdefault(group[0], {}) if group else layers)[key] = var.value
    try:
        said = ModuleSettings.model_validate(layers)
    except ValidationError as error:
        raise _explained(host, error, own) from None
    settings = {group: options for group in GROUPS if (options := getattr(said, group).options())}
    return ModuleSpec(settings, said.trust, said.engine, said.accept_advisories, said.share_socket)


def _explained(host: str, error: ValidationError, own: Mapping[tuple[str, ...], Var]) -> Exception:
    """An error at the wrong variable, or at one of two that do not agree."""
    details = first_error(error)
    place = tuple(str(step) for step in details["loc"])
    if place in own:
        return own[place].where.error(f"host {host}: nixprov_{'_'.join(place)}: {explain(details)}")
    where = next((var.where for key, var in own.items() if key[: len(place)] == place), Where())
    return where.error(f"host {host}: {'.'.join(place)}: {explain(details)}")
