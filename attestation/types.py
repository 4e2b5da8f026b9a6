"""The words of RFC 9334 as types: Evidence, Endorsements, claims, and what verification returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from attestation.findings import Finding, Passed, Severity

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"
"""JSON without floats: claims must be byte-identical whenever they are computed again."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one device, with the certificates that the device or its host conveyed with it.

    Attributes:
        slot: the submodule's name in the Attestation Result: ``cpu0``, ``gpu0`` … ``gpu7``, ``nvswitch0`` ….
        scheme: which verifier reads it: ``snp``, ``nvgpu``, ….
        data: the evidence itself, exactly as the device made it.
        certificates: DER, leaf first. They are claims until a chain to a pinned root says otherwise.
    """

    slot: str
    scheme: str
    data: bytes
    certificates: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Collateral:
    """Endorsements, reference values and revocation data from elsewhere; empty fields mean "none was given".

    Attributes:
        crls: certificate revocation lists, DER.
        rims: reference integrity manifests, XML; one set may serve devices of several kinds and versions.
        ocsp: OCSP responses, DER, for certificates of devices and of signers of manifests.
        ocsp_nonce: sent with the requests that `ocsp` answers; None where this verifier did not ask.
    """

    crls: tuple[bytes, ...] = ()
    rims: tuple[bytes, ...] = ()
    ocsp: tuple[bytes, ...] = ()
    ocsp_nonce: bytes | None = None


@dataclass(frozen=True, slots=True)
class HardwareIdentity:
    """Who the hardware is, as its certified evidence says: what enrolment binds to a site.

    Attributes:
        kind: ``amd-chip-id`` (CHIP_ID, hex), ``nvidia-gpu`` (certified serial number, hex), ….
        value: lower-case hex.
    """

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """What verification of one device's evidence established.

    Attributes:
        slot, scheme: as in the evidence.
        claims: what the evidence says, by the specification's names in lower_snake; only believable where
            `authentic` holds.
        identity: the certified hardware identity; None where it is masked or not proven.
        findings: every violated rule, failing and informing.
        passed: every rule that held.
        simulated: the chain ends in a simulator's root, trusted by explicit configuration only.
        collateral_age: age in seconds of each piece of collateral used, by name; what dates from after the appraisal
            has none, and a finding.
        bound_data: the bytes of its maker's choice that authentic evidence of a CPU TEE vouches for, 64 for SEV-SNP:
            REPORT_DATA, or what a paravisor was given. Empty where nothing is vouched for, and for other devices.
        appraised_by: SHA-256 (hex) of each file of reference values and advisories that it was held against, by the
            file's name, serial and signers.
    """

    slot: str
    scheme: str
    claims: Mapping[str, Json]
    identity: HardwareIdentity | None
    findings: tuple[Finding, ...]
    passed: tuple[Passed, ...] = ()
    simulated: bool = False
    collateral_age: Mapping[str, int] = field(default_factory=dict)
    bound_data: bytes = b""
    appraised_by: Mapping[str, str] = field(default_factory=dict)

    def held_against(
        self, files: Mapping[str, str], *, findings: tuple[Finding, ...], passed: tuple[Passed, ...]
    ) -> DeviceResult:
        """The same device, with all findings and rules that held after it was held against `files` (`appraised_by`).

        What `dataclasses.replace` does, at a quarter of its cost: every device of every appraisal comes by here.
        """
        return DeviceResult(
            slot=self.slot,
            scheme=self.scheme,
            claims=self.claims,
            identity=self.identity,
            findings=findings,
            passed=passed,
            simulated=self.simulated,
            collateral_age=self.collateral_age,
            bound_data=self.bound_data,
            appraised_by=files,
        )

    @property
    def ok(self) -> bool:
        """True where no finding fails."""
        return not any(finding.severity is Severity.FAIL for finding in self.findings)
