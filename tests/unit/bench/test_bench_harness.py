"""The measuring harness: medians, ratios round by round, promises in the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.harness import Row, Timing, interleave, table

ROOT = Path(__file__).resolve().parents[3]


def test_ratio_is_taken_round_by_round() -> None:
    """The machine became ten times slower in the last round; the ratio does not notice."""
    ours, theirs = Timing("ours", (1.0, 1.0, 10.0)), Timing("theirs", (2.0, 2.0, 20.0))
    assert ours.median == 1.0
    assert ours.ratio_to(theirs) == 2.0
    assert theirs.ratio_to(ours) == 0.5
    assert Timing("x", (0.5,)).per_second == 2.0


def test_every_candidate_runs_in_every_round() -> None:
    calls = {"short": 0, "long": 0}

    def short() -> None:
        calls["short"] += 1

    def long() -> None:
        calls["long"] += 1
        sum(range(20_000))

    timings = interleave({"short": short, "long": long}, rounds=3, target_seconds=0.002)
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"short": 3, "long": 3}
    assert calls["short"] > calls["long"] >= 3
    assert timings["short"].median < timings["long"].median


def test_a_candidate_that_fails_is_not_measured() -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        interleave({"broken": broken})


def test_table_says_whether_a_promise_is_kept() -> None:
    base = Timing("bare", (1e-6,))
    text = table(
        "Title", [Row(base), Row(Timing("fast", (1e-6,)), base, 0.85), Row(Timing("slow", (2e-6,)), base, 0.85)]
    )
    assert "at least 0.85: yes" in text.splitlines()[3]
    assert "at least 0.85: NO" in text.splitlines()[4]


def test_unknown_measurements_are_wrong_use() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nonsense"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no measurement called nonsense" in done.stderr
