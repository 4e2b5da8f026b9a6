"""Policy bundles: OPA's gzipped tarballs, read strictly and named by what they contain.

A bundle is what ``opa build --target wasm`` writes (OPA 1.22, "Bundle File Format"): ``/.manifest``,
``/policy.wasm``, ``/data.json`` and the Rego sources. The digest covers canonical contents, never the tarball's
bytes: the same policy packed twice, or by another gzip, has one digest.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from keystead import binding
from policy.documents import Json, encode_document, read_json_object
from policy.errors import BundleError, PolicyInputError

LABEL_POLICY_BUNDLE: Final = binding.LABEL_PREFIX + "policy-bundle"

MAX_COMPRESSED: Final = 4 << 20
"""No bundle's tarball is longer than 4 MiB."""

MAX_CONTENTS: Final = 16 << 20
"""No bundle unpacks to more than 16 MiB, tar headers and padding included."""

MAX_ENTRIES: Final = 256
"""No bundle holds more than 256 files."""

_MANIFEST: Final = ".manifest"
_DATA: Final = "data.json"
_MODULE: Final = "policy.wasm"

_BLOCK: Final = 512
_MAGIC: Final = b"ustar\x0000"
_PLAIN: Final = frozenset({b"0", b"\0"})
_EXTENDED: Final = frozenset({b"x", b"g", b"L", b"K", b"S"})
"""pax headers, and GNU's long names and sparse files."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One pack compiled to Wasm.

    Attributes:
        files: every file by its path, without a leading slash.
        entrypoint: the rule that decides, ``release/decision``.
        wasm: the compiled module.
        data: the bundle's own data document, the defaults that an engine's `data` is laid over.
        digest: SHA-256 over the canonical contents (32 bytes).
    """

    files: Mapping[str, bytes]
    entrypoint: str
    wasm: bytes
    data: Mapping[str, Json]
    digest: bytes

    @classmethod
    def load(cls, source: Path | bytes) -> Self:
        """Read a bundle from a file or from a tarball's bytes.

        Raises:
            BundleError: it cannot be read, breaks a limit, has an entry that is no plain file or leaves the bundle,
                or is not exactly one entrypoint ``…/decision`` compiled to one Wasm module.
        """
        raw = source if isinstance(source, bytes) else _read(source)
        return cls.from_files(_unpack(raw))

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Make a bundle of unpacked files.

        Raises:
            BundleError: as `load`.
        """
        for name in (_MANIFEST, _DATA, _MODULE):
            if name not in files:
                raise BundleError(f"policy bundle: no /{name}; build it with `keystead policy build`")
        manifest, data = _object(files, _MANIFEST), _object(files, _DATA)
        return cls(
            files=MappingProxyType(dict(files)),
            entrypoint=_entrypoint(manifest),
            wasm=files[_MODULE],
            data=MappingProxyType(data),
            digest=_digest(files, {_MANIFEST: manifest, _DATA: data}),
        )

    @property
    def packages(self) -> frozenset[str]:
        """First names of the Rego packages within: ``data.<name>`` belongs to rules, and no data may stand there."""
        return frozenset(name.split("/")[0] for name in self.files if name.endswith(".rego")) | {
            self.entrypoint.split("/")[0]
        }


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_COMPRESSED + 1)
    except OSError as error:
        raise BundleError(f"policy bundle: {path}: {error.strerror}") from error


def _unpack(raw: bytes) -> dict[str, bytes]:
    if len(raw) > MAX_COMPRESSED:
        raise BundleError(f"policy bundle: longer than {MAX_COMPRESSED} bytes")
    inflate = zlib.decompressobj(wbits=31)
    try:
        tar = inflate.decompress(raw, MAX_CONTENTS + 1)
    except zlib.error as error:
        raise BundleError(f"policy bundle: not a gzip file: {error}") from None
    if len(tar) > MAX_CONTENTS or inflate.unconsumed_tail:
        raise BundleError(f"policy bundle: unpacks to more than {MAX_CONTENTS} bytes")
    if not inflate.eof or inflate.unused_data:
        raise BundleError("policy bundle: gzip data is cut short, or something follows it")
    return _entries(tar)


def _entries(tar: bytes) -> dict[str, bytes]:
    """The files of an archive in the ustar interchange format (IEEE Std 1003.1-1988), which is what opa writes.

    The standard library's reader also follows extended headers, sparse files and sizes below zero; a chain of those
    takes it through its stack, or through time that grows with the square of the archive.
    """
    files: dict[str, bytes] = {}
    at = 0
    while True:
        header = tar[at : at + _BLOCK]
        if len(header) < _BLOCK:
            raise BundleError("policy bundle: not a tar archive, or it is cut short")
        if not any(header):
            break
        if len(files) >= MAX_ENTRIES:
            raise BundleError(f"policy bundle: more than {MAX_ENTRIES} entries")
        name, size = _header(header)
        at += _BLOCK
        content = tar[at : at + size]
        if len(content) < size:
            raise BundleError(f"policy bundle: {name} is cut short")
        if name in files:
            raise BundleError(f"policy bundle: {name} is there twice")
        files[name] = content
        at += -(-size // _BLOCK) * _BLOCK
    if tar.count(0, at) != len(tar) - at or len(tar) - at < 2 * _BLOCK:
        raise BundleError("policy bundle: the archive does not end in two blocks of zeros and nothing else")
    return files


def _header(header: bytes) -> tuple[str, int]:
    """Name and size of the plain file that `header` describes."""
    if header[257:265] != _MAGIC:
        raise BundleError("policy bundle: not a tar archive in ustar format; build it with `keystead policy build`")
    checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if _octal(header[148:156], "checksum") != checksum:
        raise BundleError("policy bundle: not a tar archive: an entry's checksum is wrong")
    kind = header[156:157]
    if kind in _EXTENDED:
        raise BundleError("policy bundle: an entry name or size in an extended header, which are not read")
    prefix, base = (_text(field) for field in (header[345:500], header[:100]))
    name = f"{prefix}/{base}" if prefix else base
    if kind not in _PLAIN:
        raise BundleError(f"policy bundle: {name!r:.80} is not a plain file")
    name = _safe_name(name)
    return name, _octal(header[124:136], f"size of {name}")


def _octal(field: bytes, what: str) -> int:
    """A number: octal digits that a space or a NUL ends."""
    digits = field.rstrip(b" \0").lstrip(b" ")
    if not digits or digits.strip(b"01234567"):
        raise BundleError(f"policy bundle: not a tar archive: {what} is not octal")
    return int(digits, 8)


def _text(field: bytes) -> str:
    """A name, which a NUL ends where it does not fill its field."""
    # Bytes that are no ASCII become characters that `_safe_name` refuses.
    return field.partition(b"\0")[0].decode("latin-1")


def _safe_name(name: str) -> str:
    """`name` without its leading slash, if it stays inside the bundle.

    Raises:
        BundleError: an empty or relative part, a backslash, or a character that no path here has.
    """
    relative = name.removeprefix("/")
    if not relative.isascii() or not relative.isprintable() or "\\" in relative:
        raise BundleError(f"policy bundle: entry name {name!r:.80} has characters that are not allowed")
    if any(part in {"", ".", ".."} for part in relative.split("/")):
        raise BundleError(f"policy bundle: entry name {name!r:.80} does not stay inside the bundle")
    return relative


def _object(files: Mapping[str, bytes], name: str) -> dict[str, Json]:
    try:
        return read_json_object(files[name], what=f"policy bundle: /{name}")
    except PolicyInputError as error:
        raise BundleError(str(error)) from None


def _entrypoint(manifest: Mapping[str, Json]) -> str:
    match manifest.get("wasm"):
        case [{"entrypoint": str(entrypoint), "module": "/policy.wasm"}]:
            pass
        case _:
            raise BundleError("policy bundle: /.manifest does not name exactly one entrypoint in /policy.wasm")
    if not entrypoint.endswith("/decision"):
        raise BundleError(f"policy bundle: the entrypoint is {entrypoint!r:.80}, expected PACKAGE/decision")
    return entrypoint


def _digest(files: Mapping[str, bytes], documents: Mapping[str, Mapping[str, Json]]) -> bytes:
    """SHA-256 over paths in order, each with SHA-256 of its content; JSON documents in RFC 8785 form."""
    items: list[bytes] = []
    for name in sorted(files):
        document = documents.get(name)
        content = files[name] if document is None else encode_document(document, what=name)
        items += (name.encode("ascii"), hashlib.sha256(content).digest())
    return binding.sha256(binding.encode(LABEL_POLICY_BUNDLE, binding.encode_list(items)))
