"""A broker publishes its log in a bucket; what becomes of the bucket is no affair of those who ask for keys."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from factory import Factory, furnish
from s3_server import Bucket
from structlog.testing import capture_logs

from audit.checkpoint import open_checkpoint
from audit.errors import PublishedError
from audit.stores import CHECKPOINT_PATH
from audit.verify_tiles import verify_tiles
from keybroker.bucket_address import BucketAddress
from keybroker.bucket_store import BucketStore
from keybroker.errors import ConfigError
from keybroker.maintenance import Maintenance
from keybroker.publication import Publication
from keybroker.services.witness import publication
from keystead.cli.audit_publish import HttpTiles
from keystead.cli.main import run

PATIENCE = 60


@pytest.fixture
def made(bucket: Bucket, database, make_factory, monkeypatch) -> Factory:
    """A furnished factory that publishes in the bucket; the address of its server is in the configuration."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")

    log = f'[log]\npublish = "{bucket.url}"\npublish_endpoint = "{bucket.server.url}"\npublish_region = "us-east-1"\n'

    def edit(text: str) -> str:
        return text.partition("[log]")[0] + log

    return furnish(make_factory(database=database, edit=edit))


def reader(bucket: Bucket) -> BucketStore:
    return BucketStore(BucketAddress.parse(bucket.url), endpoint=bucket.server.url)


def published(bucket: Bucket, factory: Factory) -> int:
    note = reader(bucket).get(CHECKPOINT_PATH)
    return -1 if note is None else open_checkpoint(note, factory.broker.keys.log.verifier).size


def signed(factory: Factory) -> int:
    with factory.broker.read() as connection:
        return connection.exec_driver_sql("SELECT max(tree_size) FROM audit_checkpoint").scalar_one()


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.s3
def test_the_running_broker_publishes_serves_on_while_the_store_is_away_and_catches_up(bucket, made):
    ref = made.register_asset()
    authorized = made.authorize(ref)
    wait_for(lambda: published(bucket, made) >= 5)
    bucket.server.kill()
    before = signed(made)
    started = time.monotonic()
    assert made.acquire("node-a", authorized, ref).terms.lease_id
    assert time.monotonic() - started < 20
    wait_for(lambda: signed(made) > before)
    bucket.server.start()
    wait_for(lambda: published(bucket, made) > before)
    result = verify_tiles(reader(bucket), made.broker.keys.log.verifier)
    assert result.ok
    assert result.entries > before


@pytest.fixture
def work(made) -> Publication:
    """What the broker's threads do, step by step."""
    maintenance = made.server._maintenance
    maintenance._stop.set()
    for thread in maintenance._threads:
        thread.join()
    Maintenance(made.broker).sequence()
    done = publication(made.broker)
    assert done is not None
    return done


@pytest.mark.s3
def test_a_store_that_cannot_be_used_is_complained_of_once(bucket, made, work, monkeypatch):
    work.run_once()
    assert published(bucket, made) == signed(made)
    made.register_asset("acme/other")
    Maintenance(made.broker).sequence()
    bucket.server.kill()
    with capture_logs() as logs:
        for _ in range(2):
            work.run_once()
    assert [line["event"] for line in logs] == ["the log is not published"]
    assert "no answer in time" in logs[0]["error"]
    assert "not-a-secret" not in json.dumps(logs)
    bucket.server.start()
    with capture_logs() as logs:
        for _ in range(2):
            work.run_once()
    assert [line["event"] for line in logs] == ["the log is published again"]
    assert published(bucket, made) == signed(made)
    # What makes two other stories of one log is complained of in the same way, and stays unpublished.
    (bucket.folder / CHECKPOINT_PATH).unlink()
    reader(bucket).put_checkpoint(b"not of this log\n", before=None)
    with capture_logs() as logs:
        work.run_once()
    assert "not one that this log's key signed" in logs[0]["error"]
    work.close()


@pytest.mark.s3
def test_replicas_publish_side_by_side(bucket, made, work):
    other = publication(made.broker)
    for _ in range(3):
        made.register_asset(f"acme/a{time.monotonic_ns()}")
        Maintenance(made.broker).sequence()
        for each in (work, other):
            each.run_once()
        assert published(bucket, made) == signed(made)
    for each in (work, other):
        each.close()


@pytest.mark.s3
def test_strangers_read_a_public_bucket_over_http(bucket, made, work, tmp_path, capsys):
    work.run_once()
    work.close()
    verifier = made.broker.keys.log.verifier
    with pytest.raises(PublishedError, match="403"):
        HttpTiles(bucket.http).get(CHECKPOINT_PATH)
    bucket.server.open_to_everybody("transparency")
    assert verify_tiles(HttpTiles(bucket.http), verifier).ok
    key = tmp_path / "log.vkey"
    key.write_text(f"{verifier}\n")
    capsys.readouterr()
    assert run(["audit", "verify", "--tiles", bucket.http, "--key", str(key), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == signed(made)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('publish = "gs://logs/x"', r"log\.publish: gs://…: logs are published in a folder, or in a bucket s3://"),
        ('publish = "s3://UPPER/x"', r"log\.publish: s3://…: the name of a bucket"),
        ('publish = "public"\npublish_endpoint = "https://s3.example"', "are for publish = 's3://BUCKET/PREFIX'"),
        ('publish_region = "eu-1"', "are for publish = 's3://BUCKET/PREFIX'"),
        ('publish = "s3://logs"\npublish_endpoint = "ftp://s3.example"', r"log\.publish_endpoint"),
        ('publish = "s3://logs"\npublish_endpoint = "https://me:secret@s3.example"', r"log\.publish_endpoint"),
    ],
)
def test_a_configuration_that_names_no_bucket_is_refused(make_factory, table, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_factory(edit=lambda text: text.partition("[log]")[0] + f"[log]\n{table}\n")
    assert "secret" not in str(caught.value)


def test_a_broker_starts_where_the_bucket_cannot_be_reached(make_factory, monkeypatch):
    """Whoever restarts a broker while the store is away needs the keys, not the store."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    log = '[log]\npublish = "s3://logs"\npublish_endpoint = "http://127.0.0.1:1"\n'
    factory = make_factory(edit=lambda text: text.partition("[log]")[0] + log)
    assert factory.stubs("operator").channel is not None
    assert furnish(factory).register_asset()
