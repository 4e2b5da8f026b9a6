"""Nodes: which hardware identities stand together, and on which site."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Select, bindparam, select, update
from sqlalchemy import insert as insert_into
from sqlalchemy.exc import IntegrityError

from keybroker.errors import AlreadyExistsError, IdentityEnrolledError, NotFoundError, StateConflictError
from keybroker.store.rows import insert_all_if_absent, insert_if_absent, page_size, prefixed, references, without_prefix
from keybroker.store.schema import HOST, NODE, NODE_IDENTITY, SITE, Custody, NodeState
from keybroker.store.sites import SiteRow

CPU_SLOT: Final = "cpu0"
"""The slot of a node's CPU, whose identity the partitions of one host share."""

_BY_ID: Final = (
    select(NODE, NODE_IDENTITY.c.slot, NODE_IDENTITY.c.identity)
    .outerjoin(NODE_IDENTITY, (NODE_IDENTITY.c.node_id == NODE.c.node_id) & NODE_IDENTITY.c.slot.is_not(None))
    .where(NODE.c.node_id == bindparam("node_id"))
    .order_by(NODE_IDENTITY.c.slot)
)
_WITH_SITE: Final = _BY_ID.join(SITE, SITE.c.site_id == NODE.c.site_id).add_columns(
    *prefixed(SITE, "site", skip=["site_id"])
)
_WITH_SITE_SHARED: Final = _WITH_SITE.with_for_update(read=True, of=[NODE, SITE])
_LOCK: Final = select(NODE.c.node_id).where(NODE.c.node_id == bindparam("node_id")).with_for_update()
_ENROLMENTS: Final = select(NODE_IDENTITY).where(NODE_IDENTITY.c.identity.in_(bindparam("identities", expanding=True)))
_NODE_COLUMNS: Final = tuple(column.name for column in NODE.columns)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class DeviceRow:
    """One device of a node.

    Attributes:
        slot: ``cpu0``, ``gpu0``, ``nvswitch0`` and so on.
        identity: ``kind:value``, the value in lower-case hexadecimal.
    """

    slot: str
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node.

    Attributes:
        node_id: its name.
        site_id: the site it stands on.
        state: whether it may receive keys.
        created_at: when it was enrolled.
        partition: which confidential VM partition of its host it is; empty where it is the whole host.
        custody: in whose hands the hardware is.
        rack, power_zone, cooling_zone, network_zone: where in the site; each may be empty.
        devices: its devices, by slot.
    """

    node_id: str
    site_id: str
    state: NodeState
    created_at: int
    partition: str = ""
    custody: Custody = Custody.INSTALLED
    rack: str = ""
    power_zone: str = ""
    cooling_zone: str = ""
    network_zone: str = ""
    devices: tuple[DeviceRow, ...] = field(default=())

    def columns(self) -> dict[str, Any]:
        """The node's own columns by name, its devices left out."""
        return {name: getattr(self, name) for name in _NODE_COLUMNS}

    @property
    def cpu(self) -> str:
        """The identity of its CPU; empty where it has none."""
        return next((device.identity for device in self.devices if device.slot == CPU_SLOT), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """To which node an identity belongs.

    Attributes:
        node_id: the node.
        partition: the partition of its host that the node is, for a CPU that partitions share; else empty.
        slot: where the device stands; None once it was taken out of the node.
    """

    node_id: str
    partition: str
    slot: str | None


def insert(connection: Connection, row: NodeRow) -> None:
    """Enrol a node with its devices. After an error the transaction must be rolled back: part of it may be there.

    Raises:
        AlreadyExistsError: the name is taken, or a slot is named twice.
        IdentityEnrolledError: a device belongs to a node already, be it retired; or the CPU's host is divided into
            partitions and this is none, or the other way round.
        NotFoundError: there is no such site.
    """
    with references("site", row.site_id):
        inserted = insert_if_absent(connection, NODE, row.columns())
    if not inserted:
        raise AlreadyExistsError("node", row.node_id)
    if row.cpu:
        _settle_host(connection, row)
    for device in row.devices:
        add_device(connection, row, device)


def insert_all(connection: Connection, rows: Sequence[NodeRow]) -> None:
    """Enrol many nodes that were found to be free. After an error the transaction must be rolled back.

    Raises:
        StateConflictError: a name or an identity was taken meanwhile, or a site is gone.
    """
    if not rows:
        return
    hosts = {row.cpu: row.partition != "" for row in rows if row.cpu}
    insert_all_if_absent(
        connection, HOST, [{"identity": cpu, "partitioned": divided} for cpu, divided in hosts.items()]
    )
    found = select(HOST).where(HOST.c.identity.in_(bindparam("identities", expanding=True)))
    settled = {row.identity: row.partitioned for row in connection.execute(found, {"identities": sorted(hosts)})}
    if settled != hosts:
        raise StateConflictError(
            "estate", "import", state="changed meanwhile", expected="as it was when it was checked"
        )
    devices = [
        _identity_row(row, device) | {"node_id": row.node_id, "slot": device.slot, "retired_at": None}
        for row in rows
        for device in row.devices
    ]
    try:
        connection.execute(insert_into(NODE), [row.columns() for row in rows])
        connection.execute(insert_into(NODE_IDENTITY), devices)
    except IntegrityError as error:
        raise StateConflictError(
            "estate", "import", state="changed meanwhile", expected="as it was when it was checked"
        ) from error


def add_device(connection: Connection, row: NodeRow, device: DeviceRow) -> None:
    """Enrol one device with a node.

    Raises:
        AlreadyExistsError: the slot is taken.
        IdentityEnrolledError: the device belongs to a node already, be it that it was taken out of it.
    """
    key = _identity_row(row, device)
    if insert_if_absent(
        connection, NODE_IDENTITY, key | {"node_id": row.node_id, "slot": device.slot, "retired_at": None}
    ):
        return
    owners = enrolments(connection, [device.identity]).get(device.identity, ())
    owner = next((item for item in owners if item.partition == key["partition"]), None)
    if owner is None:
        raise AlreadyExistsError("slot", f"{row.node_id}/{device.slot}", remedy="name each slot once")
    raise IdentityEnrolledError(device.identity, node_id=owner.node_id)


def retire_device(connection: Connection, node_id: str, identity: str, *, now: int) -> bool:
    """Take a device out of a node; its identity stays the node's. Returns whether it was there."""
    statement = (
        update(NODE_IDENTITY)
        .where(
            NODE_IDENTITY.c.node_id == node_id,
            NODE_IDENTITY.c.identity == identity,
            NODE_IDENTITY.c.slot.is_not(None),
        )
        .values(slot=None, retired_at=now)
    )
    return connection.execute(statement).rowcount == 1


def get(connection: Connection, node_id: str) -> NodeRow:
    """Read a node.

    Raises:
        NotFoundError: there is none.
    """
    return _node(connection.execute(_BY_ID, {"node_id": node_id}).mappings().all(), node_id)


def lock(connection: Connection, node_id: str) -> NodeRow:
    """Read a node that no other transaction changes, or grants a lease to, before this one ends.

    Raises:
        NotFoundError: there is none.
    """
    connection.execute(_LOCK, {"node_id": node_id})
    return get(connection, node_id)


def get_with_site(connection: Connection, node_id: str, *, share: bool = False) -> tuple[NodeRow, SiteRow]:
    """Read a node and its site; with `share`, no other transaction changes either before this one ends.

    Raises:
        NotFoundError: there is none.
    """
    statement = _WITH_SITE_SHARED if share else _WITH_SITE
    rows = connection.execute(statement, {"node_id": node_id}).mappings().all()
    node = _node(rows, node_id)
    return node, SiteRow(site_id=node.site_id, **without_prefix(rows[0], "site"))


def find_by_identity(connection: Connection, identity: str) -> list[NodeRow]:
    """The nodes that have, or had, the device `identity` (``kind:value``); only partitions of one host share one."""
    owners = select(NODE_IDENTITY.c.node_id).where(NODE_IDENTITY.c.identity == identity)
    return _read(connection, select(NODE).where(NODE.c.node_id.in_(owners)).order_by(NODE.c.node_id))


def enrolments(connection: Connection, identities: Iterable[str]) -> dict[str, tuple[Enrolment, ...]]:
    """Which nodes each of `identities` belongs to; those that are enrolled nowhere are absent."""
    found: defaultdict[str, list[Enrolment]] = defaultdict(list)
    for row in connection.execute(_ENROLMENTS, {"identities": sorted(set(identities))}):
        found[row.identity].append(Enrolment(node_id=row.node_id, partition=row.partition, slot=row.slot))
    return {identity: tuple(sorted(owners, key=lambda owner: owner.node_id)) for identity, owners in found.items()}


def page(connection: Connection, *, after: str = "", limit: int = 100, site_id: str | None = None) -> list[NodeRow]:
    """Up to `limit` nodes by name, those whose name follows `after`; of one site where `site_id` names it."""
    statement = select(NODE).where(NODE.c.node_id > after)
    if site_id is not None:
        statement = statement.where(NODE.c.site_id == site_id)
    return _read(connection, statement.order_by(NODE.c.node_id).limit(page_size(limit)))


def taken(connection: Connection, node_ids: Iterable[str]) -> set[str]:
    """Those of `node_ids` that are nodes."""
    statement = select(NODE.c.node_id).where(NODE.c.node_id.in_(bindparam("names", expanding=True)))
    return set(connection.execute(statement, {"names": sorted(set(node_ids))}).scalars())


def divided_hosts(connection: Connection, identities: Iterable[str]) -> dict[str, bool]:
    """Whether each of the CPUs among `identities` that is enrolled is divided into partitions."""
    statement = select(HOST).where(HOST.c.identity.in_(bindparam("identities", expanding=True)))
    found = connection.execute(statement, {"identities": sorted(set(identities))})
    return {row.identity: row.partitioned for row in found}


def change(connection: Connection, node_id: str, **columns: Any) -> NodeRow:
    """Change some of a node's own columns; returns the node as it is now.

    Raises:
        NotFoundError: there is no such node or site.
    """
    with references("site", str(columns.get("site_id", ""))):
        connection.execute(update(NODE).where(NODE.c.node_id == node_id).values(**columns))
    return get(connection, node_id)


def set_state(connection: Connection, node_id: str, state: NodeState) -> NodeRow:
    """Change whether a node may receive keys; returns the node as it is now.

    Raises:
        NotFoundError: there is none.
    """
    return change(connection, node_id, state=state)


def _identity_row(row: NodeRow, device: DeviceRow) -> dict[str, Any]:
    """The key under which a device is enrolled."""
    return {"identity": device.identity, "partition": row.partition if device.slot == CPU_SLOT else ""}


def _settle_host(connection: Connection, row: NodeRow) -> None:
    """Hold a host to what its first enrolment made it: one node, or partitions."""
    divided = row.partition != ""
    if insert_if_absent(connection, HOST, {"identity": row.cpu, "partitioned": divided}):
        return
    # The insert waited for whoever enrolled the host first, so this reads what that enrolment settled.
    if divided_hosts(connection, [row.cpu]).get(row.cpu) != divided:
        owners = enrolments(connection, [row.cpu]).get(row.cpu, ())
        raise IdentityEnrolledError(row.cpu, node_id=owners[0].node_id if owners else "")


def _node(rows: Sequence[RowMapping], node_id: str) -> NodeRow:
    """The node whose devices are in `rows`, one each."""
    if not rows:
        raise NotFoundError("node", node_id)
    devices = tuple(DeviceRow(slot=row["slot"], identity=row["identity"]) for row in rows if row["slot"] is not None)
    return NodeRow(**{name: rows[0][name] for name in _NODE_COLUMNS}, devices=devices)


def _read(connection: Connection, statement: Select[Any]) -> list[NodeRow]:
    found = connection.execute(statement).mappings().all()
    if not found:
        return []
    devices: defaultdict[str, list[DeviceRow]] = defaultdict(list)
    members = select(NODE_IDENTITY).where(
        NODE_IDENTITY.c.node_id.in_([row["node_id"] for row in found]), NODE_IDENTITY.c.slot.is_not(None)
    )
    for row in connection.execute(members.order_by(NODE_IDENTITY.c.slot)):
        devices[row.node_id].append(DeviceRow(slot=row.slot, identity=row.identity))
    return [
        NodeRow(**{name: row[name] for name in _NODE_COLUMNS}, devices=tuple(devices[row["node_id"]])) for row in found
    ]
