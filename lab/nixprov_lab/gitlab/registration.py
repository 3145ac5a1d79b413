"""/runners as gitlab-runner sees it: verify, unregister, rotate by the runner's own token.

The runner's token is read from parameters only, as GitLab does. A 403 tells gitlab-runner "this runner is gone", so
nothing else here may answer 403.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse, Response

from nixprov_lab.gitlab import entities
from nixprov_lab.gitlab.errors import ApiError, not_found, refused
from nixprov_lab.gitlab.params import required_string
from nixprov_lab.gitlab.records import Runner, RunnerManager
from nixprov_lab.gitlab.routing import Call, Endpoint, created, no_content

MAX_SYSTEM_ID: Final = 64
_INFO_KEYS: Final = ("name", "version", "revision", "platform", "architecture", "executor", "features")


def authenticated_runner(call: Call) -> Runner:
    """The runner whose token was sent. Raises ApiError: 400 without a token, 403 for an unknown one."""
    token = required_string(call.params, "token")
    call.note_token("runner")
    runner = call.state.runner_by_token(token)
    if runner is None:
        raise refused(403)
    return runner


def contact(call: Call, runner: Runner) -> RunnerManager:
    """Note a call by a process of the runner, with the data that it sends about itself."""
    reader = call.reader
    system_id = reader.string("system_id")
    info = reader.mapping("info")
    if system_id and len(system_id) > MAX_SYSTEM_ID:
        reader.complain(f"system_id is too long (maximum is {MAX_SYSTEM_ID} characters)")
    reader.finish()
    manager = call.state.heartbeat(runner, system_id, call.ip_address)
    manager.info |= {key: info[key] for key in _INFO_KEYS if key in info} if info else {}
    return manager


def verify(call: Call) -> Response:
    runner = authenticated_runner(call)
    contact(call, runner)
    return JSONResponse(entities.registration(runner, with_id=True))


def reset_own_token(call: Call) -> Response:
    runner = authenticated_runner(call)
    contact(call, runner)
    call.state.reset_runner_token(runner)
    return created(entities.registration(runner, with_id=False))


def unregister_runner(call: Call) -> Response:
    """Delete the whole runner with all its managers."""
    call.state.remove_runner(authenticated_runner(call))
    return no_content()


def unregister_manager(call: Call) -> Response:
    reader = call.reader
    system_id = reader.string("system_id", required=True)
    reader.string("token", required=True)
    reader.finish()
    runner = authenticated_runner(call)
    if runner.managers.pop(system_id or "", None) is None:
        raise not_found("Runner manager not found")
    return no_content()


def register_by_registration_token(call: Call) -> Response:
    """Refuse: registration tokens are off, the default of GitLab since 17.0."""
    required_string(call.params, "token")
    raise refused(410, "runner registration disallowed")


def router_discovery(call: Call) -> Response:
    token = call.header("RUNNER-TOKEN")
    if token is None or call.state.runner_by_token(token) is None:
        raise refused(403)
    raise ApiError(501, {"message": "501 Not Implemented"})


ENDPOINTS: Final = (
    Endpoint("POST", "/runners", register_by_registration_token),
    Endpoint("POST", "/runners/verify", verify),
    Endpoint("POST", "/runners/reset_authentication_token", reset_own_token),
    Endpoint("DELETE", "/runners", unregister_runner),
    Endpoint("DELETE", "/runners/managers", unregister_manager),
    Endpoint("GET", "/runners/router/discovery", router_discovery),
)
