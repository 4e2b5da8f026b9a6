from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from attester.client import BrokerClient
from attester.errors import AccessDeniedError, BadAnswerError, CredentialError
from attester.handshake import SignedGrant
from attester.lease import acquire
from attester.passport import Passport, appraise
from tests.unit.attester.fake_broker import NODE, REF, FakeBroker, FakeCollector, Refusal


def test_passport_stands_for_evidence(
    client: BrokerClient, broker: FakeBroker, collector: FakeCollector, grant: SignedGrant, folder: Path
) -> None:
    passport = appraise(client, collector, node_id=NODE)
    assert passport.node_id == NODE
    assert "signing_key" not in repr(passport)
    for _ in range(2):
        lease = acquire(
            client,
            collector,
            grant=grant,
            assets=[REF],
            node_id=NODE,
            passport=passport,
            clock=broker.now,
        )
        assert collector.count == 1
        with lease.open(REF, folder, "config.json") as reader:
            assert reader.read_at(0, 9) == b"{}"
    lease.renew()
    assert collector.count == 2
    assert lease.return_() is not None
    requests = [request for name, request in broker.calls if name == "AcquireLease"]
    assert all(request.WhichOneof("proof") == "passport" for request in requests)
    assert requests[0].passport.hpke_key != requests[1].passport.hpke_key


def test_passport_of_another_node_or_broker_is_not_presented(
    client: BrokerClient, broker: FakeBroker, collector: FakeCollector, grant: SignedGrant
) -> None:
    good = appraise(client, collector, node_id=NODE)
    for node_id, issuer in (("ber1-n02", good.broker), (NODE, "other")):
        passport = Passport("ear", good.expires_at, node_id, issuer, good.signing_key)
        with pytest.raises(CredentialError, match="passport"):
            acquire(client, collector, grant=grant, assets=[REF], node_id=NODE, nonce=broker.nonce, passport=passport)
    assert "AcquireLease" not in broker.names()


def test_answers_that_contradict_the_request_are_refused(
    client: BrokerClient, broker: FakeBroker, collector: FakeCollector
) -> None:
    def other_node(answer):
        answer.node_id = "ber1-n02"
        return answer

    def no_nonce(answer):
        answer.nonce = b""
        return answer

    broker.next.append(no_nonce)
    with pytest.raises(BadAnswerError, match="nonce"):
        appraise(client, collector, node_id=NODE)
    broker.next.extend([lambda answer: answer, other_node])
    with pytest.raises(BadAnswerError, match="n02"):
        appraise(client, collector, node_id=NODE)
    broker.next.extend([lambda answer: answer, Refusal(grpc.StatusCode.PERMISSION_DENIED)])
    with pytest.raises(AccessDeniedError):
        appraise(client, collector, node_id=NODE)
