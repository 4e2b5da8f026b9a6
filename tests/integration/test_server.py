"""The server around the adapters: health, reflection, deadlines, overload, a clean stop, metrics and what it logs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from calls import CONTRACT, acquire_request, refusal
from factory import Factory, furnish, install, request_id
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY

from attestation.simulator.node import SimulatedVendors
from keybroker import reads
from keybroker.config import BrokerConfig
from keybroker.errors import ConfigError
from keybroker.services.server import Server
from keystead.binding import AssetRef
from keystead.v1 import asset_service_pb2, audit_service_pb2, node_service_pb2, site_service_pb2

Shared = tuple[Factory, AssetRef]
ROOT = Path(__file__).resolve().parents[2]


def test_health_says_serving_for_the_server_and_each_service(shared: Shared) -> None:
    factory, _ = shared
    stub = health_pb2_grpc.HealthStub(factory.stubs("node").channel)
    for service in ("", "keystead.v1.LeaseService", "keystead.v1.AuditService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="keystead.v1.Nothing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def test_a_full_queue_does_not_look_like_a_dead_broker(
    make_factory: Callable[..., Factory], monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = make_factory(edit=lambda text: text.replace("[limits]", "[limits]\nworkers = 1"))
    entered, release = threading.Event(), threading.Event()

    def slow(*_: object) -> str:
        entered.set()
        release.wait(30)
        return ""

    monkeypatch.setattr(reads, "checkpoint", slow)
    stubs = factory.stubs("auditor")
    calls = [stubs.audit.GetCheckpoint.future(audit_service_pb2.GetCheckpointRequest()) for _ in range(3)]
    try:
        assert entered.wait(30), "the only worker never got to work"
        probe = health_pb2_grpc.HealthStub(stubs.channel)
        answer = probe.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert not any(call.done() for call in calls)
    finally:
        release.set()
    assert [call.result().checkpoint for call in calls] == [""] * 3


def test_reflection_names_every_service(shared: Shared) -> None:
    factory, _ = shared
    stub = reflection_pb2_grpc.ServerReflectionStub(factory.stubs("node").channel)
    (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="*")]))
    names = {service.name for service in answer.list_services_response.service}
    assert {
        f"keystead.v1.{name}Service" for name in ("Asset", "Attestation", "Audit", "Job", "Lease", "Node", "Site")
    } <= names


def test_an_unknown_method_is_unimplemented(shared: Shared) -> None:
    factory, _ = shared
    channel = factory.stubs("node").channel
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/keystead.v1.LeaseService/GiveMeEverything")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


@contextmanager
def stalled(factory: Factory) -> Iterator[None]:
    """The database is held by another writer."""
    path = factory.config.database_url.removeprefix("sqlite:///")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_a_deadline_is_honoured_and_nothing_is_released(factory: Factory) -> None:
    ref = factory.register_asset()
    request = acquire_request(factory, "node-a", factory.authorize(ref), ref)
    leases = factory.stubs("node").leases
    with stalled(factory):
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            leases.AcquireLease(request, timeout=0.7)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
        assert time.monotonic() - started < 3
        # Reads never wait for a writer.
        assert factory.stubs("operator").nodes.ListNodes(node_service_pb2.ListNodesRequest(), timeout=5).nodes
    assert leases.AcquireLease(request).keys


def test_a_stop_answers_what_is_under_way(make_factory: Callable[..., Factory]) -> None:
    factory = furnish(make_factory())
    operator = factory.stubs("operator").sites
    request = site_service_pb2.EnrolSiteRequest(
        request_id=request_id(),
        record=factory.signed(factory.site_record("late-1", "DE")),
    )
    with stalled(factory):
        future = operator.EnrolSite.future(request, timeout=20)
        time.sleep(0.5)
        stopping = threading.Thread(target=factory.server._server.stop, args=(5,))
        stopping.start()
        time.sleep(0.3)
        assert not future.done()
    assert future.result().site.site_id == "late-1"
    stopping.join(10)
    with pytest.raises(grpc.RpcError) as caught:
        operator.ListSites(site_service_pb2.ListSitesRequest(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


def test_a_taken_address_is_a_configuration_error(shared: Shared) -> None:
    factory, _ = shared
    server = Server(factory.broker)
    with pytest.raises(ConfigError, match=r"broker\.listen"):
        server.start(f"127.0.0.1:{factory.port}")
    server._server.stop(0).wait()


def test_calls_are_counted_by_method_and_code_alone(shared: Shared) -> None:
    """Labels are a closed set: no name that a client chooses becomes one."""
    factory, _ = shared
    owner = factory.stubs("acme-owner").assets
    for number in range(20):
        name = f"acme/guess{number}"
        refusal(lambda name=name: owner.GetAsset(asset_service_pb2.GetAssetRequest(asset=name)))
    for number in range(5):
        with pytest.raises(grpc.RpcError):
            factory.stubs("node").channel.unary_unary(f"/keystead.v1.LeaseService/Guess{number}")(b"")
    labels = {
        (sample.labels["method"], sample.labels["code"])
        for metric in REGISTRY.collect()
        if metric.name == "keystead_rpc"
        for sample in metric.samples
        if sample.name == "keystead_rpc_total"
    }
    assert ("/keystead.v1.AssetService/GetAsset", "NOT_FOUND") in labels
    assert not any("uess" in text for label in labels for text in label)
    assert len({method for method, _ in labels}) <= len(CONTRACT)


@pytest.fixture
def program(tmp_path: Path, vendors: SimulatedVendors) -> Path:
    """An installation that trusts simulators, on a free port."""
    installation = install(
        tmp_path / "site",
        vendors,
        database=None,
        edit=lambda text: text.replace('"127.0.0.1:8750"', '"127.0.0.1:0"'),
    )
    return installation.directory


def test_the_program_says_what_it_trusts_and_stops_when_told(program: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from keybroker.config import BrokerConfig\n"
        "from keybroker.services.server import serve\n"
        "serve(BrokerConfig.load(Path(sys.argv[1])), ready=lambda port: print(port, flush=True),"
        " metrics_port=int(sys.argv[2]))\n"
    )
    metrics = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(program), str(metrics)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        folder = program / "clients"
        credentials = grpc.ssl_channel_credentials(
            (program / "tls" / "ca.pem").read_bytes(),
            (folder / "auditor.key").read_bytes(),
            (folder / "auditor.pem").read_bytes(),
        )
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            call = channel.unary_unary(
                "/keystead.v1.AuditService/QueryRecords",
                request_serializer=audit_service_pb2.QueryRecordsRequest.SerializeToString,
            )
            # A filter is data: what a client sends must not forge a line of the log.
            with pytest.raises(grpc.RpcError):
                call(audit_service_pb2.QueryRecordsRequest(job_uid='x"}\n{"event": "forged"}'))
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert 'keystead_rpc_total{code="INVALID_ARGUMENT",method="/keystead.v1.AuditService/QueryRecords"} 1.0' in text
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (warning,) = [line for line in lines if line["level"] == "warning"]
    assert "SIMULATED HARDWARE IS TRUSTED" in warning["event"]
    assert len(warning["amd"]) == 3
    assert warning["allowed_by_policy"] is True
    assert [line["event"] for line in lines].index("listening") < [line["event"] for line in lines].index("stopping")
    assert not any(line["event"] == "forged" for line in lines)
    assert not re.search(r"PRIVATE KEY|Traceback", log)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_secrets_on_disk_are_their_owners_alone(shared: Shared) -> None:
    factory, _ = shared
    directory = factory.installation.directory
    assert directory.stat().st_mode & 0o077 == 0
    secret = [*directory.glob("keys/*"), *directory.glob("tls/*.key"), *directory.glob("clients/*.key")]
    secret += directory.glob("keystead.db*")
    assert len(secret) >= 10
    loose = [path.name for path in secret if path.stat().st_mode & 0o077 and not path.name.startswith("odd-")]
    assert loose == []
    assert BrokerConfig.load(directory).broker.name == "keys"
