"""Who may answer for a certificate authority: each rule for OCSP responses and responders by one that breaks it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from attestation import ocsp as module
from attestation.errors import MalformedError
from attestation.findings import CheckLog
from attestation.ocsp import (
    MAX_NONCE_SIZE,
    MAX_RESPONSE_SIZE,
    MAX_RESPONSES,
    OcspCache,
    OcspResponses,
    OcspRules,
    _Signer,
    check_revocation,
)
from attestation.x509 import MAX_CERTIFICATE_SIZE, CertificateChain, ChainRules, EcAlgorithm, verify_chain

NOW: Final = 1_790_000_000
HOUR: Final = 3600
BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
KEYS: Final = {name: ec.generate_private_key(ec.SECP384R1()) for name in ("subject", "issuer", "responder", "other")}
OID_UNKNOWN: Final = x509.ObjectIdentifier("1.2.3.4")
UNKNOWN: Final = x509.UnrecognizedExtension(OID_UNKNOWN, b"\x05\x00")


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=not sign,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def certificate(
    subject: str,
    issuer: str,
    *,
    key: Any,
    signer: Any = KEYS["issuer"],
    serial: int = 5,
    begin: datetime = BEGIN,
    end: datetime = END,
    algorithm: hashes.HashAlgorithm | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension, critical in extensions or ((UNKNOWN, False),):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, algorithm or hashes.SHA384())


ISSUER: Final = certificate("issuer", "root", key=KEYS["issuer"], signer=KEYS["other"], serial=4)
SUBJECT: Final = certificate("subject", "issuer", key=KEYS["subject"])
FOR_OCSP: Final = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)


def appointed(*extensions: tuple[x509.ExtensionType, bool], **changes: Any) -> x509.Certificate:
    """A responder's certificate from the issuer, for OCSPSigning unless `extensions` are given."""
    arguments: dict[str, Any] = {"key": KEYS["responder"], "extensions": extensions or (FOR_OCSP,), **changes}
    return certificate(arguments.pop("subject", "responder"), arguments.pop("issuer", "issuer"), **arguments)


RESPONDER: Final = appointed()


@dataclass(frozen=True)
class Answer:
    """One response; by default a good one, for `SUBJECT`, of an hour before `NOW`, by `RESPONDER`."""

    subject: x509.Certificate = SUBJECT
    issuer: x509.Certificate = ISSUER
    responder: x509.Certificate = RESPONDER
    signer: Any = KEYS["responder"]
    enclosed: tuple[x509.Certificate, ...] | None = None
    algorithm: hashes.HashAlgorithm = field(default_factory=hashes.SHA384)
    certid_hash: hashes.HashAlgorithm = field(default_factory=hashes.SHA384)
    by: ocsp.OCSPResponderEncoding = ocsp.OCSPResponderEncoding.HASH
    forged: bool = False
    revoked: bool = False
    at: int = NOW - HOUR
    until: int = NOW + HOUR
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()

    def der(self) -> bytes:
        at = datetime.fromtimestamp(self.at, UTC)
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=self.subject,
                issuer=self.issuer,
                algorithm=self.certid_hash,
                cert_status=ocsp.OCSPCertStatus.REVOKED if self.revoked else ocsp.OCSPCertStatus.GOOD,
                this_update=at,
                next_update=datetime.fromtimestamp(self.until, UTC),
                revocation_time=at if self.revoked else None,
                revocation_reason=None,
            )
            .responder_id(self.by, self.responder)
        )
        enclosed = (self.responder,) if self.enclosed is None else self.enclosed
        if enclosed:
            builder = builder.certificates(list(enclosed))
        for extension, critical in self.extensions:
            builder = builder.add_extension(extension, critical=critical)
        response = builder.sign(self.signer, self.algorithm)
        signature = response.signature
        der = response.public_bytes(Encoding.DER)
        return der.replace(signature, signature[:-1] + bytes([signature[-1] ^ 1])) if self.forged else der


SOUND: Final = Answer()
DIRECT: Final = replace(SOUND, responder=ISSUER, signer=KEYS["issuer"], enclosed=())
"""Signed by the issuer itself."""


@functools.cache
def chain_of(*certificates: x509.Certificate) -> CertificateChain:
    """A parsed chain; whether it is sound is not asked here."""
    rules = ChainRules(length=len(certificates), algorithm=EcAlgorithm.P384_SHA384, pinned_roots=frozenset())
    ders = [each.public_bytes(Encoding.DER) for each in certificates]
    return verify_chain(ders, rules=rules, now=NOW, log=CheckLog()).chain


@dataclass(frozen=True)
class Outcome:
    """What was found about `SUBJECT`."""

    findings: dict[str, str]
    passed: set[str]
    ages: dict[str, int]


def judge(
    *responses: bytes | Answer,
    issuer: x509.Certificate = ISSUER,
    cache: OcspCache | None = None,
    now: int = NOW,
    positions: tuple[int, ...] = (0,),
    rules: OcspRules | None = None,
) -> Outcome:
    """Judge `SUBJECT`, three times: what a cache keeps must change nothing."""
    given = tuple(each.der() if isinstance(each, Answer) else each for each in responses)
    cache = cache or OcspCache()
    outcomes = []
    for parsed in (OcspResponses.parse(given), cache.parse(given), cache.parse(given)):
        log = CheckLog()
        ages = check_revocation(
            chain_of(SUBJECT, issuer),
            positions=positions,
            responses=parsed,
            rules=rules or OcspRules(),
            cache=cache,
            now=now,
            log=log,
        )
        findings = {finding.code: finding.actual for finding in log.findings}
        outcomes.append(Outcome(findings, {each.code for each in log.passed}, dict(ages)))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    return outcomes[0]


@pytest.mark.parametrize("by", ocsp.OCSPResponderEncoding)
@pytest.mark.parametrize("answer", [SOUND, DIRECT], ids=["a responder", "the issuer"])
def test_the_issuer_and_its_responder_may_answer(answer: Answer, by: ocsp.OCSPResponderEncoding) -> None:
    outcome = judge(replace(answer, by=by))
    assert outcome.findings == {}
    assert outcome.passed == {"OCSP_AUTHENTIC", "OCSP_WINDOW", "OCSP_STATUS", "OCSP_NOT_GIVEN"}
    assert outcome.ages == {"ocsp 5": HOUR}
    assert set(judge(replace(answer, by=by, revoked=True)).findings) == {"OCSP_STATUS"}


@pytest.mark.parametrize(
    "responder",
    [
        appointed(FOR_OCSP, (x509.BasicConstraints(ca=False, path_length=None), True), (usage(sign=True), True)),
        appointed((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING, *FOR_OCSP[0]]), True)),
        appointed(FOR_OCSP, (UNKNOWN, False)),
    ],
)
def test_what_a_responders_certificate_may_have(responder: x509.Certificate) -> None:
    assert judge(replace(SOUND, responder=responder)).findings == {}


def _sized(size: int) -> x509.Certificate:
    """A responder's certificate of exactly this many bytes; its signature's own size varies by some."""
    padding = size - 500
    while True:
        made = appointed(FOR_OCSP, (x509.UnrecognizedExtension(OID_UNKNOWN, bytes(padding)), False))
        short = size - len(made.public_bytes(Encoding.DER))
        if not short:
            return made
        padding += short if abs(short) > 2 else 0


def test_the_size_of_a_responders_certificate() -> None:
    assert judge(replace(SOUND, responder=_sized(MAX_CERTIFICATE_SIZE))).findings == {}
    too_long = judge(replace(SOUND, responder=_sized(MAX_CERTIFICATE_SIZE + 1)))
    assert too_long.findings == {"OCSP_AUTHENTIC": "the responder's certificate is too long"}


P256: Final = ec.generate_private_key(ec.SECP256R1())
RSA: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
UNAPPOINTED: Final = {
    "of another issuer's name": (replace(SOUND, responder=appointed(issuer="another")), "was issued by CN=another"),
    "signed by another": (replace(SOUND, responder=appointed(signer=KEYS["other"])), "did not sign the responder's"),
    "signed with SHA-256": (replace(SOUND, responder=appointed(algorithm=hashes.SHA256())), "did not sign"),
    "with an unknown critical extension": (replace(SOUND, responder=appointed(FOR_OCSP, (UNKNOWN, True))), "1.2.3.4"),
    "an authority": (
        replace(SOUND, responder=appointed(FOR_OCSP, (x509.BasicConstraints(ca=True, path_length=None), True))),
        "certificate authority",
    ),
    "whose key may not sign": (replace(SOUND, responder=appointed(FOR_OCSP, (usage(sign=False), True))), "may not"),
    "without extended key usage": (
        replace(SOUND, responder=appointed((usage(sign=True), True))),
        "is not for OCSPSigning",
    ),
    "for something else": (
        replace(SOUND, responder=appointed((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False))),
        "is not for OCSPSigning",
    ),
    "on another curve": (replace(SOUND, responder=appointed(key=P256), signer=P256), "key does not verify"),
    "with a key of another kind": (
        replace(SOUND, enclosed=(appointed(key=RSA),), by=ocsp.OCSPResponderEncoding.NAME),
        "key does not verify",
    ),
    "that is not enclosed": (replace(SOUND, enclosed=()), "0 certificates"),
    "that is enclosed twice": (replace(SOUND, enclosed=(RESPONDER, appointed(serial=6))), "2 certificates"),
    "that somebody else signed for": (replace(SOUND, forged=True), "responder's key does not verify"),
    "the issuer, that somebody else signed for": (replace(DIRECT, forged=True), "issuer's key does not"),
    "that signed with SHA-256": (replace(SOUND, algorithm=hashes.SHA256()), "signature algorithm 1.2.840.10045.4.3.2"),
}


@pytest.mark.parametrize("case", UNAPPOINTED)
def test_a_responder_that_may_not_answer(case: str) -> None:
    answer, problem = UNAPPOINTED[case]
    outcome = judge(answer)
    assert set(outcome.findings) == {"OCSP_AUTHENTIC"}
    assert problem in outcome.findings["OCSP_AUTHENTIC"]
    assert outcome.ages == {}


def test_certificates_of_others_may_be_enclosed() -> None:
    stranger = appointed(subject="stranger", key=KEYS["other"])
    assert judge(replace(SOUND, enclosed=(stranger, RESPONDER))).findings == {}


def test_a_problem_of_the_responder_is_not_hidden_by_its_signature() -> None:
    unappointed = appointed((usage(sign=True), True))
    answer = replace(SOUND, responder=unappointed, forged=True)
    assert "not for OCSPSigning" in judge(answer).findings["OCSP_AUTHENTIC"]


@pytest.mark.parametrize(
    ("begin", "end", "ok"),
    [(NOW, NOW, True), (NOW - 1, NOW + 1, True), (NOW + 1, NOW + 2, False), (NOW - 2, NOW - 1, False)],
)
def test_a_responder_answers_while_its_certificate_is_valid(begin: int, end: int, ok: bool) -> None:
    responder = appointed(begin=datetime.fromtimestamp(begin, UTC), end=datetime.fromtimestamp(end, UTC))
    outcome = judge(replace(SOUND, responder=responder))
    assert ("OCSP_AUTHENTIC" in outcome.findings) is not ok
    assert outcome.ages == ({"ocsp 5": HOUR} if ok else {})


def test_a_good_answer_of_the_past_says_nothing_of_now() -> None:
    outcome = judge(replace(SOUND, at=NOW - 2 * HOUR, until=NOW))
    assert set(outcome.findings) == {"OCSP_WINDOW"}
    assert outcome.passed == {"OCSP_AUTHENTIC", "OCSP_NOT_GIVEN"}
    assert outcome.ages == {}
    forged = judge(replace(SOUND, at=NOW - 2 * HOUR, until=NOW, forged=True))
    assert set(forged.findings) == {"OCSP_WINDOW", "OCSP_AUTHENTIC"}


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384()])
def test_an_answer_names_the_issuer_by_name_and_key(algorithm: hashes.HashAlgorithm) -> None:
    sound = replace(SOUND, certid_hash=algorithm)
    assert judge(sound).findings == {}
    same_name = certificate("issuer", "root", key=KEYS["other"], signer=KEYS["other"], serial=4)
    same_key = certificate("another", "root", key=KEYS["issuer"], signer=KEYS["other"], serial=4)
    for issuer in (same_name, same_key, certificate("issuer", "root", key=RSA, signer=KEYS["other"])):
        outcome = judge(sound, issuer=issuer)
        assert set(outcome.findings) == {"OCSP_NOT_GIVEN"}
        assert outcome.passed == set()


def test_a_certificate_without_an_issuer_is_not_judged() -> None:
    outcome = judge(SOUND, positions=(0, 1, 0))
    assert outcome.findings == {}
    assert outcome.ages == {"ocsp 5": HOUR}


def test_an_older_answer_of_another_issuer_is_passed_over() -> None:
    other = replace(SOUND, issuer=certificate("another", "root", key=KEYS["other"], signer=KEYS["other"]), at=NOW - 60)
    assert judge(SOUND, other).ages == {"ocsp 5": HOUR}


def test_what_was_read_before_is_not_read_again() -> None:
    cache, given = OcspCache(), (SOUND.der(),)
    assert cache.parse(given) is cache.parse(given)


def test_signatures_and_certificates_are_read_and_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    verify, read = _Signer.verifies, _Signer.of

    def verifying(signer: _Signer, signature: bytes, message: bytes) -> bool:
        done.append("verified")
        return verify(signer, signature, message)

    def reading(given: x509.Certificate) -> _Signer:
        done.append(f"read {given.subject.rfc4514_string()}")
        return read(given)

    monkeypatch.setattr(_Signer, "verifies", verifying)
    monkeypatch.setattr(_Signer, "of", reading)
    cache, revoked = OcspCache(), replace(SOUND, revoked=True)
    given, chain = (revoked.der(),), chain_of(SUBJECT, ISSUER)

    def said(responses: tuple[bytes, ...]) -> list[str]:
        done.clear()
        log = CheckLog()
        check_revocation(
            chain,
            positions=(0,),
            responses=cache.parse(responses),
            rules=OcspRules(),
            cache=cache,
            now=NOW,
            log=log,
        )
        return [finding.code for finding in log.findings]

    assert said(given) == ["OCSP_STATUS"]
    assert done == ["read CN=issuer", "read CN=responder", "verified", "verified"]
    assert said(given) == ["OCSP_STATUS"]
    assert done == []
    # The same responder once more, for what it has not answered yet: only its new signature is verified.
    assert said((replace(revoked, at=NOW - HOUR + 1).der(),)) == ["OCSP_STATUS"]
    assert done == ["verified"]


@pytest.mark.parametrize(
    ("answer", "rules", "times"),
    [
        pytest.param(SOUND, OcspRules(), 1, id="sound"),
        pytest.param(DIRECT, OcspRules(), 1, id="by the issuer"),
        pytest.param(replace(SOUND, at=NOW), OcspRules(), 1, id="of this second"),
        pytest.param(SOUND, OcspRules(nonce=b"n"), 1, id="a nonce was sent and is not answered"),
        pytest.param(replace(SOUND, extensions=((x509.OCSPNonce(b"n"), False),)), OcspRules(), 1, id="nobody asked"),
        pytest.param(
            replace(SOUND, extensions=((x509.OCSPNonce(b"n"), False),)), OcspRules(nonce=b"n"), 3, id="a nonce is due"
        ),
        pytest.param(replace(SOUND, revoked=True), OcspRules(), 3, id="revoked"),
    ],
)
def test_a_sound_answer_is_judged_once(
    answer: Answer, rules: OcspRules, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []
    check = module._check_newest

    def checking(*arguments: Any, **options: Any) -> bool:
        judged.append(options["now"])
        return check(*arguments, **options)

    monkeypatch.setattr(module, "_check_newest", checking)
    cache = OcspCache()
    responses = cache.parse((answer.der(),))
    logs = [CheckLog() for _ in range(3)]
    for log in logs:
        check_revocation(
            chain_of(SUBJECT, ISSUER), positions=(0,), responses=responses, rules=rules, cache=cache, now=NOW, log=log
        )
    assert judged == [NOW] * times
    assert logs[0].passed == logs[1].passed == logs[2].passed != []


def test_a_response_is_decoded_once_in_whatever_set_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    read = module._read

    def reading(der: bytes) -> Any:
        decoded.append(der)
        return read(der)

    monkeypatch.setattr(module, "_read", reading)
    cache, first, second = OcspCache(), SOUND.der(), replace(SOUND, revoked=True).der()
    for given in ((first,), (first, second), (second, first)):
        cache.parse(given)
    assert decoded == [first, second]


def test_an_issuer_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    cert_id = _Signer.cert_id

    def hashing(signer: _Signer, hash_name: str) -> Any:
        hashed.append(hash_name)
        return cert_id(signer, hash_name)

    monkeypatch.setattr(_Signer, "cert_id", hashing)
    cache = OcspCache()
    for answer in (SOUND, replace(SOUND, revoked=True), replace(SOUND, certid_hash=hashes.SHA1())):
        judge(answer, cache=cache)
    assert hashed == ["sha384", "sha1"]


@pytest.mark.parametrize(
    "answer",
    [
        SOUND,
        DIRECT,
        replace(SOUND, revoked=True),
        replace(SOUND, responder=appointed(end=datetime.fromtimestamp(NOW + 60, UTC))),
        replace(SOUND, responder=appointed(begin=datetime.fromtimestamp(NOW - 60, UTC))),
        replace(SOUND, extensions=((x509.OCSPNonce(b"n"), False),)),
    ],
    ids=["sound", "by the issuer", "revoked", "short-lived responder", "young responder", "nonce"],
)
def test_a_warm_cache_says_what_a_cold_one_says(answer: Answer) -> None:
    der, warm = answer.der(), OcspCache()
    edges = (NOW - HOUR - 1, NOW - HOUR, NOW - 61, NOW - 60, NOW, NOW + 60, NOW + 61, NOW + HOUR - 1, NOW + HOUR)
    for max_age in (None, 2 * HOUR + 60):
        for nonce in (None, b"n", b"m"):
            rules = OcspRules(max_age=max_age, nonce=nonce)
            for now in (NOW, *edges, *reversed(edges)):
                assert judge(der, cache=warm, now=now, rules=rules) == judge(der, now=now, rules=rules)


def test_what_was_sound_for_one_issuer_is_nothing_for_another() -> None:
    cache, der = OcspCache(), SOUND.der()
    assert judge(der, cache=cache).findings == {}
    other = certificate("issuer", "root", key=KEYS["other"], signer=KEYS["other"], serial=4)
    assert set(judge(der, cache=cache, issuer=other).findings) == {"OCSP_NOT_GIVEN"}


def test_a_responder_that_answered_for_one_issuer_does_not_for_another() -> None:
    other = certificate("issuer", "root", key=KEYS["other"], signer=KEYS["other"], serial=9)
    cache = OcspCache()
    assert judge(SOUND, cache=cache).findings == {}
    assert set(judge(replace(SOUND, issuer=other), cache=cache, issuer=other).findings) == {"OCSP_AUTHENTIC"}


def test_a_newer_word_counts_with_a_warm_cache() -> None:
    cache, good = OcspCache(), SOUND.der()
    assert judge(good, cache=cache).findings == {}
    revoked = replace(SOUND, revoked=True, at=NOW - HOUR + 1).der()
    assert set(judge(good, revoked, cache=cache).findings) == {"OCSP_STATUS"}
    older = replace(SOUND, revoked=True, at=NOW - HOUR - 1).der()
    assert judge(older, good, cache=cache).findings == {}
    same = replace(SOUND, revoked=True).der()
    assert set(judge(good, same, cache=cache).findings) == {"OCSP_STATUS"}


def test_how_many_responses_are_read() -> None:
    der = SOUND.der()
    many = [der[:-2] + index.to_bytes(2, "big") for index in range(MAX_RESPONSES + 1)]
    assert len(OcspResponses.parse(many[:-1]).by_serial[5]) == MAX_RESPONSES
    assert len(OcspResponses.parse([der] * (MAX_RESPONSES + 1)).by_serial[5]) == 1, "the same one counts once"
    with pytest.raises(MalformedError, match=f"more than {MAX_RESPONSES}"):
        OcspResponses.parse(many)


def test_how_long_a_response_may_be() -> None:
    with pytest.raises(MalformedError, match="cannot be read"):
        OcspResponses.parse([bytes(MAX_RESPONSE_SIZE)])
    with pytest.raises(MalformedError, match=f"{MAX_RESPONSE_SIZE + 1} bytes, at most"):
        OcspResponses.parse([bytes(MAX_RESPONSE_SIZE + 1)])


def test_a_response_that_is_none() -> None:
    for status in ocsp.OCSPResponseStatus:
        if status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            refusal = ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)
            with pytest.raises(MalformedError, match=f"status {status.name}"):
                OcspResponses.parse([refusal])


def test_extensions_of_a_response() -> None:
    for extensions in (
        ((UNKNOWN, False),),
        ((x509.OCSPNonce(b"n" * MAX_NONCE_SIZE), True),),
        ((x509.OCSPNonce(b"n"), False), (UNKNOWN, False)),
    ):
        assert judge(replace(SOUND, extensions=extensions)).findings == {}
    with pytest.raises(MalformedError, match=r"1\.2\.3\.4"):
        judge(replace(SOUND, extensions=((UNKNOWN, True),)))
    with pytest.raises(MalformedError, match=r"1\.2\.3\.4"):
        judge(replace(SOUND, extensions=((UNKNOWN, True), (x509.OCSPNonce(b"n"), False))))
    with pytest.raises(MalformedError, match="a nonce that is too long"):
        judge(replace(SOUND, extensions=((x509.OCSPNonce(b"n" * (MAX_NONCE_SIZE + 1)), False),)))


@pytest.mark.parametrize(
    ("answered", "asked", "codes"),
    [(b"n", b"n", set()), (b"n", b"m", {"OCSP_NONCE"}), (None, b"m", set()), (b"n", None, set())],
)
def test_nonces(answered: bytes | None, asked: bytes | None, codes: set[str]) -> None:
    extensions = () if answered is None else ((x509.OCSPNonce(answered), False),)
    outcome = judge(replace(SOUND, extensions=extensions), rules=OcspRules(nonce=asked))
    assert set(outcome.findings) == codes
    assert ("OCSP_NONCE" in outcome.passed) is (answered is not None and asked == answered)


@pytest.mark.parametrize(
    ("now", "max_age", "current"),
    [
        (NOW - HOUR - 1, None, False),
        (NOW - HOUR, None, True),
        (NOW + HOUR - 1, None, True),
        (NOW + HOUR, None, False),
        (NOW + HOUR, 2 * HOUR + 1, True),
        (NOW + HOUR, 2 * HOUR, False),
        (NOW + HOUR - 1, 0, True),
    ],
)
def test_the_window(now: int, max_age: int | None, current: bool) -> None:
    outcome = judge(SOUND, now=now, rules=OcspRules(max_age=max_age))
    assert set(outcome.findings) == (set() if current else {"OCSP_WINDOW"})
    assert bool(outcome.ages) is current
