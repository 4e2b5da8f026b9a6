"""The rules that every scheme's evidence is held to after its own: who may pass, and published advisories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from attestation.findings import Check, Severity

_RATS: Final = "RFC 9334, section 8.3 (reference values)"
_LISTS: Final = "docs/reference-values.md, device lists"
_TABLE: Final = "docs/reference-values.md, advisories"

REFERENCE_WINDOW = Check(
    "REFERENCE_VALUES_WINDOW",
    "the reference values are in force at the appraisal's time",
    "about.issued and about.expires",
    _RATS,
    "Issue reference values that are in force now, with a higher serial, and sign them.",
)
IDENTITY_DENIED = Check(
    "IDENTITY_DENIED",
    "the device is not on the operator's deny list",
    "identity",
    _LISTS,
    "Take the device out of service; whoever denied it has stated the reason.",
)
IDENTITY_HIDDEN = Check(
    "IDENTITY_HIDDEN",
    "the device names itself where some devices are denied",
    "identity",
    _LISTS,
    "Turn MASK_CHIP_ID off on the host: a device that hides its identity may be a denied one.",
)
IDENTITY_NOT_ALLOWED = Check(
    "IDENTITY_NOT_ALLOWED",
    "the device proves an identity of the operator's allow list",
    "identity",
    _LISTS,
    "Add the device to devices.allowed after having inspected it, or keep it out.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisoryChecks:
    """The rules about one vendor's advisories.

    Attributes:
        unmet: an advisory asks for what the evidence does not show.
        not_enforced: the same of an advisory that its table does not enforce; it only informs.
        distrusted: an advisory distrusts the product altogether.
        stale: the table is past its next update.
    """

    unmet: Check
    not_enforced: Check
    distrusted: Check
    stale: Check

    @property
    def all(self) -> tuple[Check, ...]:
        """Each of them."""
        return (self.unmet, self.not_enforced, self.distrusted, self.stale)


def _advisory_checks(prefix: str, components: str) -> AdvisoryChecks:
    return AdvisoryChecks(
        unmet=Check(
            f"{prefix}_ADVISORY_UNMET",
            "the platform has what a published advisory asks for",
            "advisory",
            _TABLE,
            f"Install the {components} or change the settings that the advisory names, then attest again.",
        ),
        not_enforced=Check(
            f"{prefix}_ADVISORY_NOT_ENFORCED",
            "the platform has what an advisory asks for that the table does not enforce",
            "advisory",
            _TABLE,
            "Read the vendor's bulletin; to refuse such platforms set enforced = true in a table of your own.",
            Severity.INFORM,
        ),
        distrusted=Check(
            f"{prefix}_PRODUCT_DISTRUSTED",
            "no advisory distrusts the product, or this chip is trusted in spite of it",
            "product",
            _TABLE,
            "Replace the hardware, or name the chip in devices.trusted_chips if you can vouch for its custody.",
        ),
        stale=Check(
            f"{prefix}_ADVISORIES_STALE",
            "the table of advisories is one of today: issued, and not past its next update",
            "advisories",
            _TABLE,
            "Get the issuer's current table, or declare advisories_grace in the reference values.",
        ),
    )


SNP: Final = _advisory_checks("SNP", "firmware or microcode")
NVIDIA: Final = _advisory_checks("NVIDIA", "driver or firmware")

SNP_NONE = Check(
    "SNP_ADVISORIES_NONE",
    "a table of advisories was given",
    "advisories",
    _TABLE,
    "Name one (attestation.advisories, --advisories): without it the minima of the reference values hold alone.",
    Severity.INFORM,
)

CHECKS: Final[tuple[Check, ...]] = (
    REFERENCE_WINDOW,
    IDENTITY_DENIED,
    IDENTITY_HIDDEN,
    IDENTITY_NOT_ALLOWED,
    *SNP.all,
    SNP_NONE,
    *NVIDIA.all,
)
"""All of them, for the registry."""
