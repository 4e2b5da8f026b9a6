"""Nonces that any replica can check and none has to store (`docs/protocol.md`, nonce).

``u64 epoch ‖ 16 random bytes ‖ HMAC-SHA-256(epoch key; challenge MAC input)``, 56 bytes. The MAC covers the epoch, the
random bytes, the grant's digest and the broker's logical name (`keystead.binding.challenge_mac_input`), so a nonce
serves one grant at one broker. That it serves each node once is the store's to see to (`keybroker.store.leases`).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import Final

from keybroker.errors import ChallengeExpiredError, ChallengeInvalidError
from keybroker.keys.epochs import EpochKeys
from keystead.binding import NONCE_SIZE, challenge_mac_input, u64

_RANDOM_SIZE: Final = 16
_EPOCH_SIZE: Final = 8
_MAX_EPOCH: Final = (1 << 63) - 1
"""What the store can hold; a nonce that claims a later epoch is refused before it is looked up."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A nonce and when it stops being accepted (exclusive)."""

    nonce: bytes
    expires_at: int


def issue(keys: EpochKeys, *, grant: bytes, broker: str, now: int) -> Challenge:
    """A fresh nonce for `grant` (`keystead.binding.grant_digest`) at `broker` (its logical name).

    Raises:
        StoreError: a new epoch has begun and its key cannot be stored.
        KeyManagementError: the epoch's key cannot be opened.
    """
    current = keys.current(now)
    random = os.urandom(_RANDOM_SIZE)
    mac = _mac(current.key, epoch=current.epoch, random=random, grant=grant, broker=broker)
    return Challenge(u64(current.epoch) + random + mac, keys.expires_at(current.epoch))


def check(keys: EpochKeys, nonce: bytes, *, grant: bytes, broker: str, now: int) -> None:
    """Check that this broker issued `nonce` for `grant` and still accepts it. The MAC is compared in constant time.

    Raises:
        ChallengeExpiredError: it names an epoch that has ended too long ago; nothing else was checked.
        ChallengeInvalidError: it is no nonce, or not issued by this broker for this grant.
        KeyManagementError: the epoch's key cannot be opened.
    """
    if len(nonce) != NONCE_SIZE:
        raise ChallengeInvalidError(f"nonce: {len(nonce)} bytes, expected {NONCE_SIZE}; pass it on unchanged")
    epoch = int.from_bytes(nonce[:_EPOCH_SIZE], "big")
    random, mac = nonce[_EPOCH_SIZE : _EPOCH_SIZE + _RANDOM_SIZE], nonce[_EPOCH_SIZE + _RANDOM_SIZE :]
    if now >= keys.expires_at(epoch):
        raise ChallengeExpiredError(
            f"nonce: accepted until {keys.expires_at(epoch)}, it is {now}; get a new one by GetChallenge"
        )
    key = keys.get(epoch, now) if epoch <= _MAX_EPOCH else None
    if key is None:
        raise ChallengeInvalidError(f"nonce: this broker issued none in epoch {epoch}; get one by GetChallenge")
    if not hmac.compare_digest(mac, _mac(key, epoch=epoch, random=random, grant=grant, broker=broker)):
        raise ChallengeInvalidError(
            "nonce: not issued by this broker for this grant; use the nonce that came with the grant, or GetChallenge"
        )


def _mac(key: bytes, *, epoch: int, random: bytes, grant: bytes, broker: str) -> bytes:
    data = challenge_mac_input(epoch=epoch, random=random, grant=grant, broker=broker)
    return hmac.new(key, data, hashlib.sha256).digest()
