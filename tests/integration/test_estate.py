"""The estate against the real broker: sites that two parties sign, nodes that move, partitions, clones, imports."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from calls import refusal
from factory import Factory, furnish, recorded, request_id
from prometheus_client import REGISTRY
from sqlalchemy import func, select

from attestation.simulator.node import SimulatedNode
from audit.records import Kind, Record
from keybroker.store import leases, nodes
from keybroker.store.schema import LeaseState, NodeState
from keystead.v1 import node_service_pb2 as npb
from keystead.v1 import site_service_pb2 as spb


def records(factory: Factory, kind: Kind) -> list[Record]:
    """The log's records of one kind, oldest first."""
    with factory.broker.read() as connection:
        return recorded(connection, kind.value)


def enrol(factory: Factory, record: spb.SignedStatement) -> Any:
    """Enrol a site by this record."""
    return factory.stubs("operator").sites.EnrolSite(spb.EnrolSiteRequest(request_id=request_id(), record=record))


def renew(factory: Factory, record: spb.SignedStatement) -> Any:
    """Renew a site by this record."""
    return factory.stubs("operator").sites.RenewSite(spb.RenewSiteRequest(request_id=request_id(), record=record))


def refused(call: Callable[[], Any]) -> str:
    """The reason why a call is refused."""
    return refusal(call).reason


def lease_state(factory: Factory, lease_id: str) -> LeaseState:
    """What became of a lease."""
    with factory.broker.read() as connection:
        return leases.get(connection, lease_id).state


def denied(factory: Factory, node_id: str, ref: Any, **changes: Any) -> set[str]:
    """The codes with which a lease is refused."""
    from attester.errors import AccessDeniedError

    with pytest.raises(AccessDeniedError) as caught:
        factory.acquire(node_id, factory.authorize(ref), ref, **changes)
    return {reason.code for reason in caught.value.reasons}


def change_node(factory: Factory, name: str, **fields: Any) -> Any:
    """Call one of the node service's changes."""
    request = getattr(npb, f"{name}Request")(request_id=request_id(), **fields)
    return getattr(factory.stubs("operator").nodes, name)(request)


@pytest.fixture
def furnished(make_factory: Callable[..., Factory]) -> Factory:
    """Two sites, three nodes."""
    return furnish(make_factory())


class TestSites:
    def test_a_record_needs_two_authorities(self, make_factory: Callable[..., Factory]) -> None:
        factory = make_factory()
        record = factory.site_record("ber-1", "DE-BE")
        assert refused(lambda: enrol(factory, factory.signed(record, "legal"))) == "SIGNATURES_MISSING"
        twice = factory.signed(record, "legal", "legal")
        assert refused(lambda: enrol(factory, twice)) == "BAD_STATEMENT"
        other = factory.site_record("ber-2", "DE-BE")
        mixed = factory.signed(record, "legal")
        mixed.signatures.extend(factory.signed(other, "facility").signatures)
        assert refused(lambda: enrol(factory, mixed)) == "BAD_STATEMENT"
        site = enrol(factory, factory.signed(record)).site
        assert (site.site_id, site.serial, site.state) == ("ber-1", 1, spb.SITE_STATE_ACTIVE)
        assert list(site.exposures) == ["DE"]
        assert refused(lambda: enrol(factory, factory.signed(record))) == "ALREADY_EXISTS"
        (entry,) = records(factory, Kind.SITE_ENROLLED)
        assert entry.detail["signers"] == ("facility", "legal")
        assert entry.detail["statement_digest"] == record.digest.hex()
        shown = factory.stubs("operator").sites.GetSite(spb.GetSiteRequest(site_id="ber-1"))
        assert shown.record.statement == record.payload
        assert len(shown.record.signatures) == 2

    def test_places_and_times_that_cannot_be(self, make_factory: Callable[..., Factory]) -> None:
        factory = make_factory()
        now = factory.clock()
        operator = {"name": "Factory", "jurisdiction": "XX", "lei": None}
        for changes, field in (
            ({"jurisdiction": "DE-XX"}, "jurisdiction"),
            ({"jurisdiction": "EU"}, "jurisdiction"),
            ({"operator": operator}, "operator.jurisdiction"),
            ({"valid_from": now + 3_600}, "valid_from"),
            ({"valid_until": now - 10}, "valid_from"),
        ):
            record = factory.site_record("ber-1", "DE")
            body = dict(record.body) | changes
            signed = factory.signed(type(record).write(kind=record.kind, author="operator", body=body))
            found = refusal(lambda signed=signed: enrol(factory, signed))
            assert found.reason == "BAD_STATEMENT"
            assert field in found.message
        assert records(factory, Kind.SITE_ENROLLED) == []

    def test_a_newer_record_takes_the_place_of_an_older(self, furnished: Factory) -> None:
        factory = furnished
        ref = factory.register_asset()
        held = factory.acquire("node-a", factory.authorize(ref), ref)
        same = factory.signed(factory.site_record("fra-1", "FR", serial=2, lifetime=90 * 86_400))
        assert renew(factory, same).site.serial == 2
        assert lease_state(factory, held.lease_id) is LeaseState.LIVE
        assert refused(lambda: renew(factory, same)) == "STATE_CONFLICT"
        controlled = factory.site_record(
            "fra-1", "FR", serial=5, controllers=[{"name": "Holding", "jurisdiction": "US", "lei": None}]
        )
        assert list(renew(factory, factory.signed(controlled)).site.exposures) == ["FR", "US"]
        assert lease_state(factory, held.lease_id) is LeaseState.REVOKED
        older = factory.signed(factory.site_record("fra-1", "FR", serial=4))
        assert refused(lambda: renew(factory, older)) == "STATE_CONFLICT"
        unknown = factory.signed(factory.site_record("nowhere", "FR", serial=2))
        assert refused(lambda: renew(factory, unknown)) == "NOT_FOUND"
        assert [record.detail["revoked_leases"] for record in records(factory, Kind.SITE_RENEWED)] == [0, 1]

    def test_one_suspends_and_two_reinstate(self, furnished: Factory) -> None:
        factory = furnished
        ref = factory.register_asset()
        held = factory.acquire("node-a", factory.authorize(ref), ref)
        suspend = spb.SuspendSiteRequest(request_id=request_id(), site_id="fra-1", reason="fence breached")
        operator = factory.stubs("operator").sites
        assert operator.SuspendSite(suspend).site.state == spb.SITE_STATE_SUSPENDED
        assert operator.SuspendSite(suspend).site.state == spb.SITE_STATE_SUSPENDED
        assert lease_state(factory, held.lease_id) is LeaseState.REVOKED
        again = spb.SuspendSiteRequest(request_id=request_id(), site_id="fra-1", reason="again")
        assert refused(lambda: operator.SuspendSite(again)) == "STATE_CONFLICT"
        assert refusal(lambda: factory.authorize(ref, sites=["fra-1"])).denied
        alone = factory.signed(factory.site_record("fra-1", "FR", serial=2), "facility")
        assert refused(lambda: renew(factory, alone)) == "SIGNATURES_MISSING"
        renew(factory, factory.signed(factory.site_record("fra-1", "FR", serial=2)))
        factory.acquire("node-a", factory.authorize(ref), ref)
        (entry,) = records(factory, Kind.SITE_SUSPENDED)
        assert (entry.site, entry.detail["reason"], entry.detail["revoked_leases"]) == ("fra-1", "fence breached", 1)

    def test_only_operators(self, furnished: Factory) -> None:
        record = furnished.signed(furnished.site_record("ber-1", "DE"))
        for profile in ("acme-owner", "acme-scheduler", "node", "auditor"):
            stub = furnished.stubs(profile).sites
            request = spb.EnrolSiteRequest(request_id=request_id(), record=record)
            assert refused(lambda stub=stub, request=request: stub.EnrolSite(request)) == "ROLE_NOT_ALLOWED"


class TestNodes:
    def test_custody_decides_whether_keys_come(self, furnished: Factory) -> None:
        factory = furnished
        ref = factory.register_asset()
        held = factory.acquire("node-a", factory.authorize(ref), ref)
        node = change_node(
            factory, "SetNodeCustody", node_id="node-a", custody=npb.NODE_CUSTODY_MAINTENANCE, reason="fan"
        ).node
        assert node.custody == npb.NODE_CUSTODY_MAINTENANCE
        assert lease_state(factory, held.lease_id) is LeaseState.REVOKED
        assert "NODE_CUSTODY" in denied(factory, "node-a", ref)
        change_node(factory, "SetNodeCustody", node_id="node-a", custody=npb.NODE_CUSTODY_INSTALLED, reason="back")
        factory.acquire("node-a", factory.authorize(ref), ref)
        first, second = records(factory, Kind.NODE_CUSTODY_CHANGED)
        assert (first.detail["from"], first.detail["to"], first.detail["revoked_leases"]) == (
            "installed",
            "maintenance",
            1,
        )
        assert second.detail["to"] == "installed"

    def test_the_end_of_a_node_is_final(self, furnished: Factory) -> None:
        factory = furnished
        gone = {"node_id": "node-a", "custody": npb.NODE_CUSTODY_DECOMMISSIONED, "reason": "sold"}
        change_node(factory, "SetNodeCustody", **gone)
        back = gone | {"custody": npb.NODE_CUSTODY_INSTALLED}
        assert refused(lambda: change_node(factory, "SetNodeCustody", **back)) == "STATE_CONFLICT"
        assert refused(lambda: change_node(factory, "MoveNode", node_id="node-a", rack="r", reason="x")) == (
            "STATE_CONFLICT"
        )
        retire = {"node_id": "node-a", "state": npb.NODE_STATE_RETIRED, "reason": "gone"}
        assert change_node(factory, "SetNodeState", **retire).node.state == npb.NODE_STATE_RETIRED
        for state in (npb.NODE_STATE_ACTIVE, npb.NODE_STATE_QUARANTINED):
            call = {"node_id": "node-a", "state": state, "reason": "back"}
            assert refused(lambda call=call: change_node(factory, "SetNodeState", **call)) == "STATE_CONFLICT"
        with factory.broker.read() as connection:
            assert nodes.get(connection, "node-a").state is NodeState.RETIRED

    def test_a_move_within_a_site_keeps_leases_and_another_site_ends_them(self, furnished: Factory) -> None:
        factory = furnished
        ref = factory.register_asset(allowed=("EU", "US"))
        held = factory.acquire("node-a", factory.authorize(ref), ref)
        moved = change_node(factory, "MoveNode", node_id="node-a", rack="r07", power_zone="a", reason="row 3").node
        assert (moved.site_id, moved.rack, moved.power_zone, moved.cooling_zone) == ("fra-1", "r07", "a", "")
        assert lease_state(factory, held.lease_id) is LeaseState.LIVE
        moved = change_node(factory, "MoveNode", node_id="node-a", site_id="ash-1", reason="sold").node
        assert (moved.site_id, moved.rack, moved.custody) == ("ash-1", "", npb.NODE_CUSTODY_IN_TRANSIT)
        assert lease_state(factory, held.lease_id) is LeaseState.REVOKED
        assert "NODE_CUSTODY" in denied(factory, "node-a", ref)
        change_node(factory, "SetNodeCustody", node_id="node-a", custody=npb.NODE_CUSTODY_INSTALLED, reason="there")
        factory.acquire("node-a", factory.authorize(ref), ref)
        assert (
            refused(lambda: change_node(factory, "MoveNode", node_id="node-a", site_id="x", reason="y")) == "NOT_FOUND"
        )
        assert refused(lambda: change_node(factory, "MoveNode", node_id="node-a", reason="y")) == "INVALID_REQUEST"
        within, across = records(factory, Kind.NODE_MOVED)
        assert (within.detail["revoked_leases"], across.detail["revoked_leases"]) == (0, 1)
        assert (across.detail["from_site"], across.detail["from_rack"], across.site) == ("fra-1", "r07", "ash-1")

    def test_a_gpu_is_exchanged_and_the_old_one_stays_out(self, furnished: Factory) -> None:
        factory = furnished
        ref = factory.register_asset()
        old = factory.nodes["node-b"]
        spare = factory.vendors.node("spare", now=factory.clock(), gpus=1)
        fresh = spare.identities()["gpu0"]
        add = {"slot": "gpu0", "kind": fresh.kind, "value": fresh.value}
        held = factory.acquire("node-b", factory.authorize(ref), ref)
        changed = change_node(
            factory, "ChangeNodeDevices", node_id="node-b", remove=["gpu0"], add=[add], reason="RMA 1"
        ).node
        assert {device.slot: device.value for device in changed.devices}["gpu0"] == fresh.value
        assert lease_state(factory, held.lease_id) is LeaseState.REVOKED
        refitted = refit(old, spare)
        factory.acquire("node-b", factory.authorize(ref), ref, node=refitted)
        assert denied(factory, "node-b", ref) >= {"DEVICE_RETIRED", "DEVICE_MISSING"}
        before = old.identities()["gpu0"]
        returned = {"slot": "gpu1", "kind": before.kind, "value": before.value}
        for call in (
            {"node_id": "node-b", "add": [returned], "reason": "back"},
            {"node_id": "node-a", "add": [returned | {"slot": "gpu7"}], "reason": "elsewhere"},
        ):
            assert refused(lambda call=call: change_node(factory, "ChangeNodeDevices", **call)) == "IDENTITY_ENROLLED"
        (entry,) = records(factory, Kind.NODE_DEVICES_CHANGED)
        assert set(entry.hardware) == {str(before), str(fresh)}
        assert len(records(factory, Kind.IDENTITY_CLONED)) == 2

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"remove": ["cpu0"]}, "remove[0]"),
            ({"remove": ["gpu9"]}, "remove[0]"),
            ({"remove": ["gpu0", "gpu0"]}, "remove"),
            ({}, "add"),
            ({"add": [{"slot": "cpu0", "kind": "amd-chip-id", "value": "ee" * 64}]}, "add"),
            ({"add": [{"slot": "gpu5", "kind": "nvidia-gpu", "value": "x"}]}, "add[0].value"),
            ({"remove": ["gpu0"], "reason": ""}, "reason"),
        ],
    )
    def test_exchanges_that_cannot_be(self, furnished: Factory, fields: dict[str, Any], field: str) -> None:
        request = {"node_id": "node-b", "reason": "why"} | fields
        found = refusal(lambda: change_node(furnished, "ChangeNodeDevices", **request))
        assert (found.reason, found.field) == ("INVALID_REQUEST", field)


def refit(node: SimulatedNode, spare: SimulatedNode) -> SimulatedNode:
    """`node` with the GPUs of `spare`."""
    from dataclasses import replace

    return replace(node, gpus=spare.gpus)


def part(whole: SimulatedNode, *gpus: int) -> SimulatedNode:
    """A partition of a host: its CPU, and some of its GPUs, numbered anew."""
    from dataclasses import replace

    return replace(whole, gpus=tuple(whole.gpus[number] for number in gpus))


def enrol_part(factory: Factory, node_id: str, node: SimulatedNode, partition: str) -> Any:
    """Enrol a partition."""
    devices = [
        {"slot": slot, "kind": identity.kind, "value": identity.value} for slot, identity in node.identities().items()
    ]
    return factory.stubs("operator").nodes.EnrolNode(
        npb.EnrolNodeRequest(
            request_id=request_id(),
            node={"node_id": node_id, "site_id": "fra-1", "devices": devices, "partition": partition},  # type: ignore[arg-type]
        )
    )


class TestPartitions:
    @pytest.fixture
    def host(self, furnished: Factory) -> SimulatedNode:
        """A host with four GPUs in two partitions."""
        whole = furnished.vendors.node("host", now=furnished.clock(), gpus=4)
        enrol_part(furnished, "host-p0", part(whole, 0, 1), "p0")
        enrol_part(furnished, "host-p1", part(whole, 2), "p1")
        return whole

    def test_each_partition_is_a_node(self, furnished: Factory, host: SimulatedNode) -> None:
        ref = furnished.register_asset()
        first = furnished.acquire("host-p0", furnished.authorize(ref), ref, node=part(host, 0, 1))
        second = furnished.acquire("host-p1", furnished.authorize(ref), ref, node=part(host, 2))
        assert first.lease_id != second.lease_id
        assert denied(furnished, "host-p0", ref, node=part(host, 2)) == {"NODE_CLAIM_MISMATCH"}
        assert denied(furnished, "host-p0", ref, node=part(host, 0)) >= {"DEVICE_MISSING"}

    def test_what_belongs_to_both_or_to_none_is_refused(self, furnished: Factory, host: SimulatedNode) -> None:
        ref = furnished.register_asset()
        assert "NODE_AMBIGUOUS" in denied(furnished, "host-p0", ref, node=part(host, 0, 2))
        assert "NODE_AMBIGUOUS" in denied(furnished, "host-p0", ref, node=part(host, 3))
        (alarm,) = records(furnished, Kind.IDENTITY_CLONED)
        assert len(alarm.hardware) == 2

    def test_overlapping_enrolments_are_refused(self, furnished: Factory, host: SimulatedNode) -> None:
        for node_id, node, partition in (
            ("host-p2", part(host, 2), "p2"),
            ("host-p1b", part(host, 3), "p1"),
            ("host-whole", part(host, 3), ""),
        ):
            assert (
                refused(lambda a=node_id, b=node, c=partition: enrol_part(furnished, a, b, c)) == "IDENTITY_ENROLLED"
            ), node_id
        bare = refusal(lambda: enrol_part(furnished, "bare", part(host), "p9"))
        assert (bare.reason, bare.field) == ("INVALID_REQUEST", "node.devices")
        whole = furnished.nodes["node-a"]
        spare = furnished.vendors.node("other", now=furnished.clock(), gpus=1)
        divided = part(whole)
        assert refused(lambda: enrol_part(furnished, "late", refit(divided, spare), "p0")) == "IDENTITY_ENROLLED"
        enrol_part(furnished, "host-p2", part(host, 3), "p2")


class TestClones:
    def test_a_gpu_beside_another_cpu_is_raised(self, furnished: Factory) -> None:
        factory = furnished
        ref = factory.register_asset()
        before = REGISTRY.get_sample_value("keystead_identity_cloned_total", {"seen": "evidence"}) or 0
        stolen = refit(factory.nodes["node-b"], factory.nodes["node-us"])
        assert "DEVICE_OF_ANOTHER_NODE" in denied(factory, "node-b", ref, node=stolen)
        (alarm,) = records(factory, Kind.IDENTITY_CLONED)
        assert alarm.hardware == (str(factory.nodes["node-us"].identities()["gpu0"]),)
        assert (alarm.node, alarm.reasons, alarm.detail["seen"]) == ("node-b", ("IDENTITY_CLONED",), "evidence")
        assert REGISTRY.get_sample_value("keystead_identity_cloned_total", {"seen": "evidence"}) == before + 1

    def test_an_enrolled_gpu_beside_an_unknown_cpu_is_raised(self, furnished: Factory) -> None:
        factory = furnished
        ref = factory.register_asset()
        unknown = refit(factory.vendors.node("unknown", now=factory.clock(), gpus=1), factory.nodes["node-b"])
        assert "DEVICE_NOT_ENROLLED" in denied(factory, "unknown", ref, node=unknown)
        (alarm,) = records(factory, Kind.IDENTITY_CLONED)
        assert (alarm.node, alarm.hardware) == (None, (str(factory.nodes["node-b"].identities()["gpu0"]),))

    def test_a_second_enrolment_is_raised(self, furnished: Factory) -> None:
        factory = furnished
        assert refused(lambda: enrol_part(factory, "twin", factory.nodes["node-b"], "")) == "IDENTITY_ENROLLED"
        (alarm,) = records(factory, Kind.IDENTITY_CLONED)
        assert (alarm.node, alarm.detail["seen"]) == ("node-b", "enrolment")


def imported(number: int, *, site: str = "fra-1", gpus: int = 1, **fields: Any) -> npb.ImportedNode:
    """A node of a file that stands on the line after its number."""
    devices = [npb.DeviceIdentity(slot="cpu0", kind="amd-chip-id", value=f"{number:0128x}")]
    devices += [
        npb.DeviceIdentity(slot=f"gpu{gpu}", kind="nvidia-gpu", value=f"{number:08x}{gpu:08x}") for gpu in range(gpus)
    ]
    node = npb.Node(node_id=f"import-{number}", site_id=site, devices=devices)
    for name, value in fields.items():
        setattr(node, name, value)
    return npb.ImportedNode(line=number + 1, node=node)


def send(factory: Factory, *found: npb.ImportedNode, dry_run: bool = False, identifier: str = "") -> Any:
    """Import nodes."""

    def messages() -> Iterator[npb.ImportNodesRequest]:
        yield npb.ImportNodesRequest(start=npb.ImportStart(request_id=identifier or str(uuid.uuid4()), dry_run=dry_run))
        for start in range(0, len(found), 7):
            yield npb.ImportNodesRequest(nodes=npb.ImportedNodes(nodes=found[start : start + 7]))

    return factory.stubs("operator").nodes.ImportNodes(messages())


def count(factory: Factory) -> int:
    """How many nodes are enrolled."""
    with factory.broker.read() as connection:
        return connection.execute(select(func.count()).select_from(nodes.NODE)).scalar_one()


class TestImport:
    def test_all_are_enrolled_at_once(self, any_factory: Factory) -> None:
        factory = any_factory
        before = count(factory)
        identifier = str(uuid.uuid4())
        wanted = [imported(number, gpus=2, rack="r1") for number in range(1, 40)]
        assert send(factory, *wanted, dry_run=True).nodes == 39
        assert count(factory) == before
        answer = send(factory, *wanted, identifier=identifier)
        assert (answer.nodes, answer.devices, answer.problem_count) == (39, 117, 0)
        assert count(factory) == before + 39
        assert send(factory, *wanted, identifier=identifier) == answer
        assert count(factory) == before + 39
        with factory.broker.read() as connection:
            row = nodes.get(connection, "import-7")
        assert (row.rack, [device.slot for device in row.devices]) == ("r1", ["cpu0", "gpu0", "gpu1"])
        (summary,) = records(factory, Kind.NODES_IMPORTED)
        assert (summary.detail["nodes"], summary.detail["devices"]) == (39, 117)
        assert len([each for each in records(factory, Kind.NODE_ENROLLED) if each.node == "import-7"]) == 1

    def test_one_bad_line_changes_nothing_and_every_problem_is_named(self, any_factory: Factory) -> None:
        factory = any_factory
        before = count(factory)
        taken = factory.nodes["node-b"].identities()["gpu0"]
        bad = imported(50)
        bad.node.devices[1].CopyFrom(npb.DeviceIdentity(slot="gpu0", kind=taken.kind, value=taken.value))
        broken = imported(51)
        broken.node.devices[0].value = "xyz"
        named = imported(53)
        named.node.node_id = "node-a"
        again = imported(54)
        again.node.devices[1].CopyFrom(imported(1).node.devices[1])
        again.device_lines.extend([900, 901])
        twice = imported(55)
        twice.node.node_id = "import-2"
        part = imported(56, partition="p0")
        part.node.devices[0].CopyFrom(imported(3).node.devices[0])
        found = [*(imported(number) for number in range(1, 30)), bad, broken, imported(52, site="nowhere"), named]
        answer = send(factory, *found, again, twice, part)
        assert count(factory) == before
        assert records(factory, Kind.NODES_IMPORTED) == []
        assert [(each.line, each.field, each.code) for each in answer.problems] == [
            (51, "devices.gpu0", "IDENTITY_ENROLLED"),
            (52, "node.devices[0].value", "INVALID_REQUEST"),
            (53, "site_id", "NOT_FOUND"),
            (54, "node_id", "ALREADY_EXISTS"),
            (56, "node_id", "ALREADY_EXISTS"),
            (57, "partition", "IDENTITY_ENROLLED"),
            (901, "devices.gpu0", "IDENTITY_ENROLLED"),
        ]
        assert answer.problem_count == 7
        (alarm,) = records(factory, Kind.IDENTITY_CLONED)
        assert alarm.hardware == (str(taken),)

    def test_hosts_that_are_settled_otherwise(self, furnished: Factory) -> None:
        chip = furnished.nodes["node-a"].identities()["cpu0"]
        mixed = imported(60, partition="p0")
        mixed.node.devices[0].CopyFrom(npb.DeviceIdentity(slot="cpu0", kind=chip.kind, value=chip.value))
        answer = send(furnished, mixed)
        assert [(each.field, each.code) for each in answer.problems] == [("partition", "IDENTITY_ENROLLED")]

    def test_many_problems_are_counted(self, furnished: Factory) -> None:
        answer = send(furnished, *(imported(number, site="nowhere") for number in range(1, 251)))
        assert (len(answer.problems), answer.problem_count) == (100, 250)
        assert [each.line for each in answer.problems] == list(range(2, 102))

    def test_streams_of_another_form(self, furnished: Factory) -> None:
        stub = furnished.stubs("operator").nodes
        start = npb.ImportNodesRequest(start=npb.ImportStart(request_id=str(uuid.uuid4())))
        some = npb.ImportNodesRequest(nodes=npb.ImportedNodes(nodes=[imported(1)]))
        crooked = npb.ImportNodesRequest(nodes=npb.ImportedNodes(nodes=[imported(1)]))
        crooked.nodes.nodes[0].device_lines.append(1)
        anonymous = npb.ImportNodesRequest(start=npb.ImportStart(request_id="x"))
        for messages in ([], [some], [start, start], [start, npb.ImportNodesRequest()], [start, crooked], [anonymous]):
            assert refused(lambda messages=messages: stub.ImportNodes(iter(messages))) == "INVALID_REQUEST"
        with pytest.raises(grpc.RpcError) as caught:
            furnished.stubs("node").nodes.ImportNodes(iter([start, some]))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]
        assert stub.ImportNodes(iter([start])).nodes == 0
