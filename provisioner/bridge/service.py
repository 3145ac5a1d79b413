"""Passes for as long as the service lives: after an interval, or sooner when the doorbell rings."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from provisioner.bridge import doorbell, preflight
from provisioner.bridge.config import Settings
from provisioner.bridge.doorbell import Doorbell, Pressed
from provisioner.bridge.errors import BridgeError, BridgeUnavailable, Unsafe
from provisioner.bridge.git import Git, GitLimits, Remote
from provisioner.bridge.github import PERMISSIONS, GitHub
from provisioner.bridge.gitlab import GitLab
from provisioner.bridge.policy import Refs
from provisioner.bridge.preflight import Finding, Gravity, View
from provisioner.bridge.reconcile import Bridge, Decision
from provisioner.bridge.store import Store
from provisioner.bridge.values import Claim, Person, Source
from provisioner.errors import ConfigError, NixprovError
from provisioner.limits import MIB
from provisioner.model import Secret

# A doorbell that is never let go rings no more often than that.
SHORTEST_S: Final = 5.0
LONGEST_S: Final = 900.0
MOST_ASKED_S: Final = 3600.0
CHECK_S: Final = 3600.0
Tell = Callable[[Decision], None]


def github(settings: Settings) -> GitHub:
    table = settings.tables.github
    return GitHub(
        table.api,
        table.repository,
        table.app_id,
        table.installation_id,
        settings.secret(table.private_key_file),
        write_interval_s=settings.tables.limits.write_interval_s,
    )


@contextmanager
def assembled(settings: Settings, folder: Path, tell: Tell) -> Iterator[Bridge]:
    """A bridge with its secrets read. Raises ConfigError."""
    tables = settings.tables
    limits = tables.limits
    push_token = settings.secret(tables.gitlab.push_token_file or tables.gitlab.token_file)
    with ExitStack() as stack:
        api = github(settings)
        stack.callback(api.close)
        gitlab = GitLab(tables.gitlab.url, tables.gitlab.project, settings.secret(tables.gitlab.token_file))
        stack.callback(gitlab.close)
        store = Store(folder)
        stack.callback(store.close)
        git = Git(
            Remote(f"{tables.github.git}/{tables.github.repository}.git", "x-access-token", api.token),
            Remote(
                f"{tables.gitlab.git or tables.gitlab.url}/{tables.gitlab.project}.git", "oauth2", lambda: push_token
            ),
            folder,
            Refs(tables.pulls.prefix, tables.mirror.branches),
            GitLimits(
                limits.pack_mib * MIB,
                limits.base_mib * MIB,
                limits.memory_mib * MIB,
                limits.fetch_s,
                limits.base_fetch_s,
            ),
        )
        yield Bridge(tables, api, gitlab, git, store, tell=tell, now=time.time)


def serve(settings: Settings, folder: Path, tell: Tell, failed: Callable[[NixprovError], None]) -> None:
    """Run passes until the process is ended. A pass that fails is told, and comes again later.

    Settings are looked at before the first pass, and each hour. Raises Unsafe if they are so at the start; later the
    passes rest until they are safe again.
    """
    bell = threading.Event()
    with assembled(settings, folder, tell) as bridge, _doorbell(settings, folder, bell):
        failures = 0
        checked_at: float | None = None
        while True:
            try:
                if checked_at is None or time.monotonic() - checked_at >= CHECK_S:
                    refuse_unsafe(settings, tell if checked_at is None else None)
                    checked_at = time.monotonic()
                bridge.settle()
            except (BridgeError, ConfigError) as error:
                if isinstance(error, Unsafe) and checked_at is None:
                    raise
                failures += 1
                failed(error)
                asked_s = error.wait_s if isinstance(error, BridgeUnavailable) else 0.0
                # Nothing rings while one side asks for patience.
                time.sleep(pause_s(settings.tables.interval_s, failures, asked_s))
            else:
                failures = 0
                time.sleep(SHORTEST_S)
                bell.wait(max(settings.tables.interval_s - SHORTEST_S, 0.0))
            bell.clear()


def once(settings: Settings, folder: Path, tell: Tell, *, dry_run: bool) -> None:
    """Make one pass. Raises Unsafe before it, unless nothing would be changed."""
    if not dry_run:
        refuse_unsafe(settings, tell)
    with assembled(settings, folder, tell) as bridge:
        bridge.settle(dry_run=dry_run)


def refuse_unsafe(settings: Settings, tell: Tell | None) -> None:
    """Judge with the bridge's own token; `tell` hears the settings beyond its reach. Raises Unsafe."""
    findings = check(settings, None, None)
    if unsafe := [str(one) for one in findings if one.gravity is Gravity.UNSAFE]:
        raise Unsafe("unsafe: " + " | ".join(unsafe), hint="`nixprov bridge check` names all findings")
    unread = [one.what for one in findings if one.gravity is Gravity.UNREAD]
    if tell and unread:
        tell(Decision("not checked", "", "", "; ".join(unread)))


def pause_s(interval_s: float, failures: int, asked_s: float) -> float:
    """Longer after each failure, never in step with others, and at least as long as was asked for."""
    grown = min(math.ldexp(interval_s, min(failures - 1, 10)), LONGEST_S)
    return max(grown * random.uniform(0.75, 1.25), min(asked_s, MOST_ASKED_S))  # noqa: S311 - no secret


@contextmanager
def _doorbell(settings: Settings, folder: Path, bell: threading.Event) -> Iterator[None]:
    table = settings.tables.doorbell
    if table is None:
        yield
        return
    refs = Refs(settings.tables.pulls.prefix, settings.tables.mirror.branches)
    bell_of = Doorbell(
        settings.tables.github.repository,
        settings.tables.github.app_id,
        settings.secret(table.secret_file),
        settings.secret(table.gitlab_secret_file) if table.gitlab_secret_file else None,
        bell.set,
        lambda pressed: press(folder, refs, pressed),
    )
    with doorbell.listening(bell_of, table.host, table.port):
        yield


def press(folder: Path, refs: Refs, pressed: Pressed) -> None:
    """Note a button as a claim on each pull request that shows this commit. Its permission is asked by the pass.

    Re-run is no approval: it counts for a commit that was built for this pull request.
    """
    store = Store(folder)
    try:
        builds = store.builds()
        for number, (head, _title) in store.standings().items():
            build = builds.get(refs.of_pull(number))
            is_built = build is not None and build.head == head
            if head == pressed.head and (is_built or not pressed.is_rerun):
                claim_id = store.next_claim_id(Source.BUTTON)
                store.add_claim(Claim(Source.BUTTON, claim_id, number, head, pressed.person))
    finally:
        store.close()


def approve(settings: Settings, folder: Path, number: int, head: str, operator: str) -> None:
    """Note an approval given at the bridge's own machine. Raises BridgeError unless it names the present head."""
    api = github(settings)
    store = Store(folder)
    try:
        pull = api.pull(number)
        if pull is None or not pull.is_open:
            raise BridgeError(f"there is no open pull request {number}")
        if pull.head != head:
            raise BridgeError(f"pull request {number} is {pull.head} now", hint="read that commit, and name it")
        claim_id = store.next_claim_id(Source.OPERATOR)
        store.add_claim(Claim(Source.OPERATOR, claim_id, number, head, Person(0, operator)))
    finally:
        store.close()
        api.close()


def check(settings: Settings, token: Secret | None, plain: frozenset[str] | None) -> tuple[Finding, ...]:
    """Look at both sides for unsafe settings; `token` sees more of GitLab than the bridge's own."""
    tables = settings.tables
    own = settings.secret(tables.gitlab.token_file)
    api = github(settings)
    gitlab, bot = (GitLab(tables.gitlab.url, tables.gitlab.project, one) for one in (token or own, own))
    try:
        view = View(
            gitlab.project(),
            gitlab.variables(),
            gitlab.protected("protected_branches"),
            gitlab.protected("protected_tags"),
            gitlab.tags(tables.pulls.prefix),
            gitlab.runners(),
            gitlab.job_token_scope(),
            gitlab.deploy_tokens(),
            bot.memberships(),
            api.permissions(),
            plain,
        )
        return preflight.judge(view, tables.pulls, tables.gitlab.project, PERMISSIONS)
    finally:
        for one in (api, gitlab, bot):
            one.close()
