"""The manifest of a sealed asset: which files it has, sealed with which key, vouched for by its owner's signature.

``manifest.json`` is canonical JSON (RFC 8785) and nothing else, so that its SHA-256 names the asset version's
content; ``manifest.sig`` is the owner's Ed25519 signature (RFC 8032, 64 bytes) over ``encode(keystead/v1/
sealed-manifest, SHA-256(manifest.json))`` in the encoding of `keystead.binding`. A file called ``NAME`` in the
manifest lies beside it as ``NAME.sealed``.
"""

from __future__ import annotations

import hmac
import unicodedata
from typing import Annotated, Final, Literal, Self

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from keystead.binding import LABEL_PREFIX, AssetRef, BindingError, check_id, encode, sealed_file_context, sha256
from sealed.errors import ManifestError, ManifestSignatureError, SealingError
from sealed.format import MAX_PLAINTEXT, Layout

LABEL_SEALED_MANIFEST: Final = LABEL_PREFIX + "sealed-manifest"
MANIFEST_NAME: Final = "manifest.json"
SIGNATURE_NAME: Final = "manifest.sig"
SEALED_SUFFIX: Final = ".sealed"
FORMAT: Final = "keystead/v1/sealed-asset;cipher=AES256_GCM_HKDF_1MB"

MAX_MANIFEST: Final = 16 << 20
"""A manifest is at most 16 MiB, which is some 60,000 files."""

MAX_NAME: Final = 1024
"""Bytes of UTF-8 in a file name."""

MAX_COMPONENT: Final = 255 - len(SEALED_SUFFIX)
"""Bytes of UTF-8 in one component: the suffix must still fit the 255 bytes of common file systems."""


def check_name(name: str) -> str:
    """Return `name` if it is a file name of the format: a relative path that cannot leave the asset's folder.

    Components are joined by ``/``; none is empty, ``.`` or ``..``; no backslash and no control character; Unicode
    in normalisation form C, so that one name has one encoding.

    Raises:
        SealingError: it is not.
    """
    try:
        size = len(name.encode("utf-8"))
        components = [component.encode("utf-8") for component in name.split("/")]
    except UnicodeEncodeError:
        raise SealingError(f"file name {name!a:.80}: not Unicode text") from None
    if not 0 < size <= MAX_NAME or max(map(len, components)) > MAX_COMPONENT:
        raise SealingError(
            f"file name {name!a:.80}: {size} bytes; 1 to {MAX_NAME} are allowed, {MAX_COMPONENT} between two slashes"
        )
    if any(component in {b"", b".", b".."} for component in components):
        raise SealingError(f"file name {name!a:.80}: must be relative, without empty components, '.' and '..'")
    if "\\" in name or any(unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} for char in name):
        raise SealingError(f"file name {name!a:.80}: holds a backslash, or a control or format character")
    if not unicodedata.is_normalized("NFC", name):
        raise SealingError(f"file name {name!a:.80}: not in Unicode normalisation form C")
    return name


def check_asset(asset: str) -> str:
    """Return `asset` if it is ``TENANT/NAME``.

    Raises:
        SealingError: it is not.
    """
    try:
        check_id(asset, "asset")
    except BindingError as error:
        raise SealingError(str(error)) from None
    tenant, slash, name = asset.partition("/")
    if not (tenant and slash and name) or "@" in asset:
        raise SealingError(f"asset: {asset!r:.80} is not TENANT/NAME")
    return asset


def _valid_name(name: str) -> str:
    try:
        return check_name(name)
    except SealingError as error:
        raise ValueError(str(error)) from None


def _valid_asset(asset: str) -> str:
    try:
        return check_asset(asset)
    except SealingError as error:
        raise ValueError(str(error)) from None


class ManifestFile(BaseModel):
    """One file of a sealed asset.

    Attributes:
        name: see `check_name`.
        size: plaintext bytes.
        sealed_size: bytes of the sealed file.
        sealed_sha256: SHA-256 of the sealed file, lower-case hex.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_valid_name)]
    size: Annotated[int, Field(ge=0, le=MAX_PLAINTEXT)]
    sealed_size: int
    sealed_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        expected = Layout.of_size(self.size).sealed_size
        if self.sealed_size != expected:
            raise ValueError(f"{self.name}: {self.size} bytes seal to {expected}, not to {self.sealed_size}")
        return self


class Manifest(BaseModel):
    """What one version of an asset consists of.

    Attributes:
        format: the format and its cipher.
        asset: ``tenant/name``.
        version: 1 to 999,999,999.
        key_id: `sealed.format.key_id` of the data key.
        files: at least one, sorted by name, no name twice, no name a folder of another.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    format: Literal["keystead/v1/sealed-asset;cipher=AES256_GCM_HKDF_1MB"] = FORMAT
    asset: Annotated[str, AfterValidator(_valid_asset)]
    version: Annotated[int, Field(ge=1, le=999_999_999)]
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    files: Annotated[tuple[ManifestFile, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _files_are_a_tree(self) -> Self:
        names = [file.name for file in self.files]
        if names != sorted(set(names)):
            raise ValueError("files: not sorted by name, or a name is there twice")
        known = set(names)
        for name in names:
            parent = name.rpartition("/")[0]
            while parent:
                if parent in known:
                    raise ValueError(f"files: {parent!r} is a file and a folder")
                parent = parent.rpartition("/")[0]
        return self

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse what `to_bytes` wrote; the same document in another form of JSON is refused.

        Raises:
            ManifestError: too long, not such a document, or not canonical.
        """
        if len(data) > MAX_MANIFEST:
            raise ManifestError(f"manifest: {len(data)} bytes, at most {MAX_MANIFEST} are allowed")
        try:
            manifest = cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "document"
            raise ManifestError(f"manifest: {where}: {first['msg']} ({error.error_count()} problems)") from None
        if manifest.to_bytes() != data:
            raise ManifestError("manifest: not canonical JSON (RFC 8785): seal again instead of editing it")
        return manifest

    @classmethod
    def parse_signed(cls, data: bytes, *, signature: bytes, owner: Ed25519PublicKey) -> Self:
        """Parse a manifest after checking its owner's signature over exactly these bytes.

        Raises:
            ManifestSignatureError: the owner did not sign these bytes.
            ManifestError: see `parse`.
        """
        try:
            owner.verify(signature, encode(LABEL_SEALED_MANIFEST, sha256(data)))
        except InvalidSignature:
            raise ManifestSignatureError("manifest: not signed by this owner key, or altered since") from None
        return cls.parse(data)

    @classmethod
    def parse_vouched(cls, data: bytes, *, digest: bytes) -> Self:
        """Parse a manifest after checking that `digest`, which somebody trusted gave, is its SHA-256.

        Raises:
            ManifestSignatureError: it is another manifest.
            ManifestError: see `parse`.
        """
        actual = sha256(data)
        if not hmac.compare_digest(actual, digest):
            raise ManifestSignatureError(f"manifest: {actual.hex()} is not {digest.hex()}, which was vouched for")
        return cls.parse(data)

    def to_bytes(self) -> bytes:
        """The canonical JSON of the manifest (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    def digest(self) -> bytes:
        """SHA-256 of `to_bytes`: what the broker keeps with the asset's version and vouches for in every lease."""
        return sha256(self.to_bytes())

    @property
    def ref(self) -> AssetRef:
        """The asset's version."""
        return AssetRef(self.asset, self.version)

    def file(self, name: str) -> ManifestFile:
        """The file called `name`.

        Raises:
            ManifestError: the asset has none of that name.
        """
        for file in self.files:
            if file.name == name:
                return file
        raise ManifestError(f"{self.ref}: has no file {name!a:.80}")

    def context(self, name: str) -> bytes:
        """The associated data of the file called `name`.

        Raises:
            ManifestError: the asset has none of that name.
        """
        return sealed_file_context(ref=self.ref, name=self.file(name).name)

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """The owner's signature, 64 bytes."""
        return key.sign(encode(LABEL_SEALED_MANIFEST, self.digest()))
