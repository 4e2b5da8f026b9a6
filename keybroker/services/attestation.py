"""`keystead.v1.AttestationService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import grpc

from keybroker import appraisal, challenge
from keybroker.principals import Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
from keystead.binding import grant_digest
from keystead.v1 import (
    attestation_service_pb2,
    attestation_service_pb2_grpc,
)


class AttestationAdapter(Adapter, attestation_service_pb2_grpc.AttestationServiceServicer):
    """`keystead.v1.AttestationService`."""

    def GetChallenge(
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

    def Appraise(
        self, request: attestation_service_pb2.AppraiseRequest, context: grpc.ServicerContext
    ) -> attestation_service_pb2.AppraiseResponse:
        """Appraise a node."""
        answer = appraisal.appraise_node(
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
