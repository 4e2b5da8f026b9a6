"""``keystead seal`` and ``keystead open``: sealed files without a broker, for whoever holds the data key."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from keystead.binding import AssetRef
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import JsonOption, console, print_json, print_table, printable
from sealed.asset import SealedAsset, collect_sources, parse_digest, seal_asset
from sealed.errors import KeyMaterialError
from sealed.format import KEY_SIZE, key_id
from sealed.manifest import Manifest

if TYPE_CHECKING:
    from keystead.cli.output import Json

_MAX_PEM: Final = 1 << 16
_THREADS: Final = min(8, os.cpu_count() or 1)


def read_data_key(path: Path) -> bytes:
    """Read a data key: a file of exactly 32 bytes.

    Raises:
        KeyMaterialError: it holds something else.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        key = file.read(KEY_SIZE + 1)
    if len(key) != KEY_SIZE:
        raise KeyMaterialError(f"{path}: a data key is {KEY_SIZE} random bytes: openssl rand -out {path} {KEY_SIZE}")
    return key


def create_data_key(path: Path) -> bytes:
    """Make a data key and write it to the new file `path`, readable by its owner alone.

    Raises:
        OSError: the file is already there or cannot be written.
    """
    key = secrets.token_bytes(KEY_SIZE)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _read_pem(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_PEM)


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read the owner's signing key: an unencrypted Ed25519 private key in PEM.

    Raises:
        KeyMaterialError: it holds something else.
        OSError: it cannot be read.
    """
    try:
        key = load_pem_private_key(_read_pem(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        raise KeyMaterialError(f"{path}: not an unencrypted private key in PEM: {error!s:.200}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyMaterialError(f"{path}: not an Ed25519 key: openssl genpkey -algorithm ed25519 -out {path}")
    return key


def read_owner_key(path: Path) -> Ed25519PublicKey:
    """Read the owner's public key: Ed25519 in PEM.

    Raises:
        KeyMaterialError: it holds something else.
        OSError: it cannot be read.
    """
    try:
        key = load_pem_public_key(_read_pem(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyMaterialError(f"{path}: not a public key in PEM: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyMaterialError(f"{path}: not an Ed25519 public key: openssl pkey -in KEY -pubout -out {path}")
    return key


@contextmanager
def progress_bar(total: int, *, what: str) -> Iterator[Callable[[int], None] | None]:
    """Show a bar on standard error while the block runs, if that is a terminal; give what advances it, or None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _manifest_json(manifest: Manifest) -> dict[str, Json]:
    return {
        "asset": manifest.asset,
        "version": manifest.version,
        "key_id": manifest.key_id,
        "manifest_digest": manifest.digest().hex(),
        "files": [file.model_dump(mode="json") for file in manifest.files],
    }


def seal_app(
    *,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files, or folders with everything in them.")],
    asset: Annotated[str, typer.Option(metavar="TENANT/NAME", help="The asset that these files are.")],
    version: Annotated[int, typer.Option(metavar="N", help="Its version, from 1 on. A version is sealed once.")],
    key_file: Annotated[Path, typer.Option(metavar="FILE", help="The data key: 32 bytes.")],
    signing_key: Annotated[Path, typer.Option(metavar="PEM", help="The owner's Ed25519 key, to sign the manifest.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the sealed files and their manifest go.")],
    threads: Annotated[int, typer.Option(min=1, max=64, help="How many files to seal at the same time.")] = _THREADS,
    new_key: Annotated[bool, typer.Option("--new-key", help="Make the data key; FILE must not be there yet.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Seal files."""
    owner = read_signing_key(signing_key)
    sources = collect_sources(tuple(paths))
    total = sum(source.stat().st_size for source in sources.values())
    key = create_data_key(key_file) if new_key else read_data_key(key_file)
    with progress_bar(total, what="sealing") as progress:
        manifest = seal_asset(
            sources, out, ref=AssetRef(asset, version), key=key, signing_key=owner, threads=threads, progress=progress
        )
    if as_json:
        print_json({"folder": str(out), **_manifest_json(manifest)})
        return
    print_table(
        ("file", "bytes", "sealed"),
        [(file.name, file.size, file.sealed_size) for file in manifest.files],
        title=f"{manifest.ref}, key {manifest.key_id}",
    )
    console().print(f"manifest digest {manifest.digest().hex()}")


def open_app(
    *,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that keystead seal wrote.")],
    key_file: Annotated[Path, typer.Option(metavar="FILE", help="The data key: 32 bytes.")],
    owner_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="The owner's public key: checks the manifest's signature.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option(metavar="HEX", help="The manifest's SHA-256, as the broker or a record gives it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the plaintext there, mode 0600.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Only authenticate every byte (the default).")] = False,
    threads: Annotated[int, typer.Option(min=1, max=64, help="How many segments to open at the same time.")] = _THREADS,
    as_json: JsonOption = False,
) -> None:
    """Open or verify sealed files."""
    if out is not None and verify:
        raise UsageError("--out and --verify exclude each other: --out verifies every byte that it writes")
    if owner_key is not None and digest is not None:
        raise UsageError("--owner-key and --digest exclude each other: give one of them")
    key = read_data_key(key_file)
    if owner_key is not None:
        asset, proof = SealedAsset.load(folder, owner=read_owner_key(owner_key)), "signed"
    elif digest is not None:
        asset, proof = SealedAsset.load_vouched(folder, digest=parse_digest(digest)), "vouched"
    else:
        asset, proof = SealedAsset.load_unverified(folder), "not-checked"
    manifest = asset.manifest
    with progress_bar(sum(file.size for file in manifest.files), what="opening" if out else "verifying") as progress:
        for file in manifest.files:
            if out is None:
                asset.verify(file.name, key=key, threads=threads, progress=progress)
                continue
            target = out / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with asset.open(file.name, key=key) as reader:
                reader.open_to(target, plaintext_on_disk=True, threads=threads, progress=progress)
    if as_json:
        written = None if out is None else str(out)
        print_json({"authentic": True, "manifest": proof, "written_to": written, **_manifest_json(manifest)})
        return
    done = f"{len(manifest.files)} files of {manifest.ref} are authentic (key {key_id(key)})"
    console().print(printable(done if out is None else f"{done}; plaintext in {out}"))
    if proof == "not-checked":
        warning = "manifest not checked: --owner-key or --digest proves that the list of files is whole and current"
        console(stderr=True).print(warning)


# What people read with --help: a command's help is its function's docstring.
seal_app.__doc__ = with_examples(
    "Seal files: weights, datasets, checkpoints. Writes NAME.sealed for every file, then manifest.json and "
    "manifest.sig; the manifest's digest is what the broker gets with the version's data key. Interrupted? Run it "
    "again: every file starts over with a new salt.",
    "seal model/ --asset acme/llama --version 1 --key-file data.key --new-key --signing-key owner.pem --out out/",
)
open_app.__doc__ = with_examples(
    "Open or verify sealed files. Authenticates every byte and writes nothing, unless --out names a folder for the "
    "plaintext. The data key alone proves each file; --owner-key or --digest proves that the list of files is the "
    "owner's, whole and current.",
    "open out/ --key-file data.key --owner-key owner.pub",
    "open out/ --key-file data.key --owner-key owner.pub --out plain/",
)
