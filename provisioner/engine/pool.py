"""A bounded pool with a clock: at most so many hosts at once, a thread each, and none longer than its time.

Not `concurrent.futures`: a thread that hangs must hold neither its slot nor the end of the program. Knows nothing of
what is done with a host.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

TICK_S: Final = 0.2
# From the deadline until a thread is given up: time to notice and to hang up.
GRACE_S: Final = 5.0

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class Task(Generic[Item]):
    """One item on its way. `cancel` is set when the run is interrupted and when time is over (then `is_late`).

    `is_given_up`: nobody waits for it any more, so what it still has to say is dropped. That is never done to a task
    that has begun to change something: it ends by itself, and takes back what it must.
    """

    item: Item
    started: float
    cancel: threading.Event = field(default_factory=threading.Event)
    is_late: bool = False
    is_given_up: bool = False
    _is_changing: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def may_change(self) -> bool:
        """Ask before the first change: False when it is too late for one, else the task is waited for from now on."""
        with self._lock:
            self._is_changing = not (self.is_given_up or self.cancel.is_set())
            return self._is_changing

    def give_up(self) -> bool:
        with self._lock:
            self.is_given_up = not self._is_changing
            return self.is_given_up

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class Pool(Generic[Item, Answer]):
    """`work` runs in the task's thread and never raises; `give_up` says in its place what is answered.

    `on_cancel` is called once, when `cancel` is seen while something runs: a signal handler itself must not say much.
    """

    work: Callable[[Task[Item]], Answer]
    give_up: Callable[[Task[Item]], Answer]
    size: int
    limit_s: float | None
    cancel: threading.Event
    grace_s: float = GRACE_S
    on_cancel: Callable[[], None] = lambda: None

    def run(self, items: Iterable[Item], may_start: Callable[[], bool]) -> Iterator[tuple[Item, Answer]]:
        """Yield answers as they come. Ends when all that was started has answered; `may_start` is asked each time."""
        waiting, active = deque(items), list[Task[Item]]()
        answers: queue.SimpleQueue[tuple[Task[Item], Answer]] = queue.SimpleQueue()
        was_told = False
        while True:
            while waiting and len(active) < self.size and not self.cancel.is_set() and may_start():
                active.append(self._start(waiting.popleft(), answers))
            if not active:
                return
            if self.cancel.is_set() and not was_told:
                was_told = True
                self.on_cancel()
            for task, answer in self._next(active, answers):
                active.remove(task)
                yield task.item, answer

    def _start(self, item: Item, answers: queue.SimpleQueue[tuple[Task[Item], Answer]]) -> Task[Item]:
        task = Task(item, time.monotonic())
        run = threading.Thread(target=lambda: answers.put((task, self.work(task))), name="host", daemon=True)
        run.start()
        return task

    def _next(
        self, active: list[Task[Item]], answers: queue.SimpleQueue[tuple[Task[Item], Answer]]
    ) -> list[tuple[Task[Item], Answer]]:
        """At most one answer within a tick, and one for each task that is given up."""
        found = []
        try:
            task, answer = answers.get(timeout=TICK_S)
            found = [] if task.is_given_up else [(task, answer)]
        except queue.Empty:
            pass
        answered = [task for task, _ in found]
        return found + [(task, self.give_up(task)) for task in active if task not in answered and self._is_lost(task)]

    def _is_lost(self, task: Task[Item]) -> bool:
        """Tell a task that its time is over; true once it had its time to go by itself."""
        if self.limit_s is not None and task.seconds > self.limit_s:
            task.is_late = True
        if task.is_late or self.cancel.is_set():
            task.cancel.set()
        is_over = self.limit_s is not None and task.seconds > self.limit_s + self.grace_s
        return is_over and task.give_up()
