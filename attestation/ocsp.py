"""Revocation by OCSP responses that were fetched beforehand (RFC 6960), judged without a network.

For each certificate that has an authority above it, a response is looked for whose CertID names it; whether the
response may be believed is decided by the subject's *issuer* alone, which must have signed it or delegated the signing
to a responder certificate that it issued for OCSPSigning (section 4.2.2.2). A response lives as long as it says, or,
where a bundle is carried to a site without a network, as long as a maximum age that the operator declares.

NVIDIA's responses live one day and carry no nonce, so that freshness rests on their window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from attestation.ecdsa import EcdsaKey
from attestation.errors import MalformedError
from attestation.findings import THIS_SESSION, Check, CheckLog, Passed, Severity
from attestation.lru import LruCache
from attestation.x509 import MAX_CERTIFICATE_SIZE, CertificateChain, contents

MAX_RESPONSE_SIZE: Final = 16384
"""Bytes; NVIDIA's have about 1,000."""
MAX_RESPONSES: Final = 4096
MAX_NONCE_SIZE: Final = 128
"""Bytes (RFC 9654, section 2.1)."""
CACHED_RESPONSES: Final = 4096
CACHED_SETS: Final = 8
"""Sets of responses that were read before; a verifier has one at a time, and the one that replaces it."""
CACHED_AUTHORITIES: Final = 256
"""Issuers, and responders that they appointed, whose keys are kept ready; a vendor has a few for each generation."""

_RFC = "RFC 6960, section "
_CURVE: Final = "secp384r1"
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


class _CertId(NamedTuple):
    """CertID without the serial number: whose certificate a response is about (section 4.1.1)."""

    hash_name: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """What one response says of one certificate; nothing about it is verified. Equal to itself alone."""

    der: bytes
    response: ocsp.OCSPResponse
    issuer: _CertId
    status: ocsp.OCSPCertStatus
    this_update: int
    next_update: int | None
    nonce: bytes | None

    def end(self, max_age: int | None) -> int:
        """When it is no longer used, where responses are used for `max_age` seconds at least."""
        end = self.this_update if self.next_update is None else self.next_update
        return end if max_age is None else max(end, self.this_update + max_age)


@dataclass(frozen=True, slots=True)
class OcspResponses:
    """Given responses by the serial number that they answer for, newest first; nothing about them is verified."""

    by_serial: Mapping[int, tuple[_Answer, ...]]

    @classmethod
    def parse(cls, responses: Iterable[bytes]) -> Self:
        """Read responses (DER).

        Raises:
            MalformedError: too many or too long, not a successful basic response, or a part that cannot be read.
        """
        return cls.collect(responses, _read)

    @classmethod
    def collect(cls, responses: Iterable[bytes], read: Callable[[bytes], tuple[tuple[int, _Answer], ...]]) -> Self:
        """The same with another way to `read` one response.

        Raises:
            MalformedError: too many, or `read` says so.
        """
        by_serial: dict[int, list[_Answer]] = {}
        for index, der in enumerate(sorted(set(responses))):
            if index >= MAX_RESPONSES:
                raise MalformedError("OCSP responses", f"more than {MAX_RESPONSES}")
            for serial, answer in read(der):
                by_serial.setdefault(serial, []).append(answer)
        return cls(
            {
                serial: tuple(sorted(answers, key=_precedence, reverse=True)) if len(answers) > 1 else tuple(answers)
                for serial, answers in by_serial.items()
            }
        )


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


@dataclass(frozen=True, slots=True)
class _Signer:
    """A certificate that may sign responses: an issuer's, or that of a responder which it appointed.

    Attributes:
        subject: the name, which is compared as names are.
        name: the same as it is encoded, which is hashed.
        point: the key as it stands in its BIT STRING; empty where it is no elliptic-curve key, which matches nothing.
        key_hash: its SHA-1, by which responses name who signed them.
        key: None where it is no P-384 key.
    """

    subject: x509.Name
    name: bytes
    point: bytes
    key_hash: bytes
    key: EcdsaKey | None
    not_before: int
    not_after: int

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        """Read what signing takes from `certificate`."""
        key = certificate.public_key()
        point = b""
        if isinstance(key, ec.EllipticCurvePublicKey):
            point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return cls(
            subject=certificate.subject,
            name=certificate.subject.public_bytes(),
            point=point,
            key_hash=hashlib.sha1(point, usedforsecurity=False).digest(),
            key=EcdsaKey(key) if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == _CURVE else None,
            not_before=int(certificate.not_valid_before_utc.timestamp()),
            not_after=int(certificate.not_valid_after_utc.timestamp()),
        )

    def cert_id(self, hash_name: str) -> _CertId:
        """What a CertID has of the certificates that this key issued.

        Raises:
            ValueError: no hash function of that name is known.
        """
        name = hashlib.new(hash_name, self.name, usedforsecurity=False).digest()
        return _CertId(hash_name, name, hashlib.new(hash_name, self.point, usedforsecurity=False).digest())

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Does the key verify an ECDSA-SHA384 signature?"""
        return self.key is not None and self.key.verify_der(signature, message)


@dataclass(frozen=True, slots=True)
class _Sound:
    """An authentic response that says "good", and what is recorded from `not_before` to before `end`."""

    not_before: int
    end: int
    this_update: int
    age_name: str
    passed: tuple[Passed, ...]


_SoundKey: TypeAlias = "tuple[_Answer, bytes, str, int | None]"
"""An answer, the DER of the certificate's issuer, the certificate's label, and the declared maximum age."""


class OcspCache:
    """Responses that were read before, and what was found authentic: responses, and responders' certificates.

    Keys are the bytes of responses and certificates. Whatever depends on the time is judged anew: what is kept of a
    sound response is the time from which and until which all of it holds, and that is compared on every use.
    """

    __slots__ = ("_answers", "_appointed", "_authentic", "_cert_ids", "_sets", "_signers", "sound")

    def __init__(self, capacity: int = CACHED_RESPONSES) -> None:
        """Start empty, for at most `capacity` responses."""
        self._sets: LruCache[tuple[bytes, ...], OcspResponses] = LruCache(CACHED_SETS)
        self._answers: LruCache[bytes, tuple[tuple[int, _Answer], ...]] = LruCache(capacity)
        self._authentic: LruCache[tuple[_Answer, bytes], _Responder] = LruCache(capacity)
        self._signers: LruCache[bytes, _Signer] = LruCache(CACHED_AUTHORITIES)
        self._cert_ids: LruCache[tuple[bytes, str], _CertId] = LruCache(CACHED_AUTHORITIES)
        self._appointed: LruCache[tuple[bytes, bytes], _Signer] = LruCache(CACHED_AUTHORITIES)
        self.sound: LruCache[_SoundKey, _Sound] = LruCache(capacity)

    def parse(self, responses: tuple[bytes, ...]) -> OcspResponses:
        """Read responses (DER); see `OcspResponses.parse`.

        Raises:
            MalformedError: see there.
        """
        known = self._sets.get(responses)
        if known is None:
            known = OcspResponses.collect(responses, self._read)
            self._sets.put(responses, known)
        return known

    def is_about(self, answer: _Answer, issuer_der: bytes) -> bool:
        """Is the issuer in the answer's CertID this one?"""
        key = (issuer_der, answer.issuer.hash_name)
        known = self._cert_ids.get(key)
        if known is None:
            try:
                known = self._issuer(issuer_der).cert_id(answer.issuer.hash_name)
            except ValueError:
                return False
            self._cert_ids.put(key, known)
        return known == answer.issuer

    def responder(self, answer: _Answer, issuer_der: bytes) -> _Responder | str:
        """Who signed `answer` on behalf of `issuer_der`, or why it is not authentic."""
        return self._authentic.get((answer, issuer_der)) or self._authenticate(answer, issuer_der)

    def keep(self, answer: _Answer, issuer_der: bytes, responder: _Responder) -> None:
        """Remember who signed an authentic answer that is not remembered as sound."""
        self._authentic.put((answer, issuer_der), responder)

    def _read(self, der: bytes) -> tuple[tuple[int, _Answer], ...]:
        known = self._answers.get(der)
        if known is None:
            known = _read(der)
            self._answers.put(der, known)
        return known

    def _issuer(self, der: bytes) -> _Signer:
        """A certificate of the chain that is judged."""
        known = self._signers.get(der)
        if known is None:
            known = _Signer.of(x509.load_der_x509_certificate(der))
            self._signers.put(der, known)
        return known

    def _given(self, response: ocsp.OCSPResponse, position: int, der: bytes) -> _Signer:
        """The certificate at `position` of those that came with `response`."""
        known = self._signers.get(der)
        if known is None:
            known = _Signer.of(response.certificates[position])
            self._signers.put(der, known)
        return known

    def _authenticate(self, answer: _Answer, issuer_der: bytes) -> _Responder | str:
        """Who signed the response on behalf of its subject's issuer, or why nobody did."""
        response = answer.response
        if response.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
            return f"signature algorithm {response.signature_algorithm_oid.dotted_string}"
        authority = self._issuer(issuer_der)
        signed, given = _cut(answer.der)
        if _is_responder(response, authority):
            verifies = authority.verifies(response.signature, signed)
            return _Responder(None, None) if verifies else "the issuer's key does not verify the signature"
        try:
            candidates = [
                (position, der)
                for position, der in enumerate(given)
                if _is_responder(response, self._given(response, position, der))
            ]
            if len(candidates) != 1:
                return f"{len(candidates)} certificates of the stated responder, expected one"
            position, der = candidates[0]
            responder = self._appointed.get((der, issuer_der))
            if responder is None:
                problem = _responder_problem(response.certificates[position], der, authority)
                if problem is not None:
                    return problem
                responder = self._given(response, position, der)
                self._appointed.put((der, issuer_der), responder)
        except _UNREADABLE as error:
            return f"the responder's certificate cannot be read: {error}"
        if not responder.verifies(response.signature, signed):
            return "the responder's key does not verify the signature"
        return _Responder(responder.not_before, responder.not_after)


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
        if position + 1 >= len(chain.der):
            break
        for answer in responses.by_serial.get(chain.serial_numbers[position], ()):
            key = (answer, chain.der[position + 1], chain.labels[position], rules.max_age)
            sound = None if answer.nonce is not None and rules.nonce is not None else cache.sound.get(key)
            if sound is not None and sound.not_before <= now < sound.end:
                log.passed.extend(sound.passed)
                ages[sound.age_name] = now - sound.this_update
                break
            if _check_newest(key, chain, position, rules=rules, cache=cache, now=now, log=log, ages=ages):
                break
        else:
            missing.append(chain.labels[position])
    log.require(
        NOT_GIVEN,
        ok=not missing,
        expected="a response for each",
        actual="none for " + "; ".join(missing) if missing else "there is",
    )
    return ages


def _check_newest(
    key: _SoundKey,
    chain: CertificateChain,
    position: int,
    *,
    rules: OcspRules,
    cache: OcspCache,
    now: int,
    log: CheckLog,
    ages: dict[str, int],
) -> bool:
    """Judge the answer in `key` if it is about the certificate at `position`, and say whether it is.

    The newest word counts: a hold may have been lifted, or a good certificate revoked, since the others. Of two words
    of one instant the one that is not good counts.
    """
    answer, issuer_der, label, max_age = key
    if not cache.is_about(answer, issuer_der):
        return False
    responder = cache.responder(answer, issuer_der)
    own = CheckLog()
    says = f"OCSP, on behalf of {chain.labels[position + 1].partition(' ')[2]}"
    used = _check_answer(answer, responder, rules=rules, now=now, log=own, where=label, says=says)
    log.passed.extend(own.passed)
    log.findings.extend(own.findings)
    age_name = f"ocsp {chain.serial_numbers[position]:x}"
    if used:
        ages[age_name] = now - answer.this_update
    if isinstance(responder, _Responder):
        asked = answer.nonce is not None and rules.nonce is not None
        if used and not own.findings and not asked:
            start, end = answer.this_update, answer.end(max_age)
            if responder.not_before is not None and responder.not_after is not None:
                start, end = max(start, responder.not_before), min(end, responder.not_after + 1)
            cache.sound.put(key, _Sound(start, end, answer.this_update, age_name, tuple(own.passed)))
        else:
            cache.keep(answer, issuer_der, responder)
    return True


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
    end = answer.end(rules.max_age)
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


def _read(der: bytes) -> tuple[tuple[int, _Answer], ...]:
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
                        issuer=_CertId(single.hash_algorithm.name, single.issuer_name_hash, single.issuer_key_hash),
                        status=single.certificate_status,
                        this_update=int(single.this_update_utc.timestamp()),
                        next_update=None if next_update is None else int(next_update.timestamp()),
                        nonce=nonces[0] if nonces else None,
                    ),
                )
            )
        # Reading these may fail too, and a response that cannot be read must not be found out later.
        _ = (response.certificates, response.signature_algorithm_oid, response.signature)
    except _UNREADABLE as error:
        raise MalformedError(_STRUCTURE, f"cannot be read: {error}") from error
    return tuple(answers)


def _responder_problem(responder: x509.Certificate, der: bytes, authority: _Signer) -> str | None:
    """Why `responder` may not answer for the issuer that is the `authority`; None where it may."""
    if len(der) > MAX_CERTIFICATE_SIZE:
        return "the responder's certificate is too long"
    if responder.issuer != authority.subject:
        return f"the responder was issued by {responder.issuer.rfc4514_string()}, not by the certificate's issuer"
    if responder.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384 or not authority.verifies(
        responder.signature, responder.tbs_certificate_bytes
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


def _is_responder(response: ocsp.OCSPResponse, signer: _Signer) -> bool:
    """Is `signer` the one that ResponderID states, by name or by the SHA-1 of its key (section 4.2.1)?"""
    if response.responder_key_hash is not None:
        return signer.key_hash == response.responder_key_hash
    return response.responder_name == signer.subject


def _cut(der: bytes) -> tuple[bytes, list[bytes]]:
    """What the signature of a response covers, and the certificates that came with it, as they stand in it.

    The response was read before; nothing is checked anew. OCSPResponse has a status and [0] ResponseBytes, and these
    have a type and an OCTET STRING that holds BasicOCSPResponse: tbsResponseData, signatureAlgorithm, signature, and
    certs, which is optional (section 4.2.1).
    """
    inside, _ = contents(der, 0)
    _, response_bytes = contents(der, inside)
    inside, _ = contents(der, response_bytes)
    inside, _ = contents(der, inside)
    _, octets = contents(der, inside)
    basic, _ = contents(der, octets)
    signed, end = contents(der, basic)
    _, algorithm = contents(der, signed)
    _, signature = contents(der, algorithm)
    _, offset = contents(der, signature)
    certificates = []
    if offset < end:
        inside, _ = contents(der, offset)
        offset, end = contents(der, inside)
        while offset < end:
            begin = offset
            _, offset = contents(der, begin)
            certificates.append(der[begin:offset])
    return der[signed:algorithm], certificates


def _precedence(answer: _Answer) -> tuple[int, bool, bytes]:
    """Sorts the answer that counts last."""
    return answer.this_update, answer.status is not ocsp.OCSPCertStatus.GOOD, answer.der


def _describe(answer: _Answer) -> str:
    """The status with its date."""
    return f"{answer.status.name.lower()} as of {answer.this_update}"
