"""Verifying an evidence package offline, against the log's verifier key and nothing else.

What is checked, in this order: the manifest's signature; every file's digest; the checkpoint, older checkpoints and
cosignatures; each record under its leaf, each leaf under the checkpoint; that no record is missing, doubled or out of
order; that the gaps which show in the records are owned up to; and that the report says what the records say.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import WitnessKey, WitnessPolicy
from audit.errors import MalformedError, NoteSignatureError, ProofError
from audit.merkle import verify_consistency, verify_inclusion
from audit.note import NoteVerifier, SignedNote
from audit.package.build import gaps_of_watch, look
from audit.package.description import Description
from audit.package.files import PackageFiles, read_whole
from audit.package.gaps import ERASURES, FOUND_IN_RECORDS, Gap, GapCode, GapFinder, Gaps
from audit.package.lines import MAX_LINE, Line
from audit.package.manifest import (
    CHECKPOINT,
    DESCRIPTION,
    MANIFEST,
    OPTIONAL,
    RECORDS,
    REPORT,
    Manifest,
    open_manifest,
)
from audit.package.report import VERSION, Report
from audit.problems import Problem, ProblemCode
from audit.records import Record

MAX_PROBLEMS: Final = 50
"""Problems that are kept; more are counted."""

_WATCHED: Final = (GapCode.NO_EARLIER_CHECKPOINT, GapCode.NO_WITNESS, GapCode.WITNESS_SILENT, GapCode.QUORUM_MISSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageResult:
    """What the verification of a package established.

    Attributes:
        problems: the first violated rules; none means that everything below is proven.
        more_problems: how many more there are.
        manifest: what the package is about; None if its signature is not good.
        checkpoint: the signed checkpoint; None if its signature is not good.
        cosigned: which of the witnesses that the caller knows cosigned it, and when.
        continues: sizes of older checkpoints that the log provably continues, by file name.
        records: entries that were looked at.
        unreadable: how many of them are erased or sealed.
        kinds: how many records of each kind there are.
        gaps: what the package says that it does not show.
    """

    problems: tuple[Problem, ...]
    more_problems: int
    manifest: Manifest | None
    checkpoint: Checkpoint | None
    cosigned: dict[WitnessKey, int]
    continues: dict[str, int]
    records: int
    unreadable: int
    kinds: dict[str, int]
    gaps: tuple[Gap, ...]

    @property
    def ok(self) -> bool:
        """True where no rule is violated."""
        return not self.problems


@dataclass(slots=True)
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    more: int = 0

    def add(self, code: ProblemCode, index: int | None, what: str, expected: str, actual: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(code, index, what, expected, actual))
        else:
            self.more += 1


@dataclass(slots=True)
class _State:
    """What is known so far."""

    found: _Findings = field(default_factory=_Findings)
    manifest: Manifest | None = None
    checkpoint: Checkpoint | None = None
    cosigned: dict[WitnessKey, int] = field(default_factory=dict)
    continues: dict[str, int] = field(default_factory=dict)
    records: int = 0
    unreadable: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    gaps: tuple[Gap, ...] = ()

    def result(self) -> PackageResult:
        return PackageResult(
            problems=tuple(self.found.problems),
            more_problems=self.found.more,
            manifest=self.manifest,
            checkpoint=self.checkpoint,
            cosigned=self.cosigned,
            continues=self.continues,
            records=self.records,
            unreadable=self.unreadable,
            kinds=dict(sorted(self.kinds.items())),
            gaps=self.gaps,
        )


def verify_package(
    files: PackageFiles,
    verifier: NoteVerifier,
    *,
    known: bytes | None = None,
    witnesses: WitnessPolicy | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PackageResult:
    """Check a package offline.

    Args:
        files: where it is read from.
        verifier: the log's key, got from somebody else than whoever gave the package.
        known: a signed checkpoint that the caller trusts: the package must prove that its log is, or continues, that.
        witnesses: keys that the caller knows; so many of them as their quorum says must have cosigned.
        progress: told how many of how many records are checked.

    Raises:
        MalformedError: a file that the log's key vouches for cannot be read by this release.
    """
    state = _State()
    found = state.found
    try:
        manifest = open_manifest(read_whole(files, MANIFEST), verifier)
    except (MalformedError, NoteSignatureError) as error:
        expected = f"a manifest signed by {verifier.name}+{verifier.key_id.hex()}"
        found.add(ProblemCode.PACKAGE_ALTERED, None, MANIFEST, expected, str(error))
        return state.result()
    state.manifest = manifest
    _check_files(files, manifest, found)
    if found.problems:  # whatever else is in there is not what was signed
        return state.result()
    description = Description.parse(read_whole(files, DESCRIPTION))
    state.gaps = description.gaps
    checkpoint = _check_checkpoint(files, manifest, verifier, state, witnesses or WitnessPolicy())
    if checkpoint is None:
        return state.result()
    _check_older(files, description, checkpoint=checkpoint, verifier=verifier, state=state, known=known)
    finder = GapFinder(manifest.scope, description.signed_at, description.counters)
    report = Report()
    if (description.counters is not None) != manifest.scope.numbered:
        found.add(ProblemCode.PACKAGE_INCOMPLETE, None, "counters", "where the package is about an asset", "elsewhere")
    _check_records(files, manifest, checkpoint=checkpoint, state=state, finder=finder, report=report, progress=progress)
    if found.problems:  # what follows would only repeat them
        return state.result()
    _check_gaps(files, manifest, description, gaps=finder.finish(), found=found)
    if description.report == VERSION:
        written = b"".join(
            report.render(
                scope=manifest.scope,
                checkpoint=checkpoint,
                first=manifest.first,
                end=manifest.end,
                records=manifest.records,
                description=description,
            )
        )
        if written != read_whole(files, REPORT):
            found.add(ProblemCode.PACKAGE_ALTERED, None, REPORT, "what the records say", "something else")
    return state.result()


def _check_files(files: PackageFiles, manifest: Manifest, found: _Findings) -> None:
    listed = {file.name for file in manifest.files}
    for name in sorted(files.names() - listed - {MANIFEST}):
        found.add(ProblemCode.PACKAGE_ALTERED, None, name, "no such file, by the manifest", "there is one")
    for file in manifest.files:
        if file.name not in files.names():
            found.add(ProblemCode.PACKAGE_ALTERED, None, file.name, "a file, by the manifest", "it is missing")
            continue
        digest, size = hashlib.sha256(), 0
        try:
            for piece in files.pieces(file.name):
                digest.update(piece)
                size += len(piece)
        except MalformedError as error:
            found.add(ProblemCode.PACKAGE_ALTERED, None, file.name, f"{file.size} bytes", str(error))
            continue
        if (size, digest.hexdigest()) != (file.size, file.sha256):
            expected = f"{file.size} bytes, SHA-256 {file.sha256}"
            found.add(ProblemCode.PACKAGE_ALTERED, None, file.name, expected, f"{size} bytes, {digest.hexdigest()}")


def _check_checkpoint(
    files: PackageFiles, manifest: Manifest, verifier: NoteVerifier, state: _State, witnesses: WitnessPolicy
) -> Checkpoint | None:
    note = read_whole(files, CHECKPOINT)
    checkpoint = _open(note, verifier, CHECKPOINT, state.found)
    if checkpoint is None:
        return None
    if checkpoint.size != manifest.tree_size:
        expected = f"{manifest.tree_size} entries, by the manifest"
        state.found.add(ProblemCode.CHECKPOINT_ALTERED, None, CHECKPOINT, expected, f"{checkpoint.size} entries")
        return None
    state.checkpoint = checkpoint
    try:
        state.cosigned = witnesses.times(SignedNote.parse(note))
    except MalformedError as error:
        state.found.add(ProblemCode.CHECKPOINT_ALTERED, None, CHECKPOINT, "good cosignatures", str(error))
    if len(state.cosigned) < witnesses.quorum:
        expected = f"{witnesses.quorum} of {len(witnesses.keys)} witnesses"
        state.found.add(
            ProblemCode.CHECKPOINT_UNWITNESSED, None, CHECKPOINT, f"cosigned by {expected}", f"{len(state.cosigned)}"
        )
    return checkpoint


def _open(note: bytes, verifier: NoteVerifier, name: str, found: _Findings) -> Checkpoint | None:
    try:
        return open_checkpoint(note, verifier)
    except (MalformedError, NoteSignatureError) as error:
        expected = f"a checkpoint signed by {verifier.name}+{verifier.key_id.hex()}"
        found.add(ProblemCode.CHECKPOINT_ALTERED, None, name, expected, str(error))
        return None


def _check_older(
    files: PackageFiles,
    description: Description,
    *,
    checkpoint: Checkpoint,
    verifier: NoteVerifier,
    state: _State,
    known: bytes | None,
) -> None:
    held = {checkpoint}
    found = state.found
    if files.names() & OPTIONAL != description.consistency_proofs.keys():
        actual = ", ".join(sorted(description.consistency_proofs)) or "none"
        found.add(ProblemCode.CONSISTENCY_UNPROVEN, None, DESCRIPTION, "a proof from each older checkpoint", actual)
        return
    for name, proof in description.consistency_proofs.items():
        older = _open(read_whole(files, name), verifier, name, found)
        if older is None:
            continue
        try:
            verify_consistency(
                old_size=older.size,
                new_size=checkpoint.size,
                old_root=older.root,
                new_root=checkpoint.root,
                proof=proof,
            )
        except ProofError as error:
            expected = f"a proof that {checkpoint.size} entries continue {older.size}"
            found.add(ProblemCode.CONSISTENCY_UNPROVEN, None, name, expected, str(error))
            continue
        held.add(older)
        state.continues[name] = older.size
    if known is not None:
        trusted = _open(known, verifier, "known checkpoint", found)
        if trusted is not None and trusted not in held:
            expected = f"the known one, {trusted.size} entries under root {trusted.root.hex()}"
            actual = "others; ask for a package with --checkpoint"
            found.add(ProblemCode.CONSISTENCY_UNPROVEN, None, "checkpoints of the package", expected, actual)


def _check_records(
    files: PackageFiles,
    manifest: Manifest,
    *,
    checkpoint: Checkpoint,
    state: _State,
    finder: GapFinder,
    report: Report,
    progress: Callable[[int, int], None] | None,
) -> None:
    found = state.found
    expected_digest = next(file.sha256 for file in manifest.files if file.name == RECORDS)
    digest = hashlib.sha256()
    before = manifest.first - 1
    for data in _lines(files.pieces(RECORDS), digest.update):
        state.records += 1
        line = Line.parse(data)
        index = line.index
        if not before < index < manifest.end:
            where = f"behind {before} and before {manifest.end}"
            found.add(ProblemCode.PACKAGE_INCOMPLETE, index, "place of a record", where, str(index))
        if manifest.scope.whole and index > before + 1:
            missing = f"a record for entry {before + 1}"
            found.add(ProblemCode.PACKAGE_INCOMPLETE, before + 1, "records", missing, f"the next is of {index}")
        before = max(before, index)
        record = _check_line(line, checkpoint, manifest, found)
        if record is None:
            state.unreadable += 1
        else:
            state.kinds[record.kind.value] += 1
        look(finder, report, line, record=record)
        if progress is not None:
            progress(state.records, manifest.records)
    if manifest.scope.whole and before != manifest.end - 1 and manifest.end > manifest.first:
        missing = f"a record for entry {before + 1}"
        found.add(ProblemCode.PACKAGE_INCOMPLETE, before + 1, "records", missing, "the file ends")
    if state.records != manifest.records:
        found.add(ProblemCode.PACKAGE_INCOMPLETE, None, "number of records", str(manifest.records), str(state.records))
    if digest.hexdigest() != expected_digest:
        found.add(
            ProblemCode.PACKAGE_ALTERED,
            None,
            RECORDS,
            expected_digest,
            f"{digest.hexdigest()}, since it was read first",
        )


def _check_line(line: Line, checkpoint: Checkpoint, manifest: Manifest, found: _Findings) -> Record | None:
    try:
        verify_inclusion(
            leaf=line.leaf_hash,
            index=line.index,
            size=checkpoint.size,
            proof=line.inclusion_proof,
            root=checkpoint.root,
        )
    except ProofError as error:
        expected = f"a path to root {checkpoint.root.hex()} of {checkpoint.size} entries"
        found.add(ProblemCode.INCLUSION_UNPROVEN, line.index, "inclusion proof", expected, str(error))
    committed = line.committed()
    if committed is None or line.payload is None:
        return None
    if committed != line.leaf_hash:
        found.add(
            ProblemCode.PAYLOAD_ALTERED, line.index, "hash of salt and record", line.leaf_hash.hex(), committed.hex()
        )
        return None
    try:
        record = Record.parse(line.payload)
    except MalformedError as error:
        found.add(ProblemCode.PAYLOAD_MALFORMED, line.index, "record", "a record of this version", str(error))
        return None
    scope = manifest.scope
    named = {ref.rpartition("@")[0] for ref in record.assets}
    if (scope.tenant is not None and record.tenant != scope.tenant) or (
        scope.asset is not None and (scope.asset not in named or bool(line.counters) != scope.numbered)
    ):
        found.add(ProblemCode.PACKAGE_INCOMPLETE, line.index, "record", "one that the package is about", "another's")
    return record


def _lines(pieces: Iterator[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    """The lines of the records, each with its newline; bounded, and hashed as they are read."""
    waiting = b""
    for piece in pieces:
        update(piece)
        waiting += piece
        *whole, waiting = waiting.split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(waiting) > MAX_LINE:
            raise MalformedError("package record", f"a line is longer than {MAX_LINE} bytes")
    if waiting:
        yield waiting  # without its newline it is refused


def _check_gaps(
    files: PackageFiles, manifest: Manifest, description: Description, *, gaps: Gaps, found: _Findings
) -> None:
    """Whatever gap shows in the records, and among witnesses and checkpoints, must be owned up to."""
    _check_watchers(files, description, found)
    gaps_of_watch(gaps, manifest.first, description)
    seen = {gap.code: gap for gap in gaps.found()}
    said = {gap.code: gap for gap in description.gaps}
    for code in (*FOUND_IN_RECORDS, *_WATCHED):
        if _of(seen.get(code)) != _of(said.get(code)):
            found.add(ProblemCode.PACKAGE_INCOMPLETE, None, f"gap {code}", _told(seen.get(code)), _told(said.get(code)))
    erased = sum(seen[code].count for code in ERASURES if code in seen)
    admitted = sum(said[code].count for code in ERASURES if code in said)
    listed = {item.number for code in ERASURES if code in said for item in said[code].items}
    missing = {item.number for code in ERASURES if code in seen for item in seen[code].items} - listed
    if erased != admitted or (missing and erased <= len(listed)):
        found.add(
            ProblemCode.PACKAGE_INCOMPLETE, None, "erased entries", f"{erased} are owned up to", f"{admitted} are"
        )


def _check_watchers(files: PackageFiles, description: Description, found: _Findings) -> None:
    """What the package says of its witnesses is what their lines on the checkpoint say."""
    note = SignedNote.parse(read_whole(files, CHECKPOINT))
    keys = tuple(WitnessKey.parse(each.vkey) for each in description.witnesses)
    try:
        times = WitnessPolicy(keys).times(note)
    except MalformedError as error:
        found.add(ProblemCode.CHECKPOINT_ALTERED, None, CHECKPOINT, "good cosignatures", str(error))
        return
    for key, watcher in zip(keys, description.witnesses, strict=True):
        if times.get(key) != watcher.cosigned_at:
            expected = f"cosigned by {key.name} at {times.get(key)}"
            found.add(ProblemCode.PACKAGE_INCOMPLETE, None, "witnesses", expected, str(watcher.cosigned_at))


def _of(gap: Gap | None) -> tuple[int, tuple[int | None, ...]] | None:
    return None if gap is None else (gap.count, tuple(item.number for item in gap.items))


def _told(gap: Gap | None) -> str:
    return "none" if gap is None else f"{gap.count}, the first at {gap.items[0].number}"
