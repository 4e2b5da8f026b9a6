"""The encodings of docs/protocol.md: its vectors, and that nothing but the canonical bytes is accepted."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from keystead import binding

VECTORS = json.loads((Path(__file__).parents[3] / "docs" / "protocol-vectors.json").read_text())
INPUTS = VECTORS["inputs"]
REFS = tuple(binding.AssetRef.parse(text) for text in INPUTS["assets"])


def raw(name: str) -> bytes:
    return bytes.fromhex(VECTORS.get(name) or INPUTS[name])


def runtime_data() -> binding.RuntimeData:
    return binding.RuntimeData(
        broker=INPUTS["broker"],
        nonce=raw("nonce"),
        grant=raw("grant_digest"),
        node_id=INPUTS["node_id"],
        hpke_key=raw("hpke_public_key"),
        signing_key=raw("signing_public_key"),
        assets=raw("asset_list_digest"),
        lease_id="",
        devices=(raw("device_evidence_digest"),),
    )


def test_vectors() -> None:
    grant = binding.JobGrant.parse(raw("grant"))
    assert grant.to_bytes() == raw("grant")
    assert grant.assets == REFS
    assert grant.image == INPUTS["image"]
    first = binding.JobGrant.parse(raw("grant_1"))
    assert first == replace(grant, project="", user="", stage="", network="", image="")
    assert binding.JobGrant.parse(first.to_bytes()) == first
    assert binding.grant_digest(raw("grant")) == raw("grant_digest")
    assert binding.grant_digest(None) == raw("no_grant_digest")
    assert binding.asset_list_bytes(REFS[::-1]) == raw("asset_list")
    assert binding.asset_list_digest(REFS) == raw("asset_list_digest")
    challenge = INPUTS["challenge"]
    mac_input = binding.challenge_mac_input(
        epoch=challenge["epoch"],
        random=bytes.fromhex(challenge["random"]),
        grant=raw("grant_digest"),
        broker=INPUTS["broker"],
    )
    assert mac_input == raw("challenge_mac_input")
    mac = hmac.digest(bytes.fromhex(challenge["epoch_key"]), mac_input, "sha256")
    nonce = binding.u64(challenge["epoch"]) + bytes.fromhex(challenge["random"]) + mac
    assert nonce == raw("challenge_nonce")
    assert len(nonce) == binding.NONCE_SIZE
    assert binding.device_nonce(
        nonce=raw("nonce"),
        grant=raw("grant_digest"),
        node_id=INPUTS["node_id"],
        hpke_key=raw("hpke_public_key"),
        signing_key=raw("signing_public_key"),
    ) == raw("device_nonce")
    device = INPUTS["device"]
    digest = binding.device_evidence_digest(
        slot=device["slot"],
        scheme=device["scheme"],
        data=bytes.fromhex(device["data"]),
        certificates=[bytes.fromhex(item) for item in device["certificates"]],
    )
    assert digest == raw("device_evidence_digest")
    assert runtime_data().to_bytes() == raw("runtime_data")
    assert binding.RuntimeData.parse(raw("runtime_data")) == runtime_data()
    assert runtime_data().report_data() == raw("report_data")
    assert binding.sha256(raw("runtime_data")) == raw("transcript")


def test_key_vectors() -> None:
    private = binding.HpkePrivateKey.from_bytes(raw("hpke_private_key"))
    assert private.public_key == raw("hpke_public_key")
    info = binding.hpke_info(
        transcript=raw("transcript"),
        lease_id=INPUTS["lease_id"],
        ref=REFS[0],
        key_id=INPUTS["key_id"],
        policy_digest=raw("policy_digest"),
    )
    assert info == raw("hpke_info")
    assert private.open(raw("hpke_ciphertext"), info=info) == raw("data_key")
    assert binding.owner_key_info(broker=INPUTS["broker"], ref=REFS[0], key_id=INPUTS["key_id"]) == raw(
        "owner_key_info"
    )
    assert binding.sealed_file_context(ref=REFS[0], name="model.safetensors") == raw("sealed_file_context")
    assert binding.lease_return_message(lease_id=INPUTS["lease_id"], zeroised=True) == raw("lease_return_message")
    assert binding.lease_return_message(lease_id=INPUTS["lease_id"], zeroised=False) != raw("lease_return_message")
    output = INPUTS["output"]
    signed = {
        "lease_id": INPUTS["lease_id"],
        "ref": binding.AssetRef.parse(output["version"]),
        "key_id": INPUTS["key_id"],
        "manifest_digest": bytes.fromhex(output["manifest_digest"]),
        "wrapped_key": bytes.fromhex(output["wrapped_key"]),
        "kind": output["kind"],
        "constraints": output["constraints"],
    }
    assert binding.output_message(**signed) == raw("output_message")
    for name, other in (("lease_id", "x"), ("ref", REFS[0]), ("key_id", "x"), ("kind", ""), ("constraints", "{}")):
        assert binding.output_message(**(signed | {name: other})) != raw("output_message")
    for name in ("manifest_digest", "wrapped_key"):
        assert binding.output_message(**(signed | {name: bytes(32)})) != raw("output_message")
    uses = [
        binding.AssetUse(ref=binding.AssetRef.parse(use["asset"]), **{k: n for k, n in use.items() if k != "asset"})
        for use in INPUTS["uses"]
    ]
    signing = Ed25519PrivateKey.from_private_bytes(raw("signing_private_key"))
    for order in (uses, uses[::-1]):
        report = binding.usage_report_message(lease_id=INPUTS["lease_id"], sequence=INPUTS["sequence"], uses=order)
        assert report == raw("usage_report_message")
        assert signing.sign(report) == raw("usage_report_signature")
    message = binding.passport_message(
        ear=INPUTS["ear"],
        nonce=raw("nonce"),
        grant=raw("grant_digest"),
        assets=raw("asset_list_digest"),
        hpke_key=raw("hpke_public_key"),
    )
    assert message == raw("passport_message")
    assert signing.sign(message) == raw("passport_signature")


def test_a_usage_report_names_each_asset_once_and_every_number_counts() -> None:
    use = binding.AssetUse(ref=REFS[0], bytes_opened=1, tokens_served=2, bytes_served=3)

    def message(*uses: binding.AssetUse, lease_id: str = "lease-1", sequence: int = 1) -> bytes:
        return binding.usage_report_message(lease_id=lease_id, sequence=sequence, uses=uses)

    others = [
        message(),
        message(use, replace(use, ref=REFS[1])),
        message(use, lease_id="lease-2"),
        message(use, sequence=2),
        *(message(replace(use, **{name: 9})) for name in ("bytes_opened", "tokens_served", "bytes_served")),
        message(replace(use, ref=REFS[1])),
    ]
    assert len({message(use), *others}) == 1 + len(others)
    with pytest.raises(binding.BindingError, match="twice"):
        message(use, replace(use, bytes_opened=2))
    with pytest.raises(binding.BindingError):
        message(replace(use, bytes_opened=1 << 64))


@pytest.mark.parametrize("parse", [binding.JobGrant.parse, binding.RuntimeData.parse])
@given(data=st.binary(max_size=400))
def test_any_bytes_give_a_value_or_the_typed_error(parse: Callable[[bytes], object], data: bytes) -> None:
    try:
        value = parse(data)
    except binding.BindingError:
        return
    assert value.to_bytes() == data  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "parse"), [("grant", binding.JobGrant.parse), ("runtime_data", binding.RuntimeData.parse)]
)
@given(data=st.data())
def test_every_accepted_mutation_is_canonical(name: str, parse: Callable[[bytes], object], data: st.DataObject) -> None:
    good = bytearray(raw(name))
    position = data.draw(st.integers(0, len(good) - 1))
    good[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        value = parse(bytes(good))
    except binding.BindingError:
        return
    assert value.to_bytes() == bytes(good)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["grant", "runtime_data"])
def test_truncation_and_extension_are_refused(name: str) -> None:
    parse = binding.JobGrant.parse if name == "grant" else binding.RuntimeData.parse
    good = raw(name)
    for size in range(len(good)):
        with pytest.raises(binding.BindingError):
            parse(good[:size])
    with pytest.raises(binding.BindingError):
        parse(good + b"\0")


@pytest.mark.parametrize("image", ["0B" * 32, "0b" * 31, "0b" * 48, "0b" * 32 + "0", "zz" * 32, " " + "0b" * 32])
def test_an_image_is_a_digest_in_one_form(image: str) -> None:
    grant = binding.JobGrant.parse(raw("grant"))
    with pytest.raises(binding.BindingError, match=r"grant\.image"):
        replace(grant, image=image).to_bytes()
    cut = raw("grant").replace((32).to_bytes(4, "big") + b"\x0b" * 32, (31).to_bytes(4, "big") + b"\x0b" * 31)
    with pytest.raises(binding.BindingError, match=r"grant\.image"):
        binding.JobGrant.parse(cut)


def test_unsorted_and_repeated_lists_are_refused() -> None:
    grant = binding.JobGrant.parse(raw("grant"))
    with pytest.raises(binding.BindingError, match="twice"):
        replace(grant, purposes=("inference", "inference")).to_bytes()
    swapped = raw("grant").replace(
        binding.encode_list([b"evaluation", b"inference"]), binding.encode_list([b"inference", b"evaluation"])
    )
    assert swapped != raw("grant")
    with pytest.raises(binding.BindingError, match="sorted"):
        binding.JobGrant.parse(swapped)


@given(
    first=st.lists(st.binary(max_size=8), max_size=4),
    second=st.lists(st.binary(max_size=8), max_size=4),
)
def test_encoding_is_injective(first: list[bytes], second: list[bytes]) -> None:
    assert (binding.encode("x", *first) == binding.encode("x", *second)) == (first == second)
    assert binding.decode("x", binding.encode("x", *first), len(first)) == tuple(first)


@pytest.mark.parametrize(
    "text", ["", "a", "a/b", "a/b@", "a/b@0", "a/b@01", "a/b@-1", "a/b@1x", " a/b@1", "a/b@1234567890", "é/b@1"]
)
def test_bad_asset_references_are_refused(text: str) -> None:
    with pytest.raises(binding.BindingError):
        binding.AssetRef.parse(text)


def test_a_wrapped_key_opens_only_for_its_key_and_context() -> None:
    private = binding.HpkePrivateKey.generate()
    wrapped = binding.hpke_seal(b"k" * 32, public_key=private.public_key, info=b"context")
    assert private.open(wrapped, info=b"context") == b"k" * 32
    for key, info, data in [
        (private, b"other", wrapped),
        (binding.HpkePrivateKey.generate(), b"context", wrapped),
        (private, b"context", wrapped[:-1]),
        (private, b"context", wrapped + b"\0"),
        (private, b"context", b""),
        (private, b"context", bytes([wrapped[0] ^ 1]) + wrapped[1:]),
    ]:
        with pytest.raises(binding.UnwrapError):
            key.open(data, info=info)


@pytest.mark.parametrize("key", [b"", b"\0" * 1215, b"\0" * 1217, b"\xff" * 1216, b"\0" * 1216])
def test_bad_public_keys_are_refused(key: bytes) -> None:
    with pytest.raises(binding.BindingError):
        binding.hpke_seal(b"k", public_key=key, info=b"")
