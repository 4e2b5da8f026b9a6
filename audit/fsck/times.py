"""The times that the log's blocks are said to lie between: an entry outside them would be missing from answers."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from audit.fsck.findings import Findings
from audit.problems import ProblemCode
from audit.tables import AUDIT_TIME_BLOCK
from audit.times import BLOCK


class TimeBlocks:
    """Holds entries against their blocks while they are read in the order of the log."""

    __slots__ = ("_block", "_connection", "_findings", "_span", "_told")

    def __init__(self, connection: Connection, findings: Findings) -> None:
        self._connection: Final = connection
        self._findings: Final = findings
        self._block = -1
        self._span: tuple[int, int] | None = None
        self._told = False

    def follow(self, index: int, time: int | None) -> None:
        """Check the entry at `index`, whose time is None once it is erased; a block is reported once."""
        if time is None:
            return
        if index // BLOCK != self._block:
            self._block, self._told = index // BLOCK, False
            block = AUDIT_TIME_BLOCK.c
            row = self._connection.execute(
                select(block.earliest, block.latest).where(block.block == self._block)
            ).one_or_none()
            self._span = None if row is None else (row.earliest, row.latest)
        if self._told or (self._span is not None and self._span[0] <= time <= self._span[1]):
            return
        self._told = True
        actual = "no such block" if self._span is None else f"{self._span[0]} to {self._span[1]}"
        self._findings.report(
            ProblemCode.PROJECTION_ALTERED, index, "times of its block", expected=f"with {time}", actual=actual
        )
