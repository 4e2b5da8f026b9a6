"""Pytest plugin: a private PostgreSQL server from the Debian package ``postgresql``, and one fresh database per test.

The server is started at most once in each test process (so it works under xdist), in a temporary directory that no
other user can read, on the loopback interface with a random port and password, and with its durability settings as in
production (``fsync`` and ``synchronous_commit`` stay on), because the tests are about what survives a crash. PostgreSQL
refuses to run as root; there the server runs as ``postgres`` or else ``nobody``.

Where no PostgreSQL is installed every test that asks for it is skipped with one line that says what to install.
``KEYSTEAD_POSTGRES_BIN`` names a folder with ``initdb`` and ``postgres`` to use instead of what is found.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

START_SECONDS = 60
STOP_SECONDS = 30
START_ATTEMPTS = 3
SUPERUSER = "keystead"


class ServerStartError(Exception):
    """The server was found but would not start; the message ends with its own log."""


def find_programs() -> Path | None:
    """The folder that holds ``initdb`` and ``postgres``: named by the environment, Debian's newest, or on PATH."""
    named = os.environ.get("KEYSTEAD_POSTGRES_BIN")
    if named:
        candidates = [Path(named)]
    else:
        debian = Path("/usr/lib/postgresql").glob("*/bin")
        numbered = [folder for folder in debian if folder.parent.name.isdigit()]
        candidates = sorted(numbered, key=lambda folder: int(folder.parent.name), reverse=True)
        found = shutil.which("initdb")
        if found:
            candidates.append(Path(found).resolve().parent)
    for folder in candidates:
        if os.access(folder / "initdb", os.X_OK) and os.access(folder / "postgres", os.X_OK):
            return folder
    return None


def unprivileged_account() -> pwd.struct_passwd | None:
    """The account the server runs as: None for the account of this process, which is enough unless it is root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServerStartError("PostgreSQL will not run as root and there is neither a user postgres nor nobody")


class PostgresServer:
    """One running server; `url(database)` is what SQLAlchemy connects to."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._account = unprivileged_account()
        # Not pytest's tmp_path: its parents are closed to other users, and its length can exceed a socket's 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="keystead-pg-"))
        self._password = secrets.token_urlsafe(24)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        try:
            self._initialise()
            self._start()
        except BaseException:
            self.stop()
            raise

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database, password included."""
        return f"postgresql+psycopg://{SUPERUSER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """An autocommit connection as the superuser, for creating and dropping databases."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=SUPERUSER,
            password=self._password,
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        )

    def kill(self) -> None:
        """Stop at once as a crash would (SIGQUIT, no checkpoint); `restart` then recovers from the log."""
        self._signal_and_wait(signal.SIGQUIT)

    def restart(self) -> None:
        """Start again on the same data and port."""
        self._launch()
        self._wait_until_ready()

    def stop(self) -> None:
        """Stop the server and remove its data."""
        self._signal_and_wait(signal.SIGINT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _initialise(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        if self._account is not None:
            for path in (self._folder, password_file):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        done = self._run(
            [
                str(self._programs / "initdb"),
                f"--pgdata={self._folder / 'data'}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ]
        )
        password_file.unlink()
        if done.returncode != 0:
            raise ServerStartError(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")

    def _start(self) -> None:
        # Another process may take the free port before the server does: then it ends at once, and the next is tried.
        for attempt in range(1, START_ATTEMPTS + 1):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            try:
                self._launch()
                self._wait_until_ready()
            except ServerStartError:
                if attempt == START_ATTEMPTS:
                    raise
            else:
                return

    def _launch(self) -> None:
        command = [
            str(self._programs / "postgres"),
            *("-D", str(self._folder / "data"), "-k", str(self._folder), "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=100", "-c", "shared_buffers=32MB"),
        ]
        reaper = shutil.which("setpriv")
        if reaper:
            # A test run that is killed leaves no server behind: the kernel interrupts it when this process dies.
            command = [reaper, "--pdeathsig", "INT", "--", *command]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **self._identity()
            )

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process.poll() is not None:
                self._process = None
                raise ServerStartError(f"the server ended at its start; its log: {self._read_log()}")
            try:
                self.connect().close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    self._signal_and_wait(signal.SIGQUIT)
                    raise ServerStartError(f"no answer in {START_SECONDS} s; its log: {self._read_log()}") from error
                time.sleep(0.05)
            else:
                return

    def _signal_and_wait(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def _read_log(self) -> str:
        return self._log.read_text(errors="replace")[-2000:].strip() if self._log.is_file() else "(empty)"

    def _identity(self) -> dict[str, object]:
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command, check=False, capture_output=True, stdin=subprocess.DEVNULL, cwd="/", **self._identity()
        )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The test process's private server; skips loudly where PostgreSQL is not installed."""
    programs = find_programs()
    if programs is None:
        pytest.skip(
            "NO POSTGRESQL: install the Debian package postgresql, or set KEYSTEAD_POSTGRES_BIN, to run this test"
        )
    server = PostgresServer(programs)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """The SQLAlchemy URL of the server's maintenance database (for tests that need no database of their own)."""
    return postgres_server.url()


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database that is dropped, with whoever is still connected, after the test."""
    name = f"test_{secrets.token_hex(8)}"
    with postgres_server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield postgres_server.url(name)
    with postgres_server.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
