"""Measurements of an NVIDIA device against manifests and pinned values, and its revocation status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attestation import ocsp
from attestation.findings import CheckLog
from attestation.nvidia.checks import DeviceChecks
from attestation.nvidia.endorsements import BROM, DeviceAnchors
from attestation.nvidia.statement import DeviceReference, MeasurementAppraisal, Statement
from attestation.rim.comparison import PINNED, Coverage, appraise
from attestation.rim.verify import VerifiedRim, check_signer
from attestation.spdm.abi import OPERATION_ALL_MEASUREMENTS, RAW_BIT_STREAM, MeasurementBlock, SignedMeasurements
from attestation.types import Collateral
from attestation.x509 import CertificateChain

DIGEST_SIZE: Final = 48


def appraise_measurements(
    signed: SignedMeasurements,
    statement: Statement,
    *,
    checks: DeviceChecks,
    reference: DeviceReference,
    collateral: Collateral,
    anchors: DeviceAnchors,
    now: int,
    log: CheckLog,
    keep: bool,
) -> MeasurementAppraisal:
    """Compare a device's measurements with the manifests that are its own, and with what the operator pinned.

    The time is not looked at, so that the outcome is remembered for these measurements; whether the signers of the
    manifests are still valid is for `check_collateral` to say.

    Args:
        signed: request and response.
        statement: what the device states beside them.
        checks: the rules of this kind of device.
        reference: pinned measurements.
        collateral: manifests.
        anchors: pinned roots of manifests, and what was appraised before.
        now: time of the appraisal, seconds since the epoch; nothing is decided by it here.
        log: receives the outcome of every rule.
        keep: remember the outcome; False unless the evidence is authentic.
    """
    request, response = signed.request, signed.response

    def judge(own: CheckLog) -> MeasurementAppraisal:
        blocks = response.blocks
        _check_digests(request.operation, blocks, checks, own)
        measurements = {number: value for number, _, value in blocks}
        rims = appraise(
            measurements,
            documents=collateral.rims,
            wanted=statement.wanted,
            skipped=statement.skipped,
            anchors=anchors.rims,
            now=now,
            log=own,
        )
        sources = dict(rims.compared)
        if reference.measurements:
            sources[PINNED] = tuple(sorted(reference.measurements))
        coverage = Coverage(total=tuple(sorted(measurements)), by_source=sources, skipped=rims.skipped)
        _check_pinned(measurements, reference, coverage, checks, own)
        return MeasurementAppraisal(
            rims=rims,
            coverage=coverage,
            claims={
                "measurement_blocks": response.block_count,
                "measurements": {str(index): value.hex() for index, value in measurements.items()},
                "reference_manifests": rims.claims(),
                "measurement_coverage": coverage.to_json(),
            },
        )

    return anchors.appraised.judge(
        (
            request.operation,
            response.block_count,
            response.record,
            statement.wanted,
            statement.skipped,
            reference.identity,
            collateral.rims,
            anchors.rims,
        ),
        judge,
        log=log,
        keep=keep,
    )


def check_collateral(
    chain: CertificateChain,
    applied: Mapping[str, VerifiedRim],
    *,
    checks: DeviceChecks,
    reference: DeviceReference,
    collateral: Collateral,
    anchors: DeviceAnchors,
    now: int,
    log: CheckLog,
) -> Mapping[str, int]:
    """Is the collateral that was used current, and is no certificate revoked where responses are given?

    Args:
        chain: the device's certificates. The leaf is made by the device at every boot, so that no authority can revoke
            it; every other certificate but the root is judged.
        applied: manifests that were used, by name.
        checks: the rules of this kind of device.
        reference: how old collateral may be.
        collateral: OCSP responses.
        anchors: OCSP responses that were read before.
        now: time of the appraisal, seconds since the epoch.
        log: receives the outcome of every rule.

    Returns:
        Age in seconds of each piece of collateral that was used, by name.

    Raises:
        MalformedError: an OCSP response cannot be read.
    """
    ages: dict[str, int] = {}
    for rim in applied.values():
        check_signer(rim, now=now, grace=reference.rim_grace, log=log)
        if rim.not_before <= now:
            ages[f"rim {rim.document.label}"] = now - rim.not_before
    if collateral.ocsp:
        responses = anchors.ocsp.parse(collateral.ocsp)
        rules = ocsp.OcspRules(max_age=reference.ocsp_max_age, nonce=collateral.ocsp_nonce)
        # Several manifests have authorities in common; each certificate is judged once.
        seen: set[bytes] = set()
        for each, first in ((chain, BROM), *((rim.chain, 0) for rim in applied.values())):
            positions = [position for position in range(first, len(each.der) - 1) if each.der[position] not in seen]
            seen.update(each.der)
            ages |= ocsp.check_revocation(
                each, positions=positions, responses=responses, rules=rules, cache=anchors.ocsp, now=now, log=log
            )
    log.require(
        checks.revocation_not_checked,
        ok=bool(collateral.ocsp),
        expected="OCSP responses",
        actual=f"{len(collateral.ocsp)} are given" if collateral.ocsp else "none is given",
    )
    return ages


def one_of(values: frozenset[str]) -> str:
    """`values` as a person reads them."""
    return "one of " + ", ".join(sorted(values)) if values else "none is allowed"


def _check_digests(operation: int, blocks: tuple[MeasurementBlock, ...], checks: DeviceChecks, log: CheckLog) -> None:
    """All measurements were asked for, at least one came, and each is a SHA-384 digest."""
    odd = [number for number, kind, value in blocks if len(value) != DIGEST_SIZE or kind & RAW_BIT_STREAM]
    log.require(
        checks.operation,
        ok=operation == OPERATION_ALL_MEASUREMENTS and bool(blocks) and not odd,
        expected=f"operation {OPERATION_ALL_MEASUREMENTS:#04x}, digests of {DIGEST_SIZE} bytes",
        actual=f"operation {operation:#04x}, {len(blocks)} blocks, other than digests: {odd or 'none'}",
    )


def _check_pinned(
    measurements: Mapping[int, bytes],
    reference: DeviceReference,
    coverage: Coverage,
    checks: DeviceChecks,
    log: CheckLog,
) -> None:
    """Pinned measurements, and how many are compared with nothing at all."""
    pinned = reference.measurements
    wrong = [index for index, accepted in pinned.items() if measurements.get(index) not in accepted]
    for index in wrong:
        value = measurements.get(index)
        log.require(
            checks.measurement,
            ok=False,
            expected=one_of(frozenset(digest.hex() for digest in pinned[index])),
            actual="absent" if value is None else value.hex(),
            where=f"[{index}]",
            reference=reference.origin,
        )
    if pinned and not wrong:
        met = f"{len(pinned)} as pinned"
        log.require(checks.measurement, ok=True, expected=met, actual=met)
    log.require(
        checks.measurements_not_appraised,
        ok=not coverage.not_appraised,
        expected=f"{len(measurements)} of {len(measurements)} compared with reference values",
        actual=str(coverage),
    )
