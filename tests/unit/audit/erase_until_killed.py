"""Carries an erasure out up to a step, says so within the transaction that follows, and waits to be killed.

A program, not a test: ``erase_until_killed.py DATABASE NUMBER STEP``, started by ``test_erasure.py``.
"""

from __future__ import annotations

import os
import sys
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import create_engine, event

from audit import erasure
from audit.keyring import Keyring, bind


class Custody:
    """The key-encryption key of the tests' `MemoryCustody`."""

    cipher = AESGCM(bytes(range(32)))

    def wrap(self, key, context):
        nonce = os.urandom(12)
        return nonce + self.cipher.encrypt(nonce, key, context)

    def unwrap(self, wrapped, context):
        return self.cipher.decrypt(wrapped[:12], wrapped[12:], context)


url, number, step = sys.argv[1], int(sys.argv[2]), sys.argv[3]
bare = create_engine(url)
if bare.dialect.name == "sqlite":

    @event.listens_for(bare, "connect")
    def _connect(connection, _record):
        connection.isolation_level = None

    @event.listens_for(bare, "begin")
    def _begin(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def say() -> None:
    print(step, flush=True)
    time.sleep(60)


engine = bind(bare, Keyring(Custody(), origin="log.example/keystead"))
with engine.begin() as connection:
    erasure.record(connection, number, erasure.measure(connection, number), now=1)
    if step == "begun":
        say()
with engine.begin() as connection:
    erasure.clear(connection, number, limit=50, now=1)
    if step == "recorded":
        say()
with engine.begin() as connection:
    erasure.clear(connection, number, limit=50, now=1)
    say()
