"""The lease keeper: threads that renew a lease and report its use in time, and see to its end when that fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from attester.errors import AttesterError, BrokerError, BrokerUnavailableError, CollectionError, LeaseEndedError
from attester.lease import Lease

_LOG: Final = logging.getLogger(__name__)

RENEW_AT: Final = 0.5
"""A lease is renewed when half of its time is over, or half of what the broker allows until new evidence; the other
half remains for retries."""

MIN_PAUSE: Final = 1.0
"""Seconds between two attempts, at least."""

MAX_WATCH: Final = 5.0
"""Seconds after which the clocks are read again, at the latest."""


class LeaseKeeper:
    """Keeps a lease alive until it is stopped; use it as a context manager.

    Where a renewal gets no answer it tries again until the lease expires, then erases the keys. Where the broker
    refuses, the keys are erased at once.

    Args:
        lease: what to keep.
        on_end: called once, by a thread of the keeper, with the error that ended the lease; not when the keeper stops.
        renew_at: after which share of the time a renewal begins, between 0 and 1.
        min_pause: seconds between two attempts, at least.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        on_end: Callable[[AttesterError], None] | None = None,
        renew_at: float = RENEW_AT,
        min_pause: float = MIN_PAUSE,
    ) -> None:
        if not 0 < renew_at < 1 or min_pause <= 0:
            raise ValueError(f"renew_at {renew_at} must be between 0 and 1, min_pause {min_pause} positive")
        self._lease = lease
        self._on_end = on_end
        self._renew_at = renew_at
        self._min_pause = min_pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._ended = False
        # Threads of their own: a renewal that hangs must not keep the keys beyond the lease's end, nor reports back.
        self._threads = tuple(
            threading.Thread(target=target, name=f"lease{target.__name__}-{lease.lease_id}", daemon=True)
            for target in (self._renew, self._watch, self._report)
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin; may be called once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop renewing and wait for a renewal that is under way; the lease stays as it is."""
        self._stop.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _end(self, error: AttesterError) -> None:
        self._stop.set()
        with self._lock:
            first, self._ended = not self._ended, True
        if first and self._on_end is not None:
            self._on_end(error)

    def _renew(self) -> None:
        pause = self._lease.renewal_due() * self._renew_at
        while not self._stop.wait(max(pause, self._min_pause)):
            try:
                self._lease.renew()
            except (BrokerUnavailableError, CollectionError):
                # No answer and no refusal: the lease stands until its time is over.
                pause = self._min_pause
            except AttesterError as error:
                self._end(error)
                return
            else:
                pause = self._lease.renewal_due() * self._renew_at

    def _watch(self) -> None:
        # The wall clock may be set meanwhile: look again now and then.
        while not self._stop.wait(min(self._lease.remaining(), MAX_WATCH)):
            try:
                self._lease.check()
            except LeaseEndedError as error:
                self._end(error)
                return

    def _report(self) -> None:
        # The broker may begin to ask with any renewal: look again now and then.
        while not self._stop.wait(self._report_pause()):
            if self._lease.terms.report_every is None or not self._lease.live:
                continue
            try:
                self._lease.report()
            except BrokerError as error:
                # The lease goes on until its renewal is refused for want of reports; a later one makes up for this.
                _LOG.warning("lease %s: its use was not reported: %s", self._lease.lease_id, error)

    def _report_pause(self) -> float:
        every = self._lease.terms.report_every
        return MAX_WATCH if every is None else max(every * self._renew_at, self._min_pause)
