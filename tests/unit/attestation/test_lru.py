"""Bounded caches: what is used last is kept, and a judgement that is made again records the same."""

from __future__ import annotations

import pytest

from attestation.errors import MalformedError
from attestation.findings import Check, CheckLog
from attestation.lru import JudgementCache, LruCache

CHECK = Check("TEST_EVEN", "the number is even", "number", "no document", "Give an even number.")


def is_even(number: int, log: CheckLog, calls: list[int]) -> bool:
    calls.append(number)
    return log.require(CHECK, ok=number % 2 == 0, expected="an even number", actual=str(number))


def test_what_is_used_last_is_kept() -> None:
    cache: LruCache[int, str] = LruCache(2)
    for key in (1, 2):
        cache.put(key, str(key))
    assert cache.get(1) == "1"
    cache.put(3, "3")
    assert (cache.get(1), cache.get(2), cache.get(3)) == ("1", None, "3")
    assert len(cache) == 2


@pytest.mark.parametrize("number", [3, 4])
def test_a_judgement_that_is_made_again_records_the_same(number: int) -> None:
    cache: JudgementCache[int, bool] = JudgementCache(4)
    calls: list[int] = []
    logs = [CheckLog(), CheckLog()]
    values = [cache.judge(number, lambda log: is_even(number, log, calls), log=log, keep=True) for log in logs]
    assert values == [number % 2 == 0] * 2
    assert calls == [number]
    assert logs[0].findings == logs[1].findings
    assert logs[0].passed == logs[1].passed
    assert len(logs[0].findings) + len(logs[0].passed) == 1


def test_what_strangers_give_rise_to_is_not_kept() -> None:
    cache: JudgementCache[int, bool] = JudgementCache(1)
    calls: list[int] = []
    cache.judge(4, lambda log: is_even(4, log, calls), log=CheckLog(), keep=True)
    for _ in range(2):
        cache.judge(3, lambda log: is_even(3, log, calls), log=CheckLog(), keep=False)
    cache.judge(4, lambda log: is_even(4, log, calls), log=CheckLog(), keep=True)
    assert calls == [4, 3, 3]
    assert len(cache) == 1


def test_what_cannot_be_judged_is_not_kept() -> None:
    cache: JudgementCache[int, bool] = JudgementCache(1)

    def refuse(_: CheckLog) -> bool:
        raise MalformedError("number", "none")

    for _ in range(2):
        log = CheckLog()
        with pytest.raises(MalformedError):
            cache.judge(1, refuse, log=log, keep=True)
        assert not log.passed
        assert not log.findings
    assert len(cache) == 0
