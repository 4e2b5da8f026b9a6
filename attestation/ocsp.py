"""Revocation by OCSP responses that were fetched beforehand (RFC 6960), judged without a network.

For each certificate that has an authority above it, a response is looked for whose CertID names it; whether the
response may be believed is decided by the subject's *issuer* alone, which must have signed it or delegated the signing
to a responder certificate that it issued for OCSPSigning (section 4.2.2.2). A response lives as long as it says, or,
where a bundle is carried to a site without a network, as long as a maximum age that the operator declares.

NVIDIA's responses live one day and carry no nonce, so that freshness rests on their window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from attestation.ecdsa import EcdsaKey
from attestation.errors import MalformedError
from attestation.findings import THIS_SESSION, Check, CheckLog, Severity
from attestation.lru import LruCache
from attestation.x509 import MAX_CERTIFICATE_SIZE, CertificateChain

MAX_RESPONSE_SIZE: Final = 16384
"""Bytes; NVIDIA's have about 1,000."""
MAX_RESPONSES: Final = 4096
MAX_NONCE_SIZE: Final = 128
"""Bytes (RFC 9654, section 2.1)."""
CACHED_RESPONSES: Final = 4096
CACHED_SETS: Final = 8
"""Sets of responses that were read before; a verifier has one at a time, and the one that replaces it."""

_RFC = "RFC 6960, section "
_STRUCTURE: Final = "OCSP response"
_FETCH_AGAIN = "Fetch OCSP responses for these certificates again and import them."

AUTHENTIC: Final = Check(
    "OCSP_AUTHENTIC",
    "the certificate's issuer, or a responder that it appointed, signed the response",
    "OCSP signature, certs",
    f"{_RFC}3.2, 4.2.2.2",
    "The response is not its issuer's; fetch it from the responder that the certificate names.",
)
WINDOW: Final = Check(
    "OCSP_WINDOW",
    "the response is current, or no older than the declared maximum age",
    "OCSP thisUpdate, nextUpdate",
    f"{_RFC}3.2, 4.2.2.1",
    _FETCH_AGAIN + " Where that cannot be done daily, declare a maximum age in the reference values.",
)
NONCE: Final = Check(
    "OCSP_NONCE",
    "a response with a nonce answers the request that was made",
    "OCSP id-pkix-ocsp-nonce",
    f"{_RFC}4.4.1; RFC 9654",
    _FETCH_AGAIN,
)
STATUS: Final = Check(
    "OCSP_STATUS",
    "the certificate is not revoked, and its issuer knows it",
    "OCSP certStatus",
    f"{_RFC}2.2",
    "Take the device out of service: its vendor revoked one of its certificates, or does not know it.",
)
PAST_STATUS: Final = Check(
    "OCSP_PAST_STATUS",
    "no response outside its window says that the certificate is revoked",
    "OCSP certStatus",
    f"{_RFC}2.2",
    "Take the device out of service unless a current response says that the certificate is good again.",
)
NOT_GIVEN: Final = Check(
    "OCSP_NOT_GIVEN",
    "there is a response for every certificate below the root",
    "OCSP",
    f"{_RFC}2.1",
    "Import OCSP responses: without them a revoked certificate is not told from a good one.",
    Severity.INFORM,
)

CHECKS: Final = (AUTHENTIC, WINDOW, NONCE, STATUS, PAST_STATUS, NOT_GIVEN)
"""Every rule of this module, for the registry."""

_UNDERSTOOD: Final = frozenset(
    {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE}
)
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension)
"""What `cryptography` raises while it reads parts of a response or certificate that are not as they should be."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one response says of one certificate; nothing about it is verified."""

    der: bytes
    response: ocsp.OCSPResponse
    hash_name: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    status: ocsp.OCSPCertStatus
    this_update: int
    next_update: int | None
    nonce: bytes | None


@dataclass(frozen=True, slots=True)
class OcspResponses:
    """Given responses by the serial number that they answer for; nothing about them is verified."""

    by_serial: Mapping[int, tuple[_Answer, ...]]

    @classmethod
    def parse(cls, responses: Iterable[bytes]) -> Self:
        """Read responses (DER).

        Raises:
            MalformedError: too many or too long, not a successful basic response, or a part that cannot be read.
        """
        by_serial: dict[int, list[_Answer]] = {}
        for index, der in enumerate(sorted(set(responses))):
            if index >= MAX_RESPONSES:
                raise MalformedError("OCSP responses", f"more than {MAX_RESPONSES}")
            for serial, answer in _read(der):
                by_serial.setdefault(serial, []).append(answer)
        return cls({serial: tuple(answers) for serial, answers in by_serial.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class OcspRules:
    """How old a response may be, and what it must answer.

    Attributes:
        max_age: seconds after thisUpdate for which a response is used though its nextUpdate has passed; None holds it
            to nextUpdate.
        nonce: sent with the requests; None where the responses were not asked for by this verifier.
    """

    max_age: int | None = None
    nonce: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Responder:
    """Who signed an authentic response, and when its certificate is valid; no bounds where the issuer itself did."""

    not_before: int | None
    not_after: int | None


class OcspCache:
    """Sets of responses that were read before, and responses that were found authentic.

    Whatever depends on the time is judged anew.
    """

    __slots__ = ("_authentic", "_sets")

    def __init__(self, capacity: int = CACHED_RESPONSES) -> None:
        """Start empty, for at most `capacity` authentic responses."""
        self._authentic: LruCache[tuple[bytes, int, bytes, bytes], _Responder] = LruCache(capacity)
        self._sets: LruCache[tuple[bytes, ...], OcspResponses] = LruCache(CACHED_SETS)

    def parse(self, responses: tuple[bytes, ...]) -> OcspResponses:
        """Read responses (DER); see `OcspResponses.parse`.

        Raises:
            MalformedError: see there.
        """
        known = self._sets.get(responses)
        if known is None:
            known = OcspResponses.parse(responses)
            self._sets.put(responses, known)
        return known

    def newest(
        self, responses: OcspResponses, subject: x509.Certificate, issuer: x509.Certificate, issuer_der: bytes
    ) -> tuple[_Answer, _Responder | str] | None:
        """The newest response for `subject`, with who signed it or why it is not authentic; None where there is none.

        The newest word counts: a hold may have been lifted, or a good certificate revoked, since the others. Of two
        words of one instant the one that is not good counts.
        """
        serial = subject.serial_number
        answers = responses.by_serial.get(serial, ())
        for answer in sorted(answers, key=_precedence, reverse=True):
            key = (answer.der, serial, answer.issuer_name_hash + answer.issuer_key_hash, issuer_der)
            known = self._authentic.get(key)
            if known is not None:
                return answer, known
            if _names(answer, issuer):
                found = _authenticate(answer.response, issuer)
                if isinstance(found, _Responder):
                    self._authentic.put(key, found)
                return answer, found
        return None


def check_revocation(
    chain: CertificateChain,
    *,
    positions: Sequence[int],
    responses: OcspResponses,
    rules: OcspRules,
    cache: OcspCache,
    now: int,
    log: CheckLog,
) -> Mapping[str, int]:
    """Judge the revocation status of certificates of one chain.

    Args:
        chain: leaf first; a certificate's issuer is its successor.
        positions: of the certificates to judge; the last certificate has no issuer and cannot be one of them.
        responses: what was given, for this chain and any other.
        rules: age and nonce.
        cache: of authentic responses, from which `responses` were read or not.
        now: time of the appraisal, seconds since the epoch.
        log: receives the outcome of every rule.

    Returns:
        Age in seconds of each response that was used, by ``ocsp`` and the certificate's serial number in hex.
    """
    ages: dict[str, int] = {}
    missing: list[str] = []
    for position in positions:
        if position + 1 >= len(chain.certificates):
            break
        subject, issuer = chain.certificates[position], chain.certificates[position + 1]
        where = f"[{position}] {subject.subject.rfc4514_string()}"
        found = cache.newest(responses, subject, issuer, chain.der[position + 1])
        if found is None:
            missing.append(where)
            continue
        answer, responder = found
        says = f"OCSP, on behalf of {issuer.subject.rfc4514_string()}"
        if _check_answer(answer, responder, rules=rules, now=now, log=log, where=where, says=says):
            ages[f"ocsp {subject.serial_number:x}"] = now - answer.this_update
    log.require(
        NOT_GIVEN,
        ok=not missing,
        expected="a response for each",
        actual="none for " + "; ".join(missing) if missing else "there is",
    )
    return ages


def _check_answer(
    answer: _Answer,
    responder: _Responder | str,
    *,
    rules: OcspRules,
    now: int,
    log: CheckLog,
    where: str,
    says: str,
) -> bool:
    """Judge one response, whose word is that of who `says` it; True where it is authentic and current."""
    end = answer.this_update if answer.next_update is None else answer.next_update
    if rules.max_age is not None:
        end = max(end, answer.this_update + rules.max_age)
    current = answer.this_update <= now < end
    problem = responder if isinstance(responder, str) else None
    # A responder's certificate matters while its response does: outside the window that is said, and that alone.
    if isinstance(responder, _Responder) and current and responder.not_before is not None:
        not_after = responder.not_after or 0
        if not responder.not_before <= now <= not_after:
            problem = f"the responder's certificate is valid from {responder.not_before} to {not_after}, not at {now}"
    authentic = log.require(
        AUTHENTIC,
        ok=problem is None,
        expected="signed by the issuer, or by a responder that it appointed for OCSPSigning",
        actual=problem or "is",
        where=where,
        reference=says,
    )
    log.require(
        WINDOW,
        ok=current,
        expected=f"thisUpdate ≤ {now} < end",
        actual=f"{answer.this_update} to {end}",
        where=where,
        reference=says if end == answer.next_update else f"{says}, and the maximum age in the reference values",
    )
    if answer.nonce is not None and rules.nonce is not None:
        log.require(
            NONCE,
            ok=answer.nonce == rules.nonce,
            expected=rules.nonce.hex(),
            actual=answer.nonce.hex(),
            where=where,
            reference=THIS_SESSION,
        )
    if authentic:
        good = answer.status is ocsp.OCSPCertStatus.GOOD
        if current or not good:
            log.require(
                STATUS if current else PAST_STATUS,
                ok=good,
                expected="good",
                actual=_describe(answer),
                where=where,
                reference=says,
            )
    return authentic and current


def _read(der: bytes) -> list[tuple[int, _Answer]]:
    """Every single response in `der` with the serial number that it answers for."""
    if len(der) > MAX_RESPONSE_SIZE:
        raise MalformedError(_STRUCTURE, f"{len(der)} bytes, at most {MAX_RESPONSE_SIZE} are read")
    try:
        response = ocsp.load_der_ocsp_response(der)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise MalformedError(_STRUCTURE, f"status {response.response_status.name}, not a status of a certificate")
        nonces = [each.value.nonce for each in response.extensions if isinstance(each.value, x509.OCSPNonce)]
        unknown = [
            each.oid.dotted_string
            for each in (*response.extensions, *response.single_extensions)
            if each.critical and not isinstance(each.value, x509.OCSPNonce)
        ]
        if unknown or (nonces and len(nonces[0]) > MAX_NONCE_SIZE):
            raise MalformedError(_STRUCTURE, f"critical extensions {unknown}, or a nonce that is too long")
        answers = []
        for single in response.responses:
            next_update = single.next_update_utc
            answers.append(
                (
                    single.serial_number,
                    _Answer(
                        der=der,
                        response=response,
                        hash_name=single.hash_algorithm.name,
                        issuer_name_hash=single.issuer_name_hash,
                        issuer_key_hash=single.issuer_key_hash,
                        status=single.certificate_status,
                        this_update=int(single.this_update_utc.timestamp()),
                        next_update=None if next_update is None else int(next_update.timestamp()),
                        nonce=nonces[0] if nonces else None,
                    ),
                )
            )
        # Reading these may fail too, and a response that cannot be read must not be found out later.
        _ = (response.certificates, response.signature_algorithm_oid, response.signature, response.tbs_response_bytes)
    except _UNREADABLE as error:
        raise MalformedError(_STRUCTURE, f"cannot be read: {error}") from error
    return answers


def _names(answer: _Answer, issuer: x509.Certificate) -> bool:
    """Is the issuer in the answer's CertID this one?"""
    try:
        name = hashlib.new(answer.hash_name, issuer.subject.public_bytes(), usedforsecurity=False).digest()
        key = hashlib.new(answer.hash_name, _point(issuer), usedforsecurity=False).digest()
    except ValueError:
        return False
    return name == answer.issuer_name_hash and key == answer.issuer_key_hash


def _authenticate(response: ocsp.OCSPResponse, issuer: x509.Certificate) -> _Responder | str:
    """Who signed `response` on behalf of `issuer`, or why nobody did."""
    if response.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        return f"signature algorithm {response.signature_algorithm_oid.dotted_string}"
    if _is_responder(response, issuer):
        signed = _verifies(issuer, response.signature, response.tbs_response_bytes)
        return _Responder(None, None) if signed else "the issuer's key does not verify the signature"
    try:
        candidates = [each for each in response.certificates if _is_responder(response, each)]
        if len(candidates) != 1:
            return f"{len(candidates)} certificates of the stated responder, expected one"
        problem = _responder_problem(candidates[0], issuer)
    except _UNREADABLE as error:
        return f"the responder's certificate cannot be read: {error}"
    if problem is None and not _verifies(candidates[0], response.signature, response.tbs_response_bytes):
        problem = "the responder's key does not verify the signature"
    if problem is not None:
        return problem
    return _Responder(
        int(candidates[0].not_valid_before_utc.timestamp()), int(candidates[0].not_valid_after_utc.timestamp())
    )


def _responder_problem(responder: x509.Certificate, issuer: x509.Certificate) -> str | None:
    """Why `responder` may not answer for `issuer`; None where it may."""
    if len(responder.public_bytes(Encoding.DER)) > MAX_CERTIFICATE_SIZE:
        return "the responder's certificate is too long"
    if responder.issuer != issuer.subject:
        return f"the responder was issued by {responder.issuer.rfc4514_string()}, not by the certificate's issuer"
    if responder.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384 or not _verifies(
        issuer, responder.signature, responder.tbs_certificate_bytes
    ):
        return "the certificate's issuer did not sign the responder's certificate"
    extensions = responder.extensions
    unknown = [each.oid.dotted_string for each in extensions if each.critical and each.oid not in _UNDERSTOOD]
    if unknown:
        return f"the responder's certificate has critical extensions that are not understood: {', '.join(unknown)}"
    for each in extensions:
        if isinstance(each.value, x509.BasicConstraints) and each.value.ca:
            return "the responder is a certificate authority"
        if isinstance(each.value, x509.KeyUsage) and not each.value.digital_signature:
            return "the responder's key may not sign"
    usages = [each.value for each in extensions if isinstance(each.value, x509.ExtendedKeyUsage)]
    if not usages or ExtendedKeyUsageOID.OCSP_SIGNING not in usages[0]:
        return "the responder's certificate is not for OCSPSigning"
    return None


def _is_responder(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    """Is `certificate` the one that ResponderID states, by name or by the SHA-1 of its key (section 4.2.1)?"""
    if response.responder_key_hash is not None:
        return hashlib.sha1(_point(certificate), usedforsecurity=False).digest() == response.responder_key_hash
    return response.responder_name == certificate.subject


def _verifies(signer: x509.Certificate, signature: bytes, message: bytes) -> bool:
    """Does the signer's P-384 key verify an ECDSA-SHA384 signature?"""
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        return False
    return EcdsaKey(key).verify_der(signature, message)


def _point(certificate: x509.Certificate) -> bytes:
    """The key as it stands in its BIT STRING; empty where it is no elliptic-curve key, which then matches nothing."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _precedence(answer: _Answer) -> tuple[int, bool, bytes]:
    """Sorts the answer that counts last."""
    return answer.this_update, answer.status is not ocsp.OCSPCertStatus.GOOD, answer.der


def _describe(answer: _Answer) -> str:
    """The status with its date."""
    return f"{answer.status.name.lower()} as of {answer.this_update}"
