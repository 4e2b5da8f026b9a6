"""The estate: sites and the nodes on them, enrolled by hardware identity."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
from keybroker import requests
from keybroker.broker import actor
from keybroker.errors import InvalidRequestError
from keybroker.leases import revoke_all
from keybroker.principals import Principal
from keybroker.store import leases, nodes, sites
from keybroker.store.nodes import DeviceRow, NodeRow
from keybroker.store.schema import NodeState, SiteState
from keybroker.store.sites import SiteRow

MAX_DEVICES: Final = 64
IDENTITY_KINDS: Final = {
    "amd-chip-id": ("cpu", (8, 64)),
    "nvidia-gpu": ("gpu", (8, 64)),
    "nvidia-nvswitch": ("nvswitch", (8, 64)),
}
"""Kind of identity to the slots that it stands in and its length in bytes, from and to."""

_SLOT: Final = re.compile(r"[a-z]{1,16}(0|[1-9][0-9]?)\Z")
_HEX: Final = re.compile(r"([0-9a-f]{2})+\Z")


@dataclass(frozen=True, slots=True)
class Device:
    """A device as a request names it."""

    slot: str
    kind: str
    value: str


def enrol_site(
    connection: Connection,
    *,
    caller: Principal,
    site_id: str,
    jurisdiction: str,
    facility: str,
    operator: str,
    valid_until: int,
    known_areas: Container[str],
    now: int,
) -> SiteRow:
    """Enrol a site; a unit of work. `known_areas` has the countries that the release policy knows.

    Raises:
        InvalidRequestError: a field is missing or malformed.
        AlreadyExistsError: the id is taken.
    """
    if valid_until <= now:
        raise InvalidRequestError("site.expire_time", "must be in the future")
    row = SiteRow(
        site_id=requests.identifier(site_id, "site.site_id"),
        jurisdiction=requests.jurisdiction(jurisdiction, "site.jurisdiction", known=known_areas),
        facility=requests.text(facility, "site.facility"),
        operator=requests.text(operator, "site.operator"),
        state=SiteState.ACTIVE,
        valid_until=valid_until,
        created_at=now,
    )
    sites.insert(connection, row)
    append(
        connection,
        Record.build(
            kind=Kind.SITE_ENROLLED,
            time=now,
            actor=actor(caller),
            site=row.site_id,
            jurisdiction=row.jurisdiction,
            result=Result.RECORDED,
            detail={"facility": row.facility, "operator": row.operator, "valid_until": row.valid_until},
        ),
    )
    return row


def enrol_node(
    connection: Connection, *, caller: Principal, node_id: str, site_id: str, devices: Sequence[Device], now: int
) -> NodeRow:
    """Enrol a node by its devices' hardware identities; a unit of work.

    Raises:
        InvalidRequestError: a field is missing or malformed, or there is not exactly one CPU.
        NotFoundError: no such site.
        AlreadyExistsError, IdentityEnrolledError: the id, or one of the identities, is taken.
    """
    row = NodeRow(
        node_id=requests.identifier(node_id, "node.node_id"),
        site_id=requests.identifier(site_id, "node.site_id"),
        state=NodeState.ACTIVE,
        created_at=now,
        devices=_devices(devices),
    )
    site = sites.get(connection, row.site_id)
    nodes.insert(connection, row)
    append(
        connection,
        Record.build(
            kind=Kind.NODE_ENROLLED,
            time=now,
            actor=actor(caller),
            node=row.node_id,
            site=site.site_id,
            jurisdiction=site.jurisdiction,
            hardware=tuple(device.identity for device in row.devices),
            result=Result.RECORDED,
            detail={"slots": tuple(device.slot for device in row.devices)},
        ),
    )
    return row


def set_node_state(
    connection: Connection, *, caller: Principal, node_id: str, state: NodeState, reason: str, now: int
) -> NodeRow:
    """Change whether a node may receive keys; leaving ``active`` revokes its live leases. A unit of work.

    Raises:
        NotFoundError: no such node.
        InvalidRequestError: no reason is given.
    """
    before = nodes.get(connection, requests.identifier(node_id, "node_id"))
    text = requests.text(reason, "reason")
    # The state first: it waits for whoever is granting a lease to the node now (`release`), so that none is missed.
    row = nodes.set_state(connection, node_id, state)
    held = leases.live_of_node(connection, node_id, now=now) if state is not NodeState.ACTIVE else []
    revoke_all(connection, held, caller=caller, because=f"NODE_{state.name}", now=now)
    append(
        connection,
        Record.build(
            kind=Kind.NODE_STATE_CHANGED,
            time=now,
            actor=actor(caller),
            node=node_id,
            site=row.site_id,
            result=Result.RECORDED,
            detail={
                "from": before.state.value,
                "to": state.value,
                "reason": text,
                "revoked_leases": len(held),
            },
        ),
    )
    return row


def _devices(devices: Sequence[Device]) -> tuple[DeviceRow, ...]:
    if not 1 <= len(devices) <= MAX_DEVICES:
        raise InvalidRequestError("node.devices", f"{len(devices)} devices, 1 to {MAX_DEVICES} are allowed")
    rows = []
    for index, device in enumerate(devices):
        field = f"node.devices[{index}]"
        if device.kind not in IDENTITY_KINDS:
            raise InvalidRequestError(f"{field}.kind", f"{device.kind!r:.40}: known are {', '.join(IDENTITY_KINDS)}")
        prefix, (shortest, longest) = IDENTITY_KINDS[device.kind]
        if not _SLOT.match(device.slot) or device.slot.rstrip("0123456789") != prefix:
            raise InvalidRequestError(
                f"{field}.slot", f"{device.slot!r:.40}: a {device.kind} stands in {prefix}0 to {prefix}99"
            )
        if not _HEX.match(device.value) or not shortest <= len(device.value) // 2 <= longest:
            raise InvalidRequestError(f"{field}.value", f"not {shortest} to {longest} bytes in lower-case hex")
        rows.append(DeviceRow(slot=device.slot, identity=f"{device.kind}:{device.value}"))
    if len({row.slot for row in rows}) != len(rows) or len({row.identity for row in rows}) != len(rows):
        raise InvalidRequestError("node.devices", "a slot or an identity is there twice")
    if sum(row.slot.startswith("cpu") for row in rows) != 1:
        raise InvalidRequestError("node.devices", "a node has exactly one CPU identity, in cpu0")
    return tuple(sorted(rows, key=lambda row: row.slot))
