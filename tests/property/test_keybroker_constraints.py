"""Constraints are a lattice: joins in any order give the same, and never less than any of their parts demands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.constraints import (
    ANYWHERE,
    BOTTOM,
    BUDGETS,
    MAX_INTEGER,
    NETWORKS,
    STAGES,
    Areas,
    Assurance,
    Constraints,
    Jurisdictions,
    conflicts,
    disagreements,
    join,
    join_all,
    relaxes,
)
from keybroker.errors import ConstraintsError

AREAS = st.sampled_from(["*", "EU", "EEA", "DE", "FR", "NO", "US", "DE-BY", "DE-BE", "US-CA"])
PLACES = ("DE", "DE-BY", "DE-BE", "DE-HH", "FR", "NO", "US", "US-CA", "US-NY")
WORLD = Jurisdictions(
    frozenset({"DE", "FR", "NO", "US"}),
    {"EU": frozenset({"DE", "FR"}), "EEA": frozenset({"DE", "FR", "NO"})},
)


def some(members: st.SearchStrategy[str]) -> st.SearchStrategy[frozenset[str] | None]:
    return st.none() | st.frozensets(members, max_size=3)


def at_least(least: int) -> st.SearchStrategy[int]:
    return st.integers(least, 9) | st.integers(least, MAX_INTEGER)


names = st.sampled_from(["a", "b", "c", "slurm:7"])
areas = st.builds(
    Areas,
    allowed=st.frozensets(st.frozensets(AREAS, max_size=4), max_size=3),
    forbidden=st.frozensets(AREAS, max_size=3),
)
seconds = st.fixed_dictionaries({"seconds": at_least(1)})
duties = st.fixed_dictionaries(
    {},
    optional={
        "lease_ceiling": seconds,
        "re_attest": seconds,
        "zeroise_on_end": st.just({}),
        "no_logits": st.just({}),
        "no_egress": st.just({}),
        "output_ceiling": st.dictionaries(st.sampled_from(["tokens", "bytes"]), at_least(1), min_size=1),
    },
)
constraints = st.builds(
    Constraints,
    classification=st.integers(0, 4),
    purposes=some(names),
    residency=areas,
    exposure=areas,
    sites=some(names),
    retain_until=st.none() | at_least(0),
    assurance=st.sampled_from(Assurance),
    node_ceiling=st.none() | at_least(1),
    copy_ceiling=st.none() | at_least(1),
    projects=some(names),
    users=some(names),
    stages=some(st.sampled_from(sorted(STAGES))),
    images=some(st.sampled_from(["0" * 64, "ab" * 32])),
    networks=some(st.sampled_from(sorted(NETWORKS))),
    budgets=st.dictionaries(st.sampled_from(sorted(BUDGETS)), at_least(0)),
    obligations=duties,
)


@given(constraints, constraints)
def test_joins_commute(first, second):
    assert join(first, second) == join(second, first)


@given(constraints, constraints, constraints)
def test_joins_associate(first, second, third):
    assert join(join(first, second), third) == join(first, join(second, third)) == join_all([third, first, second])


@given(constraints)
def test_joins_are_idempotent_and_the_bottom_is_neutral(one):
    assert join(one, one) == join(one, BOTTOM) == join_all([one]) == one


@given(constraints, constraints)
def test_a_join_relaxes_neither(first, second):
    both = join(first, second)
    assert relaxes(first, both) == relaxes(second, both) == []


@given(constraints, constraints)
def test_what_relaxes_is_what_a_join_would_change(old, new):
    assert (relaxes(old, new) == []) == (join(old, new) == new)


@given(constraints)
def test_nothing_is_as_free_as_the_bottom(one):
    assert relaxes(BOTTOM, one) == []
    assert set(relaxes(one, BOTTOM)) == set(one.to_document())


def permits(demand: Constraints, place: str, who: str, stage: str) -> bool:
    """An independent reading of what a demand lets through."""

    def inside(area: str) -> bool:
        country = place.split("-", maxsplit=1)[0]
        return area in ("*", place, country) or (area in WORLD.groups and country in WORLD.groups[area])

    def meets(areas: Areas) -> bool:
        return all(any(map(inside, clause)) for clause in areas.allowed) and not any(
            inside(area) or area.startswith(f"{place}-") for area in areas.forbidden
        )

    return (
        meets(demand.residency)
        and meets(demand.exposure)
        and all(chosen is None or who in chosen for chosen in (demand.purposes, demand.users, demand.projects))
        and (demand.stages is None or stage in demand.stages)
    )


@given(constraints, constraints, st.sampled_from(PLACES), names, st.sampled_from(sorted(STAGES)))
def test_a_join_lets_through_what_both_let_through(first, second, place, who, stage):
    """The normal form of areas loses nothing and adds nothing."""
    both = permits(first, place, who, stage) and permits(second, place, who, stage)
    assert permits(join(first, second), place, who, stage) == both


@given(areas, st.sampled_from(PLACES))
def test_normal_form_keeps_the_meaning(demand, place):
    wider = Areas(allowed=demand.allowed | {frozenset({ANYWHERE})}, forbidden=demand.forbidden)
    assert WORLD.satisfies(place, wider) == WORLD.satisfies(place, demand)
    assert not any(one < other for one in demand.allowed for other in demand.allowed)


@given(constraints)
def test_conflicts_are_what_no_place_and_nobody_can_satisfy(one):
    found = {conflict.field for conflict in conflicts(one, WORLD)}
    for name in ("residency", "exposure"):
        assert (name in found) == (not any(WORLD.satisfies(place, getattr(one, name)) for place in PLACES))
    for name in ("purposes", "sites", "projects", "users", "stages", "images"):
        assert (name in found) == (getattr(one, name) == frozenset())


@given(st.lists(constraints, min_size=1, max_size=4))
def test_disagreements_are_the_joins_conflicts_and_no_member_of_one_is_idle(several):
    named = {f"acme/{number}@1": one for number, one in enumerate(several)}
    found = disagreements(named, WORLD)
    assert {item.field for item in found} == {item.field for item in conflicts(join_all(several), WORLD)}
    for item in found:
        group = {who: named[who] for who in item.names}
        assert item.field in {other.field for other in conflicts(join_all(group.values()), WORLD)}
        for idle in item.names:
            rest = join_all(one for who, one in group.items() if who != idle)
            assert item.field not in {other.field for other in conflicts(rest, WORLD)}


@given(constraints)
def test_text_and_back(one):
    text = one.to_json()
    assert Constraints.parse(text) == one
    assert Constraints.parse(text).to_json() == text
    assert Constraints.from_document(dict(reversed(json.loads(text).items()))) == one


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.text(max_size=60) | json_values.map(json.dumps))
def test_any_text_is_constraints_or_a_named_error(text):
    try:
        read = Constraints.parse(text)
    except ConstraintsError:
        return
    assert read.to_json() == text


@given(constraints, st.data())
def test_any_member_spoiled_is_named(one, data: Any):
    document = one.to_document()
    name = data.draw(st.sampled_from(sorted(Constraints.__dataclass_fields__)))
    document[name] = data.draw(json_values)
    try:
        read, field = Constraints.from_document(document), ""
    except ConstraintsError as error:
        read, field = BOTTOM, error.field
    assert field.partition(".")[0].partition("[")[0] in ("", name)
    assert Constraints.parse(read.to_json()) == read


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"colour": 1}, "'colour'"),
        ({"classification": 5}, "classification"),
        ({"classification": True}, "classification"),
        ({"purposes": "inference"}, "purposes"),
        ({"purposes": ["a", "a"]}, "purposes"),
        ({"residency": {"allowed": ["EU"]}}, "residency.allowed[0]"),
        ({"residency": {"allowed": [["EU"], ["eu"]]}}, "residency.allowed[1]"),
        ({"residency": {"forbidden": ["u s"]}}, "residency.forbidden"),
        ({"residency": {"permitted": []}}, "residency.'permitted'"),
        ({"stages": ["lunch"]}, "stages"),
        ({"networks": ["wifi"]}, "networks"),
        ({"images": ["sha256:00"]}, "images"),
        ({"images": ["AB" * 32]}, "images"),
        ({"assurance": "high"}, "assurance"),
        ({"node_ceiling": 0}, "node_ceiling"),
        ({"budgets": {"coffee": 1}}, "budgets"),
        ({"budgets": {"opens": -1}}, "budgets.opens"),
        ({"obligations": {"sing": {}}}, "obligations"),
        ({"obligations": {"no_logits": {"seconds": 1}}}, "obligations.no_logits"),
        ({"obligations": {"output_ceiling": {}}}, "obligations.output_ceiling"),
        ({"obligations": {"output_ceiling": {"tokens": 0}}}, "obligations.output_ceiling.tokens"),
    ],
)
def test_each_fault_names_its_field(document, field):
    with pytest.raises(ConstraintsError) as caught:
        Constraints.from_document(document)
    assert caught.value.field == field
