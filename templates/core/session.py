"""One client and its connection to the daemon: each request is judged, written anew, and answered before the next one.

After some errors the daemon keeps a connection whose request it has not read whole. It would then take the rest for
new requests (src/libstore/daemon.cc, `errorAllowed`). So an error ends the connection while the request is still being
sent. It also ends it when the daemon begins its work before it has read the whole request.
"""

# ruff: noqa: INP001 - part of a program by itself, pushed to the hosts

from __future__ import annotations

import contextlib
import enum
import os
import threading
from typing import TYPE_CHECKING

from grammar import (
    MESSAGES,
    PRETENCE,
    STDERR_START_ACTIVITY,
    Limits,
    Operation,
    Verdict,
    any_bytes,
    greeting,
    operations,
)
from wire import (
    CLIENT_MAGIC,
    DAEMON_MAGIC,
    MAX_FRAME,
    STDERR_ERROR,
    STDERR_LAST,
    Framer,
    Frames,
    Hangup,
    Nowhere,
    Peer,
    Refused,
    Sink,
    capped,
    number,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grammar import Contents, Field
    from tally import Tally

STORE = b"/nix/store"


class Answer(enum.Enum):
    """The end of the daemon's answer to a request."""

    RESULT = "result"
    ERROR = "error"
    NONE = "none"


class Session:
    def __init__(self, client: Peer, daemon: Peer, limits: Limits, tally: Tally, store: bytes = STORE) -> None:
        self._client = client
        self._daemon = daemon
        self._limits = limits
        self._tally = tally
        self._store = store
        self._to_client = Sink(client.send, peer=client)
        self._to_daemon = Sink(daemon.send, tally.asks)
        self._operations: dict[int, Operation] = {}
        # A refusal can be sent only where the client expects the beginning of a message.
        self._is_between = False
        daemon.watch(client, self._to_client.flush)
        client.watch(daemon)

    def run(self) -> None:
        """Serve until one side hangs up. Raises Hangup, OSError."""
        try:
            self._greet()
            while True:
                self._request(self._client.number())
        except Refused as refusal:
            if self._is_between:
                self._refuse(str(refusal))
            raise

    def _greet(self) -> None:
        if self._client.number() != CLIENT_MAGIC:
            raise Hangup("no Nix client")
        self._daemon.send(number(CLIENT_MAGIC))
        if self._daemon.number() != DAEMON_MAGIC:
            raise Hangup("no Nix daemon")
        offered = capped(self._daemon.number())
        self._client.send(number(DAEMON_MAGIC) + number(offered))
        version = min(offered, capped(self._client.number()))
        # Obsolete and still sent: a processor to run on, and whether to keep space in reserve.
        if self._client.number():
            self._client.number()
        self._client.number()
        self._daemon.send(number(version) + number(0) + number(0))
        minor = version & 0xFF
        self._operations = operations(self._store, minor, self._limits)
        self._answer(Operation("greeting"), greeting(minor))

    def _request(self, code: int) -> None:
        operation = self._operations.get(code)
        if operation is None:
            raise Refused(f"request {code if code <= MAX_FRAME else 'of no number'}")
        if operation.verdict is Verdict.PASSED:
            self._pass(code, operation)
            return
        values = [field(self._client, Nowhere()) for field in operation.request]
        if operation.contents is not None:
            # They go nowhere, so they are not judged.
            any_bytes(values, Frames(self._client), Nowhere())
        if operation.verdict is Verdict.PRETENDED:
            self._client.send(PRETENCE)
        else:
            self._refuse(operation.name)

    def _pass(self, code: int, operation: Operation) -> None:
        self._to_daemon.number(code)
        values = [field(self._client, self._to_daemon) for field in operation.request]
        self._to_daemon.flush()
        if operation.contents is None:
            answer = self._answer(operation)
        else:
            answer = self._send(operation, operation.contents, values)
        if answer is not Answer.RESULT and operation.begins_early:
            raise Hangup(f"the daemon refused {operation.name}")

    def _send(self, operation: Operation, contents: Contents, values: Sequence[object]) -> Answer:
        """Pass on contents in frames. A thread passes on the daemon's messages meanwhile."""
        frames, framer = Frames(self._client), Framer(self._daemon.send)
        answers: list[Answer] = []
        listener = threading.Thread(target=self._listen, args=(operation, framer, answers), daemon=True)
        listener.start()
        try:
            contents(values, frames, framer)
            frames.finish()
            framer.end()
        except (Hangup, OSError):
            self._daemon.close()
            listener.join()
            if answers != [Answer.ERROR]:
                raise
            # The client gets the reason after it has sent everything.
            self._client.watch(None)
            with contextlib.suppress(Hangup, OSError):
                for _ in frames.rest():
                    pass
        listener.join()
        return answers[0]

    def _listen(self, operation: Operation, framer: Framer, answers: list[Answer]) -> None:
        answer = Answer.NONE
        with contextlib.suppress(Hangup, OSError):
            answer = self._answer(operation)
        if answer is Answer.RESULT and not framer.has_ended:
            answer = Answer.NONE
        answers.append(answer)
        if answer is not Answer.RESULT:
            self._daemon.close()

    def _answer(self, operation: Operation, before: Sequence[Field] = ()) -> Answer:
        """Pass on the daemon's answer to one request: its log, then a result or an error."""
        for field in before:
            field(self._daemon, self._to_client)
        answer = self._log()
        if answer is Answer.RESULT:
            for field in operation.reply:
                field(self._daemon, self._to_client)
        self._to_client.flush()
        self._is_between = True
        return answer

    def _log(self) -> Answer:
        while True:
            self._is_between = True
            code = self._daemon.number()
            self._is_between = False
            if code not in MESSAGES:
                raise Hangup(f"message {code:x}")
            self._to_client.number(code)
            values = [field(self._daemon, self._to_client) for field in MESSAGES[code]]
            if code == STDERR_START_ACTIVITY:
                self._tally.began(values[2], values[4])
            elif code in (STDERR_LAST, STDERR_ERROR):
                return Answer.RESULT if code == STDERR_LAST else Answer.ERROR

    def _refuse(self, name: str) -> None:
        say(f"refused {name}")
        message = f"{name} is refused to jobs on this host (nixprov)"
        error = [text(b"Error"), number(0), text(b"Error"), text(message.encode()), number(0), number(0)]
        self._to_client.raw(number(STDERR_ERROR) + b"".join(error))
        self._to_client.flush()


def say(line: str) -> None:
    # One write, so that lines of several processes do not mix.
    os.write(2, (line + "\n").encode())
