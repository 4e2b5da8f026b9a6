"""Any bytes are a manifest, a switch's evidence or a response, or a typed error; never anything else."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import AttestationError, MalformedError, UnsupportedError
from attestation.findings import CheckLog
from attestation.nvswitch.abi import SwitchEvidence
from attestation.nvswitch.verify import NvSwitchReference, verify
from attestation.ocsp import OcspResponses
from attestation.rim.verify import parse_rim, verify_rim
from attestation.simulator.nvgpu import SimulatedGpuVendor
from attestation.simulator.nvswitch import SimulatedSwitch
from attestation.simulator.ocsp import SimulatedOcsp
from attestation.simulator.rim import SimulatedRimAuthority
from attestation.types import Collateral, Evidence

NOW = 1_790_000_000
NONCE = bytes(32)
VENDOR = SimulatedGpuVendor(b"\x01" * 32)
AUTHORITY = SimulatedRimAuthority(vendor=VENDOR, not_before=NOW - 1)
RIM = AUTHORITY.driver(VENDOR.gpu(1))
SWITCH = SimulatedSwitch(vendor=VENDOR, pdi=1, gpu_pdis=(1,))
EVIDENCE = SWITCH.evidence("nvswitch0", NONCE)
RESPONSE = SimulatedOcsp(vendor=VENDOR).responses(EVIDENCE.certificates, this_update=NOW - 60, first=1)[0]
REFERENCE = NvSwitchReference(products=frozenset({"LS_10"}), bios=None, measurements={})
MARKUP = st.lists(
    st.sampled_from(
        [
            b"<x>",
            b"</x>",
            b"<y a='1'/>",
            b"<!--",
            b"-->",
            b"<?p?>",
            b"&amp;",
            b"&x;",
            b"<!DOCTYPE",
            b"]]>",
            b" ",
            b"\xc3",
        ]
    ),
    max_size=40,
).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """`sound` with a stretch of it replaced."""
    start = draw(st.integers(0, len(sound) - 1))
    size = draw(st.integers(0, 12))
    return sound[:start] + draw(st.binary(max_size=12)) + sound[start + size :]


@given(st.one_of(st.binary(max_size=400), MARKUP, damaged(RIM)))
@settings(max_examples=150)
def test_any_bytes_are_a_manifest_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        parse_rim(data)


@given(damaged(RIM))
@settings(max_examples=150)
def test_a_damaged_manifest_never_says_anything_else(data: bytes) -> None:
    log = CheckLog()
    rim = verify_rim(data, anchors=AUTHORITY.anchors(), now=NOW, log=log)
    assert (rim is None) == bool(log.findings)
    if rim is not None:
        # White space and names of prefixes outside what was signed may differ, never what is read.
        assert rim.document == parse_rim(RIM)[0]


@given(st.one_of(st.binary(max_size=400), damaged(EVIDENCE.data)))
@settings(max_examples=150)
def test_any_bytes_are_a_switchs_evidence_or_a_typed_error(data: bytes) -> None:
    try:
        parsed = SwitchEvidence.parse(data)
    except (MalformedError, UnsupportedError):
        return
    assert parsed.to_bytes() == data


@given(damaged(EVIDENCE.data))
@settings(max_examples=80)
def test_damaged_evidence_is_refused(data: bytes) -> None:
    evidence = Evidence("nvswitch0", "nvswitch", data, EVIDENCE.certificates)
    with contextlib.suppress(AttestationError):
        result = verify(
            evidence, anchors=SWITCH.anchors(), reference=REFERENCE, expected_nonce=NONCE, now=NOW, collateral=None
        )
        assert data == EVIDENCE.data or not result.ok


@given(st.one_of(st.binary(max_size=400), damaged(RESPONSE)))
@settings(max_examples=150)
def test_any_bytes_are_a_response_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        OcspResponses.parse([data])


@given(damaged(RESPONSE))
@settings(max_examples=100)
def test_a_damaged_response_never_makes_a_device_pass_as_checked(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        result = verify(
            EVIDENCE,
            anchors=SWITCH.anchors(),
            reference=REFERENCE,
            expected_nonce=NONCE,
            now=NOW,
            collateral=Collateral(ocsp=(data,)),
        )
        statuses = [passed for passed in result.passed if passed.code == "OCSP_STATUS"]
        assert data == RESPONSE or not statuses
