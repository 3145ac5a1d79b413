"""Values go to another process and come back equal: each frozen dataclass and each error, found by walking the program.

A value is made from its fields' types. What cannot travel says so in STAYS: a new class is one or the other.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import pickle
import pkgutil
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

import provisioner
from provisioner.errors import HostError, InventoryError, NixprovError, NotUnsealed
from provisioner.model import Become, Connection, FrozenDict, HostSpec, Secret
from provisioner.sealing import Sealer, new_key

# Frozen, but no values: they hold what belongs to this process.
STAYS: Final = {
    "bridge.doorbell.Doorbell": "who is rung for",
    "bridge.git.Remote": "how to get a token",
    "ci.base.Kind": "how a provider is connected",
    "ci.gitlab.provider.GitLab": "its client",
    "engine.host.Context": "the provider's client, and who is told",
    "engine.pool.Pool": "what is done in its threads",
    "engine.executor.Threads": "the provider's client",
    "engine.rollout.Rollout": "its executor, and who is told",
    "engine.switch.Switch": "a session",
    "engine.visit.Visitor": "the provider's client",
    "inventory.document.Reader": "who is warned",
    "inventory.fleet.Inventory": "who is warned",
    "report.both.Both": "the reports of a run, with their streams",
    "report.ending.Ending": "the record of a run, with its lock",
    "report.timeline.Row": "a part of that record",
    "report.timeline.Timeline": "a part of that record",
    **dict.fromkeys((f"verbs.phases.{name}" for name in ("Change", "Finish", "Look", "Phase", "Unwind")), "functions"),
    "ssh.auth.Candidate": "a private key",
    "ssh.config.Endpoint": "made by each process from its own ssh_config",
    "ssh.dial.Proxy": "a process",
    "ssh.exec.Order": "a remote command on its way",
    "transport.Patience": "how to sleep",
}
POISON: Final = "hunter2-of-the-inventory"


def modules() -> Iterator[types.ModuleType]:
    for found in pkgutil.walk_packages(provisioner.__path__, "provisioner."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def classes() -> Iterator[type]:
    for module in modules():
        for one in vars(module).values():
            if isinstance(one, type) and one.__module__ == module.__name__:
                yield one


def is_value(one: type) -> bool:
    is_frozen = dataclasses.is_dataclass(one) and one.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return is_frozen and not (one.__name__.startswith("_") or inspect.isabstract(one))


def place(one: type) -> str:
    return f"{one.__module__}.{one.__name__}".removeprefix("provisioner.")


VALUES: Final = [one for one in classes() if is_value(one) and place(one) not in STAYS]
ERRORS: Final = [one for one in classes() if issubclass(one, NixprovError)]
# For classes whose module imports their fields' types for annotations alone.
NAMES: Final = {one.__name__: one for one in VALUES}
SIMPLE: Final[dict[Any, object]] = {
    str: "text",
    int: 7,
    float: 1.5,
    bool: True,
    bytes: b"\0bytes",
    object: "thing",
    Any: 3,
    Path: Path("/a/path"),
    datetime: datetime(2026, 1, 2, tzinfo=UTC),
    NixprovError: NixprovError("text"),
}


def sample(hint: Any, secret: str = POISON) -> Any:
    """Some value of a type, with something in every field, however deep; secrets are `secret`."""
    if hint in SIMPLE:
        return SIMPLE[hint]
    if hint is Secret:
        return Secret(secret)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return list(hint)[-1]
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, tuple)):
        return hint(**{name: sample(of, secret) for name, of in fields_of(hint).items()})
    return collection(typing.get_origin(hint), [one for one in typing.get_args(hint) if one is not Ellipsis], secret)


def collection(origin: Any, of: Sequence[Any], secret: str) -> Any:
    if origin in (typing.Union, types.UnionType):
        return sample(of[0], secret)
    items = [sample(one, secret) for one in of]
    if origin is Mapping:
        return FrozenDict({items[0]: items[1]})
    made = {tuple: tuple, Sequence: tuple, Collection: frozenset, frozenset: frozenset}
    if origin in made:
        return made[origin](items)
    raise TypeError(f"{origin} of {of} cannot travel, or has no sample here")


def fields_of(kind: type, *, required: bool = False) -> dict[str, Any]:
    """The types of what its constructor takes."""
    hints = typing.get_type_hints(kind, {**NAMES, **vars(inspect.getmodule(kind))})
    if not dataclasses.is_dataclass(kind):
        return hints
    given = [one for one in dataclasses.fields(kind) if one.init]
    missing = dataclasses.MISSING
    is_needed = [one.default is missing and one.default_factory is missing for one in given]
    return {one.name: hints[one.name] for one, needed in zip(given, is_needed, strict=True) if needed or not required}


def test_the_values_are_found() -> None:
    names = {one.__name__ for one in (*VALUES, *ERRORS)}
    assert names >= {"HostSpec", "RunnerSpec", "ModuleSpec", "Connection", "Journal", "Facts", "HostResult", "HostPlan"}
    assert names >= {
        "Run",
        "Stage",
        "Fleet",
        "Choices",
        "Limits",
        "PhaseBegun",
        "StatusRead",
        "RolledBack",
        "Cancelled",
    }
    assert set(map(place, filter(is_value, classes()))) >= set(STAYS)


@pytest.mark.parametrize("kind", VALUES, ids=place)
def test_every_value_comes_back_equal(kind: type) -> None:
    sealer = Sealer(new_key())
    value = sample(kind)
    sealed = sealer.dumps(value)
    back = sealer.loads(sealed)
    # Fields that equality leaves out are in its words.
    assert (type(back), back, repr(back)) == (kind, value, repr(value))
    assert POISON.encode() not in sealed
    if sample(kind, "one secret") == sample(kind, "another"):
        plain = pickle.loads(pickle.dumps(value))  # noqa: S301 - our own
        assert (plain, repr(plain)) == (value, repr(value))
    else:
        with pytest.raises(TypeError, match=r"provisioner\.sealing seals it"):
            pickle.dumps(value)


@pytest.mark.parametrize("kind", VALUES, ids=place)
def test_a_value_of_defaults_comes_back_equal(kind: type) -> None:
    value = kind(**{name: sample(of) for name, of in fields_of(kind, required=True).items()})
    sealer = Sealer(new_key())
    back = sealer.loads(sealer.dumps(value))
    assert (back, repr(back)) == (value, repr(value))


@pytest.mark.parametrize("kind", ERRORS, ids=place)
def test_every_error_comes_back_equal(kind: type[NixprovError]) -> None:
    error = raised(kind)
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(back) is kind
    assert (str(back), back.args, back.hint) == (str(error), error.args, error.hint)
    assert vars(back).keys() == vars(error).keys()


def raised(kind: type[NixprovError]) -> NixprovError:
    hints = typing.get_type_hints(kind.__init__)
    given = inspect.signature(kind).bind_partial()
    for name, one in inspect.signature(kind).parameters.items():
        given.arguments[name] = sample(hints[one.name])
    return kind(*given.args, **given.kwargs)


HOST: Final = HostSpec("host1", Connection("192.0.2.1", become=Become(password=Secret(POISON))))


def test_a_secret_travels_sealed_only() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(HOST)
    sealed = Sealer(key := new_key()).dumps(HOST)
    assert POISON.encode() not in sealed
    assert Sealer(key).loads(sealed) == HOST
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Sealer(key))


def test_another_key_or_another_byte_opens_nothing() -> None:
    sealer = Sealer(new_key())
    sealed = sealer.dumps(HOST)
    for opener, found in ((Sealer(new_key()), sealed), (sealer, sealed[:-8] + b"AAAAAA=="), (sealer, b"cos\nsystem\n")):
        with pytest.raises(NotUnsealed, match="another key sealed it, or it was changed"):
            opener.loads(found)


def test_an_error_keeps_its_words_and_its_host() -> None:
    error = InventoryError("no such group", file="hosts.yml", line=3, hint="look there")
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert str(back) == "hosts.yml:3: no such group; look there"
    assert (back.file, back.line) == ("hosts.yml", 3)
    assert pickle.loads(pickle.dumps(HostError("host1", "away"))).host == "host1"  # noqa: S301 - our own


def test_a_frozen_dict_is_a_mapping_that_stays() -> None:
    items = {"a": 1}
    frozen = FrozenDict(items)
    items["b"] = 2
    assert frozen == {"a": 1}
    assert frozen == {"a": 1}
    assert hash(frozen) == hash(FrozenDict({"a": 1}))
    with pytest.raises(TypeError):
        frozen["c"] = 3  # type: ignore[index]
