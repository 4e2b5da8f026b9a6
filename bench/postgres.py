"""PostgreSQL for measurements: a server that is named, or one of their own where the programs are installed."""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from sqlalchemy import make_url

SERVER: Final = "KEYSTEAD_BENCH_POSTGRES"
"""Names the URL of a server whose user may make databases."""

_OWN: Final = Path(__file__).resolve().parents[1] / "tests" / "plugins" / "postgres_server.py"


@contextmanager
def own_server() -> Iterator[None]:
    """A server for whatever is measured meanwhile, as the tests start it, unless one is named or none is installed."""
    spec = importlib.util.spec_from_file_location("bench_postgres_server", _OWN)
    if os.environ.get(SERVER) or spec is None or spec.loader is None:
        yield
        return
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    programs = module.find_programs()
    if programs is None:
        yield
        return
    server = module.PostgresServer(programs)
    os.environ[SERVER] = server.url()
    try:
        yield
    finally:
        del os.environ[SERVER]
        server.stop()


@contextmanager
def database() -> Iterator[str | None]:
    """A database of this run's own, dropped at the end: its URL; None, and a line that says so, where no server is."""
    server = os.environ.get(SERVER)
    if not server:
        print(f"PostgreSQL SKIPPED: none is installed, and {SERVER} names no server", flush=True)
        yield None
        return
    url = make_url(server).set(drivername="postgresql")
    name = f"keystead_bench_{secrets.token_hex(4)}"
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
