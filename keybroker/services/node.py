"""`keystead.v1.NodeService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import grpc
from sqlalchemy import Connection

from keybroker import estate, requests
from keybroker.principals import Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
from keybroker.store import nodes
from keystead.v1 import (
    node_service_pb2,
    node_service_pb2_grpc,
)


class NodeAdapter(Adapter, node_service_pb2_grpc.NodeServiceServicer):
    """`keystead.v1.NodeService`."""

    def EnrolNode(
        self, request: node_service_pb2.EnrolNodeRequest, context: grpc.ServicerContext
    ) -> node_service_pb2.EnrolNodeResponse:
        """Enrol a node."""
        caller = self.caller(context, Role.OPERATOR)
        now = self.broker.clock()

        def unit(connection: Connection) -> node_service_pb2.EnrolNodeResponse:
            row = estate.enrol_node(
                connection,
                caller=caller,
                node_id=request.node.node_id,
                site_id=request.node.site_id,
                devices=[estate.Device(device.slot, device.kind, device.value) for device in request.node.devices],
                now=now,
            )
            return node_service_pb2.EnrolNodeResponse(node=convert.node_message(row))

        return self.once(
            unit,
            node_service_pb2.EnrolNodeResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def SetNodeState(
        self, request: node_service_pb2.SetNodeStateRequest, context: grpc.ServicerContext
    ) -> node_service_pb2.SetNodeStateResponse:
        """Change a node's state."""
        caller = self.caller(context, Role.OPERATOR)
        state = convert.node_state(request.state)
        now = self.broker.clock()

        def unit(connection: Connection) -> node_service_pb2.SetNodeStateResponse:
            row = estate.set_node_state(
                connection, caller=caller, node_id=request.node_id, state=state, reason=request.reason, now=now
            )
            return node_service_pb2.SetNodeStateResponse(node=convert.node_message(row))

        return self.once(
            unit,
            node_service_pb2.SetNodeStateResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def ListNodes(
        self, request: node_service_pb2.ListNodesRequest, context: grpc.ServicerContext
    ) -> node_service_pb2.ListNodesResponse:
        """List nodes."""
        self.caller(context, Role.OPERATOR)
        limit = requests.page_size(request.page_size)
        with self.broker.read() as connection:
            rows = nodes.page(connection, after=requests.page_token(request.page_token), limit=limit)
        return node_service_pb2.ListNodesResponse(
            nodes=[convert.node_message(row) for row in rows],
            next_page_token=rows[-1].node_id if len(rows) == limit else "",
        )
