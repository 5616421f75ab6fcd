"""Recorder of webhooks: one thread writes what the server's threads receive.

Webhooks that arrive while a commit is under way are committed together: so 200 calls at once need
few flushes of the disk instead of 200.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from queue import Empty, SimpleQueue

from records.webhooks import Webhook
from state.confirmations import ConfirmationsError, ConfirmationsFile, Received

logger = logging.getLogger(__name__)

_MAX_TOGETHER = 500
_CLEAN_EVERY_SECONDS = 3_600.0
TIMEOUT_SECONDS = 20.0  # of one webhook; then it counts as not stored

_Waiting = tuple[Received, "Future[bool]"]


class Recorder:
    """Writes webhooks to the file of confirmations. Raises ConfirmationsError if it cannot open it.

    `received_count` counts calls that were stored, `new_count` those that were no repeats.
    """

    def __init__(
        self,
        path: Path,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clean_every_seconds: float = _CLEAN_EVERY_SECONDS,
    ) -> None:
        ConfirmationsFile(path).close()  # a problem shows at the start
        self._path = path
        self._timeout_seconds, self._clean_every_seconds = timeout_seconds, clean_every_seconds
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self.received_count = self.new_count = self.confirming_count = 0
        self._cleaned_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def record(self, webhook: Webhook) -> bool:
        """Store a webhook; return whether it is on the disk. Called by many threads."""
        done: Future[bool] = Future()
        self._queue.put((Received(webhook, int(time.time())), done))
        try:
            return done.result(timeout=self._timeout_seconds)
        except FutureTimeoutError:  # in Python 3.10 it is not the built-in TimeoutError
            return False

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._queue.put(None)
        self._thread.join(self._timeout_seconds)

    def _run(self) -> None:
        file: ConfirmationsFile | None = None
        is_over = False
        while not is_over:
            waiting = self._take()
            is_over = None in waiting
            found = [each for each in waiting if each is not None]
            file = self._write(file, found)
        if file is not None:
            file.close()

    def _take(self) -> list[_Waiting | None]:
        """Wait for webhooks and return those that are there; none when old ones are to be removed.

        None instead of a webhook means the end.
        """
        try:
            waiting = [self._queue.get(timeout=self._clean_every_seconds)]
        except Empty:
            return []
        while len(waiting) < _MAX_TOGETHER and not self._queue.empty():
            waiting.append(self._queue.get())
        return waiting

    def _write(
        self, file: ConfirmationsFile | None, found: list[_Waiting]
    ) -> ConfirmationsFile | None:
        """Store webhooks and tell who waits for them; return the open file, None after an error."""
        is_stored = False
        try:
            if file is not None and not file.is_in_place():
                file.close()
                file = None
            file = file or ConfirmationsFile(self._path)
            if found:
                self.new_count += file.add([received for received, _done in found])
                self.received_count += len(found)
                self.confirming_count += sum(
                    bool(received.webhook.event_hashes) for received, _done in found
                )
            is_stored = True
            self._forget_old(file)
        except ConfirmationsError as error:
            logger.error(
                "%s%s",
                error,
                " Iterable is told to send these webhooks again (HTTP 503)." if found else "",
            )
            if file is not None:
                file.close()  # after a full disk it is opened anew
            file = None
        finally:
            for _received, done in found:
                done.set_result(is_stored)
        return file

    def _forget_old(self, file: ConfirmationsFile) -> None:
        if time.monotonic() - self._cleaned_at >= self._clean_every_seconds:
            self._cleaned_at = time.monotonic()
            file.forget_old(int(time.time()))
