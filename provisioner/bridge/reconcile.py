"""One pass: read the truth on GitHub and on GitLab, and close the gap. It may end anywhere and begin again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from provisioner.bridge import policy
from provisioner.bridge.config import Tables
from provisioner.bridge.errors import BridgeError, BridgeUnavailable, LeaseLost, Moved, Side, Unbuildable
from provisioner.bridge.git import Git
from provisioner.bridge.github import GitHub
from provisioner.bridge.gitlab import GitLab
from provisioner.bridge.policy import Ground, Refs
from provisioner.bridge.store import Report, Store
from provisioner.bridge.values import Build, Check, Claim, Person, Pipeline, PullRequest, Source, Stage

# Places to die at, for tests: before and after each effect.
CRASH: Final = "NIXPROV_CRASH"
EFFECTS: Final = ("intent", "carry", "delete", "rerun", "create-check", "update-check")
_DENIED_S: Final = 600.0
# A yes is good for so long; a first pass over many pull requests takes minutes.
_FRESH_S: Final = 10.0
_MOST_FAILURES: Final = 3
_CLOCK_SPARE_S: Final = 120.0
_CURSOR: Final = "comments"
_DOWN: Final = "gitlab_down_since"
_FOLLOWED: Final = "pipelines"
LAST: Final = "last_pass"


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the audit log: a decision, its commit, its reason and its person."""

    what: str
    ref: str
    head: str
    why: str = ""
    by: str = ""


@dataclass(slots=True)
class _Pass:
    """The view of one pass; nothing of it outlives the pass."""

    pulls: tuple[PullRequest, ...]
    mirrored: Mapping[str, str]
    observed: dict[str, str]
    claims: tuple[Claim, ...]
    builds: dict[str, Build]
    checks: dict[str, Check] = field(default_factory=dict)
    waiting: dict[str, PullRequest] = field(default_factory=dict)
    allowed: dict[int, float] = field(default_factory=dict)
    denied: set[int] = field(default_factory=set)

    def pull(self, number: int | None) -> PullRequest | None:
        return next((one for one in self.pulls if one.number == number), None)


class Bridge:
    """The two sides of bridge.toml. `tell` hears each decision; `now` gives seconds since the epoch."""

    def __init__(
        self,
        tables: Tables,
        github: GitHub,
        gitlab: GitLab,
        git: Git,
        store: Store,
        *,
        tell: Callable[[Decision], None],
        now: Callable[[], float],
    ) -> None:
        self._tables = tables
        self._github = github
        self._gitlab = gitlab
        self._git = git
        self._store = store
        self._tell = tell
        self._now = now
        self._refs = Refs(tables.pulls.prefix, tables.mirror.branches)
        self._denied: dict[int, float] = {}

    def settle(self, *, dry_run: bool = False) -> None:
        """Bring both sides together once. Raises Busy, BridgeUnavailable (again later), BridgeError (for a person)."""
        with self._store.alone():
            try:
                self._settle(dry_run=dry_run)
            except BridgeError as error:
                self._store.put_note(LAST, f"{_iso(self._now())} failed: {error.message}")
                raise
            self._store.put_note(LAST, f"{_iso(self._now())} done")

    def _settle(self, *, dry_run: bool) -> None:
        self._git.prepare()
        pulls = self._github.pulls()
        asked_before = self._store.claims()
        self._hear(pulls)
        mirrored = self._git.source_heads()
        try:
            observed = dict(self._git.target_heads())
            seen = _Pass(pulls, mirrored, observed, self._store.claims(), dict(self._store.builds()))
            wanted = self._wanted(seen)
            self._forget(seen, asked_before)
            if dry_run:
                self._foretell(seen, wanted)
                return
            self._take_away(seen, wanted)
            self._bring_over(seen, wanted)
            self._follow(seen, wanted)
        except BridgeUnavailable as error:
            if error.side is Side.GITLAB:
                self._say_unreachable()
            raise
        self._store.put_note(_DOWN, "")
        self._report(seen, wanted)

    # --- reading

    def _hear(self, pulls: tuple[PullRequest, ...]) -> None:
        """Note the claims in comments since the last pass; a first pass begins with the oldest open pull request."""
        if not pulls:
            return
        since = self._store.note(_CURSOR) or min(pull.created_at for pull in pulls)
        comments = self._github.comments(since)
        for comment in comments:
            # An approval that was edited is none any more.
            self._store.drop_claim(Source.COMMENT, comment.id)
            if (claim := policy.claim_of(comment)) and comment.issue and not self._is_answered(claim):
                self._store.add_claim(claim)
        if comments:
            self._store.put_note(_CURSOR, max(comment.updated_at for comment in comments))

    def _is_answered(self, claim: Claim) -> bool:
        """The cursor's own second comes again each time; a claim in it is not heard twice."""
        return claim.id <= int(self._store.note(f"answered {claim.pull}") or 0)

    def _answer(self, claim: Claim) -> None:
        if claim.source is Source.COMMENT:
            self._store.put_note(f"answered {claim.pull}", str(claim.id))
        self._store.drop_claim(claim.source, claim.id)

    def _forget(self, seen: _Pass, asked_before: Iterable[Claim]) -> None:
        """Drop claims that named no open head in two passes: lists may lag, and strangers may write much."""
        heads = {(pull.number, pull.head) for pull in seen.pulls}
        for claim in asked_before:
            if (claim.pull, claim.head) not in heads:
                self._store.drop_claim(claim.source, claim.id)

    # --- deciding

    def _wanted(self, seen: _Pass) -> dict[str, str]:
        """The commits by their refs on GitLab; a commit of several pull requests belongs to the oldest."""
        wanted = dict(seen.mirrored)
        for head, pulls in policy.leaders(seen.pulls).items():
            held = next((pull for pull in pulls if self._is_held(seen, pull)), None)
            chosen = held or next((pull for pull in pulls if self._may_be_built(seen, pull)), None)
            if chosen:
                wanted[self._refs.of_pull(chosen.number)] = head
            else:
                seen.waiting[head] = pulls[0]
        return wanted

    def _is_held(self, seen: _Pass, pull: PullRequest) -> bool:
        """Tell if it was decided earlier for this very commit: on GitLab, or refused for a reason of its own."""
        ref = self._refs.of_pull(pull.number)
        build = seen.builds.get(ref)
        if build is None or build.head != pull.head:
            return False
        return build.stage is Stage.REFUSED or seen.observed.get(ref) == pull.head

    def _may_be_built(self, seen: _Pass, pull: PullRequest) -> bool:
        """Tell if it may be built now. A yes of this very moment is not asked for twice."""
        if seen.allowed.get(pull.number, 0.0) > self._now() - _FRESH_S:
            return True
        ground, by = policy.ground_without_asking(pull), pull.author
        if ground is None and (claim := self._standing_claim(seen, pull)):
            ground, by = Ground.APPROVAL, claim.person
        if ground is None and policy.author_counts(pull, self._tables.pulls.trust) and self._author_may_write(by):
            ground = Ground.AUTHOR
        if ground is None:
            return False
        seen.allowed[pull.number] = self._now()
        self._tell(Decision("allow", self._refs.of_pull(pull.number), pull.head, ground.value, by.login))
        return True

    def _standing_claim(self, seen: _Pass, pull: PullRequest) -> Claim | None:
        """An approval of this commit that still stands, by a person with write permission. Others are heard once."""
        for claim in policy.claims_for(pull, seen.claims):
            if claim.source is Source.OPERATOR or (self._may_write(seen, claim.person) and self._is_said(claim)):
                return claim
            self._tell(Decision("deny", self._refs.of_pull(pull.number), claim.head, "no approval", claim.person.login))
            self._answer(claim)
        return None

    def _is_said(self, claim: Claim) -> bool:
        """A comment can be edited or deleted after it was heard; a button cannot."""
        if claim.source is not Source.COMMENT:
            return True
        comment = self._github.comment(claim.id)
        return comment is not None and policy.claim_of(comment) == claim

    def _may_write(self, seen: _Pass, person: Person) -> bool:
        """Ask GitHub now: a yes is good for the one push that follows, a no for the pass."""
        if person.id not in seen.denied and self._github.may_write(person):
            return True
        seen.denied.add(person.id)
        return False

    def _author_may_write(self, author: Person) -> bool:
        """The same for authors. Each pass asks for them, so a no is remembered for some minutes."""
        if self._denied.get(author.id, 0.0) > self._now() - _DENIED_S:
            return False
        if self._github.may_write(author):
            return True
        self._denied[author.id] = self._now()
        return False

    def _has_own_ci(self, seen: _Pass, head: str) -> bool:
        """Tell if a fork changes its pipeline: any pull request with this commit, each against its own base."""
        return any(self._changes_ci(pull) for pull in seen.pulls if pull.head == head and pull.is_fork)

    def _changes_ci(self, pull: PullRequest) -> bool:
        """Ask once for a commit and its base. An unreadable file counts as changed."""
        paths = self._tables.pulls.ci_paths
        is_changed = self._store.own_ci(pull.head, pull.base)
        if is_changed is None:
            try:
                is_changed = any(
                    self._github.blob(path, pull.head) != self._github.blob(path, pull.base) for path in paths
                )
            except BridgeUnavailable as error:
                if error.wait_s:
                    raise
                return True
            except BridgeError:
                is_changed = True
            self._store.put_own_ci(pull.head, pull.base, is_changed=is_changed)
        return is_changed

    def _foretell(self, seen: _Pass, wanted: Mapping[str, str]) -> None:
        for ref in policy.surplus(seen.observed, wanted, self._refs):
            self._tell(Decision("would delete", ref, seen.observed[ref]))
        for ref, head in wanted.items():
            if seen.observed.get(ref) != head:
                self._tell(Decision("would push", ref, head))

    # --- changing GitLab

    def _take_away(self, seen: _Pass, wanted: Mapping[str, str]) -> None:
        for ref in policy.surplus(seen.observed, wanted, self._refs):
            head = seen.observed[ref]
            number = self._refs.number(ref)
            is_listed = seen.pull(number) is not None
            if number is None or not (is_listed or policy.may_delete(head, self._github.pull(number))):
                continue
            try:
                with _around("delete"):
                    self._git.delete(ref, head)
            except (LeaseLost, Unbuildable) as error:
                self._tell(Decision("not deleted", ref, head, error.message))
                continue
            del seen.observed[ref]
            self._tell(Decision("delete", ref, head))
        for ref in set(seen.builds) - set(wanted) - set(seen.observed):
            del seen.builds[ref]
            self._store.drop_build(ref)

    def _bring_over(self, seen: _Pass, wanted: Mapping[str, str]) -> None:
        for ref, head in wanted.items():
            known = seen.builds.get(ref)
            if known and known.head == head and known.stage is Stage.REFUSED:
                if not self._is_asked_again(seen, ref):
                    continue
                del seen.builds[ref]
            if seen.observed.get(ref) == head:
                self._adopt(seen, ref, head, known)
                self._run_again_if_asked(seen, ref)
            elif (why := self._put_off(seen, ref)) is not None:
                seen.checks[head] = policy.put_off(why)
            elif (pull := seen.pull(self._refs.number(ref))) and not self._may_be_built(seen, pull):
                seen.waiting[head] = pull
            else:
                self._carry(seen, ref, head)
                self._use_up(seen, ref)

    def _is_asked_again(self, seen: _Pass, ref: str) -> bool:
        pull = seen.pull(self._refs.number(ref))
        return pull is not None and self._standing_claim(seen, pull) is not None

    def _use_up(self, seen: _Pass, ref: str) -> None:
        """An approval counts once; for a pushed or refused commit another one asks for another run."""
        pull, build = seen.pull(self._refs.number(ref)), seen.builds.get(ref)
        if pull and build and build.stage is not Stage.INTENT:
            for claim in policy.claims_for(pull, seen.claims):
                self._answer(claim)

    def _adopt(self, seen: _Pass, ref: str, head: str, known: Build | None) -> None:
        """Take a commit that is there already: pushed by an earlier pass, or before the state was lost."""
        if known is None or known.head != head:
            seen.builds[ref] = Build(ref, head, Stage.PUSHED, self._now(), is_found=True)
        elif known.stage is Stage.INTENT:
            seen.builds[ref] = replace(known, stage=Stage.PUSHED, is_found=True)
        else:
            return
        self._store.put_build(seen.builds[ref])

    def _put_off(self, seen: _Pass, ref: str) -> str | None:
        """The reason for not pushing a pull request's commit in this pass, or None."""
        if ref in self._refs.mirrored:
            return None
        limits = self._tables.limits
        if not policy.is_within_hour(self._store.pushes(ref), self._now(), limits.pushes_per_hour):
            return "It was pushed often within the hour."
        open_branches = sum(self._refs.number(one) is not None for one in seen.observed)
        if ref not in seen.observed and open_branches >= limits.branches:
            return "Other pull requests come first."
        return None

    def _carry(self, seen: _Pass, ref: str, head: str) -> None:
        known = seen.builds.get(ref)
        failures = known.failures if known and known.head == head else 0
        build = Build(ref, head, Stage.INTENT, self._now(), failures=failures)
        try:
            with _around("intent"):
                self._store.put_build(build)
                self._store.note_push(ref, self._now())
            with _around("carry"):
                self._push(ref, head, seen.observed.get(ref))
        except (LeaseLost, Moved) as error:
            self._tell(Decision("put off", ref, head, error.message))
            seen.checks[head] = policy.put_off("It has just changed.")
        except Unbuildable as error:
            build = replace(build, stage=Stage.REFUSED, reason=error.message)
            self._tell(Decision("refuse", ref, head, error.message))
        except BridgeUnavailable as error:
            build = replace(build, failures=failures + 1)
            if build.failures >= _MOST_FAILURES and ref not in self._refs.mirrored:
                build = replace(build, stage=Stage.REFUSED, reason="It could not be brought to GitLab.")
            self._tell(Decision("put off", ref, head, error.message))
            seen.checks[head] = policy.put_off("It could not be brought to GitLab yet.")
        else:
            build = replace(build, stage=Stage.PUSHED)
            seen.observed[ref] = head
            self._tell(Decision("push", ref, head))
        seen.builds[ref] = build
        self._store.put_build(build)

    def _push(self, ref: str, head: str, expected: str | None) -> None:
        number = self._refs.number(ref)
        if number is None:
            self._git.mirror(ref, head, expected)
        else:
            self._git.carry(number, head, expected)

    def _run_again_if_asked(self, seen: _Pass, ref: str) -> None:
        pull, build = seen.pull(self._refs.number(ref)), seen.builds[ref]
        if pull is None or not policy.claims_for(pull, seen.claims):
            return
        if policy.is_settled(build) and (claim := self._standing_claim(seen, pull)):
            try:
                with _around("rerun"):
                    pipeline = self._started_again(build)
            except BridgeUnavailable:
                raise
            except BridgeError as error:
                self._tell(Decision("not run again", ref, build.head, error.message, claim.person.login))
            else:
                seen.builds[ref] = replace(build, pipeline=pipeline, status="", at=self._now())
                self._store.put_build(seen.builds[ref])
                self._tell(Decision("run again", ref, build.head, "asked for", claim.person.login))
        self._use_up(seen, ref)

    def _started_again(self, build: Build) -> int | None:
        """The number of the pipeline that counts from now on."""
        if build.pipeline and build.status in {"failed", "canceled"}:
            self._gitlab.retry(build.pipeline)
            return build.pipeline
        made = self._gitlab.run(build.ref)
        return made.id if made.head == build.head else build.pipeline

    # --- following pipelines

    def _follow(self, seen: _Pass, wanted: Mapping[str, str]) -> None:
        """One list for all changes since the last pass; a commit found on GitLab is older, and asked for alone."""
        waiting = [build for ref in wanted if (build := seen.builds.get(ref)) and _is_followed(build)]
        if not waiting:
            return
        began = self._now()
        since = float(self._store.note(_FOLLOWED) or min(build.at for build in waiting)) - _CLOCK_SPARE_S
        listed = self._gitlab.pipelines(updated_after=_iso(since))
        for build in waiting:
            branch = build.ref.removeprefix("refs/heads/")
            among = self._gitlab.pipelines(ref=branch, sha=build.head) if build.is_found else listed
            self._note(seen, build, policy.our_pipeline(build, among))
        self._store.put_note(_FOLLOWED, str(began))

    def _note(self, seen: _Pass, build: Build, found: Pipeline | None) -> None:
        if found is None and not build.is_found:
            return
        pipeline, status = (found.id, found.status) if found else (build.pipeline, build.status)
        seen.builds[build.ref] = replace(build, pipeline=pipeline, status=status, is_found=False)
        self._store.put_build(seen.builds[build.ref])
        if (pipeline, status) != (build.pipeline, build.status):
            self._tell(Decision("pipeline", build.ref, build.head, f"{pipeline} {status}"))

    # --- telling GitHub

    def _report(self, seen: _Pass, wanted: Mapping[str, str]) -> None:
        for ref, head in wanted.items():
            build = seen.builds.get(ref)
            if build and build.stage is not Stage.INTENT:
                pull = seen.pull(self._refs.number(ref))
                own_ci = pull is not None and self._has_own_ci(seen, head)
                link = self._gitlab.link(build.pipeline) if build.pipeline else None
                none_after_s = self._tables.check.none_after_s
                seen.checks[head] = policy.result(build, self._now(), none_after_s, link, own_ci=own_ci)
        for head, pull in seen.waiting.items():
            # A stranger may open a pull request for the tip of a mirrored branch, which has its result.
            if head not in seen.checks:
                seen.checks[head] = policy.waiting(pull, own_ci=self._has_own_ci(seen, head))
        for head, check in seen.checks.items():
            self._show(head, check)
        for report in self._store.reports():
            if report.head not in seen.checks:
                self._conclude(report)
        titles = {
            pull.number: (pull.head, seen.checks[pull.head].title) for pull in seen.pulls if pull.head in seen.checks
        }
        self._store.put_standings(titles)

    def _show(self, head: str, check: Check) -> None:
        """Make or change the commit's one check, if it would say something new."""
        report = self._store.report(head)
        told = json.dumps({**asdict(check), "conclusion": check.conclusion and check.conclusion.value})
        if told == report.told:
            return
        try:
            check_id = self._written(report, check)
        except BridgeUnavailable:
            raise
        except BridgeError as error:
            # One commit without a check keeps no other from its own.
            self._tell(Decision("not told", "", head, error.message))
        else:
            self._store.put_report(replace(report, check_id=check_id, told=told, is_final=check.is_final))

    def _written(self, report: Report, check: Check) -> int:
        """Write the check and give its number. A check that the store lacks may exist all the same."""
        name = self._tables.check.name
        check_id = report.check_id or self._github.find_check(report.head, name)
        if check_id is None:
            with _around("create-check"):
                return self._github.create_check(report.head, name, check)
        with _around("update-check"):
            self._github.update_check(check_id, check)
        return check_id

    def _conclude(self, report: Report) -> None:
        """End the check of a commit that is no head any more, and forget it."""
        if report.check_id and not report.is_final:
            self._show(report.head, policy.overtaken())
        self._store.drop_report(report.head)

    def _say_unreachable(self) -> None:
        """Once the silence lasts, say so on each check that has no result."""
        since = float(self._store.note(_DOWN) or 0) or self._now()
        self._store.put_note(_DOWN, str(since))
        if self._now() - since < self._tables.check.unreachable_after_s:
            return
        for report in self._store.reports():
            if report.check_id and not report.is_final:
                self._show(report.head, policy.unreachable(link=json.loads(report.told)["link"]))


def _is_followed(build: Build) -> bool:
    return build.stage is Stage.PUSHED and not policy.is_settled(build)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(max(seconds, 0.0), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@contextmanager
def _around(effect: str) -> Iterator[None]:
    """One effect; `after` is reached only when it succeeded."""
    _reach(f"before:{effect}")
    yield
    _reach(f"after:{effect}")


def _reach(point: str) -> None:
    if os.environ.get(CRASH) == point:
        os.kill(os.getpid(), signal.SIGKILL)
