"""Cosigns a log that grows by one entry, until it is killed; prints the size of each checkpoint that was cosigned.

A program, not a test: ``witness_until_killed.py STATE WITNESS-SKEY LOG-SKEY``, started by ``test_witness.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from audit.checkpoint import Checkpoint
from audit.cosignature import Cosigner
from audit.merkle import consistency_proof, leaf_hash, perfect_subtree_hash, range_hash
from audit.note import NoteSigner
from audit.witness import AddCheckpoint, Witness, WitnessState

log = NoteSigner.parse(sys.argv[3])
state = WitnessState(Path(sys.argv[1]))
witness = Witness(Cosigner.parse(sys.argv[2]), [log.verifier], state)
hashes = [leaf_hash(str(number).encode()) for number in range(2000)]


def node(level: int, index: int) -> bytes:
    return perfect_subtree_hash(hashes[index << level : (index + 1) << level])


with state.transaction() as connection:
    seen = state.seen(connection, log.verifier.name)
size = 0 if seen is None else seen.size
print("ready", flush=True)
while size < len(hashes):
    note = Checkpoint(log.verifier.name, size + 1, range_hash(0, size + 1, node)).sign(log)
    answer = witness.add_checkpoint(AddCheckpoint(size, consistency_proof(size, size + 1, node), note).to_bytes(), 1)
    if answer.status != 200:
        raise SystemExit(answer.body.decode())
    size += 1
    print(size, flush=True)
