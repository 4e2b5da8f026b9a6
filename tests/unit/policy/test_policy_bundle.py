"""Bundles are read strictly and named by their contents."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from policy import bundle as bundle_module
from policy.bundle import Bundle
from policy.errors import BundleError
from policy.sources import COMPILED, default_bundle

MANIFEST = {"revision": "", "roots": [""], "wasm": [{"entrypoint": "p/decision", "module": "/policy.wasm"}]}
FILES = {
    ".manifest": json.dumps(MANIFEST).encode(),
    "data.json": b'{"settings": {"a": 1, "b": 2}}',
    "policy.wasm": b"\0asm",
    "p/p.rego": b"package p\n",
}


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def tarball(files: dict[str, bytes], *more: tarfile.TarInfo, level: int = 9, prefix: str = "/") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            archive.addfile(entry(prefix + name, len(content)), io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return gzip.compress(out.getvalue(), level)


def test_a_bundle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.tar.gz"
    path.write_bytes(tarball(FILES))
    bundle = Bundle.load(path)
    assert bundle.entrypoint == "p/decision"
    assert bundle.wasm == b"\0asm"
    assert bundle.data == {"settings": {"a": 1, "b": 2}}
    assert bundle.packages == {"p"}
    assert dict(bundle.files) == FILES


def test_the_digest_is_of_the_contents_and_not_of_the_tarball() -> None:
    digest = Bundle.load(tarball(FILES)).digest
    reordered = dict(reversed(FILES.items()))
    assert Bundle.load(tarball(reordered, level=1, prefix="")).digest == digest
    respaced = FILES | {"data.json": b'{"settings":{"b":2,"a":1}}'}
    assert Bundle.load(tarball(respaced)).digest == digest


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_digest_covers_every_file(name: str) -> None:
    digest = Bundle.from_files(FILES).digest
    changed = {
        ".manifest": json.dumps(MANIFEST | {"revision": "2"}).encode(),
        "data.json": b'{"settings": {"a": 1, "b": 3}}',
        "policy.wasm": b"\0asm\1",
        "p/p.rego": b"package p \n",
    }
    assert Bundle.from_files(FILES | {name: changed[name]}).digest != digest
    assert Bundle.from_files(FILES | {"q/q.rego": b""}).digest != digest


@pytest.mark.parametrize("name", ["../x", "a/../x", "a//b", "./x", "a/.", "", "//x", "a\\b", "a\nb", "é"])
def test_an_entry_that_leaves_the_bundle_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="entry name"):
        Bundle.load(tarball(FILES, entry("/" + name if name else "/")))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_an_entry_that_is_no_plain_file_is_refused(kind: bytes) -> None:
    info = entry("/x", kind=kind)
    info.linkname = "policy.wasm"
    with pytest.raises(BundleError, match="not a plain file"):
        Bundle.load(tarball(FILES, info))


def test_an_entry_that_is_there_twice_is_refused() -> None:
    with pytest.raises(BundleError, match="twice"):
        Bundle.load(tarball(FILES, entry("policy.wasm")))


def test_limits() -> None:
    with pytest.raises(BundleError, match="more than 256 entries"):
        Bundle.load(tarball(FILES, *(entry(f"/f{number}") for number in range(300))))
    with pytest.raises(BundleError, match="longer than"):
        Bundle.load(b"\0" * (bundle_module.MAX_COMPRESSED + 1))
    # A bomb: what it unpacks to is never held in memory beyond the limit.
    with pytest.raises(BundleError, match="unpacks to more"):
        Bundle.load(gzip.compress(b"\0" * (bundle_module.MAX_CONTENTS + 1)))


def header(kind: bytes = b"0", size: bytes = b"00000000000\0", name: bytes = b"x") -> bytes:
    """One block of a tar archive, its checksum right."""
    fields = [
        name.ljust(100, b"\0"),
        bytes(24),
        size,
        bytes(12),
        b" " * 8,
        kind,
        bytes(100),
        b"ustar\x0000",
        bytes(247),
    ]
    block = b"".join(fields)
    assert len(block) == 512
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def test_a_header_that_is_right_is_read() -> None:
    with pytest.raises(BundleError, match=r"no /\.manifest"):
        Bundle.load(gzip.compress(header() + bytes(1024)))


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (header(b"L", b"00000000001\0") + bytes(512), "extended header"),
        (header(b"x", b"00000000001\0") + bytes(512), "extended header"),
        (header(b"S"), "extended header"),
        (header(size=b"\xff" * 12), "size of x is not octal"),
        (header(size=b"\x80" + bytes(10) + b"\1"), "size of x is not octal"),
        (header(size=b"-0000000512\0"), "size of x is not octal"),
        (header(size=b"7" * 12), "x is cut short"),
        (header()[:-1] + b"x", "checksum"),
        (header().replace(b"ustar\x0000", b"ustar  \0"), "ustar"),
    ],
)
def test_an_archive_of_another_form_is_refused(archive: bytes, said: str) -> None:
    for copies in (1, 3000):  # each extended header in a chain takes other readers one call deeper
        with pytest.raises(BundleError, match=said):
            Bundle.load(gzip.compress(archive * copies + bytes(1024)))


@pytest.mark.parametrize("end", [b"", bytes(1), bytes(512), bytes(1024) + b"x", bytes(512) + header()])
def test_an_archive_that_does_not_end_is_refused(end: bytes) -> None:
    with pytest.raises(BundleError, match="archive"):
        Bundle.load(gzip.compress(header() + end))


@pytest.mark.parametrize("name", [".manifest", "data.json", "policy.wasm"])
def test_a_missing_part_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=f"no /{name}"):
        Bundle.load(tarball({key: value for key, value in FILES.items() if key != name}))


@pytest.mark.parametrize(
    "wasm",
    [
        None,
        [],
        [{"entrypoint": "p/decision"}],
        [{"entrypoint": "p/decision", "module": "/other.wasm"}],
        [{"entrypoint": "p/decision", "module": "/policy.wasm"}] * 2,
        [{"entrypoint": "p/allow", "module": "/policy.wasm"}],
    ],
)
def test_another_entrypoint_is_refused(wasm: object) -> None:
    manifest = json.dumps(MANIFEST | {"wasm": wasm}).encode()
    with pytest.raises(BundleError, match="entrypoint"):
        Bundle.from_files(FILES | {".manifest": manifest})


@pytest.mark.parametrize("name", [".manifest", "data.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": 1.5}'])
def test_a_document_that_is_no_json_object_is_refused(name: str, content: bytes) -> None:
    with pytest.raises(BundleError, match=name):
        Bundle.from_files(FILES | {name: content})


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = tarball(FILES)
    for damaged in (b"", whole[:-4], whole + b"x", whole[:40], gzip.compress(b"not a tar" * 100)):
        with pytest.raises(BundleError):
            Bundle.load(damaged)
    with pytest.raises(BundleError, match="No such file"):
        Bundle.load(tmp_path / "none.tar.gz")


@pytest.mark.parametrize("name", ["appraisal", "release"])
def test_the_packs_that_ship_are_there(name: str) -> None:
    bundle = default_bundle(name)
    assert bundle.entrypoint == f"{name}/decision"
    assert {"settings", "jurisdictions"} <= bundle.data.keys()
    assert not any(path.endswith("_test.rego") for path in bundle.files)
    assert (COMPILED / f"{name}.tar.gz").stat().st_size < 200_000
