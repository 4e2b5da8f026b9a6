"""A version's record cites the description that it was registered from, on both stores; nothing else comes of it."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from calls import refusal
from factory import Factory, request_id

from keystead.binding import AssetRef, hpke_seal, owner_key_info
from keystead.v1 import asset_service_pb2, audit_service_pb2

DIGEST = hashlib.sha256(b"a description").digest()


def add(factory: Factory, ref: AssetRef, **more: Any) -> Any:
    assets = factory.stubs("acme-owner").assets
    key = assets.GetWrappingKey(asset_service_pb2.GetWrappingKeyRequest())
    info = owner_key_info(broker=key.broker, ref=ref, key_id="k")
    request = asset_service_pb2.AddAssetVersionRequest(
        request_id=request_id(),
        ref={"asset": ref.asset, "version": ref.version},  # type: ignore[arg-type]
        key_id="k",
        manifest_digest=b"m" * 32,
        wrapped_key=hpke_seal(os.urandom(32), public_key=key.hpke_key, info=info),
        **more,
    )
    answer = assets.AddAssetVersion(request)
    assert assets.AddAssetVersion(request) == answer  # asked again, it is the same version
    return answer


def details(factory: Factory, ref: AssetRef) -> list[dict[str, Any]]:
    factory.broker.sequencer.run_once(factory.clock())
    wanted = audit_service_pb2.QueryRecordsRequest(asset=str(ref), kind="asset.version-added")
    found = factory.stubs("auditor").audit.QueryRecords(wanted).records
    return [json.loads(each.payload)["detail"] for each in found]


def test_the_record_cites_the_description(any_factory: Factory) -> None:
    parent = any_factory.register_asset("acme/origin")
    child = AssetRef(any_factory.register_asset("acme/derived").asset, 2)
    parents = [{"asset": parent.asset, "version": parent.version}]
    add(any_factory, child, description_digest=DIGEST, parents=parents)
    (detail,) = details(any_factory, child)
    assert (detail["description_digest"], detail["version"]) == (DIGEST.hex(), str(child))
    assert [("description_digest" in each) for each in details(any_factory, parent)] == [False, True]


def test_what_is_no_digest_is_refused_before_anything_is_done(any_factory: Factory) -> None:
    ref = AssetRef(any_factory.register_asset("acme/one").asset, 2)
    for wrong in (b"d" * 31, b"d" * 33):
        said = refusal(lambda digest=wrong: add(any_factory, ref, description_digest=digest))  # type: ignore[misc]
        assert (said.reason, "description_digest" in str(said)) == ("INVALID_REQUEST", True)
    assert details(any_factory, ref) == []
    add(any_factory, ref)
    assert len(details(any_factory, ref)) == 1
