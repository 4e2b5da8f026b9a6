"""Where a job may run, before anything is queued: which nodes would get its keys, and why the others would not.

Nothing is decided here that is not decided elsewhere: every answer is the release policy's own, asked at stage
``plan``, about what each node proved last. Nodes that a policy cannot tell apart are counted, and asked about once.
Nothing is wrapped, spent, or promised: a node may be quarantined, or an asset revoked, a moment later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
from keybroker import jobs, requests
from keybroker.broker import Broker, actor
from keybroker.constraints import Assurance
from keybroker.decision import MAX_ASSETS, Snapshot, Verdict, decide, snapshot_for
from keybroker.denial import Reason, ordered
from keybroker.errors import InvalidRequestError
from keybroker.last_appraisal import LastAppraisal, find_document, read_reasons, recall
from keybroker.principals import Principal
from keybroker.store import node_attestations, nodes, sites
from keybroker.store.jobs import JobRow
from keybroker.store.node_attestations import NodeClass, Question
from keybroker.store.nodes import NodeRow
from keybroker.store.sites import SiteRow
from keystead.binding import AssetRef, JobGrant
from policy.decision import Obligation
from policy.inputs import AttestationInput

MAX_SITES: Final = 100
"""Sites in one page of a plan."""

MAX_GROUPS: Final = 16
"""Groups of nodes, by why they are not eligible, that are told apart at one site."""

MAX_JUDGED: Final = 256
"""Appraisals that a tenant's own policy judges for one page of a plan; what is beyond is counted and said to be."""

AWAITED: Final = frozenset({"ATTESTATION_MISSING", "ATTESTATION_STALE"})
"""What a node mends by itself, by attesting: one that only this speaks against is eligible, and not attested now."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The job that is asked about.

    Attributes:
        grant: what it was granted, or would be.
        row: the job; as it would be opened where it is not there yet.
        reasons: why it would not be authorized at all; empty for a job that is open.
        opened: it is there.
        now: the time that is asked about: for a job that is not there, its beginning.
    """

    grant: JobGrant
    row: JobRow
    reasons: tuple[Reason, ...]
    opened: bool
    now: int


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes of one site that are not eligible for the same reasons.

    Attributes:
        nodes: how many.
        example: one of them; the reasons' values are its. Empty where the site has no node at all.
        reasons: why not.
    """

    nodes: int
    example: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class SitePlan:
    """One site.

    Attributes:
        site: the site.
        nodes: how many are enrolled there.
        eligible: how many would get every key of the job, once they have attested.
        attested: how many of these would get it now: what they proved last is fresh enough.
        groups: why the others would not, the largest groups first.
        untold: nodes in groups beyond `MAX_GROUPS`.
    """

    site: SiteRow
    nodes: int
    eligible: int
    attested: int
    groups: tuple[Group, ...]
    untold: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A page of sites, by name.

    Attributes:
        reasons: why the job would not be authorized at all; no site is eligible then.
        sites: the page.
        more: there are sites after these.
    """

    reasons: tuple[Reason, ...]
    sites: tuple[SitePlan, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class DryRun:
    """Whether a node would get a job's keys.

    Attributes:
        reasons: why not; empty where it would.
        obligations: the duties that would travel with the lease.
        appraised_at: when the node proved what this rests on; None where it never did.
        record_hash: RFC 9162 hash of the audit entry that remembers who asked.
    """

    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    appraised_at: int | None
    record_hash: bytes


def opened(connection: Connection, *, tenant: str, job_uid: str, now: int) -> Subject:
    """A job that is there.

    Raises:
        NotFoundError: this tenant has no such job.
    """
    view = jobs.get(connection, tenant=tenant, job_uid=job_uid, now=now)
    return Subject(view.grant, view.row, (), opened=True, now=now)


def proposed(broker: Broker, grant: JobGrant, row: JobRow, *, now: int) -> Subject:
    """A job that is not there: `grant` is what it would ask for, `row` what it would be (`keybroker.jobs.proposed`)."""
    judged = jobs.judge(broker, grant, row, now=now)
    return Subject(grant, row, judged.reasons, opened=False, now=max(now, grant.not_before))


def plan(broker: Broker, subject: Subject, *, after: str, limit: int, now: int) -> Plan:
    """Which nodes would get every key of a job, how many have attested, and why the others would not.

    Args:
        broker: the running broker.
        subject: the job.
        after: sites whose name follows this.
        limit: how many sites, at most `MAX_SITES`.
        now: integer seconds since the Unix epoch, by which the age of attestations is judged.
    """
    grant = subject.grant
    policies = broker.policies.of(grant.tenant)
    wanted = min(limit, MAX_SITES)
    with broker.read() as connection:
        found = sites.page(connection, after=after, limit=wanted + 1)
        page = {site.site_id: site for site in found[:wanted]}
        base = snapshot_for(
            connection, subject.row, attempt=subject.row.attempt, refs=grant.assets, node=None, site=None, now=now
        )
        question = Question(
            site_ids=sorted(page),
            node_ids=grant.nodes,
            grant_id=subject.row.grant_id if subject.opened else "",
            limited=sorted(base.holders),
            tenant=grant.tenant,
            image=grant.image,
            policy_digest=bytes.fromhex(broker.policies.appraisal.digest),
            ages=policies.age_ceilings,
            by_document=policies.appraisal is not None,
            now=now,
        )
        counted = _merged(node_attestations.classes(connection, question))
        examples = _examples(broker, connection, counted, image=grant.image, now=now)
    at_site: defaultdict[str, list[tuple[NodeClass, tuple[Reason, ...]]]] = defaultdict(list)
    for each in counted:
        reasons = _judge(broker, subject, base, node=_node(each), site=page[each.site_id], known=examples[each.example])
        at_site[each.site_id].append((each, reasons))
    return Plan(
        subject.reasons,
        tuple(_site_plan(broker, subject, base, site, at_site[site.site_id]) for site in page.values()),
        len(found) > wanted,
    )


def would_release(
    broker: Broker,
    subject: Subject,
    *,
    caller: Principal,
    node_id: str,
    refs: Sequence[AssetRef],
    now: int,
) -> DryRun:
    """Whether a node would get a job's keys, by what it proved last; that it was asked is recorded before the answer.

    Args:
        broker: the running broker.
        subject: the job.
        caller: who asks.
        node_id: the node.
        refs: the asset versions to open; all of the job's where there are none.
        now: integer seconds since the Unix epoch.

    Raises:
        NotFoundError: no such node.
        InvalidRequestError: an asset is there twice, or too many are.
    """
    grant = subject.grant
    wanted = tuple(sorted(refs)) or grant.assets
    if len(set(wanted)) != len(wanted) or len(wanted) > MAX_ASSETS:
        raise InvalidRequestError("assets", f"at most {MAX_ASSETS} different assets can be asked for at once")
    with broker.read() as connection:
        node, site = nodes.get_with_site(connection, requests.identifier(node_id, "node_id"))
        snapshot = snapshot_for(
            connection, subject.row, attempt=subject.row.attempt, refs=wanted, node=node, site=site, now=now
        )
        known = recall(broker, connection, node.node_id, tenant=grant.tenant, now=now)
    verdict = _verdict(broker, subject, snapshot, refs=wanted, known=known)
    reasons = ordered([*subject.reasons, *known.reasons, *verdict.reasons])
    record = Record.build(
        kind=Kind.PLACEMENT_READ,
        time=now,
        actor=actor(caller),
        tenant=grant.tenant,
        job=grant.job_uid,
        node=node.node_id,
        site=site.site_id,
        jurisdiction=site.jurisdiction,
        assets=tuple(str(ref) for ref in wanted if ref in snapshot.assets),
        policy_digest=broker.policies.of(grant.tenant).digest,
        result=Result.RECORDED,
        reasons=tuple(sorted({reason.code for reason in reasons})),
        detail={"would_release": not reasons, "opened": subject.opened},
    )
    entry = broker.commit(lambda connection: append(connection, record).entry_hash)
    return DryRun(reasons, () if reasons else verdict.obligations, known.appraised_at, entry)


def _node(each: NodeClass) -> NodeRow:
    """The example of a class, as far as a policy sees a node."""
    return NodeRow(node_id=each.example, site_id=each.site_id, state=each.state, custody=each.custody, created_at=0)


def _merged(counted: Sequence[NodeClass]) -> list[NodeClass]:
    """Classes of which at most `MAX_JUDGED` name the input of their appraisal; the others are put together."""
    named = 0
    kept: list[NodeClass] = []
    together: dict[NodeClass, NodeClass] = {}
    for each in counted:
        if each.document is None or named < MAX_JUDGED:
            named += each.document is not None
            kept.append(each)
            continue
        alike = replace(each, document=None, nodes=0, example="", appraised_at=None)
        before = together.get(alike)
        ages = [item.appraised_at for item in (each, before) if item is not None and item.appraised_at is not None]
        together[alike] = replace(
            each if before is None else before,
            document=None,
            nodes=each.nodes + (0 if before is None else before.nodes),
            appraised_at=min(ages, default=None),
        )
    return [*kept, *together.values()]


def _examples(
    broker: Broker, connection: Connection, counted: Sequence[NodeClass], *, image: str, now: int
) -> dict[str, LastAppraisal]:
    """What stands for each class, by the name of its example: the last appraisal there, as old as the oldest."""
    spoken = [each.example for each in counted if each.reason_codes or each.claim_holds is False]
    rows = node_attestations.find_all(connection, spoken)
    digest = broker.policies.appraisal.digest
    found = {}
    for each in counted:
        row = rows.get(each.example)
        if each.appraised_at is None or each.assurance is None:
            found[each.example] = LastAppraisal.none(each.example)
            continue
        found[each.example] = LastAppraisal(
            claimed_node_id=each.example if row is None else row.claimed_node_id,
            matches=each.matches is True,
            attestation=AttestationInput(
                allow=each.allow is True,
                status=each.status or 0,
                simulated=each.simulated is not False,
                policy_digest=digest,
                codes=each.codes or (),
                age=now - each.appraised_at,
                assurance=Assurance.parse(each.assurance).label,
                host_data=image if each.image_holds else "",
            ),
            reasons=() if row is None else read_reasons(row.reasons),
            document=b"" if each.document is None else find_document(connection, each.document),
            appraised_at=each.appraised_at,
        )
    return found


def _judge(
    broker: Broker, subject: Subject, base: Snapshot, *, node: NodeRow | None, site: SiteRow, known: LastAppraisal
) -> tuple[Reason, ...]:
    snapshot = replace(base, node=node, site=site)
    verdict = _verdict(broker, subject, snapshot, refs=subject.grant.assets, known=known)
    return ordered([*subject.reasons, *known.reasons, *verdict.reasons])


def _verdict(
    broker: Broker, subject: Subject, snapshot: Snapshot, *, refs: Sequence[AssetRef], known: LastAppraisal
) -> Verdict:
    return decide(broker, stage="plan", grant=subject.grant, refs=refs, proof=known, snapshot=snapshot, now=subject.now)


def _site_plan(
    broker: Broker,
    subject: Subject,
    base: Snapshot,
    site: SiteRow,
    judged: Sequence[tuple[NodeClass, tuple[Reason, ...]]],
) -> SitePlan:
    eligible = attested = 0
    groups: dict[tuple[str, ...], Group] = {}
    for each, reasons in judged:
        codes = tuple(sorted({reason.code for reason in reasons}))
        if AWAITED.issuperset(codes):
            eligible += each.nodes
            attested += 0 if codes else each.nodes
            continue
        before = groups.get(codes)
        groups[codes] = (
            Group(each.nodes, each.example, reasons)
            if before is None
            else replace(before, nodes=before.nodes + each.nodes)
        )
    if not judged:
        none = LastAppraisal.none("")
        reasons = _judge(broker, subject, base, node=None, site=site, known=none)
        groups[()] = Group(0, "", reasons)
    ranked = sorted(groups.values(), key=lambda group: (-group.nodes, group.example))
    return SitePlan(
        site=site,
        nodes=sum(each.nodes for each, _ in judged),
        eligible=eligible,
        attested=attested,
        groups=tuple(ranked[:MAX_GROUPS]),
        untold=sum(group.nodes for group in ranked[MAX_GROUPS:]),
    )
