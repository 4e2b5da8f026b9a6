"""Strict verification of short elliptic-curve certificate chains that end in a pinned root (RFC 5280, section 6).

A chain is judged as its sender laid it out, leaf first and root last: nothing is searched for, reordered or fetched,
and the root counts only if the SHA-256 of its DER is pinned. Every signature is verified by `attestation.ecdsa`.
Revocation is not looked at here: it needs collateral that a scheme may have or lack.

A chain that verified costs nothing to verify again but its validity windows: `ChainCache` remembers a bounded number
of them and compares the windows with `now` on every use. Of a chain that is new, the certificates and signatures that
trusted chains had in common with it, down to their DER, are not read and verified again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Final, Generic, NamedTuple, TypeAlias, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from attestation.ecdsa import EcdsaKey
from attestation.errors import MalformedError
from attestation.findings import Check, CheckLog, Passed
from attestation.lru import LruCache

MAX_CHAIN_LENGTH: Final = 8
"""Certificates in a chain. NVIDIA's have 5, AMD's and Intel's 3."""
MAX_CERTIFICATE_SIZE: Final = 8192
"""Bytes of DER in a certificate; NVIDIA's largest has 897. Larger ones are refused before they are parsed."""
MAX_EXTENSIONS: Final = 32
"""Extensions in a certificate; NVIDIA's largest has 6."""
DEFAULT_CACHED_CHAINS: Final = 4096
"""Chains that a `ChainCache` keeps: one per device, some 4 KiB of certificates each."""
KNOWN_AUTHORITIES: Final = 256
"""Certificates above the leaf that are kept for chains not seen before; a vendor's few are in every chain."""

_RFC = "RFC 5280, section "
_ASK_VENDOR = "Fetch the certificate chain from the device again; if it stays so, ask the device's vendor."

CHAIN_LENGTH: Final = Check(
    code="X509_CHAIN_LENGTH",
    title="the chain has exactly the expected number of certificates, all different",
    field="certificate chain",
    source=_RFC + "6.1",
    remedy="Send the whole chain, leaf first and root last, and nothing else.",
)
ROOT_PINNED: Final = Check(
    code="X509_ROOT_PINNED",
    title="the chain ends in a pinned root",
    field="root certificate SHA-256",
    source=_RFC + "6.1.1 (d), trust anchor information",
    remedy="The device is not of the vendor whose root is pinned; check which trust anchors are configured.",
)
ALGORITHM: Final = Check(
    code="X509_ALGORITHM",
    title="keys and signatures use the one algorithm that the vendor uses",
    field="signatureAlgorithm, subjectPublicKeyInfo",
    source=_RFC + "4.1.1.2, 4.1.2.7",
    remedy=_ASK_VENDOR,
)
NAMES: Final = Check(
    code="X509_NAMES",
    title="each certificate names its successor as issuer, the root itself",
    field="issuer",
    source=_RFC + "6.1.3 (a) (4)",
    remedy="Send the chain in order, leaf first; the certificates are not of one chain.",
)
KEY_IDENTIFIERS: Final = Check(
    code="X509_KEY_IDENTIFIERS",
    title="each authority key identifier is the issuer's subject key identifier",
    field="authorityKeyIdentifier",
    source=_RFC + "4.2.1.1",
    remedy="The certificates are not of one chain; fetch the chain from the device again.",
)
SIGNATURES: Final = Check(
    code="X509_SIGNATURES",
    title="each certificate is signed by its successor, the root by itself",
    field="signatureValue",
    source=_RFC + "6.1.3 (a) (1)",
    remedy="The certificate was altered or is not of this chain; fetch the chain from the device again.",
)
AUTHORITIES: Final = Check(
    code="X509_AUTHORITIES",
    title="every issuer is a certificate authority, and the leaf is none",
    field="basicConstraints",
    source=_RFC + "4.2.1.9, 6.1.4 (k)",
    remedy=_ASK_VENDOR,
)
PATH_LENGTH: Final = Check(
    code="X509_PATH_LENGTH",
    title="no issuer has more certificate authorities below it than it allows",
    field="basicConstraints pathLenConstraint",
    source=_RFC + "4.2.1.9, 6.1.4 (l)",
    remedy=_ASK_VENDOR,
)
KEY_USAGE: Final = Check(
    code="X509_KEY_USAGE",
    title="issuers may sign certificates, the leaf may sign evidence and nothing else",
    field="keyUsage",
    source=_RFC + "4.2.1.3, 6.1.4 (n)",
    remedy=_ASK_VENDOR,
)
CRITICAL_EXTENSIONS: Final = Check(
    code="X509_CRITICAL_EXTENSIONS",
    title="every critical extension is understood",
    field="extensions",
    source=_RFC + "4.2, 6.1.4 (o), 6.1.5 (f)",
    remedy="This release does not know the extension; a newer one may.",
)
VALIDITY: Final = Check(
    code="X509_VALIDITY",
    title="every certificate is valid at the time of the appraisal",
    field="validity",
    source=_RFC + "4.1.2.5, 6.1.3 (a) (2)",
    remedy="Check the verifier's clock; a certificate that has expired must be renewed by its vendor.",
)

_VALID: Final = Passed(VALIDITY.code, VALIDITY.title, VALIDITY.field, "every certificate is")

CHECKS: Final = (
    CHAIN_LENGTH,
    ROOT_PINNED,
    ALGORITHM,
    NAMES,
    KEY_IDENTIFIERS,
    SIGNATURES,
    AUTHORITIES,
    PATH_LENGTH,
    KEY_USAGE,
    CRITICAL_EXTENSIONS,
    VALIDITY,
)
"""Every rule of this module, for the registry."""

_V3: Final = x509.Version.v3.value
_SERIAL_BITS: Final = 159
"""Positive and at most 20 octets (RFC 5280, section 4.1.2.2)."""
_CURVES: Final = frozenset({"secp256r1", "secp384r1"})
_COUNTRY_LENGTH: Final = 2
"""X.520, countryName."""
_PLAIN_NAMES: Final[Mapping[x509.ObjectIdentifier, str]] = {
    NameOID.COMMON_NAME: "CN",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.COUNTRY_NAME: "C",
    NameOID.SERIAL_NUMBER: NameOID.SERIAL_NUMBER.dotted_string,
}
"""Short names of RFC 4514, section 3, and the number of serialNumber, which has none."""
_PLAIN_VALUE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._:()/-]*[A-Za-z0-9._:()/-])?")
"""Nothing to escape (RFC 4514, section 2.4)."""
_UNREADABLE: Final = (
    ValueError,
    TypeError,  # a name attribute of a type that it must not have
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises while it reads parts of a certificate that are not as they should be."""
_UNDERSTOOD: Final = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})


class EcAlgorithm(Enum):
    """The algorithm of every key and signature of a chain: curve name, signature algorithm."""

    P256_SHA256 = ("secp256r1", SignatureAlgorithmOID.ECDSA_WITH_SHA256)
    P384_SHA384 = ("secp384r1", SignatureAlgorithmOID.ECDSA_WITH_SHA384)

    def __init__(self, curve: str, signature_oid: x509.ObjectIdentifier) -> None:
        """Name of the curve (SEC 2), and object identifier of the signature algorithm (RFC 5758, section 3.2)."""
        # Plain attributes: an enumeration's `value` costs a call in Python whenever it is read.
        self.curve = curve
        self.signature_oid = signature_oid


@dataclass(frozen=True, slots=True)
class ChainRules:
    """What one vendor's chains look like.

    Attributes:
        length: certificates from leaf to root, both included.
        algorithm: of every key and signature.
        pinned_roots: SHA-256 of the DER of each root that is trusted.
    """

    length: int
    algorithm: EcAlgorithm
    pinned_roots: frozenset[bytes]


NameAttributes: TypeAlias = "tuple[tuple[x509.ObjectIdentifier, str], ...]"
"""Type and value of each attribute of a name."""


@dataclass(frozen=True, slots=True)
class CertificateChain:
    """A chain that was parsed; whether it is trusted is for `verify_chain` to say.

    Thousands are remembered, so it has what is asked of a chain later and not the library's certificates, which are
    some thirty objects each once their extensions have been looked at.

    Attributes:
        der: the certificates as they came, leaf first.
        serial_numbers: of the certificates.
        labels: of the certificates, for people: position and subject.
        subjects: attributes of each certificate's subject, in the order of the encoding.
        points: of the certificates' keys, X9.62 uncompressed; empty where a key is on no curve that is verified.
        windows: notBefore and notAfter of each certificate, both inclusive, in seconds since the epoch.
        leaf_key: the leaf's key; None where it is on no curve that is verified.
        root_sha256: SHA-256 of the last certificate's DER.
    """

    der: tuple[bytes, ...]
    serial_numbers: tuple[int, ...]
    labels: tuple[str, ...]
    subjects: tuple[NameAttributes, ...]
    points: tuple[bytes, ...]
    windows: tuple[tuple[int, int], ...]
    leaf_key: EcdsaKey | None
    root_sha256: bytes

    @property
    def not_before(self) -> int:
        """When the last of the certificates becomes valid, in seconds since the epoch."""
        return max([begin for begin, _ in self.windows])

    @property
    def not_after(self) -> int:
        """When the first of the certificates ceases to be valid, in seconds since the epoch."""
        return min([end for _, end in self.windows])


_Derived = TypeVar("_Derived")


@dataclass(frozen=True, slots=True)
class ChainResult(Generic[_Derived]):
    """A chain, whether it is trusted at the time asked, and what a scheme reads out of its certificates.

    Attributes:
        chain: the parsed chain.
        trusted: every rule held.
        derived: what the cache's `derive` made of the chain; only believable where `trusted`.
    """

    chain: CertificateChain
    trusted: bool
    derived: _Derived


class _Facts(NamedTuple):
    """What the rules ask of one certificate, read once; reading them is where bad encodings surface.

    `signed`, `issuer` and `subject` are the certificate's own bytes: TBSCertificate and both names. A named tuple,
    because every device that is seen for the first time has two.
    """

    where: str
    serial_number: int
    certificate: x509.Certificate
    key: EcdsaKey | None
    curve: str
    signed: bytes
    issuer: bytes
    subject: bytes
    attributes: NameAttributes
    window: tuple[int, int]
    unknown_critical: tuple[str, ...]
    basic_constraints: x509.BasicConstraints | None
    basic_constraints_critical: bool
    key_usage: x509.KeyUsage | None
    subject_key: bytes | None
    authority_key: bytes | None


@asn1.sequence
class _Attribute:
    """AttributeTypeAndValue with the string types that RFC 5280, section 4.1.2.4 asks for, and IA5String."""

    type: x509.ObjectIdentifier
    value: asn1.PrintableString | str | asn1.IA5String


@asn1.sequence
class _TbsCertificate:
    """TBSCertificate of a v3 certificate without unique identifiers (RFC 5280, section 4.1)."""

    version: Annotated[int | None, asn1.Explicit(0)]
    serial_number: int
    signature: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: list[asn1.SetOf[_Attribute]]
    subject_public_key_info: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(3)]


@asn1.sequence
class _TbsIssuer:
    """The same TBSCertificate for its issuer, where that is not a name that was read already."""

    version: Annotated[int | None, asn1.Explicit(0)]
    serial_number: int
    signature: asn1.TLV
    issuer: list[asn1.SetOf[_Attribute]]
    validity: asn1.TLV
    subject: asn1.TLV
    subject_public_key_info: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(3)]


@asn1.sequence
class _Certificate:
    """Certificate (RFC 5280, section 4.1)."""

    tbs_certificate: asn1.TLV
    signature_algorithm: asn1.TLV
    signature_value: asn1.BitString


class _Authorities(NamedTuple):
    """Authorities of a trusted chain, from some position to its root: what chains not seen before share with it.

    Attributes:
        facts: of them, the root's last.
        root_sha256: SHA-256 of the root's DER.
        passed: what every sound chain that ends in them records, validity excepted; nothing in it is a device's own.
    """

    facts: tuple[_Facts, ...]
    root_sha256: bytes
    passed: tuple[Passed, ...]


class _Known:
    """Authorities of chains that were trusted under one set of rules, by their DER.

    Trusted chains have the one length that the rules ask for, so that equal DER at the end of another chain of that
    length stands in the same positions, and every rule has the same outcome for it again.
    """

    __slots__ = ("_entries", "_length")

    def __init__(self, length: int) -> None:
        """Start empty, for chains of `length` certificates."""
        self._entries: LruCache[tuple[bytes, ...], _Authorities] = LruCache(KNOWN_AUTHORITIES)
        self._length = length

    def longest(self, certificates: tuple[bytes, ...]) -> _Authorities | None:
        """The most of the authorities at the end of `certificates` that are known together."""
        if len(certificates) == self._length:
            for position in range(1, self._length):
                known = self._entries.get(certificates[position:])
                if known is not None:
                    return known
        return None

    def learn(self, chain: CertificateChain, facts: tuple[_Facts, ...], passed: tuple[Passed, ...], new: int) -> None:
        """Remember the authorities of a trusted chain, of which the first `new` certificates were not known."""
        for position in range(1, new + 1 if new < len(facts) else new):
            self._entries.put(chain.der[position:], _Authorities(facts[position:], chain.root_sha256, passed))


class ChainCache(Generic[_Derived]):
    """Verified chains of one vendor, most recently used last, never more than `capacity`.

    Only chains that are trusted are kept, so that nobody without a certificate from the pinned root can push others
    out. Safe for concurrent use.
    """

    __slots__ = ("_derive", "_entries", "_known", "rules")

    def __init__(
        self,
        *,
        rules: ChainRules,
        derive: Callable[[CertificateChain, x509.Certificate], _Derived],
        capacity: int = DEFAULT_CACHED_CHAINS,
    ) -> None:
        """Start empty; `derive` reads a scheme's endorsements out of a chain and its leaf, once per chain.

        Raises:
            ValueError: `capacity` is less than one.
        """
        if capacity < 1:
            raise ValueError(f"a chain cache holds at least one chain, not {capacity}")
        self.rules = rules
        self._derive = derive
        self._entries: LruCache[tuple[bytes, ...], _CacheEntry[_Derived]] = LruCache(capacity)
        self._known = _Known(rules.length)

    def __len__(self) -> int:
        return len(self._entries)

    def verify(self, certificates: tuple[bytes, ...], *, now: int, log: CheckLog) -> ChainResult[_Derived]:
        """Verify `certificates` (DER, leaf first) at `now`, recording every rule in `log`.

        Raises:
            MalformedError: no chain of certificates, or `derive` says so.
        """
        entry = self._entries.get(certificates)
        if entry is not None:
            log.passed.extend(entry.passed)
            if entry.not_before <= now <= entry.not_after:
                log.passed.append(_VALID)
                return entry.result
            return replace(entry.result, trusted=_check_validity(entry.result.chain, now, log))
        known = self._known.longest(certificates)
        chain, facts = _parse(certificates, known)
        static = CheckLog()
        sound = _check_static(chain, facts, self.rules, static, known)
        log.passed.extend(static.passed)
        log.findings.extend(static.findings)
        valid = _check_validity(chain, now, log)
        result = ChainResult(chain, sound and valid, self._derive(chain, facts[0].certificate))
        if result.trusted:
            passed = tuple(static.passed) if known is None else known.passed
            self._known.learn(chain, facts, passed, len(facts) - (0 if known is None else len(known.facts)))
            self._entries.put(certificates, _CacheEntry(result, passed, chain.not_before, chain.not_after))
        return result


class _CacheEntry(NamedTuple, Generic[_Derived]):
    """A trusted chain with what need not be worked out again, and the time (inclusive) when all of it is valid."""

    result: ChainResult[_Derived]
    passed: tuple[Passed, ...]
    not_before: int
    not_after: int


def verify_chain(certificates: Sequence[bytes], *, rules: ChainRules, now: int, log: CheckLog) -> ChainResult[None]:
    """Verify `certificates` (DER, leaf first) under `rules` at `now`, without a cache.

    Args:
        certificates: DER, leaf first, root last.
        rules: what the vendor's chains look like, and which roots are pinned.
        now: seconds since the epoch.
        log: receives the outcome of every rule.

    Raises:
        MalformedError: no chain of certificates.
    """
    chain, facts = _parse(tuple(certificates), None)
    sound = _check_static(chain, facts, rules, log, None)
    valid = _check_validity(chain, now, log)
    return ChainResult(chain, sound and valid, None)


def unknown_extensions(certificate: x509.Certificate) -> dict[x509.ObjectIdentifier, bytes]:
    """The DER inside each extension that `cryptography` does not know, by object identifier."""
    return {
        extension.oid: extension.value.value
        for extension in certificate.extensions
        if type(extension.value) is x509.UnrecognizedExtension
    }


def _parse(certificates: tuple[bytes, ...], known: _Authorities | None) -> tuple[CertificateChain, tuple[_Facts, ...]]:
    """Parse every certificate that is not among the `known` at the end, and read what the rules ask about."""
    structure = "certificate chain"
    if not 1 <= len(certificates) <= MAX_CHAIN_LENGTH:
        raise MalformedError(structure, f"{len(certificates)} certificates, expected 1 to {MAX_CHAIN_LENGTH}")
    for index, der in enumerate(certificates):
        if len(der) > MAX_CERTIFICATE_SIZE:
            raise MalformedError(structure, f"certificate {index} has {len(der)} bytes, limit {MAX_CERTIFICATE_SIZE}")
    facts = () if known is None else known.facts
    for index in reversed(range(len(certificates) - len(facts))):
        facts = (_read(index, certificates[index], facts[0].subject if facts else b""), *facts)
    chain = CertificateChain(
        der=certificates,
        serial_numbers=tuple([fact.serial_number for fact in facts]),
        labels=tuple([fact.where for fact in facts]),
        subjects=tuple([fact.attributes for fact in facts]),
        points=tuple([b"" if fact.key is None else fact.key.point for fact in facts]),
        windows=tuple([fact.window for fact in facts]),
        leaf_key=facts[0].key,
        root_sha256=hashlib.sha256(certificates[-1]).digest() if known is None else known.root_sha256,
    )
    return chain, facts


def _read(index: int, der: bytes, issuer: bytes) -> _Facts:
    """Read one certificate; `cryptography` parses lazily, so everything that may fail is touched here.

    Args:
        index: position in the chain.
        der: the certificate.
        issuer: subject of the certificate that follows, as it was encoded there: the name has been read.
    """
    structure = f"certificate {index}"
    try:
        # The whole certificate as strict DER first: the parser below lets some defects pass with a warning.
        strict = asn1.decode_der(_Certificate, der)
        tbs = strict.tbs_certificate.parse(_TbsCertificate)
        if tbs.version != _V3:
            raise MalformedError(structure, "not X.509 v3")
        if not 0 < tbs.serial_number < 1 << _SERIAL_BITS:
            raise MalformedError(structure, f"serialNumber {tbs.serial_number} is not positive or too long")
        if tbs.signature.data != strict.signature_algorithm.data:
            raise MalformedError(structure, "signature and signatureAlgorithm differ")
        parts = _tbs_parts(der)
        if parts.issuer not in (issuer, parts.subject):
            _name(strict.tbs_certificate.parse(_TbsIssuer).issuer, structure)
        attributes = _name(tbs.subject, structure)
        certificate = x509.load_der_x509_certificate(der)
        key, curve = _key(certificate, parts.public_key)
        extensions = certificate.extensions
        if len(extensions) > MAX_EXTENSIONS:
            raise MalformedError(structure, f"{len(extensions)} extensions, limit {MAX_EXTENSIONS}")
        basic = usage = subject_key = authority_key = None
        unknown_critical = []
        for extension in extensions:
            value = extension.value
            # These are no classes of others, and `isinstance` costs ten times as much: they are abstract base classes.
            kind = type(value)
            if kind is x509.BasicConstraints:
                basic = (cast("x509.BasicConstraints", value), extension.critical)
            elif kind is x509.KeyUsage:
                usage = cast("x509.KeyUsage", value)
            elif kind is x509.SubjectKeyIdentifier:
                subject_key = cast("x509.SubjectKeyIdentifier", value).digest
            elif kind is x509.AuthorityKeyIdentifier:
                authority_key = cast("x509.AuthorityKeyIdentifier", value).key_identifier
            if extension.critical and extension.oid not in _UNDERSTOOD:
                unknown_critical.append(extension.oid.dotted_string)
        label = _plain_name(attributes) if len(attributes) == len(tbs.subject) else None
        if label is None:
            label = certificate.subject.rfc4514_string()
        return _Facts(
            where=f"[{index}] {label}",
            serial_number=tbs.serial_number,
            certificate=certificate,
            key=key,
            curve=curve,
            signed=parts.signed,
            issuer=parts.issuer,
            subject=parts.subject,
            attributes=attributes,
            window=(
                int(certificate.not_valid_before_utc.timestamp()),
                int(certificate.not_valid_after_utc.timestamp()),
            ),
            unknown_critical=tuple(unknown_critical),
            basic_constraints=None if basic is None else basic[0],
            basic_constraints_critical=basic is not None and basic[1],
            key_usage=usage,
            subject_key=subject_key,
            authority_key=authority_key,
        )
    except _UNREADABLE as error:
        raise MalformedError(structure, f"cannot be read: {error}") from error


class _TbsParts(NamedTuple):
    """Encodings out of a certificate, with their headers."""

    signed: bytes
    issuer: bytes
    subject: bytes
    public_key: bytes


def _tbs_parts(der: bytes) -> _TbsParts:
    """Cut a v3 certificate that was decoded as strict DER; nothing is checked anew.

    TBSCertificate's fields are version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, and
    others that are of no interest here (RFC 5280, section 4.1).
    """
    start, _ = contents(der, 0)
    offset, end = contents(der, start)
    bounds = []
    for _ in range(7):
        bounds.append(offset)
        _, offset = contents(der, offset)
    return _TbsParts(
        signed=der[start:end],
        issuer=der[bounds[3] : bounds[4]],
        subject=der[bounds[5] : bounds[6]],
        public_key=der[bounds[6] : offset],
    )


def contents(der: bytes, offset: int) -> tuple[int, int]:
    """Where the contents of the element at `offset` begin and end (X.690, section 8.1.3).

    For cutting what was decoded as strict DER before; nothing is checked.
    """
    start, length = offset + 2, der[offset + 1]
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[start : start + size], "big")
        start += size
    return start, start + length


def _key(certificate: x509.Certificate, spki: bytes) -> tuple[EcdsaKey | None, str]:
    """The key where it is on a curve that is verified, and its curve or whatever else it is."""
    plain = EcdsaKey.from_spki(spki)
    if plain is not None:
        return plain, plain.curve
    key = certificate.public_key()
    curve = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
    return EcdsaKey(key) if isinstance(key, ec.EllipticCurvePublicKey) and curve in _CURVES else None, curve


def _name(name: list[asn1.SetOf[_Attribute]], structure: str) -> NameAttributes:
    """The attributes of a name, once nothing is left in it that the library below refuses or warns of.

    Raises:
        MalformedError: a country that is no two letters, a unique identifier that is text, an attribute twice in one
            place.
    """
    found: list[tuple[x509.ObjectIdentifier, str]] = []
    for each in name:
        attributes = [
            (attribute.type, attribute.value if isinstance(attribute.value, str) else attribute.value.as_str())
            for attribute in each.as_list()
        ]
        if not attributes or (len(attributes) > 1 and len(set(attributes)) < len(attributes)):
            raise MalformedError(structure, "a relative distinguished name is empty, or has an attribute twice")
        found += attributes
    for kind, value in found:
        if kind == NameOID.COUNTRY_NAME and len(value) != _COUNTRY_LENGTH:
            raise MalformedError(structure, f"countryName {value!r} has other than two letters")
        if kind == NameOID.X500_UNIQUE_IDENTIFIER:
            raise MalformedError(structure, "x500UniqueIdentifier is text, not a bit string")
    return tuple(found)


def _plain_name(attributes: NameAttributes) -> str | None:
    """A name of one attribute in each place as RFC 4514 writes it; None where that takes more than writing it down."""
    parts = []
    for kind, value in reversed(attributes):
        short = _PLAIN_NAMES.get(kind)
        if short is None or not _PLAIN_VALUE.fullmatch(value):
            return None
        parts.append(f"{short}={value}")
    return ",".join(parts)


def _check_static(
    chain: CertificateChain, facts: tuple[_Facts, ...], rules: ChainRules, log: CheckLog, known: _Authorities | None
) -> bool:
    """Every rule but validity: what is true of these bytes is true at any time.

    Certificates that are `known` broke no rule in their positions under a pinned root, and are not judged again.
    """
    count, different = len(facts), len(set(chain.der))
    last = count - 1
    problems: dict[str, list[tuple[str, str]]] = {}
    for position, fact in enumerate(facts if known is None else facts[: -len(known.facts)]):
        # Each certificate's issuer is its successor; the root's is itself.
        for check, actual in _problems(fact, facts[min(position + 1, last)], position, rules.algorithm):
            problems.setdefault(check.code, []).append((fact.where, actual))
    if known is not None and not problems and different == rules.length:
        log.passed.extend(known.passed)
        return True
    algorithm = rules.algorithm
    outcomes = [
        log.require(
            CHAIN_LENGTH,
            ok=count == rules.length == different,
            expected=f"{rules.length} different certificates",
            actual=f"{count}, {different} different",
        ),
        log.require(
            ROOT_PINNED,
            ok=chain.root_sha256 in rules.pinned_roots,
            expected="one of " + ", ".join(sorted(root.hex() for root in rules.pinned_roots)),
            actual=chain.root_sha256.hex(),
        ),
    ]
    for check, expected in (
        (ALGORITHM, f"{algorithm.curve} key, {algorithm.name} signature"),
        (NAMES, "the subject of the next certificate"),
        (KEY_IDENTIFIERS, "the issuer's subject key identifier"),
        (SIGNATURES, "a signature that verifies with the next certificate's key"),
        (AUTHORITIES, "critical basicConstraints with cA in every certificate but the leaf"),
        (PATH_LENGTH, "pathLenConstraint absent or no less than the authorities below"),
        (KEY_USAGE, "keyCertSign in every issuer, digitalSignature without keyCertSign in the leaf"),
        (CRITICAL_EXTENSIONS, "basicConstraints, keyUsage"),
    ):
        outcomes.append(_require_all(log, check, expected=expected, problems=problems.get(check.code, [])))
    return all(outcomes)


def _problems(fact: _Facts, issuer: _Facts, position: int, algorithm: EcAlgorithm) -> Iterator[tuple[Check, str]]:
    """The rules that one certificate breaks in its position, and what is found instead."""
    signature_oid = fact.certificate.signature_algorithm_oid
    if fact.curve != algorithm.curve or signature_oid != algorithm.signature_oid:
        yield ALGORITHM, f"{fact.curve} key, signature {signature_oid.dotted_string}"
    if fact.issuer != issuer.subject:
        yield NAMES, fact.certificate.issuer.rfc4514_string()
    if fact.authority_key is not None and issuer.subject_key is not None and fact.authority_key != issuer.subject_key:
        yield KEY_IDENTIFIERS, fact.authority_key.hex()
    if not _is_signed_by(fact, issuer, algorithm):
        yield SIGNATURES, "does not verify"
    if _is_authority(fact) != (position > 0):
        yield AUTHORITIES, _describe_constraints(fact)
    constraints = fact.basic_constraints
    if constraints is not None and constraints.path_length is not None and constraints.path_length < position - 1:
        yield PATH_LENGTH, f"{constraints.path_length}, authorities below: {position - 1}"
    if not _has_usage(fact.key_usage, issuer=position > 0):
        yield KEY_USAGE, "absent" if fact.key_usage is None else "not so"
    if fact.unknown_critical:
        yield CRITICAL_EXTENSIONS, ", ".join(fact.unknown_critical)


def _check_validity(chain: CertificateChain, now: int, log: CheckLog) -> bool:
    """Is every certificate valid at `now`? Both bounds are inclusive (RFC 5280, section 4.1.2.5)."""
    problems = [
        (label, f"{begin} to {end}")
        for label, (begin, end) in zip(chain.labels, chain.windows, strict=True)
        if not begin <= now <= end
    ]
    if problems:
        return _require_all(log, VALIDITY, expected=f"notBefore ≤ {now} ≤ notAfter", problems=problems)
    log.passed.append(_VALID)
    return True


def _require_all(log: CheckLog, check: Check, *, expected: str, problems: list[tuple[str, str]]) -> bool:
    """Record `check` once if there are no `problems` (where, actual), else one finding for each of them."""
    if not problems:
        return log.require(check, ok=True, expected=expected, actual=expected)
    for where, actual in problems:
        log.require(check, ok=False, expected=expected, actual=actual, where=where)
    return False


def _is_signed_by(fact: _Facts, issuer: _Facts, algorithm: EcAlgorithm) -> bool:
    """Does the issuer's key verify the certificate's signature under `algorithm`?"""
    if issuer.key is None or issuer.key.curve != algorithm.curve:
        return False
    return issuer.key.verify_der(fact.certificate.signature, fact.signed)


def _is_authority(fact: _Facts) -> bool:
    """Is the certificate an authority's? In an authority's, basicConstraints must be critical."""
    constraints = fact.basic_constraints
    return constraints is not None and constraints.ca and fact.basic_constraints_critical


def _describe_constraints(fact: _Facts) -> str:
    """What the certificate says of itself."""
    if fact.basic_constraints is None:
        return "basicConstraints absent"
    critical = "critical" if fact.basic_constraints_critical else "not critical"
    return f"cA {fact.basic_constraints.ca}, {critical}"


def _has_usage(usage: x509.KeyUsage | None, *, issuer: bool) -> bool:
    """May the key do what its place in the chain asks, and not what it forbids?"""
    if usage is None:
        return False
    return usage.key_cert_sign if issuer else usage.digital_signature and not usage.key_cert_sign
