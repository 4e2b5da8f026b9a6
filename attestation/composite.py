"""One node: a CPU and its devices, verified each and then joined.

What is proven is freshness and binding: the CPU TEE vouches, through ``REPORT_DATA = SHA-512(runtime data)``, for the
node's keys and for this very evidence of every device, and every device answered the nonce of this session. It is not
co-location: that the devices sit in one machine follows only from their enrolment as one node, and of GPUs and switches
in protected-PCIe mode from the topology that they sign (`attestation.fabric`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation import node_checks
from attestation.errors import MalformedError
from attestation.fabric import check_fabric
from attestation.findings import THIS_SESSION, CheckLog, Finding, Passed, Severity
from attestation.profile import STRICT, Profile
from attestation.registry import SCHEMES
from attestation.scheme import ReferenceValues, Scheme, TrustAnchors
from attestation.types import Collateral, DeviceResult, Evidence
from attestation.verifier import scheme_of, verify_evidence
from keystead.binding import SHA256_SIZE, BindingError, RuntimeData, device_evidence_digest

__all__ = [
    "BINDING_KEY",
    "BINDING_KEY_AND_DEVICES",
    "BINDING_NONE",
    "MAX_DEVICES",
    "NodeEvidence",
    "NodeResult",
    "ReferenceValues",
    "TrustAnchors",
    "verify_node",
]

BINDING_NONE: Final = "none"
"""Nothing ties the evidence to this session's keys."""

BINDING_KEY: Final = "key"
"""The CPU TEE vouches for the session's keys; there is no device, or some device is not bound."""

BINDING_KEY_AND_DEVICES: Final = "key-and-devices"
"""The CPU TEE vouches for the session's keys and for fresh, verified evidence of every device."""

MAX_DEVICES: Final = 64
CPU_PREFIX: Final = "cpu"
"""Slots of evidence that can vouch for a node; every other device is vouched for."""

RUNTIME_DATA: Final = "runtime data, which the CPU vouches for"
"""Reference of what is expected of devices."""

_SLOT: Final = re.compile(r"[a-z]{1,16}(0|[1-9][0-9]?)\Z")


@dataclass(frozen=True, slots=True)
class NodeEvidence:
    """The evidence of one node.

    Attributes:
        cpu: of the CPU TEE in which the node's agent runs.
        devices: of GPUs and switches, in the order of `RuntimeData.devices`.
    """

    cpu: Evidence
    devices: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What verification of a node's evidence established.

    Attributes:
        devices: one result for each device, the CPU's first.
        findings: violated rules about the node as a whole.
        passed: such rules that held.
        binding_level: `BINDING_NONE`, `BINDING_KEY` or `BINDING_KEY_AND_DEVICES`.
    """

    devices: tuple[DeviceResult, ...]
    findings: tuple[Finding, ...]
    passed: tuple[Passed, ...]
    binding_level: str

    @property
    def ok(self) -> bool:
        """True where no finding fails, neither the node's nor any device's."""
        return all(device.ok for device in self.devices) and not any(
            finding.severity is Severity.FAIL for finding in self.findings
        )

    @property
    def simulated(self) -> bool:
        """Does some device's chain end in a simulator's root?"""
        return any(device.simulated for device in self.devices)


def verify_node(
    evidence: NodeEvidence,
    *,
    runtime_data: RuntimeData | bytes,
    device_nonce: bytes,
    anchors: TrustAnchors,
    reference: ReferenceValues,
    collateral: Collateral,
    now: int,
    profile: Profile = STRICT,
    schemes: Mapping[str, Scheme] = SCHEMES,
) -> NodeResult:
    """Verify a node's evidence and how it hangs together.

    Args:
        evidence: of the CPU and the devices.
        runtime_data: what the CPU evidence must vouch for, or its canonical encoding.
        device_nonce: the 32 bytes that every device must have signed (`keystead.binding.device_nonce`).
        anchors: pinned roots.
        reference: reference values.
        collateral: endorsements and revocation data from elsewhere.
        now: the appraisal's time, seconds since the epoch.
        profile: what each finding does to the verdict.
        schemes: which schemes may be used.

    Raises:
        MalformedError: evidence or runtime data cannot be decoded, there are too many devices, or the node's own
            evidence is not the CPU's.
        UnsupportedError: an unknown scheme or version.
        TrustAnchorError: no roots or no reference values are configured for a scheme.
    """
    if len(evidence.devices) > MAX_DEVICES:
        raise MalformedError("node evidence", f"{len(evidence.devices)} devices, at most {MAX_DEVICES} are allowed")
    for each, is_cpu in ((evidence.cpu, True), *((device, False) for device in evidence.devices)):
        if (scheme_of(each, schemes).slot_prefix == CPU_PREFIX) is not is_cpu:
            place = "as the node's own" if is_cpu else "among the devices"
            raise MalformedError("node evidence", f"scheme {each.scheme} {place}: one CPU vouches for the devices")
    if len(device_nonce) != SHA256_SIZE:
        raise MalformedError("device nonce", f"{len(device_nonce)} bytes, expected {SHA256_SIZE}")
    try:
        runtime = runtime_data if isinstance(runtime_data, RuntimeData) else RuntimeData.parse(runtime_data)
        encoded = runtime.to_bytes()
    except BindingError as error:
        raise MalformedError("runtime data", str(error)) from None
    report_data = hashlib.sha512(encoded).digest()
    results = tuple(
        verify_evidence(
            each,
            expected=expected,
            anchors=anchors,
            reference=reference,
            collateral=collateral,
            now=now,
            profile=profile,
            schemes=schemes,
        )
        for each, expected in (
            (evidence.cpu, report_data),
            *((device, device_nonce) for device in evidence.devices),
        )
    )
    log = CheckLog()
    key_bound = _check_runtime_data(results[0], report_data=report_data, log=log)
    devices_bound = _check_devices(evidence, runtime, log)
    _check_slots(evidence, schemes, log)
    _check_identities(results, log)
    check_fabric(results, topology=reference.fabric, log=log)
    level = BINDING_NONE
    if key_bound:
        fresh = bool(evidence.devices) and devices_bound and all(result.ok for result in results[1:])
        level = BINDING_KEY_AND_DEVICES if fresh else BINDING_KEY
    return NodeResult(
        devices=results, findings=profile.apply(log.findings), passed=tuple(log.passed), binding_level=level
    )


def _check_runtime_data(cpu: DeviceResult, *, report_data: bytes, log: CheckLog) -> bool:
    """Does authentic CPU evidence carry the hash of the runtime data?"""
    authentic, bound = cpu.claims.get("authentic") is True, cpu.bound_data
    return log.require(
        node_checks.RUNTIME_DATA,
        ok=authentic and bound == report_data,
        expected=f"authentic, {report_data.hex()}",
        actual=f"{'authentic' if authentic else 'not authentic'}, {bound.hex() or 'nothing'}",
        reference=THIS_SESSION,
    )


def _check_devices(evidence: NodeEvidence, runtime: RuntimeData, log: CheckLog) -> bool:
    """Do the runtime data vouch for exactly this evidence of exactly these devices, in this order?"""
    ok = log.require(
        node_checks.DEVICE_COUNT,
        ok=len(evidence.devices) == len(runtime.devices),
        expected=f"{len(runtime.devices)} devices",
        actual=f"{len(evidence.devices)} devices",
        reference=RUNTIME_DATA,
    )
    for device, vouched in zip(evidence.devices, runtime.devices, strict=False):
        digest = device_evidence_digest(
            slot=device.slot, scheme=device.scheme, data=device.data, certificates=device.certificates
        )
        ok &= log.require(
            node_checks.DEVICE_DIGEST,
            ok=digest == vouched,
            expected=vouched.hex(),
            actual=digest.hex(),
            where=device.slot,
            reference=RUNTIME_DATA,
        )
    return ok


def _check_slots(evidence: NodeEvidence, schemes: Mapping[str, Scheme], log: CheckLog) -> None:
    seen: set[str] = set()
    for each in (evidence.cpu, *evidence.devices):
        prefix = scheme_of(each, schemes).slot_prefix
        well_formed = bool(_SLOT.match(each.slot)) and each.slot.rstrip("0123456789") == prefix
        log.require(
            node_checks.SLOT,
            ok=well_formed and each.slot not in seen,
            expected=f"{prefix}0 to {prefix}99, once",
            actual=f"{each.slot!r:.40}{', again' if each.slot in seen else ''}",
        )
        seen.add(each.slot)


def _check_identities(results: tuple[DeviceResult, ...], log: CheckLog) -> None:
    seen: dict[str, str] = {}
    for result in results:
        if result.identity is not None:
            identity = str(result.identity)
            log.require(
                node_checks.IDENTITY_UNIQUE,
                ok=identity not in seen,
                expected="an identity of its own",
                actual=identity if identity not in seen else f"{identity}, as {seen[identity]}",
                where=result.slot,
            )
            seen.setdefault(identity, result.slot)
