"""Erased payloads against the ``audit.erased`` records that name them."""

from __future__ import annotations

from audit.fsck.findings import Findings
from audit.fsck.indexes import IndexSet
from audit.log import ERASED_INDEXES
from audit.problems import ProblemCode
from audit.records import Kind, Record


class Erasures:
    """Which entries are erased, and which may be.

    Attributes:
        erased: indexes of the entries that were read and have no payload.
    """

    __slots__ = ("_named", "erased")

    def __init__(self) -> None:
        self.erased = IndexSet()
        self._named = IndexSet()

    def note(self, record: Record, size: int) -> None:
        """Take note of the entries under `size` that an ``audit.erased`` record names; other kinds say nothing."""
        if record.kind is not Kind.AUDIT_ERASED:
            return
        listed = record.detail.get(ERASED_INDEXES)
        for text in listed if isinstance(listed, tuple) else ():
            # Only entries of the log can be erased, so a wild number takes no memory.
            if text.isascii() and text.isdigit() and len(text) < 20 and int(text) < size:
                self._named.add(int(text))

    def judge(self, findings: Findings) -> None:
        """Every erased entry must be named by an ``audit.erased`` record, sequenced or waiting."""
        for index in self.erased:
            if index not in self._named:
                findings.report(
                    ProblemCode.ERASED_WITHOUT_RECORD,
                    index,
                    "payload",
                    expected="there, or erased on record",
                    actual="gone",
                )
