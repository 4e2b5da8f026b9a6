"""Any change to a good request for a lease: never a key for another key, never an error without a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from calls import Refusal, Session, acquire_request, read_refusal
from factory import Factory, furnish, start_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestation.simulator.node import SimulatedVendors
from keystead.binding import HPKE_PUBLIC_KEY_SIZE, AssetRef, UnwrapError, hpke_info, sha256
from keystead.v1 import lease_service_pb2

EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
}


@dataclass
class Scene:
    """A broker, a session that the node's TEE vouches for, and its good request."""

    factory: Factory
    ref: AssetRef
    session: Session
    request: lease_service_pb2.AcquireLeaseRequest
    send: Any


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, vendors: SimulatedVendors) -> Iterator[Scene]:
    """One for all examples."""
    factory = furnish(start_factory(tmp_path_factory.mktemp("scene") / "factory", vendors, database=None, edit=str))
    ref, session = factory.register_asset(), Session()
    factory.register_asset("acme/other")
    request = acquire_request(factory, "node-a", factory.authorize(ref), ref, session=session)
    call = factory.stubs("node").channel.unary_unary(
        "/keystead.v1.LeaseService/AcquireLease",
        response_deserializer=lease_service_pb2.AcquireLeaseResponse.FromString,
    )
    yield Scene(factory, ref, session, request, lambda data: call(data, timeout=30))
    factory.close()


def outcome(scene: Scene, data: bytes) -> Any:
    """The answer to `data`, or the refusal."""
    try:
        return scene.send(data)
    except grpc.RpcError as error:
        return read_refusal(error)


def check(scene: Scene, data: bytes) -> None:
    """Send `data`: it is refused with a name, or answered with keys for the attested key and for nothing else."""
    answer = outcome(scene, data)
    if isinstance(answer, Refusal):
        assert answer.status in REFUSED
        return
    sent = lease_service_pb2.AcquireLeaseRequest.FromString(data)
    # What the CPU vouched for is what counts, so it must be what was attested here, byte for byte.
    assert sent.evidence.runtime_data == scene.request.evidence.runtime_data
    assert sent.grant.grant == scene.request.grant.grant
    transcript = sha256(scene.request.evidence.runtime_data)
    assert [key.asset.asset for key in answer.keys] == [scene.ref.asset]
    for key in answer.keys:
        info = hpke_info(
            transcript=transcript,
            lease_id=answer.lease.lease_id,
            ref=scene.ref,
            key_id=key.key_id,
            policy_digest=answer.lease.policy_digest,
        )
        assert scene.session.hpke.open(key.ciphertext, info=info) == scene.factory.data_keys[str(scene.ref)]
        with pytest.raises(UnwrapError):
            Session().hpke.open(key.ciphertext, info=info)


def test_the_request_is_good_as_it_stands(scene: Scene) -> None:
    check(scene, scene.request.SerializeToString())
    assert scene.send(scene.request.SerializeToString()).keys


@EXAMPLES
@given(st.binary(max_size=400))
def test_any_bytes(scene: Scene, data: bytes) -> None:
    check(scene, data)


@EXAMPLES
@given(st.data())
def test_bytes_changed_anywhere(scene: Scene, data: st.DataObject) -> None:
    message = bytearray(scene.request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(message) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "add", "set"])):
            case "flip":
                message[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del message[at : at + data.draw(st.integers(1, 40))]
            case "add":
                message[at:at] = data.draw(st.binary(min_size=1, max_size=40))
            case _:
                message[at] = data.draw(st.integers(0, 255))
        if not message:
            break
    check(scene, bytes(message))


def leaves(message: Any) -> list[tuple[Any, str]]:
    """Every scalar field that is set in `message`, however deep."""
    found: list[tuple[Any, str]] = []
    for field, value in message.ListFields():
        if field.message_type is None:
            found.append((message, field.name))
        elif field.is_repeated:
            for item in value:
                found += leaves(item)
        else:
            found += leaves(value)
    return found


@EXAMPLES
@given(st.data())
def test_fields_changed_anywhere(scene: Scene, data: st.DataObject) -> None:
    message = lease_service_pb2.AcquireLeaseRequest()
    message.CopyFrom(scene.request)
    holder, name = data.draw(st.sampled_from(leaves(message)))
    field = holder.DESCRIPTOR.fields_by_name[name]
    value = getattr(holder, name)
    if field.is_repeated:
        items = list(value)
        match data.draw(st.sampled_from(["drop", "double", "swap", "other"])):
            case "drop":
                items = items[1:]
            case "double":
                items = items * 2
            case "swap":
                items.reverse()
            case _:
                items[data.draw(st.integers(0, len(items) - 1))] = data.draw(st.binary(max_size=80))
        del value[:]
        value.extend(items)
    elif field.type == field.TYPE_BYTES:
        at = data.draw(st.integers(0, len(value) - 1))
        changed = bytearray(value)
        changed[at] ^= 1 << data.draw(st.integers(0, 7))
        setattr(holder, name, data.draw(st.sampled_from([bytes(changed), value[:at], value + b"\0", b""])))
    elif field.type == field.TYPE_STRING:
        setattr(holder, name, data.draw(st.text(max_size=60)))
    else:
        setattr(holder, name, data.draw(st.integers(0, (1 << 32) - 1)))
    check(scene, message.SerializeToString())


@EXAMPLES
@given(st.integers(0, HPKE_PUBLIC_KEY_SIZE - 1), st.integers(0, 7))
def test_another_hpke_key_is_never_served(scene: Scene, at: int, bit: int) -> None:
    message = lease_service_pb2.AcquireLeaseRequest()
    message.CopyFrom(scene.request)
    public = bytearray(scene.session.hpke.public_key)
    public[at] ^= 1 << bit
    runtime = message.evidence.runtime_data
    assert runtime.count(scene.session.hpke.public_key) == 1
    message.evidence.runtime_data = runtime.replace(scene.session.hpke.public_key, bytes(public))
    with pytest.raises(grpc.RpcError) as caught:
        scene.send(message.SerializeToString())
    refused = read_refusal(caught.value)
    assert refused.status in REFUSED
    assert refused.reason in {"DENIED", "INVALID_REQUEST"}
