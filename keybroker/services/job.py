"""`keystead.v1.JobService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import grpc
from sqlalchemy import Connection

from keybroker import challenge, jobs, requests
from keybroker.principals import Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter, request_digest
from keystead.binding import grant_digest
from keystead.v1 import (
    job_service_pb2,
    job_service_pb2_grpc,
)


class JobAdapter(Adapter, job_service_pb2_grpc.JobServiceServicer):
    """`keystead.v1.JobService`."""

    def AuthorizeJob(
        self, request: job_service_pb2.AuthorizeJobRequest, context: grpc.ServicerContext
    ) -> job_service_pb2.AuthorizeJobResponse:
        """Decide about a job and sign its grant."""
        caller = self.caller(context, Role.SCHEDULER)
        known = self.broker.answered(
            caller=caller,
            request_id=requests.request_id(request.request_id),
            method=type(request).__name__,
            request_digest=request_digest(request),
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
            not_before=convert.seconds(request.start_time, "start_time") if request.HasField("start_time") else None,
            project=request.project,
            user=request.user,
            stage=request.stage,
            image=request.image,
            network=request.network,
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

    def GetJob(
        self, request: job_service_pb2.GetJobRequest, context: grpc.ServicerContext
    ) -> job_service_pb2.GetJobResponse:
        """Read a job."""
        caller = self.caller(context, Role.SCHEDULER)
        with self.broker.read() as connection:
            view = jobs.get(
                connection, tenant=caller.require_tenant(), job_uid=request.job_uid, now=self.broker.clock()
            )
        return job_service_pb2.GetJobResponse(job=convert.job_message(view))

    def EndJob(
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
