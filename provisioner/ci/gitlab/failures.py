"""Turns the failure of a call into one of our errors: the call, GitLab's answer, and the next step.

Pure: knows neither python-gitlab nor requests, so that every case is a row of a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from provisioner.errors import CiError, CiRefused, CiUnavailable

MAX_MESSAGE: Final = 300
_HTML: Final = re.compile(r"<\s*(!doctype|html|head|body|title|center)", re.IGNORECASE)
_SPACE: Final = re.compile(r"\s+")
_UNTRUSTED: Final = "name the CA that signed it with NIXPROV_GITLAB_CA"
_NOT_THERE: Final = "that is not where GitLab's API is: check the URL"
_WRONG_VALUES: Final = "correct the runner's settings"
_NOT_OFFERED: Final = "this GitLab does not offer the call: it may be too old or have it switched off"
_HINTS: Final = {
    400: _WRONG_VALUES,
    401: "the token is unknown, expired or revoked: make a new one and name its file",
    404: "it does not exist, or the token's user may not see it",
    405: _NOT_OFFERED,
    410: _NOT_OFFERED,
    422: _WRONG_VALUES,
}


class Kind(Enum):
    """The end of a call, as far as it matters for the next step."""

    ANSWERED = auto()  # with a refusing status
    NOT_SENT = auto()  # no connection: nothing can have happened
    UNCLEAR = auto()  # sent, no usable answer: it may have happened
    RATE_LIMITED = auto()  # put off for longer than our limit: nothing has happened
    REDIRECTED = auto()  # answered with another address: nothing has happened
    UNEXPECTED = auto()  # an unknown error of the library below


@dataclass(frozen=True, slots=True)
class Action:
    """One call to GitLab; the hint of a refusal names the `scopes` and `role` that it needs."""

    what: str
    scopes: str = "api"
    role: str = ""
    is_write: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """`status` is None without an answer; `message` is GitLab's own text or the network's reason."""

    kind: Kind
    status: int | None = None
    message: str = ""
    location: str = ""


class UnclearOutcome(CiUnavailable):
    """GitLab may have done the call or not: look before you repeat it."""


def explain(action: Action, failure: Failure, url: str) -> CiError:
    """The error to raise; never holds a token, since nothing of the request is quoted."""
    match failure.kind:
        case Kind.NOT_SENT:
            return CiUnavailable(
                f"cannot {action.what}: {url} cannot be reached ({failure.message})",
                hint=_UNTRUSTED if failure.message.startswith("certificate") else "check the URL and the network",
            )
        case Kind.RATE_LIMITED:
            return CiUnavailable(
                f"cannot {action.what}: {url} limits its callers ({failure.message})", hint="try again later"
            )
        case Kind.REDIRECTED:
            return CiRefused(
                f"cannot {action.what}: {url} sends us on to {failure.location} ({failure.status})",
                hint=_moved(failure.location),
            )
        case Kind.UNCLEAR | Kind.UNEXPECTED:
            return UnclearOutcome(
                f"cannot {action.what}: {url} gave no usable answer ({failure.message})",
                hint="whether it was done is unknown; run again" if action.is_write else _unanswered(failure.message),
            )
        case Kind.ANSWERED:
            return _answered(action, failure, url)


def _moved(location: str) -> str:
    """The hint for a redirect. The call's address answered; the operator must name GitLab's, without the API's path."""
    base, api, _ = location.partition("/api/v4")
    return f"name {base} with --gitlab-url or in the configuration" if api and base else _NOT_THERE


def _unanswered(message: str) -> str:
    is_another = message.endswith("instead of JSON") or message.startswith("more than")
    return _NOT_THERE if is_another else "try again later"


def _answered(action: Action, failure: Failure, url: str) -> CiError:
    status = failure.status or 0
    said = said_by(failure)
    if status >= 500:  # noqa: PLR2004
        hint = "whether it was done is unknown; run again" if action.is_write else "try again later"
        return UnclearOutcome(f"cannot {action.what}: {url} answered {said}", hint=hint)
    if status == 408:  # noqa: PLR2004
        return UnclearOutcome(f"cannot {action.what}: {url} answered {said}", hint="try again later")
    return CiRefused(f"cannot {action.what}: {url} answered {said}", hint=_hint(action, failure))


def said_by(failure: Failure) -> str:
    """`403 insufficient_scope`: the status and GitLab's own words, in one line, without an HTML page."""
    status = str(failure.status or "")
    text = _SPACE.sub(" ", failure.message).strip()
    if _HTML.search(text):
        text = "with an HTML page, from a proxy perhaps"
    if len(text) > MAX_MESSAGE:
        text = text[:MAX_MESSAGE] + "..."
    return text if text.startswith(status) else f"{status} {text}".strip()


def _hint(action: Action, failure: Failure) -> str:
    if failure.status == 404 and (failure.message == "404 Not Found" or _HTML.search(failure.message)):  # noqa: PLR2004
        return _NOT_THERE
    if failure.status == 403:  # noqa: PLR2004
        if failure.message == "insufficient_scope":
            return f"the token needs the scope {action.scopes}"
        return f"the token's user must be {action.role}" if action.role else "the token's user may not do this"
    return _HINTS.get(failure.status or 0, "")
