"""GPU evidence through NVIDIA's management library (NVML): SPDM measurements and the attestation certificate chain.

Needs a GPU in confidential-computing mode with its driver, and the optional package ``nvidia-ml-py`` (pip extra
``nvml``). Source: NVIDIA, "NVML API Reference", nvmlDeviceGetConfComputeGpuAttestationReport and
nvmlDeviceGetConfComputeGpuCertificate. NVML gives no evidence of NVSwitches; `attester.collect.nscq` does.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, Protocol, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.types import Evidence
from attester.collect.collector import DEVICE_NONCE_SIZE
from attester.errors import GpuEvidenceError

MAX_GPUS: Final = 16


class _Report(Protocol):
    attestationReportSize: int  # noqa: N815 - NVML's name
    attestationReport: Sequence[int]  # noqa: N815 - NVML's name


class _Certificate(Protocol):
    attestationCertChainSize: int  # noqa: N815 - NVML's name
    attestationCertChain: Sequence[int]  # noqa: N815 - NVML's name


class NvmlLibrary(Protocol):
    """What is used of ``pynvml``; every function raises its `NVMLError` where NVML returns an error."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        """Load the library and connect to the driver."""

    def nvmlShutdown(self) -> None:  # noqa: N802 - NVML's name
        """Undo one `nvmlInit`."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVML's name
        """How many GPUs there are."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802 - NVML's name
        """The handle of the GPU with this index, which is stable while the driver is loaded."""

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, device: Any, c_nonce: bytes) -> _Report:  # noqa: N802
        """SPDM measurements, signed over the nonce."""

    def nvmlDeviceGetConfComputeGpuCertificate(self, device: Any) -> _Certificate:  # noqa: N802 - NVML's name
        """The certificate chain of the key that signs the measurements, in PEM, leaf first."""


def load_library() -> NvmlLibrary:
    """Import ``pynvml``.

    Raises:
        GpuEvidenceError: it is not installed.
    """
    try:
        return cast("NvmlLibrary", importlib.import_module("pynvml"))
    except ModuleNotFoundError:
        raise GpuEvidenceError("GPU evidence needs nvidia-ml-py: pip install 'keystead[nvml]'") from None


class Nvml:
    """Collects the evidence of every GPU of this machine.

    Args:
        library: ``pynvml``, or what stands for it; None imports it when evidence is collected.
    """

    __slots__ = ("_library",)

    def __init__(self, library: NvmlLibrary | None = None) -> None:
        self._library = library

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """The evidence of every GPU, ``gpu0`` first, in NVML's order. All GPUs sign at the same time.

        Raises:
            GpuEvidenceError: no library, no driver, no GPU, or a GPU that is not in confidential-computing mode.
        """
        if len(nonce) != DEVICE_NONCE_SIZE:
            raise GpuEvidenceError(f"nonce: {len(nonce)} bytes, SPDM takes exactly {DEVICE_NONCE_SIZE}")
        library = self._library or load_library()
        with _session(library):
            try:
                count = library.nvmlDeviceGetCount()
            except library.NVMLError as error:
                raise GpuEvidenceError(f"NVML does not count GPUs: {error}") from None
            if not 1 <= count <= MAX_GPUS:
                raise GpuEvidenceError(f"NVML sees {count} GPUs, 1 to {MAX_GPUS} can be attested")
            with ThreadPoolExecutor(count, thread_name_prefix="gpu-evidence") as pool:
                return tuple(pool.map(lambda index: _collect(library, index, nonce), range(count)))


@contextmanager
def _session(library: NvmlLibrary) -> Iterator[None]:
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        raise GpuEvidenceError(f"NVML does not start: {error}. Is NVIDIA's driver loaded?") from None
    try:
        yield
    finally:
        library.nvmlShutdown()


def _collect(library: NvmlLibrary, index: int, nonce: bytes) -> Evidence:
    slot = f"gpu{index}"
    try:
        device = library.nvmlDeviceGetHandleByIndex(index)
        report = library.nvmlDeviceGetConfComputeGpuAttestationReport(device, nonce)
        chain = library.nvmlDeviceGetConfComputeGpuCertificate(device)
    except library.NVMLError as error:
        raise GpuEvidenceError(f"{slot}: {error}. Is the GPU in confidential-computing mode?") from None
    data = _sized(report.attestationReport, report.attestationReportSize, f"{slot}: attestation report")
    pem = _sized(chain.attestationCertChain, chain.attestationCertChainSize, f"{slot}: certificate chain")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise GpuEvidenceError(f"{slot}: certificate chain: {error}") from None
    return Evidence(
        slot=slot,
        scheme="nvgpu",
        data=data,
        certificates=tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates),
    )


def _sized(field: Sequence[int], size: int, what: str) -> bytes:
    if not 0 < size <= len(field):
        raise GpuEvidenceError(f"{what}: NVML says {size} bytes, its buffer has {len(field)}")
    return bytes(field[:size])
