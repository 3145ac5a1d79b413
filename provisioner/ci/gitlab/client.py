"""The real GitLab over python-gitlab, whose values and exceptions stay inside.

Facts about its API this relies on: docs api/runners, api/users ("Create a runner linked to a user").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

import gitlab
import gitlab.exceptions
import requests
import urllib3
from gitlab.v4.objects import CurrentUserRunnerManager

from provisioner import limits
from provisioner.ci.gitlab import actions, payloads, replies
from provisioner.ci.gitlab.access import Access, TokenKind
from provisioner.ci.gitlab.failures import Action, Failure, Kind, UnclearOutcome, explain
from provisioner.ci.gitlab.listing import Key, Listings
from provisioner.ci.gitlab.values import Manager, Registration, Runner
from provisioner.errors import CiError, CiRefused, ConfigError
from provisioner.model import Mark, RunnerSpec, RunnerType, Secret
from provisioner.transport import (
    NotJsonError,
    Patience,
    RateLimitedError,
    RedirectedError,
    TooLongReplyError,
    Transport,
    reason,
    was_never_sent,
)

PER_PAGE: Final = 100
USER_AGENT: Final = "nixprov"
# The nearest entry of an exception's ancestry counts. A test forbids any exception to end at the two roots.
KINDS: Final[Mapping[type[Exception], Kind]] = MappingProxyType(
    {
        gitlab.exceptions.GitlabError: Kind.UNEXPECTED,
        gitlab.exceptions.GitlabHttpError: Kind.ANSWERED,
        gitlab.exceptions.GitlabOperationError: Kind.ANSWERED,
        gitlab.exceptions.GitlabAuthenticationError: Kind.ANSWERED,
        gitlab.exceptions.GitlabCiLintError: Kind.ANSWERED,
        gitlab.exceptions.RedirectError: Kind.REDIRECTED,
        gitlab.exceptions.GitlabParsingError: Kind.UNCLEAR,
        gitlab.exceptions.GitlabConnectionError: Kind.UNCLEAR,
        requests.exceptions.RequestException: Kind.UNEXPECTED,
        requests.exceptions.ConnectionError: Kind.UNCLEAR,
        requests.exceptions.ConnectTimeout: Kind.NOT_SENT,
        requests.exceptions.SSLError: Kind.NOT_SENT,
        requests.exceptions.Timeout: Kind.UNCLEAR,
        requests.exceptions.HTTPError: Kind.UNCLEAR,
        requests.exceptions.ChunkedEncodingError: Kind.UNCLEAR,
        requests.exceptions.ContentDecodingError: Kind.UNCLEAR,
        requests.exceptions.StreamConsumedError: Kind.UNCLEAR,
        requests.exceptions.RetryError: Kind.UNCLEAR,
        requests.exceptions.InvalidJSONError: Kind.UNCLEAR,
        requests.exceptions.TooManyRedirects: Kind.REDIRECTED,
        requests.exceptions.UnrewindableBodyError: Kind.NOT_SENT,
        requests.exceptions.URLRequired: Kind.NOT_SENT,
        requests.exceptions.MissingSchema: Kind.NOT_SENT,
        requests.exceptions.InvalidSchema: Kind.NOT_SENT,
        requests.exceptions.InvalidURL: Kind.NOT_SENT,
        requests.exceptions.InvalidHeader: Kind.NOT_SENT,
        RedirectedError: Kind.REDIRECTED,
        RateLimitedError: Kind.RATE_LIMITED,
        NotJsonError: Kind.UNCLEAR,
        TooLongReplyError: Kind.UNCLEAR,
        replies.MalformedReplyError: Kind.UNCLEAR,
    }
)
_FOREIGN: Final = (gitlab.exceptions.GitlabError, requests.exceptions.RequestException, replies.MalformedReplyError)


def kind_of(error: Exception) -> Kind:
    if isinstance(error, requests.exceptions.ConnectionError) and was_never_sent(error):
        return Kind.NOT_SENT
    return next((KINDS[ancestor] for ancestor in type(error).__mro__ if ancestor in KINDS), Kind.UNEXPECTED)


class Client:
    """`Api` (api.py) over python-gitlab. One session for all threads: its pool of connections is made for that."""

    def __init__(self, settings: Access, patience: Patience | None = None) -> None:
        self._settings = settings
        self._transport = Transport(patience or Patience())
        self._gl = _client(settings, self._transport)
        self._listings = Listings()

    @property
    def url(self) -> str:
        return self._settings.url

    @property
    def writes(self) -> int:
        return self._transport.writes

    def close(self) -> None:
        self._gl.session.close()

    def check(self) -> None:
        """GET /user. A token with only the runner scopes is refused there by its scope, so it is known."""
        try:
            with self._attempt(actions.CHECK):
                replies.identifier(self._gl.http_get("/user"))
        except CiRefused as error:
            if not _is_scope_refusal(error):
                raise

    def runners(self, kind: RunnerType, owner: str | None) -> tuple[Runner, ...]:
        return self._listings.get((kind, owner), lambda: self._list(kind, owner))

    def _list(self, kind: RunnerType, owner: str | None) -> list[Runner]:
        """All pages. Only /runners/all lists instance runners; /runners never shows them."""
        with self._attempt(actions.listing(kind, owner)):
            found = self._lister(kind, owner).list(type=kind.value, iterator=True, per_page=PER_PAGE)
            return [replies.runner(item.attributes) for item in _each(found)]

    def _lister(self, kind: RunnerType, owner: str | None) -> Any:
        if kind is RunnerType.INSTANCE:
            return self._gl.runners_all
        owners = self._gl.groups if kind is RunnerType.GROUP else self._gl.projects
        return owners.get(_named(kind, owner), lazy=True).runners

    def get(self, runner_id: int) -> Runner | None:
        with self._attempt(actions.reading(runner_id)):
            try:
                found = self._gl.runners.get(runner_id, include_projects=False)
            except gitlab.exceptions.GitlabGetError as error:
                if _is_gone(error):
                    self._listings.remove(runner_id)
                    return None
                raise
            return replies.runner(found.attributes)

    def create(self, spec: RunnerSpec, mark: Mark) -> Registration:
        action = actions.creating(spec, mark)
        key = (spec.type, spec.owner)
        known = self._listings.known_ids(key)
        owner_id = self._owner_id(spec)
        try:
            with self._attempt(action):
                made = CurrentUserRunnerManager(self._gl).create(payloads.creation(spec, mark, owner_id))
                registration = replies.registration(made.attributes)
        except UnclearOutcome as error:
            return self._recover(key, mark, known, error)
        self._listings.add(key, payloads.as_listed(registration.id, spec, mark))
        return registration

    def _recover(self, key: Key, mark: Mark, known: frozenset[int], error: UnclearOutcome) -> Registration:
        """After an unclear creation: take the newest runner with our mark that was not there before."""
        try:
            listed = self._listings.reload(key, lambda: self._list(*key))
        except CiError as failed:
            raise error from failed
        ours = [
            runner.id
            for runner in listed
            if runner.mark and runner.mark.is_same_runner(mark) and runner.id not in known
        ]
        if not ours:
            raise error
        return self.reset_token(max(ours))

    def _owner_id(self, spec: RunnerSpec) -> int | None:
        """GitLab wants numeric ids; people write paths."""
        if not spec.type.needs_owner:
            return None
        owner = _named(spec.type, spec.owner)
        if owner.isdigit():
            return int(owner)
        with self._attempt(actions.resolving(payloads.word(spec.type), owner)):
            path = "/groups" if spec.type is RunnerType.GROUP else "/projects"
            return replies.identifier(self._gl.http_get(f"{path}/{gitlab.utils.EncodedId(owner)}"))

    def update(self, runner_id: int, wanted: RunnerSpec, mark: Mark) -> None:
        self._put(actions.updating(runner_id), runner_id, payloads.settings(wanted, mark))

    def set_paused(self, runner_id: int, paused: bool) -> None:
        self._put(actions.pausing(runner_id, paused=paused), runner_id, {"paused": paused})

    def _put(self, action: Action, runner_id: int, values: dict[str, object]) -> None:
        with self._attempt(action):
            self._listings.replace(replies.runner(self._gl.runners.update(runner_id, values)))

    def reset_token(self, runner_id: int) -> Registration:
        """Repeated once after a lost reply: the old token may be dead already, and the new one is lost."""
        try:
            return self._reset_token(runner_id)
        except UnclearOutcome as unclear:
            return self._reset_again(runner_id, unclear)

    def _reset_again(self, runner_id: int, unclear: UnclearOutcome) -> Registration:
        try:
            return self._reset_token(runner_id)
        except CiRefused as refused:
            # Only this call was refused: the first one may have succeeded.
            raise UnclearOutcome(refused.message, hint=unclear.hint) from refused

    def _reset_token(self, runner_id: int) -> Registration:
        with self._attempt(actions.resetting(runner_id)):
            reply = self._gl.http_post(f"/runners/{runner_id}/reset_authentication_token")
            return replies.registration(reply, runner_id)

    def delete(self, runner_id: int) -> bool:
        try:
            deleted = self._delete(runner_id)
        except UnclearOutcome:
            if self.get(runner_id) is not None:
                raise
            deleted = True
        self._listings.remove(runner_id)
        return deleted

    def _delete(self, runner_id: int) -> bool:
        with self._attempt(actions.deleting(runner_id)):
            try:
                self._gl.runners.delete(runner_id)
            except gitlab.exceptions.GitlabDeleteError as error:
                if _is_gone(error):
                    return False
                raise
            return True

    def managers(self, runner_id: int) -> tuple[Manager, ...]:
        with self._attempt(actions.reading_managers(runner_id)):
            return tuple(replies.manager(item) for item in self._managers(runner_id))

    def _managers(self, runner_id: int) -> list[dict[str, Any]]:
        with self._attempt(actions.reading_managers(runner_id)):
            try:
                # Not paginated, so one GET is enough; python-gitlab has no class for them.
                found = self._gl.http_get(f"/runners/{runner_id}/managers")
            except gitlab.exceptions.GitlabHttpError as error:
                if _is_gone(error):
                    return []
                raise
            if not isinstance(found, list):
                raise replies.MalformedReplyError("no JSON list")
            return found

    def running_jobs(self, runner_id: int) -> int:
        """Jobs of projects that the token may not see are not listed: the managers' state by GitLab fills in."""
        with self._attempt(actions.reading_jobs(runner_id)):
            runner = self._gl.runners.get(runner_id, lazy=True)
            try:
                listed = runner.jobs.list(
                    iterator=True,
                    status="running",
                    pagination="keyset",
                    order_by="id",
                    sort="desc",
                    per_page=PER_PAGE,
                )
                visible = sum(1 for _ in _each(listed))
            except gitlab.exceptions.GitlabListError as error:
                if _is_gone(error):
                    return 0
                raise
            return visible or sum(1 for item in self._managers(runner_id) if replies.is_active(item))

    @contextmanager
    def _attempt(self, action: Action) -> Iterator[None]:
        """Let no foreign exception out: each becomes one of ours that names the action."""
        try:
            yield
        except _FOREIGN as error:
            raise explain(action, _failure(error, self._settings.token), self.url) from error


def _client(settings: Access, transport: Transport) -> gitlab.Gitlab:
    session = requests.Session()
    session.mount("https://", transport)
    session.mount("http://", transport)
    token = settings.token.reveal()
    is_private = settings.token_kind is TokenKind.PRIVATE
    if settings.verify is False:
        # The settings warn of this once, instead of urllib3 at each call.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return gitlab.Gitlab(
        settings.url,
        private_token=token if is_private else None,
        oauth_token=None if is_private else token,
        ssl_verify=settings.verify,
        timeout=settings.timeout_s,
        user_agent=USER_AGENT,
        retry_transient_errors=False,
        # The links of a page carry GitLab's idea of its address, which need not be reachable from here.
        keep_base_url=True,
        session=session,
    )


def _named(kind: RunnerType, owner: str | None) -> str:
    if not owner:
        raise ConfigError(f"a {payloads.word(kind)} runner needs a {payloads.word(kind)}, and none is named")
    return owner


def _each(listed: Iterable[Any]) -> Iterator[Any]:
    """python-gitlab takes any JSON of a list call for a list, and fails on other values and at its end.

    It asks for the next page within the last one, so that endless empty pages exhaust the stack.
    """
    try:
        for number, item in enumerate(listed):
            if number >= limits.GITLAB_ENTRIES:
                raise replies.MalformedReplyError(f"a list of more than {limits.GITLAB_ENTRIES} entries")
            yield item
    except RecursionError as error:
        raise replies.MalformedReplyError("a list of empty pages without end") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise replies.MalformedReplyError("no JSON list") from error


def _failure(error: Exception, token: Secret) -> Failure:
    kind = kind_of(error)
    if isinstance(error, RedirectedError):
        return Failure(kind, error.status, location=error.location)
    if isinstance(error, gitlab.exceptions.GitlabError):
        # An answer never quotes a token, except one of a proxy that shows the refused request.
        said = _said(error.error_message).replace(token.reveal(), str(token))
        return Failure(kind, error.response_code, said)
    return Failure(kind, message=_because(error))


def _because(error: Exception) -> str:
    return str(error) if isinstance(error, replies.MalformedReplyError) else reason(error)


def _said(message: object) -> str:
    """GitLab's words: a text, bytes of any kind, or an object of lists for a rejected model."""
    if isinstance(message, bytes):
        return message.decode(errors="replace")
    if isinstance(message, Mapping):
        return "; ".join(f"{name} {_said(texts)}" for name, texts in message.items())
    if isinstance(message, list):
        return ", ".join(_said(text) for text in message)
    return str(message)


def _is_gone(error: gitlab.exceptions.GitlabError) -> bool:
    """Whether GitLab itself reports it missing: a 404 of a proxy or of an unknown route proves nothing."""
    if error.response_code != 404:  # noqa: PLR2004
        return False
    try:
        body = json.loads(error.response_body or b"")
    except ValueError:
        return False
    return isinstance(body, dict) and "message" in body


def _is_scope_refusal(error: CiRefused) -> bool:
    cause = error.__cause__
    return isinstance(cause, gitlab.exceptions.GitlabError) and cause.error_message == "insufficient_scope"
