"""What an NVIDIA device states, and what was made of it: the part of a verdict that is the same in every session.

A device states its versions, its mode and its measurements anew for each nonce, in the same bytes until its software
changes; and devices that run the same software state the same, but for their keys and names. What depends on these
bytes, on the reference values and on manifests alone is therefore judged once and remembered
(`attestation.lru.JudgementCache`): signature, chain, nonce, identity, and whatever depends on the time never are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from attestation.rim.comparison import Coverage, RimAppraisal, WantedRim
from attestation.types import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReference:
    """Reference values that every kind of device has. What is not to be compared is said in writing.

    Attributes:
        products: chips that are accepted, for example ``GH100``.
        measurements: accepted digests by measurement index, beside those of manifests; what neither lists is reported
            as not appraised.
        rim_grace: seconds for which a manifest is still accepted after its signer's certificate expired.
        ocsp_max_age: seconds after thisUpdate for which an OCSP response is still accepted though it has expired; None
            holds every response to its own window.
        origin: where these values come from, for findings.
        identity: stands for these very values in the keys of caches: no other reference values ever have it.
    """

    products: frozenset[str]
    measurements: Mapping[int, frozenset[bytes]]
    rim_grace: int = 0
    ocsp_max_age: int | None = None
    origin: str = "reference values"
    identity: object = field(init=False, repr=False, compare=False, default_factory=object)

    def __post_init__(self) -> None:
        # A copy that nobody else has: what `identity` stands for must not change.
        object.__setattr__(self, "measurements", MappingProxyType(dict(self.measurements)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a device's opaque data state.

    Attributes:
        wanted: manifests that the evidence calls for.
        skipped: manifest indices that are not compared because their unit is off.
        pdi: the device's own, in lower-case hex; None where it is not stated.
        claims: what is stated, under stable names; not to be changed, because other results have it too.
    """

    wanted: tuple[WantedRim, ...]
    skipped: frozenset[int] = frozenset()
    pdi: str | None = None
    claims: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementAppraisal:
    """What became of a device's measurements.

    Attributes:
        rims: the manifests used, and how they compare.
        coverage: which measurement was compared with whose reference value.
        claims: the measurements and what they were compared with; not to be changed, because other results have it too.
    """

    rims: RimAppraisal
    coverage: Coverage
    claims: Mapping[str, Json]

    @property
    def simulated(self) -> bool:
        """Does a manifest that was used end in a simulator's root?"""
        return any(rim.simulated for rim in self.rims.applied.values())
