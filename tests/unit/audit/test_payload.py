"""Sealed payloads: nothing to be read in the database, everything altered is seen, no keys means sealed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, select, update

from audit.database import snapshot
from audit.errors import KeyringError, KeysNeededError, LogCorruptError, MalformedError
from audit.keyring import Keyring, bind
from audit.log import append_many, erase
from audit.note import NoteSigner
from audit.payload import NONCE_SIZE, TAG_SIZE, seal, unseal
from audit.proof import build, verify_bundle
from audit.query import Filter, find_payload, get, newest, query
from audit.records import Actor, Record
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ENTRY, AUDIT_KEY
from audit.verify import verify_log

NOW = 1_800_000_000
E = AUDIT_ENTRY.c
Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]
NewRing = Callable[[], Keyring]
CIPHER = AESGCM(bytes(32))
OF = {"key_id": "ab" * 16, "entry_hash": bytes(range(32))}


def test_what_is_sealed_opens_only_as_what_it_is() -> None:
    sealed = seal(CIPHER, salt=bytes(32), payload=b"{}", key_id=OF["key_id"], entry_hash=bytes(range(32)))  # type: ignore[arg-type]
    assert len(sealed) == NONCE_SIZE + 32 + 2 + TAG_SIZE
    assert unseal(CIPHER, sealed, key_id="ab" * 16, entry_hash=bytes(range(32))) == (bytes(32), b"{}")
    assert sealed != seal(CIPHER, salt=bytes(32), payload=b"{}", key_id="ab" * 16, entry_hash=bytes(range(32)))
    for cipher, data, key_id, entry_hash in (
        (AESGCM(bytes([1]) * 32), sealed, "ab" * 16, bytes(range(32))),
        (CIPHER, sealed, "ac" * 16, bytes(range(32))),
        (CIPHER, sealed, "ab" * 16, bytes(32)),
        (CIPHER, sealed + b"\0", "ab" * 16, bytes(range(32))),
        (CIPHER, b"", "ab" * 16, bytes(range(32))),
    ):
        with pytest.raises(MalformedError, match="sealed payload"):
            unseal(cipher, data, key_id=key_id, entry_hash=entry_hash)


def test_a_keyed_log_answers_and_proves_like_a_clear_one(
    keyed: Engine, make_log: MakeLog, record: Build, signer: NoteSigner
) -> None:
    make_log(keyed, [3, 2])
    with keyed.begin() as connection:
        for index in range(5):
            assert get(connection, index).record() == record(index)
        page = query(connection, Filter(asset="acme/llm", version=1))
        assert [entry.index for entry in page.entries] == [0, 2, 4]
        assert len(newest(connection, Filter(tenant="acme"), limit=2).entries) == 2
        assert find_payload(connection, get(connection, 2).entry_hash) == record(2).payload()
        assert find_payload(connection, bytes(32)) is None
        result = verify_bundle(build(connection, 3), signer.verifier)
        assert result.ok
        assert result.record == record(3)
        checked = verify_log(connection, signer.verifier)
        assert (checked.problems, checked.entries, checked.sealed, len(checked.erased)) == ((), 5, 0, 0)
        assert connection.execute(select(E.id).where(E.payload.is_not(None) | E.salt.is_not(None))).all() == []


def test_without_keys_hashes_are_checked_and_payloads_shown_as_sealed(
    keyed: Engine, any_engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build
) -> None:
    sequencer = make_log(keyed, [4])
    with keyed.begin() as connection:
        erase(connection, indexes=[1], actor=Actor(role="operator", name="dpo"), time=NOW)
        append_many(connection, [record(9)])
    url = any_engine.url.render_as_string(hide_password=False)
    with snapshot(url) as connection:
        entry, gone = get(connection, 0), get(connection, 1)
        assert (entry.payload, entry.sealed, entry.erased) == (None, True, False)
        with pytest.raises(KeysNeededError, match="entry 0"):
            entry.record()
        assert (gone.sealed, gone.erased) == (False, True)
        with pytest.raises(KeysNeededError):
            build(connection, 0)
        with pytest.raises(KeysNeededError):
            find_payload(connection, entry.entry_hash)
        result = verify_log(connection, signer.verifier)
        assert (result.problems, result.sealed, list(result.erased), result.waiting) == ((), 5, [1], 2)
    # A sequencer without keys places what it cannot read.
    assert Sequencer(any_engine, signer, signer.verifier.name).run_once(NOW) == 2
    assert sequencer.run_once(NOW) == 0


def test_a_snapshot_opens_with_the_logs_own_keys_only(
    keyed: Engine, make_log: MakeLog, new_ring: NewRing, custody: object, record: Build
) -> None:
    make_log(keyed, [2])
    url = keyed.url.render_as_string(hide_password=False)
    with snapshot(url, new_ring()) as connection:
        assert get(connection, 1).record() == record(1)
    other = Keyring(custody, origin="elsewhere/log")  # type: ignore[arg-type]
    with pytest.raises(KeyringError, match="elsewhere"), snapshot(url, other):
        pass


def swap_sealed(connection: Connection) -> None:
    rows = {row.leaf_index: row for row in connection.execute(select(AUDIT_ENTRY))}
    for index, other in ((2, 3), (3, 2)):
        values = {"sealed": rows[other].sealed, "key_id": rows[other].key_id}
        connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == index).values(**values))


def swap_wrapped(connection: Connection) -> None:
    one, two = connection.execute(select(AUDIT_KEY).order_by(AUDIT_KEY.c.subject)).all()
    for row, other in ((one, two), (two, one)):
        connection.execute(update(AUDIT_KEY).where(AUDIT_KEY.c.id == row.id).values(wrapped=other.wrapped))


def relabel(connection: Connection) -> None:
    other = connection.execute(select(AUDIT_KEY.c.id).where(AUDIT_KEY.c.subject == "ada")).scalar_one()
    connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == 2).values(key_id=other))


def flip(connection: Connection) -> None:
    sealed = bytearray(connection.execute(select(E.sealed).where(E.leaf_index == 2)).scalar_one())
    sealed[40] ^= 1
    connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == 2).values(sealed=bytes(sealed)))


def clear_beside(connection: Connection) -> None:
    connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == 2).values(payload=b"{}", salt=bytes(32)))


def keyless(connection: Connection) -> None:
    connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == 2).values(key_id=None))


@pytest.fixture
def told(engine: Engine, make_log: MakeLog, record: Build, new_ring: NewRing) -> Engine:
    """A log of four entries under two keys, in SQLite."""
    sequencer = make_log(bind(engine, new_ring()))
    with bind(engine, new_ring()).begin() as connection:
        append_many(connection, [record(0), record(1, detail={"user": "ada"}), record(2), record(3)])
    sequencer.run_once(NOW)
    return engine


@pytest.mark.parametrize(
    ("tamper", "blamed"),
    [
        (swap_sealed, {2, 3}),
        (swap_wrapped, {0, 1, 2, 3}),
        (relabel, {2}),
        (flip, {2}),
        (clear_beside, {2}),
        (keyless, {2}),
    ],
)
def test_what_an_insider_alters_is_found_at_its_index(
    told: Engine,
    signer: NoteSigner,
    new_ring: NewRing,
    tamper: Callable[[Connection], None],
    blamed: set[int],
) -> None:
    engine = told
    with engine.begin() as connection:
        tamper(connection)
    with bind(engine, new_ring()).begin() as connection:
        result = verify_log(connection, signer.verifier)
        assert {(problem.code.value, problem.index) for problem in result.problems} == {
            ("PAYLOAD_ALTERED", index) for index in blamed
        }
        for index in blamed:
            for read in (get, build):
                with pytest.raises(LogCorruptError, match=f"entry {index} was altered"):
                    read(connection, index)


def test_an_altered_entry_is_given_no_place(
    engine: Engine, make_log: MakeLog, record: Build, new_ring: NewRing
) -> None:
    bound = bind(engine, new_ring())
    sequencer = make_log(bound)
    with bound.begin() as connection:
        append_many(connection, [record(0), record(1)])
        connection.execute(update(AUDIT_ENTRY).where(E.id == 2).values(sealed=bytes(80)))
    with pytest.raises(LogCorruptError, match="waiting entry id 2 was altered"):
        sequencer.run_once(NOW)


def test_nothing_of_a_payload_is_in_the_file(
    engine: Engine, database_path: Path, make_log: MakeLog, record: Build, new_ring: NewRing
) -> None:
    sequencer = make_log(bind(engine, new_ring()))
    with bind(engine, new_ring()).begin() as connection:
        append_many(connection, [record(0, detail={"marker": "xyzzy-marker"})])
    sequencer.run_once(NOW)
    files = [database_path, database_path.with_name(database_path.name + "-wal")]
    data = b"".join(file.read_bytes() for file in files)
    assert b"acme/llm" in data  # a column for queries
    assert b"xyzzy-marker" not in data
    with bind(engine, new_ring()).begin() as connection:
        assert b"xyzzy-marker" in (get(connection, 0).payload or b"")
