"""GitLab's status rules, pure: docs ci/runners/runners_scope, "Runner statuses", and the deprecated REST variant."""

from __future__ import annotations

from typing import Final

from nixprov_lab.gitlab.records import Runner, RunnerManager, RunnerStatus

ONLINE_WINDOW_S: Final = 2 * 3600
STALE_AFTER_S: Final = 7 * 24 * 3600


def _is_stale(now: float, created_at: float, contacted_at: float | None) -> bool:
    return now - max(created_at, contacted_at or created_at) >= STALE_AFTER_S


def _by_contact(now: float, contacted_at: float) -> RunnerStatus:
    return RunnerStatus.ONLINE if now - contacted_at <= ONLINE_WINDOW_S else RunnerStatus.OFFLINE


def runner_status(runner: Runner, now: float) -> RunnerStatus:
    """The `status` of a runner in REST; stale wins over never contacted, which wins over paused."""
    if _is_stale(now, runner.created_at, runner.contacted_at):
        return RunnerStatus.STALE
    if runner.contacted_at is None:
        return RunnerStatus.NEVER_CONTACTED
    if not runner.active:
        return RunnerStatus.PAUSED
    return _by_contact(now, runner.contacted_at)


def manager_status(manager: RunnerManager, now: float) -> RunnerStatus:
    """The `status` of a manager, never paused. Only polling makes it online; a mere verify does not."""
    if _is_stale(now, manager.created_at, manager.contacted_at):
        return RunnerStatus.STALE
    return _by_contact(now, manager.contacted_at) if manager.polled else RunnerStatus.NEVER_CONTACTED


def is_online(runner: Runner, now: float) -> bool | None:
    """The `online` field: null until the first contact."""
    return None if runner.contacted_at is None else now - runner.contacted_at <= ONLINE_WINDOW_S


def matches_status(runner: Runner, wanted: str, now: float) -> bool:
    """The `status=` filter compares columns, not the shown status, so offline includes stale."""
    contacted = runner.contacted_at
    match wanted:
        case "online":
            return bool(is_online(runner, now))
        case "offline":
            return contacted is not None and not is_online(runner, now)
        case "never_contacted":
            return contacted is None
        case "stale":
            return _is_stale(now, runner.created_at, contacted)
        case "active":
            return runner.active
        case "paused":
            return not runner.active
        case _:
            raise ValueError(wanted)
