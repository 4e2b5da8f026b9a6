"""Whatever a tenant's pack answers, or fails to, the result is never freer than the factory's floor alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from keybroker.constraints import OBLIGATIONS
from keybroker.obligations import merge_obligations
from policy.decision import Decision, Denial, Obligation
from policy.errors import BundleError, PolicyError, PolicyInputError, PolicyLimitError, PolicyUndecidedError
from policy.layers import UNDECIDED, LayeredPolicy, TenantLayer, layers_digest

DOCUMENT = b"{}"

TEXT = st.text(alphabet="abc", max_size=3)
CODES = st.sampled_from(["NODE_NOT_ACTIVE", "SITE_EXPIRED", "OWN_RULE"])
DENIALS = st.builds(
    Denial, code=CODES, field=TEXT, expected=TEXT, actual=TEXT, message=TEXT, remedy=TEXT, reference=TEXT
)
VALUES = st.one_of(st.integers(-3, 9), st.booleans(), st.none(), TEXT, st.lists(st.integers(), max_size=1))
OBLIGED = st.builds(
    Obligation,
    code=st.sampled_from([*OBLIGATIONS, "unheard_of"]),
    params=st.dictionaries(st.sampled_from(["seconds", "tokens", "bytes", "other"]), VALUES, max_size=2),
)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """Any decision that a pack can come to, allowing ones often enough."""
    deny = draw(st.one_of(st.just([]), st.lists(DENIALS, max_size=3)))
    obligations = {each.code: each for each in draw(st.lists(OBLIGED, max_size=4))}
    return Decision(
        allow=not deny,
        deny=tuple(sorted(set(deny))),
        obligations=tuple(obligations[code] for code in sorted(obligations)),
        policy_version="any/1",
    )


@dataclass(frozen=True)
class Answers:
    """A pack that gives one answer, or fails in one way."""

    answer: Decision | PolicyError
    digest: str = hashlib.sha256(b"pack").hexdigest()

    def evaluate_bytes(self, document: bytes) -> Decision:
        """The answer, whatever is asked."""
        del document
        if isinstance(self.answer, PolicyError):
            raise self.answer
        return self.answer


FAILURES = st.sampled_from(
    [PolicyUndecidedError("undefined"), PolicyLimitError("out of fuel"), PolicyInputError("input"), BundleError("bad")]
)
LAYERS = st.one_of(
    st.builds(lambda answer: TenantLayer(Answers(answer)), st.one_of(decisions(), FAILURES)),
    st.just(TenantLayer(None, "BAD_POLICY_BUNDLE")),
)


def ceilings(obligations: tuple[Obligation, ...]) -> Mapping[str, Mapping[str, Any]]:
    """Obligations as the broker keeps them."""
    return {each.code: each.params for each in merge_obligations(obligations)[0]}


@given(floor=decisions(), layer=LAYERS)
def test_no_tenant_loosens_the_floor(floor: Decision, layer: TenantLayer) -> None:
    result = LayeredPolicy(Answers(floor), layer).evaluate_bytes(DOCUMENT)
    alone = LayeredPolicy(Answers(floor)).evaluate_bytes(DOCUMENT)
    assert not result.allow or alone.allow
    assert set(result.deny) >= set(alone.deny)
    assert result.allow == (not result.deny)
    kept, owed = ceilings(result.obligations), ceilings(alone.obligations)
    for code, params in owed.items():
        assert code in kept
        for name, value in params.items():
            assert kept[code][name] <= value, "a ceiling of the floor was raised"
    unknown_alone = {reason.actual for reason in merge_obligations(alone.obligations)[1]}
    assert unknown_alone <= {reason.actual for reason in merge_obligations(result.obligations)[1]}


@given(floor=decisions(), layer=LAYERS)
def test_a_tenant_gets_what_its_own_layer_demands(floor: Decision, layer: TenantLayer) -> None:
    result = LayeredPolicy(Answers(floor), layer).evaluate_bytes(DOCUMENT)
    own = layer.decide(DOCUMENT)
    assert {denial.code for denial in own.deny} <= {denial.code for denial in result.deny}
    assert result.allow == (floor.allow and own.allow)
    for code, params in ceilings(own.obligations).items():
        assert all(ceilings(result.obligations)[code][name] <= value for name, value in params.items())


@given(floor=decisions(), failure=FAILURES)
def test_a_layer_that_cannot_decide_denies_and_the_floor_still_speaks(floor: Decision, failure: PolicyError) -> None:
    result = LayeredPolicy(Answers(floor), TenantLayer(Answers(failure))).evaluate_bytes(DOCUMENT)
    assert not result.allow
    assert set(result.deny) > set(floor.deny)
    (undecided,) = [denial for denial in result.deny if denial.code == UNDECIDED]
    assert undecided.actual == failure.code


@given(floor=decisions())
def test_a_copy_of_the_floor_says_nothing_twice(floor: Decision) -> None:
    result = LayeredPolicy(Answers(floor), TenantLayer(Answers(floor))).evaluate_bytes(DOCUMENT)
    assert result.deny == floor.deny


def test_the_digest_names_every_layer() -> None:
    floor = hashlib.sha256(b"floor").hexdigest()
    one, other = (TenantLayer(Answers(PolicyError(), hashlib.sha256(name).hexdigest())) for name in (b"1", b"2"))
    broken = TenantLayer(None, "BAD_POLICY_BUNDLE")
    made = [
        layers_digest(floor=floor, release=release, appraisal=appraisal)
        for release in (None, one, other, broken)
        for appraisal in (None, one, other, broken)
    ]
    assert made[0] == floor
    assert len(set(made)) == len(made)
    label = b"keystead policy layers v1\x00"
    assert (
        made[4] == hashlib.sha256(label + bytes.fromhex(floor) + bytes.fromhex(one.pack.digest) + bytes(32)).hexdigest()
    )
