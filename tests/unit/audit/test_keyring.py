"""Keys of scopes: drawn once, shared by processes, retired, opened only where they belong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, func, select, update

from audit.errors import KeyringError, KeysNeededError, MalformedError
from audit.keyring import FACTORY, KEY_SECONDS, Keyring, Scope, StoredKey, bind, keyring_of, scope_of, stored_keys
from audit.log import append, append_many
from audit.query import get
from audit.records import Kind, Record
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ENTRY, AUDIT_KEY, METADATA

NOW = 1_800_000_000
ACME = Scope("acme", "")
Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]
NewRing = Callable[[], Keyring]


def keys_of(engine: Engine) -> list[Any]:
    with engine.begin() as connection:
        return list(connection.execute(select(AUDIT_KEY).order_by(AUDIT_KEY.c.tenant, AUDIT_KEY.c.subject)))


def test_whose_key_seals_a_record(record: Build) -> None:
    assert scope_of(record()) == ACME
    assert scope_of(record(detail={"user": "ada"})) == Scope("acme", "ada")
    assert scope_of(record(detail={"user": ("ada",)})) == ACME
    assert scope_of(record(tenant=None, detail={"user": "ada"})) == FACTORY
    erased = record(kind=Kind.AUDIT_ERASED, detail={"user": "ada"})
    assert scope_of(erased) == FACTORY


def test_each_scope_has_one_key_that_all_processes_share(
    keyed: Engine, any_engine: Engine, new_ring: NewRing, record: Build
) -> None:
    batch = [record(0), record(1, detail={"user": "ada"}), record(2, tenant="globex", assets=[]), record(3)]
    with keyed.begin() as connection:
        append_many(connection, batch)
    with bind(any_engine, new_ring()).begin() as connection:
        append_many(connection, batch)
        ids = connection.execute(select(AUDIT_ENTRY.c.key_id).order_by(AUDIT_ENTRY.c.id)).scalars().all()
    found = keys_of(keyed)
    assert [(row.tenant, row.subject) for row in found] == [("acme", ""), ("acme", "ada"), ("globex", "")]
    acme, ada, globex = (row.id for row in found)
    assert ids == [acme, ada, globex, acme] * 2
    assert all(row.retired_at is None and row.created_at == NOW + 3 for row in found)


def test_two_processes_that_draw_a_scopes_first_key_at_once_get_the_same(
    any_engine: Engine, new_ring: NewRing, record: Build
) -> None:
    barrier = threading.Barrier(4)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        engine = bind(any_engine, new_ring())
        try:
            barrier.wait()
            with engine.begin() as connection:
                append(connection, record(number))
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(keys_of(any_engine)) == 1


def test_a_key_that_another_process_retired_is_not_used_again(
    keyed: Engine, any_engine: Engine, new_ring: NewRing, record: Build
) -> None:
    other = bind(any_engine, new_ring())
    for engine in (keyed, other):
        with engine.begin() as connection:
            append(connection, record(0))
    with any_engine.begin() as connection:
        connection.execute(update(AUDIT_KEY).values(retired_at=NOW))
    for engine in (keyed, other):
        with engine.begin() as connection:
            append(connection, record(1))
    with keyed.begin() as connection:
        ids = connection.execute(select(AUDIT_ENTRY.c.key_id).order_by(AUDIT_ENTRY.c.id)).scalars().all()
    assert ids[0] == ids[1]
    assert ids[2] == ids[3] != ids[0]


@pytest.mark.postgres
def test_retiring_waits_for_a_transaction_that_uses_the_key(
    postgres_database: str, new_ring: NewRing, record: Build
) -> None:
    """SQLite has one writer at a time."""
    any_engine = create_engine(postgres_database)
    METADATA.create_all(any_engine)
    keyed = bind(any_engine, new_ring())
    done = threading.Event()

    def retire() -> None:
        with any_engine.begin() as connection:
            connection.execute(update(AUDIT_KEY).values(retired_at=NOW))
        done.set()

    with keyed.begin() as connection:
        append(connection, record(0))
    with keyed.begin() as connection:
        append(connection, record(1))
        thread = threading.Thread(target=retire)
        thread.start()
        assert not done.wait(0.5)
    thread.join(10)
    assert done.is_set()
    any_engine.dispose()


def test_a_key_whose_drawing_was_rolled_back_is_forgotten(keyed: Engine, record: Build) -> None:
    with pytest.raises(ZeroDivisionError), keyed.begin() as connection:
        append(connection, record(0))
        raise ZeroDivisionError
    with keyed.begin() as connection:
        append(connection, record(0))
        orphans = select(func.count()).where(AUDIT_ENTRY.c.key_id.not_in(select(AUDIT_KEY.c.id)))
        assert connection.execute(orphans).scalar_one() == 0
    assert len(keys_of(keyed)) == 1


def test_a_key_seals_for_a_month_and_opens_for_ever(keyed: Engine, make_log: MakeLog, record: Build) -> None:
    sequencer = make_log(keyed)
    for time in (NOW, NOW + KEY_SECONDS - 1, NOW + KEY_SECONDS, NOW - 1):
        with keyed.begin() as connection:
            append(connection, record(0, time=time))
    sequencer.run_once(NOW)
    with keyed.begin() as connection:
        old, same, new, back = connection.execute(select(AUDIT_ENTRY.c.key_id).order_by(AUDIT_ENTRY.c.id)).scalars()
        assert old == same
        assert new == back != old
        assert all(get(connection, index).record() is not None for index in range(4))
    assert sorted(row.retired_at is None for row in keys_of(keyed)) == [False, True]


@pytest.mark.parametrize("spoilt", ["wrapped", "tenant", "subject", "swapped", "destroyed"])
def test_a_key_opens_only_in_its_own_place(engine: Engine, new_ring: NewRing, record: Build, spoilt: str) -> None:
    ring = new_ring()
    with bind(engine, ring).begin() as connection:
        append_many(connection, [record(0), record(1, detail={"user": "ada"})])
        one, other = stored_keys(connection, connection.execute(select(AUDIT_KEY.c.id)).scalars().all()).values()
    assert one.wrapped is not None
    changed = {
        "wrapped": one._replace(wrapped=one.wrapped[:-1] + bytes([one.wrapped[-1] ^ 1])),
        "tenant": one._replace(tenant="globex"),
        "subject": one._replace(subject="eve"),
        "swapped": one._replace(wrapped=other.wrapped),
        "destroyed": one._replace(wrapped=None),
    }
    new_ring().cipher(one)
    with pytest.raises(MalformedError, match="payload key"):
        new_ring().cipher(changed[spoilt])
    if spoilt in {"wrapped", "swapped", "destroyed"}:
        with pytest.raises(MalformedError, match="payload key"):
            ring.cipher(changed[spoilt])  # though it has the true one in memory


def test_opened_keys_are_kept_within_bounds(engine: Engine, custody: Any, record: Build) -> None:
    ring = Keyring(custody, origin="log.example/keystead", cached_keys=2)
    scopes = [record(number, detail={"user": f"user-{number}"}) for number in range(5)]
    with bind(engine, ring).begin() as connection:
        append_many(connection, scopes)
        keys = list(stored_keys(connection, connection.execute(select(AUDIT_KEY.c.id)).scalars().all()).values())
    before = custody.unwrapped
    for _ in range(3):
        ring.cipher(keys[0])
    assert custody.unwrapped - before <= 1
    for key in keys:
        ring.cipher(key)
    assert custody.unwrapped - before >= 3  # two of the five may be those that are kept
    assert len(ring._ciphers) == len(ring._live) == 2


def test_destroyed_keys_leave_memory(engine: Engine, new_ring: NewRing, record: Build) -> None:
    ring = new_ring()
    with bind(engine, ring).begin() as connection:
        append_many(connection, [record(0), record(1, detail={"user": "ada"})])
    with engine.begin() as connection:
        connection.execute(update(AUDIT_KEY).where(AUDIT_KEY.c.subject == "ada").values(wrapped=None))
        assert ring.forget_destroyed(connection) == 1
        assert ring.forget_destroyed(connection) == 0
    assert len(ring._ciphers) == len(ring._live) == 1


def test_a_ring_shows_no_key(engine: Engine, new_ring: NewRing, record: Build) -> None:
    ring = new_ring()
    bound = bind(engine, ring)
    with bound.begin() as connection:
        append(connection, record(0))
        assert keyring_of(connection) is ring
    assert repr(ring) == "Keyring('log.example/keystead')"


def test_a_log_with_keys_takes_nothing_in_the_clear(any_engine: Engine, keyed: Engine, record: Build) -> None:
    with any_engine.begin() as connection:
        append(connection, record(0))  # it has none yet
        assert keyring_of(connection) is None
    with keyed.begin() as connection:
        append(connection, record(1))
    with any_engine.begin() as connection, pytest.raises(KeysNeededError, match="sealed"):
        append(connection, record(2))


def test_without_the_hosts_key_nothing_is_appended(keyed: Engine, custody: Any, record: Build) -> None:
    custody.away = True
    with keyed.begin() as connection, pytest.raises(KeyringError):
        append(connection, record(0))
    with keyed.begin() as connection:
        assert connection.execute(select(func.count()).select_from(AUDIT_ENTRY)).scalar_one() == 0
        with pytest.raises(MalformedError, match="destroyed"):
            Keyring(custody, origin="x").cipher(StoredKey("00" * 16, "", "", None, 0))
