"""RFC 9162 hashing and proofs against the Certificate Transparency reference vectors and a naive tree."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from audit.errors import MalformedError, ProofError
from audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    NodeReader,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    perfect_subtree_hash,
    range_hash,
    verify_consistency,
    verify_inclusion,
)

# The leaves, roots and proofs of the Certificate Transparency project's reference tests.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (2, 8): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}


def naive_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, word for word."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return node_hash(naive_root(hashes[:k]), naive_root(hashes[k:]))


def reader(hashes: Sequence[bytes]) -> NodeReader:
    def node(level: int, index: int) -> bytes:
        part = hashes[index << level : (index + 1) << level]
        assert len(part) == 1 << level
        return perfect_subtree_hash(part)

    return node


HASHES = [leaf_hash(leaf) for leaf in LEAVES]
MANY = [leaf_hash(bytes([number])) for number in range(70)]


@pytest.mark.parametrize("size", range(9))
def test_reference_roots(size: int) -> None:
    frontier = Frontier().extend(HASHES[:size])
    assert frontier.root().hex() == ROOTS[size]
    assert range_hash(0, size, reader(HASHES)).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_reference_inclusion_proofs(index: int, size: int) -> None:
    proof = inclusion_proof(index, size, reader(HASHES))
    assert [item.hex() for item in proof] == INCLUSION[index, size]
    verify_inclusion(leaf=HASHES[index], index=index, size=size, proof=proof, root=bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_reference_consistency_proofs(old: int, new: int) -> None:
    proof = consistency_proof(old, new, reader(HASHES))
    assert [item.hex() for item in proof] == CONSISTENCY[old, new]
    verify_consistency(
        old_size=old,
        new_size=new,
        old_root=bytes.fromhex(ROOTS[old]),
        new_root=bytes.fromhex(ROOTS[new]),
        proof=proof,
    )


def test_every_inclusion_proof_of_small_trees_holds_for_its_own_place_only() -> None:
    for size in range(1, 24):
        root = naive_root(MANY[:size])
        for index in range(size):
            proof = inclusion_proof(index, size, reader(MANY))
            verify_inclusion(leaf=MANY[index], index=index, size=size, proof=proof, root=root)
            for other in range(size):
                if other != index:
                    with pytest.raises(ProofError):
                        verify_inclusion(leaf=MANY[index], index=other, size=size, proof=proof, root=root)


def test_every_consistency_proof_of_small_trees() -> None:
    for new in range(34):
        new_root = naive_root(MANY[:new])
        for old in range(new + 1):
            old_root = naive_root(MANY[:old])
            proof = consistency_proof(old, new, reader(MANY))
            verify_consistency(old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=proof)
            with pytest.raises(ProofError):
                verify_consistency(old_size=old, new_size=new, old_root=leaf_hash(b"x"), new_root=new_root, proof=proof)
            if 0 < old < new:
                with pytest.raises(ProofError):
                    verify_consistency(
                        old_size=old, new_size=new, old_root=old_root, new_root=leaf_hash(b"x"), proof=proof
                    )


@pytest.mark.parametrize(("index", "size"), [(0, 7), (3, 7), (6, 7), (5, 8), (0, 2)])
def test_truncated_and_extended_inclusion_proofs_are_refused(index: int, size: int) -> None:
    root = naive_root(MANY[:size])
    proof = inclusion_proof(index, size, reader(MANY))
    for bad in (proof[:-1], (*proof, MANY[0]), proof[::-1] if len(proof) > 1 else (MANY[9],), (proof[0][:31],)):
        with pytest.raises(ProofError):
            verify_inclusion(leaf=MANY[index], index=index, size=size, proof=bad, root=root)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (3, 7), (4, 7), (6, 8), (7, 20)])
def test_truncated_and_extended_consistency_proofs_are_refused(old: int, new: int) -> None:
    old_root, new_root = naive_root(MANY[:old]), naive_root(MANY[:new])
    proof = consistency_proof(old, new, reader(MANY))
    for bad in ((), proof[:-1], (*proof, MANY[0])):
        with pytest.raises(ProofError):
            verify_consistency(old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=bad)


def test_equal_sizes_need_equal_roots_and_an_empty_proof() -> None:
    root = naive_root(MANY[:5])
    verify_consistency(old_size=5, new_size=5, old_root=root, new_root=root, proof=())
    with pytest.raises(ProofError, match="must be empty"):
        verify_consistency(old_size=5, new_size=5, old_root=root, new_root=root, proof=(root,))
    with pytest.raises(ProofError, match="two roots"):
        verify_consistency(old_size=5, new_size=5, old_root=root, new_root=MANY[0], proof=())


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0)])
def test_no_proof_of_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ProofError, match="not in a tree"):
        inclusion_proof(index, size, reader(MANY))
    with pytest.raises(ProofError, match="not in a tree"):
        verify_inclusion(leaf=MANY[0], index=index, size=size, proof=(), root=MANY[0])


def test_a_tree_does_not_shrink() -> None:
    with pytest.raises(ProofError, match="does not grow"):
        consistency_proof(5, 4, reader(MANY))
    with pytest.raises(ProofError, match="does not grow"):
        verify_consistency(old_size=5, new_size=4, old_root=MANY[0], new_root=MANY[1], proof=())


def test_frontier_of_another_shape_is_refused() -> None:
    frontier = Frontier().extend(MANY[:6])
    assert Frontier.parse(6, frontier.to_bytes()) == frontier
    for size, data in ((5, frontier.to_bytes()[:-1]), (7, frontier.to_bytes()), (-1, b""), (1, b"")):
        with pytest.raises(MalformedError):
            Frontier.parse(size, data)


def test_perfect_subtree_needs_a_power_of_two() -> None:
    for count in (0, 3):
        with pytest.raises(ValueError, match="perfect subtree"):
            perfect_subtree_hash(MANY[:count])
