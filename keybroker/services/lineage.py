"""`keystead.v1.LineageService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import grpc
from sqlalchemy import Connection

from keybroker import assets, lineage
from keybroker.errors import InvalidRequestError
from keybroker.lineage import NewAsset, Source
from keybroker.principals import Principal, Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
from keystead.binding import AssetRef
from keystead.v1 import (
    lineage_service_pb2,
    lineage_service_pb2_grpc,
)


class LineageAdapter(Adapter, lineage_service_pb2_grpc.LineageServiceServicer):
    """`keystead.v1.LineageService`."""

    def RegisterOutput(
        self, request: lineage_service_pb2.RegisterOutputRequest, context: grpc.ServicerContext
    ) -> lineage_service_pb2.RegisterOutputResponse:
        """Register what a job made."""
        caller = self.caller(context, Role.SCHEDULER, Role.NODE)
        ref = convert.asset_ref(request.ref, "ref")
        new = None
        if request.HasField("new_asset"):
            new = NewAsset(convert.asset_kind(request.new_asset.kind), request.new_asset.constraints)
        source = self._source(request, caller, ref=ref, new=new)
        data_key = assets.open_owner_key(self.broker, ref=ref, key_id=request.key_id, wrapped=request.wrapped_key)
        now = self.broker.clock()

        def unit(connection: Connection) -> lineage_service_pb2.RegisterOutputResponse:
            done = lineage.register_output(
                connection,
                broker=self.broker,
                caller=caller,
                source=source,
                ref=ref,
                new=new,
                key_id=request.key_id,
                data_key=data_key,
                manifest_digest=request.manifest_digest,
                now=now,
            )
            return lineage_service_pb2.RegisterOutputResponse(
                version=convert.version_message(done.version),
                parents=[convert.asset_ref_message(parent) for parent in done.parents],
            )

        with lineage.recorded(self.broker):
            return self.once(
                unit,
                lineage_service_pb2.RegisterOutputResponse,
                caller=caller,
                request=request,
                request_id=request.request_id,
                now=now,
            )

    def _source(
        self,
        request: lineage_service_pb2.RegisterOutputRequest,
        caller: Principal,
        *,
        ref: AssetRef,
        new: NewAsset | None,
    ) -> Source:
        """A scheduler names its tenant's job; a node proves a lease."""
        if caller.role is Role.SCHEDULER:
            if request.WhichOneof("source") != "job_uid":
                raise InvalidRequestError("job_uid", "a scheduler names the job")
            return lineage.by_scheduler(caller, job_uid=request.job_uid)
        if request.WhichOneof("source") != "lease":
            raise InvalidRequestError("lease", "a node signs by the key of one of the job's leases")
        return lineage.by_lease(
            self.broker,
            lease_id=request.lease.lease_id,
            signature=request.lease.signature,
            ref=ref,
            key_id=request.key_id,
            manifest_digest=request.manifest_digest,
            wrapped_key=request.wrapped_key,
            new=new,
        )

    def DeclareParents(
        self, request: lineage_service_pb2.DeclareParentsRequest, context: grpc.ServicerContext
    ) -> lineage_service_pb2.DeclareParentsResponse:
        """Declare more of what a version was derived from."""
        caller = self.caller(context, Role.OWNER)
        ref = convert.asset_ref(request.ref, "ref")
        parents = convert.asset_refs(request.parents, "parents")
        now = self.broker.clock()

        def unit(connection: Connection) -> lineage_service_pb2.DeclareParentsResponse:
            row, tightened = lineage.declare_parents(
                connection, broker=self.broker, caller=caller, ref=ref, parents=parents, now=now
            )
            return lineage_service_pb2.DeclareParentsResponse(
                version=convert.version_message(row),
                tightened=[convert.asset_ref_message(each) for each in tightened.versions],
                revoked_leases=len(tightened.revoked),
            )

        with lineage.recorded(self.broker):
            return self.once(
                unit,
                lineage_service_pb2.DeclareParentsResponse,
                caller=caller,
                request=request,
                request_id=request.request_id,
                now=now,
            )

    def GetLineage(
        self, request: lineage_service_pb2.GetLineageRequest, context: grpc.ServicerContext
    ) -> lineage_service_pb2.GetLineageResponse:
        """Read lineage."""
        caller = self.caller(context, Role.OWNER, Role.SCHEDULER)
        up = convert.lineage_goes_up(request.direction)
        with self.broker.read() as connection:
            view = lineage.view(connection, caller=caller, asset=request.asset, version=request.version, up=up)
        return convert.lineage_message(view)
