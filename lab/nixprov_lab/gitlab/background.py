"""Runs the server in a thread of this process, for tests. A new one takes a few hundredths of a second."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nixprov_lab.gitlab.server import Running, Settings, serve

START_S: Final = 10


@contextmanager
def in_background(directory: Path) -> Iterator[Running]:
    """A server on loopback and a free port. `directory` gets its socket (gitlab.control), token and journal."""
    settings = Settings(
        host="127.0.0.1",
        port=0,
        control_socket=directory / "gitlab.control",
        token_file=directory / "gitlab.token",
        calls=directory / "gitlab.calls.jsonl",
    )
    started: queue.Queue[tuple[Running, asyncio.AbstractEventLoop]] = queue.Queue()
    stop = asyncio.Event()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        await serve(settings, stop, lambda running: started.put((running, loop)))

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="lab-gitlab", daemon=True)
    thread.start()
    running, loop = started.get(timeout=START_S)
    try:
        yield running
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(START_S)
