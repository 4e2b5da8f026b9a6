"""The leaf of the log: a versioned envelope that commits to a salted payload without holding it.

``leaf = encode("keystead/v1/audit-leaf", SHA-256(salt ‖ payload))`` with `keystead.binding.encode`. The salt is 32
random bytes, stored beside the payload: once both are erased nobody can find the payload by guessing, and every
proof still verifies, because the leaf stays. The *entry hash* is the leaf's RFC 9162 hash.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Final, Self

from audit.errors import MalformedError
from audit.merkle import HASH_SIZE, leaf_hash
from keystead.binding import LABEL_PREFIX, BindingError, decode, encode

LABEL_LEAF: Final = LABEL_PREFIX + "audit-leaf"
SALT_SIZE: Final = 32


def new_salt() -> bytes:
    """Fresh random bytes from the operating system, one salt for one payload."""
    return os.urandom(SALT_SIZE)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf of the log.

    Attributes:
        digest: ``SHA-256(salt ‖ payload)``.
    """

    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != HASH_SIZE:
            raise MalformedError("audit leaf", f"the digest has {len(self.digest)} bytes, not {HASH_SIZE}")

    @classmethod
    def commit(cls, *, salt: bytes, payload: bytes) -> Self:
        """The leaf that commits to `payload` under `salt`.

        Raises:
            MalformedError: the salt is not 32 bytes long, so that salt and payload could not be told apart.
        """
        if len(salt) != SALT_SIZE:
            raise MalformedError("audit leaf", f"the salt has {len(salt)} bytes, not {SALT_SIZE}")
        return cls(hashlib.sha256(salt + payload).digest())

    def to_bytes(self) -> bytes:
        """The canonical encoding: what entry bundles publish and the tree hashes."""
        return encode(LABEL_LEAF, self.digest)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse `to_bytes`'s encoding; nothing else is accepted.

        Raises:
            MalformedError: the bytes are not the canonical encoding of a leaf.
        """
        try:
            (digest,) = decode(LABEL_LEAF, data, 1)
        except BindingError as error:
            raise MalformedError("audit leaf", str(error)) from None
        return cls(digest)

    def entry_hash(self) -> bytes:
        """The leaf's RFC 9162 hash: what receipts promise and inclusion proofs start from."""
        return leaf_hash(self.to_bytes())
