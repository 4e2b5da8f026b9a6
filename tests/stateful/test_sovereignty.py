"""Whatever happens in whatever order, no key leaves for a place or a purpose that somebody's demand speaks against.

Hypothesis plays owners, schedulers, nodes and operators against the real services: mutual TLS, gRPC, attestation of
simulated hardware, the release policy, SQLite. What may be is computed by `sovereignty_model`, which shares no code
with the product and joins nothing. More examples: ``--hypothesis-profile=long``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import hypothesis.strategies as st
import pytest
from calls import add_client, read_refusal
from factory import Factory, request_id
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, event, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sovereignty_model import AREAS, PURPOSES, SITES, Demand, Held, Job, Version, World
from sqlalchemy import func, select

import attester
from attester.collect.simulated import SimulatedCollector
from attester.errors import RequestRefusedError
from audit.tables import AUDIT_ENTRY
from keybroker import release
from keybroker.approvers import ApproverSet
from keybroker.constraints import relaxes
from keybroker.declassification import Declassification
from keybroker.keys.signing import SigningKey
from keybroker.maintenance import Maintenance
from keybroker.principals import Principal, Role
from keybroker.services.convert import constraints as read_constraints
from keybroker.store.schema import LEASE, LeaseState
from keystead.binding import AssetRef, hpke_seal, owner_key_info
from keystead.v1 import (
    asset_ref_pb2,
    asset_service_pb2,
    constraints_pb2,
    declassification_service_pb2,
    job_service_pb2,
    lineage_service_pb2,
    node_service_pb2,
)

NODES = {"n-fra": "fra-1", "n-ber": "ber-1", "n-zrh": "zrh-1", "n-ash": "ash-1"}
"""Each node with the site at which it stands when an example begins."""

AUTHOR, APPROVERS = "alice", {name: SigningKey.generate() for name in ("anna", "bert", "carl")}
THRESHOLD = 2

DRIFT = 20 * 86_400
"""Seconds by which the clock may run ahead before another broker is begun: collateral does not last for ever."""

MEMBERS = {
    "purposes": ("purposes",),
    "residency": ("allowed", "forbidden"),
    "exposure": ("exposure",),
    "sites": ("sites",),
    "retain_until": ("until",),
    "node_ceiling": ("nodes",),
    "budgets": ("opens", "key_seconds", "tokens"),
}
"""The model's words for each field of an owner's constraints."""

_numbers = itertools.count(1)


class Plant:
    """A broker that many examples share; each has assets, jobs and leases of its own."""

    def __init__(self, make: Callable[[], Factory]) -> None:
        self._make = make
        self._factory: Factory | None = None
        self._ahead = 0

    def factory(self) -> Factory:
        """The broker, with its clock ahead of whatever it said before."""
        made = self._factory
        if made is None or self._ahead > DRIFT:
            made = self._factory = self._furnished()
            self._ahead = 0
        made.clock.offset = self._ahead
        return made

    def reached(self, offset: int) -> None:
        """An example has seen this offset of the clock."""
        self._ahead = max(self._ahead, offset + 1)

    def _furnished(self) -> Factory:
        factory = self._make()
        # What one example does takes no time of its own, or it would not do the same twice.
        factory.clock.stopped = factory.clock()
        for site, place in SITES.items():
            controllers = [
                {"name": f"Holding in {law}", "jurisdiction": law, "lei": None}
                for law in sorted(place.exposures - {place.jurisdiction.partition("-")[0]})
            ]
            factory.enrol_site(site, place.jurisdiction, lifetime=3_650 * 86_400, controllers=controllers)
        for node, site in NODES.items():
            factory.enrol_node(node, site)
        owner = factory.stubs(add_client(factory, Principal(Role.OWNER, AUTHOR, "acme")))
        approvers = ApproverSet(
            tenant="acme",
            serial=1,
            threshold=THRESHOLD,
            keys={name: key.private_key.public_key().public_bytes_raw() for name, key in APPROVERS.items()},
            reason="the first",
            not_after=factory.clock() + 3_600,
        ).statement(author=AUTHOR)
        owner.declassifications.SetApprovers(
            declassification_service_pb2.SetApproversRequest(request_id=request_id(), statement=approvers.payload)
        )
        return factory


def message(demand: Demand) -> constraints_pb2.Constraints:
    """A demand as an owner's request says it."""
    members: dict[str, Any] = {
        "budgets": {
            name: value
            for name, value in (
                ("opens", demand.opens),
                ("key_seconds", demand.key_seconds),
                ("tokens_served", demand.tokens),
            )
            if value is not None
        }
    }
    if demand.allowed is not None or demand.forbidden:
        clauses = [] if demand.allowed is None else [{"areas": sorted(demand.allowed)}]
        members["residency"] = {"allowed": clauses, "forbidden": sorted(demand.forbidden)}
    if demand.exposure:
        members["exposure"] = {"forbidden": sorted(demand.exposure)}
    for name, names in (("purposes", demand.purposes), ("sites", demand.sites)):
        if names is not None:
            members[name] = {"names": sorted(names)}
    if demand.until is not None:
        members["retain_until"] = Timestamp(seconds=demand.until)
    if demand.nodes is not None:
        members["node_ceiling"] = demand.nodes
    return constraints_pb2.Constraints(**members)


def ref_of(name: str) -> AssetRef:
    return AssetRef.parse(name)


def ref_message(name: str) -> asset_ref_pb2.AssetRef:
    ref = ref_of(name)
    return asset_ref_pb2.AssetRef(asset=ref.asset, version=ref.version)


def rarely(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """None in four of five draws, so that most of what is tried is allowed."""
    return st.integers(0, 4).flatmap(lambda number: strategy if number == 4 else st.none())


def some(values: Sequence[str], least: int, most: int) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values), min_size=least, max_size=most)


WIDE = st.one_of(
    st.just(frozenset({"*"})),
    some(AREAS[1:], 1, 4),
    st.sampled_from([frozenset({"EEA", "GDPRADEQUACY"}), frozenset({"US", "CH"}), frozenset({"EU"})]),
)
PURPOSE_SETS = st.one_of(st.just(frozenset(PURPOSES)), some(PURPOSES, 1, 3))


@dataclasses.dataclass(frozen=True)
class Wish:
    """A demand that is not made yet: `until` is in seconds from now."""

    demand: Demand
    lasting: int | None

    def at(self, now: int) -> Demand:
        return dataclasses.replace(self.demand, until=None if self.lasting is None else now + self.lasting)


def wishes(*, complete: bool) -> st.SearchStrategy[Wish]:
    """Demands; `complete` ones name places and purposes, as an asset's own must."""
    return st.builds(
        Wish,
        st.builds(
            Demand,
            allowed=WIDE if complete else rarely(WIDE),
            forbidden=rarely(some(["US", "US-CA", "FR", "CH"], 1, 2)).map(lambda areas: areas or frozenset()),
            exposure=rarely(some(["US", "CH", "EU"], 1, 1)).map(lambda areas: areas or frozenset()),
            purposes=PURPOSE_SETS if complete else rarely(PURPOSE_SETS),
            sites=rarely(some(sorted(SITES), 2, 4)),
            opens=rarely(st.integers(1, 3)),
            key_seconds=rarely(st.integers(600, 5_000)),
            tokens=rarely(st.integers(10, 100)),
            nodes=rarely(st.integers(1, 2)),
        ),
        st.none() | st.sampled_from([400, 1_000, 2_000, 4_000]),
    )


@contextlib.contextmanager
def may_be_refused(*statuses: grpc.StatusCode) -> Iterator[list[str]]:
    """Collects why a call was refused; any other status is an error. A denial passes on."""
    reasons: list[str] = []
    try:
        yield reasons
    except grpc.RpcError as error:
        refusal = read_refusal(error)
        if refusal.status not in statuses:
            raise
        reasons += refusal.denied or (refusal.reason,)


REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION)


class Sovereignty(RuleBasedStateMachine):
    """The world under test, and the model beside it."""

    versions = Bundle("versions")
    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def __init__(self, plant: Plant) -> None:
        super().__init__()
        self.plant = plant
        self.factory = plant.factory()
        self.prefix = f"x{next(_numbers)}"
        self.names = itertools.count(1)
        self.grants: dict[str, list[tuple[attester.SignedGrant, int, int]]] = {}
        self.handles: dict[str, attester.Lease] = {}
        self.renewals: dict[str, int] = {}
        self.declassified: dict[str, int] = {}
        self.outputs = 0
        self.floor = self.factory.clock.offset
        now = self.factory.clock()
        self.world = World(now=now, latest=now, at=dict(NODES), installed=dict.fromkeys(NODES, True))
        self.owner = self.factory.stubs("acme-owner")
        self.author = self.factory.stubs(add_client(self.factory, Principal(Role.OWNER, AUTHOR, "acme")))
        self.scheduler = self.factory.stubs("acme-scheduler")
        self.operator = self.factory.stubs("operator")
        self.client = self.factory.client()
        self.client.__enter__()

    # --- what the tests see of time and of the store ------------------------------------------------------------------

    def look(self) -> World:
        """The world as it is now: the clock runs, and the broker may have ended leases."""
        self.world.read_clock(self.factory.clock())
        rows = self.rows()
        self.world.end(
            lease for lease in self.world.leases.values() if rows[lease.lease_id].state is not LeaseState.LIVE
        )
        return self.world

    def rows(self) -> dict[str, Any]:
        with self.factory.broker.read() as connection:
            found = connection.execute(select(LEASE).where(LEASE.c.job_uid.startswith(f"{self.prefix}-"))).all()
        return {row.lease_id: row for row in found}

    def exact(self) -> bool:
        """Whether the clock was never set back: only then must everything that is permitted be released, too."""
        return self.world.now >= self.world.latest

    # --- owners -------------------------------------------------------------------------------------------------------

    @initialize(
        target=versions,
        first=wishes(complete=True),
        second=wishes(complete=True),
        node=st.sampled_from(sorted(NODES)),
        purpose=some(PURPOSES, 1, 1),
    )
    def begin(self, first: Wish, second: Wish, node: str, purpose: frozenset[str]) -> Any:
        """Two datasets, and, where they can meet at all, a job that was granted both and made something of them."""
        names = [name for name in (self._register(first), self._register(second)) if name]
        uid = self._authorize(names, purpose, seconds=5_000, nodes=3, wait=0) if names else ""
        if uid and self._acquire(uid, node, names, grant=-1):
            names += [made for made in [self._output(uid, None)] if made]
        return multiple(*names)

    @rule(target=versions, wish=wishes(complete=True))
    def register(self, wish: Wish) -> Any:
        name = self._register(wish)
        return name or multiple()

    def _register(self, wish: Wish) -> str:
        world, asset = self.look(), f"acme/{self.prefix}-d{next(self.names)}"
        demand = wish.at(world.now)
        with may_be_refused(grpc.StatusCode.INVALID_ARGUMENT) as refused:
            self.owner.assets.RegisterAsset(
                asset_service_pb2.RegisterAssetRequest(
                    request_id=request_id(),
                    asset=asset,
                    kind=asset_service_pb2.ASSET_KIND_PREPROCESSED,
                    constraints=message(demand),
                )
            )
            self.owner.assets.AddAssetVersion(self._version_request(AssetRef(asset, 1)))
        if refused:
            # Only what forbids something can contradict itself.
            assert demand.forbidden, refused
            return ""
        return world.derive(asset, (), [demand]).name

    def _version_request(self, ref: AssetRef, parents: Sequence[str] = ()) -> Any:
        return asset_service_pb2.AddAssetVersionRequest(
            request_id=request_id(),
            ref=ref_message(str(ref)),
            parents=[ref_message(name) for name in parents],
            **self._key(ref),
        )

    def _key(self, ref: AssetRef) -> dict[str, Any]:
        wrapping = self.owner.assets.GetWrappingKey(asset_service_pb2.GetWrappingKeyRequest())
        info = owner_key_info(broker=wrapping.broker, ref=ref, key_id="k1")
        return {
            "key_id": "k1",
            "manifest_digest": b"m" * 32,
            "wrapped_key": hpke_seal(b"k" * 32, public_key=wrapping.hpke_key, info=info),
        }

    @rule(target=versions, like=versions, parents=st.lists(versions, max_size=2, unique=True))
    def add_version(self, like: str, parents: list[str]) -> Any:
        """Another version of an asset, which its owner says was derived from others."""
        world = self.look()
        asset = world.versions[like].asset
        number = len(world.versions_of(asset)) + 1
        with may_be_refused(*REFUSED) as refused:
            self.owner.assets.AddAssetVersion(self._version_request(AssetRef(asset, number), parents))
        if refused:
            event(f"a version by hand was refused: {refused[0]}")
            return multiple()
        return world.derive(asset, parents).name

    @rule(child=versions, parent=versions)
    def declare(self, child: str, parent: str) -> None:
        """The owner remembers where a version came from."""
        world = self.look()
        with may_be_refused(*REFUSED) as refused:
            self.owner.lineage.DeclareParents(
                lineage_service_pb2.DeclareParentsRequest(
                    request_id=request_id(), ref=ref_message(child), parents=[ref_message(parent)]
                )
            )
        circular = child == parent or child in world.descendants({child}) or parent in world.descendants({child})
        assert not (circular and not refused), f"{child} came from {parent}, which came from it"
        if not refused:
            version = world.versions[child]
            version.parents |= {parent}
            world.demand({child}, *world.versions[parent].demands)

    @rule(name=versions, whole=st.booleans(), wish=wishes(complete=False))
    def constrain(self, name: str, whole: bool, wish: Wish) -> None:
        """The owner demands more of a version, or of its whole asset."""
        self._constrain(name, wish, whole=whole)

    def _constrain(self, name: str, wish: Wish, *, whole: bool) -> None:
        world = self.look()
        demand, version = wish.at(world.now), world.versions[name]
        if demand == Demand():
            return
        with may_be_refused(*REFUSED) as refused:
            self.owner.assets.ConstrainAsset(
                asset_service_pb2.ConstrainAssetRequest(
                    request_id=request_id(),
                    asset=version.asset,
                    version=0 if whole else version.number,
                    constraints=message(demand),
                )
            )
        if refused:
            return
        if whole:
            world.own[version.asset].append(demand)
        world.demand([each.name for each in world.versions_of(version.asset)] if whole else [name], demand)

    @rule(
        name=versions,
        wish=wishes(complete=True),
        signers=st.just(["anna", "carl"]) | st.lists(st.sampled_from([*APPROVERS, AUTHOR]), max_size=3),
        late=st.integers(0, 3).map(lambda number: number == 3),
    )
    def declassify(self, name: str, wish: Wish, signers: list[str], late: bool) -> None:
        """Somebody proposes other constraints; whether they hold is decided by who signs."""
        world = self.look()
        demand, version = wish.at(world.now), world.versions[name]
        asset = self.owner.assets.GetAsset(asset_service_pb2.GetAssetRequest(asset=version.asset)).asset
        before = read_constraints(asset.versions[version.number - 1].constraints)
        wished = read_constraints(message(demand))
        # Only what becomes freer can be declassified.
        freer = [
            field
            for field in MEMBERS
            if (after := dataclasses.replace(before, **{field: getattr(wished, field)})) != before
            and not relaxes(after, before)
        ]
        if not freer:
            return
        after = dataclasses.replace(before, **{field: getattr(wished, field) for field in freer})
        statement = Declassification(
            ref=ref_of(name),
            serial=self.declassified.get(name, 0) + 1,
            before=before,
            after=after,
            reason=f"agreed, number {next(self.names)}",
            not_after=world.now + 600,
        ).statement(author=AUTHOR)
        with may_be_refused(grpc.StatusCode.INVALID_ARGUMENT) as refused:
            self.author.declassifications.ProposeDeclassification(
                declassification_service_pb2.ProposeDeclassificationRequest(
                    request_id=request_id(), statement=statement.payload
                )
            )
        if refused:
            assert demand.forbidden, refused
            return
        if late:
            # Meanwhile the owner demands more, which is not what was signed.
            more = Demand(forbidden=frozenset({"US-CA"}))
            with may_be_refused(*REFUSED) as unchanged:
                self.owner.assets.ConstrainAsset(
                    asset_service_pb2.ConstrainAssetRequest(
                        request_id=request_id(),
                        asset=version.asset,
                        version=version.number,
                        constraints=message(more),
                    )
                )
            if not unchanged:
                world.demand([name], more)
        keys = APPROVERS | {AUTHOR: SigningKey.generate()}
        current = self.owner.assets.GetAsset(asset_service_pb2.GetAssetRequest(asset=version.asset)).asset
        stale = read_constraints(current.versions[version.number - 1].constraints) != before
        with may_be_refused(*REFUSED, grpc.StatusCode.ABORTED) as refused:
            self.author.declassifications.ApplyDeclassification(
                declassification_service_pb2.ApplyDeclassificationRequest(
                    request_id=request_id(),
                    statement=statement.payload,
                    signatures=[statement.sign(keys[signer].private_key, signer=signer) for signer in signers],
                )
            )
        enough = len(signers) == len(set(signers)) and set(signers) <= APPROVERS.keys() and len(signers) >= THRESHOLD
        assert bool(refused) == (stale or not enough), (refused, signers, stale)
        event(f"declassification: {refused[0] if refused else 'applied'}")
        if not refused:
            world.relax(name, demand, members=[member for field in freer for member in MEMBERS[field]])
            self.declassified[name] = self.declassified.get(name, 0) + 1

    @rule(name=versions, descendants=st.booleans(), sure=st.integers(0, 9))
    def revoke(self, name: str, descendants: bool, sure: int) -> None:
        """The owner withdraws an asset; seldom, for nothing can be done with it afterwards."""
        if sure == 9:
            self._revoke(name, descendants=descendants)

    def _revoke(self, name: str, *, descendants: bool) -> None:
        world = self.look()
        asset = world.versions[name].asset
        with may_be_refused(*REFUSED) as refused:
            self.owner.assets.RevokeAsset(
                asset_service_pb2.RevokeAssetRequest(request_id=request_id(), asset=asset, descendants=descendants)
            )
        assert not refused or all(each.revoked for each in world.versions_of(asset)), refused
        names = {each.name for each in world.versions_of(asset)}
        for each in names | (world.descendants(names) if descendants else set()):
            world.versions[each].revoked = True

    # --- schedulers ---------------------------------------------------------------------------------------------------

    @rule(
        target=jobs,
        names=st.lists(versions, min_size=1, max_size=3, unique=True),
        purposes=st.one_of(some(PURPOSES, 1, 1), some(PURPOSES, 1, 2)),
        seconds=st.sampled_from([500, 2_000, 9_000]),
        nodes=st.integers(1, 3),
        wait=st.sampled_from([0, 0, 0, 300]),
    )
    def authorize(self, names: list[str], purposes: frozenset[str], seconds: int, nodes: int, wait: int) -> Any:
        uid = self._authorize(names, purposes, seconds=seconds, nodes=nodes, wait=wait)
        return uid or multiple()

    @rule(
        target=leases,
        names=st.lists(versions, min_size=1, max_size=2, unique=True),
        purposes=some(PURPOSES, 1, 1),
        nodes=st.lists(st.sampled_from(sorted(NODES)), min_size=1, max_size=4, unique=True),
    )
    def run(self, names: list[str], purposes: frozenset[str], nodes: list[str]) -> Any:
        """A job on several nodes at once, as far as they get."""
        uid = self._authorize(names, purposes, seconds=4_000, nodes=len(nodes), wait=0)
        made = [self._acquire(uid, node, names, grant=-1) for node in nodes] if uid else []
        return multiple(*(lease_id for lease_id in made if lease_id))

    @rule(
        target=versions,
        names=st.lists(versions, min_size=1, max_size=3, unique=True),
        purposes=some(PURPOSES, 1, 1),
        node=st.sampled_from(sorted(NODES)),
        later=st.sampled_from([0, 410, 1_010, 2_010]),
    )
    def produce(self, names: list[str], purposes: frozenset[str], node: str, later: int) -> Any:
        """A job gets keys one after the other, and makes something of all of them, which is used some time later."""
        uid = self._authorize(names, purposes, seconds=4_000, nodes=1, wait=0)
        got = [self._acquire(uid, node, [name], grant=-1) for name in names] if uid else []
        made = self._output(uid, None) if any(got) else ""
        if made and later:
            self._pass(later)
            using = self._authorize([made], purposes, seconds=4_000, nodes=1, wait=0)
            if using:
                self._acquire(using, node, [made], grant=-1)
        return made or multiple()

    def _authorize(self, names: Sequence[str], purposes: frozenset[str], *, seconds: int, nodes: int, wait: int) -> str:
        """Open a job; empty where it is refused."""
        world, uid = self.look(), f"{self.prefix}-j{next(self.names)}"
        starts = world.now + wait
        request = job_service_pb2.AuthorizeJobRequest(
            request_id=request_id(),
            job_uid=uid,
            assets=[ref_message(name) for name in names],
            purposes=sorted(purposes),
            node_ceiling=nodes,
            expire_time=Timestamp(seconds=world.now + seconds),
        )
        if wait:
            request.start_time.seconds = starts
        with may_be_refused(grpc.StatusCode.PERMISSION_DENIED) as refused:
            answer = self.scheduler.jobs.AuthorizeJob(request)
        if refused:
            event(f"job refused: {refused[0]}")
            self._nowhere(names, purposes, starts, refused)
            return ""
        event("job authorized")
        for name in names:
            speaks = [demand for demand in world.versions[name].demands if demand.purposes is not None]
            assert all(purposes <= (demand.purposes or frozenset()) for demand in speaks), (name, purposes)
            assert not world.versions[name].revoked, name
        world.jobs[uid] = Job(uid, tuple(sorted(names)), tuple(sorted(purposes)), nodes, starts, world.now + seconds)
        self.grants[uid] = [(attester.SignedGrant.from_proto(answer.grant), 1, world.now + seconds)]
        return uid

    def _nowhere(self, names: Sequence[str], purposes: frozenset[str], at: int, codes: Sequence[str]) -> None:
        """A job is only refused if there is no site where all of its assets may be opened."""
        world = dataclasses.replace(self.world, now=at)
        if world.metered(names) or any(
            demand.opens is not None for name in names for demand in world.versions[name].demands
        ):
            return
        for site in SITES:
            assert any(world.of_data(name, site=site, purposes=purposes) for name in names), f"{site} would do: {codes}"

    @rule(uid=jobs, more=st.sampled_from([600, 4_000]))
    def extend(self, uid: str, more: int) -> None:
        world = self.look()
        job = world.jobs[uid]
        ends = max(job.ends, world.now) + more
        with may_be_refused(*REFUSED) as refused:
            answer = self.scheduler.jobs.ExtendJob(
                job_service_pb2.ExtendJobRequest(
                    request_id=request_id(), job_uid=uid, expire_time=Timestamp(seconds=ends)
                )
            )
        if not refused:
            assert job.standing == "open", f"{uid} is {job.standing} and was extended"
            assert world.now < job.ends, f"{uid} was over and was extended"
            job.ends = ends
            self.grants[uid].append((attester.SignedGrant.from_proto(answer.grant), job.attempt, ends))
        event("extended" if not refused else f"not extended: {refused[0]}")

    @rule(uid=jobs)
    def preempt(self, uid: str) -> None:
        self._preempt(uid)

    def _preempt(self, uid: str) -> None:
        world = self.look()
        job = world.jobs[uid]
        with may_be_refused(*REFUSED) as refused:
            self.scheduler.jobs.PreemptJob(job_service_pb2.PreemptJobRequest(request_id=request_id(), job_uid=uid))
        assert bool(refused) == (job.standing == "ended"), refused
        if not refused:
            job.standing = "preempted"
            self._over(job)

    @rule(uid=jobs, seconds=st.sampled_from([500, 4_000]))
    def requeue(self, uid: str, seconds: int) -> None:
        world = self.look()
        job = world.jobs[uid]
        with may_be_refused(*REFUSED) as refused:
            answer = self.scheduler.jobs.RequeueJob(
                job_service_pb2.RequeueJobRequest(
                    request_id=request_id(), job_uid=uid, expire_time=Timestamp(seconds=world.now + seconds)
                )
            )
        if job.standing == "ended":
            assert refused, f"{uid} had ended and runs again"
            return
        self._over(job)
        if refused:
            job.standing = "preempted"
            self._nowhere(job.versions, frozenset(job.purposes), world.now, refused)
        else:
            job.standing, job.attempt = "open", job.attempt + 1
            job.starts, job.ends = world.now, world.now + seconds
            self.grants[uid].append((attester.SignedGrant.from_proto(answer.grant), job.attempt, job.ends))

    @rule(uid=jobs, sure=st.booleans())
    def end(self, uid: str, sure: bool) -> None:
        if sure:
            self._end(uid)

    def _end(self, uid: str) -> None:
        job = self.look().jobs[uid]
        self.scheduler.jobs.EndJob(job_service_pb2.EndJobRequest(request_id=request_id(), job_uid=uid))
        job.standing = "ended"
        self._over(job)

    def _over(self, job: Job) -> None:
        """No lease of a job may be left."""
        mine = [lease for lease in self.world.leases.values() if lease.job == job.uid]
        rows = self.rows()
        assert all(rows[lease.lease_id].state is not LeaseState.LIVE for lease in mine), job
        self.world.end(mine)

    @rule(target=versions, uid=jobs, like=st.none() | versions)
    def output(self, uid: str, like: str | None) -> Any:
        """A job made something: a new asset, or another version of one."""
        made = self._output(uid, like)
        return made or multiple()

    def _output(self, uid: str, like: str | None) -> str:
        world = self.look()
        job = world.jobs[uid]
        asset = f"acme/{self.prefix}-o{next(self.names)}" if like is None else world.versions[like].asset
        ref = AssetRef(asset, len(world.versions_of(asset)) + 1)
        request = lineage_service_pb2.RegisterOutputRequest(
            request_id=request_id(), job_uid=uid, ref=ref_message(str(ref)), **self._key(ref)
        )
        if like is None:
            request.new_asset.kind = asset_service_pb2.ASSET_KIND_CHECKPOINT
        with may_be_refused(*REFUSED) as refused:
            answer = self.scheduler.lineage.RegisterOutput(request)
        event("output registered" if not refused else f"output refused: {refused[0]}")
        if refused:
            return ""
        assert {f"{each.asset}@{each.version}" for each in answer.parents} == job.granted, "what the job was granted"
        if like is None:
            # It demands by itself what its first version inherited.
            own = [demand for name in sorted(job.granted) for demand in world.versions[name].demands]
            world.own[asset] = own
        self.outputs += 1
        return world.derive(asset, job.granted).name

    # --- nodes --------------------------------------------------------------------------------------------------------

    @rule(
        target=leases,
        uid=jobs,
        node=st.sampled_from(sorted(NODES)),
        which=st.integers(0, 7),
        old=st.integers(0, 9),
    )
    def acquire(self, uid: str, node: str, which: int, old: int) -> Any:
        """A node asks for all that the job may open, or some of it, perhaps with a grant that was replaced since."""
        versions = self.world.jobs[uid].versions
        names = [name for bit, name in enumerate(versions) if not which >> bit & 1] or list(versions)
        made = self._acquire(uid, node, names, grant=-1 if old else 0)
        return made or multiple()

    @rule(
        target=leases,
        name=versions,
        node=st.sampled_from(sorted(NODES)),
        purposes=some(PURPOSES, 1, 1),
        wish=wishes(complete=False),
        what=st.sampled_from(["constrain", "move", "preempt", "end", "revoke"]),
        site=st.sampled_from(sorted(SITES)),
    )
    def race(self, *, name: str, node: str, purposes: frozenset[str], wish: Wish, what: str, site: str) -> Any:
        """Something changes after the policy has said yes, and before the lease is committed."""
        uid = self._authorize([name], purposes, seconds=4_000, nodes=1, wait=0)
        if not uid:
            return multiple()
        job = self.world.jobs[uid]

        def change() -> None:
            match what:
                case "constrain":
                    self._constrain(job.versions[0], wish, whole=False)
                case "move":
                    self._stand(node, site, installed=True)
                case "preempt":
                    self._preempt(uid)
                case "end":
                    self._end(uid)
                case _:
                    self._revoke(job.versions[0], descendants=False)

        wrong: list[BaseException] = []
        decide, waiting = release.decide, [change]

        def decide_and_change(*args: Any, **kwargs: Any) -> Any:
            verdict = decide(*args, **kwargs)
            if waiting and not verdict.reasons:
                try:
                    waiting.pop()()
                except BaseException as error:  # noqa: BLE001 the server's thread; raised again in the test's own
                    wrong.append(error)
            return verdict

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(release, "decide", decide_and_change)
            made = self._acquire(uid, node, list(job.versions), grant=-1)
        if wrong:
            raise wrong[0]
        event("nothing to race with" if waiting else f"raced: {what}")
        return made or multiple()

    def _acquire(self, uid: str, node: str, names: Sequence[str], *, grant: int) -> str:
        """Ask for a lease with one of the job's grants; empty where it is refused.

        What counts is what holds when the lease is committed: it is looked at when the broker has answered.
        """
        # No two leases at the same instant: where a ceiling is lowered, the oldest stay, and it must be plain which.
        self._pass(1)
        world = self.look()
        job = world.jobs[uid]
        signed, attempt, ends = self.grants[uid][grant]

        def against() -> set[str]:
            return world.against(job, node, names, ends=ends, attempt=attempt)

        try:
            lease = attester.acquire(
                self.client,
                SimulatedCollector(self.factory.nodes[node]),
                grant=signed,
                assets=[ref_of(name) for name in names],
                node_id=node,
                nonce=None,
                clock=lambda: 0.0,
                monotonic=lambda: 0.0,
            )
        except attester.AccessDeniedError as error:
            event("key refused")
            codes = {reason.code for reason in error.reasons}
            assert against() or not self.exact() or world.metered(names), f"refused for nothing: {codes}"
            return ""
        assert not against(), f"{names} at {world.at[node]} for {job.purposes}: {sorted(against())}"
        event(f"key released, {max(len(world.versions[name].parents) for name in names)} parents")
        terms = lease.terms
        world.leases[lease.lease_id] = Held(lease.lease_id, uid, node, tuple(names), world.now, terms.expires_at)
        job.granted |= set(names)
        self.handles[lease.lease_id] = lease
        return lease.lease_id

    @rule(lease_id=leases)
    def renew(self, lease_id: str) -> None:
        world = self.look()
        held, handle = world.leases[lease_id], self.handles[lease_id]
        job = world.jobs[held.job]
        against = world.against(job, held.node, held.versions, ends=job.ends, attempt=job.attempt, lease=lease_id)
        if held.ended_at is not None:
            against.add("the lease is over")
        try:
            handle.renew()
        except (attester.LeaseEndedError, attester.AccessDeniedError, RequestRefusedError):
            assert against or not self.exact() or world.metered(held.versions), f"{held} was refused for nothing"
            event("renewal refused")
        else:
            assert not against, f"{held} renewed: {sorted(against)}"
            held.expires_at, held.renewals = handle.terms.expires_at, held.renewals + 1
            event("renewed")

    @rule(lease_id=leases, tokens=st.integers(1, 60))
    def use(self, lease_id: str, tokens: int) -> None:
        """A node reports what it gave out."""
        world = self.look()
        held, handle = world.leases[lease_id], self.handles[lease_id]
        if held.ended_at is not None or handle.terms.report_every is None:
            return
        for name in held.versions:
            handle.count(name, tokens=tokens)
        with contextlib.suppress(RequestRefusedError):
            handle.report()
            event("use reported")
            for name in held.versions:
                held.tokens[name] = held.tokens.get(name, 0) + tokens

    @rule(lease_id=consumes(leases))
    def give_back(self, lease_id: str) -> None:
        world = self.look()
        with contextlib.suppress(attester.BrokerError):
            self.handles[lease_id].return_()
        world.end([world.leases[lease_id]])

    # --- operators, and time ------------------------------------------------------------------------------------------

    @rule(node=st.sampled_from(sorted(NODES)), site=st.sampled_from(sorted(SITES)), installed=st.booleans())
    def move(self, node: str, site: str, installed: bool) -> None:
        """A node is carried to another site; it may take a while until it stands there."""
        self._stand(node, site, installed=installed)

    def _stand(self, node: str, site: str, *, installed: bool) -> None:
        world = self.look()
        if world.at[node] == site and world.installed[node]:
            return
        if world.at[node] != site:
            self._move(node, site)
            rows = self.rows()
            mine = [lease for lease in world.leases.values() if lease.node == node]
            assert all(rows[lease.lease_id].state is not LeaseState.LIVE for lease in mine), "moved with keys"
            world.end(mine)
            world.at[node], world.installed[node] = site, False
        if installed:
            self._install(node)
            world.installed[node] = True

    def _move(self, node: str, site: str) -> None:
        self.operator.nodes.MoveNode(
            node_service_pb2.MoveNodeRequest(request_id=request_id(), node_id=node, site_id=site, reason="moved")
        )

    def _install(self, node: str) -> None:
        self.operator.nodes.SetNodeCustody(
            node_service_pb2.SetNodeCustodyRequest(
                request_id=request_id(),
                node_id=node,
                custody=node_service_pb2.NODE_CUSTODY_INSTALLED,
                reason="stands there",
            )
        )

    @rule(seconds=st.sampled_from([30, 400, 950, 3_700]))
    def wait(self, seconds: int) -> None:
        self._pass(seconds)

    def _pass(self, seconds: int) -> None:
        self.factory.clock.offset += seconds
        self.plant.reached(self.factory.clock.offset)
        # Otherwise it would depend on the sweeper's own time what is marked as over when the clock is set back.
        Maintenance(self.factory.broker).sweep()
        self.look()

    @precondition(lambda self: self.factory.clock.offset > self.floor)
    @rule(seconds=st.sampled_from([30, 1_000, 5_000]))
    def set_clock_back(self, seconds: int) -> None:
        self.factory.clock.offset = max(self.floor, self.factory.clock.offset - seconds)

    # --- what must hold after every step ------------------------------------------------------------------------------

    @invariant()
    def nothing_is_held_that_may_not_be(self) -> None:
        world, rows = self.look(), self.rows()
        assert rows.keys() == world.leases.keys(), "a lease that nobody was told of"
        for lease_id, row in rows.items():
            if row.state is not LeaseState.LIVE or row.expires_at <= world.now:
                continue
            held = world.leases[lease_id]
            job = world.jobs[held.job]
            assert held.ended_at is None, f"{held} lives on"
            assert job.standing == "open", f"{held} outlives its job"
            assert row.expires_at == held.expires_at <= job.ends, f"{held} outlives its grant"
            for name in held.versions:
                against = world.of_data(name, site=world.at[held.node], purposes=job.purposes)
                assert not against, f"{held}: {sorted(against)}"

    @invariant()
    def no_budget_is_overspent(self) -> None:
        world = self.world
        for name, version in world.versions.items():
            for demand in version.demands:
                if demand.key_seconds is not None:
                    most = demand.key_seconds + world.late.get((name, demand), 0)
                    assert world.seconds(name) <= most, f"{name}: keys held {world.seconds(name)} s of {most}"

    def teardown(self) -> None:
        try:
            self._every_release_has_its_record()
        finally:
            self.client.__exit__(None, None, None)
            for node, site in NODES.items():
                if self.world.at[node] != site:
                    self._move(node, site)
                if self.world.at[node] != site or not self.world.installed[node]:
                    self._install(node)
            self.plant.reached(self.world.latest - self.world.now + self.factory.clock.offset)

    def _every_release_has_its_record(self) -> None:
        def count(kind: str, *conditions: Any) -> int:
            with self.factory.broker.read() as connection:
                return connection.execute(
                    select(func.count()).select_from(AUDIT_ENTRY).where(AUDIT_ENTRY.c.kind == kind, *conditions)
                ).scalar_one()

        for held in self.world.leases.values():
            assert count("lease.granted", AUDIT_ENTRY.c.lease == held.lease_id) == 1, held
            assert count("lease.renewed", AUDIT_ENTRY.c.lease == held.lease_id) == held.renewals, held


@pytest.mark.slow
def test_constraints_hold_whatever_happens(make_factory: Callable[..., Factory]) -> None:
    """60 seconds of one processor or so; the profile ``long`` asks for more examples."""
    plant = Plant(make_factory)
    run_state_machine_as_test(
        lambda: Sovereignty(plant),
        settings=settings(
            max_examples=max(10, settings.default.max_examples // 4),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_model_joins_nothing() -> None:
    """What the model says of a child is what it says of its parents, one by one."""
    world = World(now=0, latest=0, at={}, installed={})
    world.derive("acme/eu", (), [Demand(allowed=frozenset({"EEA", "GDPRADEQUACY"}))])
    world.derive("acme/us", (), [Demand(allowed=frozenset({"US", "CH"}), purposes=frozenset({"evaluation"}))])
    child: Version = world.derive("acme/both", ["acme/eu@1", "acme/us@1"], [])
    assert [site for site in SITES if not world.of_data(child.name, site=site, purposes=["evaluation"])] == ["zrh-1"]
    assert world.of_data(child.name, site="zrh-1", purposes=["inference"]) == {"acme/both@1: purpose"}
    world.demand(["acme/eu@1"], Demand(forbidden=frozenset({"CH"})))
    assert world.of_data(child.name, site="zrh-1", purposes=["evaluation"]) == {"acme/both@1: place forbidden"}
