"""The settings of a runner, in a play or in `nixprov_*` variables, and the RunnerSpec that they make.

Owns: the keys, their types and rules, and the order in which a play and an inventory override each other. Limits are
GitLab's (doc/api/users, "Create a runner"; doc/api/runners). Knows neither hosts' connections nor files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from provisioner.inventory import module
from provisioner.inventory.fields import (
    Capabilities,
    Flag,
    Image,
    Images,
    Line,
    Owner,
    Processors,
    Size,
    Tags,
    Text,
    Value,
    VariableName,
    Whole,
    explain,
    first_error,
    kind,
)
from provisioner.inventory.origin import Var, Where, nearest
from provisioner.model import MARK_PATTERN, NAME_PATTERN, AccessLevel, FrozenDict, RunnerSpec, RunnerType

PREFIX: Final = "nixprov_"
LIST: Final = "nixprov_runners"
# Of the host as a whole, not of its runners: the first is read where hosts are selected.
OF_HOSTS: Final = ("nixprov_allow_all", *module.VARIABLES)
_SCOPE: Final = frozenset({"type", "group", "project"})


class RunnerSettings(BaseModel):
    """One runner, as it is written. Times are in seconds; `group` and `project` are ids or full paths."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    name: Annotated[Text, Field(pattern=f"^{NAME_PATTERN.pattern}$", description="unique on the host")] = "default"
    type: Annotated[
        Literal["instance", "group", "project"] | None,
        Field(description="follows from group or project; else instance"),
    ] = None
    group: Annotated[Owner | None, Field(description="id or full path of the group it serves")] = None
    project: Annotated[Owner | None, Field(description="id or full path of the project it serves")] = None
    description: Annotated[Line, Field(max_length=900, description="shown by the CI server, before nixprov's mark")] = (
        ""
    )
    tags: Annotated[Tags, Field(max_length=50, description="which jobs it takes")] = ()
    run_untagged: Annotated[Flag, Field(description="whether it takes jobs without tags")] = True
    locked: Annotated[Flag, Field(description="whether it stays with its project")] = False
    protected: Annotated[Flag, Field(description="whether it serves protected branches and tags only")] = False
    maximum_timeout: Annotated[Whole | None, Field(ge=600, description="longest time of a job, in seconds")] = None
    paused: Annotated[Flag, Field(description="whether it takes no jobs for now")] = False
    maintenance_note: Annotated[Text, Field(max_length=1024, description="shown by the CI server to maintainers")] = ""
    # The keys from here on are the module's, and so are their defaults (templates/core/options.nix).
    concurrent: Annotated[Whole | None, Field(ge=1, le=1000, description="how many jobs at once")] = None
    image: Annotated[Image | None, Field(description="image of jobs that name none")] = None
    allowed_images: Annotated[Images, Field(description="patterns of the images that jobs may name; none is any")] = ()
    memory: Annotated[Size | None, Field(description="of one container, as 4g")] = None
    cpus: Annotated[Processors | None, Field(description="processors of one container, as 1.5")] = None
    no_new_privileges: Annotated[
        Flag | None, Field(description="whether programs in containers can gain no rights; false: sudo works in images")
    ] = None
    cap_add: Annotated[Capabilities, Field(description="capabilities of a job's own container beside the usual")] = ()
    environment: Annotated[dict[VariableName, Value], Field(description="variables of every job; no secrets")] = {}
    stop_timeout: Annotated[
        Whole | None, Field(ge=1, description="seconds that running jobs get when the unit stops")
    ] = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.group is not None and self.project is not None:
            raise ValueError("a runner serves a group or a project, not both")
        kind = self.runner_type
        if kind.needs_owner and self.owner is None:
            raise ValueError(f"a runner of type {self.type} needs a {self.type}")
        if self.type is not None and self._implied is not None and kind is not self._implied:
            raise ValueError(f"a runner of type {self.type} has no {'project' if self.project else 'group'}")
        if not self.run_untagged and not self.tags:
            raise ValueError("a runner without tags that takes no untagged jobs would never get a job")
        if MARK_PATTERN.search(self.description):
            raise ValueError("the description contains nixprov's own mark of a runner")
        return self

    @property
    def owner(self) -> str | None:
        return self.group if self.group is not None else self.project

    @property
    def _implied(self) -> RunnerType | None:
        if self.group is not None:
            return RunnerType.GROUP
        return None if self.project is None else RunnerType.PROJECT

    @property
    def runner_type(self) -> RunnerType:
        return RunnerType.parse(self.type) if self.type else self._implied or RunnerType.INSTANCE

    def spec(self) -> RunnerSpec:
        return RunnerSpec(
            name=self.name,
            type=self.runner_type,
            owner=self.owner,
            description=self.description,
            tags=tuple(dict.fromkeys(self.tags)),
            run_untagged=self.run_untagged,
            locked=self.locked,
            access_level=AccessLevel.REF_PROTECTED if self.protected else AccessLevel.NOT_PROTECTED,
            maximum_timeout_s=self.maximum_timeout,
            paused=self.paused,
            maintenance_note=self.maintenance_note,
            concurrent=self.concurrent,
            image=self.image,
            allowed_images=self.allowed_images,
            memory=self.memory,
            cpus=self.cpus,
            no_new_privileges=self.no_new_privileges,
            cap_add=tuple(dict.fromkeys(self.cap_add)),
            stop_timeout_s=self.stop_timeout,
            environment=FrozenDict(dict(self.environment)),
        )


KEYS: Final = tuple(RunnerSettings.model_fields)
VARIABLES: Final = (*(PREFIX + key for key in KEYS if key != "name"), LIST)


def specs(
    host: str, variables: Mapping[str, Var], play_runners: Sequence[Mapping[str, object]]
) -> tuple[RunnerSpec, ...]:
    """The runners wanted on a host.

    `play_runners` are mappings of RunnerSettings' keys. A `nixprov_*` variable goes over each of them. The entries of
    `nixprov_runners` replace them all, and go over the other variables. Raises InventoryError.
    """
    own = {
        name.removeprefix(PREFIX): var
        for name, var in variables.items()
        if name.startswith(PREFIX) and name not in OF_HOSTS
    }
    _check_names(host, own)
    listed = own.pop(LIST.removeprefix(PREFIX), None)
    said = {key: var.value for key, var in own.items()}
    if listed is None:
        layers = [_over(dict(runner), said) for runner in play_runners or ({},)]
        places = [own] * len(layers)
    else:
        entries = _entries(host, listed)
        layers = [_over(said, entry) for entry in entries]
        places = [{key: var for key, var in own.items() if key not in entry} for entry in entries]
    found = tuple(_validated(host, layer, place, listed) for layer, place in zip(layers, places, strict=True))
    _check_unique(host, found, listed)
    return found


def _over(lower: Mapping[str, object], upper: Mapping[str, object]) -> dict[str, object]:
    """The scope of a runner is one decision: an upper layer with a part of it replaces all of it."""
    dropped = _SCOPE if upper.keys() & _SCOPE else frozenset()
    return {key: value for key, value in lower.items() if key not in dropped} | dict(upper)


def _check_names(host: str, own: Mapping[str, Var]) -> None:
    for key, var in own.items():
        if PREFIX + key not in VARIABLES:
            hint = nearest(PREFIX + key, (*VARIABLES, *OF_HOSTS)) or f"the variables are {', '.join(VARIABLES)}"
            raise var.where.error(f"host {host}: there is no variable {PREFIX}{key}", hint=hint)


def _entries(host: str, listed: Var) -> list[Mapping[str, object]]:
    entries = listed.value
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise listed.where.error(f"host {host}: {LIST}: expected a list of mappings, got {kind(entries)}")
    return entries


def _validated(host: str, layer: Mapping[str, object], own: Mapping[str, Var], listed: Var | None) -> RunnerSpec:
    try:
        return RunnerSettings.model_validate(layer).spec()
    except ValidationError as error:
        details = first_error(error)
        key = str(details["loc"][0]) if details["loc"] else ""
        if key in own:
            raise own[key].where.error(f"host {host}: {PREFIX}{key}: {explain(details)}") from None
        where = listed.where if listed else next((var.where for var in own.values()), Where())
        what = f"{LIST}: " if listed else ""
        hint = nearest(key, KEYS) if details["type"] == "extra_forbidden" else ""
        raise where.error(f"host {host}: {what}{f'{key}: ' if key else ''}{explain(details)}", hint=hint) from None


def _check_unique(host: str, found: Iterable[RunnerSpec], listed: Var | None) -> None:
    seen: set[str] = set()
    for spec in found:
        if spec.name in seen:
            where = listed.where if listed else Where()
            raise where.error(f"host {host}: two runners are named {spec.name}", hint="give each a name of its own")
        seen.add(spec.name)
