"""Obligations of several assets: the strictest of each, and a refusal for every one that the broker cannot keep."""

from __future__ import annotations

from typing import Any

import pytest

from keybroker.obligations import merge_obligations, obligations_text, parse_obligations
from policy.decision import Obligation


def test_the_strictest_of_each_parameter_counts() -> None:
    merged, reasons = merge_obligations(
        [
            Obligation("re_attest", {"seconds": 900}),
            Obligation("output_ceiling", {"tokens": 9}),
            Obligation("no_logits", {}),
            Obligation("re_attest", {"seconds": 60}),
            Obligation("output_ceiling", {"tokens": 12, "bytes": 7}),
            Obligation("no_logits", {}),
        ]
    )
    assert reasons == []
    assert merged == (
        Obligation("no_logits", {}),
        Obligation("output_ceiling", {"tokens": 9, "bytes": 7}),
        Obligation("re_attest", {"seconds": 60}),
    )
    assert parse_obligations(obligations_text(merged)) == merged


@pytest.mark.parametrize(
    ("code", "params"),
    [
        ("sing", {}),
        ("lease_ceiling", {}),
        ("lease_ceiling", {"seconds": 0}),
        ("lease_ceiling", {"seconds": True}),
        ("lease_ceiling", {"seconds": "60"}),
        ("lease_ceiling", {"seconds": 60, "minutes": 1}),
        ("output_ceiling", {}),
        ("output_ceiling", {"tokens": 9, "bytes": None}),
        ("no_logits", {"tokens": 1}),
        ("no_egress", {"seconds": 1}),
    ],
)
def test_what_cannot_be_kept_is_a_refusal(code: str, params: dict[str, Any]) -> None:
    merged, reasons = merge_obligations([Obligation(code, params), Obligation("zeroise_on_end", {})])
    assert [reason.code for reason in reasons] == ["UNKNOWN_OBLIGATION"]
    assert merged == (Obligation("zeroise_on_end", {}),)
