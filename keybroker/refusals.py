"""How many refusals of callers who proved no enrolled node get a record of their own.

Anybody with a node's transport certificate can send evidence that proves nothing. Such refusals are recorded one by one
up to a limit per minute; past it they are counted, and the counts recorded once a minute, so that the log cannot be
flooded and still says what happened.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from audit.records import Actor, Kind, Record, Result
from keybroker.principals import Principal

_MINUTE = 60
_MAX_DISTINCT = 256


@dataclass(frozen=True, slots=True, order=True)
class RefusalGroup:
    """Refusals that are counted together."""

    kind: str
    caller: str
    role: str
    codes: tuple[str, ...]


BROKER_ACTOR = Actor(role="broker", name="broker")
"""Who acts where nobody asked: expiries, aggregates."""

_OVERFLOW = RefusalGroup("*", "*", "*", ("MANY_DIFFERENT",))


class RefusalLimiter:
    """Admits so many records a minute and counts the rest. Safe to share between threads."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._minute = -1
        self._admitted = 0
        self._counts: Counter[RefusalGroup] = Counter()

    def admit(self, kind: Kind, *, caller: Principal, codes: Sequence[str], now: int) -> bool:
        """May this refusal have a record of its own? If not, it is counted."""
        with self._lock:
            if now // _MINUTE != self._minute:
                self._minute, self._admitted = now // _MINUTE, 0
            if self._admitted < self._per_minute:
                self._admitted += 1
                return True
            group = RefusalGroup(kind.value, caller.key, caller.role.value, tuple(codes))
            if group not in self._counts and len(self._counts) >= _MAX_DISTINCT:
                group = _OVERFLOW
            self._counts[group] += 1
            return False

    def drain(self) -> list[tuple[RefusalGroup, int]]:
        """What was counted since the last call; the caller records it."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return sorted(counts.items())

    def restore(self, counted: Sequence[tuple[RefusalGroup, int]]) -> None:
        """Put back what `drain` returned and could not be recorded."""
        with self._lock:
            for group, count in counted:
                self._counts[group] += count


def aggregate_record(group: RefusalGroup, count: int, *, now: int) -> Record:
    """The record for `count` refusals that got none of their own."""
    return Record.build(
        kind=Kind.REQUESTS_REFUSED,
        time=now,
        actor=BROKER_ACTOR,
        result=Result.DENIED,
        reasons=group.codes,
        detail={"of": group.kind, "caller": group.caller, "count": count},
    )
