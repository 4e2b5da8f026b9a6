"""Proofs hold for every tree, and no altered proof does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import ProofError
from audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    perfect_subtree_hash,
    verify_consistency,
    verify_inclusion,
)

HASHES = [leaf_hash(number.to_bytes(2, "big")) for number in range(600)]
ROOTS = [Frontier().extend(HASHES[:size]).root() for size in range(601)]
sizes = st.integers(min_value=1, max_value=600)


def node(level: int, index: int) -> bytes:
    return perfect_subtree_hash(HASHES[index << level : (index + 1) << level])


def naive(hashes: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, word for word."""
    if len(hashes) < 2:
        return hashes[0] if hashes else EMPTY_ROOT
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return node_hash(naive(hashes[:k]), naive(hashes[k:]))


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=600), st.data())
def test_the_frontier_is_the_specification_s_tree_however_it_grew(size: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(min_value=0, max_value=size))
    grown = Frontier().extend(HASHES[:cut]).extend(HASHES[cut:size])
    assert grown == Frontier().extend(HASHES[:size])
    assert grown.root() == naive(HASHES[:size])


@settings(deadline=None)
@given(sizes, st.data())
def test_inclusion(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    proof = inclusion_proof(index, size, node)
    verify_inclusion(leaf=HASHES[index], index=index, size=size, proof=proof, root=ROOTS[size])
    other = data.draw(st.integers(min_value=0, max_value=size - 1).filter(lambda n: n != index or size == 1))
    if other != index:
        with pytest.raises(ProofError):
            verify_inclusion(leaf=HASHES[other], index=index, size=size, proof=proof, root=ROOTS[size])
        with pytest.raises(ProofError):
            verify_inclusion(leaf=HASHES[index], index=other, size=size, proof=proof, root=ROOTS[size])


@settings(deadline=None)
@given(sizes, st.data())
def test_an_altered_inclusion_proof_fails(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    proof = list(inclusion_proof(index, size, node))
    action = data.draw(st.sampled_from(["flip", "cut", "add"]))
    if action == "add" or not proof:
        proof.insert(data.draw(st.integers(min_value=0, max_value=len(proof))), data.draw(st.binary(max_size=40)))
    elif action == "cut":
        del proof[data.draw(st.integers(min_value=0, max_value=len(proof) - 1))]
    else:
        at = data.draw(st.integers(min_value=0, max_value=len(proof) - 1))
        byte = data.draw(st.integers(min_value=0, max_value=31))
        proof[at] = proof[at][:byte] + bytes([proof[at][byte] ^ 1]) + proof[at][byte + 1 :]
    with pytest.raises(ProofError):
        verify_inclusion(leaf=HASHES[index], index=index, size=size, proof=proof, root=ROOTS[size])


@settings(deadline=None)
@given(sizes, st.data())
def test_consistency(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(min_value=0, max_value=new))
    proof = consistency_proof(old, new, node)
    verify_consistency(old_size=old, new_size=new, old_root=ROOTS[old], new_root=ROOTS[new], proof=proof)
    for other in range(max(0, old - 3), min(new, old + 3) + 1):
        if other != old:
            with pytest.raises(ProofError):
                verify_consistency(old_size=old, new_size=new, old_root=ROOTS[other], new_root=ROOTS[new], proof=proof)


@settings(deadline=None)
@given(st.integers(min_value=2, max_value=600), st.data())
def test_an_altered_consistency_proof_fails(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(min_value=1, max_value=new - 1))
    proof = list(consistency_proof(old, new, node))
    action = data.draw(st.sampled_from(["flip", "cut", "add"]))
    at = data.draw(st.integers(min_value=0, max_value=len(proof) - 1))
    if action == "add":
        proof.insert(at, data.draw(st.binary(max_size=40)))
    elif action == "cut":
        del proof[at]
    else:
        proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    with pytest.raises(ProofError):
        verify_consistency(old_size=old, new_size=new, old_root=ROOTS[old], new_root=ROOTS[new], proof=proof)
