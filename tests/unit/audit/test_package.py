"""Evidence packages: what is in them, which gaps they own up to, and that whatever is altered is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from audit import log
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import Cosigner, WitnessKey, WitnessPolicy
from audit.errors import (
    AuditError,
    LogCorruptError,
    MalformedError,
    NoteSignatureError,
    ProofError,
    QueryError,
    UnwitnessedError,
)
from audit.log import append_many
from audit.note import NoteSigner, SignedNote
from audit.package import build as building
from audit.package import entries, gaps, manifest, report
from audit.package.build import Built, build_package
from audit.package.description import Description, Watcher
from audit.package.files import open_archive, open_package, unpack
from audit.package.gaps import GapCode
from audit.package.lines import Line, State
from audit.package.manifest import FileDigest, Manifest, Scope
from audit.package.report import Report
from audit.package.verify import PackageResult, verify_package
from audit.problems import ProblemCode
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from audit.tables import AUDIT_CHECKPOINT, AUDIT_ENTRY

NOW = 1_800_000_000
ORIGIN = "log.example/keystead"
OPERATOR = Actor(role="operator", name="ops", tenant=None)
WHOLE = Scope()


def build(
    engine: Engine, signer: NoteSigner, scope: Scope = WHOLE, *, witnesses: WitnessPolicy | None = None, **more: Any
) -> tuple[bytes, Built]:
    """A package's bytes, and what was built."""
    file = io.BytesIO()
    with engine.connect() as connection:
        built = build_package(
            connection, file, scope=scope, signer=signer, witnesses=witnesses or WitnessPolicy(), **more
        )
    return file.getvalue(), built


def verify(package: bytes | Path, signer: NoteSigner, **more: Any) -> PackageResult:
    if isinstance(package, Path):
        with open_package(package) as files:
            return verify_package(files, signer.verifier, **more)
    with open_archive(io.BytesIO(package)) as files:
        return verify_package(files, signer.verifier, **more)


def found(built: Built | PackageResult) -> dict[GapCode, int]:
    """Gaps but for the one that every log without witnesses has."""
    of = built.description.gaps if isinstance(built, Built) else built.gaps
    return {gap.code: gap.count for gap in of if gap.code is not GapCode.NO_WITNESS}


def items(built: Built, code: GapCode) -> list[tuple[int | None, str]]:
    return [(item.number, item.note) for gap in built.description.gaps if gap.code is code for item in gap.items]


def append(engine: Engine, sequencer: Sequencer, *records: Record, now: int = NOW + 10_000) -> None:
    with engine.begin() as connection:
        append_many(connection, records)
    sequencer.run_once(now)


def codes(result: PackageResult) -> set[ProblemCode]:
    return {problem.code for problem in result.problems}


def forge(
    package: bytes,
    signer: NoteSigner,
    folder: Path,
    change: Callable[[dict[str, bytes]], None],
    **values: Any,
) -> Path:
    """A package that the log's own operator altered and signed again."""
    files = contents(package)
    said = Manifest.parse_text(SignedNote.parse(files.pop("manifest")).text)
    change(files)
    digests = tuple(
        FileDigest(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())
    )
    files["manifest"] = replace(said, files=digests, **values).sign(signer).to_bytes()
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def contents(package: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def lines(files: dict[str, bytes]) -> list[bytes]:
    return files["records.jsonl"].splitlines(keepends=True)


@pytest.fixture
def sequencer(engine: Engine, make_log: Callable[..., Sequencer]) -> Sequencer:
    """A log of 40 entries, with checkpoints of 0, 15, 33 and 40."""
    return make_log(engine, [15, 18, 7])


@pytest.fixture
def package(engine: Engine, sequencer: Sequencer, signer: NoteSigner) -> bytes:
    return build(engine, signer)[0]


def note_of(engine: Engine, size: int) -> bytes:
    with engine.connect() as connection:
        found = connection.scalars(select(AUDIT_CHECKPOINT.c.note).where(AUDIT_CHECKPOINT.c.tree_size == size)).one()
        return found.encode("utf-8")


def test_the_whole_log(any_engine: Engine, make_log: Callable[..., Sequencer], signer: NoteSigner) -> None:
    make_log(any_engine, [15, 18, 7])
    package, built = build(any_engine, signer)
    assert build(any_engine, signer)[0] == package, "the same log gives the same bytes"
    result = verify(package, signer)
    assert result.ok
    assert (result.records, result.unreadable, result.kinds) == (40, 0, {"lease.granted": 40})
    assert result.checkpoint == open_checkpoint(note_of(any_engine, 40), signer.verifier)
    assert (built.manifest.first, built.manifest.end) == (0, 40)
    assert found(result) == found(built) == {}


def test_a_span_reaches_back_to_an_older_checkpoint(engine: Engine, sequencer: Sequencer, signer: NoteSigner) -> None:
    scope = Scope(start_time=NOW + 20, end_time=NOW + 30)
    package, built = build(engine, signer, scope)
    assert (built.manifest.first, built.manifest.end, built.manifest.records) == (20, 30, 10)
    result = verify(package, signer)
    assert result.ok
    assert result.continues == {"checkpoint-before": 15}
    assert found(built) == {}
    kept = note_of(engine, 33)
    package, _ = build(engine, signer, scope, kept=kept)
    assert verify(package, signer, known=kept).continues == {"checkpoint-before": 15, "checkpoint-kept": 33}
    strange = verify(package, signer, known=str(Checkpoint(ORIGIN, 33, bytes(32)).sign(signer)).encode())
    assert codes(strange) == {ProblemCode.CONSISTENCY_UNPROVEN}
    nothing, built = build(engine, signer, Scope(start_time=NOW + 1_000))
    assert (built.manifest.first, built.manifest.end, built.manifest.records) == (40, 40, 0)
    assert verify(nothing, signer).ok


def test_pages_do_not_show(engine: Engine, sequencer: Sequencer, signer: NoteSigner, monkeypatch) -> None:
    scopes = [WHOLE, Scope(asset="acme/llm"), Scope(tenant="acme", start_time=NOW + 3)]
    whole = [build(engine, signer, scope)[0] for scope in scopes]
    for page in (1, 3, 40):
        monkeypatch.setattr(entries, "PAGE", page)
        assert [build(engine, signer, scope)[0] for scope in scopes] == whole


def test_an_asset_by_its_own_numbers(
    any_engine: Engine, make_log: Callable[..., Sequencer], signer: NoteSigner, record: Callable[..., Record]
) -> None:
    sequencer = make_log(any_engine, [4])
    more = [
        record(10, assets=["acme/llm@1", "acme/llm@2"]),
        record(11, assets=["acme/other@1"]),
        record(12, assets=["acme/llm@9"], tenant="globex"),
        record(13, assets=["acme/llm@3"]),
    ]
    append(any_engine, sequencer, *more)
    package, built = build(any_engine, signer, Scope(asset="acme/llm"))
    assert built.description.counters == (0, 9)
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        said = [json.loads(line) for line in archive.read("records.jsonl").splitlines()]
    assert [(line["index"], line["counters"]) for line in said] == [
        (0, [1]), (1, [2]), (2, [3]), (3, [4]), (4, [5, 6]), (6, [7]), (7, [8]),
    ]  # fmt: skip
    assert verify(package, signer).ok
    # A part of it: the numbers go on where those before the span end.
    package, built = build(any_engine, signer, Scope(asset="acme/llm", start_time=NOW + 10, end_time=NOW + 13))
    assert built.description.counters == (4, 8)
    assert verify(package, signer).ok
    # The owner's own auditor sees that somebody else used it, and a stranger not even that it is there.
    package, built = build(any_engine, signer, Scope(asset="acme/llm", tenant="acme"))
    assert items(built, GapCode.COUNTER_MISSING) == [(7, "")]
    assert verify(package, signer).ok
    theirs, absent = (
        build(any_engine, signer, Scope(asset=asset, tenant="initech"))[1] for asset in ("acme/llm", "acme/none")
    )
    assert theirs.description == absent.description
    package, built = build(any_engine, signer, Scope(asset="acme/llm", tenant="globex"))
    assert (built.manifest.records, built.description.counters) == (1, None)
    assert verify(package, signer).ok


def test_erased_entries_are_gaps(any_engine: Engine, make_log: Callable[..., Sequencer], signer: NoteSigner) -> None:
    sequencer = make_log(any_engine, [6, 6])
    with any_engine.begin() as connection:
        log.erase(connection, indexes=[4, 7], actor=OPERATOR, time=NOW + 50)
    sequencer.run_once(NOW + 50)
    with any_engine.begin() as connection:
        gone = dict.fromkeys((*log.PROJECTED, "salt", "payload"))
        connection.execute(update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index == 9).values(**gone))
    package, built = build(any_engine, signer)
    when = "erased on 2027-01-15T08:00:50Z, as entry 12 records"
    assert items(built, GapCode.ERASED) == [(4, when), (7, when)]
    assert items(built, GapCode.ERASED_UNRECORDED) == [(9, "no audit.erased record names it")]
    result = verify(package, signer)
    assert result.ok
    assert (result.records, result.unreadable) == (13, 3)
    # An asset's numbers show that two of its entries are missing; whose the third one was nobody knows.
    package, built = build(any_engine, signer, Scope(asset="acme/corpus"))
    assert items(built, GapCode.COUNTER_MISSING) == [(5, ""), (8, "")]
    assert items(built, GapCode.ERASED_OWNER_UNKNOWN) == [(None, "3 erased entries stand in the span")]
    assert verify(package, signer).ok


def test_clocks_are_gaps(
    engine: Engine, sequencer: Sequencer, signer: NoteSigner, record: Callable[..., Record]
) -> None:
    append(engine, sequencer, record(41, time=NOW - 5_000), record(42), record(43, time=NOW + 99_999), now=NOW + 100)
    package, built = build(engine, signer, Scope(start_time=NOW + 35, end_time=NOW + 60))
    assert built.manifest.end == 42
    assert items(built, GapCode.CLOCK_BACK) == [(40, "dated 5039 seconds before entry 39")]
    assert items(built, GapCode.TIME_OUTSIDE) == [(40, "dated 2027-01-15T06:36:40Z")]
    assert verify(package, signer).ok
    package, built = build(engine, signer)
    assert items(built, GapCode.CLOCK_AHEAD) == [(42, "dated 99899 seconds after it was signed")]
    assert verify(package, signer).ok


def test_what_the_checkpoint_does_not_cover_is_a_gap(
    engine: Engine, sequencer: Sequencer, signer: NoteSigner, record: Callable[..., Record]
) -> None:
    append(engine, sequencer, now=NOW + 40)
    with engine.begin() as connection:
        append_many(connection, [record(50), record(51)])
    package, built = build(engine, signer, Scope(end_time=NOW + 400))
    assert items(built, GapCode.NOT_COVERED) == [(None, "2 entries have a receipt and wait for their place")]
    until = "asked for until 2027-01-15T08:06:40Z, the checkpoint was signed at 2027-01-15T08:00:40Z"
    assert items(built, GapCode.SPAN_OPEN) == [(None, until)]
    assert verify(package, signer).ok
    assert GapCode.NOT_COVERED not in found(build(engine, signer, Scope(end_time=NOW + 39))[1])


def test_a_gap_for_each_code_has_a_meaning() -> None:
    assert gaps.MEANING.keys() == set(GapCode)


def test_many_gaps_are_counted_and_some_listed(
    engine: Engine, make_log: Callable[..., Sequencer], signer: NoteSigner, monkeypatch
) -> None:
    monkeypatch.setattr(gaps, "MAX_LISTED", 3)
    sequencer = make_log(engine, [20])
    with engine.begin() as connection:
        log.erase(connection, indexes=range(2, 12), actor=OPERATOR, time=NOW)
    sequencer.run_once(NOW)
    package, built = build(engine, signer)
    assert found(built)[GapCode.ERASED] == 10
    assert len(items(built, GapCode.ERASED)) == 3
    assert verify(package, signer).ok
    package, built = build(engine, signer, Scope(asset="acme/corpus"))
    assert found(built)[GapCode.COUNTER_MISSING] == 10
    assert verify(package, signer).ok


@pytest.fixture
def cosigners() -> list[Cosigner]:
    return [Cosigner.generate(f"witness.example/{number}") for number in range(3)]


def cosign(engine: Engine, size: int, *cosigners: Cosigner) -> None:
    note = note_of(engine, size).decode()
    text = note.partition("\n\n")[0] + "\n"
    note += "".join(str(cosigner.cosign(text, NOW + 7)) for cosigner in cosigners)
    with engine.begin() as connection:
        connection.execute(update(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == size).values(note=note))


def test_witnesses(engine: Engine, sequencer: Sequencer, signer: NoteSigner, cosigners: list[Cosigner]) -> None:
    policy = WitnessPolicy(tuple(cosigner.key for cosigner in cosigners), 2)
    with pytest.raises(UnwitnessedError):
        build(engine, signer, witnesses=policy)
    package, built = build(engine, signer, witnesses=policy, unwitnessed=True)
    assert found(built) == {GapCode.WITNESS_SILENT: 3, GapCode.QUORUM_MISSED: 1}
    assert codes(verify(package, signer, witnesses=policy)) == {ProblemCode.CHECKPOINT_UNWITNESSED}
    assert verify(package, signer).ok, "whoever knows no witness sees the gaps"
    cosign(engine, 33, *cosigners[:2])
    cosign(engine, 15, cosigners[0])
    package, built = build(engine, signer, Scope(start_time=NOW + 20), witnesses=policy)
    assert built.manifest.tree_size == 33, "the newest that a quorum cosigned"
    assert [(gap.code, gap.items[0].note) for gap in built.description.gaps] == [
        (GapCode.NOT_COVERED, "7 entries stand behind it"),
        (GapCode.NO_EARLIER_CHECKPOINT, ""),  # the one of 15 is shown to nobody
        (GapCode.WITNESS_SILENT, cosigners[2].key.name),
    ]
    result = verify(package, signer, witnesses=policy)
    assert result.ok
    assert result.cosigned == {cosigner.key: NOW + 7 for cosigner in cosigners[:2]}
    assert codes(verify(package, signer, witnesses=replace(policy, quorum=3))) == {ProblemCode.CHECKPOINT_UNWITNESSED}


def test_what_cannot_be_asked_for(engine: Engine, sequencer: Sequencer, signer: NoteSigner, monkeypatch) -> None:
    for wrong in (
        {"asset": "acme/llm@1"},
        {"asset": "*"},
        {"tenant": "a b"},
        {"start_time": 2, "end_time": 1},
        {"start_time": -1},
    ):
        with pytest.raises(QueryError):
            Scope(**wrong)
    with pytest.raises(MalformedError):
        build(engine, signer, kept=b"no checkpoint")
    with pytest.raises(NoteSignatureError):
        build(engine, signer, kept=str(Checkpoint(ORIGIN, 5, bytes(32)).sign(NoteSigner.generate(ORIGIN))).encode())
    with pytest.raises(ProofError, match="more than the 40"):
        build(engine, signer, kept=str(Checkpoint(ORIGIN, 41, bytes(32)).sign(signer)).encode())
    with pytest.raises(NoteSignatureError, match="not that of the log"):
        build(engine, NoteSigner.generate("other.example/log"))
    monkeypatch.setattr(building, "MAX_RECORDS", 39)
    with pytest.raises(QueryError, match="more than 39"):
        build(engine, signer)
    monkeypatch.undo()
    monkeypatch.setitem(manifest.LIMITS, "records.jsonl", 1_000)
    with pytest.raises(QueryError, match="shorter span"):
        build(engine, signer)


def test_an_altered_database_gives_no_package(engine: Engine, sequencer: Sequencer, signer: NoteSigner) -> None:
    with engine.begin() as connection:
        connection.execute(update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index == 7).values(payload=b"{}"))
    with pytest.raises(LogCorruptError, match="entry 7"):
        build(engine, signer)


def test_whoever_waits_can_stop(engine: Engine, sequencer: Sequencer, signer: NoteSigner) -> None:
    def stop(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(engine, signer, progress=stop)


# What others alter


def test_a_changed_byte_in_any_file_is_refused(package: bytes, signer: NoteSigner, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    unpack(io.BytesIO(package), folder)
    assert verify(folder, signer).ok
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(set(manifest.LIMITS) - manifest.OPTIONAL)
    for name in names:
        data = (folder / name).read_bytes()
        for at in {0, len(data) // 2, len(data) - 1}:
            (folder / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            result = verify(folder, signer)
            assert codes(result) == {ProblemCode.PACKAGE_ALTERED}, (name, at)
            assert [problem.field for problem in result.problems] == [name]
        (folder / name).write_bytes(data)
    assert verify(folder, signer).ok


def test_a_dropped_line_of_the_manifest_is_refused(package: bytes, signer: NoteSigner, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    unpack(io.BytesIO(package), folder)
    whole = (folder / "manifest").read_text().splitlines(keepends=True)
    for number in range(len(whole)):
        (folder / "manifest").write_text("".join(whole[:number] + whole[number + 1 :]))
        result = verify(folder, signer)
        assert codes(result) == {ProblemCode.PACKAGE_ALTERED}
        assert result.manifest is None


def test_files_that_are_missing_or_too_many_are_refused(package: bytes, signer: NoteSigner, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    unpack(io.BytesIO(package), folder)
    (folder / "checkpoint-before").write_bytes(b"x")
    assert [problem.field for problem in verify(folder, signer).problems] == ["checkpoint-before"]
    (folder / "checkpoint-before").unlink()
    (folder / "report.html").rename(tmp_path / "elsewhere.html")
    assert [problem.field for problem in verify(folder, signer).problems] == ["report.html"]
    (folder / "report.html").symlink_to(tmp_path / "elsewhere.html")
    with pytest.raises(MalformedError, match=r"report\.html is a link"):
        verify(folder, signer)
    (folder / "report.html").unlink()
    os.mkfifo(folder / "report.html")
    with pytest.raises(MalformedError, match="no file"):
        verify(folder, signer)
    (folder / "report.html").unlink()
    (folder / "invoice.html").write_text("pay")
    with pytest.raises(MalformedError, match=r"invoice\.html"):
        verify(folder, signer)
    with pytest.raises(MalformedError, match="No such file"):
        verify(tmp_path / "nowhere.zip", signer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MalformedError, match="no file manifest"):
        verify(tmp_path / "empty", signer)


def test_another_logs_and_an_older_packages_files_are_refused(
    engine: Engine, sequencer: Sequencer, signer: NoteSigner, record: Callable[..., Record], tmp_path: Path
) -> None:
    package, _ = build(engine, signer)
    other = NoteSigner.generate(ORIGIN)
    assert codes(verify(package, other)) == {ProblemCode.PACKAGE_ALTERED}
    append(engine, sequencer, record(77))
    newer, _ = build(engine, signer)
    for name in ("checkpoint", "records.jsonl", "package.json", "report.html"):
        mixed = {}
        for number, data in enumerate((package, newer)):
            unpack(io.BytesIO(data), tmp_path / f"{name}-{number}")
            mixed[number] = tmp_path / f"{name}-{number}"
        (mixed[1] / name).write_bytes((mixed[0] / name).read_bytes())
        result = verify(mixed[1], signer)
        assert codes(result) == {ProblemCode.PACKAGE_ALTERED}
        assert [problem.field for problem in result.problems] == [name]


def archive_of(package: bytes, change: Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], None]) -> bytes:
    """The archive written again, one file at a time."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(package)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            change(new, info, old.read(info))
    return file.getvalue()


def again(name: str) -> Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], None]:
    """Copy every file, and one a second time, with other content."""

    def change(new: zipfile.ZipFile, info: zipfile.ZipInfo, data: bytes) -> None:
        new.writestr(info, data)
        if info.filename == name:
            new.writestr(info, b"another")

    return change


def altered(**values: Any) -> Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], None]:
    """Copy every file, the manifest's entry changed."""

    def change(new: zipfile.ZipFile, info: zipfile.ZipInfo, data: bytes) -> None:
        if info.filename == "manifest":
            for name, value in values.items():
                setattr(info, name, value)
        new.writestr(info, data)

    return change


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (again("manifest"), "stands in the archive twice"),
        (altered(filename="../manifest"), r"\.\./manifest"),
        (altered(filename="/etc/cron.d/x"), "is no file of a package"),
        (altered(external_attr=(stat.S_IFLNK | 0o777) << 16), "not an ordinary file"),
        (altered(date_time=(2026, 11, 22, 0, 0, 0)), "dated; unpack it"),
        (altered(comment=b"hello"), "packed in a way"),
        (altered(extra=b"\xfe\xca\x02\x00hi"), "packed in a way"),
        (altered(compress_type=zipfile.ZIP_LZMA), "packed in a way"),
    ],
)
def test_tricks_with_archives_are_refused(package: bytes, signer: NoteSigner, change: Any, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        verify(archive_of(package, change), signer)


def test_archives_hold_their_files_and_nothing_else(package: bytes, signer: NoteSigner, tmp_path: Path) -> None:
    for data in (b"#!/bin/sh\n" + package, package + b"more", package[:-1], b"", b"PK\x05\x06" + bytes(18)):
        with pytest.raises(MalformedError):
            verify(data, signer)
    # Bytes between two files, with everything else put right.
    at = package.index(b"PK\x03\x04", 4)
    with pytest.raises(MalformedError):
        verify(package[:at] + b"hidden" + package[at:], signer)
    encrypted = bytearray(package)
    encrypted[package.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(MalformedError, match="encrypted"):
        verify(bytes(encrypted), signer)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(MalformedError):
        unpack(io.BytesIO(package + b"more"), folder / "x")
    assert list(folder.iterdir()) == []
    with pytest.raises(OSError, match="exists"):
        unpack(io.BytesIO(package), folder)


def test_a_bomb_is_not_unpacked(package: bytes, signer: NoteSigner) -> None:
    def bomb(new: zipfile.ZipFile, info: zipfile.ZipInfo, data: bytes) -> None:
        new.writestr(info, bytes(2 << 20) if info.filename == "VERIFY.md" else data)

    with pytest.raises(MalformedError, match=r"VERIFY\.md: 2097152 bytes are more"):
        verify(archive_of(package, bomb), signer)
    # One that says that it is small: unpacking ends at what it says, and its checksum does not fit.
    data = bytearray(archive_of(package, bomb))
    for header, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = bytes(data).index(b"VERIFY.md", bytes(data).index(header))
        at = bytes(data).rindex(header, 0, at)
        data[at + offset : at + offset + 4] = (1_000).to_bytes(4, "little")
    result = verify(bytes(data), signer)
    assert codes(result) == {ProblemCode.PACKAGE_ALTERED}
    assert "VERIFY.md" in [problem.field for problem in result.problems]


def test_changed_bytes_of_an_archive_are_refused(package: bytes, signer: NoteSigner) -> None:
    """Wherever a byte is changed: it is not verified, or (unused bits of packed data) the files are what they were."""
    whole = contents(package)
    for at in range(0, len(package), 97):
        data = package[:at] + bytes([package[at] ^ 0x20]) + package[at + 1 :]
        try:
            result = verify(data, signer)
        except AuditError:
            continue
        assert not result.ok or contents(data) == whole, at


# What the operator alters, with the log's key in hand


def test_an_operator_who_drops_a_record_is_caught(package: bytes, signer: NoteSigner, tmp_path: Path) -> None:
    def drop(files: dict[str, bytes]) -> None:
        files["records.jsonl"] = b"".join(line for number, line in enumerate(lines(files)) if number != 7)

    result = verify(forge(package, signer, tmp_path / "a", drop), signer)
    assert [(problem.code, problem.index) for problem in result.problems] == [
        (ProblemCode.PACKAGE_INCOMPLETE, 7),
        (ProblemCode.PACKAGE_INCOMPLETE, None),
    ]
    result = verify(forge(package, signer, tmp_path / "b", drop, records=39), signer)
    assert [(problem.code, problem.index) for problem in result.problems] == [(ProblemCode.PACKAGE_INCOMPLETE, 7)]

    def last(files: dict[str, bytes]) -> None:
        files["records.jsonl"] = b"".join(lines(files)[:-1])

    result = verify(forge(package, signer, tmp_path / "c", last, records=39), signer)
    assert [(problem.code, problem.index) for problem in result.problems] == [(ProblemCode.PACKAGE_INCOMPLETE, 39)]


def test_an_operator_who_drops_an_assets_record_is_caught(
    engine: Engine, sequencer: Sequencer, signer: NoteSigner, tmp_path: Path
) -> None:
    package, _ = build(engine, signer, Scope(asset="acme/llm"))

    def drop(files: dict[str, bytes]) -> None:
        files["records.jsonl"] = b"".join(lines(files)[:-3] + lines(files)[-1:])

    result = verify(forge(package, signer, tmp_path / "a", drop, records=38), signer)
    assert result.problems[0].field == "gap COUNTER_MISSING"


def test_an_operator_who_rewrites_a_record_is_caught(package: bytes, signer: NoteSigner, tmp_path: Path) -> None:
    def rewrite(files: dict[str, bytes]) -> None:
        all_lines = lines(files)
        all_lines[5] = all_lines[5].replace(b'"jurisdiction":"DE"', b'"jurisdiction":"US"')
        files["records.jsonl"] = b"".join(all_lines)

    result = verify(forge(package, signer, tmp_path / "a", rewrite), signer)
    assert [(problem.code, problem.index) for problem in result.problems] == [(ProblemCode.PAYLOAD_ALTERED, 5)]

    def with_its_hash(files: dict[str, bytes]) -> None:
        rewrite(files)
        all_lines = lines(files)
        line = Line.parse(all_lines[5])
        all_lines[5] = replace(line, leaf_hash=line.committed()).to_bytes()
        files["records.jsonl"] = b"".join(all_lines)

    result = verify(forge(package, signer, tmp_path / "b", with_its_hash), signer)
    assert [(problem.code, problem.index) for problem in result.problems] == [(ProblemCode.INCLUSION_UNPROVEN, 5)]

    def swap(files: dict[str, bytes]) -> None:
        all_lines = lines(files)
        all_lines[5], all_lines[6] = all_lines[6], all_lines[5]
        files["records.jsonl"] = b"".join(all_lines)

    result = verify(forge(package, signer, tmp_path / "c", swap), signer)
    assert ProblemCode.PACKAGE_INCOMPLETE in codes(result)

    def double(files: dict[str, bytes]) -> None:
        all_lines = lines(files)
        files["records.jsonl"] = b"".join([*all_lines[:6], all_lines[5], *all_lines[7:]])

    result = verify(forge(package, signer, tmp_path / "d", double), signer)
    assert ProblemCode.PACKAGE_INCOMPLETE in codes(result)


def test_an_operator_who_hides_a_record_as_erased_is_caught(package: bytes, signer: NoteSigner, tmp_path: Path) -> None:
    def hide(files: dict[str, bytes]) -> None:
        all_lines = lines(files)
        gone = replace(Line.parse(all_lines[5]), state=State.ERASED, salt=None, payload=None)
        all_lines[5] = gone.to_bytes()
        files["records.jsonl"] = b"".join(all_lines)

    result = verify(forge(package, signer, tmp_path / "a", hide), signer)
    assert result.problems[0].field == "erased entries"


def test_an_operator_who_keeps_quiet_about_a_gap_is_caught(
    engine: Engine, sequencer: Sequencer, signer: NoteSigner, record: Callable[..., Record], tmp_path: Path
) -> None:
    append(engine, sequencer, record(41, time=NOW - 5_000))
    with engine.begin() as connection:
        log.erase(connection, indexes=[3], actor=OPERATOR, time=NOW + 60)
    sequencer.run_once(NOW + 10_000)
    scope = Scope(start_time=NOW)
    package, built = build(engine, signer, scope)
    said = found(built)
    assert set(said) == {GapCode.CLOCK_BACK, GapCode.TIME_OUTSIDE, GapCode.ERASED}
    for number, gap in enumerate(built.description.gaps):

        def quiet(files: dict[str, bytes], code: GapCode = gap.code) -> None:
            description = Description.parse(files["package.json"])
            files["package.json"] = replace(
                description, gaps=tuple(each for each in description.gaps if each.code is not code)
            ).to_bytes()

        result = verify(forge(package, signer, tmp_path / str(number), quiet), signer)
        assert ProblemCode.PACKAGE_INCOMPLETE in codes(result), gap.code


def test_an_operator_whose_report_says_something_else_is_caught(
    package: bytes, signer: NoteSigner, tmp_path: Path
) -> None:
    def repaint(files: dict[str, bytes]) -> None:
        files["report.html"] = files["report.html"].replace(b"<td>hall-1 / DE</td>", b"<td>hall-2 / DE</td>", 1)

    result = verify(forge(package, signer, tmp_path / "a", repaint), signer)
    assert [problem.field for problem in result.problems] == ["report.html"]

    def of_another_release(files: dict[str, bytes]) -> None:
        repaint(files)
        files["package.json"] = replace(Description.parse(files["package.json"]), report=99).to_bytes()

    assert verify(forge(package, signer, tmp_path / "b", of_another_release), signer).ok, "it cannot be written again"


def test_an_operator_with_another_history_is_caught(
    engine: Engine, sequencer: Sequencer, signer: NoteSigner, cosigners: list[Cosigner], tmp_path: Path
) -> None:
    package, _ = build(engine, signer, Scope(start_time=NOW + 20))

    def forked(files: dict[str, bytes]) -> None:
        files["checkpoint"] = str(Checkpoint(ORIGIN, 40, bytes(32)).sign(signer)).encode()

    result = verify(forge(package, signer, tmp_path / "a", forked), signer)
    assert codes(result) == {ProblemCode.CONSISTENCY_UNPROVEN, ProblemCode.INCLUSION_UNPROVEN}

    def another_size(files: dict[str, bytes]) -> None:
        files["checkpoint"] = str(Checkpoint(ORIGIN, 39, bytes(32)).sign(signer)).encode()

    assert codes(verify(forge(package, signer, tmp_path / "b", another_size), signer)) == {
        ProblemCode.CHECKPOINT_ALTERED
    }

    def older(files: dict[str, bytes]) -> None:
        files["checkpoint-before"] = str(Checkpoint(ORIGIN, 15, bytes(32)).sign(signer)).encode()

    assert codes(verify(forge(package, signer, tmp_path / "c", older), signer)) == {ProblemCode.CONSISTENCY_UNPROVEN}

    def no_older(files: dict[str, bytes]) -> None:
        del files["checkpoint-before"]

    assert codes(verify(forge(package, signer, tmp_path / "d", no_older), signer)) == {ProblemCode.CONSISTENCY_UNPROVEN}

    cosign(engine, 40, cosigners[0])
    package, _ = build(engine, signer, witnesses=WitnessPolicy((cosigners[0].key,), 1))

    def later(files: dict[str, bytes]) -> None:
        files["package.json"] = files["package.json"].replace(
            f'"cosigned_at":{NOW + 7}'.encode(), f'"cosigned_at":{NOW + 8}'.encode()
        )

    result = verify(forge(package, signer, tmp_path / "e", later), signer)
    assert [problem.field for problem in result.problems][:1] == ["witnesses"]


def test_records_that_the_package_is_not_about_are_refused(
    engine: Engine, sequencer: Sequencer, signer: NoteSigner, tmp_path: Path
) -> None:
    package, _ = build(engine, signer)
    result = verify(forge(package, signer, tmp_path / "a", lambda files: None, scope=Scope(tenant="globex")), signer)
    assert codes(result) == {ProblemCode.PACKAGE_INCOMPLETE}
    assert result.more_problems == 0
    assert len(result.problems) == 40


def test_a_manifest_is_no_checkpoint_and_no_receipt(package: bytes, signer: NoteSigner) -> None:
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        note, checkpoint = archive.read("manifest"), archive.read("checkpoint")
    with pytest.raises(MalformedError):
        open_checkpoint(note, signer.verifier)
    with pytest.raises(MalformedError):
        manifest.open_manifest(checkpoint, signer.verifier)
    assert not note.startswith(b"\0")


# The report


def test_the_report_is_self_contained_and_escaped(
    engine: Engine, sequencer: Sequencer, signer: NoteSigner, record: Callable[..., Record]
) -> None:
    evil = "<script>alert(1)</script><img src=http://evil.example/x>\"'"
    append(
        engine,
        sequencer,
        record(50, detail={"user": evil, "expires_at": NOW + 500}, lease="lease-x"),
        record(51, kind=Kind.LEASE_REFUSED, result=Result.DENIED, reasons=["JURISDICTION_NOT_PERMITTED"], lease=None),
        record(52, kind=Kind.LEASE_RETURNED, lease="lease-x", result=Result.RECORDED),
    )
    package, _ = build(engine, signer)
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        page = archive.read("report.html").decode()
    assert evil not in page
    assert "&lt;script&gt;alert(1)" in page
    for forbidden in (r"<script", r"<img", r"<link", r"<iframe", r"\bsrc\s*=", r"\bhref\s*=", r"url\(", r"\bon\w+\s*="):
        assert not re.search(forbidden, page.replace("&lt;", "").replace("src=http", ""), re.IGNORECASE), forbidden
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = re.search(r"'sha256-([^']*)'", policy)[1]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() == digest
    for said in ("JURISDICTION_NOT_PERMITTED", "lease.returned", "lease-x", "2027-01-15T08:08:20Z", "Releases of keys"):
        assert said in page


def test_long_tables_say_what_they_leave_out(record: Callable[..., Record], monkeypatch) -> None:
    monkeypatch.setattr(report, "ROWS", 5)
    made = Report()
    for number in range(12):
        one = record(number, result=Result.DENIED, reasons=["X"], job=f"j{number}")
        made.add(index=number, state=State.READABLE, record=one)
    page = b"".join(
        made.render(
            scope=WHOLE,
            checkpoint=Checkpoint(ORIGIN, 12, bytes(32)),
            first=0,
            end=12,
            records=12,
            description=Description(
                report=1, signed_at=NOW, counters=None, consistency_proofs={}, witnesses=(), quorum=0, gaps=()
            ),
        )
    ).decode()
    assert page.count("7 more are not in this table") == 4


def test_the_layout_has_a_version(record: Callable[..., Record]) -> None:
    """Whoever verifies writes the page again and compares: another layout is another version."""
    made = Report()
    made.add(index=0, state=State.READABLE, record=record(0, detail={"user": "ada", "expires_at": NOW + 60}))
    made.add(index=1, state=State.READABLE, record=record(0, kind=Kind.LEASE_RETURNED, result=Result.RECORDED))
    made.add(index=2, state=State.READABLE, record=record(2, result=Result.DENIED, reasons=["X"]))
    made.add(index=3, state=State.ERASED, record=None)
    description = Description(
        report=1,
        signed_at=NOW,
        counters=(0, 5),
        consistency_proofs={"checkpoint-before": (), "checkpoint-kept": ()},
        witnesses=(Watcher(str(WitnessKey("witness.example/w", bytes(32))), NOW),),
        quorum=1,
        gaps=tuple(gaps.Gap(code, 1, (gaps.Item(3, "note"),)) for code in GapCode),
    )
    pages = [
        b"".join(
            made.render(
                scope=scope,
                checkpoint=Checkpoint(ORIGIN, 9, bytes(32)),
                first=0,
                end=4,
                records=4,
                description=description,
            )
        )
        for scope in (WHOLE, Scope(asset="acme/llm", start_time=NOW), Scope(tenant="acme", end_time=NOW + 9))
    ]
    digest = hashlib.sha256(b"".join(pages)).hexdigest()
    assert (report.VERSION, digest) == (1, "8f9e240868b7a1a9736cb20e099a94a684ea2ef8324aedbec59cdd46950dda41"), (
        "raise report.VERSION where a release had the old layout"
    )


# The program that every package has in it


def run_stranger(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the package's own program, with nothing of this project to import."""
    return subprocess.run(
        [sys.executable, "-I", "verify.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_python_without_keystead_verifies(
    engine: Engine, sequencer: Sequencer, signer: NoteSigner, cosigners: list[Cosigner], tmp_path: Path
) -> None:
    cosign(engine, 40, *cosigners[:2])
    policy = WitnessPolicy(tuple(cosigner.key for cosigner in cosigners), 2)
    package, _ = build(
        engine, signer, Scope(start_time=NOW + 20, asset="acme/llm"), witnesses=policy, kept=note_of(engine, 33)
    )
    folder = tmp_path / "p"
    unpack(io.BytesIO(package), folder)
    vkey = str(signer.verifier)
    known = [argument for cosigner in cosigners for argument in ("--witness", str(cosigner.key))]
    ran = run_stranger(folder, vkey, *known, "--quorum", "2", "--show", "21")
    assert ran.returncode == 0, ran.stderr
    assert "VERIFIED: 20 records, 20 of them readable" in ran.stdout
    assert '"lease": "lease-21"' in ran.stdout
    assert "the log only grew since its 33 entries of checkpoint-kept" in ran.stdout
    assert "gap WITNESS_SILENT: 1" in ran.stdout
    for arguments, why in (
        ((vkey, *known), "cosigned by 2 of the witnesses, 3 are needed"),
        ((str(NoteSigner.generate(ORIGIN).verifier),), "manifest: not signed by"),
    ):
        refused = run_stranger(folder, *arguments)
        assert refused.returncode == 1
        assert why in refused.stderr
    (folder / "note.txt").write_text("x")
    assert "nothing vouches for: ['note.txt']" in run_stranger(folder, vkey).stderr
    (folder / "note.txt").unlink()
    (folder / "report.html").write_text("x")
    assert "report.html: not what was signed" in run_stranger(folder, vkey).stderr


def test_python_without_keystead_refuses_what_an_operator_altered(
    engine: Engine, sequencer: Sequencer, signer: NoteSigner, tmp_path: Path
) -> None:
    package, _ = build(engine, signer, Scope(start_time=NOW + 20))

    def drop(files: dict[str, bytes]) -> None:
        files["records.jsonl"] = b"".join(lines(files)[:5] + lines(files)[6:])

    def rewrite(files: dict[str, bytes]) -> None:
        files["records.jsonl"] = files["records.jsonl"].replace(b'"lease":"lease-25"', b'"lease":"lease-26"')

    def forked(files: dict[str, bytes]) -> None:
        files["checkpoint-before"] = str(Checkpoint(ORIGIN, 15, bytes(32)).sign(signer)).encode()

    def unproven(files: dict[str, bytes]) -> None:
        all_lines = lines(files)
        line = Line.parse(all_lines[3])
        all_lines[3] = replace(line, inclusion_proof=(*line.inclusion_proof[:-1], bytes(32))).to_bytes()
        files["records.jsonl"] = b"".join(all_lines)

    for number, (change, why) in enumerate(
        (
            (drop, "entry 26: out of its place"),
            (rewrite, "entry 25: the record is not what was signed"),
            (forked, "checkpoint-before: the log does not continue it"),
            (unproven, "entry 23: not under the checkpoint"),
        )
    ):
        folder = forge(package, signer, tmp_path / str(number), change)
        refused = run_stranger(folder, str(signer.verifier))
        assert refused.returncode == 1
        assert f"NOT VERIFIED: {why}" in refused.stderr
