"""The gRPC server: mutual TLS, health, reflection, size limits and deadlines around the adapters."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from keybroker.broker import Broker, wall_clock
from keybroker.config import BrokerConfig
from keybroker.errors import ConfigError, SigningKeyError
from keybroker.keys.files import read_secret
from keybroker.maintenance import Maintenance
from keybroker.services.asset import AssetAdapter
from keybroker.services.attestation import AttestationAdapter
from keybroker.services.audit import AuditAdapter
from keybroker.services.declassification import DeclassificationAdapter
from keybroker.services.interceptor import StatusInterceptor
from keybroker.services.job import JobAdapter
from keybroker.services.lease import LeaseAdapter
from keybroker.services.lineage import LineageAdapter
from keybroker.services.node import NodeAdapter
from keybroker.services.placement import PlacementAdapter
from keybroker.services.site import SiteAdapter
from keybroker.services.witness import publication
from keybroker.store.engine import open_engine
from keybroker.store.migrate import migrate
from keystead.v1 import (
    asset_service_pb2,
    asset_service_pb2_grpc,
    attestation_service_pb2,
    attestation_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    declassification_service_pb2,
    declassification_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    lease_service_pb2,
    lease_service_pb2_grpc,
    lineage_service_pb2,
    lineage_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    placement_service_pb2,
    placement_service_pb2_grpc,
    site_service_pb2,
    site_service_pb2_grpc,
)

GRACE: Final = 5.0
"""Seconds that calls in flight get to finish when the server stops."""

_LOG: Final = structlog.get_logger("keystead.server")
_MAX_METADATA: Final = 16 << 10


class _Health(health.HealthServicer):
    """The health service on a thread of its own: a queue of acquires must not look like a dead broker."""

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer a probe."""
        response: health_pb2.HealthCheckResponse = super().Check(request, context)
        return response

    # grpc's server runs a handler that has this attribute on this pool (grpc._server, as HealthServicer.Watch uses it).
    Check.experimental_thread_pool = ThreadPoolExecutor(1, thread_name_prefix="health")  # type: ignore[attr-defined]


class Server:
    """A broker that listens."""

    def __init__(self, broker: Broker) -> None:
        config = broker.config
        self.broker: Final = broker
        self._maintenance = Maintenance(broker, publication(broker))
        self._server = grpc.server(
            ThreadPoolExecutor(config.limits.workers, thread_name_prefix="rpc"),
            interceptors=[StatusInterceptor()],
            options=[
                ("grpc.max_receive_message_length", config.limits.message_bytes),
                ("grpc.max_send_message_length", config.limits.message_bytes),
                ("grpc.max_metadata_size", _MAX_METADATA),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=config.limits.concurrent_calls,
        )
        self._health = _Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        attestation_service_pb2_grpc.add_AttestationServiceServicer_to_server(AttestationAdapter(broker), self._server)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(JobAdapter(broker), self._server)
        lease_service_pb2_grpc.add_LeaseServiceServicer_to_server(LeaseAdapter(broker), self._server)
        asset_service_pb2_grpc.add_AssetServiceServicer_to_server(AssetAdapter(broker), self._server)
        lineage_service_pb2_grpc.add_LineageServiceServicer_to_server(LineageAdapter(broker), self._server)
        declassification_service_pb2_grpc.add_DeclassificationServiceServicer_to_server(
            DeclassificationAdapter(broker), self._server
        )
        site_service_pb2_grpc.add_SiteServiceServicer_to_server(SiteAdapter(broker), self._server)
        node_service_pb2_grpc.add_NodeServiceServicer_to_server(NodeAdapter(broker), self._server)
        placement_service_pb2_grpc.add_PlacementServiceServicer_to_server(PlacementAdapter(broker), self._server)
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(AuditAdapter(broker), self._server)
        self._names = [
            module.DESCRIPTOR.services_by_name[service].full_name
            for module, service in (
                (attestation_service_pb2, "AttestationService"),
                (job_service_pb2, "JobService"),
                (lease_service_pb2, "LeaseService"),
                (asset_service_pb2, "AssetService"),
                (lineage_service_pb2, "LineageService"),
                (declassification_service_pb2, "DeclassificationService"),
                (site_service_pb2, "SiteService"),
                (node_service_pb2, "NodeService"),
                (placement_service_pb2, "PlacementService"),
                (audit_service_pb2, "AuditService"),
            )
        ]
        reflection.enable_server_reflection([*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)

    def start(self, listen: str | None = None) -> int:
        """Listen on the configured address, or on `listen`; returns the port.

        Raises:
            ConfigError: the address is taken, or a TLS file is missing.
        """
        address = listen or self.broker.config.broker.listen
        try:
            port = self._server.add_secure_port(address, _credentials(self.broker.config))
        except RuntimeError:
            port = 0
        if port == 0:
            raise ConfigError(f"broker.listen: cannot listen on {address}: it is taken, or no address of this machine")
        # On record before the first call: under which policies, and whether simulators are trusted.
        self.broker.record_start()
        self._server.start()
        self._maintenance.start()
        for name in ("", *self._names):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    def stop(self) -> None:
        """Refuse new calls, let those in flight finish, sequence the log, and let go of the store."""
        self._health.enter_graceful_shutdown()
        self._server.stop(GRACE).wait()
        self._maintenance.stop()
        self.broker.close()


def serve(
    config: BrokerConfig,
    *,
    migrate_first: bool = False,
    ready: Callable[[int], None] | None = None,
    metrics_port: int = 0,
) -> None:
    """Run a broker until SIGTERM or SIGINT.

    Args:
        config: what to run.
        migrate_first: bring the database's schema up to date before.
        ready: called with the port once calls are answered.
        metrics_port: serve Prometheus metrics on this loopback port; 0 serves none.

    Raises:
        KeybrokerError: it cannot start; the text says why.
    """
    configure_logging()
    if migrate_first:
        engine = open_engine(config.database_url)
        migrate(engine)
        engine.dispose()
    broker = Broker.open(config, clock=wall_clock)
    _announce(broker)
    server = Server(broker)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    port = server.start()
    if metrics_port:
        start_http_server(metrics_port, addr="127.0.0.1")
    _LOG.info("listening", port=port, broker=broker.name)
    if ready is not None:
        ready(port)
    stopping.wait()
    _LOG.info("stopping")
    server.stop()


def configure_logging() -> None:
    """Events as JSON lines on standard error. No key, prompt or payload is among them: none is given to a logger."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _announce(broker: Broker) -> None:
    if broker.trust.simulated:
        _LOG.warning(
            "SIMULATED HARDWARE IS TRUSTED: the configuration names simulators' roots; never use real assets here",
            amd=list(broker.config.attestation.simulated_amd_roots),
            nvidia=list(broker.config.attestation.simulated_nvidia_roots),
            allowed_by_policy=broker.policies.settings.allow_simulated,
        )
    if broker.trust.unsigned:
        _LOG.warning(
            "UNSIGNED REFERENCE VALUES: whoever can write these files decides what is accepted; sign them and name "
            "reference_signers in the configuration",
            files=list(broker.trust.unsigned),
        )
    for where, problem in broker.policies.unusable.items():
        _LOG.error(
            "TENANT POLICY UNUSABLE: the tenant is denied everything until it is mended", pack=where, why=problem
        )
    _LOG.info(
        "policies",
        appraisal=broker.policies.appraisal.digest,
        release=broker.policies.release.digest,
        tenants={name: policies.digest for name, policies in broker.policies.tenants.items()},
        log=str(broker.keys.log.verifier),
    )


def _credentials(config: BrokerConfig) -> grpc.ServerCredentials:
    tls = config.tls
    try:
        ca = config.path(tls.ca).read_bytes()
        certificate = config.path(tls.certificate).read_bytes()
    except OSError as error:
        raise ConfigError(f"tls: {error.filename}: {error.strerror}") from None
    key = read_secret(config.path(tls.key), limit=64 << 10, error=SigningKeyError)
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca, require_client_auth=True)
