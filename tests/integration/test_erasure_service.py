"""Erasing a tenant's or user's records through the broker: who may, when, what everybody sees afterwards."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import add_client, refusal
from factory import Factory, request_id
from sqlalchemy import select, update

from audit.database import snapshot
from audit.errors import KeyringError
from audit.keyring import bind
from audit.lineage import trace
from audit.log import append
from audit.payload import KEYED_ENTRY, PAYLOAD_COLUMNS, PayloadReader
from audit.proof import ProofBundle, verify_bundle
from audit.publish import publish
from audit.query import Filter, query
from audit.records import Record
from audit.sealing import any_clear
from audit.stores import FileStore
from audit.tables import AUDIT_ENTRY, AUDIT_ERASURE, AUDIT_KEY
from audit.verify import LogResult, verify_log
from audit.verify_tiles import verify_tiles
from keybroker import erasure
from keybroker.broker import Broker, load_log_keyring
from keybroker.principals import Principal, Role
from keybroker.store.engine import open_engine
from keybroker.store.schema import LEASE, LeaseState
from keystead.cli.main import run
from keystead.v1 import audit_service_pb2 as pb
from keystead.v1 import job_service_pb2

Told = tuple[Factory, Any]


def erase(factory: Factory, tenant: str = "acme", *, profile: str = "operator", **fields: Any) -> Any:
    request = pb.EraseRecordsRequest(
        request_id=fields.pop("request_id", request_id()),
        tenant=tenant,
        user=fields.pop("user", ""),
        reason=fields.pop("reason", "request 2026-117"),
    )
    return factory.stubs(profile).audit.EraseRecords(request)


def check(factory: Factory) -> LogResult:
    factory.broker.sequence()
    with factory.broker.read() as connection:
        return verify_log(connection, factory.broker.keys.log.verifier)


def end(factory: Factory, tenant: str, job_uid: str) -> None:
    factory.stubs(f"{tenant}-scheduler").jobs.EndJob(
        job_service_pb2.EndJobRequest(request_id=request_id(), job_uid=job_uid)
    )


@pytest.fixture
def told(any_factory: Factory) -> Told:
    """Two tenants' assets, a lease of each; acme's job ran for ada and is over."""
    ours, theirs = any_factory.register_asset(), any_factory.register_asset("globex/data")
    any_factory.acquire("node-a", any_factory.authorize(ours, job_uid="slurm:ada", user="ada"), ours)
    any_factory.acquire("node-b", any_factory.authorize(ours, job_uid="slurm:none"), ours)
    any_factory.acquire("node-b", any_factory.authorize(theirs, tenant="globex", job_uid="slurm:theirs"), theirs)
    any_factory.broker.sequence()
    return any_factory, ours


def test_a_lease_that_is_granted_while_an_erasure_begins_is_seen(told: Told) -> None:
    factory, _ = told
    if factory.broker.engine.dialect.name == "sqlite":
        pytest.skip("SQLITE has one writer at a time: no lease is granted meanwhile")
    end(factory, "acme", "slurm:ada")
    of_ada = LEASE.c.job_uid == "slurm:ada"
    with factory.broker.read() as connection:
        record = next(
            found
            for entry in query(connection, Filter(user="ada")).entries
            if (found := entry.record()) is not None and found.lease is not None
        )
    answers: list[Any] = []
    eraser = threading.Thread(target=lambda: answers.append(refusal(lambda: erase(factory, user="ada"))))
    with factory.broker.engine.begin() as granting:
        append(granting, record)  # a release that has recorded under the user's key, and is about to commit
        eraser.start()
        time.sleep(0.5)
        granting.execute(update(LEASE).where(of_ada).values(state=LeaseState.LIVE, expires_at=factory.clock() + 600))
    eraser.join()
    assert (answers[0].status, answers[0].reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT")
    with factory.broker.read() as connection:
        assert not connection.execute(select(AUDIT_ERASURE)).all()
        assert not connection.execute(select(AUDIT_KEY).where(AUDIT_KEY.c.erasure_id.is_not(None))).all()


def test_a_users_records_are_erased_once_no_lease_of_theirs_lives(told: Told) -> None:
    factory, _ = told
    refused = refusal(lambda: erase(factory, user="ada"))
    assert (refused.status, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT")
    assert "live leases of 1 jobs" in refused.message
    assert "ada" not in refused.message
    end(factory, "acme", "slurm:ada")
    again = request_id()
    done = erase(factory, user="ada", request_id=again)
    assert (done.keys, done.cleared) == (1, True)
    assert done.records >= 1
    assert erase(factory, user="ada", request_id=again) == done
    nothing = refusal(lambda: erase(factory, user="ada"))
    assert (nothing.status, nothing.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERASURE_REFUSED")
    result = check(factory)
    assert (result.problems, len(result.erased)) == ((), done.records)
    auditor = factory.stubs("auditor").audit
    answer = auditor.QueryRecords(pb.QueryRecordsRequest(kind="audit.erased"))
    (record,) = (Record.parse(each.payload) for each in answer.records)
    assert answer.records[0].leaf_hash == done.leaf_hash
    assert (record.tenant, record.actor.name, record.detail["reason"]) == ("acme", "operator", "request 2026-117")
    assert not re.search(rb"\bada\b", answer.records[0].payload)  # digests are hexadecimal
    assert not auditor.QueryRecords(pb.QueryRecordsRequest(user="ada")).records
    assert auditor.QueryRecords(pb.QueryRecordsRequest(job_uid="slurm:none")).records


def test_an_erased_tenant_is_gone_from_every_answer_and_every_proof_holds(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factory, ours = told
    verifier = factory.broker.keys.log.verifier
    assert refusal(lambda: erase(factory)).reason == "STATE_CONFLICT"
    for uid in ("slurm:ada", "slurm:none"):
        end(factory, "acme", uid)
    done = erase(factory)
    assert (done.keys, done.cleared) == (2, True)
    factory.broker.sequence()
    auditor = factory.stubs("auditor").audit
    everything = auditor.QueryRecords(pb.QueryRecordsRequest(page_size=1_000)).records
    gone = [each.leaf_index for each in everything if not each.payload]
    assert len(gone) == done.records > 5
    assert not any(b"acme/" in each.payload for each in everything)
    assert any(b"globex/data" in each.payload for each in everything)
    streamed = [
        record.leaf_index
        for message in auditor.StreamRecords(pb.StreamRecordsRequest(query=pb.QueryRecordsRequest()), timeout=60)
        for record in message.records
        if not record.payload
    ]
    assert streamed == gone
    for index in (gone[0], gone[-1]):
        bundle = ProofBundle.parse(auditor.ProveRecord(pb.ProveRecordRequest(leaf_index=index)).bundle)
        result = verify_bundle(bundle, verifier)
        assert (result.ok, result.erased, result.record) == (True, True, None)
    for tenant, kinds in (("acme", {"audit.erased", "audit.read"}), ("globex", {"lease.granted"})):
        of_tenant = factory.stubs(add_client(factory, Principal(Role.AUDITOR, f"{tenant}-eye", tenant))).audit
        records = of_tenant.QueryRecords(pb.QueryRecordsRequest()).records
        seen = {Record.parse(each.payload).kind.value for each in records}
        assert kinds >= seen if tenant == "acme" else kinds <= seen
        if tenant == "acme":
            absent = refusal(lambda stub=of_tenant: stub.ProveRecord(pb.ProveRecordRequest(leaf_index=gone[0])))
            assert absent.reason == "ENTRY_NOT_FOUND"
    with factory.broker.read() as connection:
        found = trace(lambda wanted: iter(query(connection, wanted, limit=1_000).entries), str(ours), up=True)
        assert not found.edges
        assert not query(connection, Filter(asset=ours.asset)).entries
    result = check(factory)
    assert (result.problems, list(result.erased)) == ((), gone)
    store = FileStore(tmp_path / "public")
    publish(factory.broker.read, store, verifier)
    assert not verify_tiles(store, verifier).problems
    # An evidence package shows the gaps, names the record of the erasure, and verifies.
    package = tmp_path / "package.zip"
    installed = ["--database", str(factory.installation.config)]
    assert run(["audit", "report", *installed, "--out", str(package), "--json"]) == 0
    capsys.readouterr()
    assert run(["audit", "verify", str(package), "--key", str(factory.installation.log_verifier_key), "--json"]) == 0
    told_gaps = capsys.readouterr().out
    assert "ERASED" in told_gaps
    assert "ERASED_UNRECORDED" not in told_gaps
    # What the command line says of the database, with its keys and without.
    vkey = str(factory.installation.log_verifier_key)
    for database in (str(factory.installation.config), factory.config.database_url):
        capsys.readouterr()
        assert run(["audit", "verify", "--database", database, "--key", vkey, "--json"]) == 0
        verdict = json.loads(capsys.readouterr().out)
        assert (verdict["verified"], verdict["erased"]) == (True, gone)
        assert (verdict["sealed"] > 0) == ("://" in database)
        out = tmp_path / "out.jsonl"
        assert run(["audit", "export", "--format", "jsonl", "--out", str(out), "--database", database]) == 0
        note = capsys.readouterr().err
        for command in (["export", "--format", "csv", "--out", str(tmp_path / "c.csv")], ["lineage", "globex/data"]):
            assert run(["audit", *command, "--database", database]) == (2 if "://" in database else 0)
            if "://" in database:
                assert "LOG_KEYS_NEEDED" in capsys.readouterr().err
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["index"] for line in lines if line["record"] is None and not line["sealed"]] == gone
        assert ("records are sealed" in " ".join(note.split())) == ("://" in database)


def test_who_may_erase_and_what_is_no_request(told: Told) -> None:
    factory, _ = told
    for profile in ("acme-owner", "acme-scheduler", "auditor", "node"):
        assert refusal(lambda profile=profile: erase(factory, profile=profile)).reason == "ROLE_NOT_ALLOWED"
    for fields, field in (
        ({"tenant": ""}, "tenant"),
        ({"tenant": "no such"}, "tenant"),
        ({"user": "no such"}, "user"),
        ({"reason": ""}, "reason"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 513}, "reason"),
        ({"user": "eve", "reason": "eve asked for it"}, "reason"),
    ):
        refused = refusal(lambda fields=fields: erase(factory, **fields))
        assert (refused.reason, refused.field) == ("INVALID_REQUEST", field)
    assert refusal(lambda: erase(factory, user="eve", reason="umlaut \u00fc")).reason == "BAD_AUDIT_RECORD"
    assert refusal(lambda: erase(factory, user="nobody")).reason == "ERASURE_REFUSED"


def test_maintenance_finishes_what_a_killed_broker_began(told: Told) -> None:
    """Each step is a transaction of its own; here the broker that took the first is gone."""
    factory, _ = told
    end(factory, "acme", "slurm:ada")
    operator = Principal(Role.OPERATOR, "operator", None)
    now = factory.clock()
    engine = open_engine(factory.config.database_url)
    with bind(engine, factory.broker.keyring).begin() as connection:
        number = erasure.begin(connection, caller=operator, tenant="acme", user="ada", reason="r 1", now=now)
    engine.dispose()
    wait_for(lambda: erasure.find(factory.broker, number).cleared)
    assert not check(factory).problems
    with factory.broker.read() as connection:
        row = connection.execute(select(AUDIT_ERASURE)).one()
        assert (row.subject, row.entries) == ("", erasure.find(factory.broker, number).entries)


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not done():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_two_brokers_with_keys_in_memory_agree(told: Told) -> None:
    factory, ours = told
    other = Broker.open(factory.config)
    try:
        for uid in ("slurm:ada", "slurm:none"):
            end(factory, "acme", uid)
        with other.read() as connection:
            before = query(connection, Filter(tenant="acme"), limit=1_000).entries
        assert all(entry.record() is not None for entry in before)
        done = erase(factory)
        again = Record.parse(before[0].payload or b"")
        other.commit(lambda connection: append(connection, again))
        other.sequence()
        with other.read() as connection:
            entries = query(connection, Filter(), limit=1_000).entries
            assert sum(entry.erased for entry in entries) == done.records
            assert entries[-1].record() == again
            assert other.keyring.forget_destroyed(connection) == 2
        assert not check(factory).problems
        assert factory.authorize(ours)
    finally:
        other.close()


def test_a_log_from_before_it_was_sealed_is_sealed_by_the_running_broker(told: Told) -> None:
    factory, _ = told
    # As a release without keys left it: this takes the keys out again.
    with factory.broker.engine.begin() as connection:
        entries = query(connection, Filter(), limit=1_000).entries
        rows = connection.execute(select(AUDIT_ENTRY.c.id, *PAYLOAD_COLUMNS).select_from(KEYED_ENTRY)).all()
        reader = PayloadReader(connection)
        for row in rows:
            opened = reader.open(row)
            connection.execute(
                update(AUDIT_ENTRY)
                .where(AUDIT_ENTRY.c.id == row.id)
                .values(salt=opened.salt, payload=opened.payload, sealed=None, key_id=None)
            )
        connection.execute(AUDIT_KEY.delete())
    wait_for(lambda: not clear_left(factory))
    with factory.broker.read() as connection:
        assert query(connection, Filter(), limit=1_000).entries[: len(entries)] == entries
        assert connection.execute(select(AUDIT_KEY.c.id)).all()
    assert not check(factory).problems
    assert erasure.seal(factory.broker, batches=1) == 0


def clear_left(factory: Factory) -> bool:
    with factory.broker.read() as connection:
        return any_clear(connection)


def test_the_command_asks_and_says_what_it_did(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    factory, _ = told
    end(factory, "acme", "slurm:ada")
    profile = factory.installation.profiles["operator"]
    profile.write_text(profile.read_text().replace(":8750", f":{factory.port}"))
    request = ["--tenant", "acme", "--user", "ada", "--reason", "request 7"]
    command = ["audit", "erase", *request, "--profile", str(profile)]
    assert run(command) == 2
    assert "Nobody can read them ever again" in " ".join(capsys.readouterr().err.split())
    assert run([*command, "--yes", "--json"]) == 0
    printed = capsys.readouterr().out  # the broker's own log, too
    done = json.loads(printed[printed.index("{") :])
    assert (done["keys"], done["cleared"]) == (1, True)
    assert run([*command, "--yes"]) == 2
    assert "holds no record of this user" in " ".join(capsys.readouterr().err.split())


def test_the_keys_are_the_logs_own(told: Told) -> None:
    factory, _ = told
    ring = load_log_keyring(factory.config)
    with snapshot(factory.config.database_url, ring) as connection:
        assert query(connection, Filter(tenant="acme")).entries[0].record() is not None
    other = factory.config.model_copy(update={"broker": factory.config.broker.model_copy(update={"name": "elsewhere"})})
    with (
        pytest.raises(KeyringError, match="elsewhere"),
        snapshot(factory.config.database_url, load_log_keyring(other)),
    ):
        pass
