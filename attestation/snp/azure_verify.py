"""SEV-SNP evidence of Azure's confidential virtual machines: an HCL report, judged by the rules of SEV-SNP and more.

The report inside goes the one way that every SEV-SNP report goes, `attestation.snp.verify.verify`; REPORT_DATA is
compared with the hash of the runtime data instead of a session's value, and the session's value with ``user-data``.

What it proves: this chip runs, at the TCB that it states, the *paravisor* of this MEASUREMENT at VMPL 0, and that
paravisor says that its guest gave it these 64 bytes and that its vTPM has this key. MEASUREMENT covers the paravisor
and not the guest: which guest it was, and what software in it wrote ``user-data``, is known only from the vTPM's PCRs,
which are not part of this evidence. Whoever may write the vTPM's NV index in the guest can bind a session.

Reference values are those of the paravisor, in a section of their own, so that values for guests which attest by
themselves never accept a paravisor by accident: VMPL 0, its measurements, ``allow_masked_chip_id`` off.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from attestation.errors import MalformedError
from attestation.findings import THIS_SESSION, CheckLog
from attestation.profile import STRICT, Profile
from attestation.snp import azure_checks as checks
from attestation.snp import verify as snp
from attestation.snp.azure_hcl import USER_DATA_SIZE, HclReport, RuntimeData
from attestation.snp.endorsements import SnpAnchors
from attestation.snp.verify import SnpReference
from attestation.types import Collateral, DeviceResult, Evidence, Json

SCHEME: Final = "snp-azure-hcl"


def verify(
    evidence: Evidence,
    *,
    collateral: Collateral,
    anchors: SnpAnchors,
    reference: SnpReference,
    expected_user_data: bytes | None,
    now: int,
    profile: Profile = STRICT,
) -> DeviceResult:
    """Verify one CPU's evidence.

    Args:
        evidence: the HCL report as NV index 0x01400001 holds it; leaf, ASK or ASVK, and ARK as DER.
        collateral: AMD's revocation lists.
        anchors: the pinned roots.
        reference: what the paravisor's report must say.
        expected_user_data: the 64 bytes that ``user-data`` must be; None leaves freshness unproven, which a finding
            says.
        now: the appraisal's time, seconds since the epoch.
        profile: what each finding does to the verdict.

    Raises:
        MalformedError: envelope, report, runtime data, certificate or CRL cannot be decoded, or `expected_user_data`
            is not 64 bytes.
        UnsupportedError: a report version that this verifier does not know.
    """
    if expected_user_data is not None and len(expected_user_data) != USER_DATA_SIZE:
        raise MalformedError("expected user-data", f"{len(expected_user_data)} bytes, expected {USER_DATA_SIZE}")
    hcl = HclReport.parse(evidence.data)
    runtime = RuntimeData.parse(hcl.runtime_data)
    result = snp.verify(
        replace(evidence, data=hcl.report),
        collateral=collateral,
        anchors=anchors,
        reference=reference,
        expected_report_data=hcl.expected_report_data,
        report_data_check=checks.HCL_RUNTIME_DATA,
        now=now,
        profile=profile,
    )
    # What the report vouches for is the runtime data, if it is theirs; what those carry is what the guest gave.
    runtime_bound = result.bound_data == hcl.expected_report_data
    log = CheckLog()
    stated = "none" if runtime.user_data is None else runtime.user_data.hex()
    if expected_user_data is None:
        log.require(checks.HCL_USER_DATA_UNCHECKED, ok=False, expected="an expected value", actual=stated)
    else:
        log.require(
            checks.HCL_USER_DATA,
            ok=runtime.user_data == expected_user_data,
            expected=expected_user_data.hex(),
            actual=stated,
            reference=THIS_SESSION,
        )
    return replace(
        result,
        scheme=SCHEME,
        claims={**result.claims, "azure": hcl_claims(hcl, runtime)},
        findings=profile.apply((*result.findings, *log.findings)),
        passed=(*result.passed, *log.passed),
        bound_data=runtime.user_data or b"" if runtime_bound else b"",
    )


def hcl_claims(hcl: HclReport, runtime: RuntimeData) -> dict[str, Json]:
    """What the envelope and the runtime data say; byte strings are lower-case hex, the configuration is as stated."""
    return {
        "hcl_version": hcl.version,
        "hash_type": hcl.hash_type,
        "user_data": None if runtime.user_data is None else runtime.user_data.hex(),
        "vtpm_ak_thumbprint": None if runtime.ak_thumbprint is None else runtime.ak_thumbprint.hex(),
        "vm_configuration": runtime.vm_configuration,
    }
