"""What verifying evidence costs beyond the one signature that it cannot do without.

The yardstick is one bare ECDSA P-384 verification with the product's backend, its message of the same length hashed as
it must be. A complete verdict takes evidence of a device that was seen before, with every collateral: for a CPU the
revocation list, for a GPU two manifests and OCSP responses for its chain and the manifests' signers. Cold is the same
with nothing known beforehand. Evidence comes from the simulators, so that every signature is a real one.

Beside it stands what `nv-local-gpu-verifier` takes for the same GPU's evidence and manifests; see
`bench.peers.nv_local_gpu_verifier` for what that includes.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from awscrt.crypto import EC
from cryptography import x509
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
from attestation.simulator.nvgpu import Architecture, GpuConfiguration, SimulatedGpu
from attestation.simulator.ocsp import SimulatedOcsp
from attestation.simulator.rim import SimulatedRimAuthority
from attestation.simulator.snp import SimulatedSnp
from attestation.snp import verify as snp
from attestation.snp.abi import SIGNED_SIZE, AttestationReport, Product
from attestation.types import Collateral, Evidence
from bench import peers
from bench.harness import ROUNDS, Row, Timing, interleave, table

AUTHENTIC_FLOOR = 0.85
"""Of a bare verification: parse and signature."""
VERDICT_FLOOR = 0.60
"""Of a bare verification: the complete verdict."""
PEER = "nv-local-gpu-verifier==2.7.3"
NONCE = bytes(range(32))
REPORT_DATA = bytes(64)
CACHE = Path(__file__).resolve().parents[1] / ".cache" / "bench-vendors"
"""The simulators' keys: making two RSA-4096 keys takes seconds, so they are kept. They protect nothing."""

DAY = 24 * 3600
BARE = "bare P-384 verify"
AUTHENTIC = "parse + signature, chain cached"
VERDICT = "complete verdict, collateral cached"
COLD_CHAIN = "complete verdict, cold chain of 5 certificates"
COLD = "complete verdict, everything cold"


def run(rounds: int = ROUNDS) -> str:
    """Measure, and return the tables."""
    now = int(time.time())
    vendors = SimulatedVendors.load_or_generate(CACHE, now=now, seed=bytes(32))
    parts = [backends(rounds), cpu(vendors, now, rounds)]
    for architecture in Architecture:
        case = GpuCase.make(vendors, architecture, now)
        timings = gpu(case, rounds)
        title = f"GPU evidence, {architecture.name.title()}, {len(case.evidence.data)} bytes"
        parts += [compare(title, timings), against_peer(case, timings)]
    report = "\n\n".join(parts)
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


@dataclass(frozen=True, slots=True)
class GpuCase:
    """One GPU's evidence with every collateral."""

    vendors: SimulatedVendors
    device: SimulatedGpu
    evidence: Evidence
    reference: nvgpu.NvGpuReference
    collateral: Collateral
    now: int

    @classmethod
    def make(cls, vendors: SimulatedVendors, architecture: Architecture, now: int) -> GpuCase:
        """A GPU in single-GPU mode whose every measurement is pinned beside those that manifests list."""
        configuration = GpuConfiguration(mode=Mode.SINGLE_GPU)
        device = vendors.nvidia.gpu(7, architecture=architecture, configuration=configuration)
        reference = vendors.reference(configuration).nvgpu
        if reference is None:
            raise RuntimeError("simulated GPU: no reference values")
        rims = SimulatedRimAuthority(vendor=vendors.nvidia, not_before=now - DAY)
        ocsp = SimulatedOcsp(vendor=vendors.nvidia)
        evidence = device.evidence("gpu0", NONCE)
        return cls(
            vendors=vendors,
            device=device,
            evidence=evidence,
            reference=reference,
            collateral=Collateral(
                rims=(rims.driver(device), rims.vbios(device)),
                ocsp=(
                    *ocsp.responses(evidence.certificates, this_update=now - 60, first=1),
                    *ocsp.responses(rims.certificates(), this_update=now - 60),
                ),
            ),
            now=now,
        )

    def verify(self, anchors: NvGpuAnchors) -> None:
        """The complete verdict."""
        result = nvgpu.verify(
            self.evidence,
            anchors=anchors,
            reference=self.reference,
            expected_nonce=NONCE,
            now=self.now,
            collateral=self.collateral,
        )
        if result.findings:
            raise RuntimeError(f"simulated GPU evidence is refused: {result.findings}")

    def verify_cold(self) -> None:
        """The same with nothing known beforehand."""
        self.verify(self.vendors.nvidia.anchors())


def gpu(case: GpuCase, rounds: int) -> dict[str, Timing]:
    """GPU evidence."""
    anchors, evidence = case.vendors.nvidia.anchors(), case.evidence
    measurements = GpuEvidence.parse(evidence.data).measurements
    key = nvgpu.authenticate(evidence, anchors=anchors, now=case.now, log=CheckLog()).chain.chain.leaf_key
    if key is None:
        raise RuntimeError("simulated GPU: no leaf key")
    return interleave(
        {
            BARE: bare(key, measurements.r, measurements.s, measurements.signed),
            "parse": partial(GpuEvidence.parse, evidence.data),
            AUTHENTIC: authentic_gpu(evidence, anchors, case.now),
            VERDICT: partial(case.verify, anchors),
            COLD_CHAIN: lambda: case.verify(replace(anchors, chains=case.vendors.nvidia.anchors().chains)),
            COLD: case.verify_cold,
        },
        rounds=rounds,
    )


def against_peer(case: GpuCase, timings: dict[str, Timing]) -> str:
    """The complete verdict beside the peer's, on the same evidence and manifests."""
    configuration = case.device.configuration
    root = pem(case.vendors.nvidia.root_der)
    title = f"The same evidence and manifests, {PEER} (without OCSP)"
    try:
        measured = peers.run(
            "nv_local_gpu_verifier",
            PEER,
            {
                "architecture": case.device.architecture.name.lower(),
                "evidence": case.evidence.data.hex(),
                "nonce": NONCE.hex(),
                "chain": [pem(der) for der in case.evidence.certificates],
                "driver": configuration.driver_version,
                "vbios": configuration.vbios_version,
                "driver_rim": case.collateral.rims[0].decode(),
                "vbios_rim": case.collateral.rims[1].decode(),
                "rim_root": root,
            },
        )
    except peers.PeerMissingError as error:
        return f"{title}\n  SKIPPED, NOT MEASURED: {error}"
    rows = [(f"peer: {name}", statistics.median(seconds)) for name, seconds in measured.items()]
    slowest = rows[-1][1]
    rows += [(name, timings[name].median) for name in (VERDICT, COLD_CHAIN, COLD)]
    lines = [title, f"  {'':46} {'µs':>9} {'times as fast':>15}"]
    lines += [f"  {name:46} {seconds * 1e6:9.1f} {slowest / seconds:15.1f}" for name, seconds in rows]
    return "\n".join(lines)


def pem(der: bytes) -> str:
    """A certificate as PEM."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


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
            BARE: bare(vek.key, report.r, report.s, evidence.data[:SIGNED_SIZE]),
            "parse": lambda: AttestationReport.parse(evidence.data),
            AUTHENTIC: authentic,
            VERDICT: sound,
            COLD: lambda: sound(warm=False),
        },
        rounds=rounds,
    )
    return compare(f"SEV-SNP evidence, {len(evidence.data)} bytes", timings)


def compare(title: str, timings: dict[str, Timing]) -> str:
    """The table of `timings` against the bare verification."""
    base = timings[BARE]
    floors = {AUTHENTIC: AUTHENTIC_FLOOR, VERDICT: VERDICT_FLOOR}
    return table(
        title,
        [Row(timing, None if timing is base else base, floors.get(name)) for name, timing in timings.items()],
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


def main() -> int:
    """Print the tables."""
    print(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
