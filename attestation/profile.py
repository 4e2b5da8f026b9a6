"""Profiles: what each finding does to the verdict.

`STRICT` is production's default: every check does what its own severity says. A conformance profile is laxer where
published samples force it, states each exception with its reason, and is used by `attestation.conformance` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from attestation.findings import Finding, Severity


@dataclass(frozen=True, slots=True)
class Deviation:
    """One deviation from the strict severity, and why it is made."""

    severity: Severity
    reason: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Maps finding codes to severities; a code that is not named keeps its check's own severity.

    Attributes:
        name: as it stands in results and in ``--json`` output.
        deviations: deviation by finding code.
    """

    name: str
    deviations: Mapping[str, Deviation] = field(default_factory=lambda: MappingProxyType({}))

    def apply(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """`findings` in sorted order, each with this profile's severity."""
        deviations = self.deviations
        if not deviations:
            return tuple(sorted(findings))
        return tuple(
            sorted(
                replace(finding, severity=deviations[finding.code].severity) if finding.code in deviations else finding
                for finding in findings
            )
        )


STRICT: Final = Profile("strict")
"""Production's default."""
