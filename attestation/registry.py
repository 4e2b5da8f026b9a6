"""Every scheme and every check by name, written down; importing a module never changes what is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attestation import node_checks
from attestation.errors import TrustAnchorError
from attestation.findings import Check
from attestation.nvgpu import checks as nvgpu_checks
from attestation.nvgpu import verify as nvgpu
from attestation.nvswitch import checks as nvswitch_checks
from attestation.nvswitch import verify as nvswitch
from attestation.profile import Profile
from attestation.reference import checks as reference_checks
from attestation.scheme import ReferenceValues, Scheme, TrustAnchors
from attestation.snp import azure_checks as snp_azure_checks
from attestation.snp import azure_verify as snp_azure
from attestation.snp import checks as snp_checks
from attestation.snp import verify as snp
from attestation.types import Collateral, DeviceResult, Evidence


class SnpScheme:
    """AMD SEV-SNP; `expected` is REPORT_DATA."""

    name: Final = snp.SCHEME
    slot_prefix: Final = "cpu"
    checks: Final = snp_checks.CHECKS

    def verify(
        self,
        evidence: Evidence,
        *,
        expected: bytes | None,
        collateral: Collateral,
        anchors: TrustAnchors,
        reference: ReferenceValues,
        now: int,
        profile: Profile,
    ) -> DeviceResult:
        """See `attestation.scheme.Scheme.verify`."""
        if anchors.snp is None or reference.snp is None:
            raise TrustAnchorError("SEV-SNP evidence, but no SNP roots or no SNP reference values are configured")
        return snp.verify(
            evidence,
            collateral=collateral,
            anchors=anchors.snp,
            reference=reference.snp,
            expected_report_data=expected,
            now=now,
            profile=profile,
        )


class SnpAzureHclScheme:
    """AMD SEV-SNP in an HCL report of Azure's paravisor; `expected` is the ``user-data`` that the guest gave it."""

    name: Final = snp_azure.SCHEME
    slot_prefix: Final = "cpu"
    checks: Final = snp_azure_checks.CHECKS

    def verify(
        self,
        evidence: Evidence,
        *,
        expected: bytes | None,
        collateral: Collateral,
        anchors: TrustAnchors,
        reference: ReferenceValues,
        now: int,
        profile: Profile,
    ) -> DeviceResult:
        """See `attestation.scheme.Scheme.verify`."""
        if anchors.snp is None or reference.snp_azure_hcl is None:
            raise TrustAnchorError(
                "SEV-SNP evidence of Azure's paravisor, but no SNP roots or no reference values for it are configured: "
                "[snp_azure_hcl], not [snp], says what is accepted"
            )
        return snp_azure.verify(
            evidence,
            collateral=collateral,
            anchors=anchors.snp,
            reference=reference.snp_azure_hcl,
            expected_user_data=expected,
            now=now,
            profile=profile,
        )


class NvGpuScheme:
    """NVIDIA GPUs over SPDM; `expected` is the device nonce."""

    name: Final = nvgpu.SCHEME
    slot_prefix: Final = "gpu"
    checks: Final = nvgpu_checks.CHECKS

    def verify(
        self,
        evidence: Evidence,
        *,
        expected: bytes | None,
        collateral: Collateral,
        anchors: TrustAnchors,
        reference: ReferenceValues,
        now: int,
        profile: Profile,
    ) -> DeviceResult:
        """See `attestation.scheme.Scheme.verify`."""
        if anchors.nvgpu is None or reference.nvgpu is None:
            raise TrustAnchorError("NVIDIA GPU evidence, but no GPU roots or no GPU reference values are configured")
        return nvgpu.verify(
            evidence,
            anchors=anchors.nvgpu,
            reference=reference.nvgpu,
            expected_nonce=expected,
            now=now,
            collateral=collateral,
            profile=profile,
        )


class NvSwitchScheme:
    """NVIDIA NVSwitches over SPDM; `expected` is the device nonce."""

    name: Final = nvswitch.SCHEME
    slot_prefix: Final = "nvswitch"
    checks: Final = nvswitch_checks.CHECKS

    def verify(
        self,
        evidence: Evidence,
        *,
        expected: bytes | None,
        collateral: Collateral,
        anchors: TrustAnchors,
        reference: ReferenceValues,
        now: int,
        profile: Profile,
    ) -> DeviceResult:
        """See `attestation.scheme.Scheme.verify`."""
        if anchors.nvswitch is None or reference.nvswitch is None:
            raise TrustAnchorError("NVSwitch evidence, but no NVSwitch roots or no NVSwitch reference values")
        return nvswitch.verify(
            evidence,
            anchors=anchors.nvswitch,
            reference=reference.nvswitch,
            expected_nonce=expected,
            now=now,
            collateral=collateral,
            profile=profile,
        )


SCHEMES: Final[Mapping[str, Scheme]] = MappingProxyType(
    {scheme.name: scheme for scheme in (SnpScheme(), SnpAzureHclScheme(), NvGpuScheme(), NvSwitchScheme())}
)
"""Every scheme that this verifier knows, by `Evidence.scheme`. A new one is added to this line."""

CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        check.code: check
        for check in (
            *node_checks.CHECKS,
            *reference_checks.CHECKS,
            *snp_checks.CHECKS,
            *snp_azure_checks.OWN,
            *nvgpu_checks.CHECKS,
            *nvswitch_checks.CHECKS,
        )
    }
)
"""Every check that can appear in a result, by code."""
