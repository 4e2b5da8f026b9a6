"""`keystead.v1.NodeService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from sqlalchemy import Connection

from keybroker import estate, requests
from keybroker.clones import raise_enrolled_twice
from keybroker.errors import IdentityEnrolledError
from keybroker.principals import Principal, Role
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

        row = convert.node_row(request.node, "node", now=now)

        def unit(connection: Connection) -> node_service_pb2.EnrolNodeResponse:
            estate.enrol_node(connection, caller=caller, row=row)
            return node_service_pb2.EnrolNodeResponse(node=convert.node_message(row))

        with self._raising_clones(caller, now=now):
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

    def SetNodeCustody(
        self, request: node_service_pb2.SetNodeCustodyRequest, context: grpc.ServicerContext
    ) -> node_service_pb2.SetNodeCustodyResponse:
        """Say in whose hands a node is."""
        caller = self.caller(context, Role.OPERATOR)
        custody = convert.node_custody(request.custody, "custody")
        now = self.broker.clock()

        def unit(connection: Connection) -> node_service_pb2.SetNodeCustodyResponse:
            row = estate.set_node_custody(
                connection, caller=caller, node_id=request.node_id, custody=custody, reason=request.reason, now=now
            )
            return node_service_pb2.SetNodeCustodyResponse(node=convert.node_message(row))

        return self.once(
            unit,
            node_service_pb2.SetNodeCustodyResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def MoveNode(
        self, request: node_service_pb2.MoveNodeRequest, context: grpc.ServicerContext
    ) -> node_service_pb2.MoveNodeResponse:
        """Move a node."""
        caller = self.caller(context, Role.OPERATOR)
        now = self.broker.clock()
        place = estate.Place(
            rack=request.rack if request.HasField("rack") else None,
            power_zone=request.power_zone if request.HasField("power_zone") else None,
            cooling_zone=request.cooling_zone if request.HasField("cooling_zone") else None,
            network_zone=request.network_zone if request.HasField("network_zone") else None,
        )

        def unit(connection: Connection) -> node_service_pb2.MoveNodeResponse:
            row = estate.move_node(
                connection,
                caller=caller,
                node_id=request.node_id,
                site_id=request.site_id,
                place=place,
                reason=request.reason,
                now=now,
            )
            return node_service_pb2.MoveNodeResponse(node=convert.node_message(row))

        return self.once(
            unit,
            node_service_pb2.MoveNodeResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )

    def ChangeNodeDevices(
        self, request: node_service_pb2.ChangeNodeDevicesRequest, context: grpc.ServicerContext
    ) -> node_service_pb2.ChangeNodeDevicesResponse:
        """Exchange devices of a node."""
        caller = self.caller(context, Role.OPERATOR)
        now = self.broker.clock()

        def unit(connection: Connection) -> node_service_pb2.ChangeNodeDevicesResponse:
            row = estate.change_devices(
                connection,
                caller=caller,
                node_id=request.node_id,
                remove=request.remove,
                add=[convert.device(each) for each in request.add],
                reason=request.reason,
                now=now,
            )
            return node_service_pb2.ChangeNodeDevicesResponse(node=convert.node_message(row))

        with self._raising_clones(caller, now=now):
            return self.once(
                unit,
                node_service_pb2.ChangeNodeDevicesResponse,
                caller=caller,
                request=request,
                request_id=request.request_id,
                now=now,
            )

    @contextmanager
    def _raising_clones(self, caller: Principal, *, now: int) -> Iterator[None]:
        """Within the block, an identity that is enrolled a second time is raised before it is refused."""
        try:
            yield
        except IdentityEnrolledError as error:
            raise_enrolled_twice(self.broker, identity=error.identity, node_id=error.node_id, caller=caller, now=now)
            raise

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
