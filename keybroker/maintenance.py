"""What a broker does when nobody asks: sequence and seal the log, end leases whose time is over, forget what is old."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy import Connection

from audit.errors import AuditError
from audit.log import append_many
from keybroker import erasure
from keybroker.broker import Broker
from keybroker.errors import KeybrokerError, StoreError
from keybroker.leases import sweep
from keybroker.publication import Publication
from keybroker.refusals import aggregate_record
from keybroker.store import appraisals, budgets, idempotency, leases

SEQUENCE_EVERY: Final = 0.2
"""Seconds between two looks for unsequenced entries: how far proofs lag behind receipts."""

PUBLISH_EVERY: Final = 1.0
"""Seconds between two looks for a checkpoint to have cosigned and to publish."""

SWEEP_EVERY: Final = 5.0
"""Seconds between two looks for leases to end; an ended lease is refused at once, whatever its row says."""

KEEP_EVERY: Final = 2.0
"""Seconds between two looks for records to seal and erasures to carry on."""

KEEP_BATCHES: Final = 20
"""Batches of `keybroker.erasure.BATCH` entries in one such look: 10,000 entries."""

FORGET_AFTER: Final = 7 * 86_400
"""Seconds for which a request id is remembered."""

FORGET_BATCH: Final = 200
"""Appraisals removed in one transaction."""

FORGET_BATCHES: Final = 50
"""Such transactions in one sweep: 2,000 appraisals in a second, far more than a broker makes."""

_LOG: Final = structlog.get_logger("keystead.maintenance")


class Maintenance:
    """Threads beside the server; a failure is logged and tried again, for a broker must not stop for it."""

    def __init__(self, broker: Broker, publication: Publication | None = None) -> None:
        """Maintenance of `broker`; with `publication` it has the log witnessed and publishes it."""
        self._broker = broker
        self._publication = publication
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, args=(SEQUENCE_EVERY, self.sequence), name="sequencer", daemon=True),
            threading.Thread(target=self._loop, args=(SWEEP_EVERY, self.sweep), name="sweeper", daemon=True),
            threading.Thread(target=self._loop, args=(KEEP_EVERY, self.keep_sealed), name="sealer", daemon=True),
        ]
        if publication is not None:
            # Two threads, so that a store that hangs delays no witness.
            self._threads += [
                threading.Thread(target=self._loop, args=(PUBLISH_EVERY, work), name=name, daemon=True)
                for name, work in (("cosigner", publication.cosign), ("publisher", publication.publish))
            ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, after a last look at the log."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._guarded(self.sequence)
        if self._publication is not None:
            self._guarded(self._publication.run_once)
            self._publication.close()

    def sequence(self) -> None:
        """Give entries their places in the log."""
        self._broker.sequence()

    def keep_sealed(self) -> None:
        """Seal records from before they were sealed, and carry on erasures that were left undone."""
        erasure.seal(self._broker, batches=KEEP_BATCHES)
        erasure.carry_on_all(self._broker, batches=KEEP_BATCHES)

    def sweep(self) -> None:
        """End leases, record counted refusals, forget old requests, spent nonces, challenge keys and appraisals."""
        broker, now = self._broker, self._broker.clock()
        counted = broker.refusals.drain()
        if counted:
            records = [aggregate_record(group, count, now=now) for group, count in counted]
            try:
                broker.commit(lambda connection: append_many(connection, records))
            except StoreError:
                broker.refusals.restore(counted)
                raise

        def unit(connection: Connection) -> None:
            idempotency.forget_before(connection, now - FORGET_AFTER)
            broker.epochs.delete_expired(connection, now)
            # One epoch later than they could: a replica whose clock is behind may still accept them.
            leases.forget_spent(connection, epoch=max(0, broker.epochs.first_useful(now) - 1))

        broker.commit(unit)
        # Where the clock was set back, what was over by the time that had been seen is over before the mark follows it.
        with broker.read() as connection:
            seen = max(now, budgets.latest(connection))
        if seen > now:
            _LOG.warning("the clock was set back", seconds=seen - now)
        total = 0
        while ended := broker.commit(lambda connection: sweep(connection, now=seen)):
            total += ended
        broker.commit(lambda connection: budgets.mark(connection, now=now))
        if total:
            _LOG.info("leases ended", count=total)
        self._forget_evidence(now)

    def _forget_evidence(self, now: int) -> None:
        """Remove appraisals that are old enough, in transactions so short that calls do not wait for them."""
        before = now - self._broker.config.limits.evidence_days * 86_400
        for _ in range(FORGET_BATCHES):
            gone = self._broker.commit(
                lambda connection: appraisals.forget_before(connection, before, limit=FORGET_BATCH)
            )
            if not gone:
                return

    def _loop(self, pause: float, work: Callable[[], None]) -> None:
        while not self._stop.wait(pause):
            self._guarded(work)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (KeybrokerError, AuditError) as error:
            _LOG.error("maintenance failed, will be tried again", work=getattr(work, "__name__", ""), error=str(error))
        except Exception as error:  # noqa: BLE001 - the thread must outlive what a database can throw at it
            _LOG.error("maintenance failed, will be tried again", exc_info=error)
