"""Between messages of the contract and the domain's types. Nothing here decides anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypedDict

import rfc8785
from google.protobuf.timestamp_pb2 import Timestamp

from attestation.composite import NodeEvidence
from attestation.types import Evidence
from audit.receipt import Receipt
from keybroker import estate, requests
from keybroker.approvers import ApproverSet
from keybroker.assets import AssetView
from keybroker.constraints import Areas, Assurance, Constraints, parsed
from keybroker.decision import job_budgets
from keybroker.errors import InvalidRequestError
from keybroker.grants import SignedGrant
from keybroker.jobs import JobView
from keybroker.lineage import LineageView
from keybroker.node_import import Imported
from keybroker.release import WrappedKey
from keybroker.statements import Statement
from keybroker.store.assets import AssetRow, AssetVersionRow
from keybroker.store.declassifications import ApproverSetRow, DeclassificationRow
from keybroker.store.jobs import Standing
from keybroker.store.leases import LeaseRow
from keybroker.store.nodes import NodeRow
from keybroker.store.schema import AssetKind, AssetState, Custody, NodeState, SiteState
from keybroker.store.sites import SiteRecordRow, SiteRow
from keybroker.usage import UsageReport
from keystead.binding import AssetRef, AssetUse, BindingError, sha256
from keystead.v1 import (
    asset_ref_pb2,
    asset_service_pb2,
    constraints_pb2,
    declassification_service_pb2,
    evidence_pb2,
    job_service_pb2,
    lease_service_pb2,
    lineage_service_pb2,
    node_service_pb2,
    site_service_pb2,
)
from policy.decision import Obligation

MAX_CERTIFICATES: Final = 16
"""In one device's chain."""

_LAST_SECOND: Final = 253_402_300_799
"""9999-12-31T23:59:59Z, the last second of a `google.protobuf.Timestamp` (timestamp.proto)."""

_LABEL: Final = re.compile(r"[!-~]{1,64}\Z")
_ASSET_KINDS = {
    asset_service_pb2.ASSET_KIND_MODEL: AssetKind.MODEL,
    asset_service_pb2.ASSET_KIND_DATASET: AssetKind.DATASET,
    asset_service_pb2.ASSET_KIND_CHECKPOINT: AssetKind.CHECKPOINT,
    asset_service_pb2.ASSET_KIND_ADAPTER: AssetKind.ADAPTER,
    asset_service_pb2.ASSET_KIND_PREPROCESSED: AssetKind.PREPROCESSED,
    asset_service_pb2.ASSET_KIND_FEATURES: AssetKind.FEATURES,
    asset_service_pb2.ASSET_KIND_EVALUATION_SET: AssetKind.EVALUATION_SET,
}
_ASSURANCES = {
    constraints_pb2.ASSURANCE_UNSPECIFIED: Assurance.SIMULATED,
    constraints_pb2.ASSURANCE_SIMULATED: Assurance.SIMULATED,
    constraints_pb2.ASSURANCE_CPU: Assurance.CPU,
    constraints_pb2.ASSURANCE_CPU_AND_DEVICES: Assurance.CPU_AND_DEVICES,
}
_ASSURANCE_NUMBERS = {assurance: number for number, assurance in _ASSURANCES.items()}
_NAME_SETS = ("purposes", "sites", "projects", "users", "stages", "images", "networks")
_AREAS = ("residency", "exposure")
_KIND_NUMBERS = {kind: number for number, kind in _ASSET_KINDS.items()}
_ASSET_STATES = {
    AssetState.ACTIVE: asset_service_pb2.ASSET_STATE_ACTIVE,
    AssetState.REVOKED: asset_service_pb2.ASSET_STATE_REVOKED,
}
_JOB_STATES: Final[dict[Standing, job_service_pb2.JobState]] = {
    "open": job_service_pb2.JOB_STATE_OPEN,
    "preempted": job_service_pb2.JOB_STATE_PREEMPTED,
    "closed": job_service_pb2.JOB_STATE_CLOSED,
}
_NODE_STATES = {
    NodeState.ACTIVE: node_service_pb2.NODE_STATE_ACTIVE,
    NodeState.QUARANTINED: node_service_pb2.NODE_STATE_QUARANTINED,
    NodeState.RETIRED: node_service_pb2.NODE_STATE_RETIRED,
}
_NODE_STATES_IN = {number: state for state, number in _NODE_STATES.items()}
_CUSTODIES = {
    Custody.IN_TRANSIT: node_service_pb2.NODE_CUSTODY_IN_TRANSIT,
    Custody.INSTALLED: node_service_pb2.NODE_CUSTODY_INSTALLED,
    Custody.MAINTENANCE: node_service_pb2.NODE_CUSTODY_MAINTENANCE,
    Custody.DECOMMISSIONED: node_service_pb2.NODE_CUSTODY_DECOMMISSIONED,
}
_CUSTODIES_IN = {number: custody for custody, number in _CUSTODIES.items()}
_SITE_STATES = {
    SiteState.ACTIVE: site_service_pb2.SITE_STATE_ACTIVE,
    SiteState.SUSPENDED: site_service_pb2.SITE_STATE_SUSPENDED,
    SiteState.RETIRED: site_service_pb2.SITE_STATE_RETIRED,
}


def timestamp(seconds: int) -> Timestamp:
    """Integer seconds as a `Timestamp`."""
    return Timestamp(seconds=seconds)


def seconds(value: Timestamp, field: str) -> int:
    """A `Timestamp` as integer seconds.

    Raises:
        InvalidRequestError: it has a fraction, or lies before 1970 or after 9999.
    """
    if value.nanos or not 0 <= value.seconds <= _LAST_SECOND:
        raise InvalidRequestError(field, "must be in whole seconds, from 1970 to 9999")
    return value.seconds


def asset_ref(message: asset_ref_pb2.AssetRef, field: str) -> AssetRef:
    """An asset version.

    Raises:
        InvalidRequestError: it is malformed.
    """
    try:
        return AssetRef.parse(f"{requests.asset_name(message.asset, f'{field}.asset')}@{message.version}")
    except BindingError:
        raise InvalidRequestError(f"{field}.version", f"{message.version}: versions count from 1") from None


def asset_refs(messages: Iterable[asset_ref_pb2.AssetRef], field: str) -> list[AssetRef]:
    """Asset versions.

    Raises:
        InvalidRequestError: one is malformed.
    """
    return [asset_ref(message, f"{field}[{index}]") for index, message in enumerate(messages)]


def asset_ref_message(ref: AssetRef) -> asset_ref_pb2.AssetRef:
    """An asset version as a message."""
    return asset_ref_pb2.AssetRef(asset=ref.asset, version=ref.version)


def device_evidence(message: evidence_pb2.DeviceEvidence, field: str) -> Evidence:
    """One device's evidence.

    Raises:
        InvalidRequestError: it has no slot or scheme, or more certificates than any chain has.
    """
    if not _LABEL.match(message.slot) or not _LABEL.match(message.scheme):
        raise InvalidRequestError(field, "slot and scheme are needed: 1 to 64 visible ASCII characters each")
    if len(message.certificates) > MAX_CERTIFICATES:
        raise InvalidRequestError(f"{field}.certificates", f"more than {MAX_CERTIFICATES}")
    return Evidence(message.slot, message.scheme, message.data, tuple(message.certificates))


def node_evidence(message: evidence_pb2.NodeEvidence) -> NodeEvidence:
    """A node's evidence.

    Raises:
        InvalidRequestError: a device's is malformed.
    """
    return NodeEvidence(
        cpu=device_evidence(message.cpu, "evidence.cpu"),
        devices=tuple(
            device_evidence(device, f"evidence.devices[{index}]") for index, device in enumerate(message.devices)
        ),
    )


def signed_grant(message: job_service_pb2.JobGrant) -> SignedGrant:
    """A grant as its holder presents it."""
    return SignedGrant(message.grant, message.signature, message.key_id)


def grant_message(grant: SignedGrant) -> job_service_pb2.JobGrant:
    """A grant as a message."""
    return job_service_pb2.JobGrant(grant=grant.grant, signature=grant.signature, key_id=grant.key_id)


def job_message(view: JobView) -> job_service_pb2.Job:
    """A job as its tenant sees it."""
    return job_service_pb2.Job(
        job_uid=view.row.job_uid,
        grant_id=view.grant.grant_id,
        tenant=view.row.tenant,
        state=_JOB_STATES[view.row.standing],
        assets=[asset_ref_message(ref) for ref in view.grant.assets],
        purposes=view.grant.purposes,
        expire_time=timestamp(view.row.not_after),
        live_leases=view.live_leases,
        start_time=timestamp(view.row.not_before),
        project=view.grant.project,
        user=view.grant.user,
        stage=view.grant.stage,
        image=view.grant.image,
        network=view.grant.network,
        attempt=view.row.attempt,
        budgets=job_budgets(view.row.budgets),
        uses=[
            job_service_pb2.BudgetUse(
                asset=asset_ref_message(use.ref), name=use.name, scope=use.scope, limit=use.limit, spent=use.spent
            )
            for use in view.uses
        ],
    )


def usage_report(message: lease_service_pb2.ReportUsageRequest) -> UsageReport:
    """What a lease used.

    Raises:
        InvalidRequestError: an asset is malformed.
    """
    return UsageReport(
        lease_id=message.lease_id,
        sequence=message.sequence,
        uses=tuple(
            AssetUse(
                ref=asset_ref(use.asset, f"uses[{index}].asset"),
                bytes_opened=use.bytes_opened,
                tokens_served=use.tokens_served,
                bytes_served=use.bytes_served,
            )
            for index, use in enumerate(message.uses)
        ),
        signature=message.signature,
    )


class JobArguments(TypedDict):
    """What a request says of a job, as `keybroker.jobs.authorize` and `keybroker.jobs.proposed` take it."""

    job_uid: str
    refs: list[AssetRef]
    purposes: Sequence[str]
    node_ids: Sequence[str]
    site_ids: Sequence[str]
    node_ceiling: int
    not_after: int
    not_before: int | None
    project: str
    user: str
    stage: str
    image: str
    network: str
    budgets: Mapping[str, int]


def job_request(request: job_service_pb2.AuthorizeJobRequest) -> JobArguments:
    """What is asked for a job.

    Raises:
        InvalidRequestError: an asset or an instant is malformed.
    """
    return JobArguments(
        job_uid=request.job_uid,
        refs=[asset_ref(ref, f"assets[{index}]") for index, ref in enumerate(request.assets)],
        purposes=request.purposes,
        node_ids=request.nodes,
        site_ids=request.sites,
        node_ceiling=request.node_ceiling,
        not_after=seconds(request.expire_time, "expire_time"),
        not_before=seconds(request.start_time, "start_time") if request.HasField("start_time") else None,
        project=request.project,
        user=request.user,
        stage=request.stage,
        image=request.image,
        network=request.network,
        budgets=dict(request.budgets),
    )


def constraints(message: constraints_pb2.Constraints) -> Constraints:
    """Constraints.

    Raises:
        ConstraintsError: a member is outside what it may be; it names the field.
    """
    document: dict[str, object] = {"classification": message.classification}
    for name in _NAME_SETS:
        if message.HasField(name):
            document[name] = list(getattr(message, name).names)
    for name in _AREAS:
        areas = getattr(message, name)
        document[name] = {
            "allowed": [list(clause.areas) for clause in areas.allowed],
            "forbidden": list(areas.forbidden),
        }
    if message.HasField("retain_until"):
        document["retain_until"] = seconds(message.retain_until, "retain_until")
    for name in ("node_ceiling", "copy_ceiling"):
        if message.HasField(name):
            document[name] = getattr(message, name)
    if message.assurance not in _ASSURANCES:
        raise InvalidRequestError("assurance", "unknown")
    document["assurance"] = _ASSURANCES[message.assurance].label
    document["budgets"] = dict(message.budgets)
    document["obligations"] = {code: dict(duty.params) for code, duty in message.obligations.items()}
    return Constraints.from_document(document)


def constraints_message(value: Constraints) -> constraints_pb2.Constraints:
    """Constraints as a message."""
    message = constraints_pb2.Constraints(
        classification=value.classification,
        assurance=_ASSURANCE_NUMBERS[value.assurance],
        node_ceiling=value.node_ceiling,
        copy_ceiling=value.copy_ceiling,
        retain_until=None if value.retain_until is None else timestamp(value.retain_until),
        budgets=value.budgets,
        obligations={
            code: constraints_pb2.ObligationParams(params=params) for code, params in value.obligations.items()
        },
    )
    for name in _NAME_SETS:
        names = getattr(value, name)
        if names is not None:
            getattr(message, name).CopyFrom(constraints_pb2.NameSet(names=sorted(names)))
    for name in _AREAS:
        areas: Areas = getattr(value, name)
        if areas != Areas():
            getattr(message, name).CopyFrom(
                constraints_pb2.Areas(
                    allowed=[constraints_pb2.AreaClause(areas=clause) for clause in areas.clauses()],
                    forbidden=sorted(areas.forbidden),
                )
            )
    return message


def asset_kind(number: asset_service_pb2.AssetKind) -> AssetKind:
    """What an asset is.

    Raises:
        InvalidRequestError: unspecified or unknown.
    """
    if number not in _ASSET_KINDS:
        raise InvalidRequestError("kind", "unspecified or unknown")
    return _ASSET_KINDS[number]


def node_state(number: node_service_pb2.NodeState) -> NodeState:
    """Whether a node may receive keys.

    Raises:
        InvalidRequestError: unspecified or unknown.
    """
    if number not in _NODE_STATES_IN:
        raise InvalidRequestError("state", "unspecified or unknown")
    return _NODE_STATES_IN[number]


def asset_message(row: AssetRow, versions: tuple[AssetVersionRow, ...] = ()) -> asset_service_pb2.Asset:
    """An asset as its owner sees it."""
    return asset_service_pb2.Asset(
        asset=row.asset,
        kind=_KIND_NUMBERS[row.kind],
        state=_ASSET_STATES[row.state],
        constraints=constraints_message(parsed(row.constraints)),
        create_time=timestamp(row.created_at),
        versions=[version_message(version) for version in versions],
    )


def asset_view_message(view: AssetView) -> asset_service_pb2.Asset:
    """An asset with its versions."""
    return asset_message(view.row, view.versions)


def version_message(row: AssetVersionRow) -> asset_service_pb2.AssetVersion:
    """One version of an asset; never its key."""
    return asset_service_pb2.AssetVersion(
        ref=asset_ref_message(row.ref),
        key_id=row.key_id,
        manifest_digest=row.manifest_digest,
        create_time=timestamp(row.created_at),
        constraints=constraints_message(parsed(row.constraints)),
        state=_ASSET_STATES[row.state],
    )


def lineage_goes_up(number: lineage_service_pb2.LineageDirection) -> bool:
    """Whether a question about lineage is for what something was derived from.

    Raises:
        InvalidRequestError: unspecified or unknown.
    """
    if number not in (lineage_service_pb2.LINEAGE_DIRECTION_UP, lineage_service_pb2.LINEAGE_DIRECTION_DOWN):
        raise InvalidRequestError("direction", "unspecified or unknown")
    return number == lineage_service_pb2.LINEAGE_DIRECTION_UP


def lineage_message(view: LineageView) -> lineage_service_pb2.GetLineageResponse:
    """A part of the lineage graph."""
    return lineage_service_pb2.GetLineageResponse(
        roots=[asset_ref_message(ref) for ref in view.roots],
        nodes=[
            lineage_service_pb2.LineageNode(
                ref=asset_ref_message(ref),
                kind=_KIND_NUMBERS[asset.kind],
                state=_ASSET_STATES[
                    version.state if asset.state is AssetState.ACTIVE else asset.state  # revoked is either's word
                ],
                constraints_digest=sha256(version.constraints.encode("utf-8")),
            )
            for ref, (asset, version) in sorted(view.versions.items())
        ],
        edges=[
            lineage_service_pb2.LineageEdge(
                child=asset_ref_message(edge.child),
                parent=asset_ref_message(edge.parent),
                grant_id=edge.grant_id or "",
                lease_id=edge.lease_id or "",
                create_time=timestamp(edge.created_at),
            )
            for edge in view.edges
        ],
        truncated=view.truncated,
    )


def approvers_message(row: ApproverSetRow) -> declassification_service_pb2.ApproverSet:
    """A set of approvers, as it was signed."""
    approvers = ApproverSet.of(Statement.parse(row.statement))
    return declassification_service_pb2.ApproverSet(
        serial=row.serial,
        threshold=approvers.threshold,
        approvers=[
            declassification_service_pb2.Approver(name=name, public_key=key) for name, key in approvers.keys.items()
        ],
        statement=row.statement,
        signatures=row.signatures,
        create_time=timestamp(row.created_at),
    )


def declassification_message(row: DeclassificationRow) -> declassification_service_pb2.Declassification:
    """A declassification."""
    applied = row.applied_at is not None
    return declassification_service_pb2.Declassification(
        digest=row.digest,
        ref=asset_ref_message(row.ref),
        serial=row.serial,
        author=row.author,
        state=declassification_service_pb2.DECLASSIFICATION_STATE_APPLIED
        if applied
        else declassification_service_pb2.DECLASSIFICATION_STATE_PROPOSED,
        statement=row.statement,
        signatures=row.signatures,
        signers=row.signers,
        create_time=timestamp(row.proposed_at),
        apply_time=None if row.applied_at is None else timestamp(row.applied_at),
    )


def site_message(row: SiteRow) -> site_service_pb2.Site:
    """A site."""
    return site_service_pb2.Site(
        site_id=row.site_id,
        jurisdiction=row.jurisdiction,
        facility=row.facility,
        operator=row.operator,
        expire_time=timestamp(row.valid_until),
        state=_SITE_STATES[row.state],
        serial=row.serial,
        start_time=timestamp(row.valid_from),
        exposures=row.exposures,
        certifications=row.certifications,
        network_zone=row.network_zone,
    )


def site_record_message(row: SiteRecordRow | None) -> site_service_pb2.SignedStatement | None:
    """A site's signed record."""
    if row is None:
        return None
    return site_service_pb2.SignedStatement(statement=row.statement, signatures=row.signatures)


def node_row(message: node_service_pb2.Node, field: str, *, now: int) -> NodeRow:
    """A node as it would be enrolled, checked by itself.

    Raises:
        InvalidRequestError: a field is missing or malformed.
    """
    number = message.custody or node_service_pb2.NODE_CUSTODY_INSTALLED
    return estate.check_node(
        node_id=message.node_id,
        site_id=message.site_id,
        devices=[device(each) for each in message.devices],
        partition=message.partition,
        custody=node_custody(number, f"{field}.custody"),
        place=estate.Place(
            rack=message.rack,
            power_zone=message.power_zone,
            cooling_zone=message.cooling_zone,
            network_zone=message.network_zone,
        ),
        field=field,
        now=now,
    )


def device(message: node_service_pb2.DeviceIdentity) -> estate.Device:
    """A device as a request names it."""
    return estate.Device(message.slot, message.kind, message.value)


def node_custody(number: node_service_pb2.NodeCustody, field: str) -> Custody:
    """In whose hands a node is.

    Raises:
        InvalidRequestError: unspecified or unknown.
    """
    if number not in _CUSTODIES_IN:
        raise InvalidRequestError(field, "unspecified or unknown")
    return _CUSTODIES_IN[number]


def node_message(row: NodeRow) -> node_service_pb2.Node:
    """A node with its devices."""
    devices = []
    for each in row.devices:
        kind, _, value = each.identity.partition(":")
        devices.append(node_service_pb2.DeviceIdentity(slot=each.slot, kind=kind, value=value))
    return node_service_pb2.Node(
        node_id=row.node_id,
        site_id=row.site_id,
        devices=devices,
        state=_NODE_STATES[row.state],
        partition=row.partition,
        custody=_CUSTODIES[row.custody],
        rack=row.rack,
        power_zone=row.power_zone,
        cooling_zone=row.cooling_zone,
        network_zone=row.network_zone,
    )


def import_message(outcome: Imported) -> node_service_pb2.ImportNodesResponse:
    """What became of an import."""
    return node_service_pb2.ImportNodesResponse(
        nodes=outcome.nodes,
        devices=outcome.devices,
        problems=[
            node_service_pb2.ImportProblem(
                line=problem.line, field=problem.field, code=problem.code, message=problem.message
            )
            for problem in outcome.problems
        ],
        problem_count=outcome.problem_count,
    )


def lease_message(row: LeaseRow) -> lease_service_pb2.Lease:
    """A lease."""
    return lease_service_pb2.Lease(
        lease_id=row.lease_id,
        job_uid=row.job_uid,
        node_id=row.node_id,
        assets=[asset_ref_message(AssetRef.parse(text)) for text in row.assets],
        expire_time=timestamp(row.expires_at),
        policy_digest=row.policy_digest,
    )


def obligation_message(obligation: Obligation) -> lease_service_pb2.Obligation:
    """A duty."""
    return lease_service_pb2.Obligation(
        code=obligation.code, params=rfc8785.dumps(dict(obligation.params)).decode("utf-8")
    )


def key_message(key: WrappedKey) -> lease_service_pb2.WrappedKey:
    """A wrapped key."""
    return lease_service_pb2.WrappedKey(
        asset=asset_ref_message(key.ref),
        key_id=key.key_id,
        ciphertext=key.ciphertext,
        manifest_digest=key.manifest_digest,
    )


def receipt_message(receipt: Receipt) -> lease_service_pb2.Receipt:
    """A receipt."""
    return lease_service_pb2.Receipt(
        origin=receipt.origin,
        entry_hash=receipt.entry_hash,
        commit_time=timestamp(receipt.time),
        key_id=receipt.key_id.hex(),
        signature=receipt.signature,
    )
