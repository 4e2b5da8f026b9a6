"""Bounded caches for work that depends on its key alone: verified chains, revocation lists, what devices state."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from attestation.findings import CheckLog, Finding, Passed

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Keeps the `capacity` entries that were used last; safe to share between threads.

    A hit is an exact match of the key, never of a digest that somebody else computed. Whatever depends on the time
    does not belong in here.
    """

    __slots__ = ("_capacity", "_entries", "_lock")

    def __init__(self, capacity: int) -> None:
        """Make an empty cache of at most `capacity` entries (at least one)."""
        self._capacity = max(capacity, 1)
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """What was put under `key`, or None."""
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Remember `value` under `key`; forget the entry that was used longest ago where there are too many."""
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            if len(self._entries) > self._capacity:
                self._entries.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Judgement(Generic[V]):
    """What a judgement returned, and what it recorded."""

    value: V
    passed: tuple[Passed, ...]
    findings: tuple[Finding, ...]


class JudgementCache(Generic[K, V]):
    """Judgements that depend on their key alone, with everything that they recorded; never more than `capacity`.

    A judgement that is made again records what it recorded the first time, findings as well as rules that held, so that
    nobody can tell from a result whether it was remembered. What makes that safe is the caller's duty: the key holds
    everything that the judgement reads (the evidence's own bytes, not digests of them), and the time is not among it.
    """

    __slots__ = ("_entries",)

    def __init__(self, capacity: int) -> None:
        """Remember at most `capacity` judgements (at least one)."""
        self._entries: LruCache[K, _Judgement[V]] = LruCache(capacity)

    def __len__(self) -> int:
        return len(self._entries)

    def judge(self, key: K, judgement: Callable[[CheckLog], V], *, log: CheckLog, keep: bool) -> V:
        """What `judgement` returns for `key`; what it records is recorded in `log`.

        Args:
            key: everything that the judgement reads.
            judgement: made where it is not remembered; what it raises is raised and not remembered.
            log: receives the outcome of every rule.
            keep: remember it. False for evidence of strangers, who must not push out what devices state.
        """
        known = self._entries.get(key)
        if known is None:
            own = CheckLog()
            value = judgement(own)
            known = _Judgement(value, tuple(own.passed), tuple(own.findings))
            if keep:
                self._entries.put(key, known)
        log.passed.extend(known.passed)
        log.findings.extend(known.findings)
        return known.value
