"""Appends and sequences until it is killed; prints the hash of each entry whose commit returned.

A program, not a test: ``append_until_killed.py DATABASE SKEY``, started by ``test_sequencer.py``.
"""

from __future__ import annotations

import sys

from sqlalchemy import create_engine, event

from audit.log import append
from audit.note import NoteSigner
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer

engine = create_engine(f"sqlite:///{sys.argv[1]}")


@event.listens_for(engine, "connect")
def _connect(connection, _record):
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")


@event.listens_for(engine, "begin")
def _begin(connection):
    connection.exec_driver_sql("BEGIN IMMEDIATE")


signer = NoteSigner.parse(sys.argv[2])
sequencer = Sequencer(engine, signer, signer.verifier.name, batch=5)
number = 0
while True:
    record = Record.build(
        kind=Kind.LEASE_GRANTED,
        time=number,
        actor=Actor(role="node", name="node-1"),
        assets=["acme/llm@1"],
        result=Result.ALLOWED,
    )
    with engine.begin() as connection:
        entry = append(connection, record)
    print(entry.entry_hash.hex(), flush=True)
    number += 1
    if number % 11 == 0:
        sequencer.run_once(number)
