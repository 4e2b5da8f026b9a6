"""The main job through the real broker: a node proves what it is, policy decides, a key is released and logged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from factory import Factory

from keystead.v1 import audit_service_pb2


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def factory(request: pytest.FixtureRequest, make_factory: Callable[..., Factory]) -> Factory:
    database = request.getfixturevalue("postgres_database") if request.param == "postgres" else None
    made = make_factory(database=database)
    made.enrol_site("fra-1", "FR")
    made.enrol_site("ash-1", "US")
    made.enrol_node("node-a", "fra-1", gpus=2)
    made.enrol_node("node-us", "ash-1", gpus=1)
    return made


def test_a_good_node_gets_the_key_and_the_use_is_on_record(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref, job_uid="slurm:1")
    lease = factory.acquire("node-a", authorized, ref)
    assert lease._data_key(ref)[1].key == factory.data_keys[str(ref)]
    factory.broker.sequencer.run_once(factory.clock())
    answer = factory.stubs("auditor").audit.QueryRecords(audit_service_pb2.QueryRecordsRequest(kind="lease.granted"))
    assert len(answer.records) == 1
    assert b'"node":"node-a"' in answer.records[0].payload
    assert answer.records[0].leaf_hash == lease.terms.receipt.entry_hash
