from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.binding import AssetRef
from sealed.asset import SealedAsset, collect_sources, parse_digest, seal_asset
from sealed.errors import (
    KeyMaterialError,
    ManifestError,
    ManifestSignatureError,
    NotAuthenticError,
    SealedError,
    SealingError,
)
from sealed.manifest import Manifest

KEY = bytes(range(32))
OWNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
REF = AssetRef("acme/llama", 3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "shards").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "shards" / "00.bin").write_bytes(os.urandom(1_500_000))
    (folder / "empty").write_bytes(b"")
    return folder


@pytest.fixture
def asset(model: Path, tmp_path: Path) -> SealedAsset:
    out = tmp_path / "out"
    seal_asset(collect_sources((model,)), out, ref=REF, key=KEY, signing_key=OWNER)
    return SealedAsset.load(out, owner=OWNER.public_key())


def test_sealed_folder_opens(model: Path, asset: SealedAsset) -> None:
    assert [file.name for file in asset.manifest.files] == ["config.json", "empty", "shards/00.bin"]
    assert asset.manifest.ref == REF
    for file in asset.manifest.files:
        with asset.open(file.name, key=KEY) as reader:
            assert reader.read_at(0, file.size + 1) == (model / file.name).read_bytes()
        asset.verify(file.name, key=KEY)
    found = sorted(path.relative_to(asset.folder).as_posix() for path in asset.folder.rglob("*") if path.is_file())
    assert found == ["config.json.sealed", "empty.sealed", "manifest.json", "manifest.sig", "shards/00.bin.sealed"]


def test_manifest_digest_is_what_sha256sum_says(asset: SealedAsset) -> None:
    digest = asset.manifest.digest()
    assert SealedAsset.load_vouched(asset.folder, digest=digest) == asset
    with pytest.raises(ManifestSignatureError):
        SealedAsset.load_vouched(asset.folder, digest=bytes(32))
    assert parse_digest(digest.hex()) == digest
    for text in ("", "0" * 63, "A" * 64, "0" * 64 + "\n"):
        with pytest.raises(ManifestError):
            parse_digest(text)


def test_another_owner_or_another_key_does_not_open(asset: SealedAsset) -> None:
    with pytest.raises(ManifestSignatureError):
        SealedAsset.load(asset.folder, owner=Ed25519PrivateKey.generate().public_key())
    with pytest.raises(NotAuthenticError, match="sealed with key"):
        asset.open("config.json", key=bytes(32))
    with pytest.raises(KeyMaterialError):
        asset.open("config.json", key=bytes(31))
    with pytest.raises(ManifestError):
        asset.open("../model/config.json", key=KEY)


def test_files_cannot_trade_places(asset: SealedAsset) -> None:
    shutil.copy(asset.folder / "config.json.sealed", asset.folder / "empty.sealed")
    with pytest.raises(NotAuthenticError):
        asset.open("empty", key=KEY)


def test_file_of_another_version_does_not_open(model: Path, asset: SealedAsset, tmp_path: Path) -> None:
    seal_asset(collect_sources((model,)), tmp_path / "v4", ref=AssetRef("acme/llama", 4), key=KEY, signing_key=OWNER)
    shutil.copy(tmp_path / "v4" / "config.json.sealed", asset.folder / "config.json.sealed")
    with pytest.raises(NotAuthenticError):
        asset.open("config.json", key=KEY)


def test_another_sealing_of_the_same_file_is_noticed(model: Path, asset: SealedAsset, tmp_path: Path) -> None:
    """The same key, version and name: an abandoned run's file, which only the signed digest tells apart."""
    seal_asset(collect_sources((model,)), tmp_path / "again", ref=REF, key=KEY, signing_key=OWNER)
    shutil.copy(tmp_path / "again" / "config.json.sealed", asset.folder / "config.json.sealed")
    with pytest.raises(NotAuthenticError, match="another sealing"):
        asset.verify("config.json", key=KEY)


def test_size_of_the_manifest_counts(model: Path, asset: SealedAsset, tmp_path: Path) -> None:
    (model / "config.json").write_bytes(b"{} ")
    seal_asset(collect_sources((model,)), tmp_path / "again", ref=REF, key=KEY, signing_key=OWNER)
    shutil.copy(tmp_path / "again" / "config.json.sealed", asset.folder / "config.json.sealed")
    with pytest.raises(NotAuthenticError, match="manifest says"):
        asset.open("config.json", key=KEY)


def test_version_is_sealed_once(model: Path, asset: SealedAsset) -> None:
    before = (asset.folder / "config.json.sealed").read_bytes()
    with pytest.raises(SealingError, match="already holds"):
        seal_asset(collect_sources((model,)), asset.folder, ref=REF, key=KEY, signing_key=OWNER)
    assert (asset.folder / "config.json.sealed").read_bytes() == before


def test_files_are_sealed_at_the_same_time(model: Path, tmp_path: Path) -> None:
    for index in range(10):
        (model / f"part-{index}").write_bytes(os.urandom(1000 * index))
    seen = list[int]()
    sources = collect_sources((model,))
    manifest = seal_asset(
        sources, tmp_path / "out", ref=REF, key=KEY, signing_key=OWNER, threads=4, progress=seen.append
    )
    assert [file.name for file in manifest.files] == sorted(sources)
    assert sum(seen) == sum(file.size for file in manifest.files)
    asset = SealedAsset.load(tmp_path / "out", owner=OWNER.public_key())
    for name, source in sources.items():
        asset.verify(name, key=KEY)
        with asset.open(name, key=KEY) as reader:
            assert reader.read_at(0, reader.size) == source.read_bytes()


def test_interrupted_sealing_starts_over(model: Path, tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        seal_asset(collect_sources((model,)), out, ref=REF, key=KEY, signing_key=OWNER, progress=interrupt)
    with pytest.raises(FileNotFoundError):
        SealedAsset.load(out, owner=OWNER.public_key())
    seal_asset(collect_sources((model,)), out, ref=REF, key=KEY, signing_key=OWNER)
    asset = SealedAsset.load(out, owner=OWNER.public_key())
    for file in asset.manifest.files:
        asset.verify(file.name, key=KEY)


@pytest.mark.parametrize("ref", [AssetRef("llama", 1), AssetRef("acme/llama", 0), AssetRef("acme/llama", 10**9)])
def test_references_that_cannot_be_sealed(model: Path, tmp_path: Path, ref: AssetRef) -> None:
    with pytest.raises(SealingError):
        seal_asset(collect_sources((model,)), tmp_path / "out", ref=ref, key=KEY, signing_key=OWNER)
    assert not (tmp_path / "out").exists()


def test_sources_are_unambiguous(model: Path, tmp_path: Path) -> None:
    single = collect_sources((model / "config.json", model / "empty"))
    assert list(single) == ["config.json", "empty"]
    with pytest.raises(SealingError, match="both"):
        collect_sources((model, model / "config.json"))
    with pytest.raises(SealingError, match="nothing"):
        collect_sources(())
    (tmp_path / "hollow").mkdir()
    with pytest.raises(SealingError, match="nothing"):
        collect_sources((tmp_path / "hollow",))
    with pytest.raises(FileNotFoundError):
        collect_sources((tmp_path / "absent",))


@pytest.mark.parametrize("target", ["config.json", "shards"])
def test_links_are_not_followed(model: Path, target: str) -> None:
    (model / "link").symlink_to(model / target)
    with pytest.raises(SealingError, match="symbolic link"):
        collect_sources((model,))


def test_malformed_signature_file_is_refused(asset: SealedAsset) -> None:
    (asset.folder / "manifest.sig").write_bytes(bytes(65))
    with pytest.raises(SealedError):
        SealedAsset.load(asset.folder, owner=OWNER.public_key())
    (asset.folder / "manifest.sig").unlink()
    with pytest.raises(FileNotFoundError):
        SealedAsset.load(asset.folder, owner=OWNER.public_key())


def test_manifest_without_its_owner_is_said_to_be_so(asset: SealedAsset) -> None:
    assert isinstance(SealedAsset.load_unverified(asset.folder).manifest, Manifest)


def test_missing_file_is_an_answer(asset: SealedAsset) -> None:
    (asset.folder / "empty.sealed").unlink()
    with pytest.raises(NotAuthenticError, match="not there"):
        asset.open("empty", key=KEY)


def test_altered_manifest_is_refused_before_it_is_parsed(asset: SealedAsset) -> None:
    path = asset.folder / "manifest.json"
    data = bytearray(path.read_bytes())
    digest = asset.manifest.digest()
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ManifestSignatureError):
            SealedAsset.load(asset.folder, owner=OWNER.public_key())
        with pytest.raises(ManifestSignatureError):
            SealedAsset.load_vouched(asset.folder, digest=digest)
