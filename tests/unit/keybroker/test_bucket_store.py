"""A log in a bucket of a real S3 server, and of servers that must not be trusted with it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
import pytest
from growing_log import GrowingLog
from obstore.store import S3Store

from audit.errors import LogCorruptError, MalformedError, PublishedError
from audit.publish import publish
from audit.stores import CHECKPOINT_PATH, MAX_OBJECT, FileStore
from audit.tiles import TilePath
from audit.verify_tiles import verify_tiles
from keybroker import pki
from keybroker.bucket_address import BucketAddress
from keybroker.bucket_store import PROBE_PATH, BucketStore


def open_store(bucket, **options) -> BucketStore:
    return BucketStore(BucketAddress.parse(bucket.url), **options)


def plain(bucket) -> S3Store:
    """The same bucket without any of our care."""
    address = BucketAddress.parse(bucket.url)
    return S3Store(
        address.bucket,
        prefix=address.prefix,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        client_options={"allow_http": True},
    )


def objects(bucket) -> set[str]:
    return {str(path.relative_to(bucket.folder)) for path in bucket.folder.rglob("*") if path.is_file()}


@pytest.mark.s3
def test_a_bucket_holds_what_a_folder_does(bucket, growing_log, tmp_path):
    store, folder = open_store(bucket), FileStore(tmp_path / "public")
    growing_log.grow(300)
    done = publish(growing_log.read, store, growing_log.key)
    assert (done.checkpoint.size, done.before, done.written) == (300, None, 5)
    publish(growing_log.read, folder, growing_log.key)
    for count in (1, 255, 700):
        growing_log.grow(count)
        publish(growing_log.read, store, growing_log.key)
        publish(growing_log.read, folder, growing_log.key)
    here = {str(path.relative_to(tmp_path / "public")) for path in (tmp_path / "public").rglob("*") if path.is_file()}
    assert objects(bucket) == {path for path in here if ".staging" not in path} | {PROBE_PATH}
    assert (bucket.folder / PROBE_PATH).read_bytes().startswith(b"Keystead tries here")
    for path in objects(bucket) - {PROBE_PATH}:
        assert store.get(path) == folder.get(path)
    result = verify_tiles(store, growing_log.key)
    assert (result.ok, result.entries) == (True, 1256)
    again = publish(growing_log.read, open_store(bucket), growing_log.key)
    assert (again.before, again.written) == (1256, 0)


@pytest.mark.s3
def test_an_empty_log_and_a_bucket_without_prefix(bucket, growing_log):
    store = BucketStore(BucketAddress(BucketAddress.parse(bucket.url).bucket, ""))
    assert publish(growing_log.read, store, growing_log.key).checkpoint.size == 0
    assert verify_tiles(store, growing_log.key).ok


@pytest.mark.s3
def test_caches_and_browsers_are_told_what_the_objects_are(bucket, growing_log):
    growing_log.grow(300)
    publish(growing_log.read, open_store(bucket), growing_log.key)
    for path in objects(bucket) - {PROBE_PATH}:
        told = obstore.get(plain(bucket), path).attributes
        if path == CHECKPOINT_PATH:
            wanted = ("text/plain; charset=utf-8", "public, max-age=1")
        else:
            wanted = ("application/octet-stream", "public, max-age=31536000, immutable")
        assert (told["Content-Type"], told["Cache-Control"]) == wanted


@pytest.mark.s3
@pytest.mark.parametrize("path", ["tile/0/001", "tile/entries/001", "tile/0/002.p/88"])
def test_another_tile_or_bundle_is_not_overwritten(bucket, growing_log, path):
    store = open_store(bucket)
    growing_log.grow(300)
    publish(growing_log.read, store, growing_log.key)
    growing_log.grow(300)
    kept = store.get(CHECKPOINT_PATH)
    obstore.put(plain(bucket), path, b"forged")
    with pytest.raises(PublishedError, match=re.escape(f"{path}: another one is published")):
        publish(growing_log.read, store, growing_log.key)
    assert store.get(CHECKPOINT_PATH) == kept
    assert store.get(path) == b"forged"
    # And once it was looked into, publishing goes on.
    obstore.delete(plain(bucket), path)
    assert publish(growing_log.read, store, growing_log.key).checkpoint.size == 600
    assert verify_tiles(store, growing_log.key).ok


@pytest.mark.s3
def test_a_checkpoint_takes_the_place_of_that_one_only_which_was_read(bucket, growing_log):
    store = open_store(bucket)
    assert store.put_checkpoint(b"one", before=b"none") is False
    assert store.get(CHECKPOINT_PATH) is None
    assert store.put_checkpoint(b"one", before=None) is True
    assert store.put_checkpoint(b"two", before=None) is False
    assert store.put_checkpoint(b"two", before=b"one") is True
    assert store.put_checkpoint(b"three", before=b"one") is False
    assert store.get(CHECKPOINT_PATH) == b"two"


@pytest.mark.s3
def test_one_of_many_that_write_at_the_same_instant_wins(bucket):
    before = None
    for turn in range(10):
        notes = [b"%d of turn %d" % (number, turn) for number in range(4)]
        with ThreadPoolExecutor(len(notes)) as pool:
            put = partial(open_store(bucket).put_checkpoint, before=before)
            won = [note for note, done in zip(notes, pool.map(put, notes), strict=True) if done]
        before = open_store(bucket).get(CHECKPOINT_PATH)
        assert won == [before]


@pytest.mark.s3
def test_damage_in_the_database_leaves_no_write_under_way(bucket, growing_log):
    growing_log.grow(600)
    with growing_log.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE audit_entry SET digest = zeroblob(32) WHERE leaf_index = 400")
    store = open_store(bucket)
    with pytest.raises(LogCorruptError, match="entry 400"):
        publish(growing_log.read, store, growing_log.key)
    assert not store._pending
    assert store.get(CHECKPOINT_PATH) is None


@pytest.mark.s3
def test_nothing_but_objects_of_a_log_is_read_or_written(bucket):
    store = open_store(bucket)
    for path in ("../x", "tile/0/../../../x", "/etc/passwd", "tile/0/000.p/256", PROBE_PATH, ""):
        with pytest.raises(MalformedError):
            store.get(path)
        with pytest.raises(MalformedError):
            store.put(path, b"")
    with pytest.raises(MalformedError):
        store.put(CHECKPOINT_PATH, b"")


@pytest.mark.s3
def test_an_object_that_is_too_large_is_not_read(bucket):
    obstore.put(plain(bucket), CHECKPOINT_PATH, bytes(MAX_OBJECT + 1), use_multipart=False)
    with pytest.raises(PublishedError, match="more than any object of a log"):
        open_store(bucket).get(CHECKPOINT_PATH)


@pytest.mark.s3
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("AWS_ACCESS_KEY_ID=nobody", "access key"),
        ("AWS_SECRET_ACCESS_KEY=wrong", "SignatureDoesNotMatch: .*; mend AWS_SECRET_ACCESS_KEY"),
        ("AWS_REGION=mars-1", "region"),
        ("AWS_ENDPOINT_URL=http://127.0.0.1:1", "no answer in time; is the endpoint right"),
        ("AWS_ENDPOINT_URL=https://me:hunter2@s3.example", "AWS_ENDPOINT_URL: not an address"),
        ("AWS_CA_BUNDLE=/nowhere.pem", "AWS_CA_BUNDLE: /nowhere.pem: No such file"),
    ],
)
def test_a_wrong_environment_is_explained_and_nothing_is_absent(bucket, growing_log, monkeypatch, setting, message):
    publish(growing_log.read, open_store(bucket), growing_log.key)
    monkeypatch.setenv(*setting.split("=", 1))
    for work in (lambda store: store.get(CHECKPOINT_PATH), lambda store: publish_with(store, growing_log)):
        with pytest.raises(PublishedError, match=message) as caught:
            work(open_store(bucket, seconds=2))
        assert "\n" not in str(caught.value)
        assert "hunter2" not in str(caught.value)


def publish_with(store, log):
    return publish(log.read, store, log.key)


@pytest.mark.s3
def test_a_bucket_that_is_missing_is_no_log_that_has_not_begun(bucket, growing_log):
    store = BucketStore(BucketAddress("no-such-bucket", ""))
    for work in (lambda: store.get(CHECKPOINT_PATH), lambda: publish_with(store, growing_log)):
        with pytest.raises(PublishedError, match=r"NoSuchBucket: .*; make the bucket, or mend its name"):
            work()


@pytest.mark.s3
def test_a_public_bucket_is_read_without_credentials(bucket, growing_log, monkeypatch):
    growing_log.grow(300)
    publish(growing_log.read, open_store(bucket), growing_log.key)
    bucket.server.open_to_everybody("transparency")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert verify_tiles(open_store(bucket), growing_log.key).ok
    with pytest.raises(PublishedError, match="AccessDenied"):
        publish(growing_log.read, open_store(bucket), growing_log.key)


def test_a_server_that_takes_connections_and_says_nothing_is_not_waited_for(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        store = BucketStore(BucketAddress("logs", ""), endpoint=endpoint, seconds=1)
        started = time.monotonic()
        with pytest.raises(PublishedError, match="no answer in time"):
            store.get(CHECKPOINT_PATH)
        assert time.monotonic() - started < 10


class Lax(BaseHTTPRequestHandler):
    """An S3 server for tests: it believes every signature, and heeds conditions as it was told to."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        data = self.server.objects.get(self.path)
        if self.server.code is not None:
            self.answer(self.server.status, error(self.server.code))
        elif data is None:
            self.answer(404, error("NoSuchKey"))
        else:
            self.answer(200, data)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        there = self.server.objects.get(self.path)
        heeds = self.server.heeds
        fails = "none" in heeds and "If-None-Match" in self.headers and there is not None
        fails |= "match" in heeds and self.headers.get("If-Match", tag(there)) != tag(there)
        if "501" in heeds and ("If-None-Match" in self.headers or "If-Match" in self.headers):
            self.answer(501, error("NotImplemented"))
        elif fails or ("If-Match" in self.headers and "stubborn" in heeds):
            self.answer(412, error("PreconditionFailed"))
        else:
            self.server.objects[self.path] = body
            self.answer(200, b"", tagged=body)

    def answer(self, status, data, tagged=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 00:00:00 GMT")
        if "weak" in self.server.heeds:
            self.send_header("ETag", f"W/{tag(data if tagged is None else tagged)}")
        elif "untagged" not in self.server.heeds:
            self.send_header("ETag", tag(data if tagged is None else tagged))
        self.end_headers()
        self.wfile.write(data)


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>As the test wishes.</Message></Error>".encode()


def tag(data: bytes | None) -> str:
    return f'"{hashlib.sha256(data or b"").hexdigest()}"'


@pytest.fixture
def lax(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Lax)
    server.objects, server.heeds, server.code, server.status = {}, {"none", "match"}, None, 403
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("heeds", "message"),
    [
        (set(), "does not heed If-None-Match"),
        ({"match"}, "does not heed If-None-Match"),
        ({"none"}, "does not heed If-Match"),
        ({"none", "match", "stubborn"}, "never replaces the object"),
        ({"none", "match", "weak"}, "no strong ETag"),
        ({"none", "match", "untagged"}, "ETag"),
        ({"501"}, "no conditional writes"),
    ],
)
def test_a_store_that_does_not_heed_conditions_is_found_out(lax, growing_log, heeds, message):
    lax.heeds = heeds
    growing_log.grow(3)
    store = BucketStore(BucketAddress("logs", "a"))
    for _ in range(2):
        with pytest.raises(PublishedError, match=message):
            publish(growing_log.read, store, growing_log.key)
    assert {path for path in lax.objects if not path.endswith(PROBE_PATH)} == set()


def test_a_store_that_heeds_them_is_tried_once(lax, growing_log):
    store = BucketStore(BucketAddress("logs", "a"))
    growing_log.grow(3)
    publish(growing_log.read, store, growing_log.key)
    tried = lax.objects["/logs/a/" + PROBE_PATH]
    growing_log.grow(3)
    publish(growing_log.read, store, growing_log.key)
    assert lax.objects["/logs/a/" + PROBE_PATH] == tried
    publish(growing_log.read, BucketStore(BucketAddress("logs", "a")), growing_log.key)
    assert lax.objects["/logs/a/" + PROBE_PATH] != tried


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "RequestTimeTooSkewed", "set the clock"),
        (403, "AccessDenied", "s3:ListBucket"),
        (403, "InvalidAccessKeyId", "mend AWS_ACCESS_KEY_ID"),
        (400, "ExpiredToken", "renew AWS_SESSION_TOKEN"),
        (404, "SomethingElse", "SomethingElse: As the test wishes"),
        (503, "SlowDown", "SlowDown"),
        (301, "PermanentRedirect", "incorrectly configured region"),
    ],
)
def test_what_the_store_says_is_passed_on_with_advice(lax, status, code, message):
    lax.code, lax.status = code, status
    with pytest.raises(PublishedError, match=message):
        BucketStore(BucketAddress("logs", ""), seconds=1).get(CHECKPOINT_PATH)


@pytest.mark.s3
def test_who_may_write_and_not_delete_publishes_all_the_same(bucket, growing_log, monkeypatch):
    growing_log.grow(200)
    publish(growing_log.read, open_store(bucket), growing_log.key)
    bucket.server.open_to_everybody("transparency", "s3:PutObject")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    growing_log.grow(200)
    store = open_store(bucket)
    assert publish(growing_log.read, store, growing_log.key).checkpoint.size == 400
    assert {"tile/0/000.p/200", "tile/0/000", "tile/entries/000.p/200"} <= objects(bucket)
    assert verify_tiles(store, growing_log.key).ok


def test_partial_tiles_that_may_not_be_listed_stay(lax):
    lax.code, lax.status = "AccessDenied", 403
    BucketStore(BucketAddress("logs", "")).remove_partials(TilePath(0, 0))
    lax.code, lax.status = "InternalError", 500
    with pytest.raises(PublishedError, match="cannot remove partial tiles of tile/0/000: InternalError"):
        BucketStore(BucketAddress("logs", ""), seconds=1).remove_partials(TilePath(0, 0))


def test_tls_is_verified_against_the_authority_that_the_environment_names(lax, tmp_path, monkeypatch):
    authority = pki.create_ca("test", now=int(time.time()))
    issued = pki.issue_server(authority, "store", hosts=["localhost"], now=int(time.time()))
    authority.write(tmp_path / "ca.pem", tmp_path / "ca.key")
    issued.write(tmp_path / "cert.pem", tmp_path / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    lax.socket = context.wrap_socket(lax.socket, server_side=True)
    endpoint = f"https://localhost:{lax.server_port}"
    with pytest.raises(PublishedError, match=r"certificate is not trusted \(UnknownIssuer\)"):
        BucketStore(BucketAddress("logs", ""), endpoint=endpoint, seconds=1).get(CHECKPOINT_PATH)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    assert BucketStore(BucketAddress("logs", ""), endpoint=endpoint, seconds=2).get(CHECKPOINT_PATH) is None


@pytest.mark.s3
def test_the_command_publishes_and_verifies_a_bucket(bucket, growing_log: GrowingLog, tmp_path, capsys, monkeypatch):
    from keystead.cli.main import run

    growing_log.grow(300)
    key = tmp_path / "log.vkey"
    key.write_text(f"{growing_log.key}\n")
    options = ["--key", str(key), "--json"]
    assert run(["audit", "publish", bucket.url, "--database", growing_log.url, *options]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "origin": growing_log.key.name,
        "entries": 300,
        "published before": None,
        "tiles and bundles written": 5,
    }
    assert run(["audit", "verify", "--tiles", bucket.url, *options]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 300
    # The same without S3, as anybody reads a public bucket.
    bucket.server.open_to_everybody("transparency")
    assert run(["audit", "verify", "--tiles", bucket.http, *options]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 300
    obstore.put(plain(bucket), "tile/0/000", bytes(32) + (bucket.folder / "tile/0/000").read_bytes()[32:])
    assert run(["audit", "verify", "--tiles", bucket.url, *options]) == 1
    assert json.loads(capsys.readouterr().out)["first_bad_index"] == 0
    assert run(["audit", "verify", "--tiles", "s3://Not-A-Bucket", *options]) == 2
    assert run(["audit", "verify", "--tiles", "gs://transparency", *options]) == 2
    assert capsys.readouterr().out.count("BAD_CONFIGURATION") == 2
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert run(["audit", "publish", bucket.url, "--database", growing_log.url, *options]) == 2
    assert "SignatureDoesNotMatch" in capsys.readouterr().out


def test_without_the_extra_the_command_says_what_to_install(growing_log, tmp_path):
    key = tmp_path / "log.vkey"
    key.write_text(f"{growing_log.key}\n")
    program = "import sys; sys.modules['obstore'] = None; from keystead.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "audit", "verify", "--tiles", "s3://logs", "--key", str(key)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'keystead[objectstore]'" in done.stderr
