"""Simulated vendors that the attestation tests share; their RSA keys are generated once for each run."""

from __future__ import annotations

import hashlib

import pytest

from attestation.simulator.node import SimulatedVendors

NOW = 1_790_000_000
"""The tests' appraisal time: 21 September 2026."""


@pytest.fixture(scope="session")
def now() -> int:
    return NOW


@pytest.fixture(scope="session")
def vendors() -> SimulatedVendors:
    return SimulatedVendors.generate(now=NOW, seed=hashlib.sha256(b"tests").digest())
