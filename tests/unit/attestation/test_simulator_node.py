from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from attestation.errors import MalformedError, TrustAnchorError, UnsupportedError
from attestation.inspect import detect_scheme, inspect_evidence
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.nvgpu import Architecture
from attestation.simulator.pki import SimulatedAmdPki
from attestation.simulator.snp import SimulatedSnp
from attestation.snp.abi import AttestationReport, Product
from attestation.snp.certificate import AmdCertificate
from attestation.snp.endorsements import AMD_ARK_SHA256, SnpAnchors

NOW = 1_790_000_000


def test_vendors_survive_saving_and_loading(vendors: SimulatedVendors, tmp_path: Path) -> None:
    vendors.amd.save(tmp_path / "amd")
    vendors.nvidia.save(tmp_path / "nvidia")
    loaded = SimulatedVendors.load_or_generate(tmp_path, now=NOW + 5, seed=bytes(32))
    assert loaded.anchors().snp == vendors.anchors().snp
    assert loaded.nvidia.root_der == vendors.nvidia.root_der
    for key in (tmp_path / "amd").glob("*.key.pem"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    chip = SimulatedSnp(loaded.amd, product=Product.MILAN, seed=b"x", now=NOW)
    leaf, ask, ark = (AmdCertificate.parse(der, what="certificate") for der in chip.certificates())
    assert leaf.is_signed_by(ask)
    assert ask.is_signed_by(ark)
    assert ark.is_signed_by(ark)
    assert not leaf.is_signed_by(ark) or ask.public_key == ark.public_key


def test_a_saved_key_of_another_kind_is_refused(tmp_path: Path, vendors: SimulatedVendors) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    vendors.amd.save(tmp_path)
    (tmp_path / "ask.key.pem").write_bytes(
        ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(MalformedError, match="RSA"):
        SimulatedAmdPki.load(tmp_path)


def test_a_node_has_the_same_hardware_each_time(vendors: SimulatedVendors) -> None:
    first, again = (vendors.node("n", now=NOW, gpus=3) for _ in range(2))
    assert first.identities() == again.identities()
    other = vendors.node("m", now=NOW, gpus=3)
    assert not set(first.identities().values()) & set(other.identities().values())
    assert len(set(first.identities().values())) == 4
    blackwell = vendors.node("n", now=NOW, gpus=1, product=Product.TURIN, architecture=Architecture.BLACKWELL)
    assert len(blackwell.cpu.hwid) == 8


@pytest.mark.parametrize("product", Product)
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_simulated_reports_are_bit_accurate(vendors: SimulatedVendors, product: Product, version: int) -> None:
    chip = SimulatedSnp(vendors.amd, product=product, seed=b"x", now=NOW)
    data = chip.report(b"\x01" * 64, version=version)
    report = AttestationReport.parse(data)
    assert report.to_bytes() == data
    assert report.version == version
    assert report.product is (None if version == 2 else product)
    assert report.chip_id == chip.chip_id


def test_anchors_are_explicit(vendors: SimulatedVendors) -> None:
    amd = SnpAnchors.amd()
    assert not amd.simulated_roots
    assert dict(amd.roots) == dict(AMD_ARK_SHA256)
    both = amd.with_simulated(vendors.amd.certificates[Product.GENOA].ark)
    assert len(both.roots) == 4
    assert len(both.simulated_roots) == 1
    assert both.is_pinned(vendors.amd.certificates[Product.GENOA].ark)
    assert not both.is_pinned(vendors.amd.certificates[Product.MILAN].ark)
    assert SnpAnchors.none().roots == {}
    with pytest.raises(TrustAnchorError, match="no simulated root"):
        SnpAnchors.simulated()
    with pytest.raises(MalformedError, match="common name"):
        SnpAnchors.simulated(vendors.amd.certificates[Product.GENOA].ask)


def test_amds_own_root_is_no_simulators(vectors: Path) -> None:
    from attestation.pem import certificates_from_pem

    ark = certificates_from_pem((vectors / "snp" / "turin-v5-vcek" / "ca_chain.pem").read_bytes())[-1]
    assert SnpAnchors.amd().is_pinned(ark)
    with pytest.raises(TrustAnchorError, match="AMD's own"):
        SnpAnchors.simulated(ark)


def test_inspection_describes_a_report(vendors: SimulatedVendors) -> None:
    node = vendors.node("n", now=NOW, gpus=1)
    evidence = node.cpu_evidence(b"\x05" * 64)
    bare, with_leaf = (
        inspect_evidence(evidence.data),
        inspect_evidence(evidence.data, certificates=evidence.certificates),
    )
    assert bare.scheme == "snp"
    assert bare.to_json()["verified"] is False
    assert bare.fields["report_data"] == "05" * 64
    assert bare.fields["reported_tcb"] == {"bl": 10, "tee": 0, "snp": 23, "ucode": 84, "fmc": None}
    assert "authentic" not in bare.fields
    assert "vek" not in bare.fields
    assert with_leaf.fields["vek"]["hwid"] == node.cpu.hwid.hex()  # type: ignore[index,call-overload]  # JSON
    assert json.loads(json.dumps(with_leaf.to_json()))["title"] == "AMD SEV-SNP attestation report"


def test_inspection_describes_a_gpu(vendors: SimulatedVendors) -> None:
    evidence = vendors.node("n", now=NOW, gpus=1).device_evidence(b"\x07" * 32)[0]
    found = inspect_evidence(evidence.data)
    assert found.scheme == "nvgpu"
    assert found.fields["request"]["nonce"] == "07" * 32  # type: ignore[index,call-overload]  # JSON
    assert len(found.fields["measurements"]) == 64  # type: ignore[arg-type]  # JSON
    assert json.dumps(found.to_json())


def test_inspection_refuses_what_no_scheme_reads(vendors: SimulatedVendors) -> None:
    for data in (b"", b"\x30\x82", bytes(1183)):
        with pytest.raises(MalformedError, match="neither"):
            detect_scheme(data)
    with pytest.raises(MalformedError, match="'tdx'"):
        inspect_evidence(bytes(1184), scheme="tdx")
    with pytest.raises((MalformedError, UnsupportedError)):
        inspect_evidence(b"\x06" + bytes(1183))
