"""A sealed asset on storage: one folder with a signed manifest and the sealed files beside it."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.utils import Buffer

from keystead.binding import AssetRef, sealed_file_context
from sealed.atomic import atomic_file
from sealed.errors import ManifestError, NotAuthenticError, SealingError
from sealed.format import key_id
from sealed.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST,
    SEALED_SUFFIX,
    SIGNATURE_NAME,
    Manifest,
    ManifestFile,
    check_asset,
    check_name,
)
from sealed.open import SealedReader
from sealed.seal import Progress, seal_file

_MODE: Final = 0o644
_SIGNATURE_SIZE: Final = 64
_MAX_VERSION: Final = 999_999_999
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")


def collect_sources(paths: tuple[Path, ...]) -> dict[str, Path]:
    """The files to seal, by the names they get: a file by its own name, a folder's files by their path within it.

    Raises:
        SealingError: two files get one name, a name is none of the format's, or there is no regular file.
        OSError: a folder cannot be read.
    """
    sources: dict[str, Path] = {}
    for path in paths:
        found = (
            {path.name: path}
            if path.is_file()
            else {entry.relative_to(path).as_posix(): entry for entry in _walk(path)}
        )
        for name, source in found.items():
            if check_name(name) in sources:
                raise SealingError(
                    f"{source} and {sources[name]} would both be called {name!r}: seal their folder instead"
                )
            sources[name] = source
    if not sources:
        raise SealingError("nothing to seal: no regular file among the given paths")
    return dict(sorted(sources.items()))


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        folders.sort()
        for name in sorted(files):
            path = Path(root, name)
            if path.is_symlink() or not path.is_file():
                raise SealingError(f"{path}: a symbolic link or special file; seal what it stands for by its own path")
            yield path
        for name in folders:
            if Path(root, name).is_symlink():
                raise SealingError(f"{Path(root, name)}: a symbolic link; seal what it stands for by its own path")


def seal_asset(
    sources: Mapping[str, Path],
    folder: Path,
    *,
    ref: AssetRef,
    key: Buffer,
    signing_key: Ed25519PrivateKey,
    threads: int = 1,
    progress: Progress | None = None,
) -> Manifest:
    """Seal `sources` (name → file) into `folder` and sign their manifest.

    The folder must hold no manifest yet: a version is sealed once, and its content never changes under its name.
    After an interruption call again with the same arguments: every file starts over with a new salt.

    Args:
        sources: see `collect_sources`.
        folder: is made if it is not there.
        ref: the asset's version, part of every file's associated data.
        key: the data key, 32 bytes.
        signing_key: the owner's.
        threads: how many files to seal at the same time.
        progress: called by those threads in turn, see `sealed.seal.Progress`.

    Raises:
        SealingError: the folder already holds a manifest, a name or the reference is not allowed, a file changed.
        KeyMaterialError: the key is not 32 bytes.
        OSError: reading or writing failed.
    """
    check_asset(ref.asset)
    if not 1 <= ref.version <= _MAX_VERSION:
        raise SealingError(f"{ref}: a version is a number from 1 to {_MAX_VERSION}")
    if (folder / MANIFEST_NAME).exists():
        raise SealingError(f"{folder}: already holds a sealed asset; a new content is a new version in its own folder")
    turn = threading.Lock()

    def advance(count: int) -> None:
        if progress is not None:
            with turn:
                progress(count)

    def seal_one(name: str) -> ManifestFile:
        target = sealed_path(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        context = sealed_file_context(ref=ref, name=name)
        done = seal_file(sources[name], target, key=key, context=context, progress=advance)
        return ManifestFile(
            name=name, size=done.size, sealed_size=done.sealed_size, sealed_sha256=done.sealed_sha256.hex()
        )

    pool = ThreadPoolExecutor(threads, thread_name_prefix="seal")
    try:
        files = tuple(pool.map(seal_one, sorted(map(check_name, sources))))
    finally:
        pool.shutdown(cancel_futures=True)
    try:
        manifest = Manifest(asset=ref.asset, version=ref.version, key_id=key_id(key), files=files)
    except ValueError as error:
        raise SealingError(f"{ref}: {error}") from None
    data = manifest.to_bytes()
    if len(data) > MAX_MANIFEST:
        raise SealingError(
            f"{ref}: {len(files)} files need a manifest of {len(data)} bytes, at most {MAX_MANIFEST} may be"
        )
    # The manifest comes last: where it stands, everything it names stands too.
    for name, content in ((SIGNATURE_NAME, manifest.sign(signing_key)), (MANIFEST_NAME, data)):
        with atomic_file(folder / name, mode=_MODE) as sink:
            sink.write(content)
    return manifest


def sealed_path(folder: Path, name: str) -> Path:
    """Where the file called `name` lies in a sealed asset's folder."""
    return folder / f"{name}{SEALED_SUFFIX}"


@dataclass(frozen=True, slots=True)
class SealedAsset:
    """A sealed asset whose manifest was read; `load` and `load_vouched` say what makes it believable.

    Attributes:
        folder: where it lies.
        manifest: what it consists of.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def load(cls, folder: Path, *, owner: Ed25519PublicKey) -> Self:
        """Read a manifest that its owner signed.

        Raises:
            ManifestSignatureError: the owner did not sign it.
            ManifestError: it is malformed.
            OSError: it cannot be read.
        """
        data = _read(folder / MANIFEST_NAME, limit=MAX_MANIFEST)
        signature = _read(folder / SIGNATURE_NAME, limit=_SIGNATURE_SIZE)
        return cls(folder, Manifest.parse_signed(data, signature=signature, owner=owner))

    @classmethod
    def load_vouched(cls, folder: Path, *, digest: bytes) -> Self:
        """Read a manifest whose SHA-256 somebody trusted gave: the broker in a lease, an audit record.

        Raises:
            ManifestSignatureError: it is another manifest.
            ManifestError: it is malformed.
            OSError: it cannot be read.
        """
        return cls(folder, Manifest.parse_vouched(_read(folder / MANIFEST_NAME, limit=MAX_MANIFEST), digest=digest))

    @classmethod
    def load_unverified(cls, folder: Path) -> Self:
        """Read a manifest that nobody vouched for.

        What the data key opens is still exactly what was sealed for that asset, version and name; whether the list
        of files is complete and current is not known.

        Raises:
            ManifestError: it is malformed.
            OSError: it cannot be read.
        """
        return cls(folder, Manifest.parse(_read(folder / MANIFEST_NAME, limit=MAX_MANIFEST)))

    def open(self, name: str, *, key: Buffer, meter: Callable[[int], None] | None = None) -> SealedReader:
        """Open the file called `name`; `meter` as for `SealedReader`.

        Raises:
            ManifestError: the asset has no such file.
            KeyMaterialError: the key is not 32 bytes.
            NotAuthenticError: the file is not what was sealed, has another size than the manifest says, is not
                there, or was sealed with another key.
            OSError: it cannot be read.
        """
        entry = self.manifest.file(name)
        if not hmac.compare_digest(key_id(key), self.manifest.key_id):
            raise NotAuthenticError(
                f"{self.manifest.ref}: sealed with key {self.manifest.key_id}, this is {key_id(key)}"
            )
        path = sealed_path(self.folder, name)
        try:
            reader = SealedReader(path, key=key, context=self.manifest.context(name), meter=meter)
        except FileNotFoundError:
            raise NotAuthenticError(f"{path}: not there, though the manifest names it") from None
        if reader.sealed_size != entry.sealed_size:
            reader.close()
            raise NotAuthenticError(f"{path}: {reader.sealed_size} bytes, the manifest says {entry.sealed_size}")
        return reader

    def verify(self, name: str, *, key: Buffer, threads: int = 1, progress: Progress | None = None) -> None:
        """Authenticate the whole file called `name`, and that it is the very sealing that the manifest names.

        Raises:
            ManifestError: the asset has no such file.
            KeyMaterialError: the key is not 32 bytes.
            NotAuthenticError: the file is not what was sealed, or another one than the manifest names.
            OSError: it cannot be read.
        """
        entry = self.manifest.file(name)
        with self.open(name, key=key) as reader:
            reader.verify(threads=threads, progress=progress)
        with sealed_path(self.folder, name).open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != entry.sealed_sha256:
            raise NotAuthenticError(
                f"{name}: SHA-256 {actual}, the manifest says {entry.sealed_sha256}: another sealing of it"
            )


def _read(path: Path, *, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ManifestError(f"{path}: more than {limit} bytes")
    return data


def parse_digest(text: str) -> bytes:
    """Parse a manifest's digest: 64 lower-case hex digits.

    Raises:
        ManifestError: it is something else.
    """
    if not _DIGEST.match(text):
        raise ManifestError("digest: not 64 lower-case hex digits")
    return bytes.fromhex(text)
