"""GPU evidence: any bytes give a value or a typed error; no changed byte of evidence or chain is accepted."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import MalformedError, UnsupportedError
from attestation.nvgpu.abi import GpuEvidence, Mode
from attestation.nvgpu.conformance import PROFILE, REFERENCE
from attestation.nvgpu.verify import verify
from attestation.simulator.nvgpu import Architecture, GpuConfiguration, SimulatedGpuVendor
from attestation.types import Evidence

NONCE = b"\x11" * 32
NOW = 1_790_000_000
VENDOR = SimulatedGpuVendor(b"\x03" * 32)
ANCHORS = VENDOR.anchors()
CONFIGURATION = GpuConfiguration(mode=Mode.PROTECTED_PCIE, switch_pdis=(b"\x01" * 8,))
SOUND = [
    VENDOR.gpu(9, architecture=architecture, configuration=CONFIGURATION).evidence("gpu0", NONCE)
    for architecture in Architecture
]


def is_accepted(evidence: Evidence) -> bool:
    try:
        # Under the laxest profile there is: what it refuses, every profile refuses.
        return verify(evidence, anchors=ANCHORS, reference=REFERENCE, expected_nonce=NONCE, now=NOW, profile=PROFILE).ok
    except (MalformedError, UnsupportedError):
        return False


@given(st.binary(max_size=400))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError, UnsupportedError):
        assert GpuEvidence.parse(data).to_bytes() == data
    with contextlib.suppress(MalformedError, UnsupportedError):
        assert GpuEvidence.parse(data, allow_trailing_byte=True).to_bytes() == data


@given(st.sampled_from(SOUND), st.data())
def test_no_changed_evidence_is_accepted(evidence: Evidence, draw: st.DataObject) -> None:
    assert is_accepted(evidence)
    offset = draw.draw(st.integers(0, len(evidence.data) - 1))
    removed = draw.draw(st.integers(0, 3))
    changed = evidence.data[:offset] + draw.draw(st.binary(max_size=3)) + evidence.data[offset + removed :]
    if changed != evidence.data:
        assert not is_accepted(Evidence("gpu0", "nvgpu", changed, evidence.certificates))


@given(st.sampled_from(SOUND), st.data())
def test_no_changed_certificate_is_accepted(evidence: Evidence, draw: st.DataObject) -> None:
    chain = list(evidence.certificates)
    position = draw.draw(st.integers(0, len(chain) - 1))
    der = chain[position]
    offset = draw.draw(st.integers(0, len(der) - 1))
    removed = draw.draw(st.integers(0, 2))
    chain[position] = der[:offset] + draw.draw(st.binary(max_size=2)) + der[offset + removed :]
    if chain[position] != der:
        assert not is_accepted(Evidence("gpu0", "nvgpu", evidence.data, tuple(chain)))


@given(st.sampled_from(SOUND), st.permutations(range(5)), st.integers(0, 5))
def test_no_reordered_or_cut_chain_is_accepted(evidence: Evidence, order: list[int], length: int) -> None:
    chain = tuple(evidence.certificates[index] for index in order[:length])
    if chain != evidence.certificates:
        assert not is_accepted(Evidence("gpu0", "nvgpu", evidence.data, chain))
