from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import grpc
import pytest

from attester.client import BrokerClient
from attester.errors import (
    AccessDeniedError,
    AttesterError,
    BadAnswerError,
    BrokerUnavailableError,
    CollectionError,
    CredentialError,
    LeaseEndedError,
    ObligationError,
    RequestRefusedError,
)
from attester.handshake import SignedGrant
from attester.keeper import LeaseKeeper
from attester.lease import Lease, acquire
from keystead.binding import AssetRef
from keystead.v1 import denial_pb2
from sealed.errors import ClosedError, ManifestError, ManifestSignatureError
from sealed.manifest import MANIFEST_NAME
from tests.unit.attester.fake_broker import KEY, NODE, OTHER, REF, Clock, FakeBroker, FakeCollector, Refusal

DENIED = Refusal(
    grpc.StatusCode.PERMISSION_DENIED,
    reason="DENIED",
    denial=denial_pb2.Denial(
        reasons=[denial_pb2.DenialReason(code="A", message="a"), denial_pb2.DenialReason(code="B", message="b")],
        record_hash=b"h" * 32,
    ),
)
ABSENT = Refusal(grpc.StatusCode.INTERNAL, reason="INTERNAL")


class Node:
    """What a node has at hand."""

    def __init__(self, client: BrokerClient, collector: FakeCollector, grant: SignedGrant, clock: Clock) -> None:
        self.client, self.collector, self.grant, self.clock = client, collector, grant, clock

    def acquire(self, *assets: AssetRef, nonce: bytes | None = None, node_id: str = NODE) -> Lease:
        return acquire(
            self.client,
            self.collector,
            grant=self.grant,
            assets=assets or (REF,),
            node_id=node_id,
            nonce=nonce,
            clock=lambda: self.clock.wall,
            monotonic=lambda: self.clock.mono,
        )


@pytest.fixture
def node(client: BrokerClient, collector: FakeCollector, grant: SignedGrant, clock: Clock) -> Node:
    return Node(client, collector, grant, clock)


def test_one_round_trip_with_the_grants_nonce(node: Node, broker: FakeBroker, folder: Path) -> None:
    with node.acquire(REF, OTHER, nonce=broker.nonce) as lease:
        assert broker.names() == ["AcquireLease"]
        assert lease.lease_id == "lease-1"
        assert lease.assets == (OTHER, REF)
        assert lease.live
        assert lease.remaining() == 600
        assert [each.code for each in lease.terms.obligations] == ["zeroise_on_end"]
        with lease.open(REF, folder, "config.json") as reader:
            assert reader.read_at(0, 9) == b"{}"
        with lease.open("acme/llama@3", folder, "weights.bin") as reader:
            assert reader.read_at(0, 10_000) == b"weights" * 1000
    assert broker.names() == ["AcquireLease", "ReturnLease"]
    assert broker.calls[-1][1].zeroised


def test_challenge_is_asked_for_without_a_nonce(node: Node, broker: FakeBroker) -> None:
    node.acquire()
    assert broker.names() == ["GetChallenge", "AcquireLease"]
    assert broker.calls[0][1].grant == node.grant.grant


def test_opens_only_what_the_broker_vouched_for(node: Node, broker: FakeBroker, folder: Path, tmp_path: Path) -> None:
    lease = node.acquire(REF, OTHER)
    with pytest.raises(CredentialError, match="covers"):
        lease.open(AssetRef("acme/llama", 4), folder, "config.json")
    with pytest.raises(CredentialError, match="not TENANT"):
        lease.open("acme/llama", folder, "config.json")
    with pytest.raises(ManifestError, match="say which"):
        lease.open(REF, folder)
    with pytest.raises(ManifestError, match="no file"):
        lease.open(REF, folder, "other")
    with pytest.raises(ManifestError, match="released key"):
        lease.open(OTHER, folder, "config.json")
    assert [file.name for file in lease.manifest(REF, folder).files] == ["config.json", "weights.bin"]
    manifest = folder / MANIFEST_NAME
    manifest.write_bytes(manifest.read_bytes().replace(b"acme", b"acmf"))
    with pytest.raises(ManifestSignatureError):
        lease.open(REF, folder, "config.json")


def test_return_erases_keys_and_closes_files(node: Node, broker: FakeBroker, folder: Path) -> None:
    lease = node.acquire()
    reader = lease.open(REF, folder, "weights.bin")
    data_key = lease._data_keys[REF]
    assert data_key.key == KEY
    assert lease.return_() is not None
    assert data_key.key == bytes(32)
    assert not lease.live
    with pytest.raises(ClosedError):
        reader.read_at(0, 1)
    for use in (lambda: lease.open(REF, folder, "weights.bin"), lambda: lease.manifest(REF, folder), lease.renew):
        with pytest.raises(LeaseEndedError, match="it was returned"):
            use()
    assert lease.return_() is None
    assert broker.names().count("ReturnLease") == 1


def test_hpke_private_key_does_not_outlive_the_answer(node: Node) -> None:
    from keystead.binding import HpkePrivateKey

    def private_keys() -> list[HpkePrivateKey]:
        gc.collect()
        return [each for each in gc.get_objects() if isinstance(each, HpkePrivateKey)]

    before = private_keys()  # other tests' own
    lease = node.acquire()
    assert all(any(each is known for known in before) for each in private_keys())
    assert not any(isinstance(value, HpkePrivateKey) for value in vars(lease).values())


def test_keys_are_erased_even_if_nobody_can_be_told(node: Node, broker: FakeBroker) -> None:
    lease = node.acquire()
    broker.next.append(ABSENT)
    with pytest.raises(BrokerUnavailableError):
        lease.return_()
    assert lease._data_keys[REF].key == bytes(32)
    assert lease.return_() is not None


def test_error_under_way_is_not_hidden(node: Node, broker: FakeBroker) -> None:
    with pytest.raises(ZeroDivisionError), node.acquire():
        broker.next.append(ABSENT)
        _ = 1 / 0
    with pytest.raises(BrokerUnavailableError), node.acquire(nonce=broker.nonce):
        broker.next.append(ABSENT)


def test_denial_has_every_reason(node: Node, broker: FakeBroker) -> None:
    broker.next.append(DENIED)
    with pytest.raises(AccessDeniedError) as caught:
        node.acquire(nonce=broker.nonce)
    assert [reason.code for reason in caught.value.reasons] == ["A", "B"]
    assert caught.value.record_hash == b"h" * 32
    assert caught.value.reason == "DENIED"
    assert broker.names() == ["AcquireLease"]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.lease.__setattr__("lease_id", ""),
        lambda a: a.lease.__setattr__("lease_id", "lease-2"),
        lambda a: a.lease.__setattr__("job_uid", "slurm:2"),
        lambda a: a.lease.__setattr__("node_id", "ber1-n02"),
        lambda a: a.lease.__setattr__("policy_digest", bytes(32)),
        lambda a: a.lease.__setattr__("policy_digest", b""),
        lambda a: a.lease.assets.add(asset="acme/corpus", version=1),
        lambda a: a.keys.pop(),
        lambda a: a.keys.append(a.keys[0]),
        lambda a: a.keys[0].__setattr__("key_id", "0" * 16),
        lambda a: a.keys[0].asset.__setattr__("version", 4),
        lambda a: a.keys[0].__setattr__("ciphertext", a.keys[0].ciphertext[:-1] + b"\0"),
        lambda a: a.keys[0].__setattr__("ciphertext", b""),
        lambda a: a.keys[0].__setattr__("manifest_digest", b""),
        lambda a: a.__setattr__("next_nonce", b""),
        lambda a: a.receipt.__setattr__("signature", b""),
        lambda a: a.receipt.Clear(),
    ],
)
def test_answers_that_contradict_the_request_are_refused(node: Node, broker: FakeBroker, change) -> None:
    def changed(answer):
        change(answer)
        return answer

    broker.next.append(changed)
    with pytest.raises(BadAnswerError):
        node.acquire(nonce=broker.nonce)


def test_requests_that_cannot_be_granted_are_not_sent(node: Node, broker: FakeBroker) -> None:
    with pytest.raises(CredentialError, match="grant is for"):
        node.acquire(AssetRef("acme/llama", 4))
    with pytest.raises(CredentialError, match="nonce"):
        node.acquire(nonce=b"short")
    with pytest.raises(CredentialError, match="node_id"):
        node.acquire(nonce=broker.nonce, node_id="two words")
    with pytest.raises(CredentialError, match="from broker"):
        acquire(node.client, node.collector, grant=node.grant, assets=[REF], node_id=NODE, broker="other")
    assert broker.calls == []


def test_devices_cannot_share_a_slot(node: Node, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    one = node.collector.devices(bytes(32))[0]
    monkeypatch.setattr(node.collector, "devices", lambda nonce: (one, one))
    with pytest.raises(CollectionError, match="slot"):
        node.acquire(nonce=broker.nonce)


def add_obligation(code: str, params: str):
    def change(answer):
        answer.obligations.add(code=code, params=params)
        return answer

    return change


def test_duty_that_nobody_fulfils_gives_the_lease_back(node: Node, broker: FakeBroker) -> None:
    broker.next.append(add_obligation("watermark", "{}"))
    with pytest.raises(ObligationError, match="watermark"):
        node.acquire(nonce=broker.nonce)
    assert broker.names() == ["AcquireLease", "ReturnLease"]
    broker.next.append(add_obligation("watermark", "{}"))
    lease = acquire(
        node.client,
        node.collector,
        grant=node.grant,
        assets=[REF],
        node_id=NODE,
        nonce=broker.nonce,
        fulfils=frozenset({"watermark"}),
        clock=lambda: node.clock.wall,
    )
    assert lease.live
    broker.next.append(add_obligation("another", "{}"))
    with pytest.raises(ObligationError, match="another"):
        lease.renew()
    assert not lease.live


def test_re_attestation_is_due_before_expiry(node: Node, broker: FakeBroker) -> None:
    broker.next.append(add_obligation("re_attest", '{"seconds":60}'))
    lease = node.acquire(nonce=broker.nonce)
    assert lease.terms.re_attest == 60
    assert lease.renewal_due() == 60
    node.clock.advance(580)
    assert lease.renewal_due() == lease.remaining() == 20
    for params in ("", "{}", "[]", '{"seconds":"60"}', '{"seconds":0}', '{"seconds":true}', '{"seconds":1.5}'):
        broker.next.append(add_obligation("re_attest", params))
        with pytest.raises(BadAnswerError, match="re_attest"):
            node.acquire(nonce=broker.nonce)


def test_renewal_extends_on_fresh_evidence(node: Node, broker: FakeBroker, folder: Path) -> None:
    lease = node.acquire()
    node.clock.advance(500)
    assert lease.remaining() == 100
    assert lease.renew().expires_at == node.clock.wall + 600
    assert lease.remaining() == 600
    lease.renew()
    assert node.collector.count == 3
    assert lease.terms.attestation_result == "ear2"
    with lease.open(REF, folder, "config.json") as reader:
        assert reader.size == 2


def test_unanswered_renewal_is_repeated_as_it_was(node: Node, broker: FakeBroker) -> None:
    lease = node.acquire()
    broker.next.append(ABSENT)
    with pytest.raises(BrokerUnavailableError):
        lease.renew()
    assert lease.live
    lease.renew()
    first, second = (request for name, request in broker.calls if name == "RenewLease")
    assert first == second
    assert node.collector.count == 2


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (DENIED, AccessDeniedError),
        (Refusal(grpc.StatusCode.FAILED_PRECONDITION, reason="CHALLENGE_EXPIRED"), RequestRefusedError),
        (Refusal(grpc.StatusCode.NOT_FOUND, reason="NOT_FOUND"), RequestRefusedError),
    ],
)
def test_refused_renewal_erases_the_keys(
    node: Node, broker: FakeBroker, folder: Path, refusal: Refusal, error: type[AttesterError]
) -> None:
    lease = node.acquire()
    reader = lease.open(REF, folder, "weights.bin")
    broker.next.append(refusal)
    with pytest.raises(error):
        lease.renew()
    assert not lease.live
    assert lease._data_keys[REF].key == bytes(32)
    assert reader.closed
    with pytest.raises(LeaseEndedError, match="refused"):
        lease.renew()


def test_renewal_answered_for_another_lease_erases_the_keys(node: Node, broker: FakeBroker) -> None:
    def other(answer):
        answer.lease.lease_id = "lease-2"
        return answer

    lease = node.acquire()
    broker.next.append(other)
    with pytest.raises(BadAnswerError):
        lease.renew()
    assert not lease.live


@pytest.mark.parametrize("which", ["wall", "mono"])
def test_expiry_erases_the_keys_by_either_clock(node: Node, broker: FakeBroker, folder: Path, which: str) -> None:
    lease = node.acquire()
    reader = lease.open(REF, folder, "weights.bin")
    setattr(node.clock, which, getattr(node.clock, which) + 600)
    assert not lease.live
    with pytest.raises(LeaseEndedError, match="expired"):
        lease.open(REF, folder, "config.json")
    assert reader.closed
    assert lease._data_keys[REF].key == bytes(32)
    with pytest.raises(LeaseEndedError, match="expired"):
        lease.renew()
    assert "RenewLease" not in broker.names()


def real_time(node: Node) -> Lease:
    return acquire(node.client, node.collector, grant=node.grant, assets=[REF], node_id=NODE)


def wait_for(condition, seconds: float = 8) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def test_keeper_renews_in_time(node: Node, broker: FakeBroker) -> None:
    broker.now, broker.lifetime = time.time, 2
    lease = real_time(node)
    ended = list[AttesterError]()
    with LeaseKeeper(lease, on_end=ended.append, renew_at=0.9, min_pause=0.05):
        wait_for(lambda: broker.names().count("RenewLease") >= 2)
        assert lease.live
    renewals = broker.names().count("RenewLease")
    time.sleep(0.2)
    assert broker.names().count("RenewLease") == renewals
    assert lease.live
    assert ended == []


def test_keeper_ends_a_refused_lease(node: Node, broker: FakeBroker, folder: Path) -> None:
    broker.now = time.time
    lease = real_time(node)
    reader = lease.open(REF, folder, "weights.bin")
    broker.next.append(DENIED)
    ended = list[AttesterError]()
    with LeaseKeeper(lease, on_end=ended.append, renew_at=0.0001, min_pause=0.01):
        wait_for(lambda: ended)
    assert isinstance(ended[0], AccessDeniedError)
    assert len(ended) == 1
    assert reader.closed


def test_keeper_tries_until_the_lease_expires(node: Node, broker: FakeBroker, folder: Path) -> None:
    broker.now, broker.lifetime = time.time, 2
    lease = real_time(node)
    reader = lease.open(REF, folder, "weights.bin")
    broker.next.extend([ABSENT] * 1000)
    ended = list[AttesterError]()
    with LeaseKeeper(lease, on_end=ended.append, min_pause=0.02):
        wait_for(lambda: ended)
    assert isinstance(ended[0], LeaseEndedError)
    assert len(ended) == 1
    assert broker.names().count("RenewLease") > 2
    assert reader.closed


def test_keeper_does_not_wait_for_a_renewal_that_hangs(node: Node, broker: FakeBroker, folder: Path) -> None:
    broker.now, broker.lifetime = time.time, 2
    lease = real_time(node)
    reader = lease.open(REF, folder, "weights.bin")
    release = threading.Event()

    def hang(answer):
        release.wait(10)
        return answer

    broker.next.append(hang)
    ended = list[AttesterError]()
    keeper = LeaseKeeper(lease, on_end=ended.append, renew_at=0.01, min_pause=0.01)
    keeper.start()
    wait_for(lambda: ended)
    assert reader.closed
    assert isinstance(ended[0], LeaseEndedError)
    release.set()
    keeper.stop()
    assert len(ended) == 1
    assert not lease.live


@pytest.mark.parametrize("settings", [{"renew_at": 0}, {"renew_at": 1}, {"min_pause": 0}])
def test_keeper_refuses_settings_that_cannot_work(node: Node, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LeaseKeeper(node.acquire(), **settings)
