"""Random lineage graphs in a real store: what is derived is never freer than its origins, but by declassification.

Each example builds a graph by the operations that the product has and compares every version's constraints with a model
that knows nothing of the store, after every step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from factory import Factory, start_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from attestation.simulator.node import SimulatedVendors
from keybroker import assets, declassify, lineage, tightening
from keybroker.approvers import ApproverSet
from keybroker.constraints import Areas, Assurance, Constraints, conflicts, join, join_all, parsed, relaxes
from keybroker.declassification import Declassification
from keybroker.denial import RefusedError
from keybroker.errors import InvalidRequestError, LineageCycleError, StatementError
from keybroker.keys.signing import SigningKey
from keybroker.principals import Principal, Role
from keybroker.statements import Statement
from keybroker.store import assets as stored
from keybroker.store import lineage as steps
from keybroker.store.schema import AssetKind
from keystead.binding import AssetRef

OWNER = Principal(Role.OWNER, "alice", "acme")
APPROVERS = {name: SigningKey.generate() for name in ("bob", "carol")}
NUMBER = itertools.count(1)

AREAS = st.sampled_from(["EU", "EEA", "DE", "FR", "US", "*"])
CONSTRAINTS = st.builds(
    Constraints,
    classification=st.integers(0, 4),
    purposes=st.sets(st.sampled_from(["inference", "training", "evaluation"]), min_size=1).map(frozenset),
    residency=st.builds(Areas.of, st.sets(AREAS, min_size=1, max_size=3)),
    assurance=st.sampled_from(Assurance),
    node_ceiling=st.none() | st.integers(1, 9),
    budgets=st.dictionaries(st.sampled_from(["opens", "key_seconds"]), st.integers(0, 9), max_size=2),
    obligations=st.sampled_from([{}, {"no_logits": {}}, {"output_ceiling": {"tokens": 3}}]),
)
CHOICE = st.integers(0, 1 << 16)
STEP = st.one_of(
    st.tuples(st.just("add"), CONSTRAINTS, st.sets(CHOICE, max_size=3)),
    st.tuples(st.just("declare"), CHOICE, st.sets(CHOICE, min_size=1, max_size=2)),
    st.tuples(st.just("constrain"), CHOICE, CONSTRAINTS),
    st.tuples(st.just("declassify"), CHOICE, CONSTRAINTS),
)


@dataclass
class Model:
    """What should hold, by itself."""

    demands: dict[AssetRef, Constraints] = field(default_factory=dict)
    parents: dict[AssetRef, set[AssetRef]] = field(default_factory=dict)
    declassified: set[AssetRef] = field(default_factory=set)
    serials: dict[AssetRef, int] = field(default_factory=dict)

    def ancestors(self, ref: AssetRef) -> set[AssetRef]:
        """Everything that `ref` was derived from."""
        found: set[AssetRef] = set()
        waiting = list(self.parents[ref])
        while waiting:
            if (each := waiting.pop()) not in found:
                found.add(each)
                waiting += self.parents[each]
        return found

    def descendants(self, ref: AssetRef) -> set[AssetRef]:
        """Everything that was derived from `ref`."""
        return {each for each in self.parents if ref in self.ancestors(each)}

    def tighten(self, ref: AssetRef, extra: Constraints) -> None:
        """Join `extra` to `ref` and all that was derived from it."""
        for each in {ref, *self.descendants(ref)}:
            self.demands[each] = join(self.demands[each], extra)


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory, vendors: SimulatedVendors) -> Iterator[Factory]:
    """A broker with approvers for acme."""
    made = start_factory(tmp_path_factory.mktemp("lineage") / "factory", vendors, database=None, edit=str)
    statement = ApproverSet(
        tenant="acme",
        serial=1,
        threshold=2,
        keys={name: key.private_key.public_key().public_bytes_raw() for name, key in APPROVERS.items()},
        reason="for the tests",
        not_after=made.clock() + 3_600,
    ).statement(author="alice")
    now = made.clock()
    made.broker.commit(
        lambda connection: declassify.set_approvers(
            connection, caller=OWNER, statement=statement.payload, signatures=(), now=now
        )
    )
    yield made
    made.close()


class World:
    """The store and the model, changed together."""

    def __init__(self, factory: Factory) -> None:
        self.broker = factory.broker
        self.now = factory.clock()
        self.model = Model()

    def attempt(self, unit: Callable[[Connection], object]) -> Exception | None:
        """Run a unit of work; what it was refused with."""
        try:
            self.broker.commit(unit)
        except (RefusedError, InvalidRequestError, StatementError) as error:
            return error
        return None

    def pick(self, choice: int) -> AssetRef:
        """One of the versions."""
        refs = sorted(self.model.parents)
        return refs[choice % len(refs)]

    def satisfiable(self, constraints: Constraints) -> bool:
        """Whether anything satisfies them."""
        return not conflicts(constraints, self.broker.policies.jurisdictions)

    def add(self, base: Constraints, choices: set[int]) -> None:
        """A version of a new asset, derived from some of those that are there."""
        ref = AssetRef(f"acme/p{next(NUMBER)}", 1)
        parents = {self.pick(choice) for choice in choices} if self.model.parents else set()
        self.broker.commit(
            lambda connection: assets.register(
                connection,
                caller=OWNER,
                asset=ref.asset,
                kind=AssetKind.FEATURES,
                constraints=base,
                jurisdictions=self.broker.policies.jurisdictions,
                now=self.now,
            )
        )
        expected = join(base, join_all(self.model.demands[parent] for parent in parents))
        refused = self.attempt(
            lambda connection: lineage.add_version(
                connection,
                broker=self.broker,
                caller=OWNER,
                ref=ref,
                key_id="k1",
                data_key=b"k" * 32,
                manifest_digest=b"m" * 32,
                parents=sorted(parents),
                now=self.now,
            )
        )
        assert isinstance(refused, RefusedError) == (not self.satisfiable(expected))
        if refused is None:
            self.model.demands[ref], self.model.parents[ref] = expected, parents

    def declare(self, choice: int, choices: set[int]) -> None:
        """More parents for a version, among them perhaps itself or what was derived from it."""
        ref, parents = self.pick(choice), {self.pick(each) for each in choices}
        extra = join_all(self.model.demands[parent] for parent in parents)
        refused = self.attempt(
            lambda connection: lineage.declare_parents(
                connection, broker=self.broker, caller=OWNER, ref=ref, parents=sorted(parents), now=self.now
            )
        )
        turns = parents & {ref, *self.model.descendants(ref)}
        assert isinstance(refused, LineageCycleError) == bool(turns)
        if not turns:
            assert isinstance(refused, RefusedError) == (not self.satisfiable(join(self.model.demands[ref], extra)))
        if refused is None:
            self.model.parents[ref] |= parents
            self.model.tighten(ref, extra)

    def constrain(self, choice: int, extra: Constraints) -> None:
        """More demands on a version."""
        ref = self.pick(choice)
        refused = self.attempt(
            lambda connection: tightening.constrain(
                connection,
                broker=self.broker,
                caller=OWNER,
                asset=ref.asset,
                version=ref.version,
                extra=extra,
                now=self.now,
            )
        )
        assert (refused is None) == self.satisfiable(join(self.model.demands[ref], extra))
        if refused is None:
            self.model.tighten(ref, extra)

    def declassify(self, choice: int, after: Constraints) -> None:
        """Other demands on a version, approved by enough."""
        ref = self.pick(choice)
        serial = self.model.serials.get(ref, 0) + 1
        before = self.model.demands[ref]
        # Freer in what can be, else as before.
        after = replace(after, **{name: getattr(before, name) for name in relaxes(after, before)})
        wanted = Declassification(
            ref=ref, serial=serial, before=before, after=after, reason="tested", not_after=self.now + 3_600
        )
        if not relaxes(before, after):
            with pytest.raises(StatementError, match="nothing becomes freer"):
                wanted.statement(author=OWNER.name)
            return
        statement = wanted.statement(author=OWNER.name)
        assert Declassification.of(Statement.parse(statement.payload)) == wanted
        signatures = [statement.sign(key.private_key, signer=name) for name, key in APPROVERS.items()]
        for unit in (
            lambda connection: declassify.propose(
                connection, broker=self.broker, caller=OWNER, statement=statement.payload, now=self.now
            ),
            lambda connection: declassify.apply(
                connection,
                broker=self.broker,
                caller=OWNER,
                statement=statement.payload,
                signatures=signatures,
                now=self.now,
            ),
        ):
            assert self.attempt(unit) is None
        self.model.serials[ref] = serial
        self.model.demands[ref] = after
        self.model.declassified.add(ref)

    def check(self) -> None:
        """The store agrees with the model, and with the lattice."""
        model = self.model
        with self.broker.read() as connection:
            found = stored.find_versions(connection, model.parents)
            for ref in model.parents:
                assert steps.ancestors(connection, [ref]) == model.ancestors(ref)
                assert steps.descendants(connection, [ref]) == model.descendants(ref)
                assert set(steps.parents(connection, ref)) == model.parents[ref]
        demands = {ref: parsed(row.constraints) for ref, row in found.items()}
        assert demands == model.demands
        for ref in model.parents:
            for ancestor in model.ancestors(ref):
                between = {ref, *(model.ancestors(ref) & model.descendants(ancestor))}
                assert between & model.declassified or not relaxes(demands[ancestor], demands[ref])


@given(first=CONSTRAINTS, script=st.lists(STEP, max_size=8))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_derived_is_never_freer_but_by_declassification(
    factory: Factory, first: Constraints, script: list[tuple[str, object, object]]
) -> None:
    world = World(factory)
    world.add(replace(first, residency=Areas.of(["*"])), set())
    for name, one, two in script:
        getattr(world, name)(one, two)
        world.check()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
DECLASSIFICATION_BODIES = st.fixed_dictionaries(
    {},
    optional={
        "asset": st.just("acme/x") | JSON,
        "version": st.just(1) | JSON,
        "serial": st.just(1) | JSON,
        "from": JSON,
        "constraints": st.just({"classification": 1}) | JSON,
        "changes": st.just([{"field": "classification", "before": 3, "after": 1, "relaxes": True}]) | JSON,
        "reason": st.just("why") | JSON,
        "not_after": st.just(5) | JSON,
    },
)
APPROVER_BODIES = st.fixed_dictionaries(
    {},
    optional={
        "tenant": st.just("acme") | JSON,
        "serial": st.just(1) | JSON,
        "threshold": st.just(1) | JSON,
        "approvers": st.just([{"name": "bob", "public_key": "00" * 32}]) | JSON,
        "reason": st.just("why") | JSON,
        "not_after": st.just(5) | JSON,
    },
)


@given(body=DECLASSIFICATION_BODIES)
def test_any_body_is_a_declassification_or_a_typed_error(body: dict[str, object]) -> None:
    try:
        statement = Statement.write(kind="declassification", author="alice", body=body)  # type: ignore[arg-type]
        read = Declassification.of(statement)
    except StatementError:
        return
    assert read.statement(author="alice") == statement


@given(body=APPROVER_BODIES)
def test_any_body_is_a_set_of_approvers_or_a_typed_error(body: dict[str, object]) -> None:
    try:
        statement = Statement.write(kind="approvers", author="alice", body=body)  # type: ignore[arg-type]
        read = ApproverSet.of(statement)
    except StatementError:
        return
    assert read.statement(author="alice") == statement


@given(after=CONSTRAINTS, more=CONSTRAINTS, only=st.booleans())
def test_a_declassification_says_exactly_what_changes(after: Constraints, more: Constraints, *, only: bool) -> None:
    before = join(after, more) if only else more
    wanted = Declassification(
        ref=AssetRef("acme/x", 7), serial=3, before=before, after=after, reason="why", not_after=9
    )
    freer = relaxes(before, after)
    assert [change.field for change in wanted.changes if change.relaxes] == freer
    allowed = bool(freer) and not relaxes(after, before)
    old, new = before.to_document(), after.to_document()
    assert {change.field for change in wanted.changes} == {
        name for name in old.keys() | new.keys() if old.get(name) != new.get(name)
    }
    if not allowed:
        with pytest.raises(StatementError, match="freer"):
            wanted.statement(author="alice")
        return
    statement = wanted.statement(author="alice")
    assert Declassification.of(Statement.parse(statement.payload)) == wanted
