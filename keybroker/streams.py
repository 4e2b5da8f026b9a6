"""Streams of records: all that fits, then each new record as it comes, resumable where it ended.

One stream is two records of its own reading, however long it runs: one before anything is handed out, and one at its
end that says how many records were. So a stream that follows the whole log does not feed itself.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from audit import query
from audit.errors import QueryError
from keybroker import reads
from keybroker.broker import Broker
from keybroker.errors import StreamsTakenError
from keybroker.principals import Principal

STREAMS: Final = 8
"""Streams that one broker hands out at once; each has a thread of its own and takes none from other calls."""

STREAMS_OF_TENANT: Final = 4
"""How many of them one tenant may have."""

MAX_RECORDS: Final = 100_000
"""Records of one stream; its reader goes on with the last cursor."""

MAX_SECONDS: Final = 900.0
"""Seconds that one stream may last: an auditor's certificate that was revoked meanwhile ends with it."""

POLL: Final = 0.5
"""Seconds between two looks for new records; the sequencer looks about as often for what to place."""

KEEPALIVE: Final = 15.0
"""Seconds of silence after which a stream says that it lives."""

PAGE: Final = 200
"""Records that are read at once, and so held in memory by one stream."""


class Seats:
    """Counts streams, so that auditors leave one another room."""

    def __init__(self, total: int = STREAMS, of_tenant: int = STREAMS_OF_TENANT) -> None:
        self._total = total
        self._of_tenant = of_tenant
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, tenant: str | None) -> None:
        """Take a seat; `leave` gives it back.

        Raises:
            StreamsTakenError: there is none.
        """
        name = tenant or ""
        with self._lock:
            if self._taken.total() >= self._total or (tenant is not None and self._taken[name] >= self._of_tenant):
                raise StreamsTakenError("stream: as many as may be are open; close one, or ask page by page")
            self._taken[name] += 1

    def leave(self, tenant: str | None) -> None:
        """Give a seat back."""
        with self._lock:
            self._taken[tenant or ""] -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a stream is to hand out.

    Attributes:
        wanted: which records.
        cursor: where to go on, or nothing.
        newest: begin with the last so many; 0 begins at the front or at the cursor.
        follow: go on with new records.
    """

    wanted: query.Filter
    cursor: str = ""
    newest: int = 0
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records of a stream; none say that the stream is alive.

    Attributes:
        entries: in the order of the log.
        cursor: where to go on behind them.
        complete: nothing more fits, and the stream does not follow.
    """

    entries: tuple[query.Entry, ...]
    cursor: str
    complete: bool = False

    def cursor_behind(self, index: int) -> str:
        """Where to go on behind one of its entries, were the rest to be lost."""
        return f"{index}.{self.cursor.rpartition('.')[2]}"


def stream(
    broker: Broker, seats: Seats, *, caller: Principal, asked: Asked, stop: Callable[[float], bool]
) -> Iterator[Batch]:
    """Hand out records; a tenant's auditor sees the tenant's only.

    Everything happens while it is iterated over: a stream that nobody reads takes no seat and leaves no record.

    Args:
        broker: the running broker.
        seats: the broker's streams.
        caller: an auditor.
        asked: what is to be handed out.
        stop: waits so many seconds, or until nobody reads any more; whether nobody does.

    Raises:
        QueryError: a filter, cursor or number that cannot be used.
        RoleError: a tenant's auditor asks for another tenant.
        StreamsTakenError: too many streams are open.
    """
    wanted = reads.visible(caller, asked.wanted)
    if asked.newest and asked.cursor:
        raise QueryError("stream: either the newest records or a place to go on, not both")
    seats.take(caller.tenant)
    try:
        with broker.read() as connection:
            tip = query.tip(connection)
            if asked.newest:
                page = query.newest(connection, wanted, limit=asked.newest)
            else:
                page = reads.page_for(connection, caller, wanted, limit=PAGE, cursor=asked.cursor)
        first = _Look(page, tip)
        detail = reads.asked_for(wanted) | {"stream": "follow" if asked.follow else "all"}
        began = reads.remember(broker, caller=caller, detail=detail)
        handed_out = 0
        try:
            for batch in _batches(broker, caller, wanted, first, asked=asked, stop=stop):
                handed_out += len(batch.entries)
                yield batch
                if handed_out >= MAX_RECORDS:
                    return
        finally:
            # Also where the reader went away: grpc drops the iterator, in the thread that ran it.
            detail = {"stream": "ended", "records": handed_out, "began_hash": began.hex()}
            reads.remember(broker, caller=caller, detail=detail)
    finally:
        seats.leave(caller.tenant)


@dataclass(frozen=True, slots=True)
class _Look:
    """A page, and the index up to which the log was there when it was read, at least; None where it was empty."""

    page: query.Page
    tip: int | None

    def cursor(self, wanted: query.Filter, before: str) -> str:
        """Where to go on, after what went on at `before`: behind all that was looked at, whether it fitted or not."""
        if self.page.next_cursor:
            return self.page.next_cursor
        seen = [entry.index for entry in self.page.entries[-1:]]
        seen += [] if self.tip is None else [self.tip]
        seen += [int(before.partition(".")[0])] if before else []
        return query.cursor_after(wanted, max(seen)) if seen else ""


def _batches(
    broker: Broker,
    caller: Principal,
    wanted: query.Filter,
    look: _Look,
    *,
    asked: Asked,
    stop: Callable[[float], bool],
) -> Iterator[Batch]:
    cursor = asked.cursor
    spoke = time.monotonic()
    until = spoke + MAX_SECONDS
    while True:
        page, cursor = look.page, look.cursor(wanted, cursor)
        more = bool(page.next_cursor)
        complete = not more and not asked.follow
        if page.entries or complete or time.monotonic() - spoke >= KEEPALIVE:
            spoke = time.monotonic()
            yield Batch(page.entries, cursor, complete)
        if complete or time.monotonic() >= until or stop(0.0 if more else POLL):
            return
        with broker.read() as connection:
            tip = query.tip(connection)
            look = _Look(reads.page_for(connection, caller, wanted, limit=PAGE, cursor=cursor), tip)
