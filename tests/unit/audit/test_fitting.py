"""Which entries fit: what is read by shortcuts is what reading everything would find, and no shortcut is missed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from audit import fitting, times
from audit.alive import LEASE_ENDS
from audit.filter import Filter
from audit.log import LEASE_BEGINS, append_many, erase
from audit.query import cursor_after, newest, query
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ENTRY

NOW = 1_800_000_000
SIZE = 400
Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]
POLICIES = ("11" * 32, "22" * 32)


def drawn(record: Build) -> list[Record]:
    """Records of leases whose clock jumps now and then."""
    draw = random.Random(3)
    made: list[Record] = []
    for number in range(SIZE):
        jump = draw.choice((0,) * 20 + (5000, -5000))
        kind = draw.choice((*LEASE_BEGINS * 3, *LEASE_ENDS, Kind.LEASE_REFUSED, Kind.JOB_AUTHORIZED))
        time = NOW + number * 10 + jump
        refused = kind is Kind.LEASE_REFUSED
        assets = {f"acme/a{draw.randrange(4)}@{draw.randrange(1, 3)}" for _ in range(2)}
        fields: dict[str, Any] = {
            "kind": kind,
            "time": time,
            "tenant": draw.choice(("acme", "globex")),
            "site": draw.choice(("hall-1", "hall-2")),
            "assets": sorted(assets),
            "policy_digest": draw.choice(POLICIES),
            "result": Result.DENIED if refused else Result.ALLOWED if kind in LEASE_BEGINS else Result.RECORDED,
            "reasons": [draw.choice(("NO_BUDGET", "NO_SITE"))] if refused else [],
            "lease": None if refused else f"lease-{draw.randrange(60)}",
            "detail": {"user": f"u{draw.randrange(3)}", "number": number},
        }
        if kind in LEASE_BEGINS:
            fields["detail"]["expires_at"] = time + draw.choice((1, 40, 63, 64, 500, 4000, 0, -5))
        made.append(record(number, **fields))
    return made


def alive(records: list[Record], instant: int) -> set[int]:
    """By reading everything in the log's order: the entry that each lease was alive by."""
    by: dict[str, int] = {}
    ended: set[str] = set()
    for index, record in enumerate(records):
        if record.lease is None or record.time > instant:
            continue
        if record.kind in LEASE_ENDS:
            ended.add(record.lease)
        if record.kind is Kind.LEASE_RENEWED or (record.kind is Kind.LEASE_GRANTED and record.lease not in by):
            by[record.lease] = index
    return {index for lease, index in by.items() if lease not in ended and _expires(records[index]) > instant}


def _expires(record: Record) -> int:
    value = record.detail["expires_at"]
    assert isinstance(value, int)
    return value


def fits(record: Record, index: int, wanted: Filter, living: set[int]) -> bool:
    refs = [text.partition("@") for text in record.assets]
    checks = (
        wanted.asset is None
        or any(name == wanted.asset and wanted.version in {None, int(version)} for name, _, version in refs),
        wanted.tenant in {None, record.tenant},
        wanted.site in {None, record.site},
        wanted.policy_digest in {None, record.policy_digest},
        wanted.kind in {None, record.kind},
        wanted.result in {None, record.result},
        wanted.user in {None, record.detail["user"]},
        wanted.job in {None, record.job},
        wanted.node in {None, record.node},
        wanted.actor in {None, record.actor.name},
        wanted.lease in {None, record.lease},
        wanted.jurisdiction in {None, record.jurisdiction},
        wanted.hardware is None or wanted.hardware in record.hardware,
        wanted.reason is None or wanted.reason in record.reasons,
        wanted.start_time is None or record.time >= wanted.start_time,
        wanted.end_time is None or record.time < wanted.end_time,
        wanted.alive_at is None or index in living,
    )
    return all(checks)


FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"asset": "acme/a1"},
    {"asset": "acme/a1", "version": 2},
    {"asset": "acme/a1", "tenant": "acme"},
    {"asset": "acme/none"},
    {"result": Result.DENIED},
    {"result": Result.DENIED, "policy_digest": POLICIES[0]},
    {"result": Result.DENIED, "policy_digest": POLICIES[1], "reason": "NO_SITE"},
    {"result": Result.ALLOWED, "site": "hall-2"},
    {"reason": "NO_BUDGET"},
    {"user": "u1", "kind": Kind.LEASE_RETURNED},
    {"tenant": "globex", "kind": Kind.LEASE_EXPIRED},
    {"asset": "acme/a1", "job": "job-2"},
    {"asset": "acme/a1", "version": 1, "node": "node-1", "tenant": "acme"},
    {"asset": "acme/a1", "reason": "NO_BUDGET", "actor": "node-2"},
    {"asset": "acme/a1", "lease": "lease-7"},
    {"asset": "acme/a2", "kind": Kind.LEASE_GRANTED, "site": "hall-1", "jurisdiction": "DE"},
    {"hardware": "nvidia-gpu:0001"},
    {"hardware": "nvidia-gpu:0002", "asset": "acme/a3", "tenant": "acme"},
    {"hardware": "nvidia-gpu:none", "tenant": "acme"},
    {"reason": "NO_SITE", "tenant": "globex", "result": Result.DENIED},
    {"policy_digest": POLICIES[0], "tenant": "acme", "user": "u2"},
)
SPANS: tuple[dict[str, Any], ...] = (
    {},
    {"start_time": NOW + 3000},
    {"end_time": NOW + 500},
    {"start_time": NOW + 1000, "end_time": NOW + 1200},
    {"start_time": NOW + 100_000},
)


@pytest.mark.parametrize("sizes", [(4096, 500, 16), (32, 20, 2), (3, 5, 3), (3, 0, 1)])
def test_pages_hold_what_reading_everything_finds(
    any_engine: Engine, make_log: MakeLog, record: Build, sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    block, probe, runs = sizes
    monkeypatch.setattr(times, "BLOCK", block)
    monkeypatch.setattr(times, "MAX_RUNS", runs)
    monkeypatch.setattr(fitting, "_PROBE", probe)
    monkeypatch.setattr(fitting, "_MANY", probe)
    monkeypatch.setattr(fitting, "_TOGETHER", probe)
    monkeypatch.setattr(fitting, "_FIRST_PIECE", probe + 12)
    monkeypatch.setattr(fitting, "_LAST_PIECE", 3 * probe + 50)
    sequencer = make_log(any_engine)
    records = drawn(record)
    with any_engine.begin() as connection:
        append_many(connection, records)
    sequencer.run_once(NOW)
    with any_engine.begin() as connection:
        for fields in FILTERS:
            for span in SPANS:
                wanted = Filter(**fields, **span)
                expected = [index for index, item in enumerate(records) if fits(item, index, wanted, set())]
                assert pages(connection, wanted) == expected, wanted
                assert pages(connection, wanted, patience=0) == expected, wanted
                assert pages(connection, wanted, patience=0, discreet=True) == expected, wanted
                last = newest(connection, wanted, limit=7)
                assert [entry.index for entry in last.entries] == expected[-7:], wanted


@pytest.mark.parametrize("fields", [{}, {"tenant": "acme"}, {"asset": "acme/a2"}, {"end_time": NOW + 1500}])
def test_leases_alive_are_those_that_reading_everything_finds(
    any_engine: Engine, make_log: MakeLog, record: Build, fields: dict[str, Any]
) -> None:
    sequencer = make_log(any_engine)
    with any_engine.begin() as connection:
        assert pages(connection, Filter(alive_at=NOW)) == []
    # One grant of each lease, and renewals behind it, as brokers write them.
    records: list[Record] = []
    granted: set[str | None] = set()
    for item in drawn(record):
        if item.kind in LEASE_BEGINS and (item.kind is Kind.LEASE_GRANTED) == (item.lease in granted):
            continue
        granted.add(item.lease if item.kind is Kind.LEASE_GRANTED else None)
        records.append(item)
    with any_engine.begin() as connection:
        append_many(connection, records)
    sequencer.run_once(NOW)
    found_any = False
    with any_engine.begin() as connection:
        for instant in range(NOW - 10, NOW + 10 * SIZE, 157):
            living = alive(records, instant)
            wanted = Filter(alive_at=instant, **fields)
            expected = [index for index, item in enumerate(records) if fits(item, index, wanted, living)]
            assert pages(connection, wanted) == expected, instant
            found_any = found_any or bool(expected)
    assert found_any


def pages(
    connection: Connection, wanted: Filter, *, patience: float | None = None, discreet: bool = False
) -> list[int]:
    found: list[int] = []
    cursor = ""
    while True:
        page = query(connection, wanted, limit=9, cursor=cursor, patience=patience, discreet=discreet)
        assert patience is not None or not page.next_cursor or len(page.entries) == 9
        found += [entry.index for entry in page.entries]
        cursor = page.next_cursor
        if not cursor:
            return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "_PROBE", 10)
    monkeypatch.setattr(fitting, "_FIRST_PIECE", 10)
    monkeypatch.setattr(fitting, "_LAST_PIECE", 40)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "search",
    [
        (False, {"site": "hall-1", "tenant": "nobody"}),
        (False, {"asset": "acme/corpus", "user": "ada"}),
        (True, {"site": "hall-1", "jurisdiction": "FR"}),
        (True, {"asset": "acme/corpus", "jurisdiction": "FR"}),
        (True, {"result": Result.RECORDED}),
    ],
)
def test_a_long_search_in_vain_can_be_broken_off(
    any_engine: Engine, make_log: MakeLog, record: Build, search: tuple[bool, dict[str, Any]]
) -> None:
    """However much fits each condition, an answer comes soon, and says where to go on."""
    long, fields = search
    sequencer = make_log(any_engine)
    with any_engine.begin() as connection:
        append_many(connection, [record(number, jurisdiction="DE") for number in range(60)])
        append_many(connection, [record(number, site="hall-9", jurisdiction="FR", assets=[]) for number in range(60)])
    sequencer.run_once(NOW)
    cursors: list[str] = []
    with any_engine.begin() as connection:
        while not cursors or cursors[-1]:
            page = query(connection, Filter(**fields), cursor=cursors[-1] if cursors else "", patience=0)
            cursors.append(page.next_cursor)
            assert not page.entries
    places = [int(cursor.partition(".")[0]) for cursor in cursors[:-1]]
    assert places == sorted(set(places))
    assert (len(cursors) > 1) == long


def test_a_tenants_cursors_tell_nothing_of_others(
    any_engine: Engine, make_log: MakeLog, record: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for another tenant's asset learns from no cursor where its entries stand."""
    monkeypatch.setattr(fitting, "_TOGETHER", 5)
    monkeypatch.setattr(fitting, "_FIRST_PIECE", 10)
    monkeypatch.setattr(fitting, "_LAST_PIECE", 40)
    sequencer = make_log(any_engine)
    draw = random.Random(2)
    records = [
        record(number, tenant="acme", site="hall-1", assets=["acme/llm@1"], reasons=["NO_SITE"], result=Result.DENIED)
        if draw.random() < 0.5
        else record(number, tenant="globex", site="hall-2", assets=["globex/secret@1"], node="node-x")
        for number in range(300)
    ]
    with any_engine.begin() as connection:
        append_many(connection, records)
    sequencer.run_once(NOW)
    own = {index for index, item in enumerate(records) if item.tenant == "acme"}
    everything = [{"asset": "globex/secret"}, {"site": "hall-2"}, {"node": "node-x"}, {"result": Result.ALLOWED}]
    with any_engine.begin() as connection:
        for fields in everything:
            for span in ({}, {"start_time": NOW + 50}):
                cursor, ends = "", []
                while cursor or not ends:
                    wanted = Filter(tenant="acme", **fields, **span)
                    page = query(connection, wanted, limit=3, cursor=cursor, patience=0, discreet=True)
                    assert page.entries == ()
                    cursor = page.next_cursor
                    ends.append(int(cursor.partition(".")[0] or -1))
                assert len(ends) > 3, fields
                assert set(ends[:-1]) <= own, fields
        found = query(connection, Filter(tenant="acme", reason="NO_SITE"), limit=1000, discreet=True)
        assert {entry.index for entry in found.entries} == own
        few = Filter(tenant="acme", lease="lease-7")
        assert query(connection, few, patience=0, discreet=True).next_cursor == ""


def test_an_asset_is_read_on_from_any_index(any_engine: Engine, make_log: MakeLog, record: Build) -> None:
    sequencer = make_log(any_engine)
    records = drawn(record)
    with any_engine.begin() as connection:
        append_many(connection, records)
    sequencer.run_once(NOW)
    wanted = Filter(asset="acme/a1")
    expected = [index for index, item in enumerate(records) if fits(item, index, wanted, set())]
    gone = expected[::3]
    with any_engine.begin() as connection:
        erase(connection, indexes=gone, actor=Actor(role="operator", name="dpo"), time=NOW)
    left = [index for index in expected if index not in gone]
    with any_engine.begin() as connection:
        for after in range(0, SIZE, 7):
            page = query(connection, wanted, limit=5, cursor=cursor_after(wanted, after))
            assert [entry.index for entry in page.entries] == [index for index in left if index > after][:5]


QUESTIONS: dict[str, dict[str, Any]] = {
    "ix_audit_entry_tenant": {"tenant": "acme"},
    "ix_audit_entry_job": {"job": "j"},
    "ix_audit_entry_node": {"node": "n"},
    "ix_audit_entry_site": {"site": "s"},
    "ix_audit_entry_jurisdiction": {"jurisdiction": "DE"},
    "ix_audit_entry_kind": {"kind": Kind.ASSET_REVOKED},
    "ix_audit_entry_actor_name": {"actor": "a"},
    "ix_audit_entry_job_user": {"user": "u"},
    "ix_audit_entry_lease": {"lease": "l"},
    "ix_audit_entry_policy_digest": {"policy_digest": POLICIES[0]},
    "ix_audit_entry_policy_refused": {"policy_digest": POLICIES[0], "result": Result.DENIED},
    "ix_audit_entry_refused": {"result": Result.DENIED},
    "ix_audit_entry_hardware_hardware": {"hardware": "nvidia-gpu:1"},
    "ix_audit_entry_reason_reason": {"reason": "NO_SITE"},
    "ix_audit_entry_alive": {"alive_at": NOW},
    "uq_audit_entry_asset_counter": {"asset": "acme/a1"},
}


@pytest.mark.parametrize("index", QUESTIONS)
@pytest.mark.parametrize("after", [None, 17])
def test_no_question_makes_the_database_read_everything(
    engine: Engine, make_log: MakeLog, record: Build, index: str, after: int | None
) -> None:
    """SQLite plans without statistics, so that the plan for a small log is that for a large one."""
    sequencer = make_log(engine)
    with engine.begin() as connection:
        append_many(connection, drawn(record)[:50])
    sequencer.run_once(NOW)
    asked: list[tuple[str, Any]] = []
    event.listen(
        engine, "before_cursor_execute", lambda _c, _u, statement, values, _x, _m: asked.append((statement, values))
    )
    wanted = Filter(**QUESTIONS[index])
    with engine.begin() as connection:
        query(connection, wanted, cursor="" if after is None else cursor_after(wanted, after))
        statements = [item for item in asked if item[0].startswith("SELECT")]
        plans = [
            step[-1]
            for statement, values in statements
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    assert any(index in step for step in plans), plans
    assert not [step for step in plans if re.match(r"SCAN (audit_entry|twin|begun|later|ended)", step)], plans
    if index != "uq_audit_entry_asset_counter":
        assert not [step for step in plans if "uq_audit_entry_leaf_index (leaf_index>?)" in step], plans
    sorted_late = {
        "ix_audit_entry_lease",
        "ix_audit_entry_alive",
        "ix_audit_entry_hardware_hardware",
    }
    assert any("TEMP B-TREE FOR ORDER BY" in step for step in plans) == (index in sorted_late), plans


@pytest.mark.parametrize(
    ("size", "seconds", "expected"),
    [
        (1000, 0.0, 2000),
        (4000, 0.03, 8000),
        (4000, 0.3, 2000),
        (2000, 60.0, 1000),
        (60_000, 0.01, 64_000),
        (10_000, 0.1, 15_000),
    ],
)
def test_pieces_take_about_the_same_time(size: int, seconds: float, expected: int) -> None:
    assert fitting._next_size(size, seconds) == expected


LEADS: dict[str, dict[str, Any]] = {
    "ix_audit_entry_job (": {"job": "j", "tenant": "acme", "asset": "acme/a1"},
    "ix_audit_entry_kind (": {"kind": Kind.ASSET_REVOKED, "tenant": "acme"},
    "ix_audit_entry_lease (": {"lease": "l", "tenant": "acme", "node": "n"},
    "ix_audit_entry_site (": {"site": "nowhere", "tenant": "acme", "reason": "NO_SITE"},
    "uq_audit_entry_asset_counter (": {"asset": "acme/rare", "tenant": "acme", "result": Result.DENIED},
    "ix_audit_entry_hardware_hardware (": {"hardware": "nvidia-gpu:none", "tenant": "acme"},
    "ix_audit_entry_reason_reason (": {"reason": "RARE", "asset": "acme/corpus"},
    "ix_audit_entry_refused (": {"tenant": "acme", "result": Result.DENIED},
    "ix_audit_entry_tenant (": {"tenant": "acme", "site": "hall-1", "result": Result.ALLOWED},
}


@pytest.mark.parametrize("index", LEADS)
def test_a_question_is_read_by_its_rarest_condition(
    engine: Engine, make_log: MakeLog, record: Build, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else is asked: an auditor of a tenant asks for the tenant each time."""
    monkeypatch.setattr(fitting, "_PROBE", 10)
    sequencer = make_log(engine)
    # Nearly all are of the tenant, and at the site; hardly any was refused.
    records = [
        record(number, result=Result.DENIED, reasons=["NO_SITE"]) if number % 60 == 0 else record(number, tenant=tenant)
        for number in range(1500)
        for tenant in ["acme" if number % 3 else "globex"]
    ]
    with engine.begin() as connection:
        append_many(connection, records)
    sequencer.run_once(NOW)
    asked: list[tuple[str, Any]] = []
    event.listen(
        engine, "before_cursor_execute", lambda _c, _u, statement, values, _x, _m: asked.append((statement, values))
    )
    for span in ({}, {"start_time": NOW + 1000}):
        wanted = Filter(**LEADS[index], **span)
        for ask in (query, newest):
            with engine.begin() as connection:
                ask(connection, wanted, limit=10)
                statement, values = next(item for item in reversed(asked) if item[0].startswith("SELECT"))
                plan = [step[-1] for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
            used = [step for step in plan if re.match(r"(SEARCH|SCAN) audit_entry\w* USING .*INDEX (ix|uq)", step)]
            assert len(used) == 1, plan
            assert index in used[0], plan


def test_an_append_writes_to_few_indexes() -> None:
    """Everything that is asked of sequenced entries alone is left to the sequencer."""
    every = {str(index.name): index.dialect_options["sqlite"]["where"] for index in AUDIT_ENTRY.indexes}
    whole = sorted(name for name, where in every.items() if where is None)
    assert whole == ["ix_audit_entry_lease", "uq_audit_entry_leaf_hash", "uq_audit_entry_leaf_index"]
