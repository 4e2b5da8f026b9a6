"""The decision document is read strictly: whatever is not exactly one is no decision."""

from __future__ import annotations

from typing import Any

import pytest

from policy.decision import Decision, Denial, Obligation
from policy.errors import PolicyUndecidedError

DENIAL = {"code": "C", "message": "m", "field": "f", "expected": "", "actual": "", "remedy": "r"}
ALLOWED: dict[str, Any] = {
    "allow": True,
    "deny": [],
    "obligations": [{"code": "zeroise_on_end", "params": {}}, {"code": "lease_ceiling", "params": {"seconds": 5}}],
    "policy_version": "release/1",
    "trust_vectors": {"gpu0": {"hardware": 2}, "cpu0": {"hardware": -1, "executables": 0}},
}
DENIED: dict[str, Any] = {"allow": False, "deny": [DENIAL], "obligations": [], "policy_version": "release/1"}


def test_an_allowing_document() -> None:
    decision = Decision.from_document(ALLOWED)
    assert decision.allow
    assert decision.obligations == (
        Obligation("lease_ceiling", {"seconds": 5}),
        Obligation("zeroise_on_end", {}),
    )
    assert decision.policy_version == "release/1"
    assert list(decision.trust_vectors) == ["cpu0", "gpu0"]
    assert decision.trust_vectors["cpu0"] == {"executables": 0, "hardware": -1}


def test_a_denying_document_holds_every_reason_sorted_and_once() -> None:
    other = DENIAL | {"code": "B"}
    decision = Decision.from_document(DENIED | {"deny": [DENIAL, other, DENIAL]})
    assert not decision.allow
    assert [denial.code for denial in decision.deny] == ["B", "C"]
    assert decision.deny[1] == Denial(code="C", field="f", expected="", actual="", message="m", remedy="r")


@pytest.mark.parametrize("document", [ALLOWED, DENIED])
def test_a_decision_reads_what_it_writes(document: dict[str, Any]) -> None:
    decision = Decision.from_document(document)
    assert Decision.from_document(decision.to_json()) == decision


@pytest.mark.parametrize("name", ["allow", "deny", "obligations", "policy_version"])
@pytest.mark.parametrize("value", [None, 1, "true", {}, [1], [None], ""])
def test_each_member_of_another_type_is_no_decision(name: str, value: object) -> None:
    for document in (ALLOWED, DENIED):
        if (name, value) == ("policy_version", "true"):
            continue
        with pytest.raises(PolicyUndecidedError, match="decision document"):
            Decision.from_document(document | {name: value})


@pytest.mark.parametrize("name", ["allow", "deny", "obligations", "policy_version"])
def test_each_missing_member_is_no_decision(name: str) -> None:
    with pytest.raises(PolicyUndecidedError, match=f"lacks {name}"):
        Decision.from_document({key: value for key, value in ALLOWED.items() if key != name})


@pytest.mark.parametrize("document", [None, True, [], "allow", 1, {1: 2}])
def test_what_is_no_object_is_no_decision(document: object) -> None:
    with pytest.raises(PolicyUndecidedError, match="is not an object"):
        Decision.from_document(document)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"reason": "x"}, "unknown members reason"),
        ({"deny": [DENIAL]}, "is true beside 1 denials"),
        ({"obligations": [{"code": "x", "params": {}}, {"code": "x", "params": {"n": 1}}]}, "hold one code twice"),
        ({"obligations": [{"code": "x"}]}, "lacks params"),
        ({"obligations": [{"code": "", "params": {}}]}, "code is not a string"),
        ({"obligations": [{"code": "x", "params": {"n": 1.5}}]}, "not an integer"),
        ({"obligations": [{"code": "x", "params": []}]}, "is not an object"),
        ({"trust_vectors": []}, "is not an object"),
        ({"trust_vectors": {"cpu0": 2}}, "is not an object"),
        ({"trust_vectors": {"cpu0": {"karma": 2}}}, "is not a claim of AR4SI"),
        ({"trust_vectors": {"cpu0": {"hardware": 128}}}, "8-bit"),
        ({"trust_vectors": {"cpu0": {"hardware": -129}}}, "8-bit"),
        ({"trust_vectors": {"cpu0": {"hardware": True}}}, "8-bit"),
        ({"trust_vectors": {"cpu0": {"hardware": "2"}}}, "8-bit"),
    ],
)
def test_each_fault_of_an_allowing_document(change: dict[str, object], why: str) -> None:
    with pytest.raises(PolicyUndecidedError, match=why):
        Decision.from_document(ALLOWED | change)


@pytest.mark.parametrize("name", sorted(DENIAL))
def test_each_fault_of_a_denial(name: str) -> None:
    missing = {key: value for key, value in DENIAL.items() if key != name}
    for denial in (missing, DENIAL | {name: 7}, DENIAL | {"more": "x"}):
        with pytest.raises(PolicyUndecidedError):
            Decision.from_document(DENIED | {"deny": [denial]})


def test_a_denial_must_say_why() -> None:
    with pytest.raises(PolicyUndecidedError, match="must say why"):
        Decision.from_document(DENIED | {"deny": []})
