"""Erased payloads against the ``audit.erased`` records that name them."""

from __future__ import annotations

import hashlib

from audit.erasure import ErasedKey, erased_keys
from audit.fsck.findings import Findings
from audit.fsck.indexes import IndexSet
from audit.log import ERASED_INDEXES
from audit.problems import ProblemCode
from audit.records import Kind, Record
from keystead.binding import u64


class _UnderKey:
    """The erased entries under one key, in the order of the log: how many, their digest, the first and the last."""

    __slots__ = ("count", "digest", "first", "last")

    def __init__(self, first: int) -> None:
        self.first = self.last = first
        self.count = 0
        self.digest = hashlib.sha256()

    def add(self, index: int) -> None:
        self.last = index
        self.count += 1
        self.digest.update(u64(index))

    def __str__(self) -> str:
        return f"{self.count} entries between {self.first} and {self.last}, digest {self.digest.hexdigest()}"


class Erasures:
    """Which entries are erased, and which may be.

    Attributes:
        erased: indexes of the entries that were read and have no payload that anybody can read.
        sealed: how many payloads could not be read for want of keys; erasures are not judged then, for their records
            are among these.
    """

    __slots__ = ("_loose", "_named", "_recorded", "_under", "erased", "sealed")

    def __init__(self) -> None:
        self.erased = IndexSet()
        self.sealed = 0
        self._loose = IndexSet()
        self._named = IndexSet()
        self._under: dict[str, _UnderKey] = {}
        self._recorded: dict[str, ErasedKey] = {}

    def add(self, index: int, key_id: str | None) -> None:
        """Take note of an erased entry, in the order of the log; `key_id` is the key that its row names, if any."""
        self.erased.add(index)
        if key_id is None:
            self._loose.add(index)
        else:
            self._under.setdefault(key_id, _UnderKey(index)).add(index)

    def note(self, record: Record, size: int) -> None:
        """Take note of the entries under `size` that an ``audit.erased`` record names; other kinds say nothing."""
        if record.kind is not Kind.AUDIT_ERASED:
            return
        listed = record.detail.get(ERASED_INDEXES)
        for text in listed if isinstance(listed, tuple) else ():
            # Only entries of the log can be erased, so a wild number takes no memory.
            if text.isascii() and text.isdigit() and len(text) < 20 and int(text) < size:
                self._named.add(int(text))
        for key in erased_keys(record):
            self._recorded.setdefault(key.id, key)  # a key is destroyed once: what is said again later counts nothing

    def judge(self, findings: Findings) -> None:
        """Every erased entry must be named by an ``audit.erased`` record, sequenced or waiting.

        By its index, or by its key; then all that is erased under that key must be what the record says there was.
        """
        if self.sealed:
            return
        for index in self._loose:
            if index not in self._named:
                findings.report(
                    ProblemCode.ERASED_WITHOUT_RECORD,
                    index,
                    "payload",
                    expected="there, or erased on record",
                    actual="gone",
                )
        for key_id, under in self._under.items():
            recorded = self._recorded.get(key_id)
            if recorded is None:
                expected = "there, or erased on record"
            elif (under.count, under.digest.digest()) == (recorded.count, recorded.digest):
                continue
            else:
                expected = f"{recorded.count} entries, digest {recorded.digest.hex()}, as is on record"
            findings.report(
                ProblemCode.ERASED_WITHOUT_RECORD,
                under.first,
                f"payloads under key {key_id}",
                expected=expected,
                actual=f"gone: {under}",
            )
