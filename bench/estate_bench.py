"""Enrolling a hall at once: 100,000 devices from a CSV file to the store, stage by stage.

Run it as ``python -m bench estate``; it prints one JSON object. Each stage is timed by itself, in seconds of wall time;
`commit` is how long the one transaction lasts, in which other writes wait on SQLite. Beside it stands the floor: the
same rows of nodes and identities in one bare transaction, without records, checks or objects.
"""

from __future__ import annotations

import io
import json
import sqlite3
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from keybroker.node_import import Staging
from keybroker.principals import Principal, Role
from keybroker.services import convert
from keybroker.store import sites
from keybroker.store.engine import open_engine, read
from keybroker.store.migrate import migrate
from keybroker.store.schema import SiteState
from keystead.cli.node_file import FileProblem, read_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.v1 import node_service_pb2 as pb

GPUS = 8
DEVICES = 100_000
CALLER = Principal(Role.OPERATOR, "operator", None)


def csv_file(devices: int) -> bytes:
    """A file of nodes with a CPU and eight GPUs each."""
    lines = ["node,site,slot,identity,rack"]
    for node in range(devices // (GPUS + 1)):
        name = f"n{node:06d},hall-1"
        lines.append(f"{name},cpu0,amd-chip-id:{node:0128x},r{node // 8}")
        lines += [f"{name},gpu{gpu},nvidia-gpu:{node:012x}{gpu:04x}," for gpu in range(GPUS)]
    return "\n".join(lines).encode()


def refuse(problem: FileProblem) -> None:
    """Nothing is wrong with the file."""
    raise RuntimeError(f"line {problem.line}: {problem.message}")


@contextmanager
def timed(figures: dict[str, float], name: str) -> Iterator[None]:
    """Write down how long the block takes."""
    started = time.perf_counter()
    yield
    figures[name] = round(time.perf_counter() - started, 3)


def floor(folder: Path, messages: list[pb.ImportedNode]) -> float:
    """Seconds for the bare rows."""
    with sqlite3.connect(folder / "bare.db", isolation_level=None) as bare:
        bare.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "CREATE TABLE node (node_id TEXT PRIMARY KEY, site_id TEXT, rack TEXT);"
            "CREATE TABLE identity (identity TEXT PRIMARY KEY, node_id TEXT, slot TEXT, UNIQUE (node_id, slot));"
        )
        nodes = [(each.node.node_id, each.node.site_id, each.node.rack) for each in messages]
        rows = [
            (f"{device.kind}:{device.value}", each.node.node_id, device.slot)
            for each in messages
            for device in each.node.devices
        ]
        started = time.perf_counter()
        bare.execute("BEGIN IMMEDIATE")
        bare.executemany("INSERT INTO node VALUES (?, ?, ?)", nodes)
        bare.executemany("INSERT INTO identity VALUES (?, ?, ?)", rows)
        bare.execute("COMMIT")
        return time.perf_counter() - started


def measure(devices: int) -> dict[str, float]:
    """Seconds of each stage."""
    data = csv_file(devices)
    figures: dict[str, float] = {"devices": devices, "file_bytes": len(data)}
    now = int(time.time())
    with tempfile.TemporaryDirectory(prefix="keystead-bench-") as name, Staging() as staging:
        folder = Path(name)
        engine = open_engine(f"sqlite:///{folder / 'store.db'}")
        migrate(engine)
        with engine.begin() as connection:
            sites.insert(
                connection,
                sites.SiteRow(
                    site_id="hall-1",
                    jurisdiction="DE",
                    facility="Hall 1",
                    operator="ACME",
                    state=SiteState.ACTIVE,
                    valid_until=now + 86_400,
                    created_at=now,
                ),
            )
        with timed(figures, "read_and_check_the_file"):
            messages = list(read_nodes(io.BytesIO(data), form="csv", problem=refuse))
        with timed(figures, "stage"):
            for message in messages:
                staging.add(message.line, convert.node_row(message.node, "node", now=now))
        with timed(figures, "check_against_the_estate"), read(engine) as connection:
            outcome = staging.check(connection)
        if outcome.problem_count:
            raise RuntimeError(f"the import of this measurement is refused: {outcome.problems[0]}")
        with timed(figures, "commit"), engine.begin() as connection:
            staging.enrol(connection, caller=CALLER, now=now)
        engine.dispose()
        figures["nodes"] = outcome.nodes
        figures["bare_rows"] = round(floor(folder, messages), 3)
    figures["commit_per_bare_rows"] = round(figures["commit"] / figures["bare_rows"], 2)
    return figures


def main(arguments: list[str]) -> int:
    """Print the measurement."""
    print(json.dumps(measure(int(arguments[0]) if arguments else DEVICES), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
