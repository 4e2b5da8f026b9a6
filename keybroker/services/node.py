"""`keystead.v1.NodeService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc
from sqlalchemy import Connection

from keybroker import estate, requests
from keybroker.clones import raise_enrolled_twice
from keybroker.errors import IdentityEnrolledError, InvalidRequestError
from keybroker.node_import import Staging
from keybroker.principals import Principal, Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
from keybroker.store import nodes
from keybroker.store.schema import NodeState
from keystead.binding import sha256
from keystead.v1 import (
    node_service_pb2,
    node_service_pb2_grpc,
)

IMPORT_TIMEOUT: Final = 600.0
"""Seconds that an import waits for its one transaction."""


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

        answer = self.once(
            unit,
            node_service_pb2.SetNodeStateResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )
        if state is not NodeState.ACTIVE:
            # Also where the request is repeated: the first may have been cut off before all were revoked.
            estate.revoke_on_node(
                self.broker, caller=caller, node_id=request.node_id, because=f"NODE_{state.name}", now=now
            )
        return answer

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

    def ImportNodes(
        self, request_iterator: Iterator[node_service_pb2.ImportNodesRequest], context: grpc.ServicerContext
    ) -> node_service_pb2.ImportNodesResponse:
        """Enrol many nodes, all or none."""
        caller = self.caller(context, Role.OPERATOR)
        now = self.broker.clock()
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("part") != "start":
            raise InvalidRequestError("start", "the first message of an import says how to import")
        request_id = requests.request_id(first.start.request_id)
        with Staging() as staging:
            for message in request_iterator:
                if message.WhichOneof("part") != "nodes":
                    raise InvalidRequestError("nodes", "every message of an import but the first brings nodes")
                for each in message.nodes.nodes:
                    _stage(staging, each, now=now)
            digest = sha256(staging.digest() + (b"dry run" if first.start.dry_run else b"import"))
            method = type(first).__name__
            known = self.broker.answered(caller=caller, request_id=request_id, method=method, request_digest=digest)
            if known is None:
                with self.broker.read() as connection:
                    outcome = staging.check(connection)
                if outcome.problem_count or first.start.dry_run:
                    if not first.start.dry_run:
                        raise_enrolled_twice(self.broker, identities=outcome.cloned, node_id="", caller=caller, now=now)
                    return convert.import_message(outcome)

                def unit(connection: Connection) -> bytes:
                    staging.enrol(connection, caller=caller, now=now)
                    return convert.import_message(outcome).SerializeToString(deterministic=True)

                known = self.broker.once(
                    unit,
                    caller=caller,
                    request_id=request_id,
                    method=method,
                    request_digest=digest,
                    now=now,
                    timeout=IMPORT_TIMEOUT,
                )
        return node_service_pb2.ImportNodesResponse.FromString(known)

    @contextmanager
    def _raising_clones(self, caller: Principal, *, now: int) -> Iterator[None]:
        """Within the block, an identity that is enrolled a second time is raised before it is refused."""
        try:
            yield
        except IdentityEnrolledError as error:
            raise_enrolled_twice(
                self.broker, identities=[error.identity], node_id=error.node_id, caller=caller, now=now
            )
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


def _stage(staging: Staging, message: node_service_pb2.ImportedNode, *, now: int) -> None:
    """Stage a node, or note why it cannot be."""
    slots = [device.slot for device in message.node.devices]
    if message.device_lines and len(message.device_lines) != len(slots):
        raise InvalidRequestError("nodes.device_lines", "not one for each device")
    try:
        row = convert.node_row(message.node, "node", now=now)
    except InvalidRequestError as error:
        staging.refuse(message.line, error.field, error.code, str(error))
        return
    at = dict(zip(slots, message.device_lines, strict=False))
    staging.add(message.line, row, device_lines=[at[device.slot] for device in row.devices] if at else ())
