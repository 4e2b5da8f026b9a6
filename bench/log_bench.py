"""A whole log, large: concurrent callers, lag, proofs, questions, and the full check with its memory at two sizes.

Run it as ``python -m bench log``; it prints one JSON object for each database. The log has a million records, or as
many as `KEYSTEAD_BENCH_RECORDS` says (``make bench RECORDS=10000000``): a million takes some minutes and 3 GB for each
database, ten million some 40 minutes and 30 GB. What runs by itself, in turns, on one machine:

- ``callers``: 32 callers that each wait until their entry is durable, through the group commit; and the same rows put
  in bare through the same group commit, in both ways of `bench.audit_bench`. Ratios are of rates in the same round.
- ``lag``: from an entry's commit until a signed checkpoint covers it, and until that checkpoint is published.
- ``proofs``: proof bundles made from the database, and verified from their bytes, for each CPU second.
- ``questions``: the slowest of `bench.questions`, milliseconds; and how long it takes to learn that nothing fits where
  every condition by itself fits much.
- ``fsck``: records for each second of wall time and CPU time, and the process's peak memory in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, create_engine, delete

from audit.database import snapshot
from audit.keyring import Keyring, bind
from audit.log import append
from audit.note import NoteSigner, NoteVerifier
from audit.proof import ProofBundle, verify_bundle
from audit.proof import build as build_bundle
from audit.publish import publish
from audit.sequencer import Sequencer
from audit.stores import FileStore
from audit.tables import AUDIT_ENTRY, AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE
from audit.verify import verify_log
from bench.audit_bench import BareRows, MemoryCustody, Put, build, insert_bare, insert_bare_bulk
from bench.postgres import database
from bench.synthetic_log import ORIGIN, fill
from keybroker.store.commit import GroupCommitter
from keybroker.store.engine import open_engine

RECORDS = "KEYSTEAD_BENCH_RECORDS"
DEFAULT_RECORDS = 1_000_000
CALLERS = 32
EACH = 32
ROUNDS = 5
LAGS = 20
PROOFS = 300
SLOWEST = 12


def callers(engine: Engine, submit: Callable[[GroupCommitter, int], object]) -> tuple[float, list[float]]:
    """Entries for each second, and how long each took, when `CALLERS` threads commit `EACH` of them."""
    committer = GroupCommitter(engine)
    took: list[float] = []

    def work(caller: int) -> None:
        for number in range(EACH):
            started = time.perf_counter()
            submit(committer, caller * EACH + number)
            took.append(time.perf_counter() - started)

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(CALLERS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - started
    committer.close()
    return len(took) / spent, sorted(took)


def measure_callers(engine: Engine) -> dict[str, Any]:
    """The log beside bare rows, round by round in one database."""
    ready = [BareRows.make(number) for number in range(CALLERS * EACH)]

    def log(committer: GroupCommitter, number: int) -> None:
        record = build(number)

        def unit(connection: Connection) -> None:
            append(connection, record)

        committer.submit(unit, 60)

    yardsticks = {"bare": insert_bare, "bare_bulk": insert_bare_bulk}
    ratios: dict[str, list[float]] = {name: [] for name in yardsticks}
    rates: list[float] = []
    took: dict[str, list[float]] = {name: [] for name in ("log", *yardsticks)}
    for _ in range(ROUNDS):
        ours, times = callers(engine, log)
        took["log"] += times
        rates.append(ours)
        for name, put in yardsticks.items():

            def rows(committer: GroupCommitter, number: int, put: Put = put) -> None:
                committer.submit(lambda connection: put(connection, [ready[number]]), 60)

            theirs, times = callers(engine, rows)
            took[name] += times
            ratios[name].append(ours / theirs)
            with engine.begin() as connection:  # bare rows are no entries
                for table in (AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE):
                    connection.execute(delete(table).where(table.c.entry_id >= BareRows.FIRST))
                connection.execute(delete(AUDIT_ENTRY).where(AUDIT_ENTRY.c.id >= BareRows.FIRST))
    figures: dict[str, Any] = {"per_second": round(statistics.median(rates))}
    figures |= {f"of_{name}": round(statistics.median(values), 2) for name, values in ratios.items()}
    for name, values in took.items():
        values.sort()
        figures[f"{name}_p50_ms"] = round(values[len(values) // 2] * 1e3, 1)
        figures[f"{name}_p99_ms"] = round(values[len(values) * 99 // 100] * 1e3, 1)
    return figures


def measure_lag(engine: Engine, signer: NoteSigner, folder: Path) -> dict[str, float]:
    """Milliseconds from a commit to a signed and to a published checkpoint, when nobody waits for a turn."""
    sequencer, store = Sequencer(engine, signer, ORIGIN), FileStore(folder)
    now = 2_000_000_000
    sequencer.run_once(now)
    publish(engine.connect, store, signer.verifier)
    signed: list[float] = []
    published: list[float] = []
    for number in range(LAGS):
        with engine.begin() as connection:
            append(connection, build(1_000_000 + number))
        started = time.perf_counter()
        sequencer.run_once(now)
        signed.append(time.perf_counter() - started)
        publish(engine.connect, store, signer.verifier)
        published.append(time.perf_counter() - started)
    return {
        "signed_p50_ms": round(statistics.median(signed) * 1e3, 1),
        "published_p50_ms": round(statistics.median(published) * 1e3, 1),
        "published_max_ms": round(max(published) * 1e3, 1),
    }


def measure_proofs(engine: Engine, verifier: NoteVerifier, size: int) -> dict[str, int]:
    """Bundles for each CPU second."""
    draw = random.Random(8)
    with engine.connect() as connection:
        started = time.process_time()
        bundles = [build_bundle(connection, draw.randrange(size)).to_bytes() for _ in range(PROOFS)]
        made = time.process_time() - started
    started = time.process_time()
    for data in bundles:
        if not verify_bundle(ProofBundle.parse(data), verifier).ok:
            raise RuntimeError("a proof does not verify")
    return {
        "made_per_cpu_second": round(PROOFS / made),
        "verified_per_cpu_second": round(PROOFS / (time.process_time() - started)),
        "bytes": len(bundles[0]),
    }


def peak_bytes() -> int:
    """The most memory that this program has held: unlike `ru_maxrss` it knows nothing of the process it came from."""
    status = Path("/proc/self/status").read_text("ascii", "replace")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024


def fsck(url: str, key: str, secret: bytes) -> dict[str, Any]:
    """Check a log in this process, which has done nothing else; `secret` opens what its payloads are sealed under."""
    wall, cpu = time.perf_counter(), time.process_time()
    with snapshot(url, Keyring(MemoryCustody(secret), origin=ORIGIN)) as connection:
        result = verify_log(connection, NoteVerifier.parse(key))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if not result.ok or result.sealed:
        raise RuntimeError(f"the log is not whole, or not all of it was read: {result.problems[:1]}")
    return {
        "records": result.entries,
        "per_second": round(result.entries / wall),
        "per_cpu_second": round(result.entries / cpu),
        "peak_mb": round(peak_bytes() / 1e6, 1),
    }


def fsck_apart(url: str, verifier: NoteVerifier, secret: bytes) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "bench.log_bench", "--fsck", url, "--key", str(verifier)]
    done = subprocess.run(command, input=secret.hex(), capture_output=True, text=True, check=True)
    answered: dict[str, Any] = json.loads(done.stdout)
    return answered


def measure(small: str, large: str, records: int, folder: Path) -> dict[str, Any]:
    """Everything on two empty databases of one kind."""
    # Here, because it brings the broker along, and the full check's memory is measured in a process without one.
    from bench.questions import answer, in_vain

    figures: dict[str, Any] = {"records": records}
    checks = []
    secret = AESGCM.generate_key(256)
    ring = Keyring(MemoryCustody(secret), origin=ORIGIN)
    for url, size in ((small, records // 10), (large, records)):
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        started = time.perf_counter()
        # A ring remembers which keys are live, and each database has its own.
        signer = fill(engine, size, Keyring(MemoryCustody(secret), origin=ORIGIN))
        figures["filled_per_second"] = round(size / (time.perf_counter() - started))
        engine.dispose()
        checks.append(fsck_apart(url, signer.verifier, secret))
    figures["fsck"] = checks
    engine = bind(open_engine(large), ring)
    found = answer(engine, records)
    figures["questions"] = {
        "asked": len(found),
        "over_a_second": sum(each.p99 > 1 for each in found),
        "slowest_ms": {each.question: [round(each.p50 * 1e3, 1), round(each.p99 * 1e3, 1)] for each in found[:SLOWEST]},
    }
    figures["questions_in_vain"] = in_vain(engine)
    figures["proofs"] = measure_proofs(engine, signer.verifier, records)
    figures["callers"] = measure_callers(engine)
    figures["lag"] = measure_lag(engine, signer, folder)
    engine.dispose()
    return figures


def main(arguments: list[str]) -> int:
    """Measure SQLite, and PostgreSQL where there is one."""
    parser = argparse.ArgumentParser(prog="python -m bench.log_bench", description=__doc__)
    parser.add_argument("--records", type=int, default=int(os.environ.get(RECORDS) or DEFAULT_RECORDS))
    parser.add_argument("--fsck", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--key", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.fsck:
        print(json.dumps(fsck(options.fsck, options.key, bytes.fromhex(sys.stdin.read()))))
        return 0
    with tempfile.TemporaryDirectory(prefix="keystead-bench-") as name:
        folder = Path(name)
        small, large = (f"sqlite:///{folder / size}.db" for size in ("small", "large"))
        print(json.dumps({"sqlite": measure(small, large, options.records, folder / "public")}, indent=2), flush=True)
    with (
        database() as small_url,
        database() as large_url,
        tempfile.TemporaryDirectory(prefix="keystead-bench-") as name,
    ):
        if small_url is not None and large_url is not None:
            figures = measure(small_url, large_url, options.records, Path(name) / "public")
            print(json.dumps({"postgresql": figures}, indent=2), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
