"""What verifying evidence costs beyond the one signature that it cannot do without.

The yardstick is one bare ECDSA P-384 verification with the product's backend, its message of the same length hashed as
it must be. Evidence comes from the simulators; nothing is fetched and no published vector is read.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from awscrt.crypto import EC
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.ecdsa import EcdsaKey, der_signature
from attestation.findings import CheckLog
from attestation.nvgpu import verify as nvgpu
from attestation.nvgpu.abi import GpuEvidence, Mode
from attestation.nvgpu.endorsements import NvGpuAnchors
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.nvgpu import Architecture, GpuConfiguration
from attestation.simulator.snp import SimulatedSnp
from attestation.snp import verify as snp
from attestation.snp.abi import SIGNED_SIZE, AttestationReport, Product
from attestation.types import Evidence
from bench.harness import ROUNDS, Row, Timing, interleave, table

SNP_FLOOR = 0.85
GPU_FLOOR = 0.85
NONCE = bytes(range(32))
REPORT_DATA = bytes(64)
CACHE = Path(__file__).resolve().parents[1] / ".cache" / "bench-vendors"
"""The simulators' keys: making two RSA-4096 keys takes seconds, so they are kept. They protect nothing."""

DAY = 24 * 3600


def run(rounds: int = ROUNDS) -> str:
    """Measure, and return the tables."""
    now = int(time.time())
    vendors = SimulatedVendors.load_or_generate(CACHE, now=now, seed=bytes(32))
    report = "\n\n".join((backends(rounds), gpu(vendors, now, rounds), cpu(vendors, now, rounds)))
    return f"Attestation: CPU time of one process, medians of {rounds} interleaved rounds\n\n{report}"


def backends(rounds: int) -> str:
    """Bare P-384 verifications side by side: the candidates for the product's one backend."""
    key = ec.generate_private_key(ec.SECP384R1())
    message = bytes(SIGNED_SIZE)
    signature = key.sign(message, ec.ECDSA(hashes.SHA384()))
    public = key.public_key()
    aws = EC.new_key_from_der_data(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    product = EcdsaKey(public)

    def with_awscrt() -> None:
        if not aws.verify(hashlib.sha384(message).digest(), signature):
            raise InvalidSignature

    def with_product() -> None:
        if not product.verify_der(signature, message):
            raise InvalidSignature

    timings = interleave(
        {
            "cryptography (OpenSSL)": lambda: public.verify(signature, message, ec.ECDSA(hashes.SHA384())),
            "awscrt (AWS-LC)": with_awscrt,
            "attestation.ecdsa": with_product,
        },
        rounds=rounds,
    )
    base = timings["cryptography (OpenSSL)"]
    rows = [Row(timing, None if timing is base else base) for timing in timings.values()]
    return table(f"Bare ECDSA P-384, SHA-384 over {len(message)} bytes", rows)


def gpu(vendors: SimulatedVendors, now: int, rounds: int) -> str:
    """GPU evidence, Hopper and Blackwell."""
    parts = []
    switches = (bytes(8), bytes([1] * 8))
    for architecture in Architecture:
        configuration = GpuConfiguration(mode=Mode.PROTECTED_PCIE, switch_pdis=switches)
        device = vendors.nvidia.gpu(7, architecture=architecture, configuration=configuration)
        evidence = device.evidence("gpu0", NONCE)
        anchors, reference = vendors.nvidia.anchors(), vendors.reference(configuration).nvgpu
        parsed = GpuEvidence.parse(evidence.data)
        measurements = parsed.measurements
        key = nvgpu.authenticate(evidence, anchors=anchors, now=now, log=CheckLog()).chain.chain.leaf_key
        if key is None or reference is None:
            raise RuntimeError("simulated GPU: no leaf key or no reference values")
        timings = interleave(
            {
                "bare P-384 verify": bare(key, measurements.r, measurements.s, measurements.signed),
                "parse": partial(GpuEvidence.parse, evidence.data),
                "parse + signature, chain cached": authentic_gpu(evidence, anchors, now),
                "whole verification, chain cached": sound_gpu(evidence, anchors, reference, now),
                "whole verification, cold chain (5 links)": cold_gpu(evidence, vendors, reference, now),
            },
            rounds=rounds,
        )
        parts.append(
            compare(f"GPU evidence, {architecture.name.title()}, {len(evidence.data)} bytes", timings, GPU_FLOOR)
        )
    return "\n\n".join(parts)


def cpu(vendors: SimulatedVendors, now: int, rounds: int) -> str:
    """SEV-SNP evidence."""
    evidence = SimulatedSnp(vendors.amd, product=Product.GENOA, seed=b"bench", now=now).evidence(REPORT_DATA)
    anchors, reference, collateral = (
        vendors.amd.anchors(),
        vendors.reference().snp,
        vendors.collateral(this_update=now - DAY),
    )
    authenticated = snp.authenticate(evidence, anchors=anchors, now=now, log=CheckLog())
    vek, report = authenticated.endorsement.vek, authenticated.report
    if vek is None or reference is None:
        raise RuntimeError("simulated SNP: no VCEK or no reference values")

    def authentic() -> None:
        if not snp.authenticate(evidence, anchors=anchors, now=now, log=CheckLog()).authentic:
            raise RuntimeError("simulated SNP evidence is not authentic")

    def sound(warm: bool = True) -> None:
        result = snp.verify(
            evidence,
            collateral=collateral,
            anchors=anchors if warm else vendors.amd.anchors(),
            reference=reference,
            expected_report_data=REPORT_DATA,
            now=now,
        )
        if not result.ok:
            raise RuntimeError(f"simulated SNP evidence is refused: {result.findings}")

    timings = interleave(
        {
            "bare P-384 verify": bare(vek.key, report.r, report.s, evidence.data[:SIGNED_SIZE]),
            "parse": lambda: AttestationReport.parse(evidence.data),
            "parse + signature, chain cached": authentic,
            "whole verification, chain cached": sound,
            "whole verification, cold chain (3 RSA links)": lambda: sound(warm=False),
        },
        rounds=rounds,
    )
    return compare(f"SEV-SNP evidence, {len(evidence.data)} bytes", timings, SNP_FLOOR)


def compare(title: str, timings: dict[str, Timing], floor: float) -> str:
    """The table of `timings` against the bare verification."""
    base = timings["bare P-384 verify"]
    return table(
        title,
        [
            Row(timing, None if timing is base else base, floor if name.startswith("parse +") else None)
            for name, timing in timings.items()
        ],
    )


def bare(key: EcdsaKey, r: int, s: int, message: bytes) -> Callable[[], None]:
    """One verification and nothing else, its signature encoded beforehand."""
    signature = der_signature(r, s)

    def call() -> None:
        if not key.verify_der(signature, message):
            raise InvalidSignature

    return call


def authentic_gpu(evidence: Evidence, anchors: NvGpuAnchors, now: int) -> Callable[[], None]:
    """Parse and authenticate with a warm cache."""

    def call() -> None:
        if not nvgpu.authenticate(evidence, anchors=anchors, now=now, log=CheckLog()).authentic:
            raise RuntimeError("simulated GPU evidence is not authentic")

    return call


def sound_gpu(
    evidence: Evidence, anchors: NvGpuAnchors, reference: nvgpu.NvGpuReference, now: int
) -> Callable[[], None]:
    """The whole verification, every measurement pinned."""

    def call() -> None:
        result = nvgpu.verify(evidence, anchors=anchors, reference=reference, expected_nonce=NONCE, now=now)
        if not result.ok:
            raise RuntimeError(f"simulated GPU evidence is refused: {result.findings}")

    return call


def cold_gpu(
    evidence: Evidence, vendors: SimulatedVendors, reference: nvgpu.NvGpuReference, now: int
) -> Callable[[], None]:
    """The whole verification with an empty cache each time."""

    def call() -> None:
        sound_gpu(evidence, vendors.nvidia.anchors(), reference, now)()

    return call


def main() -> int:
    """Print the tables."""
    print(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
