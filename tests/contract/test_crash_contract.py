"""A broker that is killed at any instant has lost no answered unit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from keybroker.store.engine import open_engine, read

PROGRAM = Path(__file__).with_name("commit_until_killed.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def run_and_kill(url: str, *, first: int, after: float) -> list[int]:
    """Let the writer run for `after` seconds past its first answer, kill it; returns the keys that it answered."""
    process = subprocess.Popen([sys.executable, str(PROGRAM), url, str(first)], stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert process.stdout is not None
    with process.stdout:
        head = process.stdout.readline()
        # Nobody reads meanwhile: the pipe holds some thousand answers, after which the writer waits to be killed.
        time.sleep(after)
        process.kill()
        lines = (head + process.stdout.read()).split(b"\n")
    process.wait()
    return [int(line) for line in lines if line]


def test_every_answered_unit_survives_sigkill(database_url: str) -> None:
    answered: set[int] = set()
    for attempt, after in enumerate((0.01, 0.06, 0.2)):
        fresh = run_and_kill(database_url, first=attempt * 1_000_000, after=after)
        assert fresh
        assert not answered.intersection(fresh)
        answered.update(fresh)
        engine = open_engine(database_url)
        with read(engine) as connection:
            found = set(connection.execute(text("SELECT key FROM answered")).scalars())
            if engine.dialect.name == "sqlite":
                assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
        engine.dispose()
        assert answered <= found, f"answered but lost: {sorted(answered - found)[:10]}"


@pytest.mark.postgres
def test_every_answered_unit_survives_the_crash_of_the_server(
    request: pytest.FixtureRequest, postgres_database: str
) -> None:
    """The server is killed under a running writer: units in flight fail with a typed error, answered ones stay."""
    server = request.getfixturevalue("postgres_server")
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), postgres_database, "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    head = process.stdout.readline()
    time.sleep(0.1)
    server.kill()
    try:
        rest, errors = process.communicate(timeout=60)
    finally:
        server.restart()
    answered = {int(line) for line in (head + rest).split(b"\n") if line}
    assert b"StoreOutcomeUnknownError" in errors or b"StoreUnavailableError" in errors
    engine = open_engine(postgres_database)
    with read(engine) as connection:
        found = set(connection.execute(text("SELECT key FROM answered")).scalars())
    engine.dispose()
    assert answered
    assert answered <= found
