"""Properly signed evidence of GPUs and NVSwitches that lacks a field, measures otherwise or has an unusual leaf."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.errors import MalformedError
from attestation.findings import CheckLog
from attestation.nvgpu import verify as nvgpu
from attestation.nvgpu.abi import Mode
from attestation.nvgpu.endorsements import NvGpuAnchors
from attestation.nvswitch import verify as nvswitch
from attestation.simulator.nvgpu import GpuConfiguration, SimulatedGpu, SimulatedGpuVendor
from attestation.simulator.nvswitch import SimulatedSwitch
from attestation.simulator.rim import SimulatedRimAuthority
from attestation.spdm.abi import (
    RAW_BIT_STREAM,
    GetMeasurements,
    MeasurementBlock,
    SignedMeasurements,
    record_to_bytes,
)
from attestation.spdm.dice import OID_COMPOSITE_DEVICE_ID, OID_DICE_TCB_INFO, dice_tcb_info_to_bytes
from attestation.spdm.opaque import opaque_to_bytes, parse_opaque
from attestation.types import Collateral, DeviceResult, Evidence

NOW: Final = 1_790_000_000
NONCE: Final = b"\xa5" * 32
VENDOR: Final = SimulatedGpuVendor(b"\x01" * 32)
PPCIE: Final = GpuConfiguration(mode=Mode.PROTECTED_PCIE, switch_pdis=(bytes(range(1, 9)),))
GPU: Final = VENDOR.gpu(0x7A, configuration=PPCIE)
SWITCH: Final = SimulatedSwitch(vendor=VENDOR, pdi=9, gpu_pdis=(0x7A,))
REFERENCE: Final = nvgpu.NvGpuReference(
    products=frozenset({"GH100"}),
    modes=frozenset(Mode),
    drivers=frozenset({PPCIE.driver_version}),
    vbios=frozenset({PPCIE.vbios_version}),
    measurements={},
)
Device = SimulatedGpu | SimulatedSwitch
BOTH: Final = pytest.mark.parametrize("device", [GPU, SWITCH], ids=["gpu", "nvswitch"])
Blocks = list[MeasurementBlock]


def judge(device: Device, evidence: Evidence, **options: Any) -> DeviceResult:
    if isinstance(device, SimulatedGpu):
        return nvgpu.verify(
            evidence,
            anchors=options.pop("anchors", None) or VENDOR.anchors(),
            reference=REFERENCE,
            expected_nonce=NONCE,
            now=NOW,
            **options,
        )
    return nvswitch.verify(
        evidence,
        anchors=device.anchors(),
        reference=nvswitch.NvSwitchReference(
            products=frozenset({"LS_10"}), bios=frozenset({device.bios_version}), measurements={}
        ),
        expected_nonce=NONCE,
        now=NOW,
        **options,
    )


def evidence_of(device: Device) -> Evidence:
    return device.evidence("gpu0" if isinstance(device, SimulatedGpu) else "nvswitch0", NONCE)


def signed(
    device: Device,
    *,
    fields: Callable[[dict[int, bytes]], dict[int, bytes]] = lambda fields: fields,
    blocks: Callable[[Blocks], Blocks] = lambda blocks: blocks,
    request: Callable[[GetMeasurements], GetMeasurements] = lambda request: request,
) -> Evidence:
    """The device's evidence with other opaque fields, measurements or request, signed by its own key."""
    evidence = evidence_of(device)
    parsed = SignedMeasurements.parse(evidence.data)
    measured = blocks(list(parsed.response.blocks))
    response = replace(
        parsed.response,
        block_count=len(measured),
        record=record_to_bytes(measured),
        opaque=opaque_to_bytes(fields(dict(parse_opaque(parsed.response.opaque)))),
    )
    unsigned = replace(parsed, request=request(parsed.request), response=response).to_bytes()[:-96]
    key = device._leaf_key
    r, s = decode_dss_signature(key.sign(unsigned, ec.ECDSA(hashes.SHA384())))
    return replace(evidence, data=unsigned + r.to_bytes(48, "big") + s.to_bytes(48, "big"))


def without(*kinds: int) -> Callable[[dict[int, bytes]], dict[int, bytes]]:
    return lambda fields: {kind: value for kind, value in fields.items() if kind not in kinds}


def new_leaf(device: Device, *extensions: x509.ExtensionType, key: Any = None) -> Evidence:
    """The device's evidence with a leaf that its BROM certificate issued anew."""
    evidence = evidence_of(device)
    old = x509.load_der_x509_certificate(evidence.certificates[0])
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(key.public_key() if key else old.public_key())
        .serial_number(old.serial_number)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    for extension in old.extensions:
        if not extensions or extension.oid not in {OID_COMPOSITE_DEVICE_ID, OID_DICE_TCB_INFO}:
            builder = builder.add_extension(extension.value, critical=extension.critical)
    for value in extensions:
        builder = builder.add_extension(value, critical=False)
    leaf = builder.sign(device._brom_key, hashes.SHA384())
    return replace(evidence, certificates=(leaf.public_bytes(Encoding.DER), *evidence.certificates[1:]))


def failing(result: DeviceResult) -> dict[str, str]:
    return {finding.code: finding.actual for finding in result.findings if finding.severity == "fail"}


@BOTH
def test_what_is_signed_anew_verifies(device: Device) -> None:
    assert failing(judge(device, signed(device))) == {}
    assert failing(judge(device, new_leaf(device))) == {}


@pytest.mark.parametrize(
    ("device", "kinds", "findings"),
    [
        (GPU, (3,), {"NVGPU_DRIVER": "absent"}),
        (GPU, (6,), {"NVGPU_VBIOS": "absent"}),
        (GPU, (20,), {"NVGPU_FWID_PRESENT": "evidence: absent, leaf: present"}),
        (GPU, (22,), {"NVGPU_SWITCHES": "none"}),
        (SWITCH, (6,), {"NVSWITCH_BIOS": "absent"}),
        (SWITCH, (22,), {"NVSWITCH_PDI": "absent"}),
        (SWITCH, (26,), {"NVSWITCH_GPUS": "none"}),
    ],
)
def test_a_field_that_is_absent(device: Device, kinds: tuple[int, ...], findings: dict[str, str]) -> None:
    result = judge(device, signed(device, fields=without(*kinds)))
    assert failing(result) == findings
    assert (result.identity is None) is ("NVSWITCH_PDI" in findings)


def test_a_driver_that_is_not_stated_has_no_manifest_of_its_own() -> None:
    rims = (SimulatedRimAuthority(vendor=VENDOR, not_before=NOW - 3600).driver(GPU),)
    result = judge(GPU, signed(GPU, fields=without(3)), collateral=Collateral(rims=rims))
    (finding,) = [each for each in result.findings if each.code == "RIM_VERSION"]
    assert finding.expected == "GH100 of a version that the evidence states"


def test_links_to_nowhere_are_no_switches() -> None:
    empty = signed(GPU, fields=lambda fields: {**fields, 22: bytes(18 * 8)})
    assert failing(judge(GPU, empty)) == {"NVGPU_SWITCHES": "none"}
    one = signed(GPU, fields=lambda fields: {**fields, 22: bytes(17 * 8) + b"\x01" * 8})
    assert failing(judge(GPU, one)) == {}


def test_a_lock_that_is_not_stated_informs() -> None:
    result = judge(SWITCH, signed(SWITCH, fields=without(25)))
    assert {finding.code: finding.actual for finding in result.findings}["NVSWITCH_LOCKED"] == "absent"


def _first(**changes: Any) -> Callable[[Blocks], Blocks]:
    return lambda blocks: [blocks[0]._replace(**changes), *blocks[1:]]


@BOTH
@pytest.mark.parametrize(
    "blocks",
    [_first(value=bytes(47)), _first(value=bytes(49)), lambda blocks: [_raw(blocks[0]), *blocks[1:]], lambda _: []],
    ids=["shorter", "longer", "not a digest", "none at all"],
)
def test_measurements_that_are_no_digests(device: Device, blocks: Callable[[Blocks], Blocks]) -> None:
    (code,) = failing(judge(device, signed(device, blocks=blocks)))
    assert code.endswith("_ALL_MEASUREMENTS")


def _raw(block: MeasurementBlock) -> MeasurementBlock:
    return MeasurementBlock(block[0], block[1] | RAW_BIT_STREAM, block[2])


@BOTH
def test_another_operation(device: Device) -> None:
    (code,) = failing(judge(device, signed(device, request=lambda request: replace(request, operation=1))))
    assert code.endswith("_ALL_MEASUREMENTS")


@BOTH
@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP521R1())])
def test_a_leaf_whose_key_is_of_another_kind_is_a_finding(device: Device, key: Any) -> None:
    codes = set(failing(judge(device, new_leaf(device, key=key))))
    prefix = "NVGPU" if device is GPU else "NVSWITCH"
    assert codes == {"X509_ALGORITHM", f"{prefix}_SIGNATURE"}


@BOTH
def test_a_leaf_without_firmware_identity(device: Device) -> None:
    result = judge(device, new_leaf(device, x509.OCSPNoCheck()))
    assert failing(result) == (
        {"NVGPU_FWID_PRESENT": "evidence: present, leaf: absent"} if device is GPU else {"NVSWITCH_LEAF_FWID": "absent"}
    )
    assert result.claims["leaf_fwid"] is None


def test_claims_say_what_is_there_and_what_is_not() -> None:
    claims = judge(GPU, evidence_of(GPU)).claims
    assert GPU.identity.value == claims["certified_serial_number"]
    assert re.search(r"[a-f]", GPU.identity.value), "which has letters to be written in lower case"
    assert claims["fwid"] == claims["leaf_fwid"] == GPU.fwid.hex()
    counts = claims["measurement_counts"]
    assert isinstance(counts, list)
    assert len(counts) == len(GPU.measurements)
    bare = judge(GPU, signed(GPU, fields=without(12, 20))).claims
    assert (bare["measurement_counts"], bare["fwid"], bare["fwid_in_leaf"]) == (None, None, None)


@BOTH
@pytest.mark.parametrize(
    ("flags", "found"),
    [((), False), (("not_configured",), False), (("recovery",), True), (("not_secure", "not_configured"), True)],
)
def test_the_state_of_the_firmware(device: Device, flags: tuple[str, ...], found: bool) -> None:
    info = dice_tcb_info_to_bytes(model="x", fwid=device.fwid, flags=flags)
    result = judge(device, new_leaf(device, x509.UnrecognizedExtension(OID_DICE_TCB_INFO, info)))
    assert [code.partition("_")[2] for code in failing(result)] == (["FIRMWARE_STATE"] if found else [])


def test_a_statement_judged_for_one_firmware_is_not_taken_for_another() -> None:
    """Leaves in a row that differ in nothing but what they say of the firmware, by the same anchors and values."""
    anchors = VENDOR.anchors()
    for flags, found in (((), {}), (("recovery",), {"NVGPU_FIRMWARE_STATE": "recovery"})):
        info = dice_tcb_info_to_bytes(model="x", fwid=GPU.fwid, flags=flags)
        leaf = new_leaf(GPU, x509.UnrecognizedExtension(OID_DICE_TCB_INFO, info))
        assert failing(judge(GPU, leaf, anchors=anchors)) == found
    assert set(failing(judge(GPU, new_leaf(GPU, x509.OCSPNoCheck()), anchors=anchors))) == {"NVGPU_FWID_PRESENT"}


def test_a_simulated_manifest_makes_the_result_simulated() -> None:
    """Here the vendor's root is pinned for devices as NVIDIA's is, and as a simulator's for manifests."""
    roots = frozenset({hashlib.sha256(VENDOR.root_der).digest()})
    authority = SimulatedRimAuthority(vendor=VENDOR, not_before=NOW - 3600)
    anchors = NvGpuAnchors._of(roots, frozenset(), authority.anchors())
    assert not judge(GPU, evidence_of(GPU), anchors=anchors).simulated
    with_manifest = judge(GPU, evidence_of(GPU), anchors=anchors, collateral=Collateral(rims=(authority.driver(GPU),)))
    assert failing(with_manifest) == {}
    assert with_manifest.simulated


@BOTH
def test_a_byte_after_the_signature_is_for_conformance_alone(device: Device) -> None:
    evidence = evidence_of(device)
    longer = replace(evidence, data=evidence.data + b"\0")
    with pytest.raises(MalformedError):
        judge(device, longer)
    assert judge(device, longer, allow_trailing_byte=True).claims["trailing_bytes_after_signature"] == 1


def test_one_byte_more_is_not_authenticated_either() -> None:
    evidence = evidence_of(GPU)
    assert nvgpu.authenticate(evidence, anchors=VENDOR.anchors(), now=NOW, log=CheckLog()).authentic
    with pytest.raises(MalformedError):
        longer = replace(evidence, data=evidence.data + b"\0")
        nvgpu.authenticate(longer, anchors=VENDOR.anchors(), now=NOW, log=CheckLog())
