"""A whole fleet seen for the first time: what verifying its nodes costs beyond signatures that nobody has verified.

Each node has one SEV-SNP CPU with its own VCEK and eight GPUs, each with its own leaf and BROM certificate and its own
OCSP response. Vendors' authorities, the revocation list and the manifests are the same for all. Evidence is made before
and kept on disk; two processes verify it, with every collateral, chunk by chunk. After each chunk the same two
processes verify as many bare signatures, one P-384 key and one RSA-4096 key ready at hand: for each CPU its report's
(P-384) and its VCEK's (RSA-4096), for each GPU its evidence's, its leaf's, its BROM certificate's and its OCSP
response's (P-384). What is compared is wall clock, and beside it CPU time, which other programs on the machine disturb
less; loading a chunk from disk is in neither.

    python -m bench.fleet_bench --nodes 12500
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from attestation.composite import NodeEvidence, verify_node
from attestation.ecdsa import EcdsaKey
from attestation.reference.advisories import parse_advisories
from attestation.reference.shipped import shipped_advisories
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.ocsp import LIFETIME, SimulatedOcsp
from attestation.simulator.rim import SimulatedRimAuthority
from attestation.snp.abi import Product
from attestation.types import Collateral, Evidence
from keystead.binding import (
    HPKE_PUBLIC_KEY_SIZE,
    NONCE_SIZE,
    RuntimeData,
    decode_list,
    encode_list,
)

CEILING = 1.30
"""Of the bare signatures' wall clock."""
DEFAULT_NODES = 500
"""For `make bench`; the whole fleet is 12,500 nodes, whose evidence takes many minutes to make, once."""
WORKERS = 2
GPUS = 8
CHUNK = 125
"""Nodes that one process verifies at a time."""
NOW = 1_790_000_000
"""The fleet's time, so that evidence made once stays current."""
DAY = 24 * 3600
DEVICE_NONCE = bytes(range(32))
RUNTIME = RuntimeData(
    broker="broker.example",
    nonce=bytes(NONCE_SIZE),
    grant=bytes(32),
    node_id="node",
    hpke_key=bytes(HPKE_PUBLIC_KEY_SIZE),
    signing_key=bytes(32),
    assets=bytes(32),
    lease_id="",
    devices=(),
)
UNENFORCED = frozenset({"SNP_ADVISORY_NOT_ENFORCED"})
"""What the shipped table of advisories says of a platform without refusing it."""
CACHE = Path(__file__).resolve().parents[1] / ".cache" / "bench-fleet"
REPORT_NODES = 1000
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Fleet:
    """What every node has in common."""

    vendors: SimulatedVendors
    collateral: Collateral
    gpu_authorities: tuple[bytes, ...]
    cpu_authorities: tuple[bytes, ...]

    @classmethod
    def load(cls) -> Fleet:
        """The fleet's vendors, made at first use."""
        vendors = SimulatedVendors.load_or_generate(CACHE / "vendors", now=NOW, seed=bytes(32))
        gpu = vendors.nvidia.gpu(0)
        rims = SimulatedRimAuthority(vendor=vendors.nvidia, not_before=NOW - DAY)
        ocsp = SimulatedOcsp(vendor=vendors.nvidia)
        chain = gpu.certificates()
        authorities = vendors.amd.certificates[Product.GENOA]
        return cls(
            vendors=vendors,
            collateral=Collateral(
                crls=(vendors.amd.crl(Product.GENOA, this_update=NOW - DAY),),
                rims=(rims.driver(gpu), rims.vbios(gpu)),
                ocsp=(
                    *ocsp.responses(chain, this_update=NOW - LIFETIME // 2, first=2),
                    *ocsp.responses(rims.certificates(), this_update=NOW - LIFETIME // 2),
                ),
            ),
            gpu_authorities=chain[2:],
            cpu_authorities=(authorities.ask, authorities.ark),
        )


@dataclass(frozen=True, slots=True)
class Node:
    """One node's evidence with what it was made for."""

    evidence: NodeEvidence
    runtime_data: bytes
    ocsp: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Everything that is the node's own."""
        cpu = self.evidence.cpu
        fields = [self.runtime_data, cpu.data, cpu.certificates[0]]
        for device, response in zip(self.evidence.devices, self.ocsp, strict=True):
            fields += [device.data, *device.certificates[:2], response]
        return encode_list(fields)

    @classmethod
    def parse(cls, data: bytes, fleet: Fleet) -> Node:
        """What `to_bytes` wrote, joined with what nodes have in common."""
        runtime_data, report, vcek, *rest = decode_list(data, what="node")
        devices, responses = [], []
        for index in range(GPUS):
            measurements, leaf, brom, response = rest[4 * index : 4 * index + 4]
            devices.append(Evidence(f"gpu{index}", "nvgpu", measurements, (leaf, brom, *fleet.gpu_authorities)))
            responses.append(response)
        cpu = Evidence("cpu0", "snp", report, (vcek, *fleet.cpu_authorities))
        return cls(NodeEvidence(cpu, tuple(devices)), runtime_data, tuple(responses))


def chunk_path(number: int) -> Path:
    """Where a chunk of the fleet is kept."""
    return CACHE / "nodes" / f"{number:05d}"


def prepare(fleet: Fleet, numbers: list[int]) -> None:
    """Make the chunks that are not there yet."""
    ocsp = SimulatedOcsp(vendor=fleet.vendors.nvidia)
    for number in numbers:
        path = chunk_path(number)
        if path.is_file():
            continue
        nodes = []
        for index in range(number * CHUNK, (number + 1) * CHUNK):
            simulated = fleet.vendors.node(f"fleet-{index}", now=NOW, gpus=GPUS)
            evidence, runtime = simulated.attest(replace(RUNTIME, node_id=f"n{index}"), device_nonce=DEVICE_NONCE)
            responses = tuple(
                ocsp.responses(device.certificates[:3], this_update=NOW - LIFETIME // 2, first=1)[0]
                for device in evidence.devices
            )
            nodes.append(Node(evidence, runtime.to_bytes(), responses).to_bytes())
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{number}.partial")
        partial.write_bytes(encode_list(nodes))
        partial.replace(path)


class Bare:
    """Signature verifications and nothing else."""

    def __init__(self, fleet: Fleet, node: Node) -> None:
        data = node.evidence.devices[0].data
        self._message = data[:-96]
        key = ec.generate_private_key(ec.SECP384R1())
        self._key, self._signature = EcdsaKey(key.public_key()), key.sign(self._message, ec.ECDSA(hashes.SHA384()))
        vcek = x509.load_der_x509_certificate(node.evidence.cpu.certificates[0])
        ask = x509.load_der_x509_certificate(fleet.cpu_authorities[0]).public_key()
        if not isinstance(ask, rsa.RSAPublicKey):
            raise TypeError("the ASK is no RSA key")
        self._ask, self._vcek_signature, self._vcek = ask, vcek.signature, vcek.tbs_certificate_bytes
        self._padding = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)

    def verify(self, nodes: int) -> None:
        """As many as `nodes` nodes have that nobody has verified before."""
        for _ in range(nodes):
            self._ask.verify(self._vcek_signature, self._vcek, self._padding, hashes.SHA384())
            for _ in range(1 + 4 * GPUS):
                if not self._key.verify_der(self._signature, self._message):
                    raise RuntimeError("a bare signature does not verify")


def work(numbers: list[int]) -> None:
    """Verify chunks when told to on standard input, and say on standard output what it took."""
    fleet = Fleet.load()
    anchors = fleet.vendors.anchors()
    name, data = shipped_advisories()
    table = parse_advisories(data, name=name)
    # As if it had come out the day before, for the fleet's time stands still.
    table = replace(table, about=replace(table.about, issued=NOW - DAY), next_update=NOW + DAY)
    reference = replace(fleet.vendors.reference(), advisories=(table,))
    bare: Bare | None = None
    for number in numbers:
        data = chunk_path(number).read_bytes()
        nodes = [Node.parse(each, fleet) for each in decode_list(data, what="chunk")]
        del data
        bare = bare or Bare(fleet, nodes[0])
        tell({"loaded": number})
        sys.stdin.readline()
        started = time.process_time_ns()
        for node in nodes:
            result = verify_node(
                node.evidence,
                runtime_data=node.runtime_data,
                device_nonce=DEVICE_NONCE,
                anchors=anchors,
                reference=reference,
                collateral=replace(fleet.collateral, ocsp=fleet.collateral.ocsp + node.ocsp),
                now=NOW,
            )
            findings = {each.code for device in result.devices for each in device.findings} - UNENFORCED
            if not result.ok or result.binding_level != "key-and-devices" or findings:
                raise RuntimeError(f"a sound node is refused: {findings}")
        tell({"nanoseconds": time.process_time_ns() - started, "resident": resident()})
        count = len(nodes)
        del nodes, node, result
        sys.stdin.readline()
        started = time.process_time_ns()
        bare.verify(count)
        tell({"nanoseconds": time.process_time_ns() - started, "nodes": count})


def tell(message: dict[str, int]) -> None:
    """One line to whoever started this process."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def resident() -> int:
    """Resident memory of this process in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def start(task: str, numbers: list[int]) -> subprocess.Popen[str]:
    """A process of this module that does `task` for these chunks."""
    command = [sys.executable, "-m", "bench.fleet_bench", f"--{task}", ",".join(map(str, numbers))]
    return subprocess.Popen(
        command, cwd=Path(__file__).resolve().parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def together(workers: list[subprocess.Popen[str]], *, go: bool) -> tuple[float, list[dict[str, int]]]:
    """Let every worker take its next step; how many seconds passed until the last had, and what they said."""
    started = time.perf_counter()
    for worker in workers if go else ():
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    answers = []
    for worker in workers:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        if not line:
            raise RuntimeError("a process of the measurement failed; its reason stands above")
        answers.append(json.loads(line))
    return time.perf_counter() - started, answers


def shares(chunks: int) -> list[list[int]]:
    """Chunk numbers by process, equally many."""
    return [list(range(worker, chunks, WORKERS)) for worker in range(WORKERS)]


def run(nodes: int) -> str:
    """Make what is missing, measure, and return the table."""
    chunks = max(WORKERS, -(-nodes // (CHUNK * WORKERS)) * WORKERS)
    Fleet.load()
    started = time.perf_counter()
    makers = [start("prepare", share) for share in shares(chunks)]
    if any(maker.wait() for maker in makers):
        raise RuntimeError("the fleet's evidence could not be made; the reason stands above")
    made = time.perf_counter() - started
    size = sum(chunk_path(number).stat().st_size for number in range(chunks))
    workers = [start("work", share) for share in shares(chunks)]
    return "\n".join(measure(workers, chunks, made=made, size=size))


def measure(workers: list[subprocess.Popen[str]], chunks: int, *, made: float, size: int) -> Iterator[str]:
    """Lines of the table."""
    verify = bare = 0.0
    done = reported = verify_cpu = bare_cpu = 0
    memory: list[tuple[int, float]] = []
    for _ in range(chunks // WORKERS):
        together(workers, go=False)
        seconds, answers = together(workers, go=True)
        verify += seconds
        verify_cpu += sum(answer["nanoseconds"] for answer in answers)
        seconds, counts = together(workers, go=True)
        bare += seconds
        bare_cpu += sum(count["nanoseconds"] for count in counts)
        done += sum(count["nodes"] for count in counts)
        if done // REPORT_NODES > reported or not memory:
            reported = done // REPORT_NODES
            memory.append((done, sum(answer["resident"] for answer in answers) / MEBIBYTE))
    for worker in workers:
        if worker.wait():
            raise RuntimeError("a process of the measurement failed; its reason stands above")
    pieces, signatures = done * (1 + GPUS), done * (2 + 4 * GPUS)
    ratio = verify / bare
    yield f"Fleet: {done:,} nodes × (1 SNP + {GPUS} GPUs), seen for the first time, {WORKERS} processes, wall clock"
    yield f"  {'evidence made beforehand':46} {made:9.1f} s  ({size / MEBIBYTE:,.0f} MiB on disk; nothing if kept)"
    yield f"  {f'{signatures:,} bare signatures':46} {bare:9.1f} s  {signatures / bare:11,.0f} per second"
    yield f"  {f'{pieces:,} pieces, whole verdicts':46} {verify:9.1f} s  {pieces / verify:11,.0f} per second"
    kept = "yes" if ratio <= CEILING else "NO"
    yield f"  {'whole verdicts ÷ bare signatures':46} {ratio:9.2f}    (at most {CEILING:.2f}: {kept})"
    yield f"  {'the same in CPU time':46} {verify_cpu / bare_cpu:9.2f}"
    yield "  resident memory of both processes, MiB, after nodes:"
    yield "    " + ", ".join(f"{nodes:,}: {mebibytes:,.0f}" for nodes, mebibytes in memory)
    yield "  collateral: revocation list, two manifests, OCSP responses for every certificate of NVIDIA's below a root"


def main(arguments: list[str]) -> int:
    """Measure, or do a measuring process's part."""
    parser = argparse.ArgumentParser(prog="fleet_bench", description=__doc__)
    parser.add_argument("--nodes", type=int, default=DEFAULT_NODES, help=f"how many nodes, {DEFAULT_NODES} by default")
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.prepare is not None:
        prepare(Fleet.load(), [int(number) for number in options.prepare.split(",")])
    elif options.work is not None:
        work([int(number) for number in options.work.split(",")])
    else:
        print(run(options.nodes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
