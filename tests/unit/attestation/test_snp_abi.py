from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.errors import MalformedError, UnsupportedError
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.snp import SimulatedSnp
from attestation.snp.abi import (
    GUEST_POLICY_BITS,
    PLATFORM_INFO_BITS,
    REPORT_SIZE,
    AttestationReport,
    FirmwareVersion,
    GuestPolicy,
    PlatformInfo,
    Product,
    SigningKey,
    TcbVersion,
    product_of_cpuid,
)


@pytest.fixture(scope="module")
def report(vendors: SimulatedVendors, now: int) -> bytes:
    chip = SimulatedSnp(vendors.amd, product=Product.GENOA, seed=b"abi", now=now)
    return chip.report(bytes(range(64)), version=5)


def _with(report: bytes, offset: int, value: bytes) -> bytes:
    return report[:offset] + value + report[offset + len(value) :]


def test_every_field_is_read_from_its_offset(report: bytes) -> None:
    distinct = bytearray(report)
    struct.pack_into("<IIQ", distinct, 0, 5, 0x01020304, 0x3001F)
    for offset, size in ((0x10, 16), (0x20, 16), (0x50, 64), (0x90, 48), (0xC0, 32), (0xE0, 48), (0x110, 48)):
        distinct[offset : offset + size] = bytes((offset >> 4,)) * size
    for offset, size in ((0x140, 32), (0x160, 32), (0x180, 8), (0x1A0, 64), (0x1E0, 8), (0x1F0, 8)):
        distinct[offset : offset + size] = bytes((offset >> 4 & 0xFF,)) * size
    struct.pack_into("<II", distinct, 0x30, 2, 1)
    distinct[0x38:0x40] = b"currentT"
    struct.pack_into("<QI", distinct, 0x40, 0x25, 0b00111)
    distinct[0x188:0x18B] = bytes((0x19, 0x11, 0x02))
    distinct[0x1E8:0x1EB] = bytes((49, 55, 1))
    distinct[0x1EC:0x1EF] = bytes((48, 54, 1))
    struct.pack_into("<QQ", distinct, 0x1F8, 0xAA, 0xBB)
    distinct[0x2A0 : 0x2A0 + 48] = b"\x01" + bytes(47)
    distinct[0x2E8 : 0x2E8 + 48] = b"\x02" + bytes(47)
    parsed = AttestationReport.parse(bytes(distinct))
    assert parsed == AttestationReport(
        version=5,
        guest_svn=0x01020304,
        policy=0x3001F,
        family_id=b"\x01" * 16,
        image_id=b"\x02" * 16,
        vmpl=2,
        signature_algo=1,
        current_tcb=b"currentT",
        platform_info=0x25,
        signer_info=0b00111,
        report_data=b"\x05" * 64,
        measurement=b"\x09" * 48,
        host_data=b"\x0c" * 32,
        id_key_digest=b"\x0e" * 48,
        author_key_digest=b"\x11" * 48,
        report_id=b"\x14" * 32,
        report_id_ma=b"\x16" * 32,
        reported_tcb=b"\x18" * 8,
        cpuid_fam_id=0x19,
        cpuid_mod_id=0x11,
        cpuid_step=0x02,
        chip_id=b"\x1a" * 64,
        committed_tcb=b"\x1e" * 8,
        current_firmware=FirmwareVersion(1, 55, 49),
        committed_firmware=FirmwareVersion(1, 54, 48),
        launch_tcb=b"\x1f" * 8,
        launch_mit_vector=0xAA,
        current_mit_vector=0xBB,
        signature_r=b"\x01" + bytes(47),
        signature_s=b"\x02" + bytes(47),
    )
    assert (parsed.r, parsed.s) == (1, 2)
    assert parsed.signing_key is SigningKey.VLEK
    assert parsed.author_key_enabled
    assert parsed.mask_chip_key
    assert parsed.to_bytes() == bytes(distinct)


@pytest.mark.parametrize("size", [0, 1, 793, REPORT_SIZE - 1, REPORT_SIZE + 1, 4096])
def test_any_other_size_is_malformed(size: int) -> None:
    with pytest.raises(MalformedError, match=f"{size} bytes"):
        AttestationReport.parse(bytes(size))


@pytest.mark.parametrize("offset", [0x4C, 0x4F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F, 0x2D0, 0x318, 0x330, 0x49F])
def test_a_reserved_byte_that_is_not_zero_is_malformed(report: bytes, offset: int) -> None:
    with pytest.raises(MalformedError, match="must be zero, found 0x80") as caught:
        AttestationReport.parse(_with(report, offset, b"\x80"))
    assert caught.value.offset == offset


@pytest.mark.parametrize("version", [0, 1])
def test_a_version_before_the_first_is_malformed(report: bytes, version: int) -> None:
    with pytest.raises(MalformedError, match=f"version {version}"):
        AttestationReport.parse(_with(report, 0, struct.pack("<I", version)))


@pytest.mark.parametrize("version", [6, 0x0500, 0xFFFFFFFF])
def test_a_version_after_the_last_is_unsupported(report: bytes, version: int) -> None:
    with pytest.raises(UnsupportedError, match=str(version)):
        AttestationReport.parse(_with(report, 0, struct.pack("<I", version)))


@pytest.mark.parametrize(
    ("version", "offset"), [(2, 0x188), (2, 0x189), (2, 0x18A), (2, 0x1F8), (3, 0x1F8), (4, 0x207), (3, 0x200)]
)
def test_a_field_that_the_version_does_not_have_must_be_zero(
    vendors: SimulatedVendors, now: int, version: int, offset: int
) -> None:
    chip = SimulatedSnp(vendors.amd, product=Product.MILAN, seed=b"abi", now=now)
    data = chip.report(bytes(64), version=version)
    assert AttestationReport.parse(data).version == version
    with pytest.raises(MalformedError, match=f"version {version} has no"):
        AttestationReport.parse(_with(data, offset, b"\x01"))


def test_reserved_bits_of_signer_info_must_be_zero(report: bytes) -> None:
    with pytest.raises(MalformedError, match="SIGNER_INFO"):
        AttestationReport.parse(_with(report, 0x48, b"\x20"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, SigningKey.VCEK), (1, SigningKey.VLEK), (7, SigningKey.NONE), *((n, None) for n in range(2, 7))],
)
def test_signing_key(report: bytes, value: int, expected: SigningKey | None) -> None:
    assert AttestationReport.parse(_with(report, 0x48, bytes((value << 2,)))).signing_key is expected


@pytest.mark.parametrize("author_key", [False, True])
@pytest.mark.parametrize("mask_chip_key", [False, True])
def test_bits_of_signer_info(report: bytes, *, author_key: bool, mask_chip_key: bool) -> None:
    parsed = AttestationReport.parse(_with(report, 0x48, bytes((author_key | mask_chip_key << 1,))))
    assert (parsed.author_key_enabled, parsed.mask_chip_key) == (author_key, mask_chip_key)


@pytest.mark.parametrize(
    ("family", "model", "product"),
    [
        (0x19, 0x00, Product.MILAN),
        (0x19, 0x0F, Product.MILAN),
        (0x19, 0x10, Product.GENOA),
        (0x19, 0x1F, Product.GENOA),
        (0x19, 0x20, None),
        (0x19, 0x9F, None),
        (0x19, 0xA0, Product.GENOA),
        (0x19, 0xAF, Product.GENOA),
        (0x19, 0xB0, None),
        (0x1A, 0x00, Product.TURIN),
        (0x1A, 0x11, Product.TURIN),
        (0x1A, 0x12, None),
        (0x17, 0x01, None),
    ],
)
def test_product_of_cpuid(family: int, model: int, product: Product | None) -> None:
    assert product_of_cpuid(family, model) is product


def test_version_2_states_no_product(vendors: SimulatedVendors, now: int) -> None:
    chip = SimulatedSnp(vendors.amd, product=Product.MILAN, seed=b"abi", now=now)
    assert AttestationReport.parse(chip.report(bytes(64), version=2)).product is None
    assert AttestationReport.parse(chip.report(bytes(64), version=3)).product is Product.MILAN


def test_tcb_layouts_of_the_product_lines() -> None:
    data = bytes((1, 2, 0, 0, 0, 0, 7, 8))
    assert TcbVersion.parse(data, Product.MILAN) == TcbVersion(bl=1, tee=2, snp=7, ucode=8)
    assert TcbVersion.parse(data, Product.GENOA) == TcbVersion(bl=1, tee=2, snp=7, ucode=8)
    turin = bytes((1, 2, 3, 4, 0, 0, 0, 8))
    assert TcbVersion.parse(turin, Product.TURIN) == TcbVersion(fmc=1, bl=2, tee=3, snp=4, ucode=8)


@pytest.mark.parametrize(
    ("product", "reserved"), [(Product.MILAN, (2, 3, 4, 5)), (Product.GENOA, (2, 3, 4, 5)), (Product.TURIN, (4, 5, 6))]
)
def test_tcb_reserved_bytes_must_be_zero(product: Product, reserved: tuple[int, ...]) -> None:
    for index in reserved:
        data = bytearray(8)
        data[index] = 1
        with pytest.raises(MalformedError, match="reserved"):
            TcbVersion.parse(bytes(data), product)


def test_tcb_of_another_size_is_malformed() -> None:
    with pytest.raises(MalformedError, match="7 bytes"):
        TcbVersion.parse(bytes(7), Product.MILAN)


@pytest.mark.parametrize("component", ["bl", "tee", "snp", "ucode", "fmc"])
def test_tcb_comparison_is_by_component(component: str) -> None:
    base = TcbVersion(fmc=5, bl=5, tee=5, snp=5, ucode=5)
    lower = replace(base, **{component: 4})
    higher_elsewhere = replace(
        lower, **{name: 255 for name in ("bl", "tee", "snp", "ucode", "fmc") if name != component}
    )
    assert base.at_least(base)
    assert base.at_least(lower)
    assert not lower.at_least(base)
    assert not higher_elsewhere.at_least(base)


@pytest.mark.parametrize("product", Product)
@pytest.mark.parametrize("at", [0, 1, 7])
def test_a_tcb_is_written_as_it_was_read(product: Product, at: int) -> None:
    data = bytes(at) + b"\x09" + bytes(7 - at)
    assert TcbVersion.parse(data, product).to_bytes(product) == data


def test_the_first_fmc_level_is_above_none() -> None:
    without, first = TcbVersion(fmc=0, bl=1, tee=1, snp=1, ucode=1), TcbVersion(fmc=1, bl=1, tee=1, snp=1, ucode=1)
    assert first.at_least(without)
    assert not without.at_least(first)


def test_tcbs_of_different_layouts_do_not_compare() -> None:
    with_fmc, without = TcbVersion(fmc=9, bl=9, tee=9, snp=9, ucode=9), TcbVersion(bl=0, tee=0, snp=0, ucode=0)
    assert not with_fmc.at_least(without)
    assert not without.at_least(replace(without, fmc=0))
    assert dict(with_fmc.components()) == {"fmc": 9, "bl": 9, "tee": 9, "snp": 9, "ucode": 9}
    assert str(without) == "bl=0 tee=0 snp=0 ucode=0"
    assert str(with_fmc) == "fmc=9 bl=9 tee=9 snp=9 ucode=9"


def test_bits_are_where_the_specification_has_them() -> None:
    assert GUEST_POLICY_BITS == {
        "smt_allowed": 1 << 16,
        "migrate_ma_allowed": 1 << 18,
        "debug_allowed": 1 << 19,
        "single_socket_required": 1 << 20,
        "cxl_allowed": 1 << 21,
        "mem_aes_256_xts_required": 1 << 22,
        "rapl_dis_required": 1 << 23,
        "ciphertext_hiding_dram_required": 1 << 24,
        "page_swap_disable_required": 1 << 25,
    }
    assert PLATFORM_INFO_BITS == {
        "smt_en": 1,
        "tsme_en": 2,
        "ecc_en": 4,
        "rapl_dis": 8,
        "ciphertext_hiding_dram_en": 16,
        "alias_check_complete": 32,
        "tio_en": 128,
    }
    assert GuestPolicy(0x30107).abi == (1, 7)
    assert GuestPolicy(0x20000).reserved_ok
    assert not GuestPolicy(0x10000).reserved_ok
    assert not GuestPolicy(0x20000 | 1 << 26).reserved_ok
    assert not GuestPolicy(0x20000 | 1 << 63).reserved_ok
    assert PlatformInfo(0x65).unknown == 0x40
    assert PlatformInfo(0xBF).unknown == 0


def test_published_reports_survive_a_round_trip(vectors: Path) -> None:
    count = 0
    for path in sorted((vectors / "snp").glob("*/report.bin")):
        data = path.read_bytes()
        if len(data) == REPORT_SIZE and data[0] >= 2:
            assert AttestationReport.parse(data).to_bytes() == data
            count += 1
    assert count > 10


def test_a_tcb_names_the_components_that_it_has() -> None:
    genoa = TcbVersion(bl=1, tee=2, snp=3, ucode=4)
    assert genoa.components() == {"bl": 1, "tee": 2, "snp": 3, "ucode": 4}
    assert replace(genoa, fmc=5).components() == {"fmc": 5, "bl": 1, "tee": 2, "snp": 3, "ucode": 4}
