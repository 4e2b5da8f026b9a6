"""The log's way outside: witnesses cosign its checkpoint, then it is published.

Nothing else waits for either. Receipts promise an entry before it has a place in the log; a witness that is slow or
away delays only when strangers see it, and how far they are behind is measured and logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final, Protocol

import structlog
from prometheus_client import Gauge
from sqlalchemy import Connection, select, update

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import WitnessKey, merge
from audit.errors import AuditError, LogCorruptError, ProofError, PublishedError, UnwitnessedError
from audit.note import NoteSignature, SignedNote
from audit.publish import publish
from audit.query import newest_checkpoint
from audit.stores import FileStore, ObjectStore
from audit.tables import AUDIT_CHECKPOINT
from audit.witness import build_request, parse_cosignature, parse_size
from keybroker.broker import Broker
from keybroker.bucket_address import BucketAddress, is_address
from keybroker.errors import WitnessError

_LOG: Final = structlog.get_logger("keystead.publication")
_SIZE: Final = Gauge("keystead_log_entries", "Entries under the newest checkpoint, by who was shown it", ("shown",))
_COSIGNED: Final = Gauge("keystead_log_cosigned_entries", "Entries that a witness cosigned last", ("witness",))

_MARGIN: Final = 0.5
"""Seconds that an answer may take longer than its time-out until this thread has it."""


class WitnessLink(Protocol):
    """Carries a request to a witness and its answer back."""

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the witness's answer.

        Raises:
            WitnessError: there is none in time.
        """
        ...


class Publication:
    """Has a broker's log witnessed and published; used by one thread for each of the two."""

    def __init__(
        self, broker: Broker, links: Mapping[WitnessKey, WitnessLink], *, seconds: float, store: ObjectStore | None
    ) -> None:
        """Publication of `broker`'s log.

        Args:
            broker: whose log.
            links: how to reach each witness of the broker's policy.
            seconds: how long an answer may take.
            store: where to publish; nowhere where None.
        """
        self._broker = broker
        self._links = dict(links)
        self._seconds = seconds
        self._store = store
        self._seen: dict[WitnessKey, int] = dict.fromkeys(self._links, 0)
        self._asked: dict[WitnessKey, Future[tuple[NoteSignature, int] | None]] = {}
        self._pool = ThreadPoolExecutor(max(1, len(self._links)), thread_name_prefix="witness")
        self._complaints: dict[str, str] = {}
        self._trouble = ""

    def run_once(self) -> None:
        """Have the newest checkpoint cosigned by those that did not, and publish what may be published.

        Raises:
            AuditError: the log cannot be read.
            KeybrokerError: the cosignatures cannot be stored.
        """
        self.cosign()
        self.publish()

    def cosign(self) -> None:
        """Have the newest checkpoint cosigned by those that did not.

        Raises:
            AuditError: the log cannot be read.
            KeybrokerError: the cosignatures cannot be stored.
        """
        with self._broker.read() as connection:
            note = newest_checkpoint(connection)
        signed = SignedNote.parse(note)
        newest = open_checkpoint(note, self._broker.keys.log.verifier)
        _SIZE.labels("signed").set(newest.size)
        self._have_cosigned(signed, newest)

    def _have_cosigned(self, signed: SignedNote, newest: Checkpoint) -> None:
        done = self._broker.witnesses.times(signed)
        asked: dict[WitnessKey, Future[tuple[NoteSignature, int] | None]] = {}
        for key, link in self._links.items():
            before = self._asked.get(key)
            if key in done:
                self._seen[key] = max(self._seen[key], newest.size)
                _COSIGNED.labels(key.name).set(newest.size)
            elif before is None or before.done():  # one that still hangs is not asked a second time meanwhile
                asked[key] = self._asked[key] = self._pool.submit(self._ask, key, link, signed)
        if not asked:
            return
        wait(asked.values(), timeout=2 * self._seconds + _MARGIN)
        lines: list[NoteSignature] = []
        for key, future in asked.items():
            if not future.done():
                self._complain(key.name, "no answer in time")
                continue
            try:
                answer = future.result()
            except (WitnessError, AuditError) as error:
                self._complain(key.name, str(error))
                continue
            if answer is not None:
                lines.append(answer[0])
                self._seen[key] = newest.size
                _COSIGNED.labels(key.name).set(newest.size)
                self._complain(key.name, "")
        if lines:
            self._broker.commit(lambda connection: _store_lines(connection, newest.size, signed.text, lines))

    def _ask(self, key: WitnessKey, link: WitnessLink, signed: SignedNote) -> tuple[NoteSignature, int] | None:
        """Ask one witness, and once more where it names another old size than was thought."""
        for _ in range(2):
            with self._broker.read() as connection:
                try:
                    request = build_request(connection, signed.to_bytes(), self._seen[key])
                except ProofError:
                    return None  # another replica's newer checkpoint was there first
            status, body = link.add_checkpoint(request.to_bytes())
            if status == 200:
                return parse_cosignature(body, signed.text, key)
            if status == 409 and parse_size(body) != self._seen[key]:
                self._seen[key] = parse_size(body)
                continue
            why = body[:200].decode("utf-8", "replace").strip()
            if status in {409, 422}:
                # Either is proof that the witness was shown another history under this log's key.
                _LOG.critical("a witness refuses the log's history", witness=key.name, status=status, why=why)
            raise WitnessError(f"witness {key.name}: answers {status}: {why}")
        return None

    def publish(self) -> None:
        """Publish the newest checkpoint that may be shown.

        A store that cannot be used is complained of, for others than the store are not to suffer for it.

        Raises:
            AuditError: the log cannot be read.
        """
        broker = self._broker
        try:
            with broker.read() as connection:
                shown = SignedNote.parse(newest_checkpoint(connection, broker.witnesses))
        except UnwitnessedError as error:
            _SIZE.labels("witnessed").set(0)
            self._complain("", str(error))
            return
        self._complain("", "")
        _SIZE.labels("witnessed").set(Checkpoint.parse_text(shown.text).size)
        if self._store is None:
            return
        try:
            done = publish(broker.read, self._store, broker.keys.log.verifier, witnesses=broker.witnesses)
        except PublishedError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                _LOG.error("the log is not published", error=self._trouble)
            return
        if self._trouble:
            self._trouble = ""
            _LOG.info("the log is published again", entries=done.checkpoint.size)
        _SIZE.labels("published").set(done.checkpoint.size)

    def _complain(self, who: str, why: str) -> None:
        """Log a trouble when it begins, changes or ends, and not every second while it lasts."""
        if self._complaints.get(who, "") == why:
            return
        self._complaints[who] = why
        if why:
            _LOG.warning("the log is not witnessed", witness=who, error=why)
        else:
            _LOG.info("the log is witnessed again", witness=who)

    def close(self) -> None:
        """Ask nobody any more; answers that are under way are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _store_lines(connection: Connection, size: int, text: str, lines: list[NoteSignature]) -> None:
    """Add cosignatures to a stored checkpoint, beside those that another replica has added meanwhile."""
    stored = connection.execute(
        select(AUDIT_CHECKPOINT.c.note).where(AUDIT_CHECKPOINT.c.tree_size == size).with_for_update()
    ).scalar_one()
    note = SignedNote.parse(stored.encode("utf-8"))
    if note.text != text:
        raise LogCorruptError(f"log: the checkpoint of {size} entries changed while witnesses cosigned it")
    connection.execute(
        update(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == size).values(note=str(merge(note, lines)))
    )


def open_store(broker: Broker) -> ObjectStore | None:
    """Where the configuration says that the log is published; None where it says nothing.

    Raises:
        PublishedError: it names a bucket, and what the environment says of its store cannot be used.
        ModuleNotFoundError: it names a bucket, and ``keystead[objectstore]`` is not installed.
    """
    config = broker.config
    where = config.log.publish
    if where is None:
        return None
    if not is_address(where):
        return FileStore(config.path(where))
    # Only who publishes in a bucket needs what speaks to it.
    from keybroker.bucket_store import BucketStore

    return BucketStore(
        BucketAddress.parse(where), endpoint=config.log.publish_endpoint, region=config.log.publish_region
    )
