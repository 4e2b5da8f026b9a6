"""NVML's structures as nvidia-ml-py lays them out, filled by a stand-in for the driver."""

from __future__ import annotations

import ctypes
import datetime as dt
import sys
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import NameOID

from attester.collect.collector import NodeCollector, NoDevices
from attester.collect.nvml import Nvml, load_library
from attester.errors import GpuEvidenceError
from tests.unit.attester.fake_broker import FakeCollector

NONCE = bytes(range(32))


class Report(ctypes.Structure):
    _fields_ = (
        ("isCecAttestationReportPresent", ctypes.c_uint),
        ("attestationReportSize", ctypes.c_uint),
        ("cecAttestationReportSize", ctypes.c_uint),
        ("nonce", ctypes.c_uint8 * 0x20),
        ("attestationReport", ctypes.c_uint8 * 0x2000),
        ("cecAttestationReport", ctypes.c_uint8 * 0x1000),
    )


class Certificate(ctypes.Structure):
    _fields_ = (
        ("certChainSize", ctypes.c_uint),
        ("attestationCertChainSize", ctypes.c_uint),
        ("certChain", ctypes.c_uint8 * 0x1000),
        ("attestationCertChain", ctypes.c_uint8 * 0x1400),
    )


class DriverError(Exception):
    pass


def make_certificate(name: str) -> x509.Certificate:
    key = generate_private_key(SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    return builder.sign(key, SHA384())


CHAIN = [make_certificate("leaf"), make_certificate("root")]


class Driver:
    NVMLError = DriverError

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self.failing = ""
        self.open = 0
        self.report_size: int | None = None
        self.pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in CHAIN)
        self.together = threading.Barrier(count) if count else None

    def step(self, name: str) -> None:
        if name == self.failing:
            raise DriverError("Not Supported")

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        self.step("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802 - NVML's name
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVML's name
        self.step("nvmlDeviceGetCount")
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802 - NVML's name
        self.step("nvmlDeviceGetHandleByIndex")
        return index

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, device: int, c_nonce: bytes) -> Report:  # noqa: N802 - NVML's name
        self.step("nvmlDeviceGetConfComputeGpuAttestationReport")
        assert self.open == 1
        if self.together is not None:
            self.together.wait(5)
        data = b"report of %d over " % device + c_nonce
        report = Report(attestationReportSize=len(data) if self.report_size is None else self.report_size)
        report.nonce = (ctypes.c_uint8 * len(c_nonce))(*c_nonce)
        ctypes.memmove(report.attestationReport, data, len(data))
        return report

    def nvmlDeviceGetConfComputeGpuCertificate(self, device: int) -> Certificate:  # noqa: N802 - NVML's name
        self.step("nvmlDeviceGetConfComputeGpuCertificate")
        chain = Certificate(attestationCertChainSize=len(self.pem))
        ctypes.memmove(chain.attestationCertChain, self.pem, len(self.pem))
        return chain


def test_every_gpu_signs_at_the_same_time() -> None:
    driver = Driver(4)
    evidence = Nvml(driver).devices(NONCE)
    assert [each.slot for each in evidence] == ["gpu0", "gpu1", "gpu2", "gpu3"]
    assert [each.data for each in evidence] == [b"report of %d over " % index + NONCE for index in range(4)]
    assert {each.scheme for each in evidence} == {"nvgpu"}
    assert {each.certificates for each in evidence} == {tuple(each.public_bytes(Encoding.DER) for each in CHAIN)}
    assert driver.open == 0


@pytest.mark.parametrize(
    "name",
    [
        "nvmlInit",
        "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetConfComputeGpuAttestationReport",
        "nvmlDeviceGetConfComputeGpuCertificate",
    ],
)
def test_driver_errors_are_typed_and_nvml_is_shut_down(name: str) -> None:
    driver = Driver(1)
    driver.failing = name
    with pytest.raises(GpuEvidenceError, match="Not Supported"):
        Nvml(driver).devices(NONCE)
    assert driver.open == 0


@pytest.mark.parametrize("count", [0, 17])
def test_number_of_gpus_is_bounded(count: int) -> None:
    with pytest.raises(GpuEvidenceError, match="GPUs"):
        Nvml(Driver(count)).devices(NONCE)


@pytest.mark.parametrize("size", [0, 0x2001, 0xFFFFFFFF])
def test_sizes_are_not_believed(size: int) -> None:
    driver = Driver(1)
    driver.report_size = size
    with pytest.raises(GpuEvidenceError, match="buffer"):
        Nvml(driver).devices(NONCE)


def test_chain_that_is_no_pem_is_refused() -> None:
    driver = Driver(1)
    driver.pem = b"not a certificate"
    with pytest.raises(GpuEvidenceError, match="certificate chain"):
        Nvml(driver).devices(NONCE)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_nonce_is_never_padded_nor_cut(size: int) -> None:
    with pytest.raises(GpuEvidenceError, match="32"):
        Nvml(Driver(1)).devices(bytes(size))


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(GpuEvidenceError, match="keystead\\[nvml\\]"):
        load_library()
    with pytest.raises(GpuEvidenceError, match="nvidia-ml-py"):
        Nvml().devices(NONCE)


def test_node_collector_is_its_parts() -> None:
    cpu = FakeCollector()
    assert NodeCollector(cpu, NoDevices()).devices(NONCE) == ()
    assert NodeCollector(cpu, Nvml(Driver(1))).devices(NONCE)[0].slot == "gpu0"
    assert NodeCollector(cpu, NoDevices()).cpu(bytes(64)).slot == "cpu0"
