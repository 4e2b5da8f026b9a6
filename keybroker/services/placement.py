"""`keystead.v1.PlacementService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc

from keybroker import jobs, placement, requests
from keybroker.denial import Reason, at_most
from keybroker.errors import InvalidRequestError
from keybroker.principals import Principal, Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
from keybroker.services.status import reason_message
from keystead.v1 import denial_pb2, placement_service_pb2, placement_service_pb2_grpc

PAGE_BYTES: Final = 1 << 20
"""A page of a plan ends with the site that takes it past this."""

MAX_REASONS: Final = 32
"""Reasons that one answer gives for one group of nodes; each code comes once before any comes twice."""


class PlacementAdapter(Adapter, placement_service_pb2_grpc.PlacementServiceServicer):
    """`keystead.v1.PlacementService`."""

    def PlanPlacement(
        self, request: placement_service_pb2.PlanPlacementRequest, context: grpc.ServicerContext
    ) -> placement_service_pb2.PlanPlacementResponse:
        """Say where a job may run."""
        caller = self.caller(context, Role.SCHEDULER)
        now = self.broker.clock()
        plan = placement.plan(
            self.broker,
            self._subject(request, caller=caller, now=now),
            after=requests.page_token(request.page_token),
            limit=requests.page_size(request.page_size),
            now=now,
        )
        response = placement_service_pb2.PlanPlacementResponse(reasons=_reasons(plan.reasons))
        size = response.ByteSize()
        more = plan.more
        for index, site in enumerate(plan.sites):
            message = _site(site)
            response.sites.append(message)
            size += message.ByteSize()
            if size > PAGE_BYTES:
                more = more or index + 1 < len(plan.sites)
                break
        if more:
            response.next_page_token = response.sites[-1].site_id
        return response

    def WouldRelease(
        self, request: placement_service_pb2.WouldReleaseRequest, context: grpc.ServicerContext
    ) -> placement_service_pb2.WouldReleaseResponse:
        """Say whether a node would get a job's keys."""
        caller = self.caller(context, Role.SCHEDULER)
        now = self.broker.clock()
        run = placement.would_release(
            self.broker,
            self._subject(request, caller=caller, now=now),
            caller=caller,
            node_id=request.node_id,
            refs=[convert.asset_ref(ref, f"assets[{index}]") for index, ref in enumerate(request.assets)],
            now=now,
        )
        return placement_service_pb2.WouldReleaseResponse(
            would_release=not run.reasons,
            reasons=[reason_message(reason) for reason in run.reasons],
            obligations=[convert.obligation_message(item) for item in run.obligations],
            appraise_time=None if run.appraised_at is None else convert.timestamp(run.appraised_at),
            record_hash=run.record_hash,
        )

    def _subject(
        self,
        request: placement_service_pb2.PlanPlacementRequest | placement_service_pb2.WouldReleaseRequest,
        *,
        caller: Principal,
        now: int,
    ) -> placement.Subject:
        match request.WhichOneof("about"):
            case "job_uid":
                with self.broker.read() as connection:
                    return placement.opened(
                        connection, tenant=caller.require_tenant(), job_uid=request.job_uid, now=now
                    )
            case "job":
                if request.job.request_id:
                    raise InvalidRequestError("job.request_id", "nothing is changed here: leave it empty")
                grant, row = jobs.proposed(self.broker, caller=caller, now=now, **convert.job_request(request.job))
                return placement.proposed(self.broker, grant, row, now=now)
            case _:
                raise InvalidRequestError("about", "neither job nor job_uid")


def _site(plan: placement.SitePlan) -> placement_service_pb2.SitePlacement:
    return placement_service_pb2.SitePlacement(
        site_id=plan.site.site_id,
        jurisdiction=plan.site.jurisdiction,
        nodes=plan.nodes,
        eligible=plan.eligible,
        attested=plan.attested,
        ineligible=[
            placement_service_pb2.IneligibleNodes(
                nodes=group.nodes, example=group.example, reasons=_reasons(group.reasons)
            )
            for group in plan.groups
        ],
        untold=plan.untold,
    )


def _reasons(reasons: Iterable[Reason]) -> list[denial_pb2.DenialReason]:
    return [reason_message(reason) for reason in at_most(reasons, MAX_REASONS)]
