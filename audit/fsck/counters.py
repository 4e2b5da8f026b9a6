"""The numbers that each asset's entries carry: 1, 2, 3 … in the order of the log, and the asset's total."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, func, select

from audit.fsck.findings import Findings
from audit.problems import ProblemCode
from audit.tables import AUDIT_ASSET_COUNTER, AUDIT_ENTRY, AUDIT_ENTRY_ASSET

MAX_ASSETS: Final = 32_768
"""Assets whose last number is remembered; the database is asked for that of any other."""

_STREAM: Final = 1024


class Counters:
    """Follows each asset's numbers while entries are read in the order of the log."""

    __slots__ = ("_connection", "_findings", "_forgotten", "_last", "_limit")

    def __init__(self, connection: Connection, findings: Findings, *, limit: int = MAX_ASSETS) -> None:
        self._connection = connection
        self._findings = findings
        self._limit = limit
        self._last: dict[str, int] = {}  # least recently seen first
        self._forgotten = False

    def follow(self, index: int, assets: Mapping[tuple[str, int], int | None], *, gaps: bool) -> None:
        """Check the numbers of the entry at `index`, by asset and version.

        Where an entry before it is erased there may be `gaps`: it took its numbers with it, so that those behind it
        may skip some, but never go back.
        """
        for (asset, version), counter in sorted(assets.items()):
            last = self._last_of(asset, index, counter)
            if counter is None or counter <= last or (counter != last + 1 and not gaps):
                expected = f"{last + 1} or more" if gaps else str(last + 1)
                self._findings.report(
                    ProblemCode.COUNTER_ALTERED,
                    index,
                    f"counter of {asset}@{version}",
                    expected=expected,
                    actual=counter,
                )
            self._last[asset] = max(last, counter or 0)
            if len(self._last) > self._limit:
                self._forgotten = True
                for name in list(self._last)[: self._limit // 2]:
                    del self._last[name]

    def _last_of(self, asset: str, index: int, counter: int | None) -> int:
        """The asset's last number before the entry at `index`, which has `counter`."""
        last = self._last.pop(asset, None)
        if last is not None:
            return last
        if not self._forgotten:
            return 0
        named, entry = AUDIT_ENTRY_ASSET.c, AUDIT_ENTRY.c
        # Backwards by the index over (asset, counter): the first one is it, unless somebody altered the numbers.
        before = (
            select(named.counter)
            .join_from(AUDIT_ENTRY_ASSET, AUDIT_ENTRY, entry.id == named.entry_id)
            .where(named.asset == asset, named.counter.is_not(None), entry.leaf_index < index)
            .order_by(named.counter.desc())
            .limit(1)
        )
        if counter is not None:
            found: int | None = self._connection.execute(before.where(named.counter < counter)).scalar_one_or_none()
            return found or 0
        found = self._connection.execute(before).scalar_one_or_none()
        return found or 0

    def judge_totals(self, *, gaps: bool) -> None:
        """Compare each asset's total with the last number that its entries carry; erased ones took theirs along."""
        named, total = AUDIT_ENTRY_ASSET.c, AUDIT_ASSET_COUNTER.c
        last = func.max(named.counter)
        counted = (
            select(named.asset, last.label("last"), func.max(total.counter).label("total"))
            .join_from(AUDIT_ENTRY_ASSET, AUDIT_ASSET_COUNTER, total.asset == named.asset, isouter=True)
            .where(named.counter.is_not(None))
            .group_by(named.asset)
            .having((func.max(total.counter) != last) | func.max(total.counter).is_(None))
            .order_by(named.asset)
        )
        unnamed = (
            select(total.asset, total.counter.label("total"))
            .where(
                ~select(named.asset).where(named.asset == total.asset, named.counter.is_not(None)).exists(),
                total.counter != 0,
            )
            .order_by(total.asset)
        )
        with self._connection.execute(counted.execution_options(yield_per=_STREAM)) as wrong:
            for asset, last_number, counter in wrong:
                self._judge_total(asset, last_number, counter or 0, gaps=gaps)
        with self._connection.execute(unnamed.execution_options(yield_per=_STREAM)) as unused:
            for asset, counter in unused:
                self._judge_total(asset, 0, counter, gaps=gaps)

    def _judge_total(self, asset: str, last: int, total: int, *, gaps: bool) -> None:
        if total < last or (total != last and not gaps):
            self._findings.report(ProblemCode.COUNTER_ALTERED, None, f"total of {asset}", expected=last, actual=total)
