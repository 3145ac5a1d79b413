"""A bounded pool with a clock: a limited number of hosts at once, a thread and a time limit each.

Not `concurrent.futures`: a thread that hangs must hold neither its slot nor the end of the program. Knows nothing of
the work on a host.
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
# From the deadline until a thread is given up: its time to notice and to hang up.
GRACE_S: Final = 5.0

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class Task(Generic[Item]):
    """One item on its way. `cancel` is set when the run is interrupted and when time is over (then `is_late`).

    `is_given_up`: no caller waits for the task any more, so its later events are dropped. A task that has begun to
    change something is never given up. It ends by itself, and undoes its changes where it must.
    """

    item: Item
    started: float
    cancel: threading.Event = field(default_factory=threading.Event)
    is_late: bool = False
    is_given_up: bool = False
    _is_changing: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def may_change(self) -> bool:
        """Ask before the first change. False: it is too late. True: the task is waited for from now on."""
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
    """`work` runs in the task's thread and never raises; `give_up` makes the answer for a task that is given up.

    `on_cancel` is called once, when `cancel` is seen while something runs. A signal handler itself must not print.
    """

    work: Callable[[Task[Item]], Answer]
    give_up: Callable[[Task[Item]], Answer]
    size: int
    limit_s: float | None
    cancel: threading.Event
    grace_s: float = GRACE_S
    on_cancel: Callable[[], None] = lambda: None

    def run(self, items: Iterable[Item], may_start: Callable[[], bool]) -> Iterator[tuple[Item, Answer]]:
        """Yield answers as they come, until each task has answered. `may_start` is asked before each start."""
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
        """Tell a task that its time is over; true when its grace is over too."""
        if self.limit_s is not None and task.seconds > self.limit_s:
            task.is_late = True
        if task.is_late or self.cancel.is_set():
            task.cancel.set()
        is_over = self.limit_s is not None and task.seconds > self.limit_s + self.grace_s
        return is_over and task.give_up()
