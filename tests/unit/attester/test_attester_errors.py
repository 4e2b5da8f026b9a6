from __future__ import annotations

import inspect

import grpc
import pytest

import attester.errors
from attester.client import BrokerClient
from attester.errors import (
    AccessDeniedError,
    AttesterError,
    BrokerUnavailableError,
    Reason,
    RequestRefusedError,
    from_rpc_error,
)
from keystead.v1 import denial_pb2
from tests.unit.attester.fake_broker import FakeBroker, Refusal

# Of those that are sent again, one: see test_attester_client.
STATUSES = sorted(
    set(grpc.StatusCode) - {grpc.StatusCode.OK, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED},
    key=lambda code: code.name,
)
REFUSED = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED"}


@pytest.mark.parametrize("code", STATUSES)
def test_every_status_has_its_error(client: BrokerClient, broker: FakeBroker, code: grpc.StatusCode) -> None:
    broker.next.extend([Refusal(code, reason="SOME_REASON")] * 5)
    expected = BrokerUnavailableError
    if code is grpc.StatusCode.PERMISSION_DENIED:
        expected = AccessDeniedError
    elif code.name in REFUSED or code is grpc.StatusCode.UNAUTHENTICATED:
        expected = RequestRefusedError
    with pytest.raises(expected) as caught:
        client.get_challenge(grant=None)
    assert type(caught.value) is expected
    assert caught.value.reason == "SOME_REASON"
    assert "no" in str(caught.value)


def test_denial_is_carried_over_whole(client: BrokerClient, broker: FakeBroker) -> None:
    fields = {"code": "C", "field": "f", "expected": "e", "actual": "a", "message": "m", "remedy": "r"}
    denial = denial_pb2.Denial(reasons=[denial_pb2.DenialReason(**fields)] * 2, record_hash=b"h" * 32)
    broker.next.append(Refusal(grpc.StatusCode.PERMISSION_DENIED, reason="DENIED", denial=denial))
    with pytest.raises(AccessDeniedError) as caught:
        client.get_challenge(grant=None)
    assert caught.value.reasons == (Reason(**fields), Reason(**fields))
    assert caught.value.record_hash == b"h" * 32


@pytest.mark.parametrize("raw", [b"\xff\xff", b"\x1a\x04\x0a\x02xx", b"\x1a\xff\xff\xff\xff\x0f"])
def test_details_that_are_garbage_do_not_change_the_answer(
    client: BrokerClient, broker: FakeBroker, raw: bytes
) -> None:
    broker.next.append(Refusal(grpc.StatusCode.PERMISSION_DENIED, raw=raw))
    with pytest.raises((AccessDeniedError, BrokerUnavailableError)) as caught:
        client.get_challenge(grant=None)
    assert not getattr(caught.value, "reasons", ())


def test_error_without_a_status() -> None:
    assert isinstance(from_rpc_error(grpc.RpcError("gone")), BrokerUnavailableError)


def test_error_codes_are_upper_snake_unique_and_drawn() -> None:
    classes = [
        item for _, item in inspect.getmembers(attester.errors, inspect.isclass) if issubclass(item, AttesterError)
    ]
    codes = [item.code for item in classes]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isupper() for code in codes)
    assert all(item.__name__ in (attester.errors.__doc__ or "") for item in classes)
