"""Proof bundles: everything that an auditor needs to check one entry offline, in one JSON file.

A bundle holds the record and its salt (unless erased), the leaf, its index, the inclusion proof and the signed
checkpoint; and, if an older checkpoint was named, that one and the consistency proof between the two. `verify_bundle`
needs the bundle and the log's verifier key and nothing else. `ProofBundle.to_tlog_proof` writes the same inclusion
proof in the text format of C2SP tlog-proof.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import rfc8785
from sqlalchemy import Connection, select

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import WitnessPolicy
from audit.envelope import Leaf
from audit.errors import EntryNotFoundError, KeysNeededError, MalformedError, NoteSignatureError, ProofError
from audit.merkle import HASH_SIZE, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion
from audit.note import MAX_NOTE_SIZE, NoteVerifier, SignedNote
from audit.payload import KEYED_ENTRY, PAYLOAD_COLUMNS, PayloadReader
from audit.problems import Problem, ProblemCode
from audit.query import newest_checkpoint
from audit.receipt import Receipt
from audit.records import MAX_PAYLOAD, Record
from audit.tables import AUDIT_ENTRY
from audit.tiles import TileReader

FORMAT: Final = "keystead-audit-proof/v1"
MAX_BUNDLE: Final = 4 * MAX_PAYLOAD + 4 * MAX_NOTE_SIZE
"""Bytes of a bundle file: one record, two notes and two proofs fit several times."""

MAX_PROOF: Final = 64
"""No path is longer than the bits of a tree size; a consistency proof has one hash more."""

_FIELDS: Final = frozenset(
    {
        "format",
        "index",
        "leaf",
        "salt",
        "record",
        "inclusion_proof",
        "checkpoint",
        "older_checkpoint",
        "consistency_proof",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofBundle:
    """One entry with its proofs; nothing of it is verified yet.

    Attributes:
        index: the entry's place in the log.
        leaf: the leaf's bytes.
        salt, payload: what the leaf's digest covers; both None where they were erased.
        inclusion_proof: hashes from the leaf's sibling upwards.
        checkpoint: the signed note.
        older_checkpoint: an older signed note that the log continues, or None.
        consistency_proof: hashes that prove it.
    """

    index: int
    leaf: bytes
    salt: bytes | None
    payload: bytes | None
    inclusion_proof: tuple[bytes, ...]
    checkpoint: bytes
    older_checkpoint: bytes | None = None
    consistency_proof: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """The bundle as canonical JSON (RFC 8785)."""
        return rfc8785.dumps(
            {
                "format": FORMAT,
                "index": self.index,
                "leaf": _encode(self.leaf),
                "salt": None if self.salt is None else _encode(self.salt),
                "record": None if self.payload is None else json.loads(self.payload),
                "inclusion_proof": [_encode(item) for item in self.inclusion_proof],
                "checkpoint": self.checkpoint.decode("utf-8"),
                "older_checkpoint": None if self.older_checkpoint is None else self.older_checkpoint.decode("utf-8"),
                "consistency_proof": [_encode(item) for item in self.consistency_proof],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a bundle; white space and the order of names are free, everything else is not.

        Raises:
            MalformedError: it is not a bundle of this version.
        """
        if len(data) > MAX_BUNDLE:
            raise MalformedError("proof bundle", f"{len(data)} bytes, at most {MAX_BUNDLE} are allowed")
        try:
            value = json.loads(data, object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float)
        except (ValueError, RecursionError) as error:
            raise MalformedError("proof bundle", f"not JSON: {error}") from None
        if not isinstance(value, dict) or value.keys() != _FIELDS or value["format"] != FORMAT:
            raise MalformedError("proof bundle", f"not an object of format {FORMAT} with its nine fields")
        index, record = value["index"], value["record"]
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise MalformedError("proof bundle", "index is not a number")
        if record is not None and not isinstance(record, dict):
            raise MalformedError("proof bundle", "record is not an object")
        salt = None if value["salt"] is None else _decode(value["salt"], "salt")
        if (salt is None) != (record is None):
            raise MalformedError("proof bundle", "record and salt are there together or not at all")
        try:
            payload = None if record is None else rfc8785.dumps(record)
        except (rfc8785.CanonicalizationError, RecursionError) as error:
            raise MalformedError("proof bundle", f"record has no canonical form: {error}") from None
        older = value["older_checkpoint"]
        return cls(
            index=index,
            leaf=_decode(value["leaf"], "leaf"),
            salt=salt,
            payload=payload,
            inclusion_proof=_decode_hashes(value["inclusion_proof"], "inclusion_proof"),
            checkpoint=_text(value["checkpoint"], "checkpoint"),
            older_checkpoint=None if older is None else _text(older, "older_checkpoint"),
            consistency_proof=_decode_hashes(value["consistency_proof"], "consistency_proof"),
        )

    def to_tlog_proof(self) -> str:
        """The inclusion proof as C2SP tlog-proof text, for tools that know nothing of Keystead."""
        lines = ["c2sp.org/tlog-proof@v1", f"index {self.index}", *(_encode(item) for item in self.inclusion_proof)]
        return "\n".join(lines) + "\n\n" + self.checkpoint.decode("utf-8")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(value: object, field: str) -> bytes:
    if not isinstance(value, str):
        raise MalformedError("proof bundle", f"{field} is not base64 text")
    try:
        data = base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise MalformedError("proof bundle", f"{field} is not base64") from None
    if _encode(data) != value:
        raise MalformedError("proof bundle", f"{field} is not canonical base64")
    return data


def _decode_hashes(value: object, field: str) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > MAX_PROOF:
        raise MalformedError("proof bundle", f"{field} is not a list of at most {MAX_PROOF} hashes")
    hashes = tuple(_decode(item, field) for item in value)
    if any(len(item) != HASH_SIZE for item in hashes):
        raise MalformedError("proof bundle", f"{field}: a hash is not {HASH_SIZE} bytes long")
    return hashes


def _text(value: object, field: str) -> bytes:
    if not isinstance(value, str):
        raise MalformedError("proof bundle", f"{field} is not text")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("proof bundle", f"{field} is not valid Unicode") from None


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return value


def _no_float(text: str) -> Any:
    raise ValueError(f"{text[:20]} is not an integer")


def build(
    connection: Connection, index: int, *, older: bytes | None = None, witnesses: WitnessPolicy | None = None
) -> ProofBundle:
    """The proof bundle of the entry at `index` under the newest checkpoint.

    Args:
        connection: a connection that sees one snapshot of the log's database.
        index: the entry's place in the log.
        older: a signed checkpoint seen earlier, to prove that the log continues it.
        witnesses: the proof is under the newest checkpoint that a quorum of these cosigned.

    Raises:
        EntryNotFoundError: the log has no such entry, or no checkpoint with enough cosignatures covers it yet.
        UnwitnessedError: no checkpoint was cosigned by a quorum yet.
        NotInitialisedError: the log has not begun.
        MalformedError: `older` is not a checkpoint.
        ProofError: `older` is of another log, or larger than the newest checkpoint.
        LogCorruptError: the entry, or tiles that the proof needs, are damaged.
        KeysNeededError: the record is sealed, and `connection` has no keys: a bundle would show it as erased.
    """
    row = connection.execute(
        select(*PAYLOAD_COLUMNS).select_from(KEYED_ENTRY).where(AUDIT_ENTRY.c.leaf_index == index)
    ).one_or_none()
    if row is None:
        raise EntryNotFoundError(f"entry {index}: not in the log")
    opened = PayloadReader(connection).open_checked(row, f"entry {index}")
    if opened.sealed:
        raise KeysNeededError(
            f"entry {index}: its record is sealed; ask the broker for the proof, or give the log's keys"
        )
    note = newest_checkpoint(connection, witnesses)
    # The builder trusts its own database: whoever verifies checks the signature with a key of their own.
    newest = Checkpoint.parse_text(SignedNote.parse(note).text)
    if index >= newest.size:
        raise EntryNotFoundError(f"entry {index}: waits for its checkpoint to be cosigned; ask again in a moment")
    node = TileReader(connection)
    consistency: tuple[bytes, ...] = ()
    if older is not None:
        old = Checkpoint.parse_text(SignedNote.parse(older).text)
        if old.origin != newest.origin:
            raise ProofError(f"the older checkpoint is of the log {old.origin!r}, this is {newest.origin!r}")
        consistency = consistency_proof(old.size, newest.size, node)
    return ProofBundle(
        index=index,
        leaf=Leaf(bytes(row.digest)).to_bytes(),
        salt=opened.salt,
        payload=opened.payload,
        inclusion_proof=inclusion_proof(index, newest.size, node),
        checkpoint=note,
        older_checkpoint=older,
        consistency_proof=consistency,
    )


@dataclass(frozen=True, slots=True)
class BundleResult:
    """What the verification of a bundle established.

    Attributes:
        problems: every violated rule; none means that everything below is proven.
        checkpoint: the signed checkpoint; None if its signature is not good.
        entry_hash: the leaf's hash; None if the leaf is malformed.
        record: the record that the leaf commits to; None if erased or not proven.
        erased: the record was erased from the log; that some entry stands at the index is still proven.
        continues: the size of the older checkpoint that the log provably continues, or None.
    """

    problems: tuple[Problem, ...]
    checkpoint: Checkpoint | None
    entry_hash: bytes | None
    record: Record | None
    erased: bool
    continues: int | None

    @property
    def ok(self) -> bool:
        """True where no rule is violated."""
        return not self.problems


def verify_bundle(
    bundle: ProofBundle, verifier: NoteVerifier, *, known: bytes | None = None, receipt: Receipt | None = None
) -> BundleResult:
    """Check a bundle offline against the log's verifier key.

    Args:
        bundle: what the log answered.
        verifier: the log's key, got from somebody else than whoever gave the bundle.
        known: a signed checkpoint that the caller trusts: the bundle must prove that its log is, or continues, that.
        receipt: a promise by the log: the bundle must be about the entry that it names.
    """
    problems: list[Problem] = []
    index = bundle.index

    # (1) The checkpoint is signed by the log's key.
    checkpoint = _open(bundle.checkpoint, verifier, "checkpoint", problems)

    # (2) The leaf has its canonical form, and its hash leads to the signed root.
    leaf: Leaf | None = None
    try:
        leaf = Leaf.parse(bundle.leaf)
    except MalformedError as error:
        problems.append(Problem(ProblemCode.INCLUSION_UNPROVEN, index, "leaf", "a leaf of this version", str(error)))
    if leaf is not None and checkpoint is not None:
        try:
            verify_inclusion(
                leaf=leaf.entry_hash(),
                index=index,
                size=checkpoint.size,
                proof=bundle.inclusion_proof,
                root=checkpoint.root,
            )
        except ProofError as error:
            expected = f"a path to root {checkpoint.root.hex()} of {checkpoint.size} entries"
            problems.append(Problem(ProblemCode.INCLUSION_UNPROVEN, index, "inclusion proof", expected, str(error)))

    # (3) The record is what the leaf commits to.
    record = _open_record(bundle, leaf, problems)

    # (4) The log continues the older checkpoint, and the one that the caller knows.
    continues = _verify_older(bundle, checkpoint, verifier, known, problems)

    # (5) The receipt is about this entry.
    if receipt is not None:
        try:
            receipt.verify(verifier)
        except NoteSignatureError as error:
            problems.append(Problem(ProblemCode.RECEIPT_UNRELATED, index, "receipt", "the log's signature", str(error)))
        if leaf is not None and receipt.entry_hash != leaf.entry_hash():
            problems.append(
                Problem(
                    ProblemCode.RECEIPT_UNRELATED,
                    index,
                    "receipt's entry hash",
                    leaf.entry_hash().hex(),
                    receipt.entry_hash.hex(),
                )
            )
    return BundleResult(
        problems=tuple(problems),
        checkpoint=checkpoint,
        entry_hash=None if leaf is None else leaf.entry_hash(),
        record=record if not problems else None,
        erased=bundle.payload is None,
        continues=continues,
    )


def _open(note: bytes, verifier: NoteVerifier, field: str, problems: list[Problem]) -> Checkpoint | None:
    try:
        return open_checkpoint(note, verifier)
    except (MalformedError, NoteSignatureError) as error:
        expected = f"a checkpoint signed by {verifier.name}+{verifier.key_id.hex()}"
        problems.append(Problem(ProblemCode.CHECKPOINT_ALTERED, None, field, expected, str(error)))
        return None


def _open_record(bundle: ProofBundle, leaf: Leaf | None, problems: list[Problem]) -> Record | None:
    if bundle.payload is None or bundle.salt is None or leaf is None:
        return None
    try:
        committed = Leaf.commit(salt=bundle.salt, payload=bundle.payload)
    except MalformedError as error:
        problems.append(Problem(ProblemCode.PAYLOAD_ALTERED, bundle.index, "salt", "32 bytes", str(error)))
        return None
    if committed != leaf:
        problems.append(
            Problem(
                ProblemCode.PAYLOAD_ALTERED,
                bundle.index,
                "digest of salt and record",
                leaf.digest.hex(),
                committed.digest.hex(),
            )
        )
        return None
    try:
        return Record.parse(bundle.payload)
    except MalformedError as error:
        problems.append(
            Problem(ProblemCode.PAYLOAD_MALFORMED, bundle.index, "record", "a record of this version", str(error))
        )
        return None


def _verify_older(
    bundle: ProofBundle,
    checkpoint: Checkpoint | None,
    verifier: NoteVerifier,
    known: bytes | None,
    problems: list[Problem],
) -> int | None:
    older: Checkpoint | None = None
    if bundle.older_checkpoint is not None:
        older = _open(bundle.older_checkpoint, verifier, "older checkpoint", problems)
    elif bundle.consistency_proof:
        problems.append(
            Problem(ProblemCode.CONSISTENCY_UNPROVEN, None, "consistency proof", "none", "one without its checkpoint")
        )
    if older is not None and checkpoint is not None:
        try:
            verify_consistency(
                old_size=older.size,
                new_size=checkpoint.size,
                old_root=older.root,
                new_root=checkpoint.root,
                proof=bundle.consistency_proof,
            )
        except ProofError as error:
            expected = f"a proof that {checkpoint.size} entries continue {older.size}"
            problems.append(Problem(ProblemCode.CONSISTENCY_UNPROVEN, None, "consistency proof", expected, str(error)))
            older = None
    if known is not None:
        trusted = _open(known, verifier, "known checkpoint", problems)
        if trusted is not None and trusted not in {checkpoint, older}:
            problems.append(
                Problem(
                    ProblemCode.CONSISTENCY_UNPROVEN,
                    None,
                    "checkpoints of the bundle",
                    f"the known one, {trusted.size} entries under root {trusted.root.hex()}",
                    "others; ask for a proof from the known checkpoint",
                )
            )
    return None if older is None or checkpoint is None else older.size
