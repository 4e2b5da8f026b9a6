"""A log from before it had keys is sealed while it is in use, and says the same afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, select, update

from audit.errors import KeysNeededError
from audit.keyring import Keyring, bind
from audit.log import append, erase
from audit.note import NoteSigner
from audit.query import get
from audit.records import Actor, Record
from audit.sealing import any_clear, seal_clear
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ENTRY, AUDIT_KEY
from audit.verify import verify_log

NOW = 1_800_000_000
E = AUDIT_ENTRY.c
MakeLog = Callable[..., Sequencer]
NewRing = Callable[[], Keyring]
Build = Callable[..., Record]


def test_a_clear_log_is_sealed_batch_by_batch(
    any_engine: Engine, make_log: MakeLog, record: Build, signer: NoteSigner, new_ring: NewRing
) -> None:
    sequencer = make_log(any_engine, [7])
    with any_engine.begin() as connection:
        erase(connection, indexes=[3], actor=Actor(role="operator", name="dpo"), time=NOW)
        append(connection, record(50, detail={"user": "ada"}))
    bound = bind(any_engine, new_ring())
    done = []
    while any_is_clear(bound):
        # Another process has a part in it; what is half done when one ends is done by the next.
        for engine in (bound, bind(any_engine, new_ring())):
            with engine.begin() as connection:
                done.append(seal_clear(connection, limit=2, now=NOW))
        with bound.begin() as connection:
            assert get(connection, 0).record() == record(0)
            assert verify_log(connection, signer.verifier).ok
    assert sum(done) == 8  # six that are left, the record of the erasure, and the one that waits
    assert sequencer.run_once(NOW) == 2
    with bound.begin() as connection:
        assert seal_clear(connection, limit=2, now=NOW) == 0
        assert [get(connection, index).record() for index in (0, 6, 8)] == [
            record(0),
            record(6),
            record(50, detail={"user": "ada"}),
        ]
        result = verify_log(connection, signer.verifier)
        assert (result.problems, list(result.erased), result.sealed) == ((), [3], 0)
        scopes = connection.execute(select(AUDIT_KEY.c.tenant, AUDIT_KEY.c.subject).order_by(AUDIT_KEY.c.tenant))
        assert {tuple(row) for row in scopes} == {("", ""), ("acme", ""), ("acme", "ada")}
        assert connection.execute(select(E.id).where(E.salt.is_not(None))).all() == []


def any_is_clear(engine: Engine) -> bool:
    with engine.begin() as connection:
        return any_clear(connection)


def test_what_was_altered_before_is_found_altered_afterwards(
    engine: Engine, make_log: MakeLog, signer: NoteSigner, new_ring: NewRing
) -> None:
    make_log(engine, [4])
    with engine.begin() as connection:
        connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == 1).values(payload=b"{}"))
        connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == 2).values(salt=bytes(32)))
    with bind(engine, new_ring()).begin() as connection:
        assert seal_clear(connection, limit=10, now=NOW) == 4
        result = verify_log(connection, signer.verifier)
    assert [(problem.code.value, problem.index) for problem in result.problems] == [
        ("PAYLOAD_ALTERED", 1),
        ("PAYLOAD_ALTERED", 2),
    ]


def test_without_keys_nothing_is_sealed(engine: Engine, make_log: MakeLog) -> None:
    make_log(engine, [1])
    with engine.begin() as connection, pytest.raises(KeysNeededError):
        seal_clear(connection, limit=10, now=NOW)
