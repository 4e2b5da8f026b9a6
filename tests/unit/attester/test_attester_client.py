from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

import attester
from attester.client import BrokerClient, TlsMaterial
from attester.errors import BrokerUnavailableError, CredentialError, RequestRefusedError
from keystead.v1 import attestation_service_pb2 as attestation_pb
from keystead.v1 import lease_service_pb2 as pb
from tests.unit.attester.fake_broker import BROKER, NODE, FakeBroker, Pki, Refusal, make_pki

BUSY = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED]


@pytest.mark.parametrize("code", BUSY)
def test_busy_broker_is_asked_again(client: BrokerClient, broker: FakeBroker, code: grpc.StatusCode) -> None:
    broker.next.extend([Refusal(code)] * 2)
    assert client.get_challenge(grant=b"grant").broker == BROKER
    assert broker.names() == ["GetChallenge"] * 3
    assert {request.grant for _, request in broker.calls} == {b"grant"}


def test_answers_are_not_asked_for_again(client: BrokerClient, broker: FakeBroker) -> None:
    for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED):
        broker.calls.clear()
        broker.next.append(Refusal(code))
        with pytest.raises(attester.BrokerError):
            client.get_challenge(grant=None)
        assert broker.names() == ["GetChallenge"]


def test_appraisal(client: BrokerClient) -> None:
    assert client.appraise(attestation_pb.AppraiseRequest()).node_id == NODE


def test_calls_end_at_their_deadline(address: str, pki: Pki, broker: FakeBroker) -> None:
    def slow(answer: object) -> object:
        time.sleep(1)
        return answer

    broker.next.append(slow)
    with BrokerClient(address, tls=pki.node, timeout=0.2) as client:
        start = time.monotonic()
        with pytest.raises(BrokerUnavailableError):
            client.get_challenge(grant=None)
        assert time.monotonic() - start < 0.9


def test_absent_broker_is_unavailable(pki: Pki) -> None:
    with BrokerClient("localhost:1", tls=pki.node, timeout=0.5) as client, pytest.raises(BrokerUnavailableError):
        client.get_challenge(grant=None)


def test_broker_of_another_authority_is_not_talked_to(address: str, pki: Pki, broker: FakeBroker) -> None:
    other = make_pki()
    tls = TlsMaterial(ca=other.ca, certificate=pki.node.certificate, key=pki.node.key)
    with BrokerClient(address, tls=tls, timeout=0.7) as client, pytest.raises(BrokerUnavailableError):
        client.get_challenge(grant=None)
    assert broker.calls == []


def test_node_of_another_authority_is_not_heard(address: str, pki: Pki, broker: FakeBroker) -> None:
    other = make_pki()
    tls = TlsMaterial(ca=pki.ca, certificate=other.node.certificate, key=other.node.key)
    with BrokerClient(address, tls=tls, timeout=0.7) as client, pytest.raises(BrokerUnavailableError):
        client.get_challenge(grant=None)
    assert broker.calls == []


def test_large_evidence_goes_through(client: BrokerClient, broker: FakeBroker) -> None:
    request = pb.RenewLeaseRequest(lease_id="x")
    request.evidence.cpu.data = bytes(3 << 20)
    broker.next.append(Refusal(grpc.StatusCode.NOT_FOUND))
    with pytest.raises(RequestRefusedError):
        client.renew_lease(request)
    assert broker.calls[0][1] == request


def test_tls_material_is_read_from_files(tmp_path: Path, pki: Pki) -> None:
    names = ("ca", "certificate", "key")
    paths = {name: tmp_path / f"{name}.pem" for name in names}
    for name in names:
        paths[name].write_bytes(getattr(pki.node, name))
    assert TlsMaterial.from_files(**paths) == pki.node
    assert "PRIVATE" not in repr(pki.node)
    paths["key"].write_bytes(b"no key")
    with pytest.raises(CredentialError, match="not PEM"):
        TlsMaterial.from_files(**paths)
    paths["ca"].unlink()
    with pytest.raises(CredentialError, match=r"ca\.pem"):
        TlsMaterial.from_files(**paths)


def test_sdk_names_are_there_and_lazy() -> None:
    for name in attester.__all__:
        assert getattr(attester, name).__module__.startswith(("attester.", "keystead.", "sealed."))
    assert set(attester._HOMES) == set(attester.__all__)
    with pytest.raises(AttributeError):
        _ = attester.nothing
    code = "import attester, sys; print('grpc' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]
