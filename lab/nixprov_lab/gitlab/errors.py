"""Every refusal of the server, with GitLab's body shapes. The key of the text differs by layer.

`message` comes from GitLab's own code, `error` from the parameter validator and the token guard in front of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

REASONS: Final = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    410: "Gone",
    412: "Precondition Failed",
    415: "Unsupported Media Type",
    422: "Unprocessable Entity",
    500: "Internal Server Error",
}


class ApiError(Exception):
    """A reply that is not 2xx: `body` is sent as JSON."""

    def __init__(self, status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = dict(body)
        self.headers = dict(headers or {})


def refused(status: int, reason: str = "", headers: Mapping[str, str] | None = None) -> ApiError:
    """`{"message": "403 Forbidden - reason"}`."""
    text = f"{status} {REASONS[status]}"
    return ApiError(status, {"message": f"{text} - {reason}" if reason else text}, headers)


def not_found(what: str = "") -> ApiError:
    return ApiError(404, {"message": f"404 {what} Not Found" if what else "404 Not Found"})


def bad_parameters(complaints: Iterable[str]) -> ApiError:
    return ApiError(400, {"error": ", ".join(complaints)})


def bad_model(errors: Mapping[str, list[str]]) -> ApiError:
    return ApiError(400, {"message": dict(errors)})


def plain_error(status: int, text: str, headers: Mapping[str, str] | None = None) -> ApiError:
    return ApiError(status, {"error": text}, headers)


def insufficient_scope(scopes: Iterable[str]) -> ApiError:
    return ApiError(
        403,
        {
            "error": "insufficient_scope",
            "error_description": "The request requires higher privileges than provided by the access token.",
            "scope": " ".join(scopes),
        },
    )


def invalid_token(description: str) -> ApiError:
    challenge = f'Bearer realm="Protected by OAuth 2.0", error="invalid_token", error_description="{description}"'
    body = {"error": "invalid_token", "error_description": description}
    return ApiError(401, body, {"WWW-Authenticate": challenge})
