"""One adapter per service of the contract: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message
from sqlalchemy import Connection

from audit import query
from audit.errors import QueryError
from audit.records import Kind, Result
from keybroker import appraisals, assets, challenge, estate, jobs, leases, reads, release, renewal, requests
from keybroker.broker import Broker
from keybroker.errors import InvalidRequestError
from keybroker.passport import Passport
from keybroker.principals import Principal, Role
from keybroker.services import convert
from keybroker.services.identity import principal
from keybroker.store import nodes, sites
from keystead.binding import grant_digest, sha256
from keystead.v1 import (
    asset_service_pb2,
    asset_service_pb2_grpc,
    attestation_service_pb2,
    attestation_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    lease_service_pb2,
    lease_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    site_service_pb2,
    site_service_pb2_grpc,
)

M = TypeVar("M", bound=Message)

_FILTER_TEXTS: Final = tuple(
    field.name
    for field in audit_service_pb2.QueryRecordsRequest.DESCRIPTOR.fields
    if field.type == field.TYPE_STRING and field.name not in ("asset", "kind", "result", "page_token")
)
"""Filters that are compared as they are; the others have a form of their own."""

_FILTER_TEXT: Final = re.compile(r"[!-~]{0,600}\Z")


class _Adapter:
    """What every adapter has: the broker, and who calls."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def caller(self, context: grpc.ServicerContext, *roles: Role) -> Principal:
        """The authenticated caller, who must have one of `roles`."""
        return principal(context, *roles, trust_domain=self.broker.config.broker.trust_domain)

    def once(
        self,
        unit: Callable[[Connection], M],
        response: type[M],
        *,
        caller: Principal,
        request: Message,
        request_id: str,
        now: int,
        order: str = "",
    ) -> M:
        """Run a mutation once per request id; `unit` returns the answer as a message."""
        data = self.broker.once(
            lambda connection: unit(connection).SerializeToString(deterministic=True),
            caller=caller,
            request_id=requests.request_id(request_id),
            method=type(request).__name__,
            request_digest=_digest(request),
            now=now,
            order=order,
        )
        message = response()
        message.ParseFromString(data)
        return message


class AttestationAdapter(_Adapter, attestation_service_pb2_grpc.AttestationServiceServicer):
    """`keystead.v1.AttestationService`."""

    def GetChallenge(  # noqa: N802 - the contract's name
        self, request: attestation_service_pb2.GetChallengeRequest, context: grpc.ServicerContext
    ) -> attestation_service_pb2.GetChallengeResponse:
        """Issue a nonce."""
        self.caller(context, Role.NODE, Role.SCHEDULER)
        issued = challenge.issue(
            self.broker.epochs,
            grant=grant_digest(request.grant or None),
            broker=self.broker.name,
            now=self.broker.clock(),
        )
        return attestation_service_pb2.GetChallengeResponse(
            nonce=issued.nonce, expire_time=convert.timestamp(issued.expires_at), broker=self.broker.name
        )

    def Appraise(  # noqa: N802
        self, request: attestation_service_pb2.AppraiseRequest, context: grpc.ServicerContext
    ) -> attestation_service_pb2.AppraiseResponse:
        """Appraise a node."""
        answer = appraisals.appraise_node(
            self.broker,
            caller=self.caller(context, Role.NODE),
            evidence=convert.node_evidence(request.evidence),
            runtime_data=request.evidence.runtime_data,
            grant=request.grant or None,
        )
        return attestation_service_pb2.AppraiseResponse(
            attestation_result=answer.result,
            expire_time=convert.timestamp(answer.expires_at),
            node_id=answer.node_id,
            next_nonce=answer.next_nonce,
        )


class JobAdapter(_Adapter, job_service_pb2_grpc.JobServiceServicer):
    """`keystead.v1.JobService`."""

    def AuthorizeJob(  # noqa: N802
        self, request: job_service_pb2.AuthorizeJobRequest, context: grpc.ServicerContext
    ) -> job_service_pb2.AuthorizeJobResponse:
        """Decide about a job and sign its grant."""
        caller = self.caller(context, Role.SCHEDULER)
        known = self.broker.answered(
            caller=caller,
            request_id=requests.request_id(request.request_id),
            method=type(request).__name__,
            request_digest=_digest(request),
        )
        if known is not None:
            return job_service_pb2.AuthorizeJobResponse.FromString(known)
        authorization = jobs.authorize(
            self.broker,
            caller=caller,
            job_uid=request.job_uid,
            refs=[convert.asset_ref(ref, f"assets[{index}]") for index, ref in enumerate(request.assets)],
            purposes=request.purposes,
            node_ids=request.nodes,
            site_ids=request.sites,
            node_ceiling=request.node_ceiling,
            not_after=convert.seconds(request.expire_time, "expire_time"),
        )
        nonce = challenge.issue(
            self.broker.epochs,
            grant=grant_digest(authorization.signed.grant),
            broker=self.broker.name,
            now=authorization.now,
        )

        def unit(connection: Connection) -> job_service_pb2.AuthorizeJobResponse:
            signed = authorization.commit(connection)
            return job_service_pb2.AuthorizeJobResponse(
                grant=convert.grant_message(signed),
                nonce=nonce.nonce,
                nonce_expire_time=convert.timestamp(nonce.expires_at),
                broker=self.broker.name,
            )

        return self.once(
            unit,
            job_service_pb2.AuthorizeJobResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=authorization.now,
        )

    def GetJob(  # noqa: N802
        self, request: job_service_pb2.GetJobRequest, context: grpc.ServicerContext
    ) -> job_service_pb2.GetJobResponse:
        """Read a job."""
        caller = self.caller(context, Role.SCHEDULER)
        with self.broker.read() as connection:
            view = jobs.get(
                connection, tenant=caller.require_tenant(), job_uid=request.job_uid, now=self.broker.clock()
            )
        return job_service_pb2.GetJobResponse(job=convert.job_message(view))

    def EndJob(  # noqa: N802
        self, request: job_service_pb2.EndJobRequest, context: grpc.ServicerContext
    ) -> job_service_pb2.EndJobResponse:
        """End a job."""
        caller = self.caller(context, Role.SCHEDULER)
        now = self.broker.clock()

        def unit(connection: Connection) -> job_service_pb2.EndJobResponse:
            view, revoked = jobs.end(
                connection, caller=caller, tenant=caller.require_tenant(), job_uid=request.job_uid, now=now
            )
            return job_service_pb2.EndJobResponse(job=convert.job_message(view), revoked_leases=len(revoked))

        return self.once(
            unit,
            job_service_pb2.EndJobResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )


class LeaseAdapter(_Adapter, lease_service_pb2_grpc.LeaseServiceServicer):
    """`keystead.v1.LeaseService`."""

    def AcquireLease(  # noqa: N802
        self, request: lease_service_pb2.AcquireLeaseRequest, context: grpc.ServicerContext
    ) -> lease_service_pb2.AcquireLeaseResponse:
        """Release keys to an attested node."""
        caller = self.caller(context, Role.NODE)
        proof = request.WhichOneof("proof")
        granted = release.acquire(
            self.broker,
            signed=convert.signed_grant(request.grant),
            refs=[convert.asset_ref(ref, f"assets[{index}]") for index, ref in enumerate(request.assets)],
            evidence=convert.node_evidence(request.evidence) if proof == "evidence" else None,
            runtime_data=request.evidence.runtime_data,
            passport=_passport(request.passport) if proof == "passport" else None,
            caller=caller,
        )
        return lease_service_pb2.AcquireLeaseResponse(
            lease=convert.lease_message(granted.lease),
            keys=[convert.key_message(key) for key in granted.keys],
            obligations=[convert.obligation_message(item) for item in granted.obligations],
            attestation_result=granted.attestation_result,
            receipt=convert.receipt_message(granted.receipt),
            next_nonce=granted.next_nonce,
        )

    def RenewLease(  # noqa: N802
        self, request: lease_service_pb2.RenewLeaseRequest, context: grpc.ServicerContext
    ) -> lease_service_pb2.RenewLeaseResponse:
        """Extend a lease."""
        caller = self.caller(context, Role.NODE)
        granted = renewal.renew(
            self.broker,
            lease_id=request.lease_id,
            evidence=convert.node_evidence(request.evidence),
            runtime_data=request.evidence.runtime_data,
            caller=caller,
        )
        return lease_service_pb2.RenewLeaseResponse(
            lease=convert.lease_message(granted.lease),
            obligations=[convert.obligation_message(item) for item in granted.obligations],
            attestation_result=granted.attestation_result,
            receipt=convert.receipt_message(granted.receipt),
            next_nonce=granted.next_nonce,
        )

    def ReturnLease(  # noqa: N802
        self, request: lease_service_pb2.ReturnLeaseRequest, context: grpc.ServicerContext
    ) -> lease_service_pb2.ReturnLeaseResponse:
        """End a lease at its node's word."""
        receipt = leases.give_back(
            self.broker,
            lease_id=request.lease_id,
            zeroised=request.zeroised,
            signature=request.signature,
            caller=self.caller(context, Role.NODE),
        )
        return lease_service_pb2.ReturnLeaseResponse(receipt=convert.receipt_message(receipt))


class AssetAdapter(_Adapter, asset_service_pb2_grpc.AssetServiceServicer):
    """`keystead.v1.AssetService`."""

    def RegisterAsset(  # noqa: N802
        self, request: asset_service_pb2.RegisterAssetRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.RegisterAssetResponse:
        """Register an asset."""
        caller = self.caller(context, Role.OWNER)
        kind = convert.asset_kind(request.kind)
        now = self.broker.clock()

        def unit(connection: Connection) -> asset_service_pb2.RegisterAssetResponse:
            view = assets.register(
                connection,
                caller=caller,
                asset=request.asset,
                kind=kind,
                classification=request.classification,
                purposes=request.purposes,
                allowed=request.residency.allowed,
                forbidden=request.residency.forbidden,
                known_areas=self.broker.policies.known_areas(),
                now=now,
            )
            return asset_service_pb2.RegisterAssetResponse(asset=convert.asset_view_message(view))

        return self.once(
            unit,
            asset_service_pb2.RegisterAssetResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def AddAssetVersion(  # noqa: N802
        self, request: asset_service_pb2.AddAssetVersionRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.AddAssetVersionResponse:
        """Add a version with its data key."""
        caller = self.caller(context, Role.OWNER)
        ref = convert.asset_ref(request.ref, "ref")
        data_key = assets.open_owner_key(self.broker, ref=ref, key_id=request.key_id, wrapped=request.wrapped_key)
        now = self.broker.clock()

        def unit(connection: Connection) -> asset_service_pb2.AddAssetVersionResponse:
            row = assets.add_version(
                connection,
                broker=self.broker,
                caller=caller,
                ref=ref,
                key_id=request.key_id,
                data_key=data_key,
                manifest_digest=request.manifest_digest,
                now=now,
            )
            return asset_service_pb2.AddAssetVersionResponse(version=convert.version_message(row))

        return self.once(
            unit,
            asset_service_pb2.AddAssetVersionResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def GetAsset(  # noqa: N802
        self, request: asset_service_pb2.GetAssetRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.GetAssetResponse:
        """Read an asset."""
        caller = self.caller(context, Role.OWNER)
        with self.broker.read() as connection:
            view = assets.get(connection, caller=caller, asset=request.asset)
        return asset_service_pb2.GetAssetResponse(asset=convert.asset_view_message(view))

    def ListAssets(  # noqa: N802
        self, request: asset_service_pb2.ListAssetsRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.ListAssetsResponse:
        """List assets."""
        caller = self.caller(context, Role.OWNER)
        limit = requests.page_size(request.page_size)
        with self.broker.read() as connection:
            rows = assets.page(connection, caller=caller, after=requests.page_token(request.page_token), limit=limit)
        return asset_service_pb2.ListAssetsResponse(
            assets=[convert.asset_message(row) for row in rows],
            next_page_token=rows[-1].asset if len(rows) == limit else "",
        )

    def RevokeAsset(  # noqa: N802
        self, request: asset_service_pb2.RevokeAssetRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.RevokeAssetResponse:
        """Revoke an asset."""
        caller = self.caller(context, Role.OWNER)
        now = self.broker.clock()

        def unit(connection: Connection) -> asset_service_pb2.RevokeAssetResponse:
            view = assets.revoke(connection, caller=caller, asset=request.asset, now=now)
            return asset_service_pb2.RevokeAssetResponse(asset=convert.asset_view_message(view))

        return self.once(
            unit,
            asset_service_pb2.RevokeAssetResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def GetWrappingKey(  # noqa: N802
        self, request: asset_service_pb2.GetWrappingKeyRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.GetWrappingKeyResponse:
        """The broker's HPKE public key."""
        del request
        self.caller(context, Role.OWNER)
        return asset_service_pb2.GetWrappingKeyResponse(
            hpke_key=self.broker.wrapping_key.public_key, broker=self.broker.name
        )


class SiteAdapter(_Adapter, site_service_pb2_grpc.SiteServiceServicer):
    """`keystead.v1.SiteService`."""

    def EnrolSite(  # noqa: N802
        self, request: site_service_pb2.EnrolSiteRequest, context: grpc.ServicerContext
    ) -> site_service_pb2.EnrolSiteResponse:
        """Enrol a site."""
        caller = self.caller(context, Role.OPERATOR)
        now = self.broker.clock()
        valid_until = convert.seconds(request.site.expire_time, "site.expire_time")

        def unit(connection: Connection) -> site_service_pb2.EnrolSiteResponse:
            row = estate.enrol_site(
                connection,
                caller=caller,
                site_id=request.site.site_id,
                jurisdiction=request.site.jurisdiction,
                facility=request.site.facility,
                operator=request.site.operator,
                valid_until=valid_until,
                known_areas=self.broker.policies.known_areas(),
                now=now,
            )
            return site_service_pb2.EnrolSiteResponse(site=convert.site_message(row))

        return self.once(
            unit,
            site_service_pb2.EnrolSiteResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def ListSites(  # noqa: N802
        self, request: site_service_pb2.ListSitesRequest, context: grpc.ServicerContext
    ) -> site_service_pb2.ListSitesResponse:
        """List sites."""
        self.caller(context, Role.OPERATOR)
        limit = requests.page_size(request.page_size)
        with self.broker.read() as connection:
            rows = sites.page(connection, after=requests.page_token(request.page_token), limit=limit)
        return site_service_pb2.ListSitesResponse(
            sites=[convert.site_message(row) for row in rows],
            next_page_token=rows[-1].site_id if len(rows) == limit else "",
        )


class NodeAdapter(_Adapter, node_service_pb2_grpc.NodeServiceServicer):
    """`keystead.v1.NodeService`."""

    def EnrolNode(  # noqa: N802
        self, request: node_service_pb2.EnrolNodeRequest, context: grpc.ServicerContext
    ) -> node_service_pb2.EnrolNodeResponse:
        """Enrol a node."""
        caller = self.caller(context, Role.OPERATOR)
        now = self.broker.clock()

        def unit(connection: Connection) -> node_service_pb2.EnrolNodeResponse:
            row = estate.enrol_node(
                connection,
                caller=caller,
                node_id=request.node.node_id,
                site_id=request.node.site_id,
                devices=[estate.Device(device.slot, device.kind, device.value) for device in request.node.devices],
                now=now,
            )
            return node_service_pb2.EnrolNodeResponse(node=convert.node_message(row))

        return self.once(
            unit,
            node_service_pb2.EnrolNodeResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def SetNodeState(  # noqa: N802
        self, request: node_service_pb2.SetNodeStateRequest, context: grpc.ServicerContext
    ) -> node_service_pb2.SetNodeStateResponse:
        """Change a node's state."""
        caller = self.caller(context, Role.OPERATOR)
        state = convert.node_state(request.state)
        now = self.broker.clock()

        def unit(connection: Connection) -> node_service_pb2.SetNodeStateResponse:
            row = estate.set_node_state(
                connection, caller=caller, node_id=request.node_id, state=state, reason=request.reason, now=now
            )
            return node_service_pb2.SetNodeStateResponse(node=convert.node_message(row))

        return self.once(
            unit,
            node_service_pb2.SetNodeStateResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def ListNodes(  # noqa: N802
        self, request: node_service_pb2.ListNodesRequest, context: grpc.ServicerContext
    ) -> node_service_pb2.ListNodesResponse:
        """List nodes."""
        self.caller(context, Role.OPERATOR)
        limit = requests.page_size(request.page_size)
        with self.broker.read() as connection:
            rows = nodes.page(connection, after=requests.page_token(request.page_token), limit=limit)
        return node_service_pb2.ListNodesResponse(
            nodes=[convert.node_message(row) for row in rows],
            next_page_token=rows[-1].node_id if len(rows) == limit else "",
        )


class AuditAdapter(_Adapter, audit_service_pb2_grpc.AuditServiceServicer):
    """`keystead.v1.AuditService`."""

    def QueryRecords(  # noqa: N802
        self, request: audit_service_pb2.QueryRecordsRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.QueryRecordsResponse:
        """Find records."""
        caller = self.caller(context, Role.AUDITOR)
        reading = reads.search(
            self.broker,
            caller=caller,
            wanted=_filter(request),
            limit=requests.page_size(request.page_size),
            cursor=request.page_token,
        )
        return audit_service_pb2.QueryRecordsResponse(
            records=[
                audit_service_pb2.AuditRecord(
                    leaf_index=entry.index, payload=entry.payload or b"", leaf_hash=entry.entry_hash
                )
                for entry in reading.entries
            ],
            next_page_token=reading.next_cursor,
        )

    def GetCheckpoint(  # noqa: N802
        self, request: audit_service_pb2.GetCheckpointRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.GetCheckpointResponse:
        """The newest checkpoint."""
        del request
        self.caller(context, *Role)
        return audit_service_pb2.GetCheckpointResponse(
            checkpoint=reads.checkpoint(self.broker), verifier_key=str(self.broker.keys.log.verifier)
        )

    def ProveRecord(  # noqa: N802
        self, request: audit_service_pb2.ProveRecordRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.ProveRecordResponse:
        """Prove a record."""
        bundle = reads.prove(
            self.broker,
            caller=self.caller(context, Role.AUDITOR),
            index=request.leaf_index,
            older=request.old_checkpoint.encode("utf-8") or None,
        )
        return audit_service_pb2.ProveRecordResponse(bundle=bundle.to_bytes())


def _digest(request: Message) -> bytes:
    return sha256(request.SerializeToString(deterministic=True))


def _passport(message: lease_service_pb2.Passport) -> Passport:
    if not message.attestation_result.isascii():
        raise InvalidRequestError("passport.attestation_result", "not a JWT")
    return Passport(message.attestation_result, message.hpke_key, message.signature, message.nonce)


def _filter(request: audit_service_pb2.QueryRecordsRequest) -> query.Filter:
    asset, version = query.parse_asset(request.asset) if request.asset else (None, None)
    try:
        kind = Kind(request.kind) if request.kind else None
        result = Result(request.result) if request.result else None
    except ValueError as error:
        raise QueryError(f"{error}: no such kind or result") from None
    for field in _FILTER_TEXTS:
        if not _FILTER_TEXT.match(getattr(request, field)):
            raise InvalidRequestError(field, "not at most 600 visible ASCII characters, so no record can have it")
    return query.Filter(
        asset=asset,
        version=version,
        job=request.job_uid or None,
        tenant=request.tenant or None,
        actor=request.actor or None,
        node=request.node_id or None,
        hardware=request.hardware or None,
        site=request.site_id or None,
        jurisdiction=request.jurisdiction or None,
        kind=kind,
        result=result,
        reason=request.reason or None,
        policy_digest=request.policy_digest or None,
        lease=request.lease_id or None,
        start_time=convert.seconds(request.start_time, "start_time") if request.HasField("start_time") else None,
        end_time=convert.seconds(request.end_time, "end_time") if request.HasField("end_time") else None,
    )
