"""How published NVIDIA GPU evidence is judged: the one conformance profile of this scheme, never production's.

The rules of the published vectors are: chain, signature, nonce and firmware identity (where the leaf carries one)
decide, a manifest that is given must verify and match, a response outside its window informs, and one byte after the
signature informs. Everything that the strict profile holds against evidence beyond that informs here, each for the
reason that stands beside it; one rule is stricter here.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from attestation.findings import Severity
from attestation.nvgpu import checks
from attestation.nvgpu.abi import Mode
from attestation.nvgpu.verify import NvGpuReference
from attestation.nvidia.conformance import DEVIATIONS
from attestation.profile import Deviation, Profile
from attestation.rim.conformance import manifest_fields
from attestation.types import DeviceResult, Json

PROFILE: Final = Profile(
    "nvidia-conformance",
    MappingProxyType(
        dict(DEVIATIONS)
        | {
            check.code: Deviation(Severity.INFORM, reason)
            for check, reason in (
                (checks.FWID_PRESENT, "drivers before 550 do not report the FWID, and their evidence is published"),
                (checks.PRODUCT, "the vectors name no set of chips that is allowed"),
                (checks.IDENTITY, "the meaning of the BROM serial number is observed, not documented"),
                (checks.PRODUCT_NAMES, "the agreement of names is observed, not documented"),
                (checks.MODE_KNOWN, "the vectors judge no mode"),
                (checks.SWITCHES, "the vectors judge no topology"),
                (checks.FIRMWARE_STATE, "the vectors judge no firmware state"),
            )
        }
    ),
)
"""Which findings do something else than under the strict profile, and why."""

REFERENCE: Final = NvGpuReference(
    products=frozenset({"GH100", "GB100"}),
    modes=frozenset(Mode),
    drivers=None,
    vbios=None,
    measurements=MappingProxyType({}),
)
"""The vectors ask for no chip, mode, version or measurement."""

_FIELDS: Final = (
    "product",
    "response_nonce",
    "spdm_version",
    "measurement_blocks",
    "trailing_bytes_after_signature",
    "opaque_tags",
    "fwid_in_leaf",
    "fwid_len",
    "driver_version",
    "vbios_version",
)


def conformance_fields(result: DeviceResult) -> dict[str, Json]:
    """What `result` says under the names that a manifest's ``expected`` uses.

    A manifest's ``nonce`` is missing here on purpose: it is the nonce that the verifier expects, an input.
    """
    return {name: result.claims[name] for name in _FIELDS} | manifest_fields(result)
