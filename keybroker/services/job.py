"""`keystead.v1.JobService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import grpc
from sqlalchemy import Connection

from keybroker import challenge, jobs
from keybroker.principals import Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
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
        known = self.known(request, job_service_pb2.AuthorizeJobResponse, caller=caller)
        if known is not None:
            return known
        authorization = jobs.authorize(
            self.broker,
            caller=caller,
            **convert.job_request(request),
        )
        nonce = self._nonce(authorization)

        def unit(connection: Connection) -> job_service_pb2.AuthorizeJobResponse:
            return job_service_pb2.AuthorizeJobResponse(
                grant=convert.grant_message(authorization.commit(connection)),
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

    def ExtendJob(
        self, request: job_service_pb2.ExtendJobRequest, context: grpc.ServicerContext
    ) -> job_service_pb2.ExtendJobResponse:
        """Give a job more time."""
        caller = self.caller(context, Role.SCHEDULER)
        known = self.known(request, job_service_pb2.ExtendJobResponse, caller=caller)
        if known is not None:
            return known
        authorization = jobs.extend(
            self.broker,
            caller=caller,
            job_uid=request.job_uid,
            not_after=convert.seconds(request.expire_time, "expire_time"),
        )
        nonce = self._nonce(authorization)

        def unit(connection: Connection) -> job_service_pb2.ExtendJobResponse:
            return job_service_pb2.ExtendJobResponse(
                grant=convert.grant_message(authorization.commit(connection)),
                nonce=nonce.nonce,
                nonce_expire_time=convert.timestamp(nonce.expires_at),
                broker=self.broker.name,
            )

        return self.once(
            unit,
            job_service_pb2.ExtendJobResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=authorization.now,
        )

    def PreemptJob(
        self, request: job_service_pb2.PreemptJobRequest, context: grpc.ServicerContext
    ) -> job_service_pb2.PreemptJobResponse:
        """Stop a job until it is requeued."""
        caller = self.caller(context, Role.SCHEDULER)
        known = self.known(request, job_service_pb2.PreemptJobResponse, caller=caller)
        if known is not None:
            return known
        view, revoked = jobs.preempt(self.broker, caller=caller, job_uid=request.job_uid)
        answer = job_service_pb2.PreemptJobResponse(job=convert.job_message(view), revoked_leases=revoked)
        return self.once(
            lambda _: answer,
            job_service_pb2.PreemptJobResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=self.broker.clock(),
        )

    def RequeueJob(
        self, request: job_service_pb2.RequeueJobRequest, context: grpc.ServicerContext
    ) -> job_service_pb2.RequeueJobResponse:
        """Run a job again."""
        caller = self.caller(context, Role.SCHEDULER)
        known = self.known(request, job_service_pb2.RequeueJobResponse, caller=caller)
        if known is not None:
            return known
        authorization, revoked = jobs.requeue(
            self.broker,
            caller=caller,
            job_uid=request.job_uid,
            not_after=convert.seconds(request.expire_time, "expire_time"),
            not_before=convert.seconds(request.start_time, "start_time") if request.HasField("start_time") else None,
        )
        nonce = self._nonce(authorization)

        def unit(connection: Connection) -> job_service_pb2.RequeueJobResponse:
            return job_service_pb2.RequeueJobResponse(
                grant=convert.grant_message(authorization.commit(connection)),
                nonce=nonce.nonce,
                nonce_expire_time=convert.timestamp(nonce.expires_at),
                broker=self.broker.name,
                attempt=authorization.row.attempt,
                revoked_leases=revoked,
            )

        return self.once(
            unit,
            job_service_pb2.RequeueJobResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=authorization.now,
        )

    def EndJob(
        self, request: job_service_pb2.EndJobRequest, context: grpc.ServicerContext
    ) -> job_service_pb2.EndJobResponse:
        """End a job."""
        caller = self.caller(context, Role.SCHEDULER)
        known = self.known(request, job_service_pb2.EndJobResponse, caller=caller)
        if known is not None:
            return known
        view, revoked = jobs.end(self.broker, caller=caller, job_uid=request.job_uid)
        answer = job_service_pb2.EndJobResponse(job=convert.job_message(view), revoked_leases=revoked)
        return self.once(
            lambda _: answer,
            job_service_pb2.EndJobResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=self.broker.clock(),
        )

    def _nonce(self, authorization: jobs.Authorization) -> challenge.Challenge:
        return challenge.issue(
            self.broker.epochs,
            grant=grant_digest(authorization.signed.grant),
            broker=self.broker.name,
            now=authorization.now,
        )
