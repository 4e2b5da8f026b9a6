"""`keystead.v1.AssetService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import grpc
from sqlalchemy import Connection

from keybroker import assets, lineage, requests, tightening
from keybroker.principals import Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
from keystead.binding import AssetRef
from keystead.v1 import (
    asset_service_pb2,
    asset_service_pb2_grpc,
)


class AssetAdapter(Adapter, asset_service_pb2_grpc.AssetServiceServicer):
    """`keystead.v1.AssetService`."""

    def RegisterAsset(
        self, request: asset_service_pb2.RegisterAssetRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.RegisterAssetResponse:
        """Register an asset."""
        caller = self.caller(context, Role.OWNER)
        kind = convert.asset_kind(request.kind)
        constraints = convert.constraints(request.constraints)
        now = self.broker.clock()

        def unit(connection: Connection) -> asset_service_pb2.RegisterAssetResponse:
            view = assets.register(
                connection,
                caller=caller,
                asset=request.asset,
                kind=kind,
                constraints=constraints,
                jurisdictions=self.broker.policies.jurisdictions,
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

    def AddAssetVersion(
        self, request: asset_service_pb2.AddAssetVersionRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.AddAssetVersionResponse:
        """Add a version with its data key."""
        caller = self.caller(context, Role.OWNER)
        ref = convert.asset_ref(request.ref, "ref")
        parents = convert.asset_refs(request.parents, "parents")
        data_key = assets.open_owner_key(self.broker, ref=ref, key_id=request.key_id, wrapped=request.wrapped_key)
        now = self.broker.clock()

        def unit(connection: Connection) -> asset_service_pb2.AddAssetVersionResponse:
            row = lineage.add_version(
                connection,
                broker=self.broker,
                caller=caller,
                ref=ref,
                key_id=request.key_id,
                data_key=data_key,
                manifest_digest=request.manifest_digest,
                parents=parents,
                description_digest=request.description_digest,
                now=now,
            )
            return asset_service_pb2.AddAssetVersionResponse(version=convert.version_message(row))

        with lineage.recorded(self.broker):
            return self.once(
                unit,
                asset_service_pb2.AddAssetVersionResponse,
                caller=caller,
                request=request,
                request_id=request.request_id,
                now=now,
            )

    def GetAsset(
        self, request: asset_service_pb2.GetAssetRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.GetAssetResponse:
        """Read an asset."""
        caller = self.caller(context, Role.OWNER)
        with self.broker.read() as connection:
            view = assets.get(connection, caller=caller, asset=request.asset)
        return asset_service_pb2.GetAssetResponse(asset=convert.asset_view_message(view))

    def ListAssets(
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

    def RevokeAsset(
        self, request: asset_service_pb2.RevokeAssetRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.RevokeAssetResponse:
        """Revoke an asset."""
        caller = self.caller(context, Role.OWNER)
        now = self.broker.clock()

        def unit(connection: Connection) -> asset_service_pb2.RevokeAssetResponse:
            derived: tuple[AssetRef, ...] = ()
            if request.descendants:
                derived = lineage.revoke_descendants(connection, caller=caller, asset=request.asset, now=now)
            view = assets.revoke(connection, caller=caller, asset=request.asset, now=now)
            return asset_service_pb2.RevokeAssetResponse(
                asset=convert.asset_view_message(view), descendants=[convert.asset_ref_message(ref) for ref in derived]
            )

        return self.once(
            unit,
            asset_service_pb2.RevokeAssetResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def ConstrainAsset(
        self, request: asset_service_pb2.ConstrainAssetRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.ConstrainAssetResponse:
        """Tighten what an asset demands."""
        caller = self.caller(context, Role.OWNER)
        extra = convert.constraints(request.constraints)
        now = self.broker.clock()

        def unit(connection: Connection) -> asset_service_pb2.ConstrainAssetResponse:
            view, tightened = tightening.constrain(
                connection,
                broker=self.broker,
                caller=caller,
                asset=request.asset,
                version=request.version,
                extra=extra,
                now=now,
            )
            return asset_service_pb2.ConstrainAssetResponse(
                asset=convert.asset_view_message(view),
                tightened=[convert.asset_ref_message(ref) for ref in tightened.versions],
                revoked_leases=len(tightened.revoked),
            )

        return self.once(
            unit,
            asset_service_pb2.ConstrainAssetResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def GetWrappingKey(
        self, request: asset_service_pb2.GetWrappingKeyRequest, context: grpc.ServicerContext
    ) -> asset_service_pb2.GetWrappingKeyResponse:
        """The broker's HPKE public key."""
        del request
        self.caller(context, Role.OWNER, Role.SCHEDULER, Role.NODE)
        return asset_service_pb2.GetWrappingKeyResponse(
            hpke_key=self.broker.wrapping_key.public_key, broker=self.broker.name
        )
