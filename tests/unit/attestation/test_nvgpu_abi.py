"""Opaque fields of a GPU: their encodings, and what is malformed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attestation.errors import MalformedError
from attestation.nvgpu.abi import GpuEvidence, Mode, OpaqueType
from attestation.simulator.nvgpu import Architecture, GpuConfiguration, GpuDefect, SimulatedGpuVendor

NONCE = b"\x5a" * 32
SWITCHES = (bytes.fromhex("203eb31ad9ed0008"), bytes.fromhex("9fc9768ce6436f2b"))


@pytest.fixture(scope="module")
def evidence() -> GpuEvidence:
    configuration = GpuConfiguration(mode=Mode.PROTECTED_PCIE, switch_pdis=SWITCHES, driver_version="590.48.01")
    gpu = SimulatedGpuVendor(bytes(32)).gpu(7, architecture=Architecture.BLACKWELL, configuration=configuration)
    return GpuEvidence.parse(gpu.evidence("gpu0", NONCE).data)


def with_field(evidence: GpuEvidence, kind: OpaqueType, value: bytes | None) -> GpuEvidence:
    fields = dict(evidence.opaque)
    fields.pop(kind, None)
    if value is not None:
        fields[kind] = value
    return replace(evidence, opaque=fields)


def test_reads_every_field(evidence: GpuEvidence) -> None:
    assert evidence.nonce == NONCE
    assert evidence.driver_version == "590.48.01"
    assert evidence.vbios_version == "96.00.CF.00.02"
    assert evidence.vbios_rim_id == "NV_GPU_VBIOS_G525_0220_886_9600CF0002"
    assert evidence.chip == "GB100"
    assert evidence.feature_flag == 2
    assert evidence.nvdec0 == 0x55
    assert evidence.opaque_version == 1
    assert evidence.measurement_counts is not None
    assert len(evidence.measurement_counts) == 64
    assert evidence.switch_pdis == SWITCHES * 9
    assert len(evidence.fwid or b"") == 48


def test_absent_fields_are_none(evidence: GpuEvidence) -> None:
    bare = replace(evidence, opaque={})
    assert bare.driver_version is bare.vbios_version is bare.vbios_rim_id is bare.chip is bare.fwid is None
    assert bare.switch_pdis is bare.measurement_counts is bare.feature_flag is bare.protected_pcie is None
    assert bare.nvdec0 is bare.opaque_version is None
    assert bare.mode is Mode.UNSTATED


@pytest.mark.parametrize(
    "kind", [OpaqueType.PROJECT, OpaqueType.PROJECT_SKU, OpaqueType.CHIP_SKU, OpaqueType.VBIOS_VERSION]
)
def test_a_vbios_is_identified_by_all_its_parts_or_not_at_all(evidence: GpuEvidence, kind: OpaqueType) -> None:
    assert with_field(evidence, kind, None).vbios_rim_id is None


def test_round_trip(evidence: GpuEvidence) -> None:
    assert GpuEvidence.parse(evidence.to_bytes()) == evidence


def test_changed_fields_cannot_be_written_as_if_signed(evidence: GpuEvidence) -> None:
    with pytest.raises(ValueError, match="differ from the signed response"):
        with_field(evidence, OpaqueType.SKU, b"x").to_bytes()


@pytest.mark.parametrize(
    ("kind", "value", "attribute"),
    [
        (OpaqueType.FWID, bytes(47), "fwid"),
        (OpaqueType.DRIVER_VERSION, b"580.95.05", "driver_version"),
        (OpaqueType.DRIVER_VERSION, b"580\x0195\0", "driver_version"),
        (OpaqueType.DRIVER_VERSION, b"\xff\0", "driver_version"),
        (OpaqueType.DRIVER_VERSION, b"58\x000\0", "driver_version"),
        (OpaqueType.VBIOS_VERSION, bytes(7), "vbios_version"),
        (OpaqueType.VBIOS_VERSION, b"\0\0\0\x96\0\0\0\x01", "vbios_version"),
        (OpaqueType.VBIOS_VERSION, b"\0\0\0\x96\0\x01\0\0", "vbios_version"),
        (OpaqueType.CHIP_INFO, b"GB100", "chip"),
        (OpaqueType.PROJECT, b"", "vbios_rim_id"),
        (OpaqueType.FEATURE_FLAG, b"\0", "feature_flag"),
        (OpaqueType.PROTECTED_PCIE_STATUS, b"", "protected_pcie"),
        (OpaqueType.NVDEC0_STATUS, b"\0\0", "nvdec0"),
        (OpaqueType.OPAQUE_DATA_VERSION, b"\0", "opaque_version"),
        (OpaqueType.MSRSCNT, bytes(5), "measurement_counts"),
        (OpaqueType.SWITCH_PDI, bytes(143), "switch_pdis"),
    ],
)
def test_other_encodings_are_malformed(evidence: GpuEvidence, kind: OpaqueType, value: bytes, attribute: str) -> None:
    with pytest.raises(MalformedError):
        getattr(with_field(evidence, kind, value), attribute)


@pytest.mark.parametrize(
    ("flag", "status", "mode"),
    [
        (None, None, Mode.UNSTATED),
        (None, 0x55, Mode.SINGLE_GPU),
        (None, 0xAA, Mode.PROTECTED_PCIE),
        (None, 0x00, None),
        (0, None, Mode.SINGLE_GPU),
        (1, 0x55, Mode.MULTI_GPU),
        (2, 0xAA, Mode.PROTECTED_PCIE),
        (2, None, Mode.PROTECTED_PCIE),
        (2, 0x55, None),
        (0, 0xAA, None),
        (1, 0xAA, None),
        (3, None, None),
        (3, 0x55, None),
    ],
)
def test_mode_is_what_both_fields_state(
    evidence: GpuEvidence, flag: int | None, status: int | None, mode: Mode | None
) -> None:
    changed = with_field(evidence, OpaqueType.FEATURE_FLAG, None if flag is None else flag.to_bytes(2, "little"))
    changed = with_field(changed, OpaqueType.PROTECTED_PCIE_STATUS, None if status is None else bytes([status]))
    assert changed.mode is mode


def test_one_trailing_byte_is_dropped_only_where_allowed() -> None:
    data = SimulatedGpuVendor(bytes(32)).gpu(7).evidence("gpu0", NONCE, defects=[GpuDefect.TRAILING_BYTE]).data
    with pytest.raises(MalformedError, match="1 trailing bytes"):
        GpuEvidence.parse(data)
    parsed = GpuEvidence.parse(data, allow_trailing_byte=True)
    assert parsed.trailing == b"\0"
    assert parsed.to_bytes() == data
    with pytest.raises(MalformedError, match="2 trailing bytes"):
        GpuEvidence.parse(data + b"\0", allow_trailing_byte=True)
    assert GpuEvidence.parse(data[:-1], allow_trailing_byte=True).trailing == b""
