"""A broker has its log witnessed and published; a witness that is away, slow or refusing delays no release."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import grpc
import pytest
from factory import Factory
from sqlalchemy import delete

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import Cosigner, WitnessKey, WitnessPolicy
from audit.errors import PublishedError
from audit.log import append
from audit.note import NoteVerifier, SignedNote
from audit.problems import ProblemCode
from audit.proof import ProofBundle, verify_bundle
from audit.records import Kind, Record, Result
from audit.stores import CHECKPOINT_PATH, FileStore
from audit.tables import AUDIT_CHECKPOINT
from audit.verify_tiles import verify_tiles
from audit.witness import Witness, WitnessState
from keybroker.config import BrokerConfig
from keybroker.errors import ConfigError
from keybroker.maintenance import Maintenance
from keybroker.publication import Publication
from keybroker.refusals import BROKER_ACTOR
from keybroker.services.witness import publication
from keystead.cli.audit_http import tiles_app, witness_app
from keystead.cli.audit_publish import HttpTiles
from keystead.cli.main import run
from keystead.v1 import audit_service_pb2


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


class _Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@contextmanager
def listening(app) -> Iterator[str]:
    """Run a WSGI application in this process; its address."""
    with make_server("127.0.0.1", 0, app, server_class=_Threaded, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Late:
    """An application whose address is known before it is: a witness must know the log's key, the log the address."""

    app: Callable | None = None

    def __call__(self, environ, start):
        if self.app is None:
            start("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return self.app(environ, start)


@dataclass
class Plant:
    """A broker's publication with its witnesses."""

    factory: Factory
    late: list[Late]
    cosigners: list[Cosigner]
    folder: Path

    @property
    def key(self) -> NoteVerifier:
        return self.factory.broker.keys.log.verifier

    @property
    def policy(self) -> WitnessPolicy:
        return self.factory.broker.witnesses

    def start_witness(self, number: int, clock: Callable[[], int] = lambda: int(time.time())) -> None:
        path = self.folder.parent / f"seen-{number}.db"
        state = WitnessState(path) if path.exists() else WitnessState.create(path)
        self.late[number].app = witness_app(Witness(self.cosigners[number], [self.key], state), clock)

    def record(self) -> None:
        broker = self.factory.broker
        made = Record.build(kind=Kind.BROKER_STARTED, time=broker.clock(), actor=BROKER_ACTOR, result=Result.RECORDED)
        broker.commit(lambda connection: append(connection, made))
        Maintenance(broker).sequence()

    def publication(self) -> Publication:
        made = publication(self.factory.broker)
        assert made is not None
        return made

    def published(self) -> int | None:
        note = FileStore(self.folder).get(CHECKPOINT_PATH)
        return None if note is None else open_checkpoint(note, self.key).size

    def signed(self) -> int:
        with self.factory.broker.read() as connection:
            return connection.exec_driver_sql("SELECT max(tree_size) FROM audit_checkpoint").scalar_one()


@pytest.fixture
def plant(database, make_factory, tmp_path) -> Iterator[Plant]:
    """A broker that publishes what two of three witnesses cosigned; none of them runs yet."""
    late = [Late() for _ in range(3)]
    cosigners = [Cosigner.generate(f"witness.example/{number}") for number in range(3)]
    with ExitStack() as stack:
        tables = [
            f'[[log.witnesses]]\nname = "w{number}"\nurl = "{stack.enter_context(listening(app))}"\n'
            f'key = "{cosigners[number].key}"\n'
            for number, app in enumerate(late)
        ]
        log = f'[log]\npublish = "{tmp_path / "public"}"\nwitness_quorum = 2\nwitness_seconds = 1\n' + "".join(tables)

        def edit(text: str) -> str:
            return text.partition("[log]")[0] + log

        factory = make_factory(database=database, edit=edit)
        # The broker's own thread must not do meanwhile what a test does step by step.
        maintenance = factory.server._maintenance
        maintenance._stop.set()
        for thread in maintenance._threads:
            thread.join()
        yield Plant(factory, late, cosigners, tmp_path / "public")


def test_a_checkpoint_is_published_once_a_quorum_cosigned_it(plant, capsys):
    work = plant.publication()
    plant.record()
    work.run_once()
    assert plant.published() is None
    plant.start_witness(0)
    work.run_once()
    assert plant.published() is None  # one of two
    plant.start_witness(2)
    work.run_once()
    assert plant.published() == plant.signed()
    store = FileStore(plant.folder)
    result = verify_tiles(store, plant.key, witnesses=plant.policy)
    assert result.ok
    assert {key.name for key in result.cosigned} == {"witness.example/0", "witness.example/2"}
    # Growing is proven to each from where it was, and the one that was away is brought up to date.
    plant.record()
    plant.start_witness(1)
    work.run_once()
    assert len(verify_tiles(store, plant.key, witnesses=plant.policy).cosigned) == 3
    # What the broker serves carries the cosignatures, too.
    auditor = plant.factory.stubs("auditor").audit
    note = auditor.GetCheckpoint(audit_service_pb2.GetCheckpointRequest()).checkpoint.encode()
    assert len(plant.policy.require(note)) == 3
    bundle = ProofBundle.parse(auditor.ProveRecord(audit_service_pb2.ProveRecordRequest(leaf_index=1)).bundle)
    assert verify_bundle(bundle, plant.key).ok
    assert len(plant.policy.require(bundle.checkpoint)) == 3
    work.close()


def test_without_a_quorum_releases_go_on_and_strangers_see_the_older_tree(plant):
    for number in range(2):
        plant.start_witness(number)
    work = plant.publication()
    work.run_once()
    before = plant.published()
    plant.late[1].app = None
    plant.record()
    started = time.monotonic()
    work.run_once()
    assert time.monotonic() - started < 4
    assert plant.signed() > before
    assert plant.published() == before
    auditor = plant.factory.stubs("auditor").audit
    served = auditor.GetCheckpoint(audit_service_pb2.GetCheckpointRequest()).checkpoint
    assert Checkpoint.parse_text(SignedNote.parse(served.encode()).text).size == before
    with pytest.raises(grpc.RpcError) as caught:
        auditor.ProveRecord(audit_service_pb2.ProveRecordRequest(leaf_index=before))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "waits for its checkpoint to be cosigned" in caught.value.details()
    work.close()


def test_before_the_first_cosignatures_no_checkpoint_is_served(plant):
    with pytest.raises(grpc.RpcError) as caught:
        plant.factory.stubs("auditor").audit.GetCheckpoint(audit_service_pb2.GetCheckpointRequest())
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_witness_that_hangs_or_drips_is_not_waited_for(plant):
    plant.start_witness(0)
    plant.start_witness(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and never answers

        def drip() -> None:
            try:
                while True:
                    taken, _ = listener.accept()
                    threading.Thread(target=feed, args=(taken,), daemon=True).start()
            except OSError:
                return

        def feed(taken: socket.socket) -> None:
            with taken:
                try:
                    taken.sendall(b"HTTP/1.1 200 OK\r\n")
                    for number in range(1000):
                        taken.sendall(b"X-%d: y\r\n" % number)
                        time.sleep(0.3)
                except OSError:
                    return

        threading.Thread(target=drip, daemon=True).start()
        work = plant.publication()
        key = plant.cosigners[2].key
        link = work._links[key]
        work._links[key] = type(link)(f"http://127.0.0.1:{listener.getsockname()[1]}", link.seconds)
        started = time.monotonic()
        work.run_once()
        assert time.monotonic() - started < 4
        assert plant.published() == plant.signed()
        work.close()


def test_history_rewritten_with_the_logs_own_key_is_not_witnessed(plant):
    """Whoever has the database and the log's key puts an older tree back and lets it grow otherwise."""
    if plant.factory.broker.engine.dialect.name != "sqlite":
        pytest.skip("one database shows it")
    for number in range(3):
        plant.start_witness(number)
    work = plant.publication()
    for _ in range(3):
        plant.record()
    work.run_once()
    size = plant.published()
    broker = plant.factory.broker
    with broker.read() as connection:
        first = Checkpoint.parse_text(
            SignedNote.parse(
                connection.exec_driver_sql("SELECT note FROM audit_checkpoint WHERE tree_size = ?", (size,))
                .scalar_one()
                .encode()
            ).text
        )
    forged = Checkpoint(first.origin, first.size, bytes(32)).sign(broker.keys.log)
    broker.commit(
        lambda connection: connection.execute(
            delete(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == first.size)
        )
    )
    broker.commit(
        lambda connection: connection.execute(
            AUDIT_CHECKPOINT.insert().values(tree_size=first.size, root_hash=bytes(32), time=1, note=str(forged))
        )
    )
    plant.publication().run_once()
    with broker.read() as connection:
        note = connection.exec_driver_sql("SELECT note FROM audit_checkpoint ORDER BY tree_size DESC").scalar()
    assert plant.policy.times(SignedNote.parse(note.encode())) == {}
    assert open_checkpoint(FileStore(plant.folder).get(CHECKPOINT_PATH), plant.key) == first
    work.close()


def test_strangers_read_it_over_http(plant, capsys, tmp_path):
    plant.start_witness(0)
    plant.start_witness(1)
    for _ in range(3):
        plant.record()
    work = plant.publication()
    work.run_once()
    work.close()
    with listening(tiles_app(FileStore(plant.folder))) as url:
        assert verify_tiles(HttpTiles(url), plant.key, witnesses=plant.policy).ok
        with urllib.request.urlopen(f"{url}/checkpoint") as response:
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert response.headers["Cache-Control"] == "public, max-age=1"
        size = plant.published()
        for path in (f"tile/0/000.p/{size}", f"tile/entries/000.p/{size}"):
            with urllib.request.urlopen(f"{url}/{path}") as response:
                assert response.headers["Content-Type"] == "application/octet-stream"
                assert "immutable" in response.headers["Cache-Control"]
        for path in ("", "tile", "tile/0/", "tile/0/001", "tile/0/0", "..%2fseen-0.db", ".staging/lock", "checkpoint/"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{url}/{path}")
            with caught.value as refused:
                assert (refused.code, refused.headers["Cache-Control"]) == (404, "no-store")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/checkpoint", data=b"x")
        with caught.value as refused:
            assert refused.code == 405
        key = tmp_path / "log.vkey"
        key.write_text(f"{plant.key}\n")
        capsys.readouterr()
        options = ["--tiles", url, "--key", str(key), "--json"]
        witnesses = [word for item in plant.cosigners for word in ("--witness", str(item.key))]
        assert run(["audit", "verify", *options, *witnesses, "--quorum", "2"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["verified"], answer["entries"], len(answer["cosigned"])) == (True, size, 2)
        assert run(["audit", "verify", *options, *witnesses]) == 1  # all three
        answer = json.loads(capsys.readouterr().out)
        assert [item["code"] for item in answer["problems"]] == [ProblemCode.CHECKPOINT_UNWITNESSED.value]
    with pytest.raises(PublishedError):
        HttpTiles(url).get("checkpoint")


def test_the_running_broker_publishes_by_itself(database, make_factory, tmp_path):
    def edit(text: str) -> str:
        return text.partition("[log]")[0] + f'[log]\npublish = "{tmp_path / "public"}"\n'

    factory = make_factory(database=database, edit=edit)
    deadline = time.monotonic() + 30
    store = FileStore(tmp_path / "public")
    while (
        store.get(CHECKPOINT_PATH) is None or not verify_tiles(store, factory.broker.keys.log.verifier).entries
    ) and (time.monotonic() < deadline):
        time.sleep(0.1)
    result = verify_tiles(store, factory.broker.keys.log.verifier)
    assert result.ok
    assert result.entries >= 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("witness_quorum = 1", "quorum 1 of 0"),
        ('[[log.witnesses]]\nname = "w"\nurl = "https://w.example/"\nkey = "x"', "not NAME"),
        ('[[log.witnesses]]\nname = "w"\nurl = "ftp://w.example/"\nkey = "x"', "url"),
        ("witness_seconds = 0", "greater than"),
    ],
)
def test_a_configuration_that_asks_for_the_impossible_is_refused(tmp_path, table, message, make_factory):
    def edit(text: str) -> str:
        return text.partition("[log]")[0] + f"[log]\n{table}\n"

    with pytest.raises(ConfigError, match=re.escape(message)):
        make_factory(edit=edit)


def test_witness_keys_are_public(plant):
    assert isinstance(plant.policy.keys[0], WitnessKey)
    assert BrokerConfig.load(plant.factory.installation.directory).log.witness_quorum == 2
