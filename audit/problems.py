"""Problems: what a verification of the log or of a proof decided against, where, and what to do about it.

The codes are closed and stable; `docs/audit-format.md` explains each to an auditor.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ProblemCode(StrEnum):
    """Every kind of problem."""

    ENTRY_MISSING = "ENTRY_MISSING"
    ENTRY_INSERTED = "ENTRY_INSERTED"
    ENTRY_MOVED = "ENTRY_MOVED"
    ENTRY_DUPLICATED = "ENTRY_DUPLICATED"
    ENTRY_REPLACED = "ENTRY_REPLACED"
    ENTRY_UNSIGNED = "ENTRY_UNSIGNED"
    ENTRY_HASH_ALTERED = "ENTRY_HASH_ALTERED"
    PAYLOAD_ALTERED = "PAYLOAD_ALTERED"
    PAYLOAD_MALFORMED = "PAYLOAD_MALFORMED"
    PROJECTION_ALTERED = "PROJECTION_ALTERED"
    COUNTER_ALTERED = "COUNTER_ALTERED"
    ERASED_WITHOUT_RECORD = "ERASED_WITHOUT_RECORD"
    TILE_ALTERED = "TILE_ALTERED"
    TILE_MISSING = "TILE_MISSING"
    STATE_ALTERED = "STATE_ALTERED"
    CHECKPOINT_ALTERED = "CHECKPOINT_ALTERED"
    CHECKPOINT_MISSING = "CHECKPOINT_MISSING"
    CHECKPOINT_UNWITNESSED = "CHECKPOINT_UNWITNESSED"
    ROOT_MISMATCH = "ROOT_MISMATCH"
    LOG_SHORTENED = "LOG_SHORTENED"
    INCLUSION_UNPROVEN = "INCLUSION_UNPROVEN"
    CONSISTENCY_UNPROVEN = "CONSISTENCY_UNPROVEN"
    RECEIPT_UNRELATED = "RECEIPT_UNRELATED"
    PACKAGE_ALTERED = "PACKAGE_ALTERED"
    PACKAGE_INCOMPLETE = "PACKAGE_INCOMPLETE"


_RESTORE: Final = "restore the row from a backup or replica, and find out who wrote to the database"
_REBUILD: Final = "the signed entries are not touched; rebuild this from them"

REMEDIES: Final = {
    ProblemCode.ENTRY_MISSING: "an entry was removed; " + _RESTORE,
    ProblemCode.ENTRY_INSERTED: "an entry that was never signed was put in; " + _RESTORE,
    ProblemCode.ENTRY_MOVED: "entries were reordered; " + _RESTORE,
    ProblemCode.ENTRY_DUPLICATED: "an entry was copied over another; " + _RESTORE,
    ProblemCode.ENTRY_REPLACED: "an entry was rewritten together with its hash; " + _RESTORE,
    ProblemCode.ENTRY_UNSIGNED: "entries stand beyond the last checkpoint; " + _RESTORE,
    ProblemCode.ENTRY_HASH_ALTERED: "the stored hash is not the entry's; " + _RESTORE,
    ProblemCode.PAYLOAD_ALTERED: "the record was rewritten; " + _RESTORE,
    ProblemCode.PAYLOAD_MALFORMED: "it was signed as it is, but is no record of this version; use a matching release",
    ProblemCode.PROJECTION_ALTERED: "queries would answer wrongly; " + _REBUILD,
    ProblemCode.COUNTER_ALTERED: "an asset's entries are not numbered without gaps; " + _REBUILD,
    ProblemCode.ERASED_WITHOUT_RECORD: "a payload is gone and no audit.erased record names it; " + _RESTORE,
    ProblemCode.TILE_ALTERED: "published tiles would be refused; " + _REBUILD,
    ProblemCode.TILE_MISSING: "ask whoever publishes the log for it; the log's operator can publish it again",
    ProblemCode.STATE_ALTERED: "the sequencer will refuse to sign; " + _REBUILD,
    ProblemCode.CHECKPOINT_ALTERED: "the checkpoint is not what the log's key signed; check the key, then " + _RESTORE,
    ProblemCode.CHECKPOINT_MISSING: "nothing signed is there to compare with; " + _RESTORE,
    ProblemCode.CHECKPOINT_UNWITNESSED: "who reads this may be shown another history than others; ask the witnesses",
    ProblemCode.ROOT_MISMATCH: "an entry of this range was rewritten with everything above it; " + _RESTORE,
    ProblemCode.LOG_SHORTENED: "the log once promised more entries than it holds; ask its operator for them",
    ProblemCode.INCLUSION_UNPROVEN: "the entry is not under the checkpoint; ask the log for a new proof",
    ProblemCode.CONSISTENCY_UNPROVEN: "the log may show different histories to different people; compare checkpoints",
    ProblemCode.RECEIPT_UNRELATED: "the receipt promises another entry; look for the entry whose hash it names",
    ProblemCode.PACKAGE_ALTERED: "a file is not what the log's key signed; check the key, then get the package again",
    ProblemCode.PACKAGE_INCOMPLETE: "its maker left something out, or keeps quiet about a gap; ask for another package",
}
"""What to do about each kind of problem."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One violated rule: found `actual` where `expected` was asked for.

    Attributes:
        code: which rule.
        index: index of the entry, or the first index that can be to blame; None where no entry is.
        field: what was compared.
        expected, actual: the two values, in words or hexadecimal.
    """

    code: ProblemCode
    index: int | None
    field: str
    expected: str
    actual: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return REMEDIES[self.code]

    def __str__(self) -> str:
        where = "" if self.index is None else f"entry {self.index}: "
        return f"{where}{self.code}: {self.field} is {self.actual}, expected {self.expected} ({self.remedy})"

    def to_json(self) -> dict[str, str | int | None]:
        """The problem as ``--json`` shows it."""
        return {
            "code": self.code.value,
            "index": self.index,
            "field": self.field,
            "expected": self.expected,
            "actual": self.actual,
            "remedy": self.remedy,
        }
