"""Every rule that SEV-SNP evidence is held to; `attestation.snp.verify` applies them in this order."""

from __future__ import annotations

from typing import Final

from attestation.findings import Check, Severity

_ABI: Final = "AMD 56860 (SEV-SNP Firmware ABI) rev. 1.58"
_KDS: Final = "AMD 57230 (VCEK Certificate and KDS Interface)"
_REPORT: Final = f"{_ABI}, section 7.3, ATTESTATION_REPORT"
_POLICY: Final = f"{_ABI}, section 4.3, guest policy"
_PLATFORM: Final = f"{_ABI}, section 7.3, PLATFORM_INFO"
_TCB: Final = f"{_ABI}, TCB_VERSION"

_REFETCH: Final = (
    "Get the VCEK or VLEK for this chip and TCB, with its chain, from AMD's key distribution service again."
)
_FIRMWARE: Final = "Install the platform firmware and microcode that the reference values ask for, then attest again."
_RELAUNCH: Final = "Launch the guest again with the policy that the reference values ask for."

VERSION = Check(
    "SNP_REPORT_VERSION",
    "the report's version is one that the reference values allow",
    "VERSION",
    _REPORT,
    "Update the SNP firmware: version 2 reports carry no CPUID and version 5 is the current one.",
)
SIGNING_KEY = Check(
    "SNP_SIGNING_KEY",
    "the report is signed, by a VCEK or a VLEK",
    "SIGNER_INFO.SIGNING_KEY",
    _REPORT,
    "Ask the firmware for a signed report: key selection 0 (VLEK, else VCEK), 1 (VCEK) or 2 (VLEK).",
)
CHAIN_SHAPE = Check(
    "SNP_CHAIN_SHAPE",
    "the evidence carries leaf, ASK or ASVK, and ARK, in this order",
    "certificates",
    f"{_KDS}, certificate chain",
    _REFETCH,
)
ROOT = Check(
    "SNP_ROOT_NOT_PINNED",
    "the chain ends in a pinned AMD root key",
    "ARK",
    f"{_KDS}, certificate chain",
    "Send AMD's own ARK for this product line, or configure the root that the evidence really ends in.",
)
CHAIN_SIGNATURE = Check(
    "SNP_CHAIN_SIGNATURE",
    "every certificate is signed by the next one",
    "signatureValue",
    f"{_KDS}, certificate chain",
    _REFETCH,
)
CHAIN_NAMES = Check(
    "SNP_CHAIN_NAMES",
    "names link the chain and are AMD's for this product line and kind of key",
    "subject and issuer",
    f"{_KDS}, certificate chain",
    _REFETCH,
)
CHAIN_CA = Check(
    "SNP_CHAIN_CA",
    "ASK and ARK may sign certificates and the leaf may not",
    "basicConstraints and keyUsage",
    "RFC 5280, section 4.2.1",
    _REFETCH,
)
CHAIN_VALIDITY = Check(
    "SNP_CHAIN_VALIDITY",
    "every certificate of the chain is valid at the appraisal's time",
    "validity",
    "RFC 5280, section 4.1.2.5",
    "Fetch certificates that are valid now; check the clock of the party that appraises.",
)
VEK_KIND = Check(
    "SNP_VEK_KIND",
    "the leaf is the kind of key that the report says signed it",
    "SIGNER_INFO.SIGNING_KEY",
    _REPORT,
    "Send the VLEK with ASVK for reports signed by a VLEK, the VCEK with ASK otherwise.",
)
PRODUCT = Check(
    "SNP_PRODUCT",
    "report, leaf and root name one known product line",
    "CPUID and productName",
    f"{_KDS}, certificate extensions, and {_REPORT}",
    _REFETCH,
)
CRL_MISSING = Check(
    "SNP_CRL_MISSING",
    "a revocation list of this root is given",
    "CRL",
    f"{_KDS}, revocation list",
    "Give the verifier AMD's current CRL of the product line: attestation.crls in keystead.toml, or --crl.",
)
CRL_SIGNATURE = Check(
    "SNP_CRL_SIGNATURE",
    "the revocation list is signed by the pinned root",
    "CRL signatureValue",
    f"{_KDS}, revocation list",
    "Import AMD's own CRL for the product line.",
)
CRL_WINDOW = Check(
    "SNP_CRL_WINDOW",
    "the revocation list is current at the appraisal's time",
    "CRL thisUpdate and nextUpdate",
    "RFC 5280, section 5.1.2",
    "Import AMD's current CRL for the product line.",
)
CRL_ROLLBACK = Check(
    "SNP_CRL_ROLLBACK",
    "the revocation list is not older than one that was already used",
    "CRL cRLNumber",
    "RFC 5280, section 5.2.3",
    "Import the newest CRL; an older one may hide a revocation.",
)
REVOKED = Check(
    "SNP_REVOKED",
    "neither ASK nor ASVK is revoked",
    "serialNumber",
    f"{_KDS}, revocation list",
    "Take the platform out of service and ask AMD or the provider: its signing key is revoked.",
)
SIGNATURE_ALGORITHM = Check(
    "SNP_SIGNATURE_ALGORITHM",
    "the signature is ECDSA P-384 with SHA-384",
    "SIGNATURE_ALGO",
    f"{_ABI}, signature formats",
    "Update the SNP firmware.",
)
SIGNATURE = Check(
    "SNP_SIGNATURE",
    "the report's signature verifies with the leaf's key",
    "SIGNATURE",
    f"{_ABI}, signature formats",
    "The report was altered, or the leaf is another chip's or another TCB's: fetch both anew.",
)
CERT_TCB = Check(
    "SNP_CERT_TCB",
    "the leaf was issued for exactly the reported TCB",
    "REPORTED_TCB",
    f"{_KDS}, certificate extensions, and {_TCB}",
    "Fetch the VCEK for the TCB that the report states.",
)
HWID = Check(
    "SNP_HWID",
    "the leaf was issued for exactly this chip",
    "CHIP_ID",
    f"{_KDS}, certificate extensions",
    "Fetch the VCEK of the chip that made the report.",
)
CHIP_ID_MASKED = Check(
    "SNP_CHIP_ID_MASKED",
    "the report names its chip",
    "CHIP_ID",
    _REPORT,
    "Turn MASK_CHIP_ID off on the host; without it the hardware cannot be enrolled.",
)
TCB_ORDER = Check(
    "SNP_TCB_ORDER",
    "reported and committed TCB are not above the current one",
    "REPORTED_TCB and COMMITTED_TCB",
    _REPORT,
    "This is not what firmware produces: take the platform out of service and inspect it.",
)
PROVISIONAL = Check(
    "SNP_PROVISIONAL_FIRMWARE",
    "the running firmware is committed, so it cannot be rolled back",
    "COMMITTED_TCB",
    f"{_REPORT}, and provisional firmware (SNP_COMMIT)",
    "Commit the firmware (SNP_COMMIT) once it is known to be good.",
)
NO_REFERENCE_TCB = Check(
    "SNP_NO_REFERENCE_TCB",
    "there is a minimum TCB for this product line",
    "product",
    _TCB,
    "Add a minimum TCB for this product line to the reference values, or keep such nodes out.",
)
TCB_MINIMUM = Check(
    "SNP_TCB_BELOW_MINIMUM",
    "reported, committed and launch TCB are at least the reference values'",
    "TCB",
    _TCB,
    _FIRMWARE,
)
FIRMWARE_MINIMUM = Check(
    "SNP_FIRMWARE_BELOW_MINIMUM",
    "the committed SNP firmware is at least the reference values'",
    "COMMITTED_VERSION",
    _REPORT,
    _FIRMWARE,
)
POLICY_RESERVED = Check(
    "SNP_POLICY_RESERVED",
    "reserved bits of the guest policy hold what the specification says",
    "POLICY",
    _POLICY,
    _RELAUNCH,
)
DEBUG = Check(
    "SNP_DEBUG_ALLOWED",
    "the host may not debug the guest",
    "POLICY.DEBUG",
    _POLICY,
    "Launch the guest again with DEBUG off: as it is, the host can read all its memory.",
)
MIGRATE_MA = Check(
    "SNP_MIGRATE_MA_ALLOWED",
    "no migration agent may move the guest, or an approved one only",
    "POLICY.MIGRATE_MA",
    _POLICY,
    "Launch the guest again with MIGRATE_MA off, or approve the agent's REPORT_ID.",
)
SMT = Check(
    "SNP_SMT_ALLOWED",
    "simultaneous multi-threading is off where the reference values forbid it",
    "POLICY.SMT",
    _POLICY,
    "Turn SMT off on the host and launch the guest with a policy that forbids it.",
)
CXL = Check(
    "SNP_CXL_ALLOWED",
    "CXL devices are kept out where the reference values forbid them",
    "POLICY.CXL_ALLOW",
    _POLICY,
    _RELAUNCH,
)
POLICY_REQUIRED = Check(
    "SNP_POLICY_REQUIREMENT",
    "the guest's owner demands what the reference values demand",
    "POLICY",
    _POLICY,
    _RELAUNCH,
)
ABI_MINIMUM = Check(
    "SNP_POLICY_ABI",
    "the guest demands at least the reference values' ABI version",
    "POLICY.ABI",
    _POLICY,
    _RELAUNCH,
)
POLICY_PLATFORM = Check(
    "SNP_POLICY_PLATFORM",
    "the platform is set up as the guest's policy demands",
    "POLICY and PLATFORM_INFO",
    f"{_POLICY}, {_PLATFORM}",
    "This is not what firmware produces: take the platform out of service and inspect it.",
)
ALIAS_CHECK = Check(
    "SNP_ALIAS_CHECK",
    "the firmware has checked memory for aliases since the last reset",
    "PLATFORM_INFO.ALIAS_CHECK_COMPLETE",
    f"{_PLATFORM}; AMD-SB-3015 (BadRAM)",
    "Install firmware that completes the alias check, then reset the platform.",
)
PLATFORM_REQUIRED = Check(
    "SNP_PLATFORM_REQUIREMENT",
    "the platform is set up as the reference values demand",
    "PLATFORM_INFO",
    _PLATFORM,
    "Change the host's firmware settings to what the reference values ask for.",
)
PLATFORM_FORBIDDEN = Check(
    "SNP_PLATFORM_FORBIDDEN",
    "the platform has nothing on that the reference values forbid",
    "PLATFORM_INFO",
    _PLATFORM,
    "Change the host's firmware settings to what the reference values ask for.",
)
PLATFORM_UNKNOWN = Check(
    "SNP_PLATFORM_UNKNOWN",
    "no platform bit is set that this verifier does not know",
    "PLATFORM_INFO",
    _PLATFORM,
    "Read the current specification for this bit; if it is harmless, tolerate it in the reference values.",
)
MITIGATION = Check(
    "SNP_MITIGATION_VECTOR",
    "the mitigations that the reference values ask for were on at launch and are on now",
    "LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR",
    _REPORT,
    _FIRMWARE,
)
VMPL = Check(
    "SNP_VMPL",
    "the report was asked for at a privilege level that the reference values allow",
    "VMPL",
    _REPORT,
    "Attest from the guest's own privilege level.",
)
REPORT_DATA = Check(
    "SNP_REPORT_DATA",
    "the report carries what the appraisal expects: runtime data, and with it nonce and keys",
    "REPORT_DATA",
    _REPORT,
    "Attest again with the nonce and keys of this request.",
)
REPORT_DATA_UNCHECKED = Check(
    "SNP_REPORT_DATA_UNCHECKED",
    "an expected REPORT_DATA was given, so the report is fresh and bound to keys",
    "REPORT_DATA",
    _REPORT,
    "Say what REPORT_DATA must be; without it the report may be anyone's and of any age.",
    severity=Severity.INFORM,
)
MEASUREMENT = Check(
    "SNP_MEASUREMENT",
    "the guest's launch measurement is an approved one",
    "MEASUREMENT",
    _REPORT,
    "Launch an approved image, or approve this one after review.",
)
HOST_DATA = Check(
    "SNP_HOST_DATA",
    "HOST_DATA is the approved value",
    "HOST_DATA",
    _REPORT,
    "Launch the guest with the approved host data.",
)
ID_KEY = Check(
    "SNP_ID_KEY_DIGEST",
    "the identity block was signed by an approved key",
    "ID_KEY_DIGEST",
    _REPORT,
    "Launch the guest with an identity block of an approved key.",
)
AUTHOR_KEY = Check(
    "SNP_AUTHOR_KEY_DIGEST",
    "the identity key was certified by an approved author",
    "AUTHOR_KEY_DIGEST",
    _REPORT,
    "Launch the guest with an identity block of an approved author.",
)
FAMILY_ID = Check(
    "SNP_FAMILY_ID",
    "the guest's family is an approved one",
    "FAMILY_ID",
    _REPORT,
    "Launch the guest with an approved identity block.",
)
IMAGE_ID = Check(
    "SNP_IMAGE_ID",
    "the guest's image is an approved one",
    "IMAGE_ID",
    _REPORT,
    "Launch the guest with an approved identity block.",
)
GUEST_SVN = Check(
    "SNP_GUEST_SVN",
    "the guest's security version is at least the reference values'",
    "GUEST_SVN",
    _REPORT,
    "Launch a newer image.",
)

CHECKS: Final[tuple[Check, ...]] = (
    VERSION,
    SIGNING_KEY,
    CHAIN_SHAPE,
    ROOT,
    CHAIN_SIGNATURE,
    CHAIN_NAMES,
    CHAIN_CA,
    CHAIN_VALIDITY,
    VEK_KIND,
    PRODUCT,
    CRL_MISSING,
    CRL_SIGNATURE,
    CRL_WINDOW,
    CRL_ROLLBACK,
    REVOKED,
    SIGNATURE_ALGORITHM,
    SIGNATURE,
    CERT_TCB,
    HWID,
    CHIP_ID_MASKED,
    TCB_ORDER,
    PROVISIONAL,
    NO_REFERENCE_TCB,
    TCB_MINIMUM,
    FIRMWARE_MINIMUM,
    POLICY_RESERVED,
    DEBUG,
    MIGRATE_MA,
    SMT,
    CXL,
    POLICY_REQUIRED,
    ABI_MINIMUM,
    POLICY_PLATFORM,
    ALIAS_CHECK,
    PLATFORM_REQUIRED,
    PLATFORM_FORBIDDEN,
    PLATFORM_UNKNOWN,
    MITIGATION,
    VMPL,
    REPORT_DATA,
    REPORT_DATA_UNCHECKED,
    MEASUREMENT,
    HOST_DATA,
    ID_KEY,
    AUTHOR_KEY,
    FAMILY_ID,
    IMAGE_ID,
    GUEST_SVN,
)
"""All of them, for the registry."""
