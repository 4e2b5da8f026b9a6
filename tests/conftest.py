"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Tests start programs while gRPC runs; its fork handlers are for processes that use gRPC after a fork, and break those
# that only execute another program.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Found through `pythonpath` in pyproject.toml. Fixtures: postgres_server, postgres_url, postgres_database; opa;
# s3_server, bucket; growing_log.
pytest_plugins = ["postgres_server", "opa_program", "factory", "s3_server", "growing_log"]

# What commands print in tables must not depend on the terminal that the tests were started from.
os.environ["COLUMNS"] = "140"

ROOT = Path(__file__).resolve().parents[1]

# No deadline: how long one example takes says more of the machine's other work than of the code. On CI examples are the
# same in every run of the same code, so that a change is never refused for what an earlier one did.
settings.register_profile("keystead", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.register_profile("long", parent=settings.get_profile("keystead"), max_examples=4_000)
settings.load_profile("keystead")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The shared test vectors (KEYSTEAD_VECTORS, default ../shared/vectors)."""
    path = Path(os.environ.get("KEYSTEAD_VECTORS", ROOT.parent / "shared" / "vectors"))
    if not (path / "manifest.json").is_file():
        pytest.skip(f"NO TEST VECTORS at {path}: set KEYSTEAD_VECTORS to run this test")
    return path
