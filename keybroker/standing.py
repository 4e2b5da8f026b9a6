"""Where attested hardware stands: the one enrolled node whose devices are the ones that were proven.

A node is where its attested identities are enrolled, never where it says. Where a host carries several confidential VM
partitions they share the CPU's identity, so the devices decide which of them it is; what they do not decide is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from keybroker.denial import Reason
from keybroker.store import nodes
from keybroker.store.nodes import Enrolment, NodeRow
from keybroker.store.sites import SiteRow


@dataclass(frozen=True, slots=True)
class Standing:
    """Where attested hardware is enrolled, and what does not fit.

    Attributes:
        node: the enrolled node that the attested set resolves to; None where it resolves to none, or to several.
        site: its site.
        hardware: every identity that was proven, ``kind:value``.
        matches: the proven identities are exactly the enrolled set of `node`.
        reasons: why not.
        cloned: proven identities that are enrolled, but not with the hardware that they were proven together with.
    """

    node: NodeRow | None
    site: SiteRow | None
    hardware: tuple[str, ...]
    matches: bool
    reasons: tuple[Reason, ...]
    cloned: tuple[str, ...] = ()


def resolve(connection: Connection, *, identities: Sequence[str], slots: Sequence[str]) -> Standing:
    """Find the enrolled node of proven hardware identities.

    The CPU's identity, which comes first, names the node, or the partitions of one host; among those, the one that has
    any of the devices. A device that is enrolled elsewhere was moved, or there are two of it.

    Args:
        connection: to read enrolments from.
        identities: ``kind:value`` by device, in the order of `slots`; empty text where none is proven.
        slots: the devices' names in the evidence.
    """
    owners = nodes.enrolments(connection, [identity for identity in identities if identity])
    cpu = identities[0] if identities else ""
    candidates = _candidates(owners, cpu, identities)
    node, site = nodes.get_with_site(connection, candidates[0]) if len(candidates) == 1 else (None, None)
    reasons: list[Reason] = []
    cloned: list[str] = []
    if len(owners.get(cpu, ())) > 1 and node is None:
        reasons.append(_ambiguous(candidates))
    for slot, identity in zip(slots, identities, strict=True):
        if not identity:
            reasons.append(_not_proven(slot))
        elif identity not in owners:
            reasons.append(_not_enrolled(slot, identity))
        elif identity == cpu:
            continue
        elif node is None:
            cloned += [identity] if cpu else []  # a CPU that proves nothing is not another CPU
        elif owners[identity][0].node_id != node.node_id:
            cloned.append(identity)
            reasons.append(_of_another_node(slot, identity, node))
        elif owners[identity][0].slot is None:
            reasons.append(_retired(slot, identity))
    if node is not None:
        enrolled = {device.identity: device.slot for device in node.devices}
        reasons += [_missing(enrolled[identity], identity) for identity in sorted(enrolled.keys() - set(identities))]
    return Standing(
        node=node,
        site=site,
        hardware=tuple(sorted({identity for identity in identities if identity})),
        matches=node is not None and not reasons,
        reasons=tuple(reasons),
        cloned=tuple(sorted(cloned)),
    )


def _candidates(owners: Mapping[str, tuple[Enrolment, ...]], cpu: str, identities: Sequence[str]) -> list[str]:
    """The nodes that the attested set can be: by the CPU alone, or by the devices where partitions share it."""
    hosts = [owner.node_id for owner in owners.get(cpu, ()) if owner.slot is not None]
    if len(hosts) < 2:
        return hosts
    having = {owner.node_id for identity in identities if identity != cpu for owner in owners.get(identity, ())}
    return [node_id for node_id in hosts if node_id in having]


def _ambiguous(candidates: Sequence[str]) -> Reason:
    return Reason(
        "NODE_AMBIGUOUS",
        "node",
        "devices of exactly one partition of the host",
        f"devices of {len(candidates)} partitions",
        "Partitions of one host share its CPU, so the devices must say which of them attests",
        "attest with the devices of one partition, all of them",
    )


def _not_proven(slot: str) -> Reason:
    return Reason(
        "IDENTITY_NOT_PROVEN",
        slot,
        "a certified hardware identity",
        "none",
        "A device must prove which device it is",
        "unmask the chip identity in the firmware settings, or see the device's other findings",
    )


def _not_enrolled(slot: str, identity: str) -> Reason:
    return Reason(
        "DEVICE_NOT_ENROLLED",
        slot,
        "an enrolled identity",
        identity,
        "Keys go to enrolled hardware only",
        "have an operator enrol the device with its node",
    )


def _of_another_node(slot: str, identity: str, node: NodeRow) -> Reason:
    return Reason(
        "DEVICE_OF_ANOTHER_NODE",
        slot,
        f"a device of node {node.node_id}",
        identity,
        "A node's devices must be the ones enrolled with it",
        "put the device back; where it is in its place too, one of the two is a clone: quarantine both nodes",
    )


def _retired(slot: str, identity: str) -> Reason:
    return Reason(
        "DEVICE_RETIRED",
        slot,
        "a device that is enrolled",
        identity,
        "A device that was taken out of its node stays out",
        "take the device out of the machine, or fit one that was never enrolled",
    )


def _missing(slot: str, identity: str) -> Reason:
    return Reason(
        "DEVICE_MISSING",
        slot,
        identity,
        "not in the evidence",
        "Every enrolled device of the node must attest",
        "collect evidence of all devices, or have an operator change the enrolment",
    )
