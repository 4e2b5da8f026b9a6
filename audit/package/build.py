"""Building an evidence package: records, proofs, checkpoints, a report for people, and how to check all of it.

The same log, checkpoint and scope give the same bytes, by a broker or from the database: no clock is read, and nothing
is drawn by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files as package_files
from typing import BinaryIO, Final

from sqlalchemy import Connection, select

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import WitnessPolicy
from audit.errors import ProofError, QueryError
from audit.merkle import NodeReader, consistency_proof, inclusion_proof
from audit.note import SignedNote, Signer
from audit.package import entries
from audit.package.description import Description, Watcher
from audit.package.files import PackageWriter
from audit.package.gaps import GapCode, GapFinder, Gaps, instant
from audit.package.lines import Line, State
from audit.package.manifest import (
    CHECKPOINT,
    CHECKPOINT_BEFORE,
    CHECKPOINT_KEPT,
    DESCRIPTION,
    MANIFEST,
    MAX_RECORDS,
    RECORDS,
    REPORT,
    STRANGER,
    Manifest,
    Scope,
)
from audit.package.report import VERSION, Report
from audit.query import newest_checkpoint
from audit.records import Record
from audit.tables import AUDIT_CHECKPOINT
from audit.tiles import TileReader

_CACHED_NODES: Final = 1 << 15
_CACHED_TILES: Final = 512


@dataclass(frozen=True, slots=True)
class Built:
    """A package that was written.

    Attributes:
        manifest: what it says that it is.
        note: the manifest as it was signed.
        description: what it says beside.
    """

    manifest: Manifest
    note: bytes
    description: Description


def build_package(
    connection: Connection,
    file: BinaryIO,
    *,
    scope: Scope,
    signer: Signer,
    witnesses: WitnessPolicy,
    kept: bytes | None = None,
    unwitnessed: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Built:
    """Write the evidence package about `scope` into `file`, as one archive.

    Args:
        connection: sees one snapshot of the log's database.
        file: can be written, and gone back in.
        scope: what it is to be about.
        signer: the log's own key.
        witnesses: the log's witnesses. The package is under the newest checkpoint that their quorum cosigned.
        kept: a signed checkpoint that the reader kept: prove that the log continues it.
        unwitnessed: take the newest checkpoint even where the quorum did not cosign it; the package says so.
        progress: told how many records are written; what it raises ends the work.

    Raises:
        NotInitialisedError: the log has not begun.
        UnwitnessedError: no checkpoint was cosigned by a quorum yet.
        QueryError: more fits than one package holds.
        MalformedError: `kept` is not a checkpoint, or a record is not one of this version.
        ProofError: `kept` is larger than the newest checkpoint.
        NoteSignatureError: `signer` is not this log's, or did not sign `kept`.
        LogCorruptError: what is stored was altered.
    """
    trusted = WitnessPolicy() if unwitnessed else witnesses
    note = newest_checkpoint(connection, trusted)
    newest = Checkpoint.parse_text(SignedNote.parse(note).text)
    if kept is not None and open_checkpoint(kept, signer.verifier).size > newest.size:
        raise ProofError(f"the kept checkpoint is of more than the {newest.size} entries that this log has")
    signed_at = (
        connection.scalar(select(AUDIT_CHECKPOINT.c.time).where(AUDIT_CHECKPOINT.c.tree_size == newest.size)) or 0
    )
    span = entries.span_of(connection, scope, size=newest.size)
    counters = entries.counters_of(connection, scope, span)
    finder = GapFinder(scope, signed_at, counters)
    node = _cached(TileReader(connection, kept=_CACHED_TILES))
    report = Report()
    written = 0

    def lines() -> Iterator[bytes]:
        nonlocal written
        for stored in entries.read_entries(connection, scope, span):
            written += 1
            if written > MAX_RECORDS:
                raise QueryError(f"package: more than {MAX_RECORDS} records fit; ask for a shorter span, in parts")
            record = None if stored.payload is None else Record.parse(stored.payload)
            look(finder, report, stored, record=record, erased=stored.erased)
            yield Line(
                index=stored.index,
                leaf_hash=stored.leaf_hash,
                inclusion_proof=inclusion_proof(stored.index, newest.size, node),
                counters=stored.counters,
                state=stored.state,
                salt=stored.salt,
                payload=stored.payload,
            ).to_bytes()
            if progress is not None:
                progress(written)

    with PackageWriter(file) as writer:
        writer.write(RECORDS, lines())
        older = _older(connection, span.first, trusted, kept)
        for name, old in older.items():
            writer.write(name, iter((old,)))
        description = Description(
            report=VERSION,
            signed_at=signed_at,
            counters=counters,
            consistency_proofs={name: _continue(old, newest, node) for name, old in older.items()},
            witnesses=_watchers(note, witnesses),
            quorum=witnesses.quorum,
            gaps=(),
        )
        _find_more(connection, finder, scope, span, size=newest.size, description=description)
        description = replace(description, gaps=finder.gaps.found())
        writer.write(CHECKPOINT, iter((note,)))
        writer.write(DESCRIPTION, iter((description.to_bytes(),)))
        writer.write(
            REPORT,
            report.render(
                scope=scope, checkpoint=newest, first=span.first, end=span.end, records=written, description=description
            ),
        )
        for name in STRANGER:
            writer.write(name, iter((package_files("audit.package").joinpath("stranger", name).read_bytes(),)))
        manifest = Manifest(
            origin=newest.origin,
            tree_size=newest.size,
            scope=scope,
            first=span.first,
            end=span.end,
            records=written,
            files=writer.digests,
        )
        signed = manifest.sign(signer).to_bytes()
        writer.write(MANIFEST, iter((signed,)))
    return Built(manifest, signed, description)


def look(
    finder: GapFinder, report: Report, entry: entries.Stored | Line, *, record: Record | None, erased: str = ""
) -> None:
    """Give one entry to whoever looks at all of them; `erased` as `GapFinder.add` takes it."""
    finder.add(
        index=entry.index,
        time=None if record is None else record.time,
        sealed=entry.state is State.SEALED,
        counters=entry.counters,
        erased=erased,
    )
    report.add(index=entry.index, state=entry.state, record=record)


def _cached(node: NodeReader) -> NodeReader:
    """The same, with the hashes at hand that proofs of neighbours share."""
    return lru_cache(_CACHED_NODES)(node)


def _continue(old: bytes, newest: Checkpoint, node: NodeReader) -> tuple[bytes, ...]:
    return consistency_proof(Checkpoint.parse_text(SignedNote.parse(old).text).size, newest.size, node)


def _older(connection: Connection, first: int, witnesses: WitnessPolicy, kept: bytes | None) -> dict[str, bytes]:
    """Older checkpoints to prove consistency with: the last from before the span, and the reader's own."""
    older: dict[str, bytes] = {}
    newest_first = (
        select(AUDIT_CHECKPOINT.c.note)
        .where(AUDIT_CHECKPOINT.c.tree_size <= first, AUDIT_CHECKPOINT.c.tree_size > 0)
        .order_by(AUDIT_CHECKPOINT.c.tree_size.desc())
        .execution_options(yield_per=64)
    )
    with connection.execute(newest_first) as found:
        for row in found:
            data = str(row.note).encode("utf-8")
            if witnesses.accepts(data):  # one that its witnesses did not accept is not shown to anybody
                older[CHECKPOINT_BEFORE] = data
                break
    if kept is not None:
        older[CHECKPOINT_KEPT] = kept
    return older


def _watchers(note: bytes, witnesses: WitnessPolicy) -> tuple[Watcher, ...]:
    times = witnesses.times(SignedNote.parse(note))
    return tuple(Watcher(str(key), times.get(key)) for key in witnesses.keys)


def _find_more(
    connection: Connection,
    finder: GapFinder,
    scope: Scope,
    span: entries.Span,
    *,
    size: int,
    description: Description,
) -> None:
    """Find the gaps that do not show in the records."""
    gaps = finder.finish()
    if not scope.whole and (erased := entries.count_erased(connection, span)):
        gaps.add(GapCode.ERASED_OWNER_UNKNOWN, None, f"{erased} erased entries stand in the span")
    placed, waiting = entries.count_beyond(connection, size)
    if scope.end_time is None or scope.end_time > description.signed_at:
        if placed:
            gaps.add(GapCode.NOT_COVERED, None, f"{placed} entries stand behind it")
        if waiting:
            gaps.add(GapCode.NOT_COVERED, None, f"{waiting} entries have a receipt and wait for their place")
    if scope.end_time is not None and scope.end_time > description.signed_at:
        until, at = instant(scope.end_time), instant(description.signed_at)
        gaps.add(GapCode.SPAN_OPEN, None, f"asked for until {until}, the checkpoint was signed at {at}")
    gaps_of_watch(gaps, span.first, description)


def gaps_of_watch(gaps: Gaps, first: int, description: Description) -> None:
    """The gaps that follow from the older checkpoints and the witnesses; found again when a package is verified."""
    if first > 0 and CHECKPOINT_BEFORE not in description.consistency_proofs:
        gaps.add(GapCode.NO_EARLIER_CHECKPOINT)
    cosigned = [watcher for watcher in description.witnesses if watcher.cosigned_at is not None]
    if not cosigned:
        gaps.add(GapCode.NO_WITNESS)
    for watcher in description.witnesses:
        if watcher.cosigned_at is None:
            gaps.add(GapCode.WITNESS_SILENT, None, watcher.vkey.partition("+")[0])
    if len(cosigned) < description.quorum:
        gaps.add(GapCode.QUORUM_MISSED, None, f"{len(cosigned)} cosigned, {description.quorum} are needed")
