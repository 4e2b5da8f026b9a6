"""Epoch keys: what makes nonces checkable by every replica without storing a nonce.

Time is cut into epochs; each has one HMAC key, drawn by whichever replica needs it first and kept, wrapped under the
root, in the store that all replicas share. A nonce is accepted for `lifetime_seconds` after its epoch has ended, which
is at least as long as the longest lease plus its grace, because a lease's next nonce is handed out when it begins.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine

from keybroker.keys.root import RootKey
from keybroker.keys.wrap import KEY_SIZE
from keybroker.store import epochs
from keybroker.store.commit import GroupCommitter
from keybroker.store.engine import read
from keystead.binding import LABEL_PREFIX, encode, u64

LABEL_EPOCH_KEY: Final = LABEL_PREFIX + "epoch-key"

_COMMIT_TIMEOUT: Final = 10.0
_AHEAD: Final = 1
"""How many epochs another replica's clock may be ahead of this one's."""


@dataclass(frozen=True, slots=True)
class EpochKey:
    """One epoch's key (32 bytes). Secret."""

    epoch: int
    key: bytes


class EpochKeys:
    """The epoch keys of one broker. Safe to share between threads, but not from within a unit of work.

    Args:
        engine: the store, for reading.
        committer: the store, for writing.
        root: wraps the keys.
        epoch_seconds: how long an epoch lasts; the same on all replicas, and never changed while nonces are in use.
        lifetime_seconds: how long after the end of its epoch a key is still used.
    """

    def __init__(
        self,
        engine: Engine,
        committer: GroupCommitter,
        root: RootKey,
        *,
        epoch_seconds: int,
        lifetime_seconds: int,
    ) -> None:
        if epoch_seconds < 1 or lifetime_seconds < 0:
            raise ValueError("an epoch lasts at least 1 s, and its key lives no negative time after it")
        self._engine = engine
        self._committer = committer
        self._root = root
        self._epoch_seconds = epoch_seconds
        self._lifetime_seconds = lifetime_seconds
        self._keys: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def epoch(self, now: int) -> int:
        """The epoch that `now` is in."""
        return now // self._epoch_seconds

    def expires_at(self, epoch: int) -> int:
        """From when on (inclusive) nonces of `epoch` are refused."""
        return (epoch + 1) * self._epoch_seconds + self._lifetime_seconds

    def current(self, now: int) -> EpochKey:
        """The key of the present epoch; draws and stores it if no replica has yet.

        Raises:
            StoreError: it cannot be stored.
            KeyUnwrapError: it does not open under this root.
            RootKeyError: the root cannot be used now.
        """
        epoch = self.epoch(now)
        key = self.get(epoch, now)
        if key is not None:
            return EpochKey(epoch, key)
        wrapped = self._root.wrap(os.urandom(KEY_SIZE), _context(epoch))

        def store(connection: Connection) -> bytes:
            return epochs.insert_first(connection, epoch=epoch, wrapped=wrapped, now=now)

        # What stands in the store counts, not what was drawn here: another replica may have been first.
        return EpochKey(epoch, self._open(epoch, self._committer.submit(store, _COMMIT_TIMEOUT), now))

    def get(self, epoch: int, now: int) -> bytes | None:
        """The key of `epoch`, or None if it is too old, too far ahead, or unknown.

        Raises:
            KeyUnwrapError: it does not open under this root.
            RootKeyError: the root cannot be used now.
        """
        if now >= self.expires_at(epoch) or epoch > self.epoch(now) + _AHEAD:
            return None
        cached = self._keys.get(epoch)
        if cached is not None:
            return cached
        with read(self._engine) as connection:
            wrapped = epochs.find(connection, epoch)
        return None if wrapped is None else self._open(epoch, wrapped, now)

    def first_useful(self, now: int) -> int:
        """The oldest epoch whose nonces are still accepted."""
        return max(0, (now - self._lifetime_seconds) // self._epoch_seconds)

    def delete_expired(self, connection: Connection, now: int) -> int:
        """Remove keys whose nonces are all refused by now; returns how many. A unit of work."""
        return epochs.delete_before(connection, self.first_useful(now))

    def _open(self, epoch: int, wrapped: bytes, now: int) -> bytes:
        key = self._root.unwrap(wrapped, _context(epoch))
        with self._lock:
            self._keys = {known: value for known, value in self._keys.items() if now < self.expires_at(known)}
            self._keys[epoch] = key
        return key


def _context(epoch: int) -> bytes:
    return encode(LABEL_EPOCH_KEY, u64(epoch))
