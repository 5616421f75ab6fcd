"""Virtual clock: time moves only when all threads wait, and then to the earliest wake-up time.

Hours of rate limiting in many threads take milliseconds, and the result is always the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class VirtualTime:
    """Pass `clock` and `wait` to the code under test, then `run` the jobs, each in a thread."""

    def __init__(self) -> None:
        self.now = 0.0
        self._condition = threading.Condition()
        self._sleepers: list[tuple[float, int, threading.Event]] = []
        self._order = count()
        self._busy = 0

    def clock(self) -> float:
        """Return the virtual seconds since the start."""
        return self.now

    def wait(self, seconds: float) -> bool:
        """Wait like `threading.Event.wait` of an event that is never set."""
        woken = threading.Event()
        with self._condition:
            heappush(self._sleepers, (self.now + seconds, next(self._order), woken))
            self._busy -= 1
            self._condition.notify()
        woken.wait(60)
        return False

    def pass_by(self, seconds: float) -> bool:
        """Wait without threads: let the time pass at once."""
        self.now += seconds
        return False

    def run(self, *jobs: Callable[[], None]) -> None:
        """Run the jobs to their end; only one of them runs at any time."""
        for job in jobs:
            self.start(job)
            with self._condition:
                self._condition.wait_for(lambda: not self._busy, 60)
        while True:
            with self._condition:
                self._condition.wait_for(lambda: not self._busy, 60)
                if not self._sleepers:
                    return
                due_at, _, woken = heappop(self._sleepers)
                self.now = max(self.now, due_at)
                self._busy += 1
            woken.set()

    def start(self, job: Callable[[], None]) -> None:
        """Start another job; one that runs may call this."""

        def work() -> None:
            self.wait(0.0)
            try:
                job()
            finally:
                with self._condition:
                    self._busy -= 1
                    self._condition.notify()

        with self._condition:
            self._busy += 1
        threading.Thread(target=work, daemon=True).start()
