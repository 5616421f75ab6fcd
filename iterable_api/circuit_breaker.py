"""Circuit breaker of an endpoint: while Iterable does not answer, requests wait, and do not fail.

An attempt is *answered* by the API's JSON with a status other than 408 and 5xx: see
`ApiResponse.is_answer`. The breaker opens after 20 unanswered attempts in a row, or when a request
has used all its attempts and nothing on the endpoint was answered meanwhile. Then one attempt at a
time is made, each with another waiting request, and any answer closes the breaker.

A request fails only by attempts that *count*: something else was answered after they began. So an
outage uses up nobody's attempts, and a request that breaks the endpoint for itself alone still
fails.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

UNANSWERED_IN_A_ROW = 20  # attempts; then the breaker opens
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 5.0, 30.0  # before each attempt while open, doubling
# So many waiting requests may be what breaks the endpoint, each for itself: getFields is asked.
MAX_SUSPECTS = 20
LINE_EVERY_SECONDS = 60.0
_CHECK_EVERY_SECONDS = 0.5  # whether the run stops or the breaker was closed


class Attempts:
    """The unanswered attempts of one request, of which it may make `most`.

    `count_at_once`: they count although nothing else was answered since.
    """

    __slots__ = ("_began_at", "_most", "_was_probe", "count_at_once", "counted", "tried_in")

    def __init__(self, most: int, *, count_at_once: bool = False) -> None:
        self._most = most
        self._began_at: list[float] = []  # of those that do not count yet
        self._was_probe = False  # whether the last one was a probe, which does not count either
        self.count_at_once = count_at_once
        self.counted = 0
        self.tried_in = 0  # the outage (1, 2, ...) in which it was last tried

    @property
    def are_used_up(self) -> bool:
        """Whether the request has failed."""
        return self.counted >= self._most

    @property
    def seem_used_up(self) -> bool:
        """Whether it has made all its attempts, and nothing was answered since the first."""
        return len(self._began_at) >= self._most

    @property
    def met_outage(self) -> bool:
        """Whether the last attempts do not count: if the run ends now, they say nothing."""
        return bool(self._began_at) or self._was_probe

    @property
    def failed_count(self) -> int:
        return self.counted + len(self._began_at)

    def add(self, began_at: float, *, counts: bool, is_probe: bool) -> None:
        """Add a failed attempt. Where attempts count at once, that of a probe never does."""
        self._was_probe = False
        if counts or (self.count_at_once and not is_probe):
            self.counted += 1
        elif self.count_at_once:
            self._was_probe = True
        else:
            self._began_at.append(began_at)

    def count_those_before(self, answered_at: float) -> None:
        """Count the attempts that began before something was answered."""
        later = [began_at for began_at in self._began_at if began_at >= answered_at]
        if len(later) < len(self._began_at):
            self.counted += len(self._began_at) - len(later)
            self._began_at = later

    def start_anew(self) -> None:
        """Allow all attempts from here on; from now on each of them counts at once."""
        self._was_probe = False
        if not self.count_at_once:
            self.count_at_once = True
            self.counted = 0
            self._began_at = []


class CircuitBreaker:
    """The circuit breaker of one endpoint. Thread-safe.

    Without `patience_seconds` it never opens, and every unanswered attempt counts.
    """

    def __init__(
        self,
        endpoint: str,
        patience_seconds: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_open = False
        self.outage_count = 0  # how often it has opened
        self._endpoint = endpoint
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._changed = threading.Condition()
        self._in_a_row = 0  # unanswered attempts
        self._answered_at = float("-inf")
        self._fields_answered_at = float("-inf")
        self._last_cause = ""
        self._waiting: dict[Attempts, None] = {}  # in the order in which they are tried
        self._probing: Attempts | None = None  # whose attempt is the next or under way
        self._probe_at = 0.0
        self._wait_seconds = FIRST_WAIT_SECONDS
        self._outage_began_at: float | None = None  # goes on until the endpoint itself answers
        self._logged_at = 0.0
        self._limited_since: float | None = None  # when the first of nothing but 429s came
        self._limited_seconds: float | None = None  # set when the patience with 429s is over

    def attempts(self, most: int, *, count_at_once: bool = False) -> Attempts:
        """Return the attempts of a new request."""
        is_off = self._patience_seconds is None
        return Attempts(most, count_at_once=count_at_once or is_off)

    # Before an attempt

    def admit(self, attempts: Attempts, stop: threading.Event) -> bool:
        """Wait until the request may be tried; return False after a stop."""
        if not self.is_open:
            return True
        while True:
            with self._changed:
                if not self.is_open:
                    return True
                self._waiting.setdefault(attempts)
                if stop.is_set():
                    self._leave(attempts)
                    self._changed.notify_all()
                    return False
                if self._probing is None and self._next() is attempts:
                    self._probing = attempts
                if self._probing is not attempts:
                    self._changed.wait(_CHECK_EVERY_SECONDS)
                    continue
                wait_seconds = self._probe_at - self._clock()
                if wait_seconds <= 0:
                    return True
            stop.wait(min(wait_seconds, _CHECK_EVERY_SECONDS))

    def holds_back(self, attempts: Attempts) -> bool:
        """Return whether the breaker has opened since `admit`."""
        return self.is_open and self._probing is not attempts

    # After an attempt

    def note_answer(self, *, is_rate_limited: bool = False) -> None:
        """Note an answered attempt; it closes the breaker."""
        self._answered_at = now = self._clock()
        if not (
            is_rate_limited
            or self._in_a_row
            or self._limited_since is not None
            or self._outage_began_at is not None
        ):
            return  # nearly always, and without the lock
        with self._changed:
            self._in_a_row = 0
            if self.is_open:
                seconds = now - (self._outage_began_at or now)
                self._close()
                logger.warning(
                    "Iterable answers %s again after %.0f s: the run goes on.",
                    self._endpoint,
                    seconds,
                )
            self._outage_began_at = None
            if not is_rate_limited:
                self._limited_since = None
            elif self._limited_since is None:
                self._limited_since = now
            if is_rate_limited:
                self._check_rate_limit(now, 0.0)

    def note_unanswered(
        self, attempts: Attempts, began_at: float, cause: str, *, is_answered: bool = False
    ) -> None:
        """Note a failed attempt; it may open the breaker.

        `is_answered`: the API's JSON says that a later attempt may succeed.
        """
        with self._changed:
            is_probe = self._probing is attempts
            attempts.add(began_at, counts=is_answered, is_probe=is_probe)
            if is_answered:
                return
            self.count(attempts)
            self._last_cause = cause
            if is_probe:
                attempts.tried_in = self.outage_count
                self._wait_seconds = min(2 * self._wait_seconds, MAX_WAIT_SECONDS)
                self._probe_at = self._clock() + self._wait_seconds
            elif not attempts.count_at_once:
                self._in_a_row += 1
                # A request that has failed does not open it by its own attempts: something was
                # answered after the earlier ones, and it does not wait to try again.
                has_met_only_outage = attempts.seem_used_up and not attempts.are_used_up
                if self._in_a_row >= UNANSWERED_IN_A_ROW or has_met_only_outage:
                    self._open()

    def note_blocked(self, cause: str) -> None:
        """Note that a proxy or firewall has blocked a request: twenty in a row are an outage."""
        with self._changed:
            self._in_a_row += 1
            self._last_cause = cause
            if self._in_a_row >= UNANSWERED_IN_A_ROW:
                self._open()

    def count(self, attempts: Attempts) -> None:
        """Count the attempts that began before anything was answered."""
        attempts.count_those_before(max(self._answered_at, self._fields_answered_at))

    def is_probe(self, attempts: Attempts) -> bool:
        """Return whether the request is the one that is tried while the breaker is open."""
        return self._probing is attempts

    def lacks_a_probe(self) -> bool:
        """Return whether it is time to try again, but no request waits to do so.

        The requests that opened it may all have failed: they began before the last answer.
        """
        return self.is_open and not self._waiting and self._clock() >= self._probe_at

    def asks_for_fields(self) -> bool:
        """Return whether all of the few waiting requests have been tried since the opening."""
        with self._changed:
            return (
                self.is_open
                and len(self._waiting) <= MAX_SUSPECTS
                and all(map(self._was_tried, self._waiting))
            )

    def end_probe(self, attempts: Attempts) -> None:
        """Let the next of the waiting requests try; does nothing unless this one was trying."""
        if self._probing is not attempts:
            return
        with self._changed:
            if self._probing is attempts:
                self._leave(attempts)
                self._changed.notify_all()

    def note_fields(self) -> None:
        """Note that getFields was answered: the attempts that began before count."""
        self._fields_answered_at = self._clock()

    def close_for_suspects(self) -> None:
        """Close, because Iterable is up: the waiting requests have all their attempts once more."""
        with self._changed:
            if self.is_open:
                count = len(self._waiting)
                for attempts in self._waiting:
                    attempts.start_anew()
                self._in_a_row = 0
                self._close()
                logger.warning(
                    "Iterable answers other requests than those to %s. The requests that wait (%d) "
                    "are tried again, up to MAX_ATTEMPTS times each.",
                    self._endpoint,
                    count,
                )

    # 429s

    def note_rate_limit_over(self, wait_seconds: float) -> None:
        """Note that a request gives up before another wait of this length because of 429s."""
        with self._changed:
            self._check_rate_limit(self._clock(), wait_seconds)

    def _check_rate_limit(self, now: float, wait_seconds: float) -> None:
        if self._limited_since is None or self._patience_seconds is None:
            return
        if now + wait_seconds - self._limited_since >= self._patience_seconds:
            self._limited_seconds = now - self._limited_since

    # The run

    def open(self, cause: str, unanswered_since: float) -> None:
        """Open the breaker unless anything was answered since: some requests were not."""
        with self._changed:
            if self._answered_at < unanswered_since:
                self._last_cause = cause
                self._open()

    def watch(self) -> str | None:
        """Log an outage once a minute; return why the run has to end, None if it goes on."""
        if self._limited_seconds is not None:
            return (
                f"Iterable has answered every request to {self._endpoint} with HTTP 429 (rate limit"
                f" exceeded) for {self._limited_seconds:.0f} s. Run again later; if it recurs, "
                "find out which other programs use the limit of this project."
            )
        if not self.is_open or self._patience_seconds is None:
            return None
        with self._changed:
            now = self._clock()
            if not self.is_open or self._outage_began_at is None:
                return None
            seconds = now - max(self._outage_began_at, self._answered_at)
            if seconds >= self._patience_seconds:
                return (
                    f"Iterable has not answered any request to {self._endpoint} for "
                    f"{seconds:.0f} s (the last: {self._last_cause}). Run again later: the rest "
                    "is sent then."
                )
            if now - self._logged_at >= LINE_EVERY_SECONDS:
                self._logged_at = now
                logger.warning(
                    "Iterable has not answered %s for %.0f s (the last: %s). The run waits for up "
                    "to %.0f s more.",
                    self._endpoint,
                    seconds,
                    self._last_cause,
                    self._patience_seconds - seconds,
                )
        return None

    # With the lock held

    def _open(self) -> None:
        if self.is_open or self._patience_seconds is None:
            return
        now = self._logged_at = self._clock()
        if self._outage_began_at is None:
            self._outage_began_at = now
        self._wait_seconds = FIRST_WAIT_SECONDS
        self._probe_at = now + FIRST_WAIT_SECONDS
        self._waiting.clear()
        self._probing = None
        self.is_open = True
        self.outage_count += 1
        logger.warning(
            "Iterable does not answer %s (the last attempt: %s). Its requests wait, and one at a "
            "time tries again, for up to %.0f s.",
            self._endpoint,
            self._last_cause,
            self._patience_seconds - (now - max(self._outage_began_at, self._answered_at)),
        )

    def _close(self) -> None:
        self.is_open = False
        self._waiting.clear()
        self._probing = None
        self._changed.notify_all()

    def _was_tried(self, attempts: Attempts) -> bool:
        return attempts.tried_in == self.outage_count

    def _next(self) -> Attempts:
        """Return the first waiting request that was not tried, else the first of all."""
        untried = (attempts for attempts in self._waiting if not self._was_tried(attempts))
        return next(untried, None) or next(iter(self._waiting))

    def _leave(self, attempts: Attempts) -> None:
        self._waiting.pop(attempts, None)
        if self._probing is attempts:
            self._probing = None


class CircuitBreakers:
    """The circuit breakers of all endpoints. Without `patience_seconds` none ever opens."""

    def __init__(
        self,
        endpoints: Iterable[str] = (),
        patience_seconds: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._breakers = {
            endpoint: CircuitBreaker(endpoint, patience_seconds, clock=clock)
            for endpoint in endpoints
        }

    def __getitem__(self, endpoint: str) -> CircuitBreaker:
        return self._breakers[endpoint]

    @property
    def have_opened(self) -> bool:
        """Whether any of them has opened at least once."""
        return any(breaker.outage_count for breaker in self._breakers.values())

    def is_open(self, endpoint: str) -> bool:
        breaker = self._breakers.get(endpoint)
        return breaker is not None and breaker.is_open

    def lacks_a_probe(self, endpoint: str) -> bool:
        """Return whether the breaker of an endpoint needs another request to try again."""
        breaker = self._breakers.get(endpoint)
        return breaker is not None and breaker.lacks_a_probe()

    def open(self, endpoint: str, cause: str, unanswered_since: float = float("inf")) -> None:
        """Open the breaker of an endpoint unless that has answered anything since."""
        if endpoint in self._breakers:
            self._breakers[endpoint].open(cause, unanswered_since)

    def note_fields(self) -> None:
        """Note that getFields was answered."""
        for breaker in self._breakers.values():
            breaker.note_fields()

    def watch(self) -> str | None:
        """Log outages once a minute; return why the run has to end, None if it goes on."""
        reasons = [breaker.watch() for breaker in self._breakers.values()]
        return next(filter(None, reasons), None)
