"""Where packs live as sources, and how they become bundles.

A pack is a directory of Rego named as its package, with its tests beside it. What it imports and reads stands in
sibling directories: ``lib`` (shared rules), ``settings``, ``jurisdictions`` and ``shapes`` (data). The packs that ship
are compiled in ``policy/compiled``; where `opa` is present a test rebuilds them and compares digests.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from policy.bundle import Bundle
from policy.errors import PackRejectedError
from policy.opa import CAPABILITIES, Opa

PACKS: Final = Path(__file__).with_name("packs")
"""The Rego root of the packs that ship."""

SCHEMAS: Final = PACKS / "schemas"
"""JSON Schemas of inputs and settings, generated from `policy.inputs`."""

COMPILED: Final = Path(__file__).with_name("compiled")
"""The packs that ship, compiled."""

DEFAULT_PACKS: Final = ("appraisal", "release")
"""Names of the packs that ship."""

SHARED: Final = ("lib", "settings", "jurisdictions", "shapes")
"""Sibling directories that every pack may use."""


def default_bundle(name: str) -> Bundle:
    """The compiled pack that ships under `name`.

    Raises:
        BundleError: there is none, or the installation is damaged.
    """
    return Bundle.load(COMPILED / f"{name}.tar.gz")


def stage(pack: Path, *, into: Path, shared: Path | None = None) -> None:
    """Lay out `pack` and the shared directories under `into` as `opa build` takes them, tests left out.

    Args:
        pack: the pack's directory; its name is its package's.
        into: an empty directory.
        shared: where the shared directories stand; by default beside the pack where it has any, else those that ship.

    Raises:
        PackRejectedError: `pack` is not a directory, or has the name of a shared one.
    """
    if not pack.is_dir():
        raise PackRejectedError(f"policy pack: {pack} is not a directory")
    if pack.name in SHARED:
        raise PackRejectedError(f"policy pack: {pack.name} is a shared directory, not a pack")
    beside = pack.parent
    root = shared or (beside if any((beside / name).is_dir() for name in SHARED) else PACKS)
    sources = [pack, *(root / name for name in SHARED if (root / name).is_dir())]
    for source in sources:
        shutil.copytree(source, into / source.name, ignore=shutil.ignore_patterns("*_test.rego", ".*"))


@contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """`root` as opa checks and tests it: itself where it has shared directories, else a copy with those that ship.

    Raises:
        PackRejectedError: `root` is not a directory.
    """
    if not root.is_dir():
        raise PackRejectedError(f"policy packs: {root} is not a directory")
    if any((root / name).is_dir() for name in SHARED):
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="keystead-policy-") as folder:
        copy = Path(folder, root.resolve().name)
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".*"))
        for name in SHARED:
            shutil.copytree(PACKS / name, copy / name, ignore=shutil.ignore_patterns("*_test.rego"))
        yield copy


def schemas_of(root: Path) -> Path:
    """The JSON Schemas that packs under `root` are held against: their own, else those that ship."""
    own = root / SCHEMAS.name
    return own if own.is_dir() else SCHEMAS


def compile_pack(opa: Opa, pack: Path, *, shared: Path | None = None) -> tuple[Bundle, bytes]:
    """Compile the directory `pack`; returns the bundle and its tarball.

    Raises:
        PackRejectedError: opa found fault with the sources.
        BundleError: they have no single entrypoint ``…/decision``.
    """
    with tempfile.TemporaryDirectory(prefix="keystead-policy-") as folder:
        staged, output = Path(folder, "pack"), Path(folder, "bundle.tar.gz")
        staged.mkdir()
        stage(pack.resolve(), into=staged, shared=shared)
        opa.build(staged, output=output, capabilities=CAPABILITIES)
        tarball = output.read_bytes()
    return Bundle.load(tarball), tarball


def write_default_bundles(opa: Opa) -> None:
    """Compile every pack that ships into `COMPILED`; a file whose contents are the same is left alone.

    Raises:
        PackRejectedError, BundleError: as `compile_pack`.
    """
    COMPILED.mkdir(exist_ok=True)
    for name in DEFAULT_PACKS:
        bundle, tarball = compile_pack(opa, PACKS / name)
        target = COMPILED / f"{name}.tar.gz"
        if not target.is_file() or Bundle.load(target).digest != bundle.digest:
            target.write_bytes(tarball)
