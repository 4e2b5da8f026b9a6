"""The sequencer: gives unsequenced entries their places, grows the tree and signs a checkpoint.

One batch is one transaction: indexes, per-asset counters, tiles, checkpoint and state are committed together or
not at all, so a crash at any instant leaves a whole log. Any number of replicas may run a sequencer: the row of
`AUDIT_STATE` is locked for the whole transaction (``SELECT … FOR UPDATE`` on PostgreSQL; SQLite lets one writer in
at a time), and the state only moves on from the size that was read. Entries are found by ``leaf_index IS NULL`` and
never by "id above the last one seen": a transaction that commits late would vanish.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Engine, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.envelope import Leaf
from audit.errors import LogCorruptError, MalformedError, NoteSignatureError, NotInitialisedError
from audit.merkle import Frontier
from audit.note import Signer
from audit.payload import KEYED_ENTRY, PAYLOAD_COLUMNS, PayloadReader
from audit.tables import (
    AUDIT_ASSET_COUNTER,
    AUDIT_CHECKPOINT,
    AUDIT_ENTRY,
    AUDIT_ENTRY_ASSET,
    AUDIT_ENTRY_REASON,
    AUDIT_STATE,
)
from audit.tiles import integrate
from audit.times import note_times

DEFAULT_BATCH: Final = 1024
MAX_BATCH: Final = 16_384
"""Both databases take more than so many values in one statement."""

_STATE_ID: Final = 1


class Sequencer:
    """Sequences one log; safe to run in many processes at once."""

    __slots__ = ("_batch", "_engine", "_origin", "_signer")

    def __init__(self, engine: Engine, signer: Signer, origin: str, *, batch: int = DEFAULT_BATCH) -> None:
        """A sequencer for the log `origin`, whose checkpoints `signer` signs, `batch` entries at most in each.

        Raises:
            MalformedError: the key's name is not the origin, so that no verifier would accept a checkpoint.
            ValueError: the batch is not between 1 and `MAX_BATCH`.
        """
        if signer.verifier.name != origin:
            raise MalformedError("checkpoint", f"key {signer.verifier.name!r} may not sign for {origin!r}")
        if not 1 <= batch <= MAX_BATCH:
            raise ValueError(f"batch of {batch} entries")
        self._engine = engine
        self._signer = signer
        self._origin = origin
        self._batch = batch

    def initialise(self, now: int) -> None:
        """Begin the log with a signed checkpoint of size 0; does nothing where it has begun.

        Args:
            now: integer seconds since the Unix epoch.

        Raises:
            NotInitialisedError: the database holds a log of another origin.
            LogCorruptError: the state is gone although entries are sequenced.
        """
        with self._engine.begin() as connection:
            if self._check_origin(connection):
                return
        try:
            with self._engine.begin() as connection:
                empty = Frontier()
                connection.execute(
                    insert(AUDIT_STATE).values(
                        id=_STATE_ID, origin=self._origin, tree_size=0, frontier=empty.to_bytes()
                    )
                )
                # Only now: a replica that is first makes the insert above fail, and its checkpoint is no damage.
                if connection.execute(select(func.count()).select_from(AUDIT_CHECKPOINT)).scalar_one():
                    raise LogCorruptError("log: checkpoints are there, but the state row is gone; restore it")
                self._sign(connection, empty, now)
        except IntegrityError:  # another replica was first
            with self._engine.begin() as connection:
                if not self._check_origin(connection):
                    raise

    def _check_origin(self, connection: Connection) -> bool:
        origin = connection.execute(select(AUDIT_STATE.c.origin)).scalar_one_or_none()
        if origin is not None and origin != self._origin:
            raise NotInitialisedError(f"log: this database holds the log {origin!r}, not {self._origin!r}")
        return origin is not None

    def run_once(self, now: int) -> int:
        """Sequence what is waiting, batch by batch, and return how many entries were sequenced.

        Args:
            now: integer seconds since the Unix epoch; it stands beside each checkpoint.

        Raises:
            NotInitialisedError: `initialise` was never called on this database.
            LogCorruptError: stored data contradict one another; nothing was signed.
        """
        total = 0
        while True:
            with self._engine.begin() as connection:
                done = self._run_batch(connection, now)
            total += done
            if done < self._batch:
                return total

    def _run_batch(self, connection: Connection, now: int) -> int:
        waiting = select(AUDIT_ENTRY.c.id).where(AUDIT_ENTRY.c.leaf_index.is_(None)).limit(1)
        if connection.execute(waiting).first() is None:
            return 0
        frontier = self._lock_state(connection)
        rows = connection.execute(
            select(AUDIT_ENTRY.c.id, AUDIT_ENTRY.c.time, *PAYLOAD_COLUMNS)
            .select_from(KEYED_ENTRY)
            .where(AUDIT_ENTRY.c.leaf_index.is_(None))
            .order_by(AUDIT_ENTRY.c.id)
            .limit(self._batch)
        ).all()
        if not rows:  # another sequencer took them while this one waited for the lock
            return 0
        reader = PayloadReader(connection)
        hashes = [_checked_hash(reader, row) for row in rows]
        ids = [row.id for row in rows]
        _place(connection, ids, frontier.size)
        _count_assets(connection, ids)
        note_times(connection, frontier.size, [row.time for row in rows])
        integrate(connection, size=frontier.size, leaf_hashes=hashes)
        grown = frontier.extend(hashes)
        moved = connection.execute(
            update(AUDIT_STATE)
            .where(AUDIT_STATE.c.id == _STATE_ID, AUDIT_STATE.c.tree_size == frontier.size)
            .values(tree_size=grown.size, frontier=grown.to_bytes())
        )
        if moved.rowcount != 1:
            raise LogCorruptError(f"log: its size moved on from {frontier.size} while the state was locked")
        self._sign(connection, grown, now)
        return len(rows)

    def _lock_state(self, connection: Connection) -> Frontier:
        """Lock and read the state; it must be what the last checkpoint of this very key signed."""
        state = connection.execute(
            select(AUDIT_STATE.c.origin, AUDIT_STATE.c.tree_size, AUDIT_STATE.c.frontier).with_for_update()
        ).one_or_none()
        if state is None:
            raise NotInitialisedError("log: not begun yet; run `keystead init`, or call Sequencer.initialise")
        if state.origin != self._origin:
            raise NotInitialisedError(f"log: this database holds the log {state.origin!r}, not {self._origin!r}")
        last = connection.execute(
            select(AUDIT_CHECKPOINT.c.note).order_by(AUDIT_CHECKPOINT.c.tree_size.desc()).limit(1)
        ).scalar_one_or_none()
        if last is None:
            raise LogCorruptError("log: no checkpoint is stored, not even the first; restore the database")
        try:
            frontier = Frontier.parse(state.tree_size, bytes(state.frontier))
            signed = open_checkpoint(last.encode("utf-8"), self._signer.verifier)
        except (MalformedError, NoteSignatureError) as error:
            raise LogCorruptError(f"log: the state or the last checkpoint was altered ({error})") from None
        if (signed.size, signed.root) != (frontier.size, frontier.root()):
            raise LogCorruptError(
                f"log: the state has {frontier.size} entries under root {frontier.root().hex()}, the last checkpoint "
                f"signed {signed.size} under {signed.root.hex()}; verify the database before anything more is signed"
            )
        return frontier

    def _sign(self, connection: Connection, frontier: Frontier, now: int) -> None:
        checkpoint = Checkpoint(self._origin, frontier.size, frontier.root())
        connection.execute(
            insert(AUDIT_CHECKPOINT).values(
                tree_size=frontier.size, root_hash=checkpoint.root, time=now, note=str(checkpoint.sign(self._signer))
            )
        )


def _place(connection: Connection, ids: Sequence[int], start: int) -> None:
    """Give the entries `ids` (sorted) the indexes from `start` on, in one statement."""
    entry = AUDIT_ENTRY.alias("waiting")
    numbered = (
        select(entry.c.id.label("entry_id"), (func.row_number().over(order_by=entry.c.id) + start - 1).label("place"))
        .where(entry.c.id.in_(ids))
        .subquery("numbered")
    )
    connection.execute(
        update(AUDIT_ENTRY)
        .where(AUDIT_ENTRY.c.id == numbered.c.entry_id, AUDIT_ENTRY.c.leaf_index.is_(None))
        .values(leaf_index=numbered.c.place)
    )
    placed = connection.execute(
        select(func.count()).select_from(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index >= start)
    ).scalar_one()
    if placed != len(ids):
        raise LogCorruptError(f"log: {placed} entries stand at index {start} and after, {len(ids)} were placed there")
    reason = AUDIT_ENTRY_REASON.c
    place = select(AUDIT_ENTRY.c.leaf_index).where(AUDIT_ENTRY.c.id == reason.entry_id).scalar_subquery()
    connection.execute(update(AUDIT_ENTRY_REASON).where(reason.entry_id.in_(ids)).values(leaf_index=place))


def _count_assets(connection: Connection, ids: Sequence[int]) -> None:
    """Number each asset's entries on, in the order of the log, for the entries `ids` that were placed just now.

    They are named by their rows: asked for what stands behind an index, SQLite would read all that assets ever named.
    """
    named, entry, total = AUDIT_ENTRY_ASSET.alias("named"), AUDIT_ENTRY.alias("placed"), AUDIT_ASSET_COUNTER
    place = func.row_number().over(partition_by=named.c.asset, order_by=(entry.c.leaf_index, named.c.version))
    numbered = (
        select(
            named.c.entry_id,
            named.c.asset,
            named.c.version,
            (func.coalesce(total.c.counter, 0) + place).label("number"),
        )
        .join(entry, entry.c.id == named.c.entry_id)
        .outerjoin(total, total.c.asset == named.c.asset)
        .where(named.c.entry_id.in_(ids))
        .subquery("numbered")
    )
    connection.execute(
        update(AUDIT_ENTRY_ASSET)
        .where(
            AUDIT_ENTRY_ASSET.c.entry_id == numbered.c.entry_id,
            AUDIT_ENTRY_ASSET.c.asset == numbered.c.asset,
            AUDIT_ENTRY_ASSET.c.version == numbered.c.version,
        )
        .values(counter=numbered.c.number)
    )
    counted = connection.execute(
        select(named.c.asset, func.max(named.c.counter).label("now"), func.max(total.c.counter).label("before"))
        .outerjoin(total, total.c.asset == named.c.asset)
        .where(named.c.entry_id.in_(ids))
        .group_by(named.c.asset)
    ).all()
    added = [{"asset": row.asset, "counter": row.now} for row in counted if row.before is None]
    if added:
        connection.execute(insert(total), added)
    moved = [{"name": row.asset, "now": row.now} for row in counted if row.before is not None]
    if moved:
        connection.execute(
            update(total).where(total.c.asset == bindparam("name")).values(counter=bindparam("now")), moved
        )


def _checked_hash(reader: PayloadReader, row: Any) -> bytes:
    """The entry's hash, if the row still is what was appended: a receipt promised that hash and no other.

    Without keys a sealed payload is taken for what it is said to be; whoever has them will know.
    """
    digest, leaf_hash = bytes(row.digest), bytes(row.leaf_hash)
    altered = f"log: waiting entry id {row.id} was altered:"
    try:
        opened = reader.open(row)
    except MalformedError as error:
        raise LogCorruptError(f"{altered} {error}") from None
    if not opened.sealed and (
        opened.salt is None or opened.payload is None or hashlib.sha256(opened.salt + opened.payload).digest() != digest
    ):
        raise LogCorruptError(f"{altered} its payload is not under its digest")
    if Leaf(digest).entry_hash() != leaf_hash:
        raise LogCorruptError(f"{altered} its digest is not under its entry hash")
    return leaf_hash
