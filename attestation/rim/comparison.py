"""A device's measurements against manifests: which manifests are its own, what they say, and what nobody appraised.

A manifest's index i is SPDM index i + 1. One set of manifests may serve devices of several kinds: those for another
chip are passed over with an informing finding. But where some manifest is for this chip and none for the version that
it runs, that fails: a version nobody named must not pass for want of a manifest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from attestation.findings import CheckLog
from attestation.rim import checks
from attestation.rim.document import RimKind, RimMeasurement
from attestation.rim.verify import RimAnchors, VerifiedRim, verify_rim
from attestation.types import Json

PINNED: Final = "pinned"
"""Source of the reference values that an operator pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRim:
    """A manifest that a device's evidence calls for.

    Attributes:
        kind: driver or firmware.
        name: what the device calls it: ``driver``, ``vbios``, ``bios``.
        identifier: NVIDIA's identifier of it, derived from the evidence; None where the evidence states too little.
        product: the chip that the certificates name.
        version: the version that the evidence states; None where it states none.
    """

    kind: RimKind
    name: str
    identifier: str | None
    product: str
    version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Which measurements were compared with what: SPDM indices by source, in ascending order.

    Attributes:
        total: indices of the evidence.
        by_source: indices by who gave the reference value: ``driver_rim``, ``vbios_rim``, `PINNED`.
        skipped: indices that a manifest has and that are not compared because their unit is off.
    """

    total: tuple[int, ...]
    by_source: Mapping[str, tuple[int, ...]]
    skipped: tuple[int, ...]

    @property
    def appraised(self) -> tuple[int, ...]:
        """Indices that somebody gave a reference value for."""
        present = set(self.total)
        return tuple(sorted({index for indices in self.by_source.values() for index in indices} & present))

    @property
    def not_appraised(self) -> tuple[int, ...]:
        """Indices that are signed by the device and compared with nothing."""
        return tuple(sorted(set(self.total) - set(self.appraised)))

    def to_json(self) -> dict[str, Json]:
        """As in claims."""
        return {
            **{source: list(indices) for source, indices in sorted(self.by_source.items())},
            "skipped": list(self.skipped),
            "not_appraised": list(self.not_appraised),
        }

    def __str__(self) -> str:
        """As in findings: ``33 of 64; not 15 to 21, 42 to 64``."""
        text = f"{len(self.appraised)} of {len(self.total)}"
        return f"{text}; not {ranges(self.not_appraised)}" if self.by_source and self.not_appraised else text


@dataclass(frozen=True, slots=True, kw_only=True)
class RimAppraisal:
    """What manifests established about a device's measurements.

    Attributes:
        applied: the manifest used for each name that `WantedRim` gives.
        compared: SPDM indices compared, by ``<name>_rim``.
        skipped: SPDM indices not compared because their unit is off.
    """

    applied: Mapping[str, VerifiedRim]
    compared: Mapping[str, tuple[int, ...]]
    skipped: tuple[int, ...]

    def claims(self) -> dict[str, Json]:
        """The manifests used, by name, as in claims."""
        return {
            name: {
                "tag_id": rim.document.tag_id,
                "product": rim.document.product,
                "version": rim.document.version,
                "active": len(rim.document.active),
                "signer_valid_from": rim.not_before,
                "signer_valid_until": rim.not_after,
                "simulated": rim.simulated,
            }
            for name, rim in sorted(self.applied.items())
        }


def appraise(
    measurements: Mapping[int, bytes],
    *,
    documents: Sequence[bytes],
    wanted: Sequence[WantedRim],
    skipped: Collection[int],
    anchors: RimAnchors,
    now: int,
    log: CheckLog,
) -> RimAppraisal:
    """Verify every given manifest and compare `measurements` with those that are the device's own.

    Whether the signers of the manifests that are applied are still valid is for the caller to ask (`check_signer`): it
    depends on the time, and nothing here does.

    Args:
        measurements: the device's measurements by SPDM index.
        documents: the given manifests; order does not matter.
        wanted: the manifests that the evidence calls for.
        skipped: manifest indices that are not compared because their unit is off.
        anchors: pinned roots of manifests.
        now: time of the appraisal, seconds since the epoch; nothing is decided by it here.
        log: receives the outcome of every rule.
    """
    verified = [verify_rim(data, anchors=anchors, now=now, log=log) for data in sorted(set(documents))]
    rims = [rim for rim in verified if rim is not None]
    products = {each.product for each in wanted}
    kinds = {each.kind for each in wanted}
    strangers = [
        rim.document.label
        for rim in rims
        if rim.document.kind not in kinds or not any(rim.document.is_for(product) for product in products)
    ]
    if rims:
        log.require(
            checks.OTHER_DEVICE,
            ok=not strangers,
            expected="manifests for " + ", ".join(sorted(products)),
            actual=", ".join(sorted(strangers)) or "every one is",
        )
    applied: dict[str, VerifiedRim] = {}
    for each in wanted:
        rim = _choose(each, rims, measurements, skipped, log)
        if rim is not None:
            applied[each.name] = rim
    return _compare(measurements, applied, skipped, log)


def ranges(indices: Sequence[int]) -> str:
    """Ascending `indices` as a person reads them: ``1, 15 to 21``."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][-1] == index - 1:
            runs[-1][1:] = [index]
        else:
            runs.append([index])
    return ", ".join(" to ".join(map(str, run)) for run in runs) or "none"


def _choose(
    wanted: WantedRim,
    rims: Sequence[VerifiedRim],
    measurements: Mapping[int, bytes],
    skipped: Collection[int],
    log: CheckLog,
) -> VerifiedRim | None:
    """The manifest for `wanted`; None where none of this kind is given, or none for this version, which is a finding.

    A VBIOS version may have one manifest for each board, and manifests do not name boards. All are the vendor's word
    for this chip and version, so the one that the device meets is taken.
    """
    candidates = [rim for rim in rims if rim.document.kind is wanted.kind and rim.document.is_for(wanted.product)]
    if not candidates:
        return None
    fitting = [rim for rim in candidates if wanted.version is not None and rim.document.has_version(wanted.version)]
    log.require(
        checks.VERSION,
        ok=bool(fitting),
        expected=wanted.identifier or f"{wanted.product} {wanted.version or 'of a version that the evidence states'}",
        actual=", ".join(sorted({rim.document.label for rim in fitting or candidates})),
        where=wanted.name,
    )
    met = [rim for rim in fitting if not _differing(rim, measurements, skipped)]
    return next(iter(met or fitting), None)


def _differing(rim: VerifiedRim, measurements: Mapping[int, bytes], skipped: Collection[int]) -> list[int]:
    """Manifest indices whose measurement is none of the reference values, or is missing."""
    return [
        index
        for index, each in rim.document.active.items()
        if index not in skipped and measurements.get(index + 1) not in each.digests
    ]


def _compare(
    measurements: Mapping[int, bytes], applied: Mapping[str, VerifiedRim], skipped: Collection[int], log: CheckLog
) -> RimAppraisal:
    """Compare with every applied manifest at once."""
    sources: dict[int, list[tuple[str, RimMeasurement]]] = {}
    for name, rim in applied.items():
        for index, each in rim.document.active.items():
            sources.setdefault(index, []).append((name, each))
    conflicting = sorted(index for index, names in sources.items() if len(names) > 1)
    if applied:
        log.require(
            checks.CONFLICT,
            ok=not conflicting,
            expected="each index active in one manifest",
            actual=f"in several: {ranges(conflicting)}" if conflicting else "each is",
        )
    compared: dict[str, list[int]] = {f"{name}_rim": [] for name in applied}
    mismatched = False
    for index, stated in sorted(sources.items()):
        for name, each in stated:
            if index in skipped:
                continue
            compared[f"{name}_rim"].append(index + 1)
            actual = measurements.get(index + 1)
            if actual not in each.digests:
                mismatched = True
                log.require(
                    checks.MEASUREMENT,
                    ok=False,
                    expected="one of " + ", ".join(digest.hex() for digest in each.digests),
                    actual="absent" if actual is None else actual.hex(),
                    where=f"[{index + 1}] ({each.name} of the {name} RIM)",
                    reference=f"RIM {applied[name].document.tag_id}",
                )
    if applied and not mismatched:
        total = sum(map(len, compared.values()))
        log.require(checks.MEASUREMENT, ok=True, expected="", actual=f"{total} as the manifests say")
    return RimAppraisal(
        applied=applied,
        compared={source: tuple(indices) for source, indices in compared.items()},
        skipped=tuple(sorted(index + 1 for index in sources.keys() & set(skipped))),
    )
