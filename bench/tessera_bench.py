"""Durable writes of 32 concurrent callers: Keystead's log on SQLite beside Tessera's POSIX driver, in turns.

Each caller writes an entry and waits until it is durable before it writes the next. For Tessera that is when the entry
has its index; it then lies in a synchronised file. For Keystead it is the group commit, after which a receipt is given
and keys may leave (``receipt``); ``sequenced`` is the rate up to the checkpoint that covers the last of them. Our
entry is a lease's record with its projections for queries; Tessera gets as many random bytes as its payload has.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from audit.log import append
from audit.note import NoteSigner
from audit.sequencer import Sequencer
from audit.tables import METADATA
from bench.audit_bench import ORIGIN, build
from bench.peers import CACHE, FOLDER
from keybroker.store.commit import GroupCommitter
from keybroker.store.engine import open_engine

CALLERS = 32
ENTRIES = 2048
ROUNDS = 3
BATCHING = {"default": (256, 250), "quick": (32, 5)}
"""Tessera's batches: entries, and milliseconds that an entry waits at most; its default, and one made for latency."""

BUILD_SECONDS = 300
RUN_SECONDS = 300
MISSING = 2


def keystead(folder: Path) -> dict[str, float]:
    """One round of ours."""
    engine = open_engine(f"sqlite:///{folder / 'log.db'}")
    METADATA.create_all(engine)
    sequencer = Sequencer(engine, NoteSigner.generate(ORIGIN), ORIGIN)
    sequencer.initialise(0)
    committer = GroupCommitter(engine)
    took: list[float] = []

    def work(caller: int) -> None:
        for number in range(ENTRIES // CALLERS):
            started = time.perf_counter()
            record = build(caller * ENTRIES + number)
            committer.submit(partial(append, record=record), 60)
            took.append(time.perf_counter() - started)

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(CALLERS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    committed = time.perf_counter() - started
    committer.alone(partial(sequencer.run_once, 0), 60)
    sequenced = time.perf_counter() - started
    committer.close()
    engine.dispose()
    took.sort()
    return {
        "receipt_per_second": len(took) / committed,
        "sequenced_per_second": len(took) / sequenced,
        "p50": took[len(took) // 2],
        "p99": took[len(took) * 99 // 100],
    }


def tessera(program: Path, folder: Path, batch: int, wait: int) -> dict[str, float]:
    """One round of the peer's."""
    arguments = [folder / "log", CALLERS, ENTRIES, batch, wait, len(build(0).payload())]
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=RUN_SECONDS, check=True
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def build_peer() -> Path:
    """Build the peer's program with the versions that its go.sum pins.

    Raises:
        OSError: there is no Go.
        subprocess.CalledProcessError: the modules cannot be had.
    """
    go = shutil.which("go") or "/usr/local/go/bin/go"
    CACHE.mkdir(parents=True, exist_ok=True)
    program = CACHE / "tessera"
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": ""}
    subprocess.run(
        [go, "build", "-mod=readonly", "-o", program, "."],
        cwd=FOLDER / "tessera",
        env=environment,
        capture_output=True,
        timeout=BUILD_SECONDS,
        check=True,
    )
    return program


def main() -> int:
    """Measure and print one JSON object."""
    try:
        program = build_peer()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"bench: Tessera cannot be built here: {error}", file=sys.stderr)
        return MISSING
    rounds: dict[str, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="keystead-bench-") as name:
            rounds.setdefault("keystead", []).append(keystead(Path(name)))
        for label, (batch, wait) in BATCHING.items():
            with tempfile.TemporaryDirectory(prefix="keystead-bench-") as name:
                rounds.setdefault(f"tessera_{label}", []).append(tessera(program, Path(name), batch, wait))
    figures: dict[str, Any] = {
        who: {key: round(statistics.median(item[key] for item in found), 4) for key in found[0] if key != "entries"}
        for who, found in rounds.items()
    }
    for label in BATCHING:
        pairs = zip(rounds["keystead"], rounds[f"tessera_{label}"], strict=True)
        ratios = [ours["sequenced_per_second"] / theirs["per_second"] for ours, theirs in pairs]
        figures[f"sequenced_of_tessera_{label}"] = round(statistics.median(ratios), 2)
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
