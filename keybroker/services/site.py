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

        def unit(connection: Connection) -> site_service_pb2.EnrolSiteResponse:
            row = estate.enrol_site(
                connection,
                caller=caller,
                statement=request.record.statement,
                signatures=request.record.signatures,
                authorities=self.broker.authorities,
                known_places=self.broker.policies.known_places(),
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

    def RenewSite(
        self, request: site_service_pb2.RenewSiteRequest, context: grpc.ServicerContext
    ) -> site_service_pb2.RenewSiteResponse:
        """Take a newer record of a site."""
        caller = self.caller(context, Role.OPERATOR)
        now = self.broker.clock()

        def unit(connection: Connection) -> site_service_pb2.RenewSiteResponse:
            row = estate.renew_site(
                connection,
                caller=caller,
                statement=request.record.statement,
                signatures=request.record.signatures,
                authorities=self.broker.authorities,
                known_places=self.broker.policies.known_places(),
                now=now,
            )
            return site_service_pb2.RenewSiteResponse(site=convert.site_message(row))

        return self.once(
            unit,
            site_service_pb2.RenewSiteResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def SuspendSite(
        self, request: site_service_pb2.SuspendSiteRequest, context: grpc.ServicerContext
    ) -> site_service_pb2.SuspendSiteResponse:
        """Suspend a site."""
        caller = self.caller(context, Role.OPERATOR)
        now = self.broker.clock()

        def unit(connection: Connection) -> site_service_pb2.SuspendSiteResponse:
            row = estate.suspend_site(
                connection, caller=caller, site_id=request.site_id, reason=request.reason, now=now
            )
            return site_service_pb2.SuspendSiteResponse(site=convert.site_message(row))

        answer = self.once(
            unit,
            site_service_pb2.SuspendSiteResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )
        # Also where the request is repeated: the first may have been cut off before all were revoked.
        estate.revoke_at_site(self.broker, caller=caller, site_id=request.site_id, because="SITE_SUSPENDED", now=now)
        return answer

    def GetSite(
        self, request: site_service_pb2.GetSiteRequest, context: grpc.ServicerContext
    ) -> site_service_pb2.GetSiteResponse:
        """Read a site with its record."""
        self.caller(context, Role.OPERATOR)
        site_id = requests.identifier(request.site_id, "site_id")
        with self.broker.read() as connection:
            row = sites.get(connection, site_id)
            record = sites.find_record(connection, site_id, row.serial)
        return site_service_pb2.GetSiteResponse(
            site=convert.site_message(row), record=convert.site_record_message(record)
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
