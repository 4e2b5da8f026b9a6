from __future__ import annotations

import contextlib
import hashlib
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import AttestationError, MalformedError, UnsupportedError
from attestation.pem import certificates_from_pem
from attestation.snp.abi import REPORT_SIZE, AttestationReport, FirmwareVersion, Product, TcbVersion
from attestation.snp.azure_hcl import HclReport
from attestation.snp.cert_table import parse_cert_table
from attestation.snp.certificate import AmdCertificate
from attestation.snp.endorsements import SnpAnchors, VekCertificate, crl_content
from attestation.snp.verify import SnpReference, verify
from attestation.types import Collateral, Evidence

u8, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 32, 64))
firmware = st.builds(FirmwareVersion, u8, u8, u8)


def _bytes(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


@st.composite
def reports(draw: st.DrawFn) -> AttestationReport:
    version = draw(st.integers(2, 5))
    cpuid = [draw(u8) if version > 2 else 0 for _ in range(3)]
    mitigations = [draw(u64) if version == 5 else 0 for _ in range(2)]
    return AttestationReport(
        version=version,
        guest_svn=draw(u32),
        policy=draw(u64),
        family_id=draw(_bytes(16)),
        image_id=draw(_bytes(16)),
        vmpl=draw(u32),
        signature_algo=draw(u32),
        current_tcb=draw(_bytes(8)),
        platform_info=draw(u64),
        signer_info=draw(st.integers(0, 31)),
        report_data=draw(_bytes(64)),
        measurement=draw(_bytes(48)),
        host_data=draw(_bytes(32)),
        id_key_digest=draw(_bytes(48)),
        author_key_digest=draw(_bytes(48)),
        report_id=draw(_bytes(32)),
        report_id_ma=draw(_bytes(32)),
        reported_tcb=draw(_bytes(8)),
        cpuid_fam_id=cpuid[0],
        cpuid_mod_id=cpuid[1],
        cpuid_step=cpuid[2],
        chip_id=draw(_bytes(64)),
        committed_tcb=draw(_bytes(8)),
        current_firmware=draw(firmware),
        committed_firmware=draw(firmware),
        launch_tcb=draw(_bytes(8)),
        launch_mit_vector=mitigations[0],
        current_mit_vector=mitigations[1],
        signature_r=draw(_bytes(48)),
        signature_s=draw(_bytes(48)),
    )


@given(reports())
def test_a_report_survives_a_round_trip(report: AttestationReport) -> None:
    data = report.to_bytes()
    assert len(data) == REPORT_SIZE
    assert AttestationReport.parse(data) == report


@given(reports(), st.integers(0, REPORT_SIZE - 1), st.integers(1, 255))
def test_what_parses_is_written_back_unchanged(report: AttestationReport, offset: int, flip: int) -> None:
    data = bytearray(report.to_bytes())
    data[offset] ^= flip
    with contextlib.suppress(MalformedError, UnsupportedError):
        assert AttestationReport.parse(bytes(data)).to_bytes() == bytes(data)


@given(st.binary(max_size=2 * REPORT_SIZE) | _bytes(REPORT_SIZE))
def test_any_bytes_are_a_report_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError, UnsupportedError):
        AttestationReport.parse(data)


@given(_bytes(8), st.sampled_from(Product))
def test_any_8_bytes_are_a_tcb_or_a_typed_error(data: bytes, product: Product) -> None:
    with contextlib.suppress(MalformedError):
        assert TcbVersion.parse(data, product).to_bytes(product) == data


@given(st.binary(max_size=600))
def test_any_bytes_are_a_certificate_a_list_a_table_or_a_typed_error(data: bytes) -> None:
    for parse in (
        VekCertificate.parse,
        lambda each: AmdCertificate.parse(each, what="certificate"),
        crl_content,
        parse_cert_table,
        HclReport.parse,
        certificates_from_pem,
    ):
        with contextlib.suppress(MalformedError, UnsupportedError):
            parse(data)


@cache
def _reference() -> SnpReference:
    zero = TcbVersion(bl=0, tee=0, snp=0, ucode=0)
    return SnpReference(
        minimum_tcb={Product.MILAN: zero, Product.GENOA: zero, Product.TURIN: TcbVersion(**{**_levels(zero), "fmc": 0})}
    )


def _levels(tcb: TcbVersion) -> dict[str, int]:
    return dict(tcb.components())


@given(reports(), st.lists(st.binary(max_size=64), max_size=4))
def test_no_unsigned_report_is_accepted(report: AttestationReport, certificates: list[bytes]) -> None:
    with contextlib.suppress(AttestationError):
        result = verify(
            Evidence("cpu0", "snp", report.to_bytes(), tuple(certificates)),
            collateral=Collateral(),
            anchors=SnpAnchors.amd(),
            reference=_reference(),
            expected_report_data=hashlib.sha512(b"").digest(),
            now=1_790_000_000,
        )
        assert not result.ok
        assert result.identity is None
