"""The estate: sites, each under a record that several parties signed, and the nodes on them, by hardware identity."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
from keybroker import requests
from keybroker.broker import Broker, actor
from keybroker.errors import InvalidRequestError, StateConflictError, StatementError
from keybroker.leases import revoke_all, revoke_held
from keybroker.principals import Principal
from keybroker.site_record import KIND, SiteRecord
from keybroker.statements import Authorities, Statement, verify
from keybroker.store import leases, node_attestations, nodes, sites
from keybroker.store.leases import Holding
from keybroker.store.nodes import CPU_SLOT, DeviceRow, NodeRow
from keybroker.store.schema import Custody, NodeState, SiteState
from keybroker.store.sites import SiteRecordRow, SiteRow

MAX_DEVICES: Final = 64
IDENTITY_KINDS: Final = {
    "amd-chip-id": ("cpu", (8, 64)),
    "intel-pck-platform": ("cpu", (16, 16)),
    "nvidia-gpu": ("gpu", (8, 64)),
    "nvidia-nvswitch": ("nvswitch", (8, 64)),
}
"""Kind of identity to the slots that it stands in and its length in bytes, from and to.

``intel-pck-platform`` is the platform instance id in a PCK certificate (Intel SGX PCK Certificate and CRL Profile
Specification, revision 1.5, section 1.3.5): the hardware identity of a TDX or SGX host.
"""

_SLOT: Final = re.compile(r"[a-z]{1,16}(0|[1-9][0-9]?)\Z")
_HEX: Final = re.compile(r"([0-9a-f]{2})+\Z")
_PARTITION: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})?\Z")


@dataclass(frozen=True, slots=True)
class Device:
    """A device as a request names it."""

    slot: str
    kind: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in a site a node stands; None leaves what is, or is empty for what is new.

    Attributes:
        rack: the rack.
        power_zone: the power feed that it hangs on.
        cooling_zone: the cooling loop.
        network_zone: the network.
    """

    rack: str | None = None
    power_zone: str | None = None
    cooling_zone: str | None = None
    network_zone: str | None = None

    def columns(self, field: str = "node") -> dict[str, str]:
        """What is given, checked, by name.

        Raises:
            InvalidRequestError: a name is neither an identifier nor empty.
        """
        given = {
            "rack": self.rack,
            "power_zone": self.power_zone,
            "cooling_zone": self.cooling_zone,
            "network_zone": self.network_zone,
        }
        return {
            name: requests.identifier(value, f"{field}.{name}") if value else ""
            for name, value in given.items()
            if value is not None
        }


# --- Sites ------------------------------------------------------------------------------------------------------------


def enrol_site(
    connection: Connection,
    *,
    caller: Principal,
    statement: bytes,
    signatures: Sequence[str],
    authorities: Authorities,
    known_places: Container[str],
    now: int,
) -> SiteRow:
    """Enrol a site by its first signed record; a unit of work.

    Args:
        connection: of the unit's transaction.
        caller: who hands the record in; what it says is the signers' word.
        statement: a ``site-record`` (`keybroker.site_record`).
        signatures: JWS over it.
        authorities: who may sign, and how many must.
        known_places: countries and subdivisions that there are.
        now: integer seconds since the Unix epoch.

    Raises:
        StatementError: the record or a signature is not what it must be, or the record does not hold now.
        AlreadyExistsError: the site is enrolled.
    """
    signed, record, signers = _open_record(
        statement, signatures, authorities=authorities, known_places=known_places, now=now
    )
    row = _site(record, created_at=now)
    sites.insert(connection, row)
    _keep_record(connection, row, signed, signatures, signers, now=now)
    _append_site(connection, Kind.SITE_ENROLLED, row, signed, signers, caller=caller, now=now, revoked=0)
    return row


def renew_site(
    connection: Connection,
    *,
    caller: Principal,
    statement: bytes,
    signatures: Sequence[str],
    authorities: Authorities,
    known_places: Container[str],
    now: int,
) -> SiteRow:
    """Put a newer signed record in the place of a site's present one; a suspended site is active again. A unit of work.

    Live leases at the site end where the record changes anything that they were decided on. Arguments as `enrol_site`.

    Raises:
        StatementError: the record or a signature is not what it must be, or the record does not hold now.
        NotFoundError: no such site.
        StateConflictError: the serial is not higher than the present record's, or the site is retired.
    """
    signed, record, signers = _open_record(
        statement, signatures, authorities=authorities, known_places=known_places, now=now
    )
    before = sites.lock(connection, record.site)
    if record.serial <= before.serial:
        raise StateConflictError(
            "site", record.site, state=f"at serial {before.serial}", expected=f"below serial {record.serial}"
        )
    if before.state is SiteState.RETIRED:
        raise StateConflictError("site", record.site, state=before.state, expected=SiteState.ACTIVE)
    row = _site(record, created_at=before.created_at)
    sites.replace(connection, row)
    _keep_record(connection, row, signed, signatures, signers, now=now)
    same = replace(before, serial=row.serial, valid_from=row.valid_from, valid_until=row.valid_until, state=row.state)
    revoked = 0 if same == row else _revoke_at(connection, row.site_id, caller=caller, because="SITE_CHANGED", now=now)
    _append_site(connection, Kind.SITE_RENEWED, row, signed, signers, caller=caller, now=now, revoked=revoked)
    return row


def suspend_site(connection: Connection, *, caller: Principal, site_id: str, reason: str, now: int) -> SiteRow:
    """Keep all keys from a site until a newer record is signed; a unit of work. `revoke_at_site` ends its leases.

    One operator can do that alone, for it only takes away.

    Raises:
        NotFoundError: no such site.
        InvalidRequestError: no reason is given.
        StateConflictError: the site is not active.
    """
    text = requests.text(reason, "reason")
    before = sites.lock(connection, requests.identifier(site_id, "site_id"))
    if before.state is not SiteState.ACTIVE:
        raise StateConflictError("site", site_id, state=before.state, expected=SiteState.ACTIVE)
    row = sites.set_state(connection, site_id, SiteState.SUSPENDED)
    append(
        connection,
        Record.build(
            kind=Kind.SITE_SUSPENDED,
            time=now,
            actor=actor(caller),
            site=row.site_id,
            jurisdiction=row.jurisdiction,
            result=Result.RECORDED,
            detail={
                "reason": text,
                "revoked_leases": leases.count_held(connection, Holding(site_id=site_id)),
                "serial": row.serial,
            },
        ),
    )
    return row


def _open_record(
    statement: bytes,
    signatures: Sequence[str],
    *,
    authorities: Authorities,
    known_places: Container[str],
    now: int,
) -> tuple[Statement, SiteRecord, tuple[str, ...]]:
    signed, signers = verify(statement, signatures, kind=KIND, authorities=authorities, author_counts=True)
    record = SiteRecord.of(signed, known_places=known_places)
    if not record.valid_from <= now < record.valid_until:
        # It would take effect at once, and stop the site.
        raise StatementError(
            "valid_from", f"holds from {record.valid_from} to {record.valid_until}, it is {now}: hand it in meanwhile"
        )
    return signed, record, signers


def _site(record: SiteRecord, *, created_at: int) -> SiteRow:
    return SiteRow(
        site_id=record.site,
        jurisdiction=record.jurisdiction,
        facility=record.facility,
        operator=record.operator.name,
        state=SiteState.ACTIVE,
        valid_until=record.valid_until,
        created_at=created_at,
        serial=record.serial,
        valid_from=record.valid_from,
        exposures=record.exposures,
        certifications=record.certifications,
        network_zone=record.network_zone,
    )


def _keep_record(
    connection: Connection,
    row: SiteRow,
    signed: Statement,
    signatures: Sequence[str],
    signers: tuple[str, ...],
    *,
    now: int,
) -> None:
    sites.insert_record(
        connection,
        SiteRecordRow(
            site_id=row.site_id,
            serial=row.serial,
            digest=signed.digest,
            statement=signed.payload,
            signatures=tuple(sorted(signatures)),
            signers=signers,
            created_at=now,
        ),
    )


def _append_site(
    connection: Connection,
    kind: Kind,
    row: SiteRow,
    signed: Statement,
    signers: tuple[str, ...],
    *,
    caller: Principal,
    now: int,
    revoked: int,
) -> None:
    append(
        connection,
        Record.build(
            kind=kind,
            time=now,
            actor=actor(caller),
            site=row.site_id,
            jurisdiction=row.jurisdiction,
            result=Result.RECORDED,
            detail={
                "author": signed.author,
                "certifications": row.certifications,
                "exposures": row.exposures,
                "facility": row.facility,
                "operator": row.operator,
                "revoked_leases": revoked,
                "serial": row.serial,
                "signers": signers,
                "statement_digest": signed.digest.hex(),
                "valid_from": row.valid_from,
                "valid_until": row.valid_until,
            },
        ),
    )


def _revoke_at(connection: Connection, site_id: str, *, caller: Principal, because: str, now: int) -> int:
    held = leases.live_at_site(connection, site_id, now=now)
    revoke_all(connection, held, caller=caller, because=because, now=now)
    return len(held)


# --- Nodes ------------------------------------------------------------------------------------------------------------


def check_node(
    *,
    node_id: str,
    site_id: str,
    devices: Sequence[Device],
    partition: str = "",
    custody: Custody = Custody.INSTALLED,
    place: Place | None = None,
    field: str = "node",
    now: int,
) -> NodeRow:
    """A node as it would be enrolled, checked by itself.

    Raises:
        InvalidRequestError: a field is missing or malformed, there is not exactly one CPU, or a partition has nothing
            but the CPU, which it shares.
    """
    if not _PARTITION.match(partition):
        raise InvalidRequestError(f"{field}.partition", f"{partition!r:.80}: letters, digits and ._-, 64 at most")
    rows = _devices(devices, partition=partition, field=f"{field}.devices")
    return NodeRow(
        node_id=requests.identifier(node_id, f"{field}.node_id"),
        site_id=requests.identifier(site_id, f"{field}.site_id"),
        state=NodeState.ACTIVE,
        created_at=now,
        partition=partition,
        custody=custody,
        devices=rows,
        **(place or Place()).columns(field),
    )


def enrol_node(connection: Connection, *, caller: Principal, row: NodeRow) -> NodeRow:
    """Enrol a node that `check_node` made; a unit of work.

    Raises:
        NotFoundError: no such site.
        AlreadyExistsError, IdentityEnrolledError: the id, or one of the identities, is taken.
    """
    site = sites.get(connection, row.site_id)
    nodes.insert(connection, row)
    append(connection, enrolment_record(row, site, caller=caller, now=row.created_at))
    return row


def enrolment_record(row: NodeRow, site: SiteRow, *, caller: Principal, now: int) -> Record:
    """The record of a node's enrolment."""
    return Record.build(
        kind=Kind.NODE_ENROLLED,
        time=now,
        actor=actor(caller),
        node=row.node_id,
        site=site.site_id,
        jurisdiction=site.jurisdiction,
        hardware=tuple(device.identity for device in row.devices),
        result=Result.RECORDED,
        detail={
            "slots": tuple(device.slot for device in row.devices),
            "custody": row.custody.value,
            "partition": row.partition,
            "rack": row.rack,
        },
    )


def set_node_state(
    connection: Connection, *, caller: Principal, node_id: str, state: NodeState, reason: str, now: int
) -> NodeRow:
    """Change whether a node may receive keys; a unit of work. `revoke_on_node` ends the leases of one that may not.

    Raises:
        NotFoundError: no such node.
        InvalidRequestError: no reason is given.
        StateConflictError: the node is retired, which is final, or decommissioned, after which it can only be retired.
    """
    text = requests.text(reason, "reason")
    # Locked first: it waits for whoever is granting a lease to the node now (`release`), so that none is missed.
    before = _changeable(connection, node_id, retiring=state is NodeState.RETIRED)
    row = nodes.set_state(connection, node_id, state)
    # Whoever was granting it a lease has committed, and whoever comes now finds the new state: the number is exact.
    held = 0 if state is NodeState.ACTIVE else leases.count_held(connection, Holding(node_id=node_id))
    _append_change(
        connection,
        Kind.NODE_STATE_CHANGED,
        row,
        caller=caller,
        now=now,
        detail={"from": before.state.value, "to": state.value, "reason": text, "revoked_leases": held},
    )
    return row


def set_node_custody(
    connection: Connection, *, caller: Principal, node_id: str, custody: Custody, reason: str, now: int
) -> NodeRow:
    """Say in whose hands a node's hardware is; leaving ``installed`` revokes its live leases. A unit of work.

    Raises:
        NotFoundError: no such node.
        InvalidRequestError: no reason is given.
        StateConflictError: the node is retired or decommissioned, which is final.
    """
    text = requests.text(reason, "reason")
    before = _changeable(connection, node_id)
    row = nodes.change(connection, node_id, custody=custody)
    revoked = 0
    if custody is not Custody.INSTALLED:
        revoked = _revoke_of(connection, node_id, caller=caller, because="NODE_CUSTODY", now=now)
    _append_change(
        connection,
        Kind.NODE_CUSTODY_CHANGED,
        row,
        caller=caller,
        now=now,
        detail={"from": before.custody.value, "to": custody.value, "reason": text, "revoked_leases": revoked},
    )
    return row


def move_node(
    connection: Connection,
    *,
    caller: Principal,
    node_id: str,
    site_id: str,
    place: Place,
    reason: str,
    now: int,
) -> NodeRow:
    """Move a node within its site or to another one; a unit of work.

    Another site revokes its live leases and sets its custody to in-transit: somebody there says when it is installed.
    What `place` does not name is kept within a site, and empty at another.

    Raises:
        NotFoundError: no such node or site.
        InvalidRequestError: no reason is given, or a name is malformed.
        StateConflictError: the node is retired or decommissioned, which is final.
    """
    text = requests.text(reason, "reason")
    before = _changeable(connection, node_id)
    target = requests.identifier(site_id, "site_id") if site_id else before.site_id
    columns: dict[str, object] = dict(place.columns())
    revoked = 0
    if target != before.site_id:
        sites.get(connection, target)
        empty = {"rack": "", "power_zone": "", "cooling_zone": "", "network_zone": ""}
        columns = empty | columns | {"site_id": target, "custody": Custody.IN_TRANSIT}
        revoked = _revoke_of(connection, node_id, caller=caller, because="NODE_MOVED", now=now)
    if not columns:
        raise InvalidRequestError("node", "nothing to move: name another site, rack or zone")
    row = nodes.change(connection, node_id, **columns)
    _append_change(
        connection,
        Kind.NODE_MOVED,
        row,
        caller=caller,
        now=now,
        detail={
            "from_site": before.site_id,
            "from_rack": before.rack,
            "rack": row.rack,
            "power_zone": row.power_zone,
            "cooling_zone": row.cooling_zone,
            "network_zone": row.network_zone,
            "custody": row.custody.value,
            "reason": text,
            "revoked_leases": revoked,
        },
    )
    return row


def change_devices(
    connection: Connection,
    *,
    caller: Principal,
    node_id: str,
    remove: Sequence[str],
    add: Sequence[Device],
    reason: str,
    now: int,
) -> NodeRow:
    """Exchange devices of a node: what is taken out stays taken, what comes in must be new. A unit of work.

    The node's live leases end: they were granted to another set of devices.

    Args:
        connection: of the unit's transaction.
        caller: who says so.
        node_id: the node.
        remove: slots to empty; not the CPU's, with which the node would be another one.
        add: devices to enrol, into slots that are empty then.
        reason: why, for the record.
        now: integer seconds since the Unix epoch.

    Raises:
        NotFoundError: no such node, or nothing in a slot to empty.
        InvalidRequestError: nothing to do, no reason, the CPU, or a device is malformed.
        StateConflictError: the node is retired or decommissioned, which is final.
        AlreadyExistsError, IdentityEnrolledError: a slot or an identity is taken.
    """
    text = requests.text(reason, "reason")
    before = _changeable(connection, node_id)
    present = {device.slot: device for device in before.devices}
    if not remove and not add:
        raise InvalidRequestError("add", "nothing to change: name devices to remove or to add")
    if len(set(remove)) != len(remove):
        raise InvalidRequestError("remove", "a slot is there twice")
    for index, slot in enumerate(remove):
        if slot not in present:
            raise InvalidRequestError(f"remove[{index}]", f"{slot!r:.40}: the node has {', '.join(sorted(present))}")
        if slot == CPU_SLOT:
            raise InvalidRequestError(f"remove[{index}]", "the CPU is the node: retire it and enrol another node")
    added = [_device(device, f"add[{index}]") for index, device in enumerate(add)]
    if any(device.slot.startswith("cpu") for device in added):
        raise InvalidRequestError("add", "a node has one CPU: enrol another node")
    left = {slot: device for slot, device in present.items() if slot not in remove}
    _check_set([*left.values(), *added], partition=before.partition, field="add")
    for slot in remove:
        nodes.retire_device(connection, node_id, present[slot].identity, now=now)
    for device in added:
        nodes.add_device(connection, before, device)
    node_attestations.forget(connection, node_id)  # it was another set of devices that attested
    row = nodes.get(connection, node_id)
    revoked = _revoke_of(connection, node_id, caller=caller, because="NODE_DEVICES_CHANGED", now=now)
    _append_change(
        connection,
        Kind.NODE_DEVICES_CHANGED,
        row,
        caller=caller,
        now=now,
        hardware=tuple(present[slot].identity for slot in remove) + tuple(device.identity for device in added),
        detail={
            "removed_slots": tuple(sorted(remove)),
            "added_slots": tuple(sorted(device.slot for device in added)),
            "reason": text,
            "revoked_leases": revoked,
        },
    )
    return row


def _changeable(connection: Connection, node_id: str, *, retiring: bool = False) -> NodeRow:
    """The node, locked; `retiring` is all that can still be done to one that is decommissioned."""
    row = nodes.lock(connection, requests.identifier(node_id, "node_id"))
    if row.state is NodeState.RETIRED:
        raise StateConflictError("node", node_id, state=row.state, expected=f"{NodeState.ACTIVE} or quarantined")
    if row.custody is Custody.DECOMMISSIONED and not retiring:
        raise StateConflictError("node", node_id, state=row.custody, expected=Custody.INSTALLED)
    return row


def revoke_on_node(broker: Broker, *, caller: Principal, node_id: str, because: str, now: int) -> int:
    """End the leases of a node that may receive no keys, a bounded number in each transaction; returns how many.

    It stops where the node is reinstated meanwhile.

    Raises:
        StoreError: it could not be finished; call again, or leave the rest to the sweep.
    """

    def barred(connection: Connection) -> bool:
        row = nodes.lock(connection, node_id)
        return row.state is not NodeState.ACTIVE or row.custody is not Custody.INSTALLED

    return revoke_held(broker, Holding(node_id=node_id), caller=caller, because=because, now=now, still=barred)


def revoke_at_site(broker: Broker, *, caller: Principal, site_id: str, because: str, now: int) -> int:
    """End the leases at a site that may receive no keys, a bounded number in each transaction; returns how many.

    It stops where the site is reinstated meanwhile.

    Raises:
        StoreError: it could not be finished; call again, or leave the rest to the sweep.
    """

    def barred(connection: Connection) -> bool:
        return sites.lock(connection, site_id).state is not SiteState.ACTIVE

    return revoke_held(broker, Holding(site_id=site_id), caller=caller, because=because, now=now, still=barred)


def _revoke_of(connection: Connection, node_id: str, *, caller: Principal, because: str, now: int) -> int:
    held = leases.live_of_node(connection, node_id, now=now)
    revoke_all(connection, held, caller=caller, because=because, now=now)
    return len(held)


def _append_change(
    connection: Connection,
    kind: Kind,
    row: NodeRow,
    *,
    caller: Principal,
    now: int,
    detail: Mapping[str, str | int | tuple[str, ...]],
    hardware: tuple[str, ...] = (),
) -> None:
    append(
        connection,
        Record.build(
            kind=kind,
            time=now,
            actor=actor(caller),
            node=row.node_id,
            site=row.site_id,
            hardware=hardware,
            result=Result.RECORDED,
            detail=detail,
        ),
    )


def _devices(devices: Sequence[Device], *, partition: str, field: str) -> tuple[DeviceRow, ...]:
    rows = [_device(device, f"{field}[{index}]") for index, device in enumerate(devices[: MAX_DEVICES + 1])]
    _check_set(rows, partition=partition, field=field)
    return tuple(sorted(rows, key=lambda row: row.slot))


def _device(device: Device, field: str) -> DeviceRow:
    if device.kind not in IDENTITY_KINDS:
        raise InvalidRequestError(f"{field}.kind", f"{device.kind!r:.40}: known are {', '.join(IDENTITY_KINDS)}")
    prefix, (shortest, longest) = IDENTITY_KINDS[device.kind]
    if not _SLOT.match(device.slot) or device.slot.rstrip("0123456789") != prefix:
        raise InvalidRequestError(
            f"{field}.slot", f"{device.slot!r:.40}: a {device.kind} stands in {prefix}0 to {prefix}99"
        )
    if not _HEX.match(device.value) or not shortest <= len(device.value) // 2 <= longest:
        length = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        raise InvalidRequestError(f"{field}.value", f"not {length} bytes in lower-case hex")
    return DeviceRow(slot=device.slot, identity=f"{device.kind}:{device.value}")


def _check_set(rows: Sequence[DeviceRow], *, partition: str, field: str) -> None:
    """Check the devices of one node together."""
    if not 1 <= len(rows) <= MAX_DEVICES:
        raise InvalidRequestError(field, f"{len(rows)} devices, 1 to {MAX_DEVICES} are allowed")
    if len({row.slot for row in rows}) != len(rows) or len({row.identity for row in rows}) != len(rows):
        raise InvalidRequestError(field, "a slot or an identity is there twice")
    if [row.slot for row in rows if row.slot.startswith("cpu")] != [CPU_SLOT]:
        raise InvalidRequestError(field, "a node has exactly one CPU identity, in cpu0")
    if partition and all(row.slot == CPU_SLOT for row in rows):
        raise InvalidRequestError(field, "a partition has a device of its own: the CPU is its neighbours' too")
