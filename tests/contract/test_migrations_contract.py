"""The migrated schema is the declared one, on every back end; migrating is safe to repeat and to race."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from audit import tables
from keybroker.constraints import Areas, Constraints
from keybroker.errors import StoreNotCurrentError
from keybroker.store import jobs, nodes, schema, sites
from keybroker.store import migrate as migrate_module
from keybroker.store.engine import read
from keybroker.store.migrate import check_current, migrate
from keystead.binding import sha256


def describe(engine: Engine) -> dict[str, Any]:
    """Everything that the database itself says of its tables, but Alembic's own."""
    inspector = inspect(engine)
    found: dict[str, Any] = {}
    for table in sorted(inspector.get_table_names()):
        if table == "alembic_version":
            continue
        found[table] = {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            ],
            "primary": inspector.get_pk_constraint(table),
            "foreign": sorted(inspector.get_foreign_keys(table), key=str),
            "unique": sorted(inspector.get_unique_constraints(table), key=str),
            "checks": sorted(inspector.get_check_constraints(table), key=str),
            "indexes": sorted(
                (
                    # A partial index's condition compares by its text.
                    {**index, "dialect_options": {k: str(v) for k, v in index.get("dialect_options", {}).items()}}
                    for index in inspector.get_indexes(table)
                ),
                key=str,
            ),
        }
    return found


def test_migrations_make_what_the_metadata_declare(empty_engine: Engine) -> None:
    migrate(empty_engine)
    migrated = describe(empty_engine)
    with empty_engine.begin() as connection:
        for metadata in (schema.METADATA, tables.METADATA):
            metadata.drop_all(connection)
            metadata.create_all(connection)
    declared = describe(empty_engine)
    assert set(declared) == set(schema.METADATA.tables) | set(tables.METADATA.tables)
    assert migrated == declared


def test_alembic_sees_no_difference(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, [schema.METADATA, tables.METADATA]) == []  # type: ignore[arg-type]


def test_a_removed_index_would_be_seen(engine: Engine) -> None:
    before = describe(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_lease_expires_at_state"))
    assert describe(engine) != before


def test_migrate_says_what_it_did_and_is_idempotent(empty_engine: Engine) -> None:
    with pytest.raises(StoreNotCurrentError, match="keystead init") as caught:
        check_current(empty_engine)
    assert caught.value.found is None
    applied = migrate(empty_engine)
    assert applied
    assert migrate(empty_engine) == ()
    assert check_current(empty_engine) == applied[-1] == caught.value.expected


def test_replicas_that_start_together_migrate_once(open_replica: Callable[[], Engine]) -> None:
    engines = [open_replica() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, engines))
    assert sorted(map(len, applied))[:3] == [0, 0, 0]
    assert len(max(applied, key=len)) >= 1
    check_current(engines[0])


def test_a_newer_database_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for function in (check_current, migrate):
        with pytest.raises(StoreNotCurrentError, match=r"9999.*newer release") as caught:
            function(engine)
        assert caught.value.found == "9999"


def test_a_failed_migration_leaves_nothing(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE TABLE audit_state (x INTEGER)"))
    with pytest.raises(Exception, match="audit_state"):
        migrate(empty_engine)
    assert inspect(empty_engine).get_table_names() == ["audit_state"]


BEFORE_CONSTRAINTS = "0003"


def upgrade_to(engine: Engine, revision: str) -> None:
    """Bring an empty database to an older release's schema."""
    folder = Path(migrate_module.__file__).parent / "migrations"
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_what_assets_demanded_before_they_had_constraints_is_kept(empty_engine: Engine) -> None:
    """Every single rule becomes a constraint of the asset and of each of its versions; the keys of live leases stay."""
    upgrade_to(empty_engine, BEFORE_CONSTRAINTS)
    asset = (
        "INSERT INTO asset (asset, tenant, kind, classification, purposes, residency_allowed, residency_forbidden, "
        "state, max_nodes, created_at) VALUES (:asset, 'acme', :kind, :classification, :purposes, :allowed, "
        ":forbidden, :state, :most, 7)"
    )
    version = (
        "INSERT INTO asset_version (asset, version, key_id, wrapped_key, manifest_digest, manifest, state, created_at) "
        "VALUES (:asset, :version, 'k', :key, :digest, NULL, :state, 8)"
    )
    common = {"kind": "model", "classification": 0, "forbidden": "[]", "state": "active", "most": None}
    rows = [
        common
        | {"asset": "acme/a", "purposes": '["b","a"]', "allowed": '["FR","DE"]', "forbidden": '["US"]', "most": 3},
        common | {"asset": "acme/b", "purposes": '["x:y"]', "allowed": '["EU","*"]', "state": "revoked"},
        common | {"asset": "acme/c", "purposes": "[]", "allowed": "[]", "kind": "dataset", "classification": 4},
    ]
    lease = (
        "INSERT INTO lease (lease_id, nonce, node_id, grant_id, job_uid, tenant, transcript, hpke_key, signing_key, "
        "assets, policy_digest, state, granted_at, expires_at, ended_at, renewed_count, next_nonce, entry_hash, "
        "attestation_result, obligations) VALUES (:lease, :nonce, 'n', 'g', 'j', 'acme', :b, :b, :b, :assets, :b, "
        ":state, 1, 2, NULL, 0, :b, :b, '', '[]')"
    )
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO site VALUES ('s', 'DE', 'f', 'o', 'active', 9, 1)"))
        connection.execute(text("INSERT INTO node VALUES ('n', 's', 'active', 1)"))
        connection.execute(
            text("INSERT INTO job VALUES ('g', 'acme', 'j', 's', :b, :b, 'k', 'open', 1, 2, 1, 1)"), {"b": b"b"}
        )
        for row in rows:
            connection.execute(text(asset), row)
            for number in (1, 2):
                values = {"version": number, "key": b"w%d" % number, "digest": bytes(32)}
                connection.execute(text(version), values | {"asset": row["asset"], "state": row["state"]})
        for number, (state, refs) in enumerate(
            [("live", '["acme/a@1","acme/b@2"]'), ("live", '["acme/a@1"]'), ("returned", '["acme/c@1"]')]
        ):
            values = {"lease": f"lease-{number}", "nonce": b"%d" % number, "assets": refs, "state": state, "b": b"b"}
            connection.execute(text(lease), values)
    assert "0004" in migrate(empty_engine)
    expected = {
        "acme/a": Constraints(
            purposes=frozenset({"a", "b"}), residency=Areas.of(["DE", "FR"], ["US"]), node_ceiling=3
        ).to_json(),
        "acme/b": '{"purposes":["x:y"],"residency":{"allowed":[["*"]]}}',
        "acme/c": '{"classification":4,"purposes":[],"residency":{"allowed":[[]]}}',
    }
    with empty_engine.connect() as connection:
        found = connection.execute(text("SELECT asset, kind, state, created_at, constraints FROM asset ORDER BY asset"))
        assert [tuple(row) for row in found] == [
            ("acme/a", "model", "active", 7, expected["acme/a"]),
            ("acme/b", "model", "revoked", 7, expected["acme/b"]),
            ("acme/c", "dataset", "active", 7, expected["acme/c"]),
        ]
        for name, version_number, key, constraints in connection.execute(
            text("SELECT asset, version, wrapped_key, constraints FROM asset_version")
        ):
            assert bytes(key) == b"w%d" % version_number
            assert constraints == expected[name]
        held = connection.execute(text("SELECT lease_id, asset, version FROM held_key ORDER BY lease_id, asset"))
        assert [tuple(row) for row in held] == [
            ("lease-0", "acme/a", 1),
            ("lease-0", "acme/b", 2),
            ("lease-1", "acme/a", 1),
        ]
    for constraints in expected.values():
        Constraints.parse(constraints)
    check_current(empty_engine)


def test_sites_and_nodes_from_before_records_stay_and_their_sites_are_suspended(empty_engine: Engine) -> None:
    upgrade_to(empty_engine, "0004")
    with empty_engine.begin() as connection:
        for statement in (
            """INSERT INTO site (site_id, jurisdiction, facility, operator, state, valid_until, created_at)
            VALUES ('ber1', 'DE', 'Berlin 1', 'ACME', 'active', 900, 100),
                   ('old1', 'DE', 'Berlin 0', 'ACME', 'retired', 900, 90)""",
            "INSERT INTO node (node_id, site_id, state, created_at) VALUES ('n1', 'ber1', 'active', 110)",
            """INSERT INTO node_identity (identity, node_id, slot)
            VALUES ('amd-chip-id:01', 'n1', 'cpu0'), ('nvidia-gpu:02', 'n1', 'gpu0')""",
        ):
            connection.execute(text(statement))
    assert migrate(empty_engine)[0] == "0005"
    with read(empty_engine) as connection:
        ber1, old1 = sites.page(connection)
        assert (ber1.state, old1.state) == (schema.SiteState.SUSPENDED, schema.SiteState.RETIRED)
        assert (ber1.serial, ber1.valid_from, ber1.valid_until, ber1.exposures) == (0, 100, 900, ())
        node = nodes.get(connection, "n1")
        assert (node.custody, node.partition, node.rack) == (schema.Custody.INSTALLED, "", "")
        assert [(each.slot, each.identity) for each in node.devices] == [
            ("cpu0", "amd-chip-id:01"),
            ("gpu0", "nvidia-gpu:02"),
        ]
        assert nodes.divided_hosts(connection, ["amd-chip-id:01"]) == {"amd-chip-id:01": False}


def test_entries_from_before_get_what_questions_need_from_their_payloads(empty_engine: Engine) -> None:
    upgrade_to(empty_engine, "0006")
    columns = {column["name"] for column in inspect(empty_engine).get_columns("audit_entry")}
    details: list[dict[str, Any] | None] = [
        {"expires_at": 1_900_000_000, "user": "ada"},
        {"user": "bob"},
        {},
        None,
        {"user": ["no", "text"], "expires_at": True},
    ]
    with empty_engine.begin() as connection:
        for number, detail in enumerate(details):
            payload = None if detail is None else json.dumps({"detail": detail}).encode()
            connection.execute(
                text("INSERT INTO audit_entry (digest, leaf_hash, salt, payload) VALUES (:d, :h, :s, :p)"),
                {"d": bytes(32), "h": bytes([number]) * 32, "s": None if payload is None else b"s", "p": payload},
            )
    assert {"job_user", "expires_at"}.isdisjoint(columns)
    assert migrate(empty_engine)[0] == "0007"
    with empty_engine.connect() as connection:
        found = connection.execute(text("SELECT job_user, expires_at FROM audit_entry ORDER BY leaf_hash")).all()
    nothing = (None, None)
    assert [tuple(row) for row in found] == [("ada", 1_900_000_000), ("bob", None), nothing, nothing, nothing]


def test_entries_from_before_get_blocks_of_their_times_and_places_of_their_reasons(empty_engine: Engine) -> None:
    upgrade_to(empty_engine, "0011")
    entry = "INSERT INTO audit_entry (id, leaf_index, digest, leaf_hash, time) VALUES (:id, :place, :d, :h, :time)"
    # The places run against the ids; one entry is erased, one waits.
    rows: list[tuple[int, int | None, int | None]] = [
        (11, 4097, 70),
        (12, 4096, 50),
        (13, 1, 20),
        (14, 0, 30),
        (15, 9000, None),
        (16, None, 99),
    ]
    with empty_engine.begin() as connection:
        for row_id, place, time in rows:
            values = {"id": row_id, "place": place, "d": bytes(32), "h": bytes([row_id]) * 32, "time": time}
            connection.execute(text(entry), values)
            if row_id != 15:
                connection.execute(
                    text("INSERT INTO audit_entry_reason (entry_id, reason) VALUES (:id, 'NO_SITE')"), {"id": row_id}
                )
    assert migrate(empty_engine)[0] == "0012"
    with empty_engine.connect() as connection:
        blocks = connection.execute(text("SELECT block, earliest, latest FROM audit_time_block ORDER BY block"))
        assert [tuple(row) for row in blocks] == [(0, 20, 30), (1, 50, 70)]
        places = connection.execute(text("SELECT entry_id, leaf_index FROM audit_entry_reason ORDER BY entry_id"))
        assert [tuple(row) for row in places] == [(row_id, place) for row_id, place, _ in rows if row_id != 15]


def test_jobs_from_before_attempts_keep_their_grant(empty_engine: Engine) -> None:
    upgrade_to(empty_engine, "0007")
    with empty_engine.begin() as connection:
        for name in ("g1", "g2"):
            connection.execute(
                text(
                    'INSERT INTO job (grant_id, tenant, job_uid, scheduler, "grant", signature, signing_key_id, state, '
                    "not_before, not_after, node_ceiling, created_at) "
                    "VALUES (:name, 'acme', :name, 's', :grant, :grant, 'k', 'open', 1, 20, 1, 10)"
                ),
                {"name": name, "grant": name.encode() * 9},
            )
    assert migrate(empty_engine)[0] == "0008"
    with read(empty_engine) as connection:
        job = jobs.get(connection, "g1")
        assert (job.attempt, job.standing, job.budgets) == (1, "open", "{}")
        assert jobs.find_issued(connection, "g2") == jobs.IssuedGrant(
            grant_id="g2", job="g2", attempt=1, digest=sha256(b"g2" * 9), not_after=20, issued_at=10
        )
        assert jobs.find_issued_by_digest(connection, job="g1", digest=sha256(b"g1" * 9)) is not None
        assert jobs.find_issued_by_digest(connection, job="g1", digest=sha256(b"g2" * 9)) is None
