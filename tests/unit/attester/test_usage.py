"""What the SDK counts and reports of a lease's use."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from attester.client import BrokerClient
from attester.errors import (
    AttesterError,
    BadAnswerError,
    BrokerUnavailableError,
    CredentialError,
    RequestRefusedError,
)
from attester.handshake import SignedGrant
from attester.keeper import LeaseKeeper
from attester.lease import Lease, acquire
from keystead.binding import AssetRef, AssetUse
from tests.unit.attester.fake_broker import NODE, OTHER, REF, FakeBroker, FakeCollector, Refusal

ABSENT = Refusal(grpc.StatusCode.INTERNAL, reason="INTERNAL")
REFUSED = Refusal(grpc.StatusCode.FAILED_PRECONDITION, reason="STATE_CONFLICT")


def asking(every: str = '{"every":60}') -> Callable[[Any], Any]:
    def change(answer: Any) -> Any:
        answer.obligations.add(code="report_usage", params=every)
        return answer

    return change


@pytest.fixture
def lease(client: BrokerClient, collector: FakeCollector, grant: SignedGrant, broker: FakeBroker) -> Lease:
    broker.now, broker.lifetime = time.time, 100_000
    return acquired(client, collector, grant, broker, asking())


def acquired(
    client: BrokerClient,
    collector: FakeCollector,
    grant: SignedGrant,
    broker: FakeBroker,
    change: Callable[[Any], Any] | None,
    *assets: AssetRef,
) -> Lease:
    if change is not None:
        broker.next.append(change)
    return acquire(client, collector, grant=grant, assets=assets or (REF,), node_id=NODE, nonce=broker.nonce)


def test_what_readers_decrypt_and_what_a_program_serves_is_reported(
    lease: Lease, broker: FakeBroker, folder: Path
) -> None:
    assert lease.terms.report_every == 60
    with lease.open(REF, folder, "weights.bin") as reader:
        size = reader.size
        assert reader.read_at(0, 10) == b"weightswei"
        reader.read_into(bytearray(size), threads=2)
        reader.verify()
        list(reader)
    lease.count(REF, tokens=5)
    lease.count("acme/llama@3", tokens=2, bytes_served=3)
    lease.report()
    use = AssetUse(ref=REF, bytes_opened=10 + 3 * size, tokens_served=7, bytes_served=3)
    assert lease.uses == (use,)
    assert broker.reports == [(1, [use])]


def test_a_read_that_fails_opened_nothing(lease: Lease, folder: Path) -> None:
    with lease.open(REF, folder, "config.json") as reader, pytest.raises(ValueError, match="offset -1"):
        reader.read_into(bytearray(4), offset=-1)
    assert lease.uses[0].bytes_opened == 0


def test_counts_from_many_threads_are_all_there(lease: Lease) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: lease.count(REF, tokens=1, bytes_served=2), range(500)))
    assert (lease.uses[0].tokens_served, lease.uses[0].bytes_served) == (500, 1_000)


def test_only_what_the_lease_covers_is_counted_and_nothing_is_taken_back(lease: Lease) -> None:
    with pytest.raises(CredentialError, match="covers"):
        lease.count(OTHER, tokens=1)
    with pytest.raises(CredentialError):
        lease.count("not an asset")
    for wrong in ({"tokens": -1}, {"bytes_served": -1}):
        with pytest.raises(ValueError, match="stays used"):
            lease.count(REF, **wrong)
    assert lease.uses == (AssetUse(ref=REF),)


def test_a_renewal_and_the_return_come_with_a_report(lease: Lease, broker: FakeBroker) -> None:
    broker.next.extend([lambda answer: answer, asking()])
    lease.renew()
    lease.count(REF, tokens=9)
    lease.return_()
    assert broker.names() == ["AcquireLease", "ReportUsage", "RenewLease", "ReportUsage", "ReturnLease"]
    assert [(number, uses[0].tokens_served) for number, uses in broker.reports] == [(1, 0), (2, 9)]


def test_nothing_is_reported_where_nobody_asks(
    client: BrokerClient, collector: FakeCollector, grant: SignedGrant, broker: FakeBroker
) -> None:
    broker.now = time.time
    lease = acquired(client, collector, grant, broker, None)
    assert lease.terms.report_every is None
    lease.renew()
    lease.return_()
    assert "ReportUsage" not in broker.names()


def test_every_asset_is_in_every_report(
    client: BrokerClient, collector: FakeCollector, grant: SignedGrant, broker: FakeBroker
) -> None:
    broker.now = time.time
    lease = acquired(client, collector, grant, broker, asking(), REF, OTHER)
    lease.count(REF, tokens=1)
    lease.report()
    assert broker.reports[0][1] == [AssetUse(ref=OTHER), AssetUse(ref=REF, tokens_served=1)]


def test_no_answer_keeps_the_lease_and_the_next_number_is_higher(lease: Lease, broker: FakeBroker) -> None:
    broker.next.append(ABSENT)
    with pytest.raises(BrokerUnavailableError):
        lease.renew()
    assert lease.live
    lease.report()
    assert [number for number, _ in broker.reports] == [2]


def test_a_lease_whose_reports_are_not_taken_ends_with_its_renewal(lease: Lease, broker: FakeBroker) -> None:
    broker.next.append(REFUSED)
    with pytest.raises(RequestRefusedError):
        lease.renew()
    assert not lease.live


def test_it_is_returned_though_its_last_report_is_not_taken(lease: Lease, broker: FakeBroker) -> None:
    broker.next.append(REFUSED)
    assert lease.return_() is not None
    assert broker.names()[-2:] == ["ReportUsage", "ReturnLease"]


def test_a_return_is_repeated_without_its_report(lease: Lease, broker: FakeBroker) -> None:
    broker.next.extend([lambda answer: answer, ABSENT])
    with pytest.raises(BrokerUnavailableError):
        lease.return_()
    assert lease.return_() is not None
    assert broker.names().count("ReportUsage") == 1


@pytest.mark.parametrize("params", ["", "{}", '{"every":0}', '{"every":"60"}', '{"every":true}', "[]"])
def test_a_period_that_cannot_be_read_is_a_bad_answer(
    client: BrokerClient, collector: FakeCollector, grant: SignedGrant, broker: FakeBroker, params: str
) -> None:
    broker.now = time.time
    with pytest.raises(BadAnswerError, match="report_usage"):
        acquired(client, collector, grant, broker, asking(params))


def test_the_keeper_reports_in_time_and_outlives_a_lost_report(lease: Lease, broker: FakeBroker) -> None:
    broker.next.append(ABSENT)
    ended = list[AttesterError]()
    with LeaseKeeper(lease, on_end=ended.append, renew_at=0.001, min_pause=0.2):
        end = time.monotonic() + 8
        while len(broker.reports) < 3:
            assert time.monotonic() < end, "no reports"
            time.sleep(0.01)
    assert ended == []
    assert lease.live
