"""Gaps: what an evidence package does not show, found and said rather than passed over.

Some gaps can be read off the records alone. `GapFinder` finds these, when a package is built and again when it is
verified, so that a package that keeps quiet about one is refused.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from audit.errors import MalformedError
from audit.package.manifest import Scope
from audit.records import MAX_INTEGER

MAX_LISTED: Final = 1_000
"""Items of one kind of gap that are listed; how many there are is always said."""

CLOCK_TOLERANCE: Final = 60
"""Seconds by which clocks of replicas, and moments between two commits, may lie apart without being a gap."""

MAX_NOTE: Final = 400


class GapCode(StrEnum):
    """Every kind of gap."""

    ERASED = "ERASED"
    ERASED_UNRECORDED = "ERASED_UNRECORDED"
    ERASED_OWNER_UNKNOWN = "ERASED_OWNER_UNKNOWN"
    SEALED = "SEALED"
    COUNTER_MISSING = "COUNTER_MISSING"
    TIME_OUTSIDE = "TIME_OUTSIDE"
    CLOCK_BACK = "CLOCK_BACK"
    CLOCK_AHEAD = "CLOCK_AHEAD"
    NOT_COVERED = "NOT_COVERED"
    SPAN_OPEN = "SPAN_OPEN"
    NO_EARLIER_CHECKPOINT = "NO_EARLIER_CHECKPOINT"
    NO_WITNESS = "NO_WITNESS"
    WITNESS_SILENT = "WITNESS_SILENT"
    QUORUM_MISSED = "QUORUM_MISSED"


MEANING: Final = {
    GapCode.ERASED: "The record was erased, and the erasure is itself a record. That an entry stands here is proven; "
    "what it said is gone.",
    GapCode.ERASED_UNRECORDED: "The record is gone and no record says who erased it. Ask the operator.",
    GapCode.ERASED_OWNER_UNKNOWN: "Entries of the span were erased, and the log cannot tell any more whether they "
    "belonged into this package.",
    GapCode.SEALED: "The record is there, but whoever built this package had no key to read it.",
    GapCode.COUNTER_MISSING: "The log numbers the entries of an asset one by one. The entry of this number is not "
    "here: it was erased, or belongs to another tenant.",
    GapCode.TIME_OUTSIDE: "The record stands inside the span of the log, but its time lies outside of what was asked "
    "for.",
    GapCode.CLOCK_BACK: "The record is dated earlier than the one before it: it was back-dated, or a clock was set "
    "back.",
    GapCode.CLOCK_AHEAD: "The record is dated later than the checkpoint that covers it was signed: a clock was ahead.",
    GapCode.NOT_COVERED: "Entries exist that the checkpoint of this package does not cover yet. They are not shown.",
    GapCode.SPAN_OPEN: "More was asked for than had happened when the checkpoint was signed.",
    GapCode.NO_EARLIER_CHECKPOINT: "No checkpoint from before the span is here, so nothing shows that the log only "
    "grew since then.",
    GapCode.NO_WITNESS: "Nobody but the log's operator vouches that everybody is shown this history.",
    GapCode.WITNESS_SILENT: "A witness that the log names did not cosign this checkpoint.",
    GapCode.QUORUM_MISSED: "Fewer witnesses cosigned than the log's own rules ask for.",
}
"""What each kind of gap means, in words for people."""

FOUND_IN_RECORDS: Final = (
    GapCode.SEALED,
    GapCode.COUNTER_MISSING,
    GapCode.TIME_OUTSIDE,
    GapCode.CLOCK_BACK,
    GapCode.CLOCK_AHEAD,
)
"""Kinds that follow from the records, one for one; erased entries are of two kinds, which together do."""

ERASURES: Final = (GapCode.ERASED, GapCode.ERASED_UNRECORDED)


@dataclass(frozen=True, slots=True)
class Item:
    """One gap.

    Attributes:
        number: index of the entry (for COUNTER_MISSING the number among the asset's entries); None where none is.
        note: what is known about it; may be empty.
    """

    number: int | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """All gaps of one kind.

    Attributes:
        code: the kind.
        count: how many there are.
        items: the first `MAX_LISTED` of them.
    """

    code: GapCode
    count: int
    items: tuple[Item, ...]

    def to_json(self) -> dict[str, Any]:
        """As ``package.json`` has it."""
        return {
            "code": self.code.value,
            "count": self.count,
            "items": [{"note": item.note, "number": item.number} for item in self.items],
        }

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read `to_json`'s value.

        Raises:
            MalformedError: it is none.
        """
        if not isinstance(value, dict) or value.keys() != {"code", "count", "items"}:
            raise MalformedError("package gap", "not an object of code, count and items")
        count, items = value["count"], value["items"]
        if not _number(count) or count == 0 or not isinstance(items, list) or len(items) != min(count, MAX_LISTED):
            raise MalformedError("package gap", f"it does not list the first {MAX_LISTED} of all that there are")
        for item in items:
            if not isinstance(item, dict) or item.keys() != {"note", "number"}:
                raise MalformedError("package gap", "an item is not an object of note and number")
            number, note = item["number"], item["note"]
            if not (number is None or _number(number)) or not isinstance(note, str) or len(note) > MAX_NOTE:
                raise MalformedError("package gap", "an item's number or note is none")
        try:
            code = GapCode(value["code"])
        except (ValueError, TypeError):
            raise MalformedError("package gap", "a kind that this release does not know") from None
        return cls(code, count, tuple(Item(item["number"], item["note"]) for item in items))


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER


@dataclass(slots=True)
class Gaps:
    """Collects gaps, in bounded memory."""

    _counts: dict[GapCode, int] = field(default_factory=dict)
    _items: dict[GapCode, list[Item]] = field(default_factory=dict)

    def add(self, code: GapCode, number: int | None = None, note: str = "") -> None:
        """Add one gap; `number` and `note` as `Item` has them."""
        self._counts[code] = self._counts.get(code, 0) + 1
        items = self._items.setdefault(code, [])
        if len(items) < MAX_LISTED:
            items.append(Item(number, note[:MAX_NOTE]))

    def add_range(self, code: GapCode, numbers: range) -> None:
        """Add one gap for each of `numbers`, however many they are."""
        for number in numbers[:MAX_LISTED]:
            self.add(code, number)
        self._counts[code] = self._counts.get(code, 0) + len(numbers[MAX_LISTED:])

    def found(self) -> tuple[Gap, ...]:
        """Everything, by kind."""
        return tuple(
            Gap(code, self._counts[code], tuple(self._items[code])) for code in GapCode if code in self._counts
        )


@dataclass(slots=True)
class GapFinder:
    """Finds the gaps that show in the records; feed it every entry, in order.

    Attributes:
        scope: what the package was asked for.
        signed_at: when the checkpoint was signed, as the log wrote it down.
        counters: which numbers of the asset's entries belong into the span: behind the first, before the second.
    """

    scope: Scope
    signed_at: int
    counters: tuple[int, int] | None
    gaps: Gaps = field(default_factory=Gaps)
    _before: tuple[int, int] | None = None
    _counter: int | None = None

    def add(self, *, index: int, time: int | None, sealed: bool, counters: tuple[int, ...], erased: str = "") -> None:
        """Look at one entry.

        Args:
            index: its place in the log.
            time: its record's time; None where the record cannot be read.
            sealed: it is not erased but could not be read.
            counters: its numbers among the asset's entries.
            erased: which record says that it was erased, in words; empty where none is known.
        """
        for counter in counters:
            self._count_to(counter)
            self._counter = counter
        if sealed:
            self.gaps.add(GapCode.SEALED, index)
        elif time is None:
            code = GapCode.ERASED if erased else GapCode.ERASED_UNRECORDED
            self.gaps.add(code, index, erased or "no audit.erased record names it")
        if time is None:
            return
        if not self.scope.covers(time):
            self.gaps.add(GapCode.TIME_OUTSIDE, index, f"dated {instant(time)}")
        if time > self.signed_at + CLOCK_TOLERANCE:
            self.gaps.add(GapCode.CLOCK_AHEAD, index, f"dated {time - self.signed_at} seconds after it was signed")
        if self._before is not None and time < self._before[1] - CLOCK_TOLERANCE:
            behind = self._before[1] - time
            self.gaps.add(GapCode.CLOCK_BACK, index, f"dated {behind} seconds before entry {self._before[0]}")
        self._before = (index, time)

    def finish(self) -> Gaps:
        """What was found, once every entry was looked at."""
        if self.counters is not None:
            self._count_to(self.counters[1])
        return self.gaps

    def _count_to(self, counter: int) -> None:
        """Every number between the last one and `counter` is missing."""
        if self.counters is None:
            return
        last = self.counters[0] if self._counter is None else self._counter
        if last + 1 < counter:
            self.gaps.add_range(GapCode.COUNTER_MISSING, range(last + 1, counter))


def instant(time: int) -> str:
    """A time of the log for people: UTC where it is one that a calendar has, the bare seconds elsewhere."""
    try:
        return dt.datetime.fromtimestamp(time, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{time} seconds since 1970"
