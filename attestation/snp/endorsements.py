"""Who signed the report: VCEK and VLEK leaves, the chain to a pinned ARK, and AMD's revocation lists.

Source: AMD, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" (document 57230).
There are no default anchors. A root is trusted because its SHA-256 fingerprint was pinned by explicit configuration
(`SnpAnchors.amd`, `SnpAnchors.simulated`); an ARK that comes with the evidence is used only where it equals a pin.

Checks that could be made and are not, with reasons: subject and authority key identifiers and CRL distribution
points of ASK and ARK (the pinned root signed the certificates as they stand; the identifiers add no authority), and
validity nesting (each certificate is checked at the appraisal's time by itself).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.ecdsa import EcdsaKey
from attestation.errors import MalformedError, TrustAnchorError
from attestation.findings import CheckLog, Passed
from attestation.lru import LruCache
from attestation.snp import checks
from attestation.snp.abi import CHIP_ID_SIZE, Product, SigningKey, TcbVersion
from attestation.snp.certificate import AmdCertificate, verify_pss_sha384

_AMD: Final = "1.3.6.1.4.1.3704.1."
OID_STRUCT_VERSION: Final = _AMD + "1"
OID_PRODUCT_NAME: Final = _AMD + "2"
OID_BL: Final = _AMD + "3.1"
OID_TEE: Final = _AMD + "3.2"
OID_SNP: Final = _AMD + "3.3"
OIDS_SPARE: Final = tuple(_AMD + f"3.{number}" for number in (4, 5, 6, 7))
OID_UCODE: Final = _AMD + "3.8"
OID_FMC: Final = _AMD + "3.9"
OID_HWID: Final = _AMD + "4"
OID_CSP_ID: Final = _AMD + "5"
_KNOWN_EXTENSIONS: Final = frozenset(
    {
        OID_STRUCT_VERSION,
        OID_PRODUCT_NAME,
        OID_BL,
        OID_TEE,
        OID_SNP,
        *OIDS_SPARE,
        OID_UCODE,
        OID_FMC,
        OID_HWID,
        OID_CSP_ID,
    }
)

TURIN_HWID_SIZE: Final = 8
"""From Turin on the HWID is the first 8 bytes of CHIP_ID; before, it is all 64."""

AMD_ARK_SHA256: Final[Mapping[str, Product]] = {
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": Product.MILAN,
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": Product.GENOA,
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": Product.TURIN,
}
"""SHA-256 of AMD's ARK certificates (DER), as four public verifiers carry them."""

MAX_CRL_SIZE: Final = 1 << 20
MAX_CACHED_CHAINS: Final = 4096
MAX_CACHED_AUTHORITIES: Final = 16
"""Pairs of ASK or ASVK and ARK; AMD has two for each product line."""

MAX_CACHED_CRLS: Final = 16


class VekKind(StrEnum):
    """The two kinds of leaf key: per chip and TCB, or per provider and TCB."""

    VCEK = "VCEK"
    VLEK = "VLEK"


@dataclass(frozen=True, slots=True, kw_only=True)
class VekCertificate:
    """A VCEK or VLEK certificate, decoded; its chain is not verified yet.

    Attributes:
        kind: by the subject's common name.
        struct_version: 0 for Milan and Genoa, 1 from Turin on.
        product_name: as it stands, with a stepping in some: ``Milan-B0``.
        product: the product line that it names.
        tcb: the TCB version it was issued for.
        hwid: the chip it was issued for; None in a VLEK.
        csp_id: the provider it was issued for; None in a VCEK.
        key: ready to verify reports.
    """

    certificate: AmdCertificate
    kind: VekKind
    struct_version: int
    product_name: str
    product: Product
    tcb: TcbVersion
    hwid: bytes | None
    csp_id: str | None
    key: EcdsaKey

    @classmethod
    def parse(cls, der: bytes) -> Self:
        """Decode a leaf certificate with its AMD extensions.

        Raises:
            MalformedError: an extension is missing, unknown, or not in its canonical encoding; the key is not
                P-384; the common name is neither ``SEV-VCEK`` nor ``SEV-VLEK``; HWID and CSP_ID contradict it.
        """
        certificate = AmdCertificate.parse(der, what="VCEK or VLEK certificate")
        kinds = {"SEV-VCEK": VekKind.VCEK, "SEV-VLEK": VekKind.VLEK}
        kind = kinds.get(certificate.common_name)
        if kind is None:
            raise MalformedError(
                "VCEK or VLEK certificate",
                f"common name is {certificate.common_name!r:.60}, expected 'SEV-VCEK' or 'SEV-VLEK'",
            )
        what = f"{kind} certificate"
        key = _p384(certificate)
        if key is None:
            raise MalformedError(what, "public key is not on P-384")
        extensions = certificate.extensions
        unknown = sorted(oid for oid in extensions if oid.startswith(_AMD) and oid not in _KNOWN_EXTENSIONS)
        if unknown:
            raise MalformedError(what, f"AMD extension {unknown[0]} is not known")
        struct_version = _integer(extensions, OID_STRUCT_VERSION, what)
        product_name = _ia5(extensions, OID_PRODUCT_NAME, what)
        product = _product(product_name, what)
        if (struct_version >= 1) is not (product is Product.TURIN):
            raise MalformedError(what, f"structVersion {struct_version} does not go with product {product_name}")
        for oid in OIDS_SPARE:
            if oid in extensions and _integer(extensions, oid, what):
                raise MalformedError(what, f"spare patch level {oid} must be zero")
        if product is not Product.TURIN and OID_FMC in extensions:
            raise MalformedError(what, f"an FMC patch level does not go with product {product_name}")
        return cls(
            certificate=certificate,
            kind=kind,
            struct_version=struct_version,
            product_name=product_name,
            product=product,
            tcb=TcbVersion(
                bl=_integer(extensions, OID_BL, what),
                tee=_integer(extensions, OID_TEE, what),
                snp=_integer(extensions, OID_SNP, what),
                ucode=_integer(extensions, OID_UCODE, what),
                fmc=_integer(extensions, OID_FMC, what) if product is Product.TURIN else None,
            ),
            hwid=_hwid(extensions, kind, product),
            csp_id=_csp_id(extensions, kind),
            key=key,
        )


def _p384(certificate: AmdCertificate) -> EcdsaKey | None:
    """The certificate's key where it is on P-384, however its point is encoded."""
    key = certificate.public_key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        return EcdsaKey(key)
    return key if isinstance(key, EcdsaKey) and key.curve == ec.SECP384R1.name else None


def _extension(extensions: Mapping[str, bytes], oid: str, what: str) -> bytes:
    value = extensions.get(oid)
    if value is None:
        raise MalformedError(what, f"extension {oid} is missing")
    return value


def _integer(extensions: Mapping[str, bytes], oid: str, what: str) -> int:
    """A patch level: a canonical DER INTEGER from 0 to 255."""
    value = _extension(extensions, oid, what)
    try:
        number = asn1.decode_der(int, value)
    except ValueError as error:
        raise MalformedError(what, f"extension {oid} is not a DER INTEGER: {error}") from None
    if not 0 <= number <= 255:
        raise MalformedError(what, f"extension {oid} is {number}, expected 0 to 255")
    return number


def _ia5(extensions: Mapping[str, bytes], oid: str, what: str) -> str:
    try:
        return asn1.decode_der(asn1.IA5String, _extension(extensions, oid, what)).as_str()
    except ValueError as error:
        raise MalformedError(what, f"extension {oid} is not an IA5String: {error}") from None


def _product(name: str, what: str) -> Product:
    line, dash, stepping = name.partition("-")
    if line not in set(Product) or (dash and not (stepping.isascii() and stepping.isalnum() and len(stepping) <= 4)):
        raise MalformedError(what, f"productName {name!r:.60} is not a known product line")
    return Product(line)


def _hwid(extensions: Mapping[str, bytes], kind: VekKind, product: Product) -> bytes | None:
    value = extensions.get(OID_HWID)
    if kind is VekKind.VLEK:
        if value is not None:
            raise MalformedError("VLEK certificate", "carries a HWID, which only a VCEK may")
        return None
    size = TURIN_HWID_SIZE if product is Product.TURIN else CHIP_ID_SIZE
    if value is None or len(value) != size:
        raise MalformedError(
            "VCEK certificate", f"HWID has {0 if value is None else len(value)} bytes, {product} has {size}"
        )
    return value


def _csp_id(extensions: Mapping[str, bytes], kind: VekKind) -> str | None:
    if kind is VekKind.VCEK:
        if OID_CSP_ID in extensions:
            raise MalformedError("VCEK certificate", "carries a CSP_ID, which only a VLEK may")
        return None
    return _ia5(extensions, OID_CSP_ID, "VLEK certificate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """What the certificates that came with a report amount to; validity windows are not part of it.

    Attributes:
        vek: the leaf, or None where no certificate came at all.
        ask, ark: the other two, or None where the chain has not exactly three certificates.
        trusted: every rule about the chain but the windows holds and it ends in a pinned root.
        simulated: the pinned root is a simulator's.
    """

    vek: VekCertificate | None
    ask: AmdCertificate | None = None
    ark: AmdCertificate | None = None
    trusted: bool = False
    simulated: bool = False

    def check_validity(self, log: CheckLog, now: int) -> bool:
        """Record whether every certificate is valid at `now`, seconds since the epoch; each that is not, by name."""
        leaf = None if self.vek is None else self.vek.certificate
        ok = True
        for certificate in (leaf, self.ask, self.ark):
            if certificate is not None and not certificate.not_before <= now <= certificate.not_after:
                ok = log.require(
                    checks.CHAIN_VALIDITY,
                    ok=False,
                    expected=f"{certificate.not_before} to {certificate.not_after}",
                    actual=str(now),
                    where=certificate.common_name,
                )
        if ok and leaf is not None:
            log.require(checks.CHAIN_VALIDITY, ok=True, expected="", actual=str(now))
        return ok


@dataclass(frozen=True, slots=True, kw_only=True)
class Crl:
    """A revocation list whose signature by a pinned ARK has been checked; instants in seconds since the epoch."""

    issuer_common_name: str
    number: int
    this_update: int
    next_update: int
    revoked_serials: frozenset[int]


@dataclass(frozen=True, slots=True)
class _CachedChain:
    """A chain that verified, with what was checked, so that a hit reads like the first verification."""

    endorsement: Endorsement
    passed: tuple[Passed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Authorities:
    """ASK or ASVK and ARK, read, and which of their own two signatures verify; the same for every chip of a line."""

    ask: AmdCertificate
    ark: AmdCertificate
    fingerprint: str
    ask_signed: bool
    ark_signed: bool

    @classmethod
    def of(cls, ask_der: bytes, ark_der: bytes) -> Self:
        ask = AmdCertificate.parse(ask_der, what="ASK or ASVK certificate")
        ark = AmdCertificate.parse(ark_der, what="ARK certificate")
        return cls(
            ask=ask,
            ark=ark,
            fingerprint=hashlib.sha256(ark_der).hexdigest(),
            ask_signed=ask.is_signed_by(ark),
            ark_signed=ark.is_signed_by(ark),
        )


@dataclass(frozen=True, slots=True)
class SnpAnchors:
    """The pinned ARKs, with a bounded memory of chains that have verified against them.

    Attributes:
        roots: SHA-256 of an ARK certificate (lower-case hex) to the product line that it may vouch for.
        simulated_roots: which of them belong to a simulator; results that rest on one say so.
    """

    roots: Mapping[str, Product]
    simulated_roots: frozenset[str] = frozenset()
    _chains: LruCache[tuple[bytes, ...], _CachedChain] = field(
        default_factory=lambda: LruCache(MAX_CACHED_CHAINS), init=False, repr=False, compare=False
    )
    _authorities: LruCache[tuple[bytes, bytes], _Authorities] = field(
        default_factory=lambda: LruCache(MAX_CACHED_AUTHORITIES), init=False, repr=False, compare=False
    )
    _crls: LruCache[tuple[bytes, bytes], tuple[Crl, ...]] = field(
        default_factory=lambda: LruCache(MAX_CACHED_CRLS), init=False, repr=False, compare=False
    )

    @classmethod
    def amd(cls) -> Self:
        """AMD's own roots for Milan, Genoa and Turin."""
        return cls(roots=AMD_ARK_SHA256)

    @classmethod
    def simulated(cls, *ark_der: bytes) -> Self:
        """A simulator's roots, for tests, benches and the demo; every result that rests on one is marked.

        Raises:
            MalformedError: not an ARK certificate.
            TrustAnchorError: none was given, or one is AMD's own.
        """
        roots: dict[str, Product] = {}
        for der in ark_der:
            certificate = AmdCertificate.parse(der, what="simulated ARK certificate")
            fingerprint = hashlib.sha256(der).hexdigest()
            if fingerprint in AMD_ARK_SHA256:
                raise TrustAnchorError("SNP anchors: AMD's own ARK was given as a simulator's root")
            prefix, _, line = certificate.common_name.partition("-")
            if prefix != "ARK":
                raise MalformedError("simulated ARK certificate", f"common name {certificate.common_name!r:.60}")
            roots[fingerprint] = _product(line, "simulated ARK certificate")
        if not roots:
            raise TrustAnchorError("SNP anchors: no simulated root was given")
        return cls(roots=MappingProxyType(roots), simulated_roots=frozenset(roots))

    @classmethod
    def none(cls) -> Self:
        """No root at all: every chain is refused. For appraisals that accept no SEV-SNP evidence."""
        return cls(roots=MappingProxyType({}))

    def with_simulated(self, *ark_der: bytes) -> SnpAnchors:
        """These roots and those of simulators (DER); chains that verified before are not carried over.

        Raises:
            MalformedError: not an ARK certificate.
            TrustAnchorError: none was given, or one is AMD's own.
        """
        other = SnpAnchors.simulated(*ark_der)
        return SnpAnchors(
            roots=MappingProxyType({**self.roots, **other.roots}),
            simulated_roots=self.simulated_roots | other.simulated_roots,
        )

    def is_pinned(self, ark_der: bytes) -> bool:
        """Is this ARK certificate (DER) one of the pinned roots?"""
        return hashlib.sha256(ark_der).hexdigest() in self.roots

    def verify_chain(self, certificates: tuple[bytes, ...], log: CheckLog) -> Endorsement:
        """Check everything about the chain that does not depend on the time.

        Args:
            certificates: DER: VCEK or VLEK, then ASK or ASVK, then ARK.
            log: gets every outcome; a chain that was verified before gives the same outcomes again.

        Raises:
            MalformedError: a certificate cannot be decoded.
        """
        cached = self._chains.get(certificates)
        if cached is not None:
            log.passed.extend(cached.passed)
            return cached.endorsement
        own = CheckLog()
        endorsement = self._verify_chain(certificates, own)
        log.passed.extend(own.passed)
        log.findings.extend(own.findings)
        if endorsement.trusted:
            self._chains.put(certificates, _CachedChain(endorsement, tuple(own.passed)))
        return endorsement

    def _verify_chain(self, certificates: tuple[bytes, ...], log: CheckLog) -> Endorsement:
        if not log.require(
            checks.CHAIN_SHAPE,
            ok=len(certificates) == 3,
            expected="3 certificates: VCEK or VLEK, ASK or ASVK, ARK",
            actual=f"{len(certificates)} certificates",
        ):
            return Endorsement(vek=VekCertificate.parse(certificates[0]) if certificates else None)
        vek = VekCertificate.parse(certificates[0])
        authorities = self._read_authorities(certificates[1], certificates[2])
        ask, ark, fingerprint = authorities.ask, authorities.ark, authorities.fingerprint
        product = self.roots.get(fingerprint)
        log.require(
            checks.ROOT,
            ok=product is not None,
            expected=" or ".join(sorted(self.roots)) or "no root is pinned",
            actual=fingerprint,
        )
        # A root that is not pinned still has its links checked, so that a denial names every reason at once.
        line = (product or vek.product).value
        ask_name = f"SEV-VLEK-{line}" if vek.kind is VekKind.VLEK else f"SEV-{line}"
        for subject, issuer, signed in (
            (vek.certificate, ask, vek.certificate.is_signed_by(ask)),
            (ask, ark, authorities.ask_signed),
            (ark, ark, authorities.ark_signed),
        ):
            where = subject.common_name
            log.require(
                checks.CHAIN_SIGNATURE,
                ok=signed,
                expected=f"signed by {issuer.common_name}",
                actual=f"signature of {len(subject.signature)} bytes",
                where=where,
            )
            log.require(
                checks.CHAIN_NAMES,
                ok=subject.issuer == issuer.subject and subject.is_amd_name,
                expected=f"issued by {issuer.common_name} of Advanced Micro Devices",
                actual=f"issued by {subject.issuer_common_name}",
                where=where,
            )
        for certificate, name in ((ask, ask_name), (ark, f"ARK-{line}")):
            log.require(
                checks.CHAIN_NAMES,
                ok=certificate.common_name == name,
                expected=name,
                actual=certificate.common_name,
                where="common name",
            )
        for certificate, ca in ((vek.certificate, False), (ask, True), (ark, True)):
            may_sign = certificate.may_sign_certificates
            log.require(
                checks.CHAIN_CA,
                ok=may_sign is ca,
                expected=f"CA {ca}",
                actual=f"CA {may_sign}",
                where=certificate.common_name,
            )
        log.require(
            checks.PRODUCT, ok=vek.product.value == line, expected=line, actual=vek.product_name, where="of the leaf"
        )
        return Endorsement(
            vek=vek, ask=ask, ark=ark, trusted=not log.findings, simulated=fingerprint in self.simulated_roots
        )

    def _read_authorities(self, ask_der: bytes, ark_der: bytes) -> _Authorities:
        """Read and check the two authorities; remembered where a pinned ARK signed both, by every byte of both."""
        known = self._authorities.get((ask_der, ark_der))
        if known is None:
            known = _Authorities.of(ask_der, ark_der)
            if known.fingerprint in self.roots and known.ask_signed and known.ark_signed:
                self._authorities.put((ask_der, ark_der), known)
        return known

    def check_revocation(
        self,
        *,
        ask: AmdCertificate,
        ark: AmdCertificate,
        crls: tuple[bytes, ...],
        number_floor: int,
        floor_origin: str = "",
        now: int,
        log: CheckLog,
    ) -> Crl | None:
        """Record whether the chain is revoked by a list of its root; the list used, or None where none could be.

        Args:
            ask: ASK or ASVK.
            ark: the root, which must be pinned and checked already.
            crls: DER; lists of other issuers are passed over.
            number_floor: the highest CRL number that was ever used for this product line; 0 where none was.
            floor_origin: who says so, for findings.
            now: seconds since the epoch.
            log: gets every outcome.

        Raises:
            MalformedError: a list cannot be decoded.
        """
        usable = [crl for der in crls if (crl := self._crl(der, ark, log)) is not None]
        if not usable:
            log.require(checks.CRL_MISSING, ok=False, expected=f"a CRL of {ark.common_name}", actual="none")
            return None
        crl = max(usable, key=lambda each: (each.number, each.this_update))
        log.require(checks.CRL_MISSING, ok=True, expected="a CRL", actual=f"number {crl.number}")
        log.require(
            checks.CRL_WINDOW,
            ok=crl.this_update <= now < crl.next_update,
            expected=f"{crl.this_update} to {crl.next_update}",
            actual=str(now),
        )
        log.require(
            checks.CRL_ROLLBACK,
            ok=crl.number >= number_floor,
            expected=f"at least {number_floor}",
            actual=str(crl.number),
            reference=floor_origin,
        )
        for certificate in (ask, ark):
            log.require(
                checks.REVOKED,
                ok=certificate.serial not in crl.revoked_serials,
                expected="not revoked",
                actual=f"serial {certificate.serial:#x}",
                where=f"of {certificate.common_name}",
            )
        return crl

    def _crl(self, der: bytes, ark: AmdCertificate, log: CheckLog) -> Crl | None:
        """The list where it is of this root; a list of another root is remembered as no list."""
        key = (der, ark.der)
        known = self._crls.get(key)
        if known is None:
            listed = load_crl(der)
            if _crl_common_name(listed) != ark.common_name:
                self._crls.put(key, ())
                return None
            if not log.require(
                checks.CRL_SIGNATURE,
                ok=crl_is_signed_by(listed, ark),
                expected=f"signed by {ark.common_name}",
                actual=f"a list of {ark.common_name}",
            ):
                return None
            crl = _crl_content(listed)
            self._crls.put(key, (crl,))
            return crl
        if not known:
            return None
        log.require(checks.CRL_SIGNATURE, ok=True, expected="", actual=f"a list of {ark.common_name}")
        return known[0]


def load_crl(der: bytes) -> x509.CertificateRevocationList:
    """Decode a revocation list; nothing about it is verified yet.

    Raises:
        MalformedError: not a DER revocation list, or too long.
    """
    if len(der) > MAX_CRL_SIZE:
        raise MalformedError("CRL", f"{len(der)} bytes, at most {MAX_CRL_SIZE} are allowed")
    try:
        return x509.load_der_x509_crl(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise MalformedError("CRL", f"not a DER revocation list: {error}") from None


def crl_is_signed_by(crl: x509.CertificateRevocationList, ark: AmdCertificate) -> bool:
    """Does the list's signature verify with the key of `ark`, in AMD's one signature algorithm?"""
    return verify_pss_sha384(ark.public_key, signature=crl.signature, message=crl.tbs_certlist_bytes)


def crl_content(der: bytes) -> Crl:
    """What a revocation list says; believable only where `crl_is_signed_by` holds.

    Raises:
        MalformedError: not a DER revocation list, no CRL number, no nextUpdate, or a critical extension.
    """
    return _crl_content(load_crl(der))


def _crl_common_name(crl: x509.CertificateRevocationList) -> str:
    try:
        names = crl.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except (ValueError, TypeError) as error:
        # The library reads names only when they are asked for.
        raise MalformedError("CRL", f"issuer cannot be read: {error}") from None
    return str(names[0].value) if len(names) == 1 else ""


def _crl_content(crl: x509.CertificateRevocationList) -> Crl:
    try:
        critical = [extension.oid.dotted_string for extension in crl.extensions if extension.critical]
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        revoked = frozenset(entry.serial_number for entry in crl)
    except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise MalformedError("CRL", str(error)) from None
    if critical:
        raise MalformedError("CRL", f"critical extension {critical[0]} is not understood")
    if crl.next_update_utc is None:
        raise MalformedError("CRL", "has no nextUpdate")
    return Crl(
        issuer_common_name=_crl_common_name(crl),
        number=number,
        this_update=int(crl.last_update_utc.timestamp()),
        next_update=int(crl.next_update_utc.timestamp()),
        revoked_serials=revoked,
    )


def vek_kind_of(key: SigningKey | None) -> VekKind | None:
    """The kind of leaf that a report's SIGNING_KEY asks for; None where it is not signed by either."""
    if key is SigningKey.VCEK:
        return VekKind.VCEK
    if key is SigningKey.VLEK:
        return VekKind.VLEK
    return None
