"""What a run made in GitLab before it learned that the host is another run's, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from provisioner.engine import crash
from provisioner.engine.host import HostRun, wait_until
from provisioner.errors import ForgeError, HostError

# Between two looks at a host that somebody else works on.
PAUSE_S: Final = 3.0


def give_back(run: HostRun, created: Sequence[int]) -> None:
    """Delete the runners of `created` that the host's journal does not name once the run that took over has ended.

    Only then it is known whether that run found one by its mark and uses it. Whatever is not sure is left and said: it
    carries our mark, so the next `up`, `down` or `prune` finds it.
    """
    if not created:
        return
    try:
        is_known = wait_until(run, run.limits.overtaken_s, lambda: _is_free(run), pause_s=PAUSE_S)
    except HostError:
        is_known = False
    used = {record.id for record in run.journal.runners.values()}
    for runner in created:
        if not is_known:
            leave(run, runner, "the host cannot say whether it is used")
        elif runner not in used:
            delete(run, runner)


def delete(run: HostRun, runner: int) -> None:
    try:
        with crash.around("disown"):
            run.forge.delete(runner)
    except ForgeError as error:
        leave(run, runner, error.message)


def leave(run: HostRun, runner: int, why: str) -> None:
    run.remains.append(f"runner {runner} in GitLab")
    text = f"runner {runner} was created by this run and is left in GitLab: {why}"
    run.warn(f"{text}; the next `up` or `down` finds it by its mark")


def _is_free(run: HostRun) -> bool:
    run.probe()
    return run.facts.held_by in ("", run.run.id)
