"""`keystead.v1.SiteService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import grpc
from sqlalchemy import Connection

from keybroker import estate, requests
from keybroker.principals import Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
from keybroker.store import sites
from keystead.v1 import (
    site_service_pb2,
    site_service_pb2_grpc,
)


class SiteAdapter(Adapter, site_service_pb2_grpc.SiteServiceServicer):
    """`keystead.v1.SiteService`."""

    def EnrolSite(
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

    def ListSites(
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
