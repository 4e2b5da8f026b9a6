"""Secret files: the root key and signing keys on disk."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from keybroker.errors import KeyManagementError, KeyUnwrapError, RootKeyError, SigningKeyError
from keybroker.keys.root import FileRootKey, RootKey
from keybroker.keys.signing import SigningKey, key_id

KINDS: list[tuple[type[FileRootKey | SigningKey], type[KeyManagementError]]] = [
    (FileRootKey, RootKeyError),
    (SigningKey, SigningKeyError),
]


def break_mode(path: Path) -> Path:
    path.chmod(0o640)
    return path


def break_link(path: Path) -> Path:
    link = path.with_name("link")
    link.symlink_to(path)
    return link


def break_fifo(path: Path) -> Path:
    fifo = path.with_name("fifo")
    os.mkfifo(fifo, 0o600)
    return fifo


def break_folder(path: Path) -> Path:
    return path.parent


def break_absent(path: Path) -> Path:
    path.unlink()
    return path


def break_empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def break_long(path: Path) -> Path:
    path.write_bytes(path.read_bytes() * 50)
    return path


@pytest.mark.parametrize(("kind", "error"), KINDS)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_mode, "chmod 600"),
        (break_link, "link"),
        (break_fifo, "not a regular file"),
        (break_folder, "not a regular file"),
        (break_absent, "no such file"),
        (break_empty, "0 bytes|not an unencrypted"),
        (break_long, "longer than"),
    ],
)
def test_what_must_not_be_trusted_is_refused(
    tmp_path: Path,
    kind: type[FileRootKey | SigningKey],
    error: type[KeyManagementError],
    damage: Callable[[Path], Path],
    words: str,
) -> None:
    path = tmp_path / "key"
    kind.create(path)
    kind.load(path)
    with pytest.raises(error, match=words):
        kind.load(damage(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    FileRootKey.create(path)
    os.chown(path, 12345, -1)
    with pytest.raises(RootKeyError, match="12345"):
        FileRootKey.load(path)


@pytest.mark.parametrize(("kind", "error"), KINDS)
def test_a_key_is_created_once_whole_and_private(
    tmp_path: Path, kind: type[FileRootKey | SigningKey], error: type[KeyManagementError]
) -> None:
    path = tmp_path / "key"
    old = os.umask(0)
    try:
        created = kind.create(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kind.load(path).key_id == created.key_id
    with pytest.raises(error, match="exists already"):
        kind.create(path)
    assert kind.load(path).key_id == created.key_id
    assert [item.name for item in tmp_path.iterdir()] == ["key"]
    with pytest.raises(error, match="cannot be written"):
        kind.create(tmp_path / "none" / "key")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_root_has_32_bytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(RootKeyError, match="32"):
        FileRootKey.load(path)
    with pytest.raises(RootKeyError, match="32"):
        FileRootKey(bytes(size))


def test_a_root_opens_only_what_it_wrapped_in_that_context() -> None:
    root: RootKey = FileRootKey(bytes(32))
    wrapped = root.wrap(b"key", b"context")
    assert root.unwrap(wrapped, b"context") == b"key"
    assert root.wrap(b"key", b"context") != wrapped
    with pytest.raises(KeyUnwrapError):
        root.unwrap(wrapped, b"another")
    with pytest.raises(KeyUnwrapError, match=root.key_id):
        FileRootKey(b"\x01" * 32).unwrap(wrapped, b"context")


def test_a_root_does_not_show_its_key() -> None:
    key = os.urandom(32)
    root = FileRootKey(key)
    assert key.hex() not in repr(root) + root.key_id
    assert root.key_id == FileRootKey(key).key_id != FileRootKey(os.urandom(32)).key_id


def test_signing(tmp_path: Path) -> None:
    key = SigningKey.create(tmp_path / "key")
    loaded = SigningKey.load(tmp_path / "key")
    loaded.public_key.verify(key.sign(b"data"), b"data")
    assert loaded.key_id == key_id(key.public_key)
    assert load_pem_public_key(key.public_pem()) == key.public_key
    assert len(key.key_id) == 16
    assert SigningKey.generate().key_id != key.key_id


def test_a_key_id_is_of_the_public_key_as_others_encode_it() -> None:
    """RFC 8410, section 4: the SubjectPublicKeyInfo is a fixed prefix and the key."""
    key = SigningKey.generate()
    spki = bytes.fromhex("302a300506032b6570032100") + key.public_key.public_bytes_raw()
    assert spki == key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_other_private_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    other = ec.generate_private_key(ec.SECP256R1())
    encrypted = SigningKey.generate().private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )
    for data in (other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), encrypted, b"hello"):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(SigningKeyError, match=r"Ed25519|unencrypted"):
            SigningKey.load(path)


def test_a_key_that_openssl_fails_on_is_refused(tmp_path: Path) -> None:
    """An Ed25519 key of 31 bytes: the library reports an internal error for it, not a malformed key."""
    der = bytes.fromhex("302d020100300506032b65700421041f") + bytes(31)
    path = tmp_path / "key"
    body = base64.b64encode(der).decode("ascii")
    path.write_text(f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    path.chmod(0o600)
    with pytest.raises(SigningKeyError, match="private key"):
        SigningKey.load(path)
