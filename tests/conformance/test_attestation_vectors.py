"""The shared vectors under the conformance profiles: every case of SNP, GPUs, switches and manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.conformance import CaseResult, judge

pytestmark = pytest.mark.vectors

NVIDIA = {"nvidia": 13, "nvidia-rim": 18, "nvswitch": 5}
"""Cases of each TEE that are published."""


@pytest.fixture(scope="module")
def results(vectors: Path) -> list[CaseResult]:
    return judge(vectors / "manifest.json", {"snp", "tdx", *NVIDIA})


def test_every_snp_case_agrees(results: list[CaseResult]) -> None:
    snp = [result for result in results if result.tee == "snp"]
    assert len(snp) >= 29
    assert [result for result in snp if not result.agree] == []


@pytest.mark.parametrize("tee", NVIDIA)
def test_every_nvidia_case_agrees(results: list[CaseResult], tee: str) -> None:
    of_tee = [result for result in results if result.tee == tee]
    assert len(of_tee) >= NVIDIA[tee]
    assert [result for result in of_tee if not result.agree] == []


def test_cases_fail_for_their_own_reason(results: list[CaseResult]) -> None:
    found = {result.name: set(result.findings) for result in results}
    for name, code in {
        "neg-truncated": "MALFORMED",
        "neg-version-1": "MALFORMED",
        "neg-wrong-vcek-invalid-legacy": "SNP_CHAIN_SIGNATURE",
        "tf-221-signed-region-measurement-tampered": "SNP_SIGNATURE",
        "tf-231-vcek-signature-tampered": "SNP_CHAIN_SIGNATURE",
        "tf-400-measurement-pin-mismatch": "SNP_MEASUREMENT",
        "tf-420-report-data-pin-mismatch": "SNP_REPORT_DATA",
        "tf-440-author-key-digest-pin-mismatch": "SNP_AUTHOR_KEY_DIGEST",
        "tf-451-tcb-ucode-spl-below-min": "SNP_TCB_BELOW_MINIMUM",
        "tf-601-synth-reserved-mbo-cleared": "SNP_POLICY_RESERVED",
        "tf-603-synth-migrate-ma-set": "SNP_MIGRATE_MA_ALLOWED",
        "tf-700-vcek-hwid-mismatch": "SNP_HWID",
        "tf-702-vcek-ucode-spl-mismatch": "SNP_CERT_TCB",
        "neg-hopper-nonce-mismatch": "NVGPU_NONCE",
        "neg-hopper-invalid-signature": "NVGPU_SIGNATURE",
        "neg-hopper-driver-rim-mismatch": "RIM_DIGEST",
        "neg-incorrect-signature": "RIM_SIGNATURE",
        "neg-parse-duplicate-index": "RIM_CONTENT",
        "neg-parse-missing-x509-data": "RIM_SIGNATURE_FORM",
        "neg-switch-chain-mismatch": "NVSWITCH_SIGNATURE",
        "neg-switch-rim-mismatch": "RIM_DIGEST",
    }.items():
        assert code in found[name], name


def test_other_tees_are_unsupported_and_never_agree(results: list[CaseResult]) -> None:
    tdx = [result for result in results if result.tee == "tdx"]
    assert tdx
    assert {result.verdict for result in tdx} == {"unsupported"}
    assert not any(result.agree for result in tdx)
