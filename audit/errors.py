"""Errors of the transparency log: raised when something cannot be read, written, proven or decided.

::

    AuditError
    ├── MalformedError         bytes or text that are not the structure they are said to be
    ├── RecordError            an audit record that may not be written
    ├── NoteSignatureError     a signed note, checkpoint or receipt without a good signature by the given key
    ├── ProofError             a Merkle proof that does not lead to the root that was signed
    ├── EntryNotFoundError     no such entry in the log, or not sequenced yet, or its payload was erased
    ├── NotInitialisedError    the database holds no log yet
    ├── UnwitnessedError       a checkpoint that too few witnesses cosigned
    ├── PublishedError         what is published is not a prefix of this log, or cannot be read or written
    ├── WitnessStateError      a witness's state cannot be read or written, or its clock went back
    ├── LogCorruptError        stored log data contradict one another; nothing more is signed
    ├── KeysNeededError        the log's payloads are sealed, and whoever asks has no keys
    ├── KeyringError           payload keys cannot be wrapped or opened now
    ├── ErasureError           an erasure that cannot be begun; nothing was changed
    ├── QueryError             a filter, cursor or page size that cannot be used
    ├── ExportError            records that cannot be written in another tool's form
    └── DatabaseError          the database cannot be opened or is not a log of this version

An exception means "could not decide". What a verification decided against is a `audit.problems.Problem`.
"""

from __future__ import annotations

from typing import ClassVar


class AuditError(Exception):
    """Base of this package's errors; `code` is stable, the text is for people."""

    code: ClassVar[str] = "AUDIT_ERROR"


class MalformedError(AuditError):
    """Bytes or text that are not the structure they are said to be.

    Attributes:
        structure: the specification's name of the structure.
    """

    code: ClassVar[str] = "MALFORMED_AUDIT_DATA"

    def __init__(self, structure: str, problem: str) -> None:
        super().__init__(f"{structure}: {problem}")
        self.structure = structure


class RecordError(AuditError):
    """An audit record that may not be written: a field is missing, has another form, or could hold a secret."""

    code: ClassVar[str] = "BAD_AUDIT_RECORD"


class NoteSignatureError(AuditError):
    """A signed note, checkpoint or receipt that carries no good signature by the key it was checked with."""

    code: ClassVar[str] = "BAD_NOTE_SIGNATURE"


class ProofError(AuditError):
    """A Merkle proof that does not lead to the root that was signed."""

    code: ClassVar[str] = "BAD_MERKLE_PROOF"


class EntryNotFoundError(AuditError):
    """No such entry in the log, or it is not sequenced yet, or its payload was erased."""

    code: ClassVar[str] = "ENTRY_NOT_FOUND"


class NotInitialisedError(AuditError):
    """The database holds no log yet, or one of another origin."""

    code: ClassVar[str] = "LOG_NOT_INITIALISED"


class UnwitnessedError(AuditError):
    """A checkpoint that fewer witnesses cosigned than the policy asks for."""

    code: ClassVar[str] = "LOG_UNWITNESSED"


class PublishedError(AuditError):
    """What is published is not a prefix of this log, or cannot be read or written; nothing was overwritten."""

    code: ClassVar[str] = "PUBLISHED_LOG_UNUSABLE"


class WitnessStateError(AuditError):
    """A witness's state cannot be read or written, or its clock went back; nothing was cosigned."""

    code: ClassVar[str] = "WITNESS_STATE_UNUSABLE"


class LogCorruptError(AuditError):
    """Stored log data contradict one another, so nothing more is signed until a person has looked."""

    code: ClassVar[str] = "LOG_CORRUPT"


class KeysNeededError(AuditError):
    """The log's payloads are sealed, and this reader or writer was given no keys to them."""

    code: ClassVar[str] = "LOG_KEYS_NEEDED"


class KeyringError(AuditError):
    """Payload keys cannot be wrapped or opened now, or are another log's."""

    code: ClassVar[str] = "LOG_KEYS_UNUSABLE"


class ErasureError(AuditError):
    """An erasure that cannot be begun: nothing is there to erase, or not everything is sealed yet."""

    code: ClassVar[str] = "ERASURE_REFUSED"


class QueryError(AuditError):
    """A filter, cursor or page size that cannot be used."""

    code: ClassVar[str] = "BAD_AUDIT_QUERY"


class ExportError(AuditError):
    """Records that cannot be written in another tool's form: it has no words for one, or a library is not installed."""

    code: ClassVar[str] = "AUDIT_EXPORT_IMPOSSIBLE"


class DatabaseError(AuditError):
    """The database cannot be opened, or holds no tables of this version of the log."""

    code: ClassVar[str] = "AUDIT_DATABASE_UNREADABLE"
