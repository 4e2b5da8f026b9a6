from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from keystead.binding import AssetRef, sealed_file_context
from sealed.errors import ManifestError, ManifestSignatureError, SealingError
from sealed.format import Layout
from sealed.manifest import FORMAT, Manifest, ManifestFile, check_asset, check_name

OWNER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def entry(name: str, size: int = 3) -> ManifestFile:
    return ManifestFile(
        name=name, size=size, sealed_size=Layout.of_size(size).sealed_size, sealed_sha256=hashlib.sha256().hexdigest()
    )


def manifest(*names: str) -> Manifest:
    return Manifest(asset="acme/llama", version=3, key_id="0123456789abcdef", files=tuple(map(entry, names)))


ONE = manifest("config.json", "shards/00.safetensors")


def document(**changes: Any) -> bytes:
    content = json.loads(ONE.to_bytes())
    content.update(changes)
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def file_document(**changes: Any) -> bytes:
    content = json.loads(ONE.to_bytes())
    content["files"][0].update(changes)
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def test_round_trip_and_digest() -> None:
    data = ONE.to_bytes()
    assert Manifest.parse(data) == ONE
    assert document() == data
    assert ONE.digest() == hashlib.sha256(data).digest()
    assert ONE.ref == AssetRef("acme/llama", 3)
    assert json.loads(data)["format"] == FORMAT
    assert ONE.context("config.json") == sealed_file_context(ref=ONE.ref, name="config.json")
    with pytest.raises(ManifestError, match="no file"):
        ONE.context("other")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        ONE.to_bytes() + b"\n",
        b" " + ONE.to_bytes(),
        ONE.to_bytes().replace(b'"version":3', b'"version":3.0'),
        ONE.to_bytes().replace(b'"version":3', b'"version":2,"version":3'),
        ONE.to_bytes().replace(b"acme", b"\\u0061cme"),
        json.dumps(json.loads(ONE.to_bytes())).encode(),
        document(version="3"),
        document(version=0),
        document(version=10**9),
        document(version=True),
        document(asset="llama"),
        document(asset="acme/"),
        document(asset="acme/llama@3"),
        document(asset="/llama"),
        document(key_id="0123456789ABCDEF"),
        document(key_id="0123456789abcdef\n"),
        document(format="keystead/v2"),
        document(files=[]),
        document(extra=1),
        document(files=json.loads(ONE.to_bytes())["files"][::-1]),
        document(files=json.loads(ONE.to_bytes())["files"][:1] * 2),
        file_document(name="../config.json"),
        file_document(size=4),
        file_document(size=-1),
        file_document(size=1 << 60),
        file_document(sealed_sha256="0" * 63),
        file_document(more=1),
    ],
)
def test_every_other_document_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestError):
        Manifest.parse(data)


def test_too_long_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ManifestError, match="at most"):
        Manifest.parse(b"[" * ((16 << 20) + 1))


def test_file_cannot_be_a_folder_too() -> None:
    with pytest.raises(ValidationError, match="a file and a folder"):
        manifest("a", "a/b/c")
    assert len(manifest("a", "a.b/c", "ab").files) == 3


@pytest.mark.parametrize(
    "name", ["a", "a/b", "…", "ä.bin", "-rf", "a b", "a..b", ".hidden", "x" * 248, "manifest.json"]
)
def test_file_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc/passwd",
        "a//b",
        "a/",
        "./a",
        "a/.",
        "..",
        "a/../b",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "a\u202eb",
        "a\u2028b",
        "a\u0308",
        "x" * 249,
        "x/" * 600 + "x",
        "\ud800",
    ],
)
def test_file_names_that_are_refused(name: str) -> None:
    with pytest.raises(SealingError):
        check_name(name)


@pytest.mark.parametrize("asset", ["", "a", "a/", "/a", "a/b@1", "ä/b", "a/" + "b" * 300, "a b/c"])
def test_assets_that_are_refused(asset: str) -> None:
    with pytest.raises(SealingError):
        check_asset(asset)


def test_signature_is_of_these_bytes_by_this_owner() -> None:
    data, signature, owner = ONE.to_bytes(), ONE.sign(OWNER), OWNER.public_key()
    assert Manifest.parse_signed(data, signature=signature, owner=owner) == ONE
    others = [
        (manifest("config.json").to_bytes(), signature, owner),
        (data + b" ", signature, owner),
        (data, signature, Ed25519PrivateKey.generate().public_key()),
        (data, bytes(64), owner),
        (data, b"", owner),
        # A signature over the bare digest or document says nothing about a sealed manifest.
        (data, OWNER.sign(ONE.digest()), owner),
        (data, OWNER.sign(data), owner),
    ]
    for other, wrong, key in others:
        with pytest.raises(ManifestSignatureError):
            Manifest.parse_signed(other, signature=wrong, owner=key)


def test_vouched_for_by_its_digest() -> None:
    assert Manifest.parse_vouched(ONE.to_bytes(), digest=ONE.digest()) == ONE
    for digest in (bytes(32), b"", ONE.digest()[:31]):
        with pytest.raises(ManifestSignatureError):
            Manifest.parse_vouched(ONE.to_bytes(), digest=digest)
