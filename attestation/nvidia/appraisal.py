"""How an NVIDIA device's measurements and certificates are appraised with what came from elsewhere: RIMs and OCSP."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from attestation import ocsp
from attestation.findings import CheckLog
from attestation.nvidia.endorsements import BROM, DeviceAnchors
from attestation.rim.comparison import PINNED, Coverage, RimAppraisal, WantedRim, appraise
from attestation.types import Collateral
from attestation.x509 import CertificateChain


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralRules:
    """How old collateral may be.

    Attributes:
        rim_grace: seconds after its expiry for which a manifest's signer is still accepted.
        ocsp_max_age: seconds after its thisUpdate for which an OCSP response is used though it has expired; None holds
            every response to its own window.
    """

    rim_grace: int
    ocsp_max_age: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralAppraisal:
    """What collateral established.

    Attributes:
        rims: the manifests used, and how they compare.
        coverage: which measurement was compared with whose reference value.
        ages: age in seconds of each piece of collateral that was used, by name.
    """

    rims: RimAppraisal
    coverage: Coverage
    ages: Mapping[str, int]

    @property
    def simulated(self) -> bool:
        """Does a manifest that was used end in a simulator's root?"""
        return any(rim.simulated for rim in self.rims.applied.values())


def appraise_collateral(
    measurements: Mapping[int, bytes],
    *,
    pinned: Collection[int],
    wanted: Sequence[WantedRim],
    skipped: Collection[int],
    chain: CertificateChain,
    collateral: Collateral,
    rules: CollateralRules,
    anchors: DeviceAnchors,
    now: int,
    log: CheckLog,
) -> CollateralAppraisal:
    """Compare measurements with manifests, and judge the revocation of device and signers where responses are given.

    Args:
        measurements: by SPDM index.
        pinned: SPDM indices that the reference values pin, and the caller compares.
        wanted: manifests that the evidence calls for.
        skipped: manifest indices that are not compared because their unit is off.
        chain: the device's certificates. The leaf is made by the device at every boot, so that no authority can revoke
            it; every other certificate but the root is judged.
        collateral: manifests and OCSP responses.
        rules: their age.
        anchors: pinned roots.
        now: time of the appraisal, seconds since the epoch.
        log: receives the outcome of every rule.

    Raises:
        MalformedError: an OCSP response cannot be read.
    """
    rims = appraise(
        measurements,
        documents=collateral.rims,
        wanted=wanted,
        skipped=skipped,
        anchors=anchors.rims,
        grace=rules.rim_grace,
        now=now,
        log=log,
    )
    sources = dict(rims.compared)
    if pinned:
        sources[PINNED] = tuple(sorted(pinned))
    coverage = Coverage(total=tuple(sorted(measurements)), by_source=sources, skipped=rims.skipped)
    ages = {f"rim {rim.document.label}": now - rim.not_before for rim in rims.applied.values()}
    if collateral.ocsp:
        responses = anchors.ocsp.parse(collateral.ocsp)
        ocsp_rules = ocsp.OcspRules(max_age=rules.ocsp_max_age, nonce=collateral.ocsp_nonce)
        judged = [(chain, BROM), *((rim.chain, 0) for rim in rims.applied.values())]
        # Several manifests have authorities in common; each certificate is judged once.
        seen: set[bytes] = set()
        for each, first in judged:
            positions = [position for position in range(first, len(each.der) - 1) if each.der[position] not in seen]
            seen.update(each.der)
            ages |= ocsp.check_revocation(
                each, positions=positions, responses=responses, rules=ocsp_rules, cache=anchors.ocsp, now=now, log=log
            )
    return CollateralAppraisal(rims=rims, coverage=coverage, ages=ages)
