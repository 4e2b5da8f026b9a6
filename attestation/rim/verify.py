"""Is a reference integrity manifest NVIDIA's, and unaltered?

The order of the rules is what makes them safe: the chain in the document is judged against a pinned root, its leaf's
key (never a KeyValue) verifies SignedInfo, SignedInfo's digest matches the canonical document, and the content is read
from those canonical bytes parsed anew. Of a manifest that is not authentic no value leaves this module; its content is
looked at only to name its defects too.

A signer's expiry is policy, because NVIDIA's signers live two years and manifests are used for longer: `check_signer`
decides it with the time of the appraisal and a grace period that is zero unless reference values say otherwise.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final, Self

from lxml import etree

from attestation.errors import MalformedError, TrustAnchorError
from attestation.findings import CheckLog, Passed
from attestation.lru import LruCache
from attestation.rim import checks
from attestation.rim.document import RimDocument
from attestation.rim.xml import parse_xml
from attestation.rim.xmldsig import EnvelopedSignature
from attestation.x509 import VALIDITY, CertificateChain, ChainRules, EcAlgorithm, verify_chain

NVIDIA_RIM_ROOT_SHA256: Final = bytes.fromhex("12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1")
"""SHA-256 of the DER of "NVIDIA CoRIM signing Root CA" (serial 45dae3a00e5037bddf877375ecb5e270, 16 March 2023)."""

CHAIN_LENGTH: Final = 4
"""Signer, its authority, the product's authority, root; so in every published manifest."""
CACHED_MANIFESTS: Final = 256
"""Manifests that verified before; a fleet has a few for each driver and VBIOS that it runs."""

_STRUCTURE: Final = "RIM"
_LABEL_SIZE: Final = 80


@dataclass(frozen=True, slots=True)
class VerifiedRim:
    """A manifest that its vendor signed; whether the signer is still valid is for `check_signer` to say.

    Attributes:
        document: its content, read from the bytes that were signed.
        chain: the signer's chain, leaf first.
        not_before, not_after: when all certificates of the chain are valid (inclusive), seconds since the epoch.
        simulated: the chain ends in a simulator's root, trusted by explicit configuration only.
    """

    document: RimDocument
    chain: CertificateChain
    not_before: int
    not_after: int
    simulated: bool


@dataclass(frozen=True, slots=True)
class _CacheEntry:
    rim: VerifiedRim
    passed: tuple[Passed, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RimAnchors:
    """Which roots manifests may end in, and the manifests that verified before.

    Attributes:
        roots: SHA-256 of the DER of each vendor root.
        simulated_roots: the same of simulators' roots.
    """

    roots: frozenset[bytes]
    simulated_roots: frozenset[bytes]
    rules: ChainRules
    verified: LruCache[bytes, _CacheEntry]

    @classmethod
    def nvidia(cls) -> Self:
        """NVIDIA's CoRIM signing root and nothing else."""
        return cls.of(roots=frozenset({NVIDIA_RIM_ROOT_SHA256}), simulated_roots=frozenset())

    @classmethod
    def simulated(cls, *roots: bytes) -> Self:
        """The roots of simulators, as DER, and nothing else.

        Raises:
            TrustAnchorError: no root is given.
        """
        return cls.of(roots=frozenset(), simulated_roots=frozenset(hashlib.sha256(root).digest() for root in roots))

    def with_simulated(self, *roots: bytes) -> Self:
        """These roots and those of simulators, as DER; manifests that verified before are not carried over."""
        added = {hashlib.sha256(root).digest() for root in roots}
        return self.of(roots=self.roots, simulated_roots=self.simulated_roots | added)

    @classmethod
    def of(cls, *, roots: frozenset[bytes], simulated_roots: frozenset[bytes]) -> Self:
        """These roots, by the SHA-256 of their DER.

        Raises:
            TrustAnchorError: there is none.
        """
        pinned = roots | simulated_roots
        if not pinned:
            raise TrustAnchorError("RIM: no root certificate is configured")
        rules = ChainRules(length=CHAIN_LENGTH, algorithm=EcAlgorithm.P384_SHA384, pinned_roots=pinned)
        return cls(roots, simulated_roots, rules, LruCache(CACHED_MANIFESTS))


def parse_rim(data: bytes) -> tuple[RimDocument, EnvelopedSignature]:
    """What a manifest says, unverified, and its signature; for inspection, never for appraisal.

    Raises:
        MalformedError: not a signed manifest.
    """
    root = parse_xml(data, _STRUCTURE)
    signature = EnvelopedSignature.take(root)
    return RimDocument.from_xml(root), signature


def verify_rim(data: bytes, *, anchors: RimAnchors, now: int, log: CheckLog) -> VerifiedRim | None:
    """Verify one manifest; None where it is not authentic, which `log` explains.

    Args:
        data: the document.
        anchors: pinned roots.
        now: time of the appraisal, seconds since the epoch; nothing is decided by it here.
        log: receives the outcome of every rule.
    """
    entry = anchors.verified.get(data)
    if entry is not None:
        log.passed.extend(entry.passed)
        return entry.rim
    own = CheckLog()
    rim = _verify(data, anchors, now, own)
    log.passed.extend(own.passed)
    log.findings.extend(own.findings)
    if rim is not None:
        anchors.verified.put(data, _CacheEntry(rim, tuple(own.passed)))
    return rim


def check_signer(rim: VerifiedRim, *, now: int, grace: int, log: CheckLog) -> bool:
    """Is the signer's chain valid at `now`, or expired for no longer than `grace` seconds, which `log` tells?"""
    where = rim.document.label
    window = f"{rim.not_before} to {rim.not_after}"
    expired = now > rim.not_after
    valid = rim.not_before <= now <= rim.not_after + grace
    log.require(
        checks.SIGNER_VALIDITY,
        ok=valid,
        expected=f"notBefore ≤ {now} ≤ notAfter" + (f" + {grace} seconds" if grace else ""),
        actual=window,
        where=where,
    )
    if valid and expired:
        log.require(
            checks.SIGNER_GRACE,
            ok=False,
            expected=f"valid at {now}",
            actual=f"expired {now - rim.not_after} seconds before, {grace} are granted",
            where=where,
        )
    return valid


def _verify(data: bytes, anchors: RimAnchors, now: int, log: CheckLog) -> VerifiedRim | None:
    """Every rule but the signer's validity."""
    try:
        root = parse_xml(data, _STRUCTURE)
    except MalformedError as error:
        log.require(checks.DOCUMENT, ok=False, expected="bounded XML of one encoding", actual=str(error))
        return None
    label = _label(root)
    log.require(checks.DOCUMENT, ok=True, expected="", actual=f"{len(data)} bytes", where=label)
    try:
        signature = EnvelopedSignature.take(root)
    except MalformedError as error:
        log.require(checks.SIGNATURE_FORM, ok=False, expected="one enveloped signature", actual=str(error), where=label)
        _content(data, log, label)
        return None
    log.require(checks.SIGNATURE_FORM, ok=True, expected="", actual="one enveloped signature", where=label)
    intact = log.require(
        checks.DIGEST,
        ok=signature.digest_matches,
        expected=signature.digest.hex(),
        actual=hashlib.sha384(signature.covered).hexdigest(),
        where=label,
    )
    chain = _chain(signature, anchors, now, log, label)
    verifies = chain is not None and chain.leaf_key is not None and signature.verifies(chain.leaf_key)
    signed = log.require(
        checks.SIGNATURE,
        ok=verifies,
        expected="verifies with the key of the chain's leaf",
        actual="verifies" if verifies else "does not verify",
        where=label,
    )
    # What was signed is what is read: the canonical bytes, parsed anew.
    document = _content(signature.covered, log, label)
    sound = not any(finding.code != VALIDITY.code for finding in log.findings)
    if document is None or chain is None or not (intact and signed and sound):
        return None
    return VerifiedRim(
        document=document,
        chain=chain,
        not_before=chain.not_before,
        not_after=chain.not_after,
        simulated=chain.root_sha256 in anchors.simulated_roots,
    )


def _chain(
    signature: EnvelopedSignature, anchors: RimAnchors, now: int, log: CheckLog, label: str
) -> CertificateChain | None:
    """The signer's chain, every rule but validity recorded; None where it cannot be parsed."""
    own = CheckLog()
    expected = "every rule for certificate chains, and a pinned RIM root"
    try:
        chain = verify_chain(signature.certificates, rules=anchors.rules, now=now, log=own).chain
    except MalformedError as error:
        log.require(checks.CHAIN, ok=False, expected=expected, actual=str(error), where=label)
        return None
    broken = [finding for finding in own.findings if finding.code != VALIDITY.code]
    log.findings.extend(replace(finding, field=f"{finding.field} of RIM {label}") for finding in broken)
    codes = ", ".join(sorted({finding.code for finding in broken}))
    log.require(checks.CHAIN, ok=not broken, expected=expected, actual=codes or "kept", where=label)
    return chain


def _content(data: bytes, log: CheckLog, label: str) -> RimDocument | None:
    """Read the content of `data`, or record what is wrong with it."""
    try:
        document = RimDocument.from_xml(parse_xml(data, _STRUCTURE))
    except MalformedError as error:
        log.require(checks.CONTENT, ok=False, expected="a whole manifest", actual=str(error), where=label)
        return None
    actual = f"{len(document.active)} of {len(document.measurements)} measurements are active"
    log.require(checks.CONTENT, ok=True, expected="", actual=actual, where=label)
    return document


def _label(root: etree._Element) -> str:
    """What an unverified document calls itself, for people; nothing is decided by it."""
    for element in root.iter():
        if isinstance(element.tag, str) and element.tag.endswith("}Meta"):
            text = f"{element.get('product', '')} {element.get('colloquialVersion', '')}".strip()
            return "".join(each for each in text if each.isprintable())[:_LABEL_SIZE]
    return ""
