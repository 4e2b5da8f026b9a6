"""The GPU simulator: deterministic, saved and loaded, and in genuine GPUs' shape."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.errors import ManifestError
from attestation.nvgpu.abi import GpuEvidence, Mode
from attestation.simulator.nvgpu import Architecture, GpuConfiguration, GpuDefect, SimulatedGpu, SimulatedGpuVendor

SEED = b"\x07" * 32
NONCE = b"\x33" * 32
SWITCHES = (bytes.fromhex("203eb31ad9ed0008"),)


def test_same_seed_same_certificates_and_evidence() -> None:
    one, two = SimulatedGpuVendor(SEED).gpu(5), SimulatedGpuVendor(SEED).gpu(5)
    assert one.certificates() == two.certificates()
    assert one.evidence("gpu0", NONCE) == two.evidence("gpu0", NONCE)
    assert one.evidence("gpu0", NONCE).data != one.evidence("gpu0", NONCE[::-1].replace(b"\x33", b"\x34")).data


def test_gpus_of_a_vendor_differ() -> None:
    vendor = SimulatedGpuVendor(SEED)
    one, two = vendor.gpu(5).certificates(), vendor.gpu(6).certificates()
    assert one[0] != two[0]
    assert one[1] != two[1]
    assert one[2:] == two[2:]


def test_save_and_load(tmp_path: Path) -> None:
    vendor = SimulatedGpuVendor(SEED)
    vendor.save(tmp_path / "vendor")
    loaded = SimulatedGpuVendor.load(tmp_path / "vendor")
    assert loaded.root_der == vendor.root_der
    assert loaded.gpu(5).certificates() == vendor.gpu(5).certificates()
    assert stat.S_IMODE((tmp_path / "vendor" / "nvgpu-seed.hex").stat().st_mode) == 0o600


def test_nothing_to_load_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nothing usable"):
        SimulatedGpuVendor.load(tmp_path)


def test_root_of_another_seed_is_an_error(tmp_path: Path) -> None:
    SimulatedGpuVendor(SEED).save(tmp_path)
    (tmp_path / "nvgpu-seed.hex").write_text("08" * 32)
    with pytest.raises(ManifestError, match="is not the root"):
        SimulatedGpuVendor.load(tmp_path)


def test_bad_seed_pdi_and_nonce_are_errors() -> None:
    with pytest.raises(ManifestError, match="32 bytes"):
        SimulatedGpuVendor(b"short")
    with pytest.raises(ManifestError, match="64 bits"):
        SimulatedGpuVendor(SEED).gpu(1 << 64)
    with pytest.raises(ManifestError, match="32 bytes"):
        SimulatedGpuVendor(SEED).gpu(1).evidence("gpu0", b"short")


@pytest.mark.parametrize("defect", list(GpuDefect))
@pytest.mark.parametrize("architecture", list(Architecture))
def test_every_defect_changes_the_evidence(architecture: Architecture, defect: GpuDefect) -> None:
    configuration = GpuConfiguration(mode=Mode.PROTECTED_PCIE, switch_pdis=SWITCHES)
    gpu = SimulatedGpuVendor(SEED).gpu(5, architecture=architecture, configuration=configuration)
    changed = gpu.evidence("gpu0", NONCE, defects=[defect]) != gpu.evidence("gpu0", NONCE)
    # Blackwell's leaf does not repeat the device key, so that there is nothing to get wrong.
    assert changed != (architecture is Architecture.BLACKWELL and defect is GpuDefect.WRONG_DEVICE_KEY)


GENUINE = {
    "hopper-550.90.07-full": (Architecture.HOPPER, None),
    "hopper-580.95.05-coco": (Architecture.HOPPER, Mode.SINGLE_GPU),
    "hopper-590.12": (Architecture.HOPPER, Mode.PROTECTED_PCIE),
    "blackwell-mpt-gpu-0": (Architecture.BLACKWELL, Mode.MULTI_GPU),
}


def simulated_like(name: str) -> SimulatedGpu:
    architecture, mode = GENUINE[name]
    switches = SWITCHES if mode is Mode.PROTECTED_PCIE else ()
    configuration = GpuConfiguration(mode=mode or Mode.UNSTATED, switch_pdis=switches)
    return SimulatedGpuVendor(SEED).gpu(5, architecture=architecture, configuration=configuration)


@pytest.mark.vectors
@pytest.mark.parametrize("name", GENUINE)
def test_evidence_has_the_shape_of_genuine_evidence(vectors: Path, name: str) -> None:
    """Same fields in the same order with the same sizes (texts aside), same blocks, same header bytes."""
    genuine = GpuEvidence.parse((vectors / "nvidia" / name / "report.bin").read_bytes(), allow_trailing_byte=True)
    simulated = GpuEvidence.parse(simulated_like(name).evidence("gpu0", NONCE).data)
    texts = {3, 19}
    fields = {kind: len(value) for kind, value in genuine.opaque.items() if kind not in texts}
    made = {kind: len(value) for kind, value in simulated.opaque.items() if kind not in texts}
    if GENUINE[name][1] is None:
        # Driver 550 states the protected-PCIe status but no feature flag; the simulator states both or neither.
        del fields[21]
    assert list(made.items()) == list(fields.items())
    assert simulated.measurements.response.block_count == genuine.measurements.response.block_count
    assert simulated.measurements.to_bytes()[:4] == genuine.measurements.to_bytes()[:4]
    assert simulated.measurements.to_bytes()[36:45] == genuine.measurements.to_bytes()[36:45]


@pytest.mark.vectors
@pytest.mark.parametrize("name", GENUINE)
def test_certificates_have_the_shape_of_genuine_ones(vectors: Path, name: str) -> None:
    """Every extension that a verifier reads is there, as critical as the genuine one."""
    genuine = x509.load_pem_x509_certificates((vectors / "nvidia" / name / "cert_chain.pem").read_bytes())
    simulated = [x509.load_der_x509_certificate(der) for der in simulated_like(name).certificates()]
    services = {"2.5.29.31", "1.3.6.1.5.5.7.1.1"}  # where to ask for revocation: nobody answers for a simulator
    for real, made in zip(genuine, simulated, strict=True):
        assert {(e.oid.dotted_string, e.critical) for e in made.extensions} == {
            (e.oid.dotted_string, e.critical) for e in real.extensions if e.oid.dotted_string not in services
        }
        assert made.signature_algorithm_oid == real.signature_algorithm_oid
        assert abs(len(made.public_bytes(Encoding.DER)) - len(real.public_bytes(Encoding.DER))) < 200
    assert [a.oid for a in simulated[0].subject] == [a.oid for a in genuine[0].subject]
    assert [a._type for a in simulated[1].subject] == [a._type for a in genuine[1].subject]
