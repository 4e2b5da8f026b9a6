"""Certificate chains: any bytes give a verdict or a typed error."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import MalformedError
from attestation.findings import CheckLog
from attestation.simulator.nvgpu import Architecture, SimulatedGpuVendor
from attestation.x509 import ChainRules, EcAlgorithm, verify_chain

VENDOR = SimulatedGpuVendor(b"\x04" * 32)
CERTIFICATES = [der for architecture in Architecture for der in VENDOR.gpu(9, architecture=architecture).certificates()]
RULES = ChainRules(length=1, algorithm=EcAlgorithm.P384_SHA384, pinned_roots=VENDOR.anchors().simulated_roots)


def judge(certificates: tuple[bytes, ...], now: int) -> None:
    log = CheckLog()
    with contextlib.suppress(MalformedError):
        assert verify_chain(certificates, rules=RULES, now=now, log=log).trusted == (not log.findings)


@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(0, 1 << 40))
def test_any_bytes_are_a_verdict_or_an_error(certificates: list[bytes], now: int) -> None:
    judge(tuple(certificates), now)


@given(st.sampled_from(CERTIFICATES), st.data())
def test_any_change_of_a_certificate_is_a_verdict_or_an_error(der: bytes, draw: st.DataObject) -> None:
    """Changes that keep lengths right reach furthest into the parser."""
    changed = bytearray(der)
    for _ in range(draw.draw(st.integers(1, 4))):
        changed[draw.draw(st.integers(0, len(der) - 1))] = draw.draw(st.integers(0, 255))
    judge((bytes(changed),), 1_790_000_000)
