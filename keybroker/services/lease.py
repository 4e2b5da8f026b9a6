"""`keystead.v1.LeaseService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import grpc

from keybroker import leases, release, renewal, usage
from keybroker.errors import InvalidRequestError
from keybroker.passport import Passport
from keybroker.principals import Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
from keystead.v1 import (
    lease_service_pb2,
    lease_service_pb2_grpc,
)


class LeaseAdapter(Adapter, lease_service_pb2_grpc.LeaseServiceServicer):
    """`keystead.v1.LeaseService`."""

    def AcquireLease(
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

    def RenewLease(
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

    def ReportUsage(
        self, request: lease_service_pb2.ReportUsageRequest, context: grpc.ServicerContext
    ) -> lease_service_pb2.ReportUsageResponse:
        """Take a report of what a lease used."""
        caller = self.caller(context, Role.NODE)
        sequence = usage.take(self.broker, convert.usage_report(request), caller=caller)
        return lease_service_pb2.ReportUsageResponse(sequence=sequence)

    def ReturnLease(
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


def _passport(message: lease_service_pb2.Passport) -> Passport:
    if not message.attestation_result.isascii():
        raise InvalidRequestError("passport.attestation_result", "not a JWT")
    return Passport(message.attestation_result, message.hpke_key, message.signature, message.nonce)
