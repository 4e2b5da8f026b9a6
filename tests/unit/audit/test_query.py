"""Queries: every filter, paging while the log grows, and refusal to show what was altered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, update

from audit.errors import EntryNotFoundError, LogCorruptError, NotInitialisedError, QueryError
from audit.log import append, append_many, erase
from audit.query import Filter, cursor_after, get, get_by_hash, newest, newest_checkpoint, parse_asset, query
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ENTRY

NOW = 1_800_000_000
Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]


@pytest.fixture
def filled(any_engine: Engine, make_log: MakeLog, record: Build) -> Engine:
    sequencer = make_log(any_engine)
    records = [
        record(0),
        record(1, tenant="umbrella", assets=["umbrella/llm@1"], actor=Actor(role="owner", name="wesker")),
        record(2, site="hall-2", jurisdiction="FR-IDF", policy_digest="33" * 32),
        record(3, kind=Kind.LEASE_REFUSED, result=Result.DENIED, reasons=["NODE_QUARANTINED", "LATE"]),
        record(4, hardware=["nvidia-gpu:beef"], lease="other", assets=["acme/llm@7"], detail={"user": "ada"}),
    ]
    with any_engine.begin() as connection:
        append_many(connection, records)
    sequencer.run_once(NOW)
    with any_engine.begin() as connection:
        append(connection, record(5))  # waits
    return any_engine


FILTERS = [
    (Filter(), [0, 1, 2, 3, 4]),
    (Filter(asset="acme/llm"), [0, 2, 3, 4]),
    (Filter(asset="acme/llm", version=1), [0, 2]),
    (Filter(asset="acme/llm", version=7), [4]),
    (Filter(asset="acme/ll"), []),
    (Filter(job="job-3"), [3]),
    (Filter(tenant="umbrella"), [1]),
    (Filter(actor="wesker"), [1]),
    (Filter(node="node-0"), [0, 3]),
    (Filter(hardware="nvidia-gpu:beef"), [4]),
    (Filter(site="hall-2"), [2]),
    (Filter(jurisdiction="FR-IDF"), [2]),
    (Filter(policy_digest="33" * 32), [2]),
    (Filter(kind=Kind.LEASE_REFUSED), [3]),
    (Filter(result=Result.ALLOWED), [0, 1, 2, 4]),
    (Filter(reason="LATE"), [3]),
    (Filter(lease="other"), [4]),
    (Filter(user="ada"), [4]),
    (Filter(user="bob"), []),
    (Filter(start_time=NOW + 1, end_time=NOW + 3), [1, 2]),
    (Filter(tenant="acme", result=Result.DENIED, reason="NODE_QUARANTINED", site="hall-1"), [3]),
    (Filter(tenant="acme' OR '1'='1"), []),
]


def test_filters(filled: Engine) -> None:
    with filled.begin() as connection:
        for wanted, indexes in FILTERS:
            page = query(connection, wanted)
            assert [entry.index for entry in page.entries] == indexes, wanted
            assert page.next_cursor == ""


def test_pages_follow_the_log_while_it_grows(engine: Engine, make_log: MakeLog, record: Build) -> None:
    sequencer = make_log(engine, [5])
    wanted, cursor, seen = Filter(tenant="acme"), "", []
    for step in range(10):
        with engine.begin() as connection:
            page = query(connection, wanted, limit=2, cursor=cursor)
            append_many(connection, [record(100 + step), record(200 + step), record(300 + step)])
        sequencer.run_once(NOW)
        seen += [entry.index for entry in page.entries]
        cursor = page.next_cursor
        assert cursor
    assert seen == list(range(20))[: len(seen)]
    with engine.begin() as connection:
        assert query(connection, wanted, limit=35).next_cursor == ""


def test_cursors_belong_to_their_filter(engine: Engine, make_log: MakeLog) -> None:
    make_log(engine, [5])
    with engine.begin() as connection:
        cursor = query(connection, Filter(tenant="acme"), limit=2).next_cursor
        for bad in (cursor + "x", "1", "x.y", "-1.0000000000000000", cursor.replace("1.", "01.", 1)):
            with pytest.raises(QueryError, match="cursor"):
                query(connection, Filter(tenant="acme"), cursor=bad)
        with pytest.raises(QueryError, match="cursor"):
            query(connection, Filter(tenant="other"), cursor=cursor)
        for limit in (0, 1001):
            with pytest.raises(QueryError, match="page size"):
                query(connection, Filter(), limit=limit)


@pytest.mark.parametrize("index", [2**53, 2**63 - 1, 2**63, 10**19 - 1])
def test_cursors_behind_any_log(any_engine: Engine, make_log: MakeLog, index: int) -> None:
    """A number that no database takes is refused like any other cursor that no page ended with."""
    make_log(any_engine, [2])
    with any_engine.begin() as connection:
        for wanted in (Filter(), Filter(asset="acme/llm"), Filter(start_time=1)):
            with pytest.raises(QueryError, match="cursor"):
                query(connection, wanted, cursor=cursor_after(wanted, index))
            assert query(connection, wanted, cursor=cursor_after(wanted, 2**53 - 1)).entries == ()


def test_filters_that_make_no_sense() -> None:
    with pytest.raises(QueryError, match="version"):
        Filter(version=1)
    with pytest.raises(QueryError, match="after end"):
        Filter(start_time=2, end_time=1)


def test_asset_texts() -> None:
    assert parse_asset("acme/llm") == ("acme/llm", None)
    assert parse_asset("acme/llm@3") == ("acme/llm", 3)
    for bad in ("", "a b", "acme/llm@", "acme/llm@0", "acme/llm@x"):
        with pytest.raises(QueryError):
            parse_asset(bad)


def test_get_find_and_checkpoint(filled: Engine, signer_size: Callable[[bytes], int]) -> None:
    with filled.begin() as connection:
        entry = get(connection, 3)
        parsed = entry.record()
        assert parsed is not None
        assert parsed.kind is Kind.LEASE_REFUSED
        assert get_by_hash(connection, entry.entry_hash).index == 3
        assert signer_size(newest_checkpoint(connection)) == 5
        for missing in (5, -1):
            with pytest.raises(EntryNotFoundError):
                get(connection, missing)
        with pytest.raises(EntryNotFoundError, match="not in the log"):
            get_by_hash(connection, bytes(32))
        waiting = append(connection, parsed)
        with pytest.raises(EntryNotFoundError, match="waits"):
            get_by_hash(connection, waiting.entry_hash)


@pytest.fixture
def signer_size() -> Callable[[bytes], int]:
    return lambda note: int(note.split(b"\n")[1])


def test_no_log_no_checkpoint(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(NotInitialisedError):
        newest_checkpoint(connection)


@pytest.mark.parametrize("values", [{"payload": b"{}"}, {"leaf_hash": bytes(32)}])
def test_altered_entries_are_not_shown(engine: Engine, make_log: MakeLog, values: dict[str, bytes]) -> None:
    make_log(engine, [3])
    with engine.begin() as connection:
        connection.execute(update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index == 1).values(**values))
        with pytest.raises(LogCorruptError, match="entry 1 was altered"):
            query(connection, Filter())


def test_erased_entries_are_found_by_index_only(engine: Engine, make_log: MakeLog) -> None:
    make_log(engine, [3])
    with engine.begin() as connection:
        erase(connection, indexes=[1], actor=Actor(role="operator", name="dpo"), time=NOW)
        assert [entry.index for entry in query(connection, Filter(tenant="acme")).entries] == [0, 2]
        assert [entry.index for entry in query(connection, Filter(asset="acme/llm")).entries] == [0, 2]
        assert get(connection, 1).record() is None


LIFE = [
    # (kind, lease, time, expires_at), in the order of the log
    (Kind.LEASE_GRANTED, "returned", 0, 100),  # 0
    (Kind.LEASE_GRANTED, "renewed", 10, 60),  # 1
    (Kind.LEASE_REFUSED, "refused", 10, None),  # 2
    (Kind.LEASE_RETURNED, "returned", 30, None),  # 3
    (Kind.LEASE_RENEWED, "renewed", 40, 90),  # 4
    (Kind.LEASE_RENEWAL_REFUSED, "renewed", 50, None),  # 5
    (Kind.LEASE_GRANTED, "revoked", 50, 500),  # 6
    (Kind.LEASE_REVOKED, "revoked", 70, None),  # 7
    (Kind.LEASE_EXPIRED, "renewed", 95, None),  # 8
    (Kind.LEASE_GRANTED, "unending", 200, 300),  # 9: no end of it was ever recorded
    (Kind.LEASE_GRANTED, "shortened", 200, 300),  # 10
    (Kind.LEASE_RENEWED, "shortened", 210, 250),  # 11
    (Kind.LEASE_RENEWED, "shortened", 205, 400),  # 12: by a clock that was put back
]


@pytest.mark.parametrize(
    ("instant", "alive"),
    [
        (0, [0]),
        (9, [0]),
        (10, [0, 1]),
        (29, [0, 1]),
        (30, [1]),
        (39, [1]),
        (40, [4]),
        (50, [4, 6]),
        (69, [4, 6]),
        (70, [4]),
        (89, [4]),
        (90, []),
        (199, []),
        (200, [9, 10]),
        (207, [9, 12]),
        (210, [9, 12]),
        (299, [9, 12]),
        (300, [12]),
        (399, [12]),
        (400, []),
    ],
)
def test_leases_alive_at_an_instant(
    any_engine: Engine, make_log: MakeLog, record: Build, instant: int, alive: list[int]
) -> None:
    sequencer = make_log(any_engine)
    records = []
    for kind, lease, time, expires_at in LIFE:
        ending = kind in (Kind.LEASE_RETURNED, Kind.LEASE_EXPIRED, Kind.LEASE_REVOKED)
        denied = kind in (Kind.LEASE_REFUSED, Kind.LEASE_RENEWAL_REFUSED)
        records.append(
            record(
                kind=kind,
                lease=lease,
                time=NOW + time,
                detail={} if expires_at is None else {"expires_at": NOW + expires_at},
                result=Result.DENIED if denied else Result.RECORDED if ending else Result.ALLOWED,
                reasons=["NODE_QUARANTINED"] if denied else [],
            )
        )
    with any_engine.begin() as connection:
        append_many(connection, records)
    sequencer.run_once(NOW)
    with any_engine.begin() as connection:
        waits = record(kind=Kind.LEASE_RETURNED, lease="shortened", time=NOW + 201, result=Result.RECORDED)
        append(connection, waits)  # has no place in the log yet, so it ends nothing yet
        found = query(connection, Filter(alive_at=NOW + instant))
        assert [entry.index for entry in found.entries] == alive
        assert not query(connection, Filter(alive_at=NOW + instant, tenant="umbrella")).entries
        assert len(query(connection, Filter(alive_at=NOW + instant, tenant="acme")).entries) == len(alive)


def test_the_newest(filled: Engine) -> None:
    with filled.begin() as connection:
        assert [entry.index for entry in newest(connection, Filter(), limit=2).entries] == [3, 4]
        wanted = Filter(asset="acme/llm", version=1)
        page = newest(connection, wanted, limit=1)
        assert ([entry.index for entry in page.entries], page.next_cursor) == ([2], "")
        assert [entry.index for entry in newest(connection, wanted, limit=9).entries] == [0, 2]
        assert newest(connection, Filter(job="none"), limit=9).entries == ()
        assert [e.index for e in query(connection, Filter(), cursor=cursor_after(Filter(), 3)).entries] == [4]
        for limit in (0, 1_001):
            with pytest.raises(QueryError, match="page size"):
                newest(connection, Filter(), limit=limit)


@pytest.mark.parametrize("name", ["start_time", "end_time", "alive_at"])
@pytest.mark.parametrize("value", [-1, 1 << 53])
def test_instants_that_no_record_has(name: str, value: int) -> None:
    with pytest.raises(QueryError, match=name):
        Filter(**{name: value})


def test_an_assets_entries_page_by_page(any_engine: Engine, make_log: MakeLog, record: Build) -> None:
    """Entries that name two versions of it are found once; every page begins where the last one ended."""
    sequencer = make_log(any_engine)
    named = [["acme/x@1", "acme/x@2"], ["acme/y@1"], ["acme/x@2"], ["acme/x@1", "acme/y@1"], ["acme/y@2"], ["acme/x@3"]]
    with any_engine.begin() as connection:
        append_many(connection, [record(number, assets=assets) for number, assets in enumerate(named)])
    sequencer.run_once(NOW)
    for wanted, expected in (
        (Filter(asset="acme/x"), [0, 2, 3, 5]),
        (Filter(asset="acme/x", version=2), [0, 2]),
        (Filter(asset="acme/x", node="node-0"), [0, 3]),
        (Filter(asset="acme/y"), [1, 3, 4]),
    ):
        seen, cursor = [], ""
        with any_engine.begin() as connection:
            while True:
                page = query(connection, wanted, limit=1, cursor=cursor)
                seen += [entry.index for entry in page.entries]
                cursor = page.next_cursor
                if not cursor:
                    break
            assert seen == expected
            assert [entry.index for entry in newest(connection, wanted, limit=2).entries] == expected[-2:]
            # A cursor behind an entry that does not fit, too.
            page = query(connection, wanted, cursor=cursor_after(wanted, 2))
            assert [entry.index for entry in page.entries] == [index for index in expected if index > 2]
