"""`kill -9` of the broker at random instants under a load of acquires.

Afterwards: every key that a client got has its record, the log verifies, leases and budgets agree.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factory import Remote, furnish, install
from sqlalchemy import select

import attester
from attestation.simulator.node import SimulatedVendors
from audit.keyring import bind
from audit.note import NoteSigner
from audit.query import find_payload
from audit.records import Record
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ENTRY
from audit.verify import verify_log
from keybroker.broker import LOG_KEY, load_log_keyring, log_origin
from keybroker.config import BrokerConfig
from keybroker.keys.signing import SigningKey
from keybroker.store.engine import open_engine
from keybroker.store.schema import LEASE, SPENT_NONCE
from keystead.binding import AssetRef

ROUNDS = 3
CLIENTS = 3
CEILING = 2


class Process:
    """The broker in a process of its own."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.directory = directory
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Start it and wait until it listens; returns its port."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "keystead.cli.main",
                    "serve",
                    str(self.directory),
                    "--json",
                    "--until-stdin-closes",
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.PIPE,  # held open: the broker ends when this test process does, whatever happens
            )
        assert self.process.stdout is not None
        with self.process.stdout as output:
            text = b""
            while not text.endswith(b"}\n"):
                line = output.readline()
                assert line, self.log.read_text()[-2_000:]
                text += line
        return int(json.loads(text)["port"])

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nothing is said."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> str | None:
    """Where the broker keeps its state."""
    return request.getfixturevalue("postgres_database") if request.param == "postgres" else None


@pytest.fixture
def broker(tmp_path: Path, vendors: SimulatedVendors, database: str | None) -> Iterator[tuple[Remote, Process]]:
    """An installation whose broker runs as a process of its own."""
    directory = tmp_path / "factory"
    installation = install(
        directory, vendors, database=database, edit=lambda text: text.replace('"127.0.0.1:8750"', '"127.0.0.1:0"')
    )
    process = Process(directory, tmp_path / "broker.log")
    remote = Remote(installation, BrokerConfig.load(directory), vendors, process.start())
    yield remote, process
    if process.process is not None and process.process.poll() is None:
        process.kill()
    remote.close()


@pytest.mark.slow
def test_kill_at_random_instants_loses_no_record_of_a_released_key(broker: tuple[Remote, Process]) -> None:
    remote, process = broker
    chance = random.Random(20_261_122)
    furnish(remote)
    ref = remote.register_asset(allowed=("EU", "US"))
    answered: list[attester.LeaseTerms] = []
    refused: list[set[str]] = []
    jobs = [remote.authorize(ref, node_ceiling=CEILING) for _ in range(CLIENTS)]

    for _ in range(ROUNDS):
        stop = threading.Event()
        threads = [
            threading.Thread(
                target=load,
                args=(remote, job, ref),
                kwargs={"stop": stop, "answered": answered, "refused": refused, "seed": seed},
            )
            for seed, job in enumerate(jobs)
        ]
        for thread in threads:
            thread.start()
        before = len(answered)
        deadline = time.monotonic() + 20
        while len(answered) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.8))
        process.kill()
        stop.set()
        for thread in threads:
            thread.join()
        remote.close()
        remote.port = process.start()
    process.kill()
    assert len(answered) >= ROUNDS
    assert all(codes == {"NODE_CEILING_REACHED"} for codes in refused)
    check(remote, answered)


def load(
    remote: Remote,
    authorized: Any,
    ref: AssetRef,
    *,
    stop: threading.Event,
    answered: list[attester.LeaseTerms],
    refused: list[set[str]],
    seed: int,
) -> None:
    """Acquire again and again, on one node after the other."""
    names = ["node-a", "node-b", "node-us"]
    turn = seed
    while not stop.is_set():
        turn += 1
        try:
            lease = remote.acquire(names[turn % len(names)], authorized, ref, nonce=None)
        except attester.AccessDeniedError as error:
            refused.append({reason.code for reason in error.reasons})
        except attester.BrokerError:
            pass  # the broker is gone: what was not answered may be lost
        else:
            assert bytes(lease._data_key(ref)[1].key) == remote.data_keys[str(ref)]
            answered.append(lease.terms)


def check(remote: Remote, answered: list[attester.LeaseTerms]) -> None:
    """Every released key has its record; leases, nonces, budgets and log agree."""
    config = remote.config
    engine = bind(open_engine(config.database_url), load_log_keyring(config))
    signer = NoteSigner(log_origin(config), SigningKey.load(config.path("keys") / LOG_KEY).private_key)
    Sequencer(engine, signer, log_origin(config)).run_once(int(time.time()))
    with engine.connect() as connection:
        result = verify_log(connection, signer.verifier)
        assert not result.problems, result.problems
        leases = {row.lease_id: row for row in connection.execute(select(LEASE))}
        spent = {(bytes(row.nonce), row.node_id): row.lease_id for row in connection.execute(select(SPENT_NONCE))}
        entries = {
            bytes(row.leaf_hash): Record.parse(find_payload(connection, bytes(row.leaf_hash)) or b"")
            for row in connection.execute(select(AUDIT_ENTRY.c.leaf_hash)).all()
        }
    engine.dispose()
    granted = {record.lease: entry for entry, record in entries.items() if record.kind.value == "lease.granted"}
    for terms in answered:
        assert terms.receipt.entry_hash in entries
        assert granted[terms.lease_id] == terms.receipt.entry_hash
    assert granted.keys() == leases.keys()
    for row in leases.values():
        assert bytes(row.entry_hash) == granted[row.lease_id]
        assert spent[bytes(row.nonce), row.node_id] == row.lease_id
    assert len(spent) == len(leases)
    live: dict[str, set[str]] = {}
    for row in leases.values():
        if row.state.value == "live":
            live.setdefault(row.grant_id, set()).add(row.node_id)
    assert all(len(nodes) <= CEILING for nodes in live.values()), Counter(map(len, live.values()))
