"""Measures alternatives in turns within one process, so that they all see the same machine.

A shared machine is noisy and its absolute figures say little. Each round runs every candidate once, in an order that
rotates, and times it in CPU seconds of this process; what is reported is the median over rounds, and ratios are taken
round by round before their median is.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ROUNDS = 15
TARGET_SECONDS = 0.02
"""How long one candidate runs in one round: long enough for the clock, too short for the machine to change much."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one candidate cost.

    Attributes:
        name: the candidate.
        seconds: CPU seconds for one call, by round.
    """

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median CPU seconds for one call."""
        return statistics.median(self.seconds)

    @property
    def per_second(self) -> float:
        """Calls for each CPU second."""
        return 1 / self.median

    def ratio_to(self, other: Timing) -> float:
        """How many times faster than `other` this is: the median over rounds of other's time over this one's."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.seconds, other.seconds, strict=True))


def interleave(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = ROUNDS, target_seconds: float = TARGET_SECONDS
) -> dict[str, Timing]:
    """Time each candidate for `rounds` rounds of about `target_seconds` each.

    Args:
        candidates: what to call, by name; each is called once beforehand and raises if it does not work.
        rounds: how often each is timed.
        target_seconds: CPU seconds for one candidate in one round.
    """
    calls = {name: _calls_for(call, target_seconds) for name, call in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    enabled = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                seconds[name].append(_time(candidates[name], calls[name]))
            gc.collect()
    finally:
        if enabled:
            gc.enable()
    return {name: Timing(name, tuple(values)) for name, values in seconds.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a timing, what it is compared with, and the floor that was promised, if one was."""

    timing: Timing
    baseline: Timing | None = None
    floor: float | None = None


def table(title: str, rows: Sequence[Row]) -> str:
    """The rows as text, for people."""
    lines = [title, f"  {'':46} {'µs':>9} {'per CPU s':>11} {'ratio':>7}  of"]
    for row in rows:
        line = f"  {row.timing.name:46} {row.timing.median * 1e6:9.1f} {row.timing.per_second:11,.0f}"
        if row.baseline is not None:
            ratio = row.timing.ratio_to(row.baseline)
            line += f" {ratio:7.2f}  {row.baseline.name}"
            if row.floor is not None:
                line += f" (at least {row.floor:.2f}: {'yes' if ratio >= row.floor else 'NO'})"
        lines.append(line)
    return "\n".join(lines)


def _time(call: Callable[[], object], calls: int) -> float:
    """CPU seconds for one of `calls` calls in a row."""
    started = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - started) / calls


def _calls_for(call: Callable[[], object], target_seconds: float) -> int:
    """How many calls take about `target_seconds`."""
    call()
    calls = 1
    while (spent := _time(call, calls) * calls) < target_seconds / 4:
        calls *= 4
    return max(1, round(calls * target_seconds / max(spent, 1e-9)))
