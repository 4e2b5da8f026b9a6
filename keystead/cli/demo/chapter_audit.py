"""The demo, the last chapter: an auditor asks, checks the answer offline, and notices an altered log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from audit.checkpoint import Checkpoint
from audit.database import snapshot
from audit.note import NoteVerifier, SignedNote
from audit.package.files import open_package
from audit.package.verify import verify_package
from audit.proof import ProofBundle, verify_bundle
from audit.query import get
from audit.records import Kind, Record
from audit.verify import verify_log
from keybroker.broker import load_log_keyring
from keybroker.config import BrokerConfig
from keystead.cli import output
from keystead.cli.connection import Connection
from keystead.cli.demo.attacks import rewrite_record
from keystead.cli.demo.narrator import Narrator
from keystead.cli.demo.stage import MODEL, Stage
from keystead.v1 import audit_service_pb2

_SEQUENCED_SECONDS: Final = 15.0
"""How long the log may take to sequence what was answered; its proofs lag behind its receipts by that."""


def ask(stage: Stage, verifier: NoteVerifier, known: bytes) -> int:
    """Ask who used the model and prove an answer; returns the index of the record that says so.

    Args:
        stage: who is there.
        verifier: the log's key.
        known: a checkpoint that the auditor saw earlier.
    """
    auditor, tell = stage.auditor, stage.narrator
    tell.chapter(6, "An auditor asks who used the model, and checks the answer")
    records = _records(auditor)
    tell.says("auditor", f"asks the log about {MODEL.asset}: who, where, on what, for what, and how it ended")
    tell.table(
        ("entry", "when", "what", "job", "node", "law", "result", "because"),
        (
            (
                index,
                output.instant(record.time)[11:19],
                record.kind.value,
                record.job,
                record.node,
                record.jurisdiction,
                record.result.value,
                ", ".join(record.reasons),
            )
            for index, record in records
        ),
    )
    granted = [index for index, record in records if record.kind is Kind.LEASE_GRANTED]
    refused = [index for index, record in records if record.kind in {Kind.LEASE_REFUSED, Kind.JOB_REFUSED}]
    tell.outcome(
        "the-log-knows",
        expected="2 granted, 8 refused",
        actual=f"{len(granted)} granted, {len(refused)} refused",
        text=f"{len(granted)} uses and {len(refused)} refusals are on record",
    )
    answer = auditor.call(
        auditor.audit.ProveRecord,
        audit_service_pb2.ProveRecordRequest(leaf_index=granted[0], old_checkpoint=known.decode("utf-8")),
    )
    (stage.folder / "proof.json").write_bytes(answer.bundle)
    result = verify_bundle(ProofBundle.parse(answer.bundle), verifier, known=known)
    size = 0 if result.checkpoint is None else result.checkpoint.size
    tell.says("auditor", "asks for a proof, and checks it offline with the log's key alone, got by another way")
    tell.outcome(
        "proof-holds-offline",
        expected="proven",
        actual="proven" if result.ok else "; ".join(problem.code.value for problem in result.problems),
        text=f"entry {granted[0]} is among the {size} signed entries (inclusion), and the log has only grown since "
        f"the {_size(known)} that the auditor saw earlier (consistency)",
    )
    _take_home(stage, verifier, known)
    return granted[0]


def _take_home(stage: Stage, verifier: NoteVerifier, known: bytes) -> None:
    """Ask for an evidence package about the model, and verify it offline."""
    auditor, tell = stage.auditor, stage.narrator
    request = audit_service_pb2.GetEvidencePackageRequest(asset=MODEL.asset, old_checkpoint=known.decode("utf-8"))
    path = stage.folder / "evidence.zip"
    path.write_bytes(b"".join(piece.package for piece in auditor.stream(auditor.audit.GetEvidencePackage, request)))
    with open_package(path) as files:
        result = verify_package(files, verifier, known=known)
    tell.says("auditor", "takes everything about the model home as one file, for people who have no Keystead")
    tell.outcome(
        "package-holds-offline",
        expected="proven",
        actual="proven" if result.ok else "; ".join(problem.code.value for problem in result.problems),
        text=f"{result.records} records with a report for the browser; gaps that it owns up to: "
        f"{', '.join(gap.code.value for gap in result.gaps) or 'none'}",
    )


def _records(auditor: Connection) -> list[tuple[int, Record]]:
    """Every record about the model, once the log has sequenced what was answered."""
    deadline = time.monotonic() + _SEQUENCED_SECONDS
    while True:
        page = auditor.call(
            auditor.audit.QueryRecords, audit_service_pb2.QueryRecordsRequest(asset=MODEL.asset, page_size=1_000)
        )
        records = [
            (record.leaf_index, Record.parse(record.payload))
            for record in page.records
            if record.HasField("leaf_index")
        ]
        returned = sum(record.kind is Kind.LEASE_RETURNED for _, record in records)
        # The last thing that happened to the model is the return of the second lease.
        if returned >= 2 or time.monotonic() > deadline:
            return records
        time.sleep(0.2)


def alter_the_log(narrator: Narrator, installation: Path, verifier: NoteVerifier, *, known: bytes, index: int) -> None:
    """Rewrite a record in the stopped broker's database and show that verification names it.

    Args:
        narrator: tells it.
        installation: the broker's folder.
        verifier: the log's key.
        known: a checkpoint that the auditor saw earlier.
        index: the record.
    """
    tell = narrator
    database = installation / "keystead.db"
    url = f"sqlite:///{database}"
    ring = load_log_keyring(BrokerConfig.load(installation))
    with snapshot(url, ring) as connection:
        whole = verify_log(connection, verifier, known=[known])
        record = get(connection, index).record()
    tell.says("auditor", f"checks all {whole.entries} entries of the log's own database against what was signed")
    tell.outcome(
        "log-is-whole",
        expected="whole",
        actual="whole" if whole.ok else "; ".join(problem.code.value for problem in whole.problems),
        text="every entry, tile, counter and checkpoint agrees",
    )
    tell.says("an insider", f"rewrites entry {index} in the database: the lease was granted in the US, it says now")
    rewrite_record(database, index, {} if record is None else record.to_json())
    with snapshot(url, ring) as connection:
        altered = verify_log(connection, verifier, known=[known])
    tell.outcome(
        "altered-record-is-named",
        expected=f"entry {index} altered",
        actual="whole" if altered.ok else f"entry {altered.first_bad_index} altered",
        text=f"verification names entry {altered.first_bad_index}",
    )
    tell.table(
        ("problem", "entry", "what", "how to mend it"),
        ((problem.code.value, problem.index, problem.field, problem.remedy) for problem in altered.problems),
    )


def _size(note: bytes) -> int:
    return Checkpoint.parse_text(SignedNote.parse(note).text).size
