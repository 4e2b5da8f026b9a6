"""What the conformance profiles of NVIDIA's devices have in common: how given manifests and responses are taken."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attestation import ocsp
from attestation.findings import Severity
from attestation.profile import Deviation
from attestation.rim import checks as rim_checks

DEVIATIONS: Final[Mapping[str, Deviation]] = MappingProxyType(
    {
        ocsp.WINDOW.code: Deviation(
            Severity.INFORM, "published responses live one day, and evidence is judged at another time"
        ),
        ocsp.PAST_STATUS.code: Deviation(
            Severity.INFORM, "revocation counts only where a response's window covers the time"
        ),
        rim_checks.OTHER_DEVICE.code: Deviation(
            Severity.FAIL, "a case gives manifests for its one device: each must be that device's"
        ),
    }
)
"""Findings that do something else than under the strict profile, for GPUs and switches alike, and why."""
