"""What releasing a key costs beyond the cryptography that it cannot do without.

The yardstick is bare cryptography in the same run: one P-384 verification for each device with the product's backend
(certificate chains are cached), Ed25519 for the grant, the Attestation Result and the receipt, two HMACs for the
nonces, AES-256-GCM for the stored data key and one hybrid HPKE seal. Evidence and requests are made beforehand. Three
things are measured on one node with one GPU and one with eight:

- the domain call, one thread, in CPU seconds of the process, the committing thread included;
- the same over loopback mutual TLS from another process, by the wall clock, with 1, 8 and 32 clients;
- how much of the domain call's wall-clock time is spent in its commit, which comes before the key is touched.

SQLite; PostgreSQL too where its programs are installed, or `bench.postgres.SERVER` names a server.
"""

from __future__ import annotations

import gc
import hashlib
import hmac
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from prometheus_client import REGISTRY

from attestation.findings import CheckLog
from attestation.nvgpu import verify as nvgpu
from attestation.nvgpu.abi import GpuEvidence
from attestation.snp import verify as snp
from attestation.snp.abi import SIGNED_SIZE
from attestation.types import Evidence
from bench.attestation_bench import bare
from bench.broker_load import pack
from bench.broker_plant import GPUS, Plant, Request, plant
from bench.harness import Row, Timing, table
from bench.postgres import database
from keybroker.services.server import Server, configure_logging
from keystead.binding import hpke_seal

ROUNDS = 11
CALLS = 6
"""Requests of one node in one round."""

CLIENTS = {1: 80, 8: 160, 32: 240}
"""How many requests that many clients send together."""

WARM_UP = 3
ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Print the tables."""
    configure_logging()
    with tempfile.TemporaryDirectory(prefix="keystead-bench-") as name:
        print(measure(Path(name) / "sqlite", "SQLite", None), flush=True)
        print(flush=True)
        with database() as url:
            if url is not None:
                print(measure(Path(name) / "postgres", "PostgreSQL", url), flush=True)
    return 0


def measure(folder: Path, title: str, database: str | None) -> str:
    """Measure one broker on one store, and return the tables."""
    with plant(folder, now=int(time.time()), database=database) as made:
        parts = [domain(made, node_id) for node_id in GPUS]
        bare_seconds = {node_id: seconds for node_id, (_, seconds) in zip(GPUS, parts, strict=True)}
        wire = over_the_wire(made, bare_seconds)
    return "\n\n".join([f"Acquiring a lease with one key, {title}", *(text for text, _ in parts), wire])


def domain(made: Plant, node_id: str) -> tuple[str, float]:
    """The table of the domain call, and the median seconds of its bare cryptography."""
    for request in [made.request(node_id) for _ in range(WARM_UP)]:
        made.acquire(request)
    ready = [[made.request(node_id) for _ in range(CALLS)] for _ in range(ROUNDS)]
    verifications, rest = cryptography(made, ready[0][0])

    def unavoidable() -> None:
        verifications()
        rest()

    names = (
        "P-384 verifications",
        "grant, result, receipt, nonces, unwrap, seal",
        "unavoidable cryptography",
        "acquire",
    )
    seconds: dict[str, list[float]] = {name: [] for name in names}
    walls: list[float] = []
    commits: list[float] = []
    gc.disable()
    try:
        for requests in ready:
            for name, call in zip(names, (verifications, rest, unavoidable), strict=False):
                seconds[name].append(cpu_seconds([call] * CALLS))
            before, started = commit_seconds(), time.perf_counter()
            seconds["acquire"].append(cpu_seconds([partial(made.acquire, request) for request in requests]))
            walls.append((time.perf_counter() - started) / CALLS)
            commits.append((commit_seconds() - before) / CALLS)
            gc.collect()
    finally:
        gc.enable()
    timings = {name: Timing(name, tuple(values)) for name, values in seconds.items()}
    base = timings["unavoidable cryptography"]
    rows = [Row(timings[name], base if name == "acquire" else None) for name in names]
    share = statistics.median(commit / wall for commit, wall in zip(commits, walls, strict=True))
    text = table(f"1 SNP + {GPUS[node_id]} GPU, domain call, one thread", rows) + (
        f"\n  by the wall clock {statistics.median(walls) * 1e6:,.0f} µs, of which the commit before the release"
        f" {statistics.median(commits) * 1e6:,.0f} µs ({share:.0%})"
    )
    return text, base.median


def cpu_seconds(calls: list[Callable[[], object]]) -> float:
    """CPU seconds of this process for one of `calls`, each called once."""
    started = time.process_time()
    for call in calls:
        call()
    return (time.process_time() - started) / len(calls)


def commit_seconds() -> float:
    """Seconds spent in commits so far, by the broker's own metric."""
    return REGISTRY.get_sample_value("keystead_commit_seconds_sum") or 0.0


def cryptography(made: Plant, request: Request) -> tuple[Callable[[], None], Callable[[], None]]:
    """What one request costs in bare cryptography: the devices' signatures, and everything else.

    Each operation is of the kind and over as many bytes as the broker's; keys that the broker keeps are kept.
    """
    anchors, now = made.broker.trust.anchors, int(time.time())
    if anchors.snp is None:
        raise RuntimeError("simulated SNP: no anchors")
    cpu = snp.authenticate(request.evidence.cpu, anchors=anchors.snp, now=now, log=CheckLog())
    if cpu.endorsement.vek is None:
        raise RuntimeError("simulated SNP: no VCEK")
    signed = request.evidence.cpu.data[:SIGNED_SIZE]
    devices = [bare(cpu.endorsement.vek.key, cpu.report.r, cpu.report.s, signed)]
    devices += [bare_gpu(made, device, now) for device in request.evidence.devices]

    granted = made.acquire(request)
    signer, grant = Ed25519PrivateKey.generate(), request.signed.grant
    verifier, grant_signature = signer.public_key(), signer.sign(grant)
    result = granted.attestation_result.rpartition(".")[0].encode("ascii")
    receipt = bytes(len(granted.receipt.entry_hash) + 96)
    cipher, nonce, data_key, context = AESGCM(bytes(32)), bytes(12), bytes(32), bytes(128)
    wrapped, hpke_key = cipher.encrypt(nonce, data_key, context), granted.lease.hpke_key

    def verifications() -> None:
        for verify in devices:
            verify()

    def rest() -> None:
        verifier.verify(grant_signature, grant)
        signer.sign(result)
        signer.sign(receipt)
        for _ in range(2):
            hmac.new(data_key, context, hashlib.sha256).digest()
        hpke_seal(cipher.decrypt(nonce, wrapped, context), public_key=hpke_key, info=context)

    return verifications, rest


def bare_gpu(made: Plant, evidence: Evidence, now: int) -> Callable[[], None]:
    """One GPU's signature."""
    log, anchors = CheckLog(), made.broker.trust.anchors.nvgpu
    if anchors is None:
        raise RuntimeError("simulated GPU: no anchors")
    key = nvgpu.authenticate(evidence, anchors=anchors, now=now, log=log).chain.chain.leaf_key
    if key is None:
        raise RuntimeError("simulated GPU: no leaf key")
    measurements = GpuEvidence.parse(evidence.data).measurements
    return bare(key, measurements.r, measurements.s, measurements.signed)


def over_the_wire(made: Plant, bare_seconds: dict[str, float]) -> str:
    """The table of concurrent clients. `made`'s broker is closed with it."""
    lines = [
        "Over loopback mutual TLS, one server process",
        f"  {'':22} {'acquires/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>8} {'per commit':>11} {'of bare':>8}",
    ]
    server = Server(made.broker)
    port = server.start("127.0.0.1:0")
    try:
        for node_id, gpus in GPUS.items():
            for clients, count in CLIENTS.items():
                ready = [made.request(node_id).message.SerializeToString() for _ in range(count)]
                file = made.installation.directory / "requests.bin"
                file.write_bytes(pack(ready))
                units, spent = commit_units(), time.process_time()
                seconds, latencies = drive(made, port, file, clients)
                spent, done = time.process_time() - spent, commit_units()
                rate, last = count / seconds, statistics.quantiles(latencies, n=100)[98]
                lines.append(
                    f"  {f'{gpus} GPU, {clients} clients':22} {rate:10,.0f}"
                    f" {statistics.median(latencies) * 1e3:8.1f} {last * 1e3:8.1f}"
                    f" {spent / count * 1e3:8.2f} {(done[0] - units[0]) / (done[1] - units[1]):11.1f}"
                    f" {rate * bare_seconds[node_id]:8.2f}"
                )
    finally:
        server.stop()
    return "\n".join(lines)


def commit_units() -> tuple[float, float]:
    """Units of work committed so far, and in how many commits, by the broker's own metric."""
    names = ("keystead_commit_units_sum", "keystead_commit_units_count")
    units, commits = (REGISTRY.get_sample_value(name) or 0.0 for name in names)
    return units, commits


def drive(made: Plant, port: int, requests: Path, clients: int) -> tuple[float, list[float]]:
    """Have another process send the requests; seconds until the last answer, and each request's own."""
    folder = made.installation.directory
    order = {
        "address": f"localhost:{port}",
        "ca": str(folder / "tls" / "ca.pem"),
        "certificate": str(folder / "clients" / "node.pem"),
        "key": str(folder / "clients" / "node.key"),
        "requests": str(requests),
        "clients": clients,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "bench.broker_load"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as load:
        if load.stdin is None or load.stdout is None:
            raise RuntimeError("the clients' process has no pipes")
        print(json.dumps(order), file=load.stdin, flush=True)
        if load.stdout.readline().strip() != "ready":
            raise RuntimeError("the clients did not connect; their error is above")
        print("go", file=load.stdin, flush=True)
        answer = json.loads(load.stdout.readline())
    return answer["seconds"], answer["latencies"]


if __name__ == "__main__":
    sys.exit(main())
