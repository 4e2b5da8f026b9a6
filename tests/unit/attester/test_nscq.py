"""NSCQ's functions and structures, through a C library that is built here with its published ABI."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import attester
from attestation.nvswitch import verify as nvswitch
from attestation.simulator.nvgpu import SimulatedGpuVendor
from attestation.simulator.nvswitch import PRODUCT, SimulatedSwitch
from attestation.types import Collateral, Evidence
from attester.collect.collector import Devices
from attester.collect.nscq import Nscq, load_library
from attester.errors import EvidenceConflictError, SwitchEvidenceError

NONCE = bytes(range(32))
NOW = 1_790_000_000
SOURCE = Path(__file__).with_name("nscq_standin.c")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: NVSwitch evidence collection is NOT tested")
    path = tmp_path_factory.mktemp("nscq") / "libnvidia-nscq.so.2"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", path, SOURCE], check=True, timeout=120)
    return str(path)


@pytest.fixture(scope="module")
def switches() -> tuple[SimulatedSwitch, ...]:
    vendor = SimulatedGpuVendor(bytes(32))
    return tuple(SimulatedSwitch(vendor=vendor, pdi=pdi, gpu_pdis=(1, 2), position=pdi) for pdi in (1, 2))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switches: tuple[SimulatedSwitch, ...]) -> Path:
    """What the stand-in serves: the evidence of two switches over `NONCE`, in trusted NVLink mode."""
    (tmp_path / "count").write_text(str(len(switches)))
    for index, switch in enumerate(switches):
        evidence = switch.evidence("nvswitch0", NONCE)
        (tmp_path / f"{index}.report").write_bytes(evidence.data)
        chain = (x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in evidence.certificates)
        (tmp_path / f"{index}.chain").write_bytes(b"".join(chain))
    monkeypatch.setenv("NSCQ_STANDIN", str(tmp_path))
    return tmp_path


def test_every_switch_gives_evidence_that_verifies(
    library: str, folder: Path, switches: tuple[SimulatedSwitch, ...]
) -> None:
    collected = Nscq(library).devices(NONCE)
    assert [each.slot for each in collected] == ["nvswitch0", "nvswitch1"]
    assert (folder / "nonce").read_bytes() == NONCE
    assert (folder / "destroyed").exists()
    # In the order of their names, which is not the one in which the library finds them.
    for evidence, switch in zip(collected, reversed(switches), strict=True):
        result = nvswitch.verify(
            evidence,
            anchors=switch.anchors(),
            reference=nvswitch.NvSwitchReference(
                products=frozenset({PRODUCT}),
                bios=frozenset({switch.bios_version}),
                measurements={index: frozenset({value}) for index, value in switch.measurements.items()},
            ),
            expected_nonce=NONCE,
            now=NOW,
            collateral=Collateral(),
        )
        assert {finding.code for finding in result.findings if finding.severity == "fail"} == set()
        assert result.identity == switch.identity


def test_a_machine_without_the_library_has_no_switches(tmp_path: Path) -> None:
    assert Nscq(str(tmp_path / "libnvidia-nscq.so.2")).devices(NONCE) == ()
    assert load_library(str(tmp_path / "none")) is None


def test_another_library_of_that_name(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: NVSwitch evidence collection is NOT tested")
    source = tmp_path / "other.c"
    source.write_text("int nscq_session_create(void) { return 0; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "other.so", source], check=True, timeout=120)
    with pytest.raises(SwitchEvidenceError, match="nscq_session_destroy"):
        Nscq(str(tmp_path / "other.so")).devices(NONCE)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_as_many_as_there_are(library: str, folder: Path, count: int) -> None:
    (folder / "count").write_text(str(count))
    assert len(Nscq(library).devices(NONCE)) == count


def test_switches_without_trusted_mode_give_no_evidence(library: str, folder: Path) -> None:
    for mode, text in ((-1, "unknown"), (0, "disabled"), (2, "failure"), (9, "9")):
        (folder / "mode").write_text(str(mode))
        with pytest.raises(SwitchEvidenceError, match=f"mode is {text}"):
            Nscq(library).devices(NONCE)
    (folder / "mode").write_text("1")
    assert len(Nscq(library).devices(NONCE)) == 2


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("create", "-6", "unsupported driver"),
        ("session", "0", "no session, and no error"),
        ("observe", "-8", "timeout"),
        ("input", "-4", "nonce not taken: overflow"),
        ("label", "-2", "invalid UUID"),
        ("same", "1", "names a switch twice"),
        ("fail", "uuid -7", "uuid: driver error"),
        ("fail", "pcie_mode -1", "pcie_mode: not implemented"),
        ("fail", "attestation_report -7", "attestation_report: driver error"),
        ("fail", "certificate -127", "certificate: external error"),
        ("fail", "certificate -50", "unknown error"),
        ("times", "0", "NSCQ gave 0 values"),
        ("times", "2", "NSCQ gave 2 values"),
        ("size", "8193", "NSCQ says 8193 bytes"),
        ("size", "0", "NSCQ says 0 bytes"),
        ("0.chain", "", "certificate chain"),
        ("0.chain", "-----BEGIN PRIVATE KEY-----", "PEM bundle"),
    ],
)
def test_what_goes_wrong_is_said_and_the_session_ends(
    library: str, folder: Path, name: str, content: str, text: str
) -> None:
    (folder / name).write_text(content)
    with pytest.raises(SwitchEvidenceError, match=text):
        Nscq(library).devices(NONCE)
    assert (folder / "destroyed").exists() is (name not in {"create", "session"})


def test_warnings_are_no_errors(library: str, folder: Path) -> None:
    (folder / "create").write_text("1")
    assert len(Nscq(library).devices(NONCE)) == 2


def test_evidence_for_another_nonce_is_not_ours(library: str, folder: Path) -> None:
    with pytest.raises(EvidenceConflictError, match="another nonce"):
        Nscq(library).devices(bytes(32))


def test_a_nonce_has_32_bytes(library: str) -> None:
    with pytest.raises(SwitchEvidenceError, match="exactly 32"):
        Nscq(library).devices(bytes(31))


class Fixed:
    """A collector of one device."""

    def __init__(self, slot: str) -> None:
        self.slot = slot

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        return (Evidence(self.slot, "nvgpu", nonce),)


def test_gpus_and_switches_are_collected_together(library: str, folder: Path) -> None:
    together = attester.Devices((Fixed("gpu0"), attester.Nscq(library)))
    assert [each.slot for each in together.devices(NONCE)] == ["gpu0", "nvswitch0", "nvswitch1"]
    (folder / "create").write_text("-7")
    with pytest.raises(SwitchEvidenceError):
        together.devices(NONCE)
    assert Devices(()).devices(NONCE) == ()
