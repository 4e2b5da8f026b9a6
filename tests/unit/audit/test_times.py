"""Where a span of time lies: every entry of it is in a run, whatever clocks did, and a wrong clock costs a block."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, insert

from audit import times
from audit.log import append_many
from audit.records import Record
from audit.sequencer import Sequencer
from audit.tables import AUDIT_TIME_BLOCK, METADATA
from audit.times import EVERYTHING, Run, first_from, last_before, note_times, runs_in

NOW = 1_800_000_000
Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "BLOCK", 4)


def noted(connection: Connection, batches: Sequence[Sequence[int | None]]) -> None:
    start = 0
    for batch in batches:
        note_times(connection, start, batch)
        start += len(batch)


def test_runs_of_a_log_in_order(any_engine: Engine) -> None:
    with any_engine.begin() as connection:
        assert runs_in(connection, 5, None) == ()
        noted(connection, [[10, 11], [12, 13, 14], list(range(15, 25))])  # blocks 0 to 3, the last not full
        assert runs_in(connection, None, None) == EVERYTHING
        assert runs_in(connection, 14, 18) == (Run(4, 7),)
        assert runs_in(connection, 13, 15) == (Run(0, 7),)
        assert runs_in(connection, 18, None) == (Run(8, None),)
        assert runs_in(connection, None, 11) == (Run(0, 3),)
        assert runs_in(connection, 25, None) == ()
        assert runs_in(connection, None, 10) == ()
        # What comes into the newest block is part of a run that ends there.
        noted_later = [99]
        note_times(connection, 15, noted_later)
        assert runs_in(connection, 18, None) == (Run(8, None),)


def test_a_clock_that_jumped_costs_its_own_block(any_engine: Engine) -> None:
    with any_engine.begin() as connection:
        noted(connection, [[number if number != 9 else 5000 for number in range(40)]])
        assert runs_in(connection, 36, None) == (Run(8, 11), Run(36, None))
        assert runs_in(connection, 8, 10) == (Run(8, 11),)


def test_many_jumps_are_read_in_few_runs(any_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "MAX_RUNS", 3)
    jumped = {9, 17, 25, 60, 100}  # blocks 2, 4, 6, 15 and 25
    with any_engine.begin() as connection:
        noted(connection, [[5000 if number in jumped else number for number in range(120)]])
        assert runs_in(connection, 1000, None) == (Run(8, 27), Run(60, 63), Run(100, 103))


def test_erased_entries_have_no_time(any_engine: Engine) -> None:
    with any_engine.begin() as connection:
        noted(connection, [[None, None, None, None], [None, 7, None, 3], [None]])
        assert runs_in(connection, 0, None) == (Run(4, None),)
        assert runs_in(connection, 8, None) == ()


@settings(max_examples=60, deadline=None)
@given(
    stamps=st.lists(st.one_of(st.none(), st.integers(0, 60)), max_size=60),
    cuts=st.lists(st.integers(1, 9), min_size=60, max_size=60),
    start=st.one_of(st.none(), st.integers(0, 61)),
    end=st.one_of(st.none(), st.integers(0, 61)),
)
def test_no_entry_is_outside_the_runs(
    stamps: list[int | None], cuts: list[int], start: int | None, end: int | None
) -> None:
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    with engine.begin() as connection:
        rest = stamps
        batches = []
        for cut in cuts:
            batches.append(rest[:cut])
            rest = rest[cut:]
        noted(connection, batches)
        runs = runs_in(connection, start, end)
    for index, stamp in enumerate(stamps):
        if stamp is not None and (start is None or stamp >= start) and (end is None or stamp < end):
            assert any(run.first <= index and (run.last is None or index <= run.last) for run in runs), (index, runs)
    assert all(before.last is not None and before.last < after.first for before, after in pairwise(runs))


def test_the_ends_of_a_span_are_exact(any_engine: Engine, make_log: MakeLog, record: Build) -> None:
    draw = random.Random(5)
    stamps = [NOW + number * 10 + draw.choice((0,) * 9 + (70, -70)) for number in range(50)]
    sequencer = make_log(any_engine)
    with any_engine.begin() as connection:
        append_many(connection, [record(number, time=stamp) for number, stamp in enumerate(stamps)])
    sequencer.run_once(NOW)
    with any_engine.begin() as connection:
        for size in (0, 1, 21, 50):
            for instant in range(NOW - 75, NOW + 600, 13):
                late = [index for index in range(size) if stamps[index] >= instant]
                early = [index for index in range(size) if stamps[index] < instant]
                assert first_from(connection, instant, size=size) == (late[0] if late else None)
                assert last_before(connection, instant, size=size) == (early[-1] if early else None)


def test_a_block_that_says_too_much_is_passed_over(any_engine: Engine, make_log: MakeLog) -> None:
    """As after an erasure: its times are gone, its block's are not."""
    make_log(any_engine, [3])
    with any_engine.begin() as connection:
        connection.execute(insert(AUDIT_TIME_BLOCK).values(block=1, earliest=0, latest=NOW * 2))
        assert first_from(connection, NOW + 100, size=8) is None
        assert last_before(connection, 5, size=8) is None
