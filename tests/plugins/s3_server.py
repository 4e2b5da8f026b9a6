"""Pytest plugin: a private S3 server, versitygw over a folder, and a bucket in it with its address and credentials.

It is a real one, made for production. It keeps an object's ETag in an extended attribute of the object's file, so that
both change at once; in files of their own (its ``--sidecar``) they do not, and two publishers could both win. Where the
program or the attributes are missing every test that asks for it is skipped with one line that says what is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ACCESS_KEY = "keystead"
SECRET_KEY = "not-a-secret"  # of a server on the loopback interface that lives as long as a test
REGION = "us-east-1"
BUCKET = "transparency"
START_SECONDS = 60


def find_versitygw() -> Path | None:
    """The program: named by the environment, on PATH, or built by the set-up."""
    if named := os.environ.get("KEYSTEAD_VERSITYGW"):
        return Path(named)
    on_path = shutil.which("versitygw")
    for program in (Path(on_path) if on_path else None, ROOT / ".cache/bin/versitygw"):
        if program is not None and os.access(program, os.X_OK):
            return program
    return None


class S3Server:
    """One running server; buckets are folders in `folder`."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.folder = folder / "buckets"
        self._program = program
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start on the same folder and port, and wait for an answer."""
        command = [
            *(str(self._program), "--port", f"127.0.0.1:{self.port}", "--region", REGION, "--quiet"),
            *("posix", str(self.folder)),
        ]
        if reaper := shutil.which("setpriv"):
            command = [reaper, "--pdeathsig", "KILL", "--", *command]
        keys = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | keys
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, self._log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def open_to_everybody(self, bucket: str, *also: str) -> None:
        """Let anybody read objects and list the bucket, and do what else is named, by a bucket policy."""
        arn = f"arn:aws:s3:::{bucket}"
        actions = ["s3:GetObject", *also]
        statement = {"Effect": "Allow", "Principal": "*", "Action": actions, "Resource": [f"{arn}/*"]}
        listing = {"Effect": "Allow", "Principal": "*", "Action": ["s3:ListBucket"], "Resource": [arn]}
        body = json.dumps({"Version": "2012-10-17", "Statement": [statement, listing]}).encode()
        self._signed("PUT", f"/{bucket}", "policy=", body)

    def _signed(self, method: str, path: str, query: str, body: bytes) -> None:
        """One request with AWS Signature Version 4 (IAM user guide, Create a signed AWS API request)."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": f"127.0.0.1:{self.port}", "x-amz-content-sha256": digest, "x-amz-date": stamp}
        names = ";".join(headers)
        canonical = "\n".join([method, path, query, *(f"{k}:{v}" for k, v in headers.items()), "", names, digest])
        scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{SECRET_KEY}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        signed = f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, f"{path}?{query}", body, headers | {"Authorization": signed})
            response = connection.getresponse()
            assert response.status in {200, 204}, response.read()
        finally:
            connection.close()


@dataclass(frozen=True)
class Bucket:
    """A bucket of a running server; the environment has its endpoint and credentials."""

    server: S3Server
    url: str

    @property
    def folder(self) -> Path:
        """Where the server keeps the log's objects."""
        return self.server.folder / self.url.removeprefix("s3://")

    @property
    def http(self) -> str:
        """Where the log's objects are read without S3."""
        return f"{self.server.url}/{self.url.removeprefix('s3://')}"


@pytest.fixture
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server without buckets."""
    program = find_versitygw()
    if program is None:
        pytest.skip("NO VERSITYGW: `make setup` builds it where there is a Go, or name one in KEYSTEAD_VERSITYGW")
    folder = tmp_path_factory.mktemp("s3")
    try:
        os.setxattr(folder, "user.keystead", b"tried")
    except OSError as error:
        pytest.skip(f"NO EXTENDED ATTRIBUTES in {folder} ({error.strerror}): name another folder in TMPDIR")
    server = S3Server(program, folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket."""
    (s3_server.folder / BUCKET).mkdir()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", REGION)
    return Bucket(s3_server, f"s3://{BUCKET}/keystead/log")
