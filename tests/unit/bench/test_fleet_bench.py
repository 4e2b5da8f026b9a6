"""The fleet's nodes are kept whole, and work is shared out in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.composite import NodeEvidence
from attestation.types import Collateral, Evidence
from bench.fleet_bench import GPUS, WORKERS, Fleet, Node, resident, shares


def test_a_node_that_is_kept_is_the_same_when_it_is_read() -> None:
    fleet = Fleet(vendors=None, collateral=Collateral(), gpu_authorities=(b"ica", b"root"), cpu_authorities=(b"ask",))
    gpus = tuple(
        Evidence(f"gpu{index}", "nvgpu", b"data %d" % index, (b"leaf %d" % index, b"brom", b"ica", b"root"))
        for index in range(GPUS)
    )
    node = Node(
        NodeEvidence(Evidence("cpu0", "snp", b"report", (b"vcek", b"ask")), gpus),
        b"runtime data",
        tuple(b"response %d" % index for index in range(GPUS)),
    )
    assert Node.parse(node.to_bytes(), fleet) == node


@pytest.mark.parametrize("chunks", [2, 8, 100])
def test_every_chunk_is_worked_on_once(chunks: int) -> None:
    shared = shares(chunks)
    assert len(shared) == WORKERS
    assert len({len(share) for share in shared}) == 1
    assert sorted(number for share in shared for number in share) == list(range(chunks))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc: resident memory is read from Linux")
def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident()
    held = bytearray(b"x") * (64 << 20)
    assert resident() - before > len(held) // 2
