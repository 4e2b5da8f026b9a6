"""`keystead.v1.DeclassificationService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import grpc
from sqlalchemy import Connection

from audit.records import Kind
from keybroker import declassify, requests
from keybroker.principals import Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
from keybroker.store import declassifications
from keystead.v1 import (
    declassification_service_pb2,
    declassification_service_pb2_grpc,
)


class DeclassificationAdapter(Adapter, declassification_service_pb2_grpc.DeclassificationServiceServicer):
    """`keystead.v1.DeclassificationService`."""

    def SetApprovers(
        self, request: declassification_service_pb2.SetApproversRequest, context: grpc.ServicerContext
    ) -> declassification_service_pb2.SetApproversResponse:
        """Set who may approve."""
        caller = self.caller(context, Role.OWNER)
        now = self.broker.clock()

        def unit(connection: Connection) -> declassification_service_pb2.SetApproversResponse:
            row = declassify.set_approvers(
                connection, caller=caller, statement=request.statement, signatures=request.signatures, now=now
            )
            return declassification_service_pb2.SetApproversResponse(approvers=convert.approvers_message(row))

        requests.request_id(request.request_id)
        with declassify.refusals_recorded(
            self.broker, kind=Kind.APPROVERS_REFUSED, caller=caller, statement=request.statement, now=now
        ):
            return self.once(
                unit,
                declassification_service_pb2.SetApproversResponse,
                caller=caller,
                request=request,
                request_id=request.request_id,
                now=now,
            )

    def GetApprovers(
        self, request: declassification_service_pb2.GetApproversRequest, context: grpc.ServicerContext
    ) -> declassification_service_pb2.GetApproversResponse:
        """Read who may approve."""
        del request
        caller = self.caller(context, Role.OWNER)
        with self.broker.read() as connection:
            row = declassifications.present_approvers(connection, caller.require_tenant())
        return declassification_service_pb2.GetApproversResponse(
            approvers=None if row is None else convert.approvers_message(row)
        )

    def ProposeDeclassification(
        self, request: declassification_service_pb2.ProposeDeclassificationRequest, context: grpc.ServicerContext
    ) -> declassification_service_pb2.ProposeDeclassificationResponse:
        """Put a declassification before the approvers."""
        caller = self.caller(context, Role.OWNER)
        now = self.broker.clock()

        def unit(connection: Connection) -> declassification_service_pb2.ProposeDeclassificationResponse:
            row = declassify.propose(
                connection, broker=self.broker, caller=caller, statement=request.statement, now=now
            )
            return declassification_service_pb2.ProposeDeclassificationResponse(
                declassification=convert.declassification_message(row)
            )

        requests.request_id(request.request_id)
        with declassify.refusals_recorded(
            self.broker, kind=Kind.ASSET_DECLASSIFICATION_REFUSED, caller=caller, statement=request.statement, now=now
        ):
            return self.once(
                unit,
                declassification_service_pb2.ProposeDeclassificationResponse,
                caller=caller,
                request=request,
                request_id=request.request_id,
                now=now,
            )

    def ApplyDeclassification(
        self, request: declassification_service_pb2.ApplyDeclassificationRequest, context: grpc.ServicerContext
    ) -> declassification_service_pb2.ApplyDeclassificationResponse:
        """Carry out a declassification."""
        caller = self.caller(context, Role.OWNER)
        now = self.broker.clock()

        def unit(connection: Connection) -> declassification_service_pb2.ApplyDeclassificationResponse:
            done = declassify.apply(
                connection,
                broker=self.broker,
                caller=caller,
                statement=request.statement,
                signatures=request.signatures,
                now=now,
            )
            return declassification_service_pb2.ApplyDeclassificationResponse(
                declassification=convert.declassification_message(done.row),
                version=convert.version_message(done.version),
            )

        requests.request_id(request.request_id)
        with declassify.refusals_recorded(
            self.broker, kind=Kind.ASSET_DECLASSIFICATION_REFUSED, caller=caller, statement=request.statement, now=now
        ):
            return self.once(
                unit,
                declassification_service_pb2.ApplyDeclassificationResponse,
                caller=caller,
                request=request,
                request_id=request.request_id,
                now=now,
            )

    def ListDeclassifications(
        self, request: declassification_service_pb2.ListDeclassificationsRequest, context: grpc.ServicerContext
    ) -> declassification_service_pb2.ListDeclassificationsResponse:
        """List declassifications."""
        caller = self.caller(context, Role.OWNER)
        limit = requests.page_size(request.page_size)
        with self.broker.read() as connection:
            rows = declassify.page(
                connection,
                caller=caller,
                asset=request.asset,
                version=request.version,
                token=request.page_token,
                limit=limit,
            )
        return declassification_service_pb2.ListDeclassificationsResponse(
            declassifications=[convert.declassification_message(row) for row in rows],
            next_page_token=rows[-1].digest.hex() if len(rows) == limit else "",
        )
