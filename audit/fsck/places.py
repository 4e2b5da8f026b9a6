"""Which entries are not what their tile says, and what happened to them: moved, missing, put in, copied, replaced."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, func, select

from audit.fsck.findings import Findings
from audit.problems import ProblemCode
from audit.tables import AUDIT_ENTRY

MAX_DIFFERING: Final = 100_000
"""Entries that are held in memory to find out where they belong; beyond it they are only counted."""


class Places:
    """Collects the places at which rows and tiles name different entries.

    Attributes:
        whole: no place was without a row.
    """

    __slots__ = ("_connection", "_differing", "_findings", "_unsigned", "whole")

    def __init__(self, connection: Connection, findings: Findings) -> None:
        self._connection = connection
        self._findings = findings
        self._differing: dict[int, tuple[bytes | None, bytes | None]] = {}
        self._unsigned: dict[int, bytes] = {}
        self.whole = True

    def differs(self, index: int, ours: bytes | None, theirs: bytes | None) -> None:
        """At `index` stands `ours` by the rows and `theirs` by the tiles; None where nothing does."""
        self.whole = self.whole and ours is not None
        if len(self._differing) < MAX_DIFFERING:
            self._differing[index] = (ours, theirs)
        else:
            self._findings.count_one_more()

    def unsigned(self, index: int, entry_hash: bytes, size: int) -> None:
        """An entry stands at `index`, beyond the `size` entries that were signed."""
        if len(self._unsigned) >= MAX_DIFFERING:
            self._findings.count_one_more()
            return
        self._unsigned[index] = entry_hash
        expected = f"no index beyond the {size} entries that were signed"
        self._findings.report(ProblemCode.ENTRY_UNSIGNED, index, "entry", expected=expected, actual=entry_hash)

    def judge(self) -> None:
        """Name what happened to each entry that is not what its tile says; call it unless the tiles are to blame."""
        ours_at = {entry_hash: index for index, entry_hash in self._unsigned.items()}
        ours_at |= {ours: index for index, (ours, _) in self._differing.items() if ours is not None}
        theirs_at = {theirs: index for index, (_, theirs) in self._differing.items() if theirs is not None}
        report = self._findings.report
        for index, (ours, theirs) in self._differing.items():
            if theirs is None:
                if ours is None:
                    report(ProblemCode.ENTRY_MISSING, index, "entry", expected="one", actual="none")
                continue  # a hole in the tiles is reported with the tiles, a wrong entry by the root
            if theirs in ours_at and (ours is None or ours in theirs_at):
                actual = f"{'none' if ours is None else ours.hex()}; this one stands at {ours_at[theirs]}"
                report(ProblemCode.ENTRY_MOVED, index, "entry", expected=theirs, actual=actual)
            elif theirs in ours_at and ours is not None:
                actual = f"{ours.hex()}; this one stands at {ours_at[theirs]}"
                report(ProblemCode.ENTRY_INSERTED, index, "entry", expected=theirs, actual=actual)
            elif ours is None:
                report(ProblemCode.ENTRY_MISSING, index, "entry", expected=theirs, actual="none")
            elif ours in theirs_at:
                actual = f"{ours.hex()}, which belongs to {theirs_at[ours]}"
                report(ProblemCode.ENTRY_MISSING, index, "entry", expected=theirs, actual=actual)
            else:
                report(self._copied_or_replaced(index, ours), index, "entry", expected=theirs, actual=ours)

    def _copied_or_replaced(self, index: int, ours: bytes) -> ProblemCode:
        elsewhere = (
            select(func.count())
            .select_from(AUDIT_ENTRY)
            .where(AUDIT_ENTRY.c.leaf_hash == ours, AUDIT_ENTRY.c.leaf_index != index)
        )
        copied = self._connection.execute(elsewhere).scalar_one()
        return ProblemCode.ENTRY_DUPLICATED if copied else ProblemCode.ENTRY_REPLACED
