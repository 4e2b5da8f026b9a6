"""One release decision: in-process, against `opa eval` for each call, and against `opa run --server` on a Unix socket.

And against the yardstick of attestation: the same decision with 200 KiB of data, beside one ECDSA P-384 verification
with the product's backend, of which a node's evidence takes several.

Run it as ``python bench/policy_bench.py``; it prints one JSON object. Times are medians in microseconds, taken in turns
so that all three see the same machine; ratios say how much longer opa took. Every answer is compared with the engine's.
"""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.ecdsa import EcdsaKey
from policy.decision import Decision
from policy.documents import encode_document
from policy.engine import PolicyEngine
from policy.errors import OpaMissingError, OpaVersionError
from policy.opa import OPA_VERSION, Opa
from policy.sources import PACKS, default_bundle, stage

ROUNDS = 40
DATA_BYTES = 200 << 10
SIGNED_SIZE = 672
"""Bytes under the signature of an SNP report (AMD 56860, table 23)."""

CALLS = 25
START_TIMEOUT = 20.0

INPUT: dict[str, Any] = {
    "stage": "acquire",
    "now": 2_000,
    "grant": {
        "grant_id": "grant-1",
        "tenant": "acme",
        "job_uid": "job-1",
        "scheduler": "slurm",
        "assets": ["acme/llm@3", "acme/corpus@1"],
        "purposes": ["train"],
        "nodes": [f"node-{number}" for number in range(64)],
        "sites": ["munich"],
        "node_ceiling": 64,
        "not_before": 1_000,
        "not_after": 90_000,
        "project": "llm-de",
        "user": "alice",
        "stage": "training",
        "image": "c0de" * 16,
        "network": "fabric",
    },
    "job": {"state": "open", "live_nodes": [f"node-{number}" for number in range(32)]},
    "asset": {
        "asset": "acme/llm",
        "version": 3,
        "tenant": "acme",
        "kind": "model",
        "state": "active",
        "classification": 2,
        "purposes": ["train", "evaluate"],
        "residency": {"allowed": [["EU"], ["DE", "FR", "NL"]], "forbidden": ["FR"]},
        "exposure": {"allowed": [["EEA", "CH"]], "forbidden": ["US"]},
        "sites": [f"site-{number}" for number in range(16)] + ["munich"],
        "retain_until": 85_000,
        "assurance": "cpu-and-devices",
        "node_ceiling": 128,
        "copy_ceiling": 256,
        "projects": ["llm-de", "llm-eu"],
        "users": [f"user-{number}" for number in range(16)] + ["alice"],
        "stages": ["training", "validation"],
        "images": ["c0de" * 16],
        "networks": ["none", "fabric"],
        "obligations": {"no_logits": {}, "no_egress": {}, "output_ceiling": {"tokens": 4_000_000}},
    },
    "holders": {"nodes": 33, "leases": 33},
    "budgets": [
        {"name": "key_seconds", "scope": "asset", "limit": 9_000_000, "spent": 1_000_000},
        {"name": "tokens_served", "scope": "asset", "limit": 9_000_000, "spent": 1_000_000},
        {"name": "opens", "scope": "job", "limit": 64, "spent": 33},
    ],
    "reporting": None,
    "node": {
        "node_id": "node-7",
        "state": "active",
        "custody": "installed",
        "claimed_node_id": "node-7",
        "device_set_matches": True,
    },
    "site": {
        "site_id": "munich",
        "jurisdiction": "DE-BY",
        "exposures": ["DE", "NO"],
        "certifications": ["iso-27001"],
        "network_zone": "zone-1",
        "state": "active",
        "valid_from": 1_000,
        "valid_until": 80_000,
    },
    "attestation": {
        "allow": True,
        "status": 2,
        "simulated": False,
        "policy_digest": "00" * 32,
        "codes": [],
        "age": 0,
        "assurance": "cpu-and-devices",
        "host_data": "c0de" * 16,
    },
    "candidate_sites": None,
}


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, kept open between calls."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


@contextmanager
def opa_server(opa: Opa, source: Path, folder: Path) -> Iterator[Callable[[], Any]]:
    """An `opa run --server` on a Unix socket; yields a call that asks it for one decision."""
    path = folder / "opa.sock"
    command = [str(opa.path), "run", "--server", "--addr", f"unix://{path}", "--log-level", "error"]
    server = subprocess.Popen([*command, "--skip-version-check", "--bundle", str(source)])
    try:
        limit = time.monotonic() + START_TIMEOUT
        while not path.exists():
            if time.monotonic() > limit or server.poll() is not None:
                raise RuntimeError("opa run --server did not start")
            time.sleep(0.05)
        connection = _UnixConnection(path)

        def ask() -> Any:
            body = json.dumps({"input": INPUT})
            connection.request("POST", "/v1/data/release/decision", body, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())["result"]

        yield ask
        connection.close()
    finally:
        server.terminate()
        server.wait(timeout=10)


def median_us(call: Callable[[], object], calls: int) -> float:
    """Microseconds for one of `calls` calls in a row."""
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls * 1e6


def verification() -> Callable[[], bool]:
    """One P-384 verification with the product's backend."""
    key = ec.generate_private_key(ec.SECP384R1())
    message = bytes(SIGNED_SIZE)
    signature, product = key.sign(message, ec.ECDSA(hashes.SHA384())), EcdsaKey(key.public_key())
    return lambda: product.verify_der(signature, message)


def large_data() -> dict[str, Any]:
    """What an operator of a large estate may lay over the pack's data, until the whole is 200 KiB."""
    names = {f"tenant-{number}": {"ceiling": number, "label": "x" * 40} for number in range(2_400)}
    return {"estate": names}


def measure(rounds: int = ROUNDS) -> dict[str, float | int | str]:
    """Medians over `rounds` rounds, and ratios taken round by round."""
    bundle = default_bundle("release")
    engine, laden, verify = PolicyEngine(bundle), PolicyEngine(bundle, data=large_data()), verification()
    data_bytes = len(encode_document(laden.data, what="policy data"))
    if not verify() or data_bytes < DATA_BYTES or not laden.evaluate(INPUT).allow:
        raise RuntimeError("nothing to measure with")
    document = json.dumps(INPUT).encode()
    opa = Opa.find()
    with tempfile.TemporaryDirectory(prefix="keystead-bench-") as name:
        folder = Path(name)
        source = folder / "source"
        source.mkdir()
        stage(PACKS / "release", into=source)
        expected = engine.evaluate(INPUT)
        if not expected.allow:
            raise RuntimeError(f"the input of this measurement is denied: {expected.deny}")
        with opa_server(opa, source, folder) as ask:
            by_eval = opa.evaluate(source, query="data.release.decision", document=document)
            if not expected == Decision.from_document(ask()) == Decision.from_document(by_eval):
                raise RuntimeError("opa and the engine do not agree")
            ours, evals, served, laden_us, verify_us = [], [], [], [], []
            for _ in range(rounds):
                laden_us.append(median_us(lambda: laden.evaluate(INPUT), CALLS))
                verify_us.append(median_us(verify, CALLS))
                ours.append(median_us(lambda: engine.evaluate(INPUT), CALLS))
                served.append(median_us(ask, CALLS))
                evals.append(
                    median_us(lambda: opa.evaluate(source, query="data.release.decision", document=document), 1)
                )
    return {
        "opa_version": OPA_VERSION,
        "input_bytes": len(document),
        "rules_that_deny": bundle.files["release/release.rego"].count(b"#   code: "),
        "data_bytes": data_bytes,
        "engine_with_data_us": round(statistics.median(laden_us), 1),
        "p384_verify_us": round(statistics.median(verify_us), 1),
        "engine_with_data_per_p384_verify": round(
            statistics.median(a / b for a, b in zip(laden_us, verify_us, strict=True)), 2
        ),
        "engine_us": round(statistics.median(ours), 1),
        "opa_server_us": round(statistics.median(served), 1),
        "opa_eval_us": round(statistics.median(evals), 1),
        "opa_server_per_engine": round(statistics.median(b / a for a, b in zip(ours, served, strict=True)), 2),
        "opa_eval_per_engine": round(statistics.median(b / a for a, b in zip(ours, evals, strict=True)), 1),
    }


def main() -> int:
    """Print the measurement, or say why there is none."""
    try:
        print(json.dumps(measure(), indent=2))
    except (OpaMissingError, OpaVersionError) as error:
        print(f"policy bench SKIPPED: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
