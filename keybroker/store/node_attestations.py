"""What each node's last evidence came to: one small row per node, and nodes counted by what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    LargeBinary,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    false,
    func,
    null,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from keybroker.store import rows
from keybroker.store.rows import PAGE_LIMIT, find_one, values
from keybroker.store.schema import HELD_KEY, LEASE, NODE, NODE_ATTESTATION, Custody, LeaseState, NodeState

_BY_NODE: Final = select(NODE_ATTESTATION).where(NODE_ATTESTATION.c.node_id == bindparam("node_id"))
_BY_NODES: Final = select(NODE_ATTESTATION).where(NODE_ATTESTATION.c.node_id.in_(bindparam("node_ids", expanding=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAttestationRow:
    """What one node's last evidence came to.

    Attributes:
        node_id: the enrolled node that the evidence resolved to.
        appraised_at: when.
        allow: verification and the appraisal policy accept it.
        status: the worst AR4SI status of any device.
        simulated: the TEE is a simulator.
        assurance: how well the node proved what it is (`keybroker.constraints.Assurance`).
        tenant: whose job the evidence was for; None where for none.
        host_data: what the host bound to the CPU TEE at launch, hex; empty where not known.
        claimed_node_id: what the node said its name is.
        matches: the proven identities were exactly the enrolled set.
        policy_digest: of the appraisal policy.
        document: SHA-256 of the appraisal policy's canonical input (`keybroker.store.documents`).
        codes: of the appraisal's denials, sorted.
        reason_codes: of everything that spoke against the node by itself, sorted.
        reasons: the same in full, canonical JSON (`keybroker.last_appraisal`).
    """

    node_id: str
    appraised_at: int
    allow: bool
    status: int
    simulated: bool
    assurance: str
    tenant: str | None
    host_data: str
    claimed_node_id: str
    matches: bool
    policy_digest: bytes
    document: bytes
    codes: tuple[str, ...]
    reason_codes: tuple[str, ...]
    reasons: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What nodes are told apart by, besides their own state.

    Attributes:
        site_ids: the sites whose nodes are counted.
        node_ids: nodes that a grant names; empty where it names none.
        grant_id: the job, whose lease holders are told apart; empty where there is none yet.
        limited: assets with a ceiling over all jobs, whose lease holders are told apart.
        tenant: who asks: what a node was launched with for another tenant is not compared.
        image: the digest that nodes were launched with, or not; empty where none is asked for.
        policy_digest: the appraisal policy's: what was appraised under another is no appraisal.
        ages: bounds of age in seconds, ascending: nodes are told apart by between which of them they are.
        by_document: tell every appraisal apart by its input.
        now: integer seconds since the Unix epoch.
    """

    site_ids: Sequence[str]
    node_ids: Sequence[str]
    grant_id: str
    limited: Sequence[str]
    tenant: str
    image: str
    policy_digest: bytes
    ages: Sequence[int]
    by_document: bool
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """Nodes of one site that a release policy cannot tell apart.

    Attributes:
        site_id: their site.
        state, custody: theirs.
        nodes: how many there are.
        example: the first of them by name.
        appraised_at: the oldest of their appraisals; None where they have none that counts.
        allow, status, simulated, assurance, matches, codes, reason_codes: as `NodeAttestationRow`.
        claim_holds: they said the name that they are enrolled under.
        image_holds: they were launched with the image that was asked for.
        document: digest of the appraisal policy's input, where `Question.by_document` asks.
    """

    site_id: str
    state: NodeState
    custody: Custody
    nodes: int
    example: str
    appraised_at: int | None
    allow: bool | None
    status: int | None
    simulated: bool | None
    assurance: str | None
    matches: bool | None
    codes: tuple[str, ...] | None
    reason_codes: tuple[str, ...] | None
    claim_holds: bool | None
    image_holds: bool | None
    document: bytes | None


def put(connection: Connection, row: NodeAttestationRow) -> None:
    """Take `row` in the place of what was known of its node."""
    connection.execute(_upsert(postgres=connection.dialect.name == "postgresql"), values(row))


def find(connection: Connection, node_id: str) -> NodeAttestationRow | None:
    """What a node's last evidence came to; None where it never attested since it was enrolled as it is."""
    return find_one(connection, _BY_NODE, NodeAttestationRow, {"node_id": node_id})


def find_all(connection: Connection, node_ids: Iterable[str]) -> dict[str, NodeAttestationRow]:
    """What the last evidence of each of `node_ids` came to, where there is any; by name."""
    found: dict[str, NodeAttestationRow] = {}
    wanted = sorted(set(node_ids))
    for start in range(0, len(wanted), PAGE_LIMIT):
        part = {"node_ids": wanted[start : start + PAGE_LIMIT]}
        found |= {row.node_id: row for row in rows.find_all(connection, _BY_NODES, NodeAttestationRow, part)}
    return found


def forget(connection: Connection, node_id: str) -> None:
    """Forget what a node proved, because it is enrolled otherwise now."""
    connection.execute(delete(NODE_ATTESTATION).where(NODE_ATTESTATION.c.node_id == node_id))


def classes(connection: Connection, question: Question) -> list[NodeClass]:
    """The nodes at some sites, counted by what a release policy can tell them apart by; sorted by site, then by name.

    The database counts: what comes back has one row for each class, however many nodes there are.
    """
    last = NODE_ATTESTATION.c
    current = and_(
        last.node_id == NODE.c.node_id,
        last.policy_digest == question.policy_digest,
        last.appraised_at <= question.now,
    )
    told_apart = {
        "site_id": NODE.c.site_id,
        "state": NODE.c.state,
        "custody": NODE.c.custody,
        "allow": last.allow,
        "status": last.status,
        "simulated": last.simulated,
        "assurance": last.assurance,
        "matches": last.matches,
        "codes": last.codes,
        "reason_codes": last.reason_codes,
        "claim_holds": last.claimed_node_id == NODE.c.node_id,
        "image_holds": _image_holds(question),
        "document": last.document if question.by_document else cast(null(), LargeBinary),
    }
    # Which of them a node is in follows from the example that stands for its class.
    silent = {f"silent_{number}": column for number, column in enumerate(_silent(question))}
    facts = (
        select(
            *(column.label(name) for name, column in (told_apart | silent).items()), NODE.c.node_id, last.appraised_at
        )
        .select_from(NODE.outerjoin(NODE_ATTESTATION, current))
        .where(NODE.c.site_id.in_(question.site_ids))
        .subquery()
    )
    example = func.min(facts.c.node_id)
    statement = (
        select(
            *(facts.c[name] for name in told_apart),
            func.count().label("nodes"),
            example.label("example"),
            func.min(facts.c.appraised_at).label("appraised_at"),
        )
        .group_by(*(facts.c[name] for name in told_apart | silent))
        .order_by(facts.c.site_id, example)
    )
    return [NodeClass(**row) for row in connection.execute(statement).mappings()]


def _image_holds(question: Question) -> ColumnElement[bool]:
    last = NODE_ATTESTATION.c
    if not question.image:
        return false()
    return and_(or_(last.tenant.is_(None), last.tenant == question.tenant), last.host_data == question.image)


def _silent(question: Question) -> list[ColumnElement[Any]]:
    """What tells nodes apart and is not handed out: their age, and which leases they hold."""
    age = question.now - NODE_ATTESTATION.c.appraised_at
    columns: list[ColumnElement[Any]] = [case(*((age <= bound, bound) for bound in question.ages), else_=-1)]
    live = and_(LEASE.c.node_id == NODE.c.node_id, LEASE.c.state == LeaseState.LIVE, LEASE.c.expires_at > question.now)
    if question.grant_id:
        columns.append(exists().where(live, LEASE.c.grant_id == question.grant_id))
    columns += [
        exists().where(live, HELD_KEY.c.lease_id == LEASE.c.lease_id, HELD_KEY.c.asset == asset)
        for asset in question.limited
    ]
    if question.node_ids:
        columns.append(NODE.c.node_id.in_(question.node_ids))
    return columns


@cache
def _upsert(*, postgres: bool) -> Executable:
    insert = (postgresql.insert if postgres else sqlite.insert)(NODE_ATTESTATION)
    changed = {
        column.name: insert.excluded[column.name] for column in NODE_ATTESTATION.columns if not column.primary_key
    }
    return insert.on_conflict_do_update(index_elements=[NODE_ATTESTATION.c.node_id], set_=changed)
