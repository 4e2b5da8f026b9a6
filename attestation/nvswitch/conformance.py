"""How published NVSwitch evidence is judged: the one conformance profile of this scheme, never production's.

The rules are those of `attestation.nvgpu.conformance`: chain, signature, nonce and firmware identity decide, a manifest
that is given must verify and match, and what the strict profile holds against evidence beyond that informs.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from attestation.findings import Severity
from attestation.nvidia.conformance import DEVIATIONS
from attestation.nvswitch import checks
from attestation.nvswitch.verify import NvSwitchReference
from attestation.profile import Deviation, Profile
from attestation.rim.conformance import manifest_fields
from attestation.types import DeviceResult, Json

PROFILE: Final = Profile(
    "nvswitch-conformance",
    MappingProxyType(
        dict(DEVIATIONS)
        | {
            check.code: Deviation(Severity.INFORM, reason)
            for check, reason in (
                (checks.LEAF_FWID, "the vectors judge the firmware identity only where the leaf carries one"),
                (checks.PRODUCT, "the vectors name no set of chips that is allowed"),
                (checks.IDENTITY, "the meaning of the BROM serial number is observed, not documented"),
                (checks.PDI, "that the signed PDI is the certified one is observed, not documented"),
                (checks.PRODUCT_NAMES, "the agreement of names is observed, not documented"),
                (checks.GPUS, "the vectors judge no topology"),
                (checks.FIRMWARE_STATE, "the vectors judge no firmware state"),
            )
        }
    ),
)
"""Which findings do something else than under the strict profile, and why."""

REFERENCE: Final = NvSwitchReference(products=frozenset({"LS_10"}), bios=None, measurements=MappingProxyType({}))
"""The vectors ask for no chip, version or measurement."""

_FIELDS: Final = (
    "product",
    "response_nonce",
    "spdm_version",
    "measurement_blocks",
    "trailing_bytes_after_signature",
    "opaque_tags",
    "fwid_in_leaf",
    "fwid_len",
    "bios_version",
)


def conformance_fields(result: DeviceResult) -> dict[str, Json]:
    """What `result` says under the names that a manifest's ``expected`` uses."""
    return {name: result.claims[name] for name in _FIELDS} | manifest_fields(result)
