"""What binds evidence, grants, keys and leases together: labels, transcripts and HPKE.

Every structure here has one canonical encoding (`encode`): a label, then each field with its length in
front. Two different values never encode to the same bytes, and `decode` accepts nothing that `encode`
would not have written. `docs/protocol.md` lists every structure with test vectors, so that a client in
another language can be built from that page.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

LABEL_PREFIX: Final = "keystead/v1/"
LABEL_ASSET_LIST: Final = LABEL_PREFIX + "asset-list"
LABEL_CHALLENGE: Final = LABEL_PREFIX + "challenge"
LABEL_DATA_KEY: Final = LABEL_PREFIX + "data-key"
LABEL_DEVICE_EVIDENCE: Final = LABEL_PREFIX + "device-evidence"
LABEL_DEVICE_NONCE: Final = LABEL_PREFIX + "device-nonce"
LABEL_GRANT: Final = "keystead/v2/grant"
LABEL_GRANT_1: Final = LABEL_PREFIX + "grant"
LABEL_HPKE_INFO: Final = LABEL_PREFIX + "hpke-info"
LABEL_LEASE_RETURN: Final = LABEL_PREFIX + "lease-return"
LABEL_NO_GRANT: Final = LABEL_PREFIX + "no-grant"
LABEL_OUTPUT: Final = LABEL_PREFIX + "output"
LABEL_OWNER_KEY: Final = LABEL_PREFIX + "owner-key"
LABEL_PASSPORT: Final = LABEL_PREFIX + "passport"
LABEL_RUNTIME_DATA: Final = LABEL_PREFIX + "runtime-data"
LABEL_SEALED_FILE: Final = LABEL_PREFIX + "sealed-file"
LABEL_USAGE_REPORT: Final = LABEL_PREFIX + "usage-report"

MAX_ENCODED: Final = 1 << 20
"""No structure of this module is longer than 1 MiB; `decode` refuses more."""

SHA256_SIZE: Final = 32
SIGNING_KEY_SIZE: Final = 32
NONCE_SIZE: Final = 8 + 16 + 32
"""Epoch number (u64), random bytes, HMAC-SHA-256."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}\Z")


class BindingError(ValueError):
    """Bytes that are not the canonical encoding of the structure they are said to be."""

    code = "MALFORMED_BINDING"


def encode(label: str, *fields: bytes) -> bytes:
    """Encode `fields` under `label`: ``u16 label length ‖ label ‖ u16 count ‖ (u32 length ‖ field)*``.

    Lengths are big-endian. The label is ASCII and names structure and version.

    Raises:
        BindingError: a label or the whole is too long.
    """
    tag = label.encode("ascii")
    parts = [struct.pack(">H", len(tag)), tag, struct.pack(">H", len(fields))]
    for field in fields:
        parts += (struct.pack(">I", len(field)), field)
    data = b"".join(parts)
    if len(data) > MAX_ENCODED:
        raise BindingError(f"{label}: {len(data)} bytes, at most {MAX_ENCODED} are allowed")
    return data


def decode(label: str, data: bytes, count: int) -> tuple[bytes, ...]:
    """Decode what `encode(label, …)` wrote with exactly `count` fields.

    Raises:
        BindingError: another label, another count, a length that runs past the end, or trailing bytes.
    """
    if len(data) > MAX_ENCODED:
        raise BindingError(f"{label}: {len(data)} bytes, at most {MAX_ENCODED} are allowed")
    tag = label.encode("ascii")
    head = struct.pack(">H", len(tag)) + tag + struct.pack(">H", count)
    if not data.startswith(head):
        raise BindingError(f"{label}: does not begin with this label and {count} fields")
    offset, fields = len(head), []
    for index in range(count):
        end = offset + 4
        if end > len(data):
            raise BindingError(f"{label}: field {index} has no length at offset {offset}")
        (size,) = struct.unpack_from(">I", data, offset)
        offset, end = end, end + size
        if end > len(data):
            raise BindingError(
                f"{label}: field {index} at offset {offset} needs {size} bytes, {len(data) - offset} left"
            )
        fields.append(data[offset:end])
        offset = end
    if offset != len(data):
        raise BindingError(f"{label}: {len(data) - offset} trailing bytes at offset {offset}")
    return tuple(fields)


def encode_list(items: Sequence[bytes]) -> bytes:
    """Encode a list as one field: ``u32 count ‖ (u32 length ‖ item)*``."""
    return b"".join((struct.pack(">I", len(items)), *(struct.pack(">I", len(item)) + item for item in items)))


def decode_list(data: bytes, *, what: str, limit: int = 4096) -> tuple[bytes, ...]:
    """Decode what `encode_list` wrote; `what` names the list in errors.

    Raises:
        BindingError: more than `limit` items, a length that runs past the end, or trailing bytes.
    """
    if len(data) < 4:
        raise BindingError(f"{what}: no item count")
    (count,) = struct.unpack_from(">I", data)
    if count > limit:
        raise BindingError(f"{what}: {count} items, at most {limit} are allowed")
    offset, items = 4, []
    for index in range(count):
        if offset + 4 > len(data):
            raise BindingError(f"{what}: item {index} has no length")
        (size,) = struct.unpack_from(">I", data, offset)
        offset += 4
        if offset + size > len(data):
            raise BindingError(f"{what}: item {index} needs {size} bytes, {len(data) - offset} left")
        items.append(data[offset : offset + size])
        offset += size
    if offset != len(data):
        raise BindingError(f"{what}: {len(data) - offset} trailing bytes")
    return tuple(items)


def sha256(data: bytes) -> bytes:
    """SHA-256 of `data` (32 bytes)."""
    return hashlib.sha256(data).digest()


def u32(value: int) -> bytes:
    """Four bytes, big-endian."""
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    """Eight bytes, big-endian."""
    return struct.pack(">Q", value)


def _int(data: bytes, size: int, what: str) -> int:
    if len(data) != size:
        raise BindingError(f"{what}: {len(data)} bytes, expected {size}")
    return int.from_bytes(data, "big")


def _exact(data: bytes, size: int, what: str) -> bytes:
    if len(data) != size:
        raise BindingError(f"{what}: {len(data)} bytes, expected {size}")
    return data


def check_id(text: str, what: str) -> str:
    """Return `text` if it is an identifier: 1 to 255 of letters, digits and ``._:/@+-``.

    Raises:
        BindingError: it is not; `what` names the field.
    """
    if not _ID.match(text):
        raise BindingError(f"{what}: {text!r:.80} is not an identifier (letters, digits and ._:/@+-, at most 255)")
    return text


def _text(data: bytes, what: str) -> str:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise BindingError(f"{what}: not ASCII") from None
    return check_id(text, what)


def _texts(data: bytes, what: str) -> tuple[str, ...]:
    items = tuple(_text(item, what) for item in decode_list(data, what=what))
    if list(items) != sorted(set(items)):
        raise BindingError(f"{what}: not sorted, or a value is there twice")
    return items


def _encode_texts(items: Sequence[str], what: str) -> bytes:
    ordered = sorted(set(items))
    if len(ordered) != len(items):
        raise BindingError(f"{what}: a value is there twice")
    return encode_list([check_id(item, what).encode("ascii") for item in ordered])


@dataclass(frozen=True, slots=True, order=True)
class AssetRef:
    """One version of one asset: ``tenant/name@version``."""

    asset: str
    version: int

    def __str__(self) -> str:
        return f"{self.asset}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``tenant/name@version``.

        Raises:
            BindingError: the text has another form or the version is not a canonical positive integer.
        """
        asset, at, version = text.rpartition("@")
        if not at or not version.isascii() or not version.isdigit() or version.startswith("0") or len(version) > 9:
            raise BindingError(f"asset: {text!r:.80} is not TENANT/NAME@VERSION")
        return cls(check_id(asset, "asset"), int(version))


def asset_list_bytes(assets: Sequence[AssetRef]) -> bytes:
    """Canonical asset list: ``TENANT/NAME@VERSION`` each, sorted by its bytes, without repeats."""
    return encode(LABEL_ASSET_LIST, encode_list(sorted({str(ref).encode("ascii") for ref in assets})))


def asset_list_digest(assets: Sequence[AssetRef]) -> bytes:
    """H(asset list), as it stands in the runtime data and the passport signature."""
    return sha256(asset_list_bytes(assets))


@dataclass(frozen=True, slots=True)
class JobGrant:
    """What the broker promised a scheduler for one job; signed by the broker, carried by the node.

    A grant narrows what the assets permit and never widens it. Instants are integer seconds since the Unix epoch.
    `nodes` and `sites` narrow where it may be used: empty means any. `project`, `user`, `stage`, `image` (SHA-256 of
    the code or container image, in hexadecimal) and `network` are what the job declared, empty where it did not; what
    is empty satisfies no asset that restricts it. Tuples are sorted and free of repeats on the wire.
    """

    broker: str
    grant_id: str
    tenant: str
    job_uid: str
    scheduler: str
    assets: tuple[AssetRef, ...]
    purposes: tuple[str, ...]
    nodes: tuple[str, ...]
    sites: tuple[str, ...]
    node_ceiling: int
    not_before: int
    not_after: int
    project: str = ""
    user: str = ""
    stage: str = ""
    image: str = ""
    network: str = ""

    def to_bytes(self) -> bytes:
        """The canonical encoding that the broker signs."""
        return encode(
            LABEL_GRANT,
            check_id(self.broker, "grant.broker").encode("ascii"),
            check_id(self.grant_id, "grant.grant_id").encode("ascii"),
            check_id(self.tenant, "grant.tenant").encode("ascii"),
            check_id(self.job_uid, "grant.job_uid").encode("ascii"),
            check_id(self.scheduler, "grant.scheduler").encode("ascii"),
            _encode_texts([str(ref) for ref in self.assets], "grant.assets"),
            _encode_texts(self.purposes, "grant.purposes"),
            _encode_texts(self.nodes, "grant.nodes"),
            _encode_texts(self.sites, "grant.sites"),
            u32(self.node_ceiling),
            u64(self.not_before),
            u64(self.not_after),
            *(_encode_optional(getattr(self, name), f"grant.{name}") for name in _DECLARED),
            _encode_image(self.image),
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse `to_bytes`'s encoding, or that of version 1, whose grants declare nothing; nothing else is accepted.

        Grants of version 1 are read because jobs that were authorized before version 2 run on; none is made any more.

        Raises:
            BindingError: the bytes are not the canonical encoding of a grant.
        """
        first = data.startswith(struct.pack(">H", len(LABEL_GRANT_1)) + LABEL_GRANT_1.encode("ascii"))
        f = decode(LABEL_GRANT_1, data, 12) if first else decode(LABEL_GRANT, data, 17)
        declared = {} if first else {name: _optional(f[12 + n], f"grant.{name}") for n, name in enumerate(_DECLARED)}
        return cls(
            broker=_text(f[0], "grant.broker"),
            grant_id=_text(f[1], "grant.grant_id"),
            tenant=_text(f[2], "grant.tenant"),
            job_uid=_text(f[3], "grant.job_uid"),
            scheduler=_text(f[4], "grant.scheduler"),
            assets=tuple(AssetRef.parse(text) for text in _texts(f[5], "grant.assets")),
            purposes=_texts(f[6], "grant.purposes"),
            nodes=_texts(f[7], "grant.nodes"),
            sites=_texts(f[8], "grant.sites"),
            node_ceiling=_int(f[9], 4, "grant.node_ceiling"),
            not_before=_int(f[10], 8, "grant.not_before"),
            not_after=_int(f[11], 8, "grant.not_after"),
            image="" if first else _image(f[16]),
            **declared,
        )


_DECLARED: Final = ("project", "user", "stage", "network")


def _encode_optional(text: str, what: str) -> bytes:
    return check_id(text, what).encode("ascii") if text else b""


def _optional(data: bytes, what: str) -> str:
    return _text(data, what) if data else ""


def _encode_image(image: str) -> bytes:
    # Digests are bytes on the wire, so that there is one way to write them.
    try:
        data = bytes.fromhex(image)
    except ValueError:
        data = b"?"
    if data.hex() != image or len(data) not in (0, SHA256_SIZE):
        raise BindingError(f"grant.image: {image!r:.80} is not {SHA256_SIZE} bytes in lower-case hexadecimal")
    return data


def _image(data: bytes) -> str:
    return _exact(data, SHA256_SIZE, "grant.image").hex() if data else ""


def grant_digest(grant: bytes | None) -> bytes:
    """H(grant) over the signed bytes, or the tagged empty value where there is no grant."""
    return sha256(encode(LABEL_NO_GRANT) if grant is None else grant)


def challenge_mac_input(*, epoch: int, random: bytes, grant: bytes, broker: str) -> bytes:
    """What the HMAC in a nonce covers; `grant` is `grant_digest`'s value."""
    return encode(LABEL_CHALLENGE, u64(epoch), random, grant, broker.encode("ascii"))


def device_nonce(*, nonce: bytes, grant: bytes, node_id: str, hpke_key: bytes, signing_key: bytes) -> bytes:
    """The 32-byte nonce that every GPU and switch of the node signs (`docs/protocol.md`, device nonce)."""
    return sha256(
        encode(LABEL_DEVICE_NONCE, nonce, grant, node_id.encode("ascii"), sha256(hpke_key), sha256(signing_key))
    )


def device_evidence_digest(*, slot: str, scheme: str, data: bytes, certificates: Sequence[bytes]) -> bytes:
    """H(one device's evidence): its slot, scheme, bytes and certificates, so that none can be swapped."""
    return sha256(
        encode(LABEL_DEVICE_EVIDENCE, slot.encode("ascii"), scheme.encode("ascii"), data, encode_list(certificates))
    )


@dataclass(frozen=True, slots=True)
class RuntimeData:
    """What the CPU TEE vouches for; ``REPORT_DATA = SHA-512(runtime data)``.

    `grant` is `grant_digest`'s value, `assets` is `asset_list_digest`'s, `lease_id` is empty but for renewals,
    `devices` holds `device_evidence_digest` of each device in the order in which the request carries them.
    """

    broker: str
    nonce: bytes
    grant: bytes
    node_id: str
    hpke_key: bytes
    signing_key: bytes
    assets: bytes
    lease_id: str
    devices: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """The canonical encoding."""
        return encode(
            LABEL_RUNTIME_DATA,
            check_id(self.broker, "runtime_data.broker").encode("ascii"),
            self.nonce,
            self.grant,
            check_id(self.node_id, "runtime_data.node_id").encode("ascii"),
            self.hpke_key,
            self.signing_key,
            self.assets,
            self.lease_id.encode("ascii"),
            encode_list(self.devices),
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse `to_bytes`'s encoding; nothing else is accepted.

        Raises:
            BindingError: the bytes are not the canonical encoding of runtime data.
        """
        f = decode(LABEL_RUNTIME_DATA, data, 9)
        return cls(
            broker=_text(f[0], "runtime_data.broker"),
            nonce=_exact(f[1], NONCE_SIZE, "runtime_data.nonce"),
            grant=_exact(f[2], SHA256_SIZE, "runtime_data.grant"),
            node_id=_text(f[3], "runtime_data.node_id"),
            hpke_key=_exact(f[4], HPKE_PUBLIC_KEY_SIZE, "runtime_data.hpke_key"),
            signing_key=_exact(f[5], SIGNING_KEY_SIZE, "runtime_data.signing_key"),
            assets=_exact(f[6], SHA256_SIZE, "runtime_data.assets"),
            lease_id=_text(f[7], "runtime_data.lease_id") if f[7] else "",
            devices=tuple(
                _exact(item, SHA256_SIZE, "runtime_data.devices")
                for item in decode_list(f[8], what="runtime_data.devices", limit=64)
            ),
        )

    def report_data(self) -> bytes:
        """The 64 bytes that SNP and TDX evidence must carry."""
        return hashlib.sha512(self.to_bytes()).digest()


def passport_message(*, ear: str, nonce: bytes, grant: bytes, assets: bytes, hpke_key: bytes) -> bytes:
    """What the node's signing key signs when it presents an Attestation Result instead of evidence."""
    return encode(LABEL_PASSPORT, sha256(ear.encode("ascii")), nonce, grant, assets, hpke_key)


def lease_return_message(*, lease_id: str, zeroised: bool) -> bytes:
    """What the node's signing key signs when it returns a lease: did it erase the keys from memory?"""
    return encode(LABEL_LEASE_RETURN, lease_id.encode("ascii"), b"\x01" if zeroised else b"\x00")


def output_message(
    *,
    lease_id: str,
    ref: AssetRef,
    key_id: str,
    manifest_digest: bytes,
    wrapped_key: bytes,
    kind: str = "",
    constraints: str = "",
) -> bytes:
    """What the node's signing key signs when it registers what its job made.

    Args:
        lease_id: the lease that the key was attested for.
        ref: the asset version that the output becomes.
        key_id: of its data key.
        manifest_digest: SHA-256 of its sealed manifest.
        wrapped_key: its data key, wrapped to the broker.
        kind: of the asset, where the call registers it too; else empty.
        constraints: the canonical JSON that the new asset is to demand; else empty.
    """
    return encode(
        LABEL_OUTPUT,
        lease_id.encode("ascii"),
        ref.asset.encode("ascii"),
        u32(ref.version),
        key_id.encode("ascii"),
        manifest_digest,
        sha256(wrapped_key),
        kind.encode("ascii"),
        constraints.encode("utf-8"),
    )


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class AssetUse:
    """What a lease used of one of its assets since it was granted, as its attested node counts it.

    Attributes:
        ref: the asset's version.
        bytes_opened: plaintext bytes that were decrypted.
        tokens_served: tokens that were given out of what the asset made.
        bytes_served: bytes that were given out of what the asset made.
    """

    ref: AssetRef
    bytes_opened: int = 0
    tokens_served: int = 0
    bytes_served: int = 0


def usage_report_message(*, lease_id: str, sequence: int, uses: Sequence[AssetUse]) -> bytes:
    """What the node's signing key signs when it reports what a lease used so far.

    Args:
        lease_id: the lease.
        sequence: 1 for its first report, then higher each time.
        uses: of each of its assets; sorted by the asset's text, and without repeats, in what is signed.

    Raises:
        BindingError: an asset is there twice, or a number does not fit into 64 bits.
    """
    texts = sorted({str(use.ref).encode("ascii"): use for use in uses}.items())
    if len(texts) != len(uses):
        raise BindingError("usage report: an asset is there twice")
    numbers = [sequence, *(n for use in uses for n in (use.bytes_opened, use.tokens_served, use.bytes_served))]
    if not all(0 <= number < 1 << 64 for number in numbers):
        raise BindingError("usage report: a number does not fit into 64 bits")
    return encode(
        LABEL_USAGE_REPORT,
        lease_id.encode("ascii"),
        u64(sequence),
        encode_list(
            [
                encode_list([text, u64(use.bytes_opened), u64(use.tokens_served), u64(use.bytes_served)])
                for text, use in texts
            ]
        ),
    )


def hpke_info(*, transcript: bytes, lease_id: str, ref: AssetRef, key_id: str, policy_digest: bytes) -> bytes:
    """HPKE `info` for a released data key; `transcript` is SHA-256 of the runtime data or passport message."""
    return encode(
        LABEL_HPKE_INFO,
        transcript,
        lease_id.encode("ascii"),
        ref.asset.encode("ascii"),
        u32(ref.version),
        key_id.encode("ascii"),
        policy_digest,
    )


def owner_key_info(*, broker: str, ref: AssetRef, key_id: str) -> bytes:
    """HPKE `info` for a data key that its owner wraps to the broker, or the broker to its owner."""
    return encode(
        LABEL_OWNER_KEY, broker.encode("ascii"), ref.asset.encode("ascii"), u32(ref.version), key_id.encode("ascii")
    )


def data_key_context(*, tenant: str, ref: AssetRef, key_id: str) -> bytes:
    """Associated data for a data key at rest under the broker's key hierarchy."""
    return encode(
        LABEL_DATA_KEY, tenant.encode("ascii"), ref.asset.encode("ascii"), u32(ref.version), key_id.encode("ascii")
    )


def sealed_file_context(*, ref: AssetRef, name: str) -> bytes:
    """Associated data of a sealed file: which asset, which version, which file."""
    return encode(LABEL_SEALED_FILE, ref.asset.encode("ascii"), u32(ref.version), name.encode("utf-8"))


HPKE_SUITE_NAME: Final = "MLKEM768-X25519/HKDF-SHA256/AES-256-GCM"
"""draft-ietf-hpke-pq's hybrid KEM with RFC 9180's KDF and AEAD: a recording made today stays closed later."""

_MLKEM_KEY_SIZE: Final = 1184
_X25519_KEY_SIZE: Final = 32
_MLKEM_SEED_SIZE: Final = 64
HPKE_PUBLIC_KEY_SIZE: Final = _MLKEM_KEY_SIZE + _X25519_KEY_SIZE
_PROBE: Final = x25519.X25519PrivateKey.from_private_bytes(bytes(31) + b"\x40")
"""A private key that guards nothing: it only tells points of small order from the others."""

_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class UnwrapError(Exception):
    """A wrapped key does not open: another key, another context, or altered bytes."""

    code = "UNWRAP_FAILED"


class HpkePrivateKey:
    """The recipient's half of an HPKE key pair (`HPKE_SUITE_NAME`); it lives in memory only, or as its seed."""

    __slots__ = ("_mlkem", "_private", "_x25519", "public_key")

    public_key: bytes
    """ML-KEM-768 encapsulation key ‖ X25519 public key (1,216 bytes)."""

    def __init__(self, mlkem_key: mlkem.MLKEM768PrivateKey, x25519_key: x25519.X25519PrivateKey) -> None:
        self._mlkem = mlkem_key
        self._x25519 = x25519_key
        self._private = hpke.MLKEM768X25519PrivateKey(mlkem_key, x25519_key)
        self.public_key = mlkem_key.public_key().public_bytes_raw() + x25519_key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """A fresh key pair."""
        return cls(mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Load `to_bytes`'s 96 bytes.

        Raises:
            BindingError: another length.
        """
        _exact(data, _MLKEM_SEED_SIZE + _X25519_KEY_SIZE, "HPKE private key")
        return cls(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(data[:_MLKEM_SEED_SIZE]),
            x25519.X25519PrivateKey.from_private_bytes(data[_MLKEM_SEED_SIZE:]),
        )

    def to_bytes(self) -> bytes:
        """ML-KEM-768 seed (64 bytes) ‖ X25519 private key (32 bytes). Secret."""
        return self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()

    def open(self, ciphertext: bytes, *, info: bytes) -> bytes:
        """Open what `hpke_seal` made for this key and `info`.

        Raises:
            UnwrapError: it was made for another key or context, or was altered.
        """
        try:
            return _SUITE.decrypt(ciphertext, self._private, info)
        except (InvalidTag, ValueError):
            raise UnwrapError("wrapped key does not open: another recipient or context, or altered bytes") from None


def _hpke_public_key(public_key: bytes) -> hpke.MLKEM768X25519PublicKey:
    _exact(public_key, HPKE_PUBLIC_KEY_SIZE, "HPKE public key")
    try:
        return hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_KEY_SIZE]),
            x25519.X25519PublicKey.from_public_bytes(public_key[_MLKEM_KEY_SIZE:]),
        )
    except ValueError as error:
        raise BindingError(f"HPKE public key: {error}") from None


def check_hpke_public_key(public_key: bytes) -> None:
    """Check that `hpke_seal` can seal to `public_key`, at a fraction of what sealing costs.

    Raises:
        BindingError: it is no key of this suite: a wrong length, an encapsulation key that fails FIPS 203's modulus
            check (section 7.2), or an X25519 point of small order (RFC 7748, section 6.1).
    """
    _hpke_public_key(public_key)
    try:
        # Whether the shared secret is all zeros depends on the point alone: every private key is a multiple of 8.
        _PROBE.exchange(x25519.X25519PublicKey.from_public_bytes(public_key[_MLKEM_KEY_SIZE:]))
    except ValueError:
        raise BindingError("HPKE public key: its X25519 point is of small order") from None


def hpke_seal(plaintext: bytes, *, public_key: bytes, info: bytes) -> bytes:
    """Seal `plaintext` to `public_key` (as `HpkePrivateKey.public_key`) in the context `info`.

    Raises:
        BindingError: not a public key of this suite.
    """
    recipient = _hpke_public_key(public_key)
    try:
        return _SUITE.encrypt(plaintext, recipient, info)
    except ValueError as error:
        raise BindingError(f"HPKE public key: {error}") from None
