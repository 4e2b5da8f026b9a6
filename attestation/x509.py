"""Strict verification of short elliptic-curve certificate chains that end in a pinned root (RFC 5280, section 6).

A chain is judged as its sender laid it out, leaf first and root last: nothing is searched for, reordered or fetched,
and the root counts only if the SHA-256 of its DER is pinned. Every signature is verified by `attestation.ecdsa`.
Revocation is not looked at here: it needs collateral that a scheme may have or lack.

A chain that verified costs nothing to verify again but its validity windows: `ChainCache` remembers a bounded number
of them and compares the windows with `now` on every use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Final, Generic, TypeVar

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

_SERIAL_BITS: Final = 159
"""Positive and at most 20 octets (RFC 5280, section 4.1.2.2)."""
_CURVES: Final = frozenset({"secp256r1", "secp384r1"})
_COUNTRY_LENGTH: Final = 2
"""X.520, countryName."""
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

    @property
    def curve(self) -> str:
        """Name of the curve (SEC 2)."""
        return self.value[0]

    @property
    def signature_oid(self) -> x509.ObjectIdentifier:
        """Object identifier of the signature algorithm (RFC 5758, section 3.2)."""
        return self.value[1]


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


@dataclass(frozen=True, slots=True)
class CertificateChain:
    """A chain that was parsed; whether it is trusted is for `verify_chain` to say.

    Attributes:
        certificates: leaf first.
        der: the same, as they came.
        serial_numbers: of the certificates.
        labels: of the certificates, for people: position and subject.
        leaf_key: the leaf's key; None where it is on no curve that is verified.
        root_sha256: SHA-256 of the last certificate's DER.
    """

    certificates: tuple[x509.Certificate, ...]
    der: tuple[bytes, ...]
    serial_numbers: tuple[int, ...]
    labels: tuple[str, ...]
    leaf_key: EcdsaKey | None
    root_sha256: bytes


_Derived = TypeVar("_Derived")
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


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


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the rules ask of one certificate, read once; reading them is where bad encodings surface."""

    where: str
    serial_number: int
    certificate: x509.Certificate
    key: EcdsaKey | None
    curve: str
    issuer: bytes
    subject: bytes
    not_before: int
    not_after: int
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
    issuer: list[asn1.SetOf[_Attribute]]
    validity: asn1.TLV
    subject: list[asn1.SetOf[_Attribute]]
    subject_public_key_info: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(3)]


@asn1.sequence
class _Certificate:
    """Certificate (RFC 5280, section 4.1)."""

    tbs_certificate: _TbsCertificate
    signature_algorithm: asn1.TLV
    signature_value: asn1.BitString


class ChainCache(Generic[_Derived]):
    """Verified chains of one vendor, most recently used last, never more than `capacity`.

    Only chains that are trusted are kept, so that nobody without a certificate from the pinned root can push others
    out. Safe for concurrent use.
    """

    __slots__ = ("_derive", "_entries", "rules")

    def __init__(
        self,
        *,
        rules: ChainRules,
        derive: Callable[[CertificateChain], _Derived],
        capacity: int = DEFAULT_CACHED_CHAINS,
    ) -> None:
        """Start empty; `derive` reads a scheme's endorsements out of a chain, once per chain.

        Raises:
            ValueError: `capacity` is less than one.
        """
        if capacity < 1:
            raise ValueError(f"a chain cache holds at least one chain, not {capacity}")
        self.rules = rules
        self._derive = derive
        self._entries: LruCache[tuple[bytes, ...], _CacheEntry[_Derived]] = LruCache(capacity)

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
            return replace(entry.result, trusted=_check_validity(entry.facts, now, log))
        chain, facts = _parse(certificates)
        static = CheckLog()
        sound = _check_static(chain, facts, self.rules, static)
        log.passed.extend(static.passed)
        log.findings.extend(static.findings)
        valid = _check_validity(facts, now, log)
        result = ChainResult(chain, sound and valid, self._derive(chain))
        if result.trusted:
            not_before, not_after = max(fact.not_before for fact in facts), min(fact.not_after for fact in facts)
            self._entries.put(certificates, _CacheEntry(result, facts, tuple(static.passed), not_before, not_after))
        return result


@dataclass(frozen=True, slots=True)
class _CacheEntry(Generic[_Derived]):
    """A trusted chain with what need not be worked out again, and the time (inclusive) when all of it is valid."""

    result: ChainResult[_Derived]
    facts: tuple[_Facts, ...]
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
    chain, facts = _parse(tuple(certificates))
    sound = _check_static(chain, facts, rules, log)
    valid = _check_validity(facts, now, log)
    return ChainResult(chain, sound and valid, None)


def extension_value(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    """The DER inside the extension `oid` that `cryptography` does not know; None where it is absent."""
    for extension in certificate.extensions:
        if extension.oid == oid and isinstance(extension.value, x509.UnrecognizedExtension):
            return extension.value.value
    return None


def _parse(certificates: tuple[bytes, ...]) -> tuple[CertificateChain, tuple[_Facts, ...]]:
    """Parse every certificate and read what the rules ask about."""
    structure = "certificate chain"
    if not 1 <= len(certificates) <= MAX_CHAIN_LENGTH:
        raise MalformedError(structure, f"{len(certificates)} certificates, expected 1 to {MAX_CHAIN_LENGTH}")
    for index, der in enumerate(certificates):
        if len(der) > MAX_CERTIFICATE_SIZE:
            raise MalformedError(structure, f"certificate {index} has {len(der)} bytes, limit {MAX_CERTIFICATE_SIZE}")
    facts = tuple(_read(index, der) for index, der in enumerate(certificates))
    chain = CertificateChain(
        certificates=tuple(fact.certificate for fact in facts),
        der=certificates,
        serial_numbers=tuple(fact.serial_number for fact in facts),
        labels=tuple(fact.where for fact in facts),
        leaf_key=facts[0].key,
        root_sha256=hashlib.sha256(certificates[-1]).digest(),
    )
    return chain, facts


def _read(index: int, der: bytes) -> _Facts:
    """Read one certificate; `cryptography` parses lazily, so everything that may fail is touched here."""
    structure = f"certificate {index}"
    try:
        # The whole certificate as strict DER first: the parser below lets some defects pass with a warning.
        strict = asn1.decode_der(_Certificate, der)
        tbs = strict.tbs_certificate
        if tbs.version != x509.Version.v3.value:
            raise MalformedError(structure, "not X.509 v3")
        if not 0 < tbs.serial_number < 1 << _SERIAL_BITS:
            raise MalformedError(structure, f"serialNumber {tbs.serial_number} is not positive or too long")
        if bytes(tbs.signature.data) != bytes(strict.signature_algorithm.data):
            raise MalformedError(structure, "signature and signatureAlgorithm differ")
        _check_name(tbs.issuer, structure)
        _check_name(tbs.subject, structure)
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        curve = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
        extensions = certificate.extensions
        if len(extensions) > MAX_EXTENSIONS:
            raise MalformedError(structure, f"{len(extensions)} extensions, limit {MAX_EXTENSIONS}")
        basic = _find(extensions, x509.BasicConstraints)
        usage = _find(extensions, x509.KeyUsage)
        subject_key = _find(extensions, x509.SubjectKeyIdentifier)
        authority_key = _find(extensions, x509.AuthorityKeyIdentifier)
        subject = certificate.subject.rfc4514_string()
        return _Facts(
            where=f"[{index}] {subject}",
            serial_number=tbs.serial_number,
            certificate=certificate,
            key=EcdsaKey(key) if isinstance(key, ec.EllipticCurvePublicKey) and curve in _CURVES else None,
            curve=curve,
            issuer=certificate.issuer.public_bytes(),
            subject=certificate.subject.public_bytes(),
            not_before=int(certificate.not_valid_before_utc.timestamp()),
            not_after=int(certificate.not_valid_after_utc.timestamp()),
            unknown_critical=tuple(
                extension.oid.dotted_string
                for extension in extensions
                if extension.critical and extension.oid not in _UNDERSTOOD
            ),
            basic_constraints=None if basic is None else basic.value,
            basic_constraints_critical=basic is not None and basic.critical,
            key_usage=None if usage is None else usage.value,
            subject_key=None if subject_key is None else subject_key.value.digest,
            authority_key=None if authority_key is None else authority_key.value.key_identifier,
        )
    except _UNREADABLE as error:
        raise MalformedError(structure, f"cannot be read: {error}") from error


def _check_name(name: list[asn1.SetOf[_Attribute]], structure: str) -> None:
    """Refuse country names that are no two letters: the library below would only warn of them."""
    for attribute in (attribute for attributes in name for attribute in attributes.as_list()):
        value = attribute.value if isinstance(attribute.value, str) else attribute.value.as_str()
        if attribute.type == NameOID.COUNTRY_NAME and len(value) != _COUNTRY_LENGTH:
            raise MalformedError(structure, f"countryName {value!r} has other than two letters")


def _find(extensions: x509.Extensions, kind: type[_Extension]) -> x509.Extension[_Extension] | None:
    """The one extension of `kind`; None where it is absent."""
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _check_static(chain: CertificateChain, facts: tuple[_Facts, ...], rules: ChainRules, log: CheckLog) -> bool:
    """Every rule but validity: what is true of these bytes is true at any time."""
    count = len(facts)
    algorithm = rules.algorithm
    issuers = (*range(1, count), count - 1)
    """Position of each certificate's issuer: its successor; the root's own."""
    outcomes = (
        log.require(
            CHAIN_LENGTH,
            ok=count == rules.length == len(set(chain.der)),
            expected=f"{rules.length} different certificates",
            actual=f"{count}, {len(set(chain.der))} different",
        ),
        log.require(
            ROOT_PINNED,
            ok=chain.root_sha256 in rules.pinned_roots,
            expected="one of " + ", ".join(sorted(root.hex() for root in rules.pinned_roots)),
            actual=chain.root_sha256.hex(),
        ),
        _require_all(
            log,
            ALGORITHM,
            expected=f"{algorithm.curve} key, {algorithm.name} signature",
            problems=[
                (fact.where, f"{fact.curve} key, signature {fact.certificate.signature_algorithm_oid.dotted_string}")
                for fact in facts
                if fact.curve != algorithm.curve or fact.certificate.signature_algorithm_oid != algorithm.signature_oid
            ],
        ),
        _require_all(
            log,
            NAMES,
            expected="the subject of the next certificate",
            problems=[
                (fact.where, fact.certificate.issuer.rfc4514_string())
                for fact, issuer in zip(facts, issuers, strict=True)
                if fact.issuer != facts[issuer].subject
            ],
        ),
        _require_all(
            log,
            KEY_IDENTIFIERS,
            expected="the issuer's subject key identifier",
            problems=[
                (fact.where, fact.authority_key.hex())
                for fact, issuer in zip(facts, issuers, strict=True)
                if fact.authority_key is not None
                and facts[issuer].subject_key is not None
                and fact.authority_key != facts[issuer].subject_key
            ],
        ),
        _require_all(
            log,
            SIGNATURES,
            expected="a signature that verifies with the next certificate's key",
            problems=[
                (fact.where, "does not verify")
                for fact, issuer in zip(facts, issuers, strict=True)
                if not _is_signed_by(fact, facts[issuer], algorithm)
            ],
        ),
        _require_all(
            log,
            AUTHORITIES,
            expected="critical basicConstraints with cA in every certificate but the leaf",
            problems=[
                (fact.where, _describe_constraints(fact))
                for position, fact in enumerate(facts)
                if _is_authority(fact) != (position > 0)
            ],
        ),
        _require_all(
            log,
            PATH_LENGTH,
            expected="pathLenConstraint absent or no less than the authorities below",
            problems=[
                (fact.where, f"{fact.basic_constraints.path_length}, authorities below: {position - 1}")
                for position, fact in enumerate(facts)
                if fact.basic_constraints is not None
                and fact.basic_constraints.path_length is not None
                and fact.basic_constraints.path_length < position - 1
            ],
        ),
        _require_all(
            log,
            KEY_USAGE,
            expected="keyCertSign in every issuer, digitalSignature without keyCertSign in the leaf",
            problems=[
                (fact.where, "absent" if fact.key_usage is None else "not so")
                for position, fact in enumerate(facts)
                if not _has_usage(fact.key_usage, issuer=position > 0)
            ],
        ),
        _require_all(
            log,
            CRITICAL_EXTENSIONS,
            expected="basicConstraints, keyUsage",
            problems=[(fact.where, ", ".join(fact.unknown_critical)) for fact in facts if fact.unknown_critical],
        ),
    )
    return all(outcomes)


def _check_validity(facts: tuple[_Facts, ...], now: int, log: CheckLog) -> bool:
    """Is every certificate valid at `now`? Both bounds are inclusive (RFC 5280, section 4.1.2.5)."""
    problems = [
        (fact.where, f"{fact.not_before} to {fact.not_after}")
        for fact in facts
        if not fact.not_before <= now <= fact.not_after
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
    return issuer.key.verify_der(fact.certificate.signature, fact.certificate.tbs_certificate_bytes)


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
