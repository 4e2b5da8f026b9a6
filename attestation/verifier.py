"""The RATS Verifier for one device: finds the scheme of the evidence, lets it judge, then applies what all share."""

from __future__ import annotations

from collections.abc import Mapping

from attestation.errors import UnsupportedError
from attestation.findings import CheckLog
from attestation.profile import STRICT, Profile
from attestation.reference.appraisal import appraise_reference
from attestation.registry import SCHEMES
from attestation.scheme import ReferenceValues, Scheme, TrustAnchors
from attestation.types import Collateral, DeviceResult, Evidence


def scheme_of(evidence: Evidence, schemes: Mapping[str, Scheme] = SCHEMES) -> Scheme:
    """The scheme that reads `evidence`.

    Raises:
        UnsupportedError: no scheme of that name is known.
    """
    scheme = schemes.get(evidence.scheme)
    if scheme is None:
        known = ", ".join(sorted(schemes))
        raise UnsupportedError(f"evidence of {evidence.slot!r:.40}: scheme {evidence.scheme!r:.40}, known are {known}")
    return scheme


def verify_evidence(
    evidence: Evidence,
    *,
    expected: bytes | None,
    anchors: TrustAnchors,
    reference: ReferenceValues,
    collateral: Collateral,
    now: int,
    profile: Profile = STRICT,
    schemes: Mapping[str, Scheme] = SCHEMES,
) -> DeviceResult:
    """Verify one device's evidence by itself: the scheme's own rules, then lists of devices and advisories.

    `attestation.composite.verify_node` joins the devices of a node.

    Args:
        evidence: of any known scheme.
        expected: REPORT_DATA (64 bytes) for SEV-SNP, the device nonce (32 bytes) for a GPU; None leaves freshness
            unproven, which a finding says.
        anchors: pinned roots.
        reference: reference values.
        collateral: endorsements and revocation data from elsewhere.
        now: the appraisal's time, seconds since the epoch.
        profile: what each finding does to the verdict.
        schemes: which schemes may be used.

    Raises:
        MalformedError: the evidence cannot be decoded.
        UnsupportedError: an unknown scheme or version.
        TrustAnchorError: no roots or no reference values are configured for the scheme.
    """
    result = scheme_of(evidence, schemes).verify(
        evidence,
        expected=expected,
        collateral=collateral,
        anchors=anchors,
        reference=reference,
        now=now,
        profile=profile,
    )
    log = CheckLog()
    appraise_reference(result, reference=reference, now=now, log=log)
    return result.held_against(
        reference.digests,
        findings=tuple(sorted((*result.findings, *profile.apply(log.findings)))),
        passed=(*result.passed, *log.passed),
    )
