"""Client commands' connection to the broker: mutual TLS, a deadline for every call, typed errors."""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar, get_type_hints

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from attester.errors import from_rpc_error
from keystead.cli.exits import UsageError
from keystead.cli.profile import BrokerOptions, Profile, with_broker_options
from keystead.v1.asset_service_pb2_grpc import AssetServiceStub
from keystead.v1.audit_service_pb2_grpc import AuditServiceStub
from keystead.v1.declassification_service_pb2_grpc import DeclassificationServiceStub
from keystead.v1.job_service_pb2_grpc import JobServiceStub
from keystead.v1.lineage_service_pb2_grpc import LineageServiceStub
from keystead.v1.node_service_pb2_grpc import NodeServiceStub
from keystead.v1.placement_service_pb2_grpc import PlacementServiceStub
from keystead.v1.site_service_pb2_grpc import SiteServiceStub

P = ParamSpec("P")
Request = TypeVar("Request")
Response = TypeVar("Response")

_MAX_MESSAGE: Final = 64 << 20


class Connection:
    """A mutual-TLS channel to the broker and stubs for its services; use it as a context manager.

    Args:
        profile: where to, and as whom.
        timeout: seconds that any one call may take.

    Raises:
        UsageError: a certificate or key cannot be read.
    """

    def __init__(self, profile: Profile, *, timeout: float) -> None:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_material(profile.ca, "--ca"),
            private_key=_material(profile.key, "--key"),
            certificate_chain=_material(profile.certificate, "--cert"),
        )
        self.profile = profile
        self._timeout = timeout
        self._channel = grpc.secure_channel(
            profile.address,
            credentials,
            options=(
                ("grpc.max_receive_message_length", _MAX_MESSAGE),
                ("grpc.enable_retries", 0),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1_000),
            ),
        )
        self.assets = AssetServiceStub(self._channel)
        self.audit = AuditServiceStub(self._channel)
        self.declassifications = DeclassificationServiceStub(self._channel)
        self.jobs = JobServiceStub(self._channel)
        self.lineage = LineageServiceStub(self._channel)
        self.nodes = NodeServiceStub(self._channel)
        self.placement = PlacementServiceStub(self._channel)
        self.sites = SiteServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def ready(self, *, timeout: float) -> bool:
        """Whether the broker accepts us over mutual TLS and says, within `timeout` seconds, that it serves."""
        try:
            answer = HealthStub(self._channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def call(self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Call a method of one of the stubs.

        Raises:
            attester.errors.AttesterError: the broker refused, or could not be reached in time.
        """
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def send(
        self,
        method: grpc.StreamUnaryMultiCallable[Request, Response],
        requests: Iterator[Request],
        *,
        timeout: float | None = None,
    ) -> Response:
        """Call a method that takes several messages, with a time limit of its own where one is given.

        Raises:
            attester.errors.AttesterError: the broker refused, or could not be reached in time.
        """
        try:
            return method(requests, timeout=timeout or self._timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def stream(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        timeout: float | None = None,
    ) -> Iterator[Response]:
        """Call a method that answers with several messages, with a time limit of its own where one is given.

        Raises:
            attester.errors.AttesterError: the broker refused, or could not be reached in time.
        """
        try:
            yield from method(request, timeout=timeout or self._timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None


def request_id() -> str:
    """A fresh id for a request that changes something: the broker carries it out once, however often it arrives."""
    return str(uuid.uuid4())


def to_timestamp(seconds: int) -> Timestamp:
    """A protobuf timestamp of whole seconds."""
    return Timestamp(seconds=seconds)


def connected(function: Callable[Concatenate[Connection, P], None]) -> Callable[..., None]:
    """Make a command of a function that takes a `Connection` first: adds the options that say where the broker is."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    first, *others = signature.parameters.values()
    run: Callable[..., None] = function

    @functools.wraps(function)
    def command(options: BrokerOptions, /, **kwargs: Any) -> None:
        with Connection(options.find_profile(), timeout=options.timeout) as connection:
            run(connection, **kwargs)

    del command.__wrapped__
    parameters = [
        first.replace(name="options", annotation=BrokerOptions),
        *(parameter.replace(annotation=hints[parameter.name]) for parameter in others),
    ]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # as PEP 362 sets it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_broker_options(command)


def _material(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None
