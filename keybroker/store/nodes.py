"""Nodes: which hardware identities stand together, and on which site."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Select, bindparam, select, update

from keybroker.errors import AlreadyExistsError, IdentityEnrolledError, NotFoundError
from keybroker.store.rows import insert_if_absent, page_size, prefixed, references, without_prefix
from keybroker.store.schema import NODE, NODE_IDENTITY, SITE, NodeState
from keybroker.store.sites import SiteRow

_BY_ID: Final = (
    select(NODE, NODE_IDENTITY.c.slot, NODE_IDENTITY.c.identity)
    .outerjoin(NODE_IDENTITY, NODE_IDENTITY.c.node_id == NODE.c.node_id)
    .where(NODE.c.node_id == bindparam("node_id"))
    .order_by(NODE_IDENTITY.c.slot)
)
_WITH_SITE: Final = _BY_ID.join(SITE, SITE.c.site_id == NODE.c.site_id).add_columns(
    *prefixed(SITE, "site", skip=["site_id"])
)
_WITH_SITE_SHARED: Final = _WITH_SITE.with_for_update(read=True, of=NODE)
_OWNERS: Final = select(NODE_IDENTITY.c.identity, NODE_IDENTITY.c.node_id).where(
    NODE_IDENTITY.c.identity.in_(bindparam("identities", expanding=True))
)


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
        devices: its devices, by slot.
    """

    node_id: str
    site_id: str
    state: NodeState
    created_at: int
    devices: tuple[DeviceRow, ...]


def insert(connection: Connection, row: NodeRow) -> None:
    """Enrol a node with its devices. After an error the transaction must be rolled back: part of it may be there.

    Raises:
        AlreadyExistsError: the name is taken, or a slot is named twice.
        IdentityEnrolledError: a device belongs to a node already, be it retired.
        NotFoundError: there is no such site.
    """
    node = {"node_id": row.node_id, "site_id": row.site_id, "state": row.state, "created_at": row.created_at}
    with references("site", row.site_id):
        inserted = insert_if_absent(connection, NODE, node)
    if not inserted:
        raise AlreadyExistsError("node", row.node_id)
    for device in row.devices:
        values = {"identity": device.identity, "node_id": row.node_id, "slot": device.slot}
        if insert_if_absent(connection, NODE_IDENTITY, values):
            continue
        owner = resolve(connection, [device.identity]).get(device.identity)
        if owner is None:
            raise AlreadyExistsError("slot", f"{row.node_id}/{device.slot}", remedy="name each slot once")
        raise IdentityEnrolledError(device.identity, node_id=owner)


def get(connection: Connection, node_id: str) -> NodeRow:
    """Read a node.

    Raises:
        NotFoundError: there is none.
    """
    return _node(connection.execute(_BY_ID, {"node_id": node_id}).mappings().all(), node_id)


def get_with_site(connection: Connection, node_id: str, *, share: bool = False) -> tuple[NodeRow, SiteRow]:
    """Read a node and its site; with `share`, no other transaction changes the node before this one ends.

    Raises:
        NotFoundError: there is none.
    """
    statement = _WITH_SITE_SHARED if share else _WITH_SITE
    rows = connection.execute(statement, {"node_id": node_id}).mappings().all()
    node = _node(rows, node_id)
    return node, SiteRow(site_id=node.site_id, **without_prefix(rows[0], "site"))


def find_by_identity(connection: Connection, identity: str) -> NodeRow | None:
    """The node that has the device `identity` (``kind:value``), or None where it is enrolled nowhere."""
    owner = select(NODE_IDENTITY.c.node_id).where(NODE_IDENTITY.c.identity == identity).scalar_subquery()
    rows = _read(connection, select(NODE).where(NODE.c.node_id == owner))
    return rows[0] if rows else None


def resolve(connection: Connection, identities: Iterable[str]) -> dict[str, str]:
    """Which node has each of `identities`; those that are enrolled nowhere are absent."""
    wanted = {"identities": sorted(set(identities))}
    return {row.identity: row.node_id for row in connection.execute(_OWNERS, wanted)}


def page(connection: Connection, *, after: str = "", limit: int = 100, site_id: str | None = None) -> list[NodeRow]:
    """Up to `limit` nodes by name, those whose name follows `after`; of one site where `site_id` names it."""
    statement = select(NODE).where(NODE.c.node_id > after)
    if site_id is not None:
        statement = statement.where(NODE.c.site_id == site_id)
    return _read(connection, statement.order_by(NODE.c.node_id).limit(page_size(limit)))


def set_state(connection: Connection, node_id: str, state: NodeState) -> NodeRow:
    """Change whether a node may receive keys; returns the node as it is now.

    Raises:
        NotFoundError: there is none.
    """
    connection.execute(update(NODE).where(NODE.c.node_id == node_id).values(state=state))
    return get(connection, node_id)


def _node(rows: Sequence[RowMapping], node_id: str) -> NodeRow:
    """The node whose devices are in `rows`, one each."""
    if not rows:
        raise NotFoundError("node", node_id)
    node = rows[0]
    return NodeRow(
        node_id=node["node_id"],
        site_id=node["site_id"],
        state=node["state"],
        created_at=node["created_at"],
        devices=tuple(DeviceRow(slot=row["slot"], identity=row["identity"]) for row in rows if row["slot"] is not None),
    )


def _read(connection: Connection, statement: Select[Any]) -> list[NodeRow]:
    found: Sequence[Any] = connection.execute(statement).all()
    if not found:
        return []
    devices: defaultdict[str, list[DeviceRow]] = defaultdict(list)
    members = select(NODE_IDENTITY).where(NODE_IDENTITY.c.node_id.in_([row.node_id for row in found]))
    for row in connection.execute(members.order_by(NODE_IDENTITY.c.slot)):
        devices[row.node_id].append(DeviceRow(slot=row.slot, identity=row.identity))
    return [
        NodeRow(
            node_id=row.node_id,
            site_id=row.site_id,
            state=row.state,
            created_at=row.created_at,
            devices=tuple(devices[row.node_id]),
        )
        for row in found
    ]
