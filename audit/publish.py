"""Publishing: the checkpoint, tiles and entry bundles of C2SP tlog-tiles, copied out of the database.

What is published needs neither the database nor Keystead to be read: any file server or CDN serves it, and tools for
C2SP logs verify it. Entry bundles hold leaves, which commit to the records without showing them.

Order is what makes it safe. All tiles that a checkpoint needs are on stable storage before the checkpoint itself is put
in place, and each object appears whole or not at all; so a publisher that is killed at any instant leaves the older
checkpoint with all its tiles, and the next one takes up where it stopped. A tile that is there is never changed: where
it differs, or where the published checkpoint is not a prefix of the log, nothing more is published. Publishers need not
know of one another: a checkpoint takes the place of that one only of which its publisher saw that it continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import WitnessPolicy
from audit.errors import LogCorruptError, MalformedError, NoteSignatureError, PublishedError
from audit.merkle import HASH_SIZE, leaf_hash, range_hash
from audit.note import NoteVerifier
from audit.query import newest_checkpoint
from audit.stores import CHECKPOINT_PATH, ObjectStore
from audit.tables import AUDIT_CHECKPOINT
from audit.tiles import (
    MAX_LEVEL,
    TILE_HEIGHT,
    TILE_WIDTH,
    TilePath,
    TileReader,
    decode_bundle,
    read_tile,
)

ATTEMPTS: Final = 5
"""How often a publisher begins anew because another one was faster."""

Reader = Callable[[], AbstractContextManager[Connection]]
"""Opens a connection that can only read the log's database."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication achieved.

    Attributes:
        checkpoint: what is published now.
        before: how many entries were published before; None where nothing was.
        written: how many tiles and bundles were put in place.
    """

    checkpoint: Checkpoint
    before: int | None
    written: int


def publish(
    read: Reader, store: ObjectStore, verifier: NoteVerifier, *, witnesses: WitnessPolicy | None = None
) -> Published:
    """Publish the newest checkpoint with all that it needs; does nothing where it is published.

    Any number of publishers may run; the published log never gets shorter and never forks.

    Args:
        read: opens the log's database; it is called after the published checkpoint was read, so that it cannot be
            behind that one.
        store: where to.
        verifier: the log's key.
        witnesses: only a checkpoint that a quorum of these cosigned is published.

    Raises:
        PublishedError: what is published is not a prefix of this log, or the store cannot be used.
        LogCorruptError: stored data contradict one another; nothing was published.
        UnwitnessedError: no checkpoint was cosigned by a quorum yet.
        NotInitialisedError: the log has not begun.
    """
    with store.exclusive():
        for _ in range(ATTEMPTS):
            there = store.get(CHECKPOINT_PATH)
            with read() as connection:
                note = newest_checkpoint(connection, witnesses)
                done = _publish(connection, store, verifier, note, there)
            if done is not None:
                return done
    raise PublishedError(
        f"published checkpoint: another publisher was faster {ATTEMPTS} times; what it published is in force"
    )


def _publish(
    connection: Connection, store: ObjectStore, verifier: NoteVerifier, note: bytes, there: bytes | None
) -> Published | None:
    """Publish `note` in the place of `there`; None where another one took it meanwhile."""
    try:
        new = open_checkpoint(note, verifier)
    except (MalformedError, NoteSignatureError) as error:
        raise LogCorruptError(f"log: the newest checkpoint is not one that its key signed ({error})") from None
    node = TileReader(connection)
    if range_hash(0, new.size, node) != new.root:
        raise LogCorruptError(f"log: the stored tiles do not lead to the root of {new.size} entries that was signed")
    old = None if there is None else _published(there, verifier)
    if old is not None:
        _check_prefix(old, new, node)
    size = 0 if old is None else old.size
    for path in _needed(connection, size, new.size):
        store.put(str(path), _checked(connection, path))
    written = store.flush()
    if note != there and not store.put_checkpoint(note, before=there):
        return None
    for path in _completed(size, new.size):
        store.remove_partials(path)
    return Published(new, None if old is None else size, written)


def _published(note: bytes, verifier: NoteVerifier) -> Checkpoint:
    try:
        return open_checkpoint(note, verifier)
    except (MalformedError, NoteSignatureError) as error:
        raise PublishedError(
            f"published checkpoint: not one that this log's key signed ({error}); publish to another place, or find "
            "out who wrote there"
        ) from None


def _check_prefix(old: Checkpoint, new: Checkpoint, node: TileReader) -> None:
    if old.size > new.size:
        raise PublishedError(
            f"published checkpoint: has {old.size} entries, the database {new.size}: an older copy of the database was "
            "put back; restore the newer one"
        )
    if range_hash(0, old.size, node) != old.root:
        raise PublishedError(
            f"published checkpoint: the first {old.size} entries of the database are not those that were published "
            "under its root: history was rewritten; verify the database and compare it with the published tiles"
        )


def _levels(size: int) -> Iterator[tuple[int | None, int]]:
    """The bundles' level and every tile level of a tree of `size` leaves, with its number of hashes or entries."""
    yield None, size
    for level in range(MAX_LEVEL + 1):
        count = size >> (TILE_HEIGHT * level)
        if count == 0:
            return
        yield level, count


def _count(level: int | None, size: int) -> int:
    return size >> (TILE_HEIGHT * (level or 0))


def _needed(connection: Connection, old: int, new: int) -> Iterator[TilePath]:
    """What the tree of `new` leaves has and that of `old` leaves has not.

    With it come the partial tiles of the checkpoints signed in between, as far as no full tile takes their place.
    """
    between = connection.scalars(
        select(AUDIT_CHECKPOINT.c.tree_size).where(
            AUDIT_CHECKPOINT.c.tree_size > old, AUDIT_CHECKPOINT.c.tree_size < new
        )
    ).all()
    for level, count in _levels(new):
        before = _count(level, old)
        full, rest = divmod(count, TILE_WIDTH)
        for index in range(before // TILE_WIDTH, full):
            yield TilePath(level, index)
        if not rest:
            continue
        widths = {_count(level, size) - full * TILE_WIDTH for size in between} | {rest}
        had = before - full * TILE_WIDTH
        for width in sorted(width for width in widths if width > max(had, 0)):
            yield TilePath(level, full, width)


def _completed(old: int, new: int) -> Iterable[TilePath]:
    """Full tiles and bundles of `new` of which partial ones were published for `old`."""
    for level, count in _levels(new):
        index, rest = divmod(_count(level, old), TILE_WIDTH)
        if rest and index < count // TILE_WIDTH:
            yield TilePath(level, index)


def _checked(connection: Connection, path: TilePath) -> bytes:
    """The tile or bundle at `path`; of a bundle every entry was found to be under its tile."""
    data = read_tile(connection, path)
    if path.level is None:
        tile = read_tile(connection, TilePath(0, path.index, path.width))
        for at, entry in enumerate(decode_bundle(data)):
            if leaf_hash(entry) != tile[at * HASH_SIZE : (at + 1) * HASH_SIZE]:
                index = path.index * TILE_WIDTH + at
                raise LogCorruptError(f"log: entry {index} is not under its tile; `keystead audit verify` says more")
    return data
