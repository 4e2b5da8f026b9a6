"""Merkle tree hashing and proofs: RFC 9162 section 2.1, the same tree that RFC 6962 and C2SP logs use.

Proofs are built from a *node reader*, a function ``(level, index) -> hash`` that returns the hash of the perfect
subtree over leaves ``[index · 2**level, (index + 1) · 2**level)``: a list in memory or stored tiles
(`audit.tiles.TileReader`) serve alike. Verification is a function of its arguments and raises `ProofError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from audit.errors import MalformedError, ProofError

HASH_SIZE: Final = 32
MAX_TREE_SIZE: Final = (1 << 63) - 1
"""The largest tree that a signed 64-bit column can count."""

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (RFC 9162 section 2.1.1)."""

_LEAF_PREFIX: Final = b"\x00"
_NODE_PREFIX: Final = b"\x01"

NodeReader: TypeAlias = Callable[[int, int], bytes]
"""``(level, index)`` → hash of the perfect subtree of ``2**level`` leaves that begins at leaf ``index · 2**level``."""


def leaf_hash(leaf: bytes) -> bytes:
    """Hash of one leaf: ``SHA-256(0x00 ‖ leaf)`` (RFC 9162 section 2.1.1)."""
    return hashlib.sha256(_LEAF_PREFIX + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: ``SHA-256(0x01 ‖ left ‖ right)`` (RFC 9162 section 2.1.1)."""
    return hashlib.sha256(_NODE_PREFIX + left + right).digest()


def perfect_subtree_hash(hashes: Sequence[bytes]) -> bytes:
    """Hash over a power of two of consecutive node hashes of one level.

    Raises:
        ValueError: their number is not a power of two.
    """
    count = len(hashes)
    if count == 0 or count & (count - 1):
        raise ValueError(f"{count} hashes are not a perfect subtree")
    level = hashes
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


@dataclass(frozen=True, slots=True)
class Frontier:
    """The compact form of a tree: the hashes of its perfect subtrees, the largest (leftmost) first.

    Attributes:
        size: number of leaves.
        hashes: one hash for each bit that is set in `size`.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise MalformedError("Merkle frontier", f"tree size {self.size} is out of range")
        if len(self.hashes) != self.size.bit_count() or any(len(item) != HASH_SIZE for item in self.hashes):
            raise MalformedError(
                "Merkle frontier",
                f"a tree of {self.size} leaves has {self.size.bit_count()} hashes of {HASH_SIZE} bytes",
            )

    def extend(self, leaf_hashes: Iterable[bytes]) -> Frontier:
        """The frontier after appending `leaf_hashes`, in this order."""
        size, stack = self.size, list(self.hashes)
        for item in leaf_hashes:
            merged, carry = item, size
            while carry & 1:
                merged = node_hash(stack.pop(), merged)
                carry >>= 1
            stack.append(merged)
            size += 1
        return Frontier(size, tuple(stack))

    def root(self) -> bytes:
        """Root hash of the tree."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for item in reversed(self.hashes[:-1]):
            root = node_hash(item, root)
        return root

    def to_bytes(self) -> bytes:
        """The hashes, one after another; `size` is stored beside them."""
        return b"".join(self.hashes)

    @classmethod
    def parse(cls, size: int, data: bytes) -> Self:
        """Parse `to_bytes`'s bytes for a tree of `size` leaves.

        Raises:
            MalformedError: another number of hashes than a tree of this size has.
        """
        if len(data) % HASH_SIZE:
            raise MalformedError("Merkle frontier", f"{len(data)} bytes are no whole number of hashes")
        return cls(size, tuple(data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)))


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (RFC 9162's k), for `size` > 1."""
    return 1 << ((size - 1).bit_length() - 1)


def range_hash(start: int, end: int, node: NodeReader) -> bytes:
    """Merkle Tree Hash over leaves ``[start, end)``.

    `start` must be a multiple of the smallest power of two that is not below ``end - start``, as it is for every
    range that a proof names.
    """
    if start == end:
        return EMPTY_ROOT
    parts, at = [], start
    for level in range((end - start).bit_length() - 1, -1, -1):
        if (end - start) >> level & 1:
            parts.append(node(level, at >> level))
            at += 1 << level
    result = parts[-1]
    for part in reversed(parts[:-1]):
        result = node_hash(part, result)
    return result


def inclusion_proof(index: int, size: int, node: NodeReader) -> tuple[bytes, ...]:
    """Inclusion proof of leaf `index` in the tree of `size` leaves, leaf's sibling first (RFC 9162 section 2.1.3.1).

    Raises:
        ProofError: there is no such leaf in that tree.
    """
    if not 0 <= index < size:
        raise ProofError(f"no inclusion proof: leaf {index} is not in a tree of {size} leaves")
    start, end, ranges = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return tuple(range_hash(*item, node) for item in reversed(ranges))


def consistency_proof(old_size: int, new_size: int, node: NodeReader) -> tuple[bytes, ...]:
    """Proof that the tree of `new_size` leaves continues the one of `old_size` (RFC 9162 section 2.1.4.1).

    It is empty for equal sizes and for an empty old tree, which every tree continues.

    Raises:
        ProofError: the old tree is the larger one.
    """
    if not 0 <= old_size <= new_size:
        raise ProofError(f"no consistency proof: a tree of {old_size} leaves does not grow to one of {new_size}")
    if old_size in {0, new_size}:
        return ()
    start, end, ranges = 0, new_size, []
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start:  # the verifier has the old root, but not the hash of this inner part of it
        ranges.append((start, end))
    return tuple(range_hash(*item, node) for item in reversed(ranges))


def _check_sizes(proof: Sequence[bytes], *hashes: bytes) -> None:
    if any(len(item) != HASH_SIZE for item in (*proof, *hashes)):
        raise ProofError(f"a hash of the proof is not {HASH_SIZE} bytes long")


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf whose *hash* is `leaf` stands at `index` in the tree of `size` leaves under `root`.

    Source: RFC 9162 section 2.1.3.2.

    Raises:
        ProofError: it does not, or the proof is too short or too long.
    """
    _check_sizes(proof, leaf, root)
    if not 0 <= index < size <= MAX_TREE_SIZE:
        raise ProofError(f"leaf {index} is not in a tree of {size} leaves")
    fn, sn, result = index, size - 1, leaf
    for item in proof:
        if sn == 0:
            raise ProofError("the inclusion proof is longer than the tree is high")
        if fn & 1 or fn == sn:
            result = node_hash(item, result)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            result = node_hash(result, item)
        fn >>= 1
        sn >>= 1
    if sn:
        raise ProofError("the inclusion proof is too short")
    if result != root:
        raise ProofError(f"the inclusion proof leads to root {result.hex()}, signed is {root.hex()}")


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of `new_size` leaves under `new_root` continues the one of `old_size` under `old_root`.

    Source: RFC 9162 section 2.1.4.2; an empty old tree, which it leaves out, is continued by every tree.

    Raises:
        ProofError: it does not, or the proof is too short or too long.
    """
    _check_sizes(proof, old_root, new_root)
    if not 0 <= old_size <= new_size <= MAX_TREE_SIZE:
        raise ProofError(f"a tree of {old_size} leaves does not grow to one of {new_size}")
    if old_size in {0, new_size}:
        if proof:
            raise ProofError("a consistency proof between these sizes must be empty")
        if old_root != (EMPTY_ROOT if old_size == 0 else new_root):
            raise ProofError(f"two roots for a tree of {old_size} leaves: {old_root.hex()} is not the one expected")
        return
    if not proof:
        raise ProofError("the consistency proof is empty")
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    old_result = new_result = path[0]
    for item in path[1:]:
        if sn == 0:
            raise ProofError("the consistency proof is longer than the tree is high")
        if fn & 1 or fn == sn:
            old_result = node_hash(item, old_result)
            new_result = node_hash(item, new_result)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            new_result = node_hash(new_result, item)
        fn >>= 1
        sn >>= 1
    if sn:
        raise ProofError("the consistency proof is too short")
    if old_result != old_root:
        raise ProofError(f"the consistency proof leads to old root {old_result.hex()}, signed is {old_root.hex()}")
    if new_result != new_root:
        raise ProofError(f"the consistency proof leads to new root {new_result.hex()}, signed is {new_root.hex()}")
