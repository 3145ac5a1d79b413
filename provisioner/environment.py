"""Programs that we start for the operator (ssh's helpers, inventory scripts, ansible-vault)."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from typing import IO, Final

from provisioner.limits import TooLongError

_CHUNK: Final = 1 << 16


def without_ours() -> dict[str, str]:
    """The program's environment without the variables for nixprov alone: a token may be among them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NIXPROV_")}


def ask(
    argv: Sequence[str], *, timeout_s: float, limit: int, stdin: IO[bytes] | int | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end and return its output, on both streams together no more than `limit` bytes.

    Raises OSError, TooLongError, subprocess.TimeoutExpired. In the last two it is killed, without a wait for its own
    children.
    """
    with subprocess.Popen(
        argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=without_ours()
    ) as process:
        try:
            deadline = time.monotonic() + timeout_s
            stdout, stderr = _heard(process, deadline, limit)
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            process.kill()
            raise subprocess.TimeoutExpired(argv, timeout_s) from None
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(argv, status, stdout, stderr)


def _heard(process: subprocess.Popen[bytes], deadline: float, limit: int) -> list[bytes]:
    assert process.stdout is not None  # noqa: S101 - narrows for mypy
    assert process.stderr is not None  # noqa: S101 - narrows for mypy
    said: dict[int, list[bytes]] = {process.stdout.fileno(): [], process.stderr.fileno(): []}
    size = 0
    with selectors.DefaultSelector() as selector:
        for stream in said:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                raise TimeoutError
            for key, _ in ready:
                data = os.read(key.fd, _CHUNK)
                if not data:
                    selector.unregister(key.fd)
                said[key.fd].append(data)
                size += len(data)
                if size > limit:
                    raise TooLongError(limit)
    return [b"".join(parts) for parts in said.values()]
