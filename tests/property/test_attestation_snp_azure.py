"""HCL reports and their runtime data: any bytes are a value or a typed error, and nothing unsigned is accepted."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import AttestationError, MalformedError
from attestation.snp.abi import REPORT_SIZE
from attestation.snp.azure_hcl import HclReport, RuntimeData
from attestation.snp.azure_verify import SCHEME, verify
from attestation.snp.conformance import REFERENCE
from attestation.snp.endorsements import SnpAnchors
from attestation.types import Collateral, Evidence

REPORTS = st.builds(
    HclReport,
    report=st.binary(min_size=REPORT_SIZE, max_size=REPORT_SIZE),
    runtime_data=st.binary(max_size=200),
    hash_type=st.sampled_from([1, 2, 3]),
    version=st.integers(0, (1 << 32) - 1),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "keys": JSON | st.lists(st.fixed_dictionaries({"kid": st.just("HCLAkPub"), "kty": st.just("RSA"), "n": JSON})),
        "vm-configuration": JSON,
        "user-data": JSON | st.binary(min_size=64, max_size=64).map(bytes.hex),
        "other": JSON,
    },
)


@given(REPORTS, st.integers(0, 4000))
def test_an_hcl_report_comes_back(report: HclReport, padded_to: int) -> None:
    assert HclReport.parse(report.to_bytes(padded_to=padded_to)) == report


@given(REPORTS, st.data())
def test_an_altered_hcl_report_is_another_one_or_a_typed_error(report: HclReport, data: st.DataObject) -> None:
    encoded = bytearray(report.to_bytes())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(MalformedError):
        altered = HclReport.parse(bytes(encoded))
        # Only what the header reserves may differ without being told.
        assert altered != report or 12 <= at < 32 or 32 + REPORT_SIZE + 4 <= at < 32 + REPORT_SIZE + 8


@given(st.binary(max_size=300))
def test_any_bytes_are_runtime_data_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        RuntimeData.parse(data)


@given(MEMBERS | JSON)
def test_any_json_is_runtime_data_or_a_typed_error(document: Any) -> None:
    with contextlib.suppress(MalformedError):
        parsed = RuntimeData.parse(json.dumps(document).encode())
        rfc8785.dumps(parsed.vm_configuration)
        stated = document.get("user-data")
        assert parsed.user_data == (None if stated is None else bytes.fromhex(stated))


@given(REPORTS, st.binary(min_size=64, max_size=64))
def test_what_nobody_signed_binds_nothing(report: HclReport, user_data: bytes) -> None:
    runtime = json.dumps({"user-data": user_data.hex()}).encode()
    data = HclReport(report=report.report, runtime_data=runtime).to_bytes()
    with contextlib.suppress(AttestationError):
        result = verify(
            Evidence("cpu0", SCHEME, data),
            collateral=Collateral(),
            anchors=SnpAnchors.amd(),
            reference=REFERENCE,
            expected_user_data=user_data,
            now=1_790_000_000,
        )
        assert not result.ok
        assert result.bound_data == b""
        assert result.identity is None
