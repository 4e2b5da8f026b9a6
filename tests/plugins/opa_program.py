"""Pytest plugin: the pinned `opa`, found as the set-up finds it, or a loud skip."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

OPA_VERSION = "1.22.2"
ROOT = Path(__file__).resolve().parents[2]


def reported_version(program: Path) -> str | None:
    """What `opa version` says it is; None when it is no opa or cannot run."""
    try:
        done = subprocess.run([program, "version"], check=False, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    for line in done.stdout.splitlines():
        name, _, value = line.partition(":")
        if name == "Version":
            return value.strip()
    return None


def find_opa() -> Path | None:
    """`$KEYSTEAD_OPA`, `opa` on PATH, then what the set-up built in `.cache/bin`: the first of the pinned version."""
    named = os.environ.get("KEYSTEAD_OPA")
    on_path = shutil.which("opa")
    candidates = [Path(found) for found in (named, on_path) if found] + [ROOT / ".cache" / "bin" / "opa"]
    for candidate in candidates:
        if candidate.is_file() and reported_version(candidate) == OPA_VERSION:
            return candidate
    return None


@pytest.fixture(scope="session")
def opa() -> Path:
    """The pinned opa program."""
    found = find_opa()
    if found is None:
        pytest.skip(f"NO OPA {OPA_VERSION}: set KEYSTEAD_OPA, put it on PATH, or install Go and run `make setup`")
    return found
