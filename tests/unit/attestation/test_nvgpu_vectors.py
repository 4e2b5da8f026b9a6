"""GPU verification on published evidence of genuine GPUs."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.errors import MalformedError, UnsupportedError
from attestation.findings import Severity
from attestation.nvgpu.abi import Mode
from attestation.nvgpu.conformance import PROFILE, REFERENCE, conformance_fields
from attestation.nvgpu.endorsements import NVIDIA_DEVICE_IDENTITY_CA_SHA256, NvGpuAnchors
from attestation.nvgpu.verify import NvGpuReference, verify
from attestation.types import DeviceResult, Evidence

pytestmark = pytest.mark.vectors
STRICT_REFERENCE = NvGpuReference(
    products=frozenset({"GH100", "GB100"}), modes=frozenset(Mode), drivers=None, vbios=None, measurements={}
)


@pytest.fixture(scope="module")
def cases(vectors: Path) -> dict[str, dict[str, Any]]:
    manifest = json.loads((vectors / "manifest.json").read_text(encoding="utf-8"))
    return {case["name"]: case for case in manifest if case["tee"] in {"nvidia", "nvswitch"}}


def evidence_of(vectors: Path, case: dict[str, Any]) -> Evidence:
    pem = (vectors / case["files"]["cert_chain"]).read_bytes()
    return Evidence(
        slot="gpu0",
        scheme="nvgpu",
        data=(vectors / case["files"]["report"]).read_bytes(),
        certificates=tuple(cert.public_bytes(Encoding.DER) for cert in x509.load_pem_x509_certificates(pem)),
    )


def time_of(case: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(case["expected"]["verification_time"]).timestamp())


def judge(vectors: Path, case: dict[str, Any]) -> DeviceResult:
    return verify(
        evidence_of(vectors, case),
        anchors=NvGpuAnchors.nvidia(),
        reference=REFERENCE,
        expected_nonce=bytes.fromhex(case["expected"]["nonce"]),
        now=time_of(case),
        profile=PROFILE,
        allow_trailing_byte=True,
    )


def test_every_gpu_case_has_its_verdict_and_fields(vectors: Path, cases: dict[str, dict[str, Any]]) -> None:
    judged = 0
    for name, case in cases.items():
        if case["tee"] != "nvidia":
            continue
        result = judge(vectors, case)
        for field, value in conformance_fields(result).items():
            assert case["expected"].get(field, value) == value, (name, field)
        # A manifest of reference values that must not match is judged where such manifests are read.
        if case["expected"]["verdict"] == "fail" and "driver_rim" in case["files"]:
            continue
        assert result.ok == (case["expected"]["verdict"] == "pass"), (name, result.findings)
        assert not result.simulated
        judged += 1
    assert judged >= 12


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("neg-hopper-invalid-signature", {"NVGPU_SIGNATURE", "NVGPU_FWID"}),
        ("neg-hopper-nonce-mismatch", {"NVGPU_NONCE"}),
    ],
)
def test_negative_cases_fail_for_their_reason(
    vectors: Path, cases: dict[str, dict[str, Any]], name: str, expected: set[str]
) -> None:
    result = judge(vectors, cases[name])
    assert {finding.code for finding in result.findings if finding.severity is Severity.FAIL} == expected


@pytest.mark.parametrize(
    ("name", "findings"),
    [
        ("hopper-550.90.07-full", set()),
        ("hopper-590.12", set()),
        ("hopper-ppcie-gpu-0", set()),
        ("blackwell-575.32", set()),
        ("blackwell-mpt-gpu-0", set()),
        ("hopper-535.86.09-vbios-rim", {"NVGPU_FWID_PRESENT"}),
    ],
)
def test_genuine_gpus_meet_the_strict_rules(
    vectors: Path, cases: dict[str, dict[str, Any]], name: str, findings: set[str]
) -> None:
    case = cases[name]
    result = verify(
        evidence_of(vectors, case),
        anchors=NvGpuAnchors.nvidia(),
        reference=STRICT_REFERENCE,
        expected_nonce=bytes.fromhex(case["expected"]["nonce"]),
        now=time_of(case),
    )
    assert {finding.code for finding in result.findings if finding.severity is Severity.FAIL} == findings
    assert result.identity is not None
    assert result.identity.value.startswith("41")


def test_trailing_byte_is_malformed_in_production(vectors: Path, cases: dict[str, dict[str, Any]]) -> None:
    case = cases["hopper-580.95.05-coco"]
    with pytest.raises(MalformedError, match="1 trailing bytes"):
        verify(
            evidence_of(vectors, case),
            anchors=NvGpuAnchors.nvidia(),
            reference=STRICT_REFERENCE,
            expected_nonce=None,
            now=time_of(case),
        )


def test_pinned_root_is_the_published_one(vectors: Path, cases: dict[str, dict[str, Any]]) -> None:
    for case in cases.values():
        root = x509.load_pem_x509_certificate((vectors / case["files"]["device_root"]).read_bytes())
        assert hashlib.sha256(root.public_bytes(Encoding.DER)).digest() == NVIDIA_DEVICE_IDENTITY_CA_SHA256


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("hopper-535.86.09-vbios-rim", "unstated"),
        ("hopper-550.90.07-full", "spt"),
        ("hopper-580.95.05-coco", "spt"),
        ("hopper-590.12", "ppcie"),
        ("hopper-ppcie-gpu-0", "ppcie"),
        ("blackwell-mpt-gpu-1", "mpt"),
    ],
)
def test_modes(vectors: Path, cases: dict[str, dict[str, Any]], name: str, mode: str) -> None:
    assert judge(vectors, cases[name]).claims["mode"] == mode


def test_switch_pdis_are_those_in_the_switches_certificates(vectors: Path, cases: dict[str, dict[str, Any]]) -> None:
    """The GPU's signed list and the certified switch identities meet, in one byte order."""
    listed = judge(vectors, cases["hopper-ppcie-gpu-0"]).claims["switch_pdis"]
    assert isinstance(listed, list)
    assert len(listed) == 4
    for name in ("switch-ls10-ppcie-0", "switch-ls10-ppcie-1"):
        pem = (vectors / cases[name]["files"]["cert_chain"]).read_bytes()
        brom = x509.load_pem_x509_certificates(pem)[1]
        serial = brom.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)[0].value
        assert serial.lower()[:2] == "50"
        assert serial.lower()[2:] in listed


def test_a_switch_is_no_gpu(vectors: Path, cases: dict[str, dict[str, Any]]) -> None:
    case = cases["switch-ls10-with-rim"]
    with pytest.raises(MalformedError, match="VBIOS_VERSION has 14 bytes"):
        judge(vectors, case)


def test_every_corrupted_byte_is_noticed(vectors: Path, cases: dict[str, dict[str, Any]]) -> None:
    """Change one byte in every 16 of genuine evidence: malformed, or refused."""
    case = cases["blackwell-mpt-gpu-0"]
    evidence = evidence_of(vectors, case)
    anchors = NvGpuAnchors.nvidia()
    for offset in range(0, len(evidence.data), 16):
        data = bytearray(evidence.data)
        data[offset] ^= 0x40
        try:
            result = verify(
                Evidence("gpu0", "nvgpu", bytes(data), evidence.certificates),
                anchors=anchors,
                reference=REFERENCE,
                expected_nonce=bytes.fromhex(case["expected"]["nonce"]),
                now=time_of(case),
                profile=PROFILE,
            )
        except (MalformedError, UnsupportedError):
            continue
        assert not result.ok, offset
