"""The rules of an Azure HCL report beyond those of the SEV-SNP report inside it."""

from __future__ import annotations

from typing import Final

from attestation.findings import Check, Severity
from attestation.snp import checks

_DESIGN: Final = "Microsoft, Azure Confidential VM guest attestation design detail (2025-02-06)"

HCL_RUNTIME_DATA = Check(
    "SNP_HCL_RUNTIME_DATA",
    "the HCL report carries this very report, and REPORT_DATA is the hash of its runtime data",
    "HCL report, REPORT_DATA",
    f"{_DESIGN}, attestation report",
    "Read the HCL report from the vTPM again, whole: the report and the runtime data belong together.",
)
HCL_USER_DATA = Check(
    "SNP_HCL_USER_DATA",
    "the guest gave the paravisor what this appraisal expects, before the report was asked for",
    "runtime data, user-data",
    f"{_DESIGN}, reserved TPM NV indices",
    "Write the 64 bytes of this request to NV index 0x01400002, then read 0x01400001: the report of the boot, "
    "or of another request, binds no session.",
)
HCL_USER_DATA_UNCHECKED = Check(
    "SNP_HCL_USER_DATA_UNCHECKED",
    "an expected user-data was given, so the report is fresh and bound to keys",
    "runtime data, user-data",
    f"{_DESIGN}, reserved TPM NV indices",
    "Say what user-data must be; without it the report may be anyone's and as old as the virtual machine's boot.",
    severity=Severity.INFORM,
)

OWN: Final[tuple[Check, ...]] = (HCL_RUNTIME_DATA, HCL_USER_DATA, HCL_USER_DATA_UNCHECKED)
"""Those that an SEV-SNP report by itself does not have."""

CHECKS: Final[tuple[Check, ...]] = (
    *(each for each in checks.CHECKS if each not in (checks.REPORT_DATA, checks.REPORT_DATA_UNCHECKED)),
    *OWN,
)
"""All of the scheme's: REPORT_DATA binds the runtime data here, and no session."""
