"""A software SEV-SNP platform: one chip with its VCEK or VLEK, signing bit-accurate attestation reports.

A defect can be asked for by name (`SnpDefect`) or by overriding any field of the report, so that every rule of
`attestation.snp` can be seen to fire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attestation.simulator.pki import YEAR, SimulatedAmdPki
from attestation.snp.abi import (
    CHIP_ID_SIZE,
    SIGNATURE_ALGO_ECDSA_P384_SHA384,
    SIGNED_SIZE,
    AttestationReport,
    FirmwareVersion,
    GuestPolicy,
    PlatformInfo,
    Product,
    SigningKey,
    TcbVersion,
)
from attestation.snp.endorsements import TURIN_HWID_SIZE, VekKind
from attestation.types import Evidence

CPUID: Final[Mapping[Product, tuple[int, int, int]]] = MappingProxyType(
    {Product.MILAN: (0x19, 0x01, 0x01), Product.GENOA: (0x19, 0x11, 0x01), Product.TURIN: (0x1A, 0x02, 0x01)}
)
"""Family, model and stepping that simulated chips report."""

CURRENT_TCB: Final[Mapping[Product, TcbVersion]] = MappingProxyType(
    {
        Product.MILAN: TcbVersion(bl=4, tee=0, snp=24, ucode=219),
        Product.GENOA: TcbVersion(bl=10, tee=0, snp=23, ucode=84),
        Product.TURIN: TcbVersion(fmc=1, bl=1, tee=1, snp=4, ucode=81),
    }
)
"""The TCB that simulated chips run unless told otherwise."""

STALE_TCB: Final[Mapping[Product, TcbVersion]] = MappingProxyType(
    {
        Product.MILAN: TcbVersion(bl=3, tee=0, snp=8, ucode=115),
        Product.GENOA: TcbVersion(bl=7, tee=0, snp=14, ucode=72),
        Product.TURIN: TcbVersion(fmc=0, bl=1, tee=1, snp=2, ucode=60),
    }
)
"""An old TCB, for the defect of that name."""

DEFAULT_MEASUREMENT: Final = hashlib.sha384(b"keystead simulated guest image").digest()
DEFAULT_POLICY: Final = GuestPolicy.RESERVED_ONE | 0x1F
MITIGATIONS: Final = 0x0B


class SnpDefect(StrEnum):
    """What can be wrong with a simulated platform or its evidence, by name."""

    DEBUG = "debug"
    MIGRATE_MA = "migrate-ma"
    STALE_TCB = "stale-tcb"
    PROVISIONAL_FIRMWARE = "provisional-firmware"
    WRONG_REPORT_DATA = "wrong-report-data"
    MASKED_CHIP_ID = "masked-chip-id"
    OTHER_CHIP = "other-chip"
    NO_ALIAS_CHECK = "no-alias-check"
    VMPL_1 = "vmpl-1"
    BAD_SIGNATURE = "bad-signature"
    EXPIRED_VEK = "expired-vek"


class SimulatedSnp:
    """One chip. Its identity is `chip_id`; its key is fresh for each object, as a VCEK is for each TCB."""

    __slots__ = ("_key", "_now", "_pki", "_sound_chain", "chip_id", "csp_id", "product", "tcb")

    def __init__(
        self,
        pki: SimulatedAmdPki,
        *,
        product: Product,
        seed: bytes,
        now: int,
        tcb: TcbVersion | None = None,
        csp_id: str | None = None,
    ) -> None:
        """Make a chip.

        Args:
            pki: who certifies it.
            product: product line.
            seed: what CHIP_ID is derived from, so that a chip can be made again.
            now: seconds since the epoch; certificates are valid from a day before.
            tcb: what it runs; the current one where it is left out.
            csp_id: sign with a VLEK of this provider instead of a VCEK.
        """
        self._pki = pki
        self._now = now
        self._key = ec.generate_private_key(ec.SECP384R1())
        self.product = product
        self.tcb = tcb or CURRENT_TCB[product]
        self.csp_id = csp_id
        identity = hashlib.sha512(b"keystead simulated chip\x00" + seed).digest()
        if product is Product.TURIN:
            identity = identity[:TURIN_HWID_SIZE] + bytes(CHIP_ID_SIZE - TURIN_HWID_SIZE)
        self.chip_id = identity
        self._sound_chain = self._make_chain(self.tcb, self.hwid, now - 24 * 3600)

    @property
    def hwid(self) -> bytes:
        """What the VCEK names: all of CHIP_ID, or its first 8 bytes from Turin on."""
        return self.chip_id[:TURIN_HWID_SIZE] if self.product is Product.TURIN else self.chip_id

    @property
    def kind(self) -> VekKind:
        """Which kind of key signs."""
        return VekKind.VCEK if self.csp_id is None else VekKind.VLEK

    def crl(self, *, this_update: int | None = None) -> bytes:
        """The product line's current revocation list."""
        return self._pki.crl(self.product, this_update=self._now if this_update is None else this_update)

    def certificates(
        self, *, tcb: TcbVersion | None = None, hwid: bytes | None = None, expired: bool = False
    ) -> tuple[bytes, ...]:
        """Leaf, ASK or ASVK, and ARK as DER; the leaf can be issued for another TCB or chip, or be out of date."""
        if tcb is None and hwid is None and not expired:
            return self._sound_chain
        return self._make_chain(tcb or self.tcb, hwid or self.hwid, self._now - (8 * YEAR if expired else 24 * 3600))

    def _make_chain(self, tcb: TcbVersion, hwid: bytes, not_before: int) -> tuple[bytes, ...]:
        authorities = self._pki.certificates[self.product]
        public_key = self._key.public_key()
        if self.csp_id is not None:
            leaf = self._pki.issue_vlek(
                product=self.product, public_key=public_key, tcb=tcb, csp_id=self.csp_id, not_before=not_before
            )
            return leaf, authorities.asvk, authorities.ark
        leaf = self._pki.issue_vcek(
            product=self.product, public_key=public_key, tcb=tcb, hwid=hwid, not_before=not_before
        )
        return leaf, authorities.ask, authorities.ark

    def report(self, report_data: bytes, *, version: int = 5, fields: Mapping[str, Any] | None = None) -> bytes:
        """Sign a report.

        Args:
            report_data: 64 bytes.
            version: report version, 2 to 5.
            fields: `AttestationReport` fields to override before signing; the two signature fields after it.
        """
        overrides = dict(fields or {})
        signature = {name: overrides.pop(name) for name in ("signature_r", "signature_s") if name in overrides}
        tcb = self.tcb.to_bytes(self.product)
        family, model, step = CPUID[self.product] if version > 2 else (0, 0, 0)
        mitigations = MITIGATIONS if version >= 5 else 0
        signing_key = SigningKey.VCEK if self.csp_id is None else SigningKey.VLEK
        unsigned = AttestationReport(
            version=version,
            guest_svn=1,
            policy=DEFAULT_POLICY,
            family_id=bytes(16),
            image_id=bytes(16),
            vmpl=0,
            signature_algo=SIGNATURE_ALGO_ECDSA_P384_SHA384,
            current_tcb=tcb,
            platform_info=PlatformInfo.ECC_EN | PlatformInfo.ALIAS_CHECK_COMPLETE,
            signer_info=signing_key << 2,
            report_data=report_data,
            measurement=DEFAULT_MEASUREMENT,
            host_data=bytes(32),
            id_key_digest=bytes(48),
            author_key_digest=bytes(48),
            report_id=hashlib.sha256(self.chip_id).digest(),
            report_id_ma=b"\xff" * 32,
            reported_tcb=tcb,
            cpuid_fam_id=family,
            cpuid_mod_id=model,
            cpuid_step=step,
            chip_id=self.chip_id,
            committed_tcb=tcb,
            current_firmware=FirmwareVersion(1, 55, 49),
            committed_firmware=FirmwareVersion(1, 55, 49),
            launch_tcb=tcb,
            launch_mit_vector=mitigations,
            current_mit_vector=mitigations,
            signature_r=bytes(48),
            signature_s=bytes(48),
        )
        unsigned = unsigned._replace(**overrides)
        r, s = decode_dss_signature(self._key.sign(unsigned.to_bytes()[:SIGNED_SIZE], ec.ECDSA(hashes.SHA384())))
        signed = unsigned._replace(signature_r=r.to_bytes(48, "little"), signature_s=s.to_bytes(48, "little"))
        return signed._replace(**signature).to_bytes()

    def evidence(
        self,
        report_data: bytes,
        *,
        slot: str = "cpu0",
        version: int = 5,
        defects: frozenset[SnpDefect] = frozenset(),
        fields: Mapping[str, Any] | None = None,
    ) -> Evidence:
        """Evidence for `report_data` (64 bytes) with its certificates, with the defects that are asked for."""
        overrides = {**self._defective_fields(report_data, defects), **(fields or {})}
        stale = STALE_TCB[self.product] if SnpDefect.STALE_TCB in defects else None
        data = self.report(report_data, version=version, fields=overrides)
        if SnpDefect.BAD_SIGNATURE in defects:
            data = data[:0x90] + bytes((data[0x90] ^ 1,)) + data[0x91:]
        other = hashlib.sha512(b"another chip" + self.chip_id).digest()[: len(self.hwid)]
        return Evidence(
            slot=slot,
            scheme="snp",
            data=data,
            certificates=self.certificates(
                tcb=stale,
                hwid=other if SnpDefect.OTHER_CHIP in defects else None,
                expired=SnpDefect.EXPIRED_VEK in defects,
            ),
        )

    def _defective_fields(self, report_data: bytes, defects: frozenset[SnpDefect]) -> dict[str, Any]:
        stale = STALE_TCB[self.product].to_bytes(self.product)
        policy = DEFAULT_POLICY
        if SnpDefect.DEBUG in defects:
            policy |= GuestPolicy.DEBUG
        if SnpDefect.MIGRATE_MA in defects:
            policy |= GuestPolicy.MIGRATE_MA
        fields: dict[str, Any] = {"policy": policy}
        if SnpDefect.STALE_TCB in defects:
            fields |= dict.fromkeys(("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), stale)
        if SnpDefect.PROVISIONAL_FIRMWARE in defects:
            fields["committed_tcb"] = stale
        if SnpDefect.WRONG_REPORT_DATA in defects:
            fields["report_data"] = bytes((report_data[0] ^ 1,)) + report_data[1:]
        if SnpDefect.MASKED_CHIP_ID in defects:
            fields["chip_id"] = bytes(CHIP_ID_SIZE)
        if SnpDefect.NO_ALIAS_CHECK in defects:
            fields["platform_info"] = PlatformInfo.ECC_EN
        if SnpDefect.VMPL_1 in defects:
            fields["vmpl"] = 1
        return fields
