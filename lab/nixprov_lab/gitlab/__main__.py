"""Starts the lab's GitLab: `python -m nixprov_lab.gitlab --host ADDR --port N --control-socket PATH ...`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from nixprov_lab.gitlab.server import Settings, serve


def _settings(arguments: Sequence[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m nixprov_lab.gitlab")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one; GET /ping of the control API tells")
    parser.add_argument("--control-socket", type=Path, required=True, help="unix socket, answers when all is ready")
    parser.add_argument("--token-file", type=Path, required=True, help="administrator's token; made when missing")
    parser.add_argument("--calls", type=Path, help="journal of calls, JSON lines")
    given = parser.parse_args(arguments)
    return Settings(given.host, given.port, given.control_socket, given.token_file, given.calls)


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


def main(arguments: Sequence[str] | None = None) -> int:
    settings = _settings(sys.argv[1:] if arguments is None else arguments)
    try:
        asyncio.run(_run(settings))
    except OSError as error:
        sys.stderr.write(f"cannot serve on {settings.host}:{settings.port}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
