"""How many refusals of strangers get a record each, and that none is lost without a count."""

from __future__ import annotations

import pytest

from audit.records import Kind, Result
from keybroker.principals import Principal, Role
from keybroker.refusals import RefusalLimiter, aggregate_record

NODE = Principal(Role.NODE, "node", None)


def admit(limiter: RefusalLimiter, *codes: str, now: int = 0, caller: Principal = NODE) -> bool:
    """Ask for a record."""
    return limiter.admit(Kind.LEASE_REFUSED, caller=caller, codes=codes or ("X",), now=now)


def test_so_many_a_minute_and_the_rest_is_counted() -> None:
    limiter = RefusalLimiter(3)
    assert [admit(limiter, now=second) for second in range(5)] == [True] * 3 + [False] * 2
    assert admit(limiter, now=60)
    ((group, count),) = limiter.drain()
    assert (group.kind, group.caller, group.codes, count) == ("lease.refused", "node/node", ("X",), 2)
    assert limiter.drain() == []


def test_what_could_not_be_recorded_is_put_back() -> None:
    limiter = RefusalLimiter(1)
    admit(limiter)
    admit(limiter)
    counted = limiter.drain()
    admit(limiter)
    limiter.restore(counted)
    ((_, count),) = limiter.drain()
    assert count == 2


def test_memory_is_bounded_whatever_strangers_send() -> None:
    limiter = RefusalLimiter(1)
    for number in range(2_000):
        admit(limiter, f"CODE_{number}")
    counted = limiter.drain()
    assert len(counted) <= 257
    assert sum(count for _, count in counted) == 1_999
    assert any(group.codes == ("MANY_DIFFERENT",) for group, _ in counted)


@pytest.mark.parametrize("codes", [("A", "B"), ("B", "A", "A")])
def test_the_record_of_a_count(codes: tuple[str, ...]) -> None:
    limiter = RefusalLimiter(1)
    admit(limiter)
    admit(limiter, *codes)
    ((group, count),) = limiter.drain()
    record = aggregate_record(group, count, now=7)
    assert (record.kind, record.result, record.time) == (Kind.REQUESTS_REFUSED, Result.DENIED, 7)
    assert record.reasons == ("A", "B")
    assert record.detail["count"] == 1
    assert record.payload()


def test_the_overflow_has_a_record_too() -> None:
    limiter = RefusalLimiter(1)
    for number in range(300):
        admit(limiter, f"CODE_{number}")
    for group, count in limiter.drain():
        assert aggregate_record(group, count, now=1).payload()
