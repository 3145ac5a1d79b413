"""Which runner of GitLab is kept, made, renewed or deleted, as tables over what GitLab had of the host."""

from __future__ import annotations

import pytest

from provisioner.ci.base import Held, RunnerAction, RunnerVerb
from provisioner.ci.gitlab.plan import HostRunners
from provisioner.ci.gitlab.values import Runner
from provisioner.model import RunnerSpec, RunnerType
from tests.unit.hosts import MACHINE, runner, spec

KEPT = {"default": Held(7, has_credential=True)}


def decide(
    *found: Runner, held: dict[str, Held] | None = None, renew: bool = False, wanted: RunnerSpec | None = None
) -> list[RunnerAction]:
    host = spec(wanted or RunnerSpec())
    view = HostRunners.of((one.name for one in host.runners), found)
    return list(view.to_have(host, MACHINE, KEPT if held is None else held, renew=renew))


@pytest.mark.parametrize(
    ("found", "held", "verb", "doubles"),
    [
        ((runner(7),), KEPT, RunnerVerb.KEEP, []),
        ((runner(7, tags=("x",)),), KEPT, RunnerVerb.UPDATE, []),
        ((runner(7),), {}, RunnerVerb.RESET_TOKEN, []),
        ((runner(7),), {"default": Held(7, has_credential=False)}, RunnerVerb.RESET_TOKEN, []),
        ((runner(7),), {"other": Held(7, has_credential=True)}, RunnerVerb.RESET_TOKEN, []),
        ((runner(9),), KEPT, RunnerVerb.RESET_TOKEN, []),
        ((), KEPT, RunnerVerb.CREATE, []),
        ((runner(9), runner(7)), KEPT, RunnerVerb.KEEP, [9]),
        ((runner(9), runner(8)), {}, RunnerVerb.RESET_TOKEN, [9]),
        ((runner(7, type=RunnerType.GROUP),), KEPT, RunnerVerb.CREATE, [7]),
    ],
)
def test_which_runner_is_kept(
    found: tuple[Runner, ...], held: dict[str, Held], verb: RunnerVerb, doubles: list[int]
) -> None:
    first, *others = decide(*found, held=held)
    assert first.verb is verb
    assert [(action.verb, action.id) for action in others] == [(RunnerVerb.DELETE, id_) for id_ in doubles]


def test_a_reset_also_names_what_is_to_be_adjusted() -> None:
    (action,) = decide(runner(7, tags=("x",)), held={})
    assert (action.verb, [str(one) for one in action.differences]) == (RunnerVerb.RESET_TOKEN, ["tags: x -> none"])


@pytest.mark.parametrize(
    ("found", "verb"), [((runner(7),), RunnerVerb.RESET_TOKEN), ((), RunnerVerb.CREATE)], ids=["there", "not there"]
)
def test_new_credentials_when_asked(found: tuple[Runner, ...], verb: RunnerVerb) -> None:
    assert [action.verb for action in decide(*found, renew=True)] == [verb]


def test_one_that_is_not_wanted_any_more_goes_last() -> None:
    actions = decide(runner(7), runner(8, name="extra"))
    assert [(action.verb, action.name, action.id) for action in actions] == [
        (RunnerVerb.KEEP, "default", 7),
        (RunnerVerb.DELETE, "extra", 8),
    ]


def test_a_creation_tells_what_it_sets() -> None:
    (action,) = decide(wanted=RunnerSpec(tags=("b", "a"), maximum_timeout_s=900))
    assert dict(action.settings)["tags"] == "a, b"
    assert dict(action.settings)["maximum_timeout"] == "900 s"
    assert "description" not in dict(action.settings)


def test_all_of_a_host_goes_once() -> None:
    view = HostRunners.of(("default",), (runner(7), runner(9), runner(8, name="extra")))
    assert [(action.verb, action.id) for action in view.to_lose()] == [
        (RunnerVerb.DELETE, 7),
        (RunnerVerb.DELETE, 9),
        (RunnerVerb.DELETE, 8),
    ]


def test_a_runner_without_a_mark_is_nobodys() -> None:
    view = HostRunners.of(("default",), (runner(7, description="mine"),))
    assert (dict(view.found), view.to_lose()) == ({"default": ()}, ())
