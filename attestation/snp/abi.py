"""SEV-SNP ATTESTATION_REPORT: what do the bytes say.

Layout: AMD, "SEV Secure Nested Paging Firmware ABI Specification" (document 56860), revision 1.58, section 7.3,
ATTESTATION_REPORT, for report versions 2 to 5. Versions 3 and 4 have one layout; version 2 has no CPUID fields and
version 5 adds the mitigation vectors. Parsing is exact: one size, every reserved byte zero, no version guessed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import ClassVar, Final, NamedTuple, Self

from attestation.errors import MalformedError, UnsupportedError

REPORT_SIZE: Final = 0x4A0
SIGNED_SIZE: Final = 0x2A0
"""The signature covers the first 0x2A0 bytes."""

CHIP_ID_SIZE: Final = 64
REPORT_DATA_SIZE: Final = 64
MEASUREMENT_SIZE: Final = 48
SUPPORTED_VERSIONS: Final = frozenset({2, 3, 4, 5})
SIGNATURE_ALGO_ECDSA_P384_SHA384: Final = 1
ALGO_COORDINATE_SIZE: Final = 72
"""R and S are stored little-endian in 72 bytes each, of which P-384 uses 48."""

_STRUCTURE: Final = "ATTESTATION_REPORT"
_LAYOUT: Final = struct.Struct(
    "<IIQ16s16sII8sQI4s"  # 0x000 VERSION … SIGNER_INFO, reserved
    "64s48s32s48s48s32s32s"  # 0x050 REPORT_DATA … REPORT_ID_MA
    "8sBBB21s64s8s"  # 0x180 REPORTED_TCB, CPUID, reserved, CHIP_ID, COMMITTED_TCB
    "BBBBBBBB8sQQ152s"  # 0x1E8 firmware versions, LAUNCH_TCB, mitigation vectors, reserved
    "48s24s48s24s368s"  # 0x2A0 R, S, reserved
)
_ZERO4: Final = bytes(4)
_ZERO21: Final = bytes(21)
_ZERO24: Final = bytes(24)
_ZERO152: Final = bytes(152)
_ZERO368: Final = bytes(368)


class Product(StrEnum):
    """A product line: one root key (ARK) and one TCB layout for each."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


class SigningKey(IntEnum):
    """SIGNER_INFO, bits 2 to 4: which key signed the report (SIGNING_KEY)."""

    VCEK = 0
    VLEK = 1
    NONE = 7


def product_of_cpuid(family: int, model: int) -> Product | None:
    """The product line of a combined CPUID family and model; None where this verifier knows none.

    Source: AMD, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface" (57230), and the
    revision guides: 19h/00h-0Fh Milan; 19h/10h-1Fh and A0h-AFh Genoa (with Bergamo and Siena); 1Ah/00h-11h Turin.
    """
    if family == 0x19:
        if model <= 0x0F:
            return Product.MILAN
        if 0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF:
            return Product.GENOA
    if family == 0x1A and model <= 0x11:
        return Product.TURIN
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbVersion:
    """TCB_VERSION: the security patch level of each firmware component (document 56860).

    `fmc` exists from Turin on and is None before.
    """

    bl: int
    tee: int
    snp: int
    ucode: int
    fmc: int | None = None

    @classmethod
    def parse(cls, data: bytes, product: Product) -> Self:
        """Parse the 8 bytes of a TCB_VERSION; its layout depends on the product line.

        Raises:
            MalformedError: not 8 bytes, or a reserved byte is not zero.
        """
        if len(data) != 8:
            raise MalformedError("TCB_VERSION", f"{len(data)} bytes, expected 8")
        if product is Product.TURIN:
            if data[4] or data[5] or data[6]:
                raise MalformedError("TCB_VERSION", f"reserved bytes 4 to 6 must be zero: {data.hex()}", offset=4)
            return cls(fmc=data[0], bl=data[1], tee=data[2], snp=data[3], ucode=data[7])
        if data[2] or data[3] or data[4] or data[5]:
            raise MalformedError("TCB_VERSION", f"reserved bytes 2 to 5 must be zero: {data.hex()}", offset=2)
        return cls(bl=data[0], tee=data[1], snp=data[6], ucode=data[7])

    def to_bytes(self, product: Product) -> bytes:
        """The 8 bytes that `parse` reads."""
        if product is Product.TURIN:
            return bytes((self.fmc or 0, self.bl, self.tee, self.snp, 0, 0, 0, self.ucode))
        return bytes((self.bl, self.tee, 0, 0, 0, 0, self.snp, self.ucode))

    def components(self) -> Mapping[str, int]:
        """Security patch level by component name."""
        parts = {"bl": self.bl, "tee": self.tee, "snp": self.snp, "ucode": self.ucode}
        return parts if self.fmc is None else {"fmc": self.fmc, **parts}

    def at_least(self, other: TcbVersion) -> bool:
        """Is every component at least that of `other`? A component that only one of them has makes it False."""
        if (self.fmc is None) != (other.fmc is None):
            return False
        return (
            self.bl >= other.bl
            and self.tee >= other.tee
            and self.snp >= other.snp
            and self.ucode >= other.ucode
            and (self.fmc or 0) >= (other.fmc or 0)
        )

    def __str__(self) -> str:
        fmc = "" if self.fmc is None else f"fmc={self.fmc} "
        return f"{fmc}bl={self.bl} tee={self.tee} snp={self.snp} ucode={self.ucode}"


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """POLICY: what the guest's owner allows and demands (document 56860, section 4.3)."""

    value: int

    SMT: ClassVar[int] = 1 << 16
    RESERVED_ONE: ClassVar[int] = 1 << 17
    MIGRATE_MA: ClassVar[int] = 1 << 18
    DEBUG: ClassVar[int] = 1 << 19
    SINGLE_SOCKET: ClassVar[int] = 1 << 20
    CXL: ClassVar[int] = 1 << 21
    MEM_AES_256_XTS: ClassVar[int] = 1 << 22
    RAPL_DIS: ClassVar[int] = 1 << 23
    CIPHERTEXT_HIDING_DRAM: ClassVar[int] = 1 << 24
    PAGE_SWAP_DISABLE: ClassVar[int] = 1 << 25
    KNOWN: ClassVar[int] = (1 << 26) - 1

    @property
    def abi(self) -> tuple[int, int]:
        """The minimum ABI version that the guest demands: major, minor."""
        return self.value >> 8 & 0xFF, self.value & 0xFF

    @property
    def reserved_ok(self) -> bool:
        """Is bit 17 one and are bits 26 to 63 zero?"""
        return bool(self.value & self.RESERVED_ONE) and not self.value & ~self.KNOWN

    def has(self, bit: int) -> bool:
        """Is `bit` (one of this class's masks) set?"""
        return bool(self.value & bit)


GUEST_POLICY_BITS: Final[Mapping[str, int]] = {
    "smt_allowed": GuestPolicy.SMT,
    "migrate_ma_allowed": GuestPolicy.MIGRATE_MA,
    "debug_allowed": GuestPolicy.DEBUG,
    "single_socket_required": GuestPolicy.SINGLE_SOCKET,
    "cxl_allowed": GuestPolicy.CXL,
    "mem_aes_256_xts_required": GuestPolicy.MEM_AES_256_XTS,
    "rapl_dis_required": GuestPolicy.RAPL_DIS,
    "ciphertext_hiding_dram_required": GuestPolicy.CIPHERTEXT_HIDING_DRAM,
    "page_swap_disable_required": GuestPolicy.PAGE_SWAP_DISABLE,
}
"""Every named bit of POLICY but the reserved ones."""


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """PLATFORM_INFO: how the host's firmware is set up (document 56860, section 7.3)."""

    value: int

    SMT_EN: ClassVar[int] = 1 << 0
    TSME_EN: ClassVar[int] = 1 << 1
    ECC_EN: ClassVar[int] = 1 << 2
    RAPL_DIS: ClassVar[int] = 1 << 3
    CIPHERTEXT_HIDING_DRAM_EN: ClassVar[int] = 1 << 4
    ALIAS_CHECK_COMPLETE: ClassVar[int] = 1 << 5
    TIO_EN: ClassVar[int] = 1 << 7
    KNOWN: ClassVar[int] = 0b1011_1111

    @property
    def unknown(self) -> int:
        """The bits that the specification reserves; revision 1.58 says zero."""
        return self.value & ~self.KNOWN

    def has(self, bit: int) -> bool:
        """Is `bit` (one of this class's masks) set?"""
        return bool(self.value & bit)


PLATFORM_INFO_BITS: Final[Mapping[str, int]] = {
    "smt_en": PlatformInfo.SMT_EN,
    "tsme_en": PlatformInfo.TSME_EN,
    "ecc_en": PlatformInfo.ECC_EN,
    "rapl_dis": PlatformInfo.RAPL_DIS,
    "ciphertext_hiding_dram_en": PlatformInfo.CIPHERTEXT_HIDING_DRAM_EN,
    "alias_check_complete": PlatformInfo.ALIAS_CHECK_COMPLETE,
    "tio_en": PlatformInfo.TIO_EN,
}
"""Every named bit of PLATFORM_INFO."""


class FirmwareVersion(NamedTuple):
    """The SNP firmware's version: major, minor, build."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


class AttestationReport(NamedTuple):
    """ATTESTATION_REPORT, field by field, by the specification's names.

    A named tuple and not a frozen dataclass: it is made for every request, and its thirty fields cost a third so.

    TCB versions stay as their 8 bytes until the product line is known (`TcbVersion.parse`). `signature_r` and
    `signature_s` are the 48 bytes that P-384 uses, little-endian as they stand. CPUID fields are 0 in version 2,
    the mitigation vectors are 0 before version 5.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algo: int
    current_tcb: bytes
    platform_info: int
    signer_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid_fam_id: int
    cpuid_mod_id: int
    cpuid_step: int
    chip_id: bytes
    committed_tcb: bytes
    current_firmware: FirmwareVersion
    committed_firmware: FirmwareVersion
    launch_tcb: bytes
    launch_mit_vector: int
    current_mit_vector: int
    signature_r: bytes
    signature_s: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a report of exactly 1,184 bytes.

        Raises:
            MalformedError: another size, a version below 2, a reserved byte or bit that is not zero, or a field that
                the report's version does not have is not zero.
            UnsupportedError: a version above 5.
        """
        if len(data) != REPORT_SIZE:
            raise MalformedError(_STRUCTURE, f"{len(data)} bytes, expected {REPORT_SIZE}")
        (
            version, guest_svn, policy, family_id, image_id, vmpl, signature_algo, current_tcb, platform_info,
            signer_info, zero_4c, report_data, measurement, host_data, id_key_digest, author_key_digest, report_id,
            report_id_ma, reported_tcb, fam, mod, step, zero_18b, chip_id, committed_tcb, current_build,
            current_minor, current_major, zero_1eb, committed_build, committed_minor, committed_major, zero_1ef,
            launch_tcb, launch_mit_vector, current_mit_vector, zero_208, r, zero_r, s, zero_s, zero_330,
        ) = _LAYOUT.unpack(data)  # fmt: skip
        if version < 2:
            raise MalformedError(_STRUCTURE, f"version {version} is of pre-release firmware, the first is 2", offset=0)
        if version not in SUPPORTED_VERSIONS:
            raise UnsupportedError(f"{_STRUCTURE}: version {version}, only 2 to 5 are understood")
        if (
            zero_4c != _ZERO4
            or zero_18b != _ZERO21
            or zero_1eb
            or zero_1ef
            or zero_208 != _ZERO152
            or zero_r != _ZERO24
            or zero_s != _ZERO24
            or zero_330 != _ZERO368
        ):
            raise _reserved(data)
        if version == 2 and (fam or mod or step):
            raise MalformedError(_STRUCTURE, "version 2 has no CPUID fields, found non-zero bytes", offset=0x188)
        if version < 5 and (launch_mit_vector or current_mit_vector):
            raise MalformedError(
                _STRUCTURE, f"version {version} has no mitigation vectors, found non-zero bytes", offset=0x1F8
            )
        if signer_info >> 5:
            raise MalformedError(_STRUCTURE, f"SIGNER_INFO {signer_info:#x}: bits 5 to 31 must be zero", offset=0x48)
        return cls(
            version=version,
            guest_svn=guest_svn,
            policy=policy,
            family_id=family_id,
            image_id=image_id,
            vmpl=vmpl,
            signature_algo=signature_algo,
            current_tcb=current_tcb,
            platform_info=platform_info,
            signer_info=signer_info,
            report_data=report_data,
            measurement=measurement,
            host_data=host_data,
            id_key_digest=id_key_digest,
            author_key_digest=author_key_digest,
            report_id=report_id,
            report_id_ma=report_id_ma,
            reported_tcb=reported_tcb,
            cpuid_fam_id=fam,
            cpuid_mod_id=mod,
            cpuid_step=step,
            chip_id=chip_id,
            committed_tcb=committed_tcb,
            current_firmware=FirmwareVersion(current_major, current_minor, current_build),
            committed_firmware=FirmwareVersion(committed_major, committed_minor, committed_build),
            launch_tcb=launch_tcb,
            launch_mit_vector=launch_mit_vector,
            current_mit_vector=current_mit_vector,
            signature_r=r,
            signature_s=s,
        )

    def to_bytes(self) -> bytes:
        """The 1,184 bytes that `parse` reads."""
        current, committed = self.current_firmware, self.committed_firmware
        return _LAYOUT.pack(
            self.version, self.guest_svn, self.policy, self.family_id, self.image_id, self.vmpl, self.signature_algo,
            self.current_tcb, self.platform_info, self.signer_info, _ZERO4, self.report_data, self.measurement,
            self.host_data, self.id_key_digest, self.author_key_digest, self.report_id, self.report_id_ma,
            self.reported_tcb, self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step, _ZERO21, self.chip_id,
            self.committed_tcb, current.build, current.minor, current.major, 0, committed.build, committed.minor,
            committed.major, 0, self.launch_tcb, self.launch_mit_vector, self.current_mit_vector, _ZERO152,
            self.signature_r, _ZERO24, self.signature_s, _ZERO24, _ZERO368,
        )  # fmt: skip

    @property
    def product(self) -> Product | None:
        """The product line by CPUID; None for version 2, which does not say, and for an unknown processor."""
        return None if self.version == 2 else product_of_cpuid(self.cpuid_fam_id, self.cpuid_mod_id)

    @property
    def author_key_enabled(self) -> bool:
        """SIGNER_INFO bit 0: AUTHOR_KEY_DIGEST is that of the key that signed the guest's identity key."""
        return bool(self.signer_info & 1)

    @property
    def mask_chip_key(self) -> bool:
        """SIGNER_INFO bit 1: the host masks the chip's key."""
        return bool(self.signer_info & 2)

    @property
    def signing_key(self) -> SigningKey | None:
        """Which key signed; None for a value that the specification reserves."""
        value = self.signer_info >> 2 & 7
        return SigningKey(value) if value in (0, 1, 7) else None

    @property
    def chip_id_masked(self) -> bool:
        """Is CHIP_ID all zero, as the host's MASK_CHIP_ID setting makes it?"""
        return not any(self.chip_id)

    @property
    def r(self) -> int:
        """The signature's R."""
        return int.from_bytes(self.signature_r, "little")

    @property
    def s(self) -> int:
        """The signature's S."""
        return int.from_bytes(self.signature_s, "little")


_RESERVED: Final = (
    (0x4C, 4),
    (0x18B, 21),
    (0x1EB, 1),
    (0x1EF, 1),
    (0x208, 152),
    (0x2D0, 24),
    (0x318, 24),
    (0x330, 368),
)


def _reserved(data: bytes) -> MalformedError:
    """The error for the first reserved byte that is not zero; `data` has one."""
    offset = next(at for start, size in _RESERVED for at in range(start, start + size) if data[at])
    return MalformedError(_STRUCTURE, f"reserved byte must be zero, found {data[offset]:#04x}", offset=offset)
