"""A job's log on its way to GitLab: kept whole, sent in pieces, checked at the end (as network/trace.go does)."""

from __future__ import annotations

import codecs
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .gitlab import Answer, GitLab, JobKey, Outcome, Written
from .log import Log

DEFAULT_LIMIT: Final = 4 * 1024 * 1024
PATCH_LIMIT: Final = 1024 * 1024
INTERVAL_S: Final = 3.0
FORCE_INTERVAL_S: Final = 30.0
_LONGEST_BACKOFF_S: Final = 3600.0
_WARN: Final = "\033[33;1m"
_RESET: Final = "\033[0;m"


@dataclass(frozen=True)
class TraceOptions:
    """`limit` in bytes; `retries`: tries of the final update; `debug`: the log may hold otherwise hidden values."""

    limit: int = DEFAULT_LIMIT
    retries: int = 10
    debug: bool = False


class Buffer:
    """The log's bytes: valid UTF-8, up to the limit (in bytes)."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._data = bytearray()
        self._full = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lock = threading.Lock()

    def write(self, data: bytes, *, final: bool = False) -> None:
        with self._lock:
            text = self._decoder.decode(data, final)
            if not self._full:
                self._append(text.encode())

    def _append(self, data: bytes) -> None:
        room = self._limit - len(self._data)
        if len(data) < room:
            self._data += data
            return
        self._data += data[:room].decode("utf-8", "ignore").encode()
        self._data += (
            f"\n{_WARN}Job's log exceeded limit of {self._limit} bytes.\n"
            f"Job execution will continue but no more output will be collected.{_RESET}\n"
        ).encode()
        self._full = True

    def piece(self, start: int) -> bytes:
        with self._lock:
            return bytes(self._data[start : start + PATCH_LIMIT])

    @property
    def size(self) -> int:
        with self._lock:
            return len(self._data)

    @property
    def written(self) -> Written:
        with self._lock:
            return Written(f"crc32:{zlib.crc32(self._data):08x}", len(self._data))


class Trace:
    """Sends the buffer in the background until `finish`, and reports cancellation by two callbacks.

    `on_cancel`: GitLab asks for a graceful end (the script only). `on_abort`: the job is no longer ours.
    """

    def __init__(self, gitlab: GitLab, job: JobKey, own_log: Log, options: TraceOptions) -> None:
        self.buffer = Buffer(options.limit)
        self.on_cancel: Callable[[], None] = _nothing
        self.on_abort: Callable[[], None] = _nothing
        self._gitlab = gitlab
        self._job = job
        self._log = own_log
        self._options = options
        self._sent = 0
        self._sent_at = 0.0
        self._interval = INTERVAL_S
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name=f"trace-{job.id}", daemon=True)

    def start(self) -> None:
        self._watcher.start()

    def write(self, data: bytes) -> None:
        self.buffer.write(data)

    def finish(self, outcome: Outcome) -> bool:
        """Send the rest and the outcome, with many tries; False when GitLab accepted none."""
        self.buffer.write(b"", final=True)
        self.discard()
        pause = 1.0
        for attempt in range(1, self._options.retries + 1):
            if self._final_update(outcome):
                return True
            self._log.warning("Final update of the job failed", job=self._job.id, attempt=attempt)
            if attempt < self._options.retries:
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_BACKOFF_S)
        return False

    def discard(self) -> None:
        """Stop sending, without another word to GitLab."""
        self._done.set()
        if self._watcher.ident is not None:
            self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            if not self._update():
                return

    def _update(self) -> bool:
        """Send one piece and, after a long silence, one sign of life. False: the job is to be aborted."""
        answer = self._send_piece()
        if answer is Answer.OK and time.monotonic() - self._sent_at > FORCE_INTERVAL_S:
            answer = self._touch()
        if answer is Answer.ABORT:
            self.on_abort()
            return False
        return True

    def _send_piece(self) -> Answer:
        piece = self.buffer.piece(self._sent)
        if not piece:
            return Answer.OK
        reply = self._gitlab.patch_trace(self._job, piece, self._sent, debug=self._options.debug)
        self._interval = reply.interval or self._interval
        if reply.answer in {Answer.OK, Answer.MISMATCH}:
            self._sent = reply.offset
            self._sent_at = time.monotonic()
        if reply.cancel:
            self.on_cancel()
        return reply.answer

    def _touch(self) -> Answer:
        reply = self._gitlab.update(self._job, self.buffer.written)
        self._interval = reply.interval or self._interval
        if reply.answer is Answer.OK:
            self._sent_at = time.monotonic()
        if reply.cancel:
            self.on_cancel()
        return reply.answer

    def _final_update(self, outcome: Outcome) -> bool:
        """True when GitLab has it or the job is not ours any more, False when it should be tried again."""
        self._interval = INTERVAL_S
        while True:
            if not self._send_all():
                return False
            reply = self._gitlab.update(self._job, self.buffer.written, outcome)
            self._interval = reply.interval or self._interval
            if reply.answer in {Answer.OK, Answer.ABORT, Answer.GONE}:
                return True
            if reply.answer is Answer.RESEND:
                self._sent = 0
            time.sleep(self._interval)
            if reply.answer is Answer.FAILED:
                return False

    def _send_all(self) -> bool:
        while self.buffer.size != self._sent:
            answer = self._send_piece()
            if answer in {Answer.ABORT, Answer.GONE}:
                return True
            if answer is not Answer.OK:
                time.sleep(self._interval)
            if answer is Answer.FAILED:
                return False
        return True


def _nothing() -> None:
    pass
