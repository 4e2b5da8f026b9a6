"""Certificate chains: each rule on a chain that breaks exactly that rule, then the cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from attestation.ecdsa import EcdsaKey
from attestation.errors import MalformedError
from attestation.findings import CheckLog
from attestation.x509 import (
    CHECKS,
    MAX_CERTIFICATE_SIZE,
    MAX_CHAIN_LENGTH,
    ChainCache,
    ChainResult,
    ChainRules,
    EcAlgorithm,
    unknown_extensions,
    verify_chain,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
NOW = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp())
KEYS = [ec.generate_private_key(ec.SECP384R1()) for _ in range(6)]
OID_UNKNOWN = x509.ObjectIdentifier("1.2.3.4")


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(*, sign: bool = False, certify: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True)
class Cert:
    subject: str
    issuer: str
    key: object
    issuer_key: object
    serial: int = 1
    begin: datetime = BEGIN
    end: datetime = END
    hash: hashes.HashAlgorithm | None = field(default_factory=hashes.SHA384)
    constraints: tuple[bool, int | None] | None = (True, None)
    constraints_critical: bool = True
    key_usage: x509.KeyUsage | None = field(default_factory=lambda: usage(certify=True))
    authority_key: bytes | None = None
    unknown_critical: bool = False
    unknown: bool = False

    def der(self) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(self.subject))
            .issuer_name(name(self.issuer))
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.begin)
            .not_valid_after(self.end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
        )
        if self.constraints is not None:
            ca, length = self.constraints
            builder = builder.add_extension(x509.BasicConstraints(ca, length), critical=self.constraints_critical)
        if self.key_usage is not None:
            builder = builder.add_extension(self.key_usage, critical=True)
        if self.authority_key is not None:
            builder = builder.add_extension(x509.AuthorityKeyIdentifier(self.authority_key, None, None), critical=False)
        if self.unknown or self.unknown_critical:
            extension = x509.UnrecognizedExtension(OID_UNKNOWN, b"\x05\x00")
            builder = builder.add_extension(extension, critical=self.unknown_critical)
        return builder.sign(self.issuer_key, self.hash).public_bytes(Encoding.DER)


LEAF = Cert("leaf", "ca 1", KEYS[0], KEYS[1], constraints=None, key_usage=usage(sign=True))
CA1 = Cert("ca 1", "ca 2", KEYS[1], KEYS[2])
CA2 = Cert("ca 2", "root", KEYS[2], KEYS[3])
ROOT = Cert("root", "root", KEYS[3], KEYS[3])


def chain_of(*, leaf: Cert = LEAF, ca1: Cert = CA1, ca2: Cert = CA2, root: Cert = ROOT) -> tuple[bytes, ...]:
    return tuple(cert.der() for cert in (leaf, ca1, ca2, root))


def rules_for(chain: tuple[bytes, ...], *, length: int = 4) -> ChainRules:
    pins = frozenset({hashlib.sha256(chain[-1]).digest()})
    return ChainRules(length=length, algorithm=EcAlgorithm.P384_SHA384, pinned_roots=pins)


def judge(
    chain: tuple[bytes, ...], *, rules: ChainRules | None = None, now: int = NOW
) -> tuple[ChainResult[None], list[str]]:
    log = CheckLog()
    result = verify_chain(chain, rules=rules or rules_for(chain), now=now, log=log)
    assert result.trusted == (not log.findings)
    assert {finding.code for finding in log.findings} | {passed.code for passed in log.passed} == {
        check.code for check in CHECKS
    }
    return result, sorted({finding.code for finding in log.findings})


def test_sound_chain_is_trusted() -> None:
    result, findings = judge(chain_of())
    assert findings == []
    assert result.chain.leaf_key is not None
    assert len(result.chain.der) == 4


SKI3 = x509.SubjectKeyIdentifier.from_public_key(KEYS[3].public_key()).digest


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"leaf": replace(LEAF, issuer="another")}, "X509_NAMES"),
        ({"root": replace(ROOT, issuer="another")}, "X509_NAMES"),
        ({"leaf": replace(LEAF, issuer_key=KEYS[4])}, "X509_SIGNATURES"),
        ({"ca2": replace(CA2, issuer_key=KEYS[4])}, "X509_SIGNATURES"),
        ({"root": replace(ROOT, issuer_key=KEYS[4])}, "X509_SIGNATURES"),
        ({"ca1": replace(CA1, authority_key=b"another key")}, "X509_KEY_IDENTIFIERS"),
        ({"ca1": replace(CA1, constraints=None)}, "X509_AUTHORITIES"),
        ({"ca1": replace(CA1, constraints=(False, None))}, "X509_AUTHORITIES"),
        ({"root": replace(ROOT, constraints_critical=False)}, "X509_AUTHORITIES"),
        ({"leaf": replace(LEAF, constraints=(True, None))}, "X509_AUTHORITIES"),
        ({"ca2": replace(CA2, constraints=(True, 0))}, "X509_PATH_LENGTH"),
        ({"root": replace(ROOT, constraints=(True, 1))}, "X509_PATH_LENGTH"),
        ({"ca1": replace(CA1, key_usage=None)}, "X509_KEY_USAGE"),
        ({"ca1": replace(CA1, key_usage=usage(sign=True))}, "X509_KEY_USAGE"),
        ({"leaf": replace(LEAF, key_usage=None)}, "X509_KEY_USAGE"),
        ({"leaf": replace(LEAF, key_usage=usage(sign=True, certify=True))}, "X509_KEY_USAGE"),
        ({"leaf": replace(LEAF, key_usage=usage())}, "X509_KEY_USAGE"),
        ({"leaf": replace(LEAF, unknown_critical=True)}, "X509_CRITICAL_EXTENSIONS"),
        ({"leaf": replace(LEAF, end=datetime(2026, 2, 1, tzinfo=UTC))}, "X509_VALIDITY"),
        ({"ca2": replace(CA2, begin=datetime(2026, 7, 1, tzinfo=UTC))}, "X509_VALIDITY"),
        ({"root": replace(ROOT, end=datetime(2026, 2, 1, tzinfo=UTC))}, "X509_VALIDITY"),
        ({"ca1": replace(CA1, hash=hashes.SHA256())}, "X509_ALGORITHM"),
    ],
)
def test_each_defect_is_found(changes: dict[str, Cert], code: str) -> None:
    _, findings = judge(chain_of(**changes))
    assert code in findings
    # SHA-256 under P-384 is no signature that this chain's algorithm verifies either.
    assert set(findings) <= {code, "X509_SIGNATURES"}
    if code != "X509_ALGORITHM":
        assert findings == [code]


@pytest.mark.parametrize(
    "changes",
    [
        {"leaf": replace(LEAF, unknown=True)},
        {"leaf": replace(LEAF, constraints=(False, None))},
        {"ca1": replace(CA1, constraints=(True, 0)), "ca2": replace(CA2, constraints=(True, 1))},
        {"root": replace(ROOT, constraints=(True, 2), authority_key=SKI3), "ca2": replace(CA2, authority_key=SKI3)},
    ],
)
def test_what_rfc_5280_allows_is_trusted(changes: dict[str, Cert]) -> None:
    assert judge(chain_of(**changes))[1] == []


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1()), "rsa", "ed25519"]
)
def test_other_key_in_the_leaf_is_found(key: object) -> None:
    made = {
        "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }
    leaf = replace(LEAF, key=made[key]() if isinstance(key, str) else key)
    result, findings = judge(chain_of(leaf=leaf))
    assert findings == ["X509_ALGORITHM"]
    assert not result.trusted


def test_other_key_in_an_issuer_breaks_its_signatures_too() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = chain_of(leaf=replace(LEAF, issuer_key=key), ca1=replace(CA1, key=key))
    assert judge(chain)[1] == ["X509_ALGORITHM", "X509_SIGNATURES"]


def test_p256_rules_trust_p256_chains() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    root = replace(ROOT, key=key, issuer_key=key, hash=hashes.SHA256()).der()
    leaf = replace(LEAF, key=key, issuer="root", issuer_key=key, hash=hashes.SHA256()).der()
    rules = replace(rules_for((leaf, root), length=2), algorithm=EcAlgorithm.P256_SHA256)
    assert judge((leaf, root), rules=rules)[1] == []


def test_root_that_is_not_pinned_is_found() -> None:
    chain = chain_of()
    rules = replace(rules_for(chain), pinned_roots=frozenset({hashlib.sha256(CA2.der()).digest()}))
    assert judge(chain, rules=rules)[1] == ["X509_ROOT_PINNED"]


def test_no_pinned_root_trusts_nothing() -> None:
    chain = chain_of()
    assert judge(chain, rules=replace(rules_for(chain), pinned_roots=frozenset()))[1] == ["X509_ROOT_PINNED"]


@pytest.mark.parametrize("length", [1, 3, 5])
def test_other_lengths_are_found(length: int) -> None:
    chain = chain_of()
    assert judge(chain, rules=rules_for(chain, length=length))[1] == ["X509_CHAIN_LENGTH"]


def test_a_repeated_root_does_not_stand_in_for_a_missing_authority() -> None:
    ca1 = replace(CA1, issuer="root", issuer_key=KEYS[3])
    root = ROOT.der()
    chain = (LEAF.der(), ca1.der(), root, root)
    assert judge(chain)[1] == ["X509_CHAIN_LENGTH"]


def test_certificates_in_another_order_are_found() -> None:
    leaf, ca1, ca2, root = chain_of()
    findings = judge((leaf, ca2, ca1, root))[1]
    assert findings == ["X509_NAMES", "X509_SIGNATURES"]


def test_validity_bounds_are_inclusive() -> None:
    chain = chain_of()
    begin, end = int(BEGIN.timestamp()), int(END.timestamp())
    assert judge(chain, now=begin)[1] == judge(chain, now=end)[1] == []
    assert judge(chain, now=begin - 1)[1] == judge(chain, now=end + 1)[1] == ["X509_VALIDITY"]


def test_every_single_bit_of_a_certificate_matters() -> None:
    """Flip one bit per byte of the leaf: nothing but malformed or not trusted comes out."""
    chain = chain_of()
    rules = rules_for(chain)
    leaf = chain[0]
    for offset in range(len(leaf)):
        changed = bytearray(leaf)
        changed[offset] ^= 1 << (offset % 8)
        log = CheckLog()
        try:
            result = verify_chain((bytes(changed), *chain[1:]), rules=rules, now=NOW, log=log)
        except MalformedError:
            continue
        assert not result.trusted, f"byte {offset}"


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ((), "0 certificates"),
        ((b"",) * (MAX_CHAIN_LENGTH + 1), "9 certificates"),
        ((bytes(MAX_CERTIFICATE_SIZE + 1),), "8193 bytes, limit 8192"),
        ((b"no certificate",), "certificate 0"),
        ((LEAF.der() + b"\0",), "certificate 0"),
        ((LEAF.der()[:-1],), "certificate 0"),
    ],
)
def test_no_chain_of_certificates_is_malformed(chain: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        verify_chain(chain, rules=rules_for((b"",)), now=NOW, log=CheckLog())


def patched(der: bytes, old: bytes, new: bytes) -> bytes:
    assert der.count(old) >= 1
    assert len(old) == len(new)
    return der.replace(old, new, 1)


@pytest.mark.parametrize(
    ("der", "reason"),
    [
        (patched(LEAF.der(), bytes.fromhex("a003020102"), bytes.fromhex("a003020101")), "not X.509 v3"),
        (patched(LEAF.der(), bytes.fromhex("020102020101"), bytes.fromhex("020102020100")), "serialNumber 0"),
        (patched(LEAF.der(), bytes.fromhex("020102020101"), bytes.fromhex("0201020201ff")), "serialNumber -1"),
        (
            patched(LEAF.der(), bytes.fromhex("06082a8648ce3d040303"), bytes.fromhex("06082a8648ce3d040302")),
            "signature and signatureAlgorithm differ",
        ),
    ],
)
def test_forms_that_rfc_5280_forbids_are_malformed(der: bytes, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        verify_chain((der,), rules=rules_for((der,)), now=NOW, log=CheckLog())


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("0603550403", "0603550406", "countryName 'leaf' has other than two letters"),
        ("0c046c656166", "03046c656166", "certificate 0"),
    ],
)
def test_names_that_x520_forbids_are_malformed(old: str, new: str, reason: str) -> None:
    """The library would warn of the one and raise TypeError for the other."""
    der = LEAF.der()
    at = der.index(b"leaf") - 7
    changed = der[:at] + patched(der[at:], bytes.fromhex(old), bytes.fromhex(new))
    with pytest.raises(MalformedError, match=reason):
        verify_chain((changed,), rules=rules_for((changed,)), now=NOW, log=CheckLog())


def test_too_many_extensions_are_malformed() -> None:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name("bomb"))
        .issuer_name(name("bomb"))
        .public_key(KEYS[0].public_key())
        .serial_number(1)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
    )
    for number in range(33):
        oid = x509.ObjectIdentifier(f"1.2.3.{number}")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"\x05\x00"), critical=False)
    der = builder.sign(KEYS[0], hashes.SHA384()).public_bytes(Encoding.DER)
    with pytest.raises(MalformedError, match="33 extensions, limit 32"):
        verify_chain((der,), rules=rules_for((der,)), now=NOW, log=CheckLog())


def test_unknown_extensions_are_those_that_the_library_does_not_know() -> None:
    certificate = x509.load_der_x509_certificate(replace(LEAF, unknown=True).der())
    assert len(certificate.extensions) > 1
    assert unknown_extensions(certificate) == {OID_UNKNOWN: b"\x05\x00"}
    assert unknown_extensions(x509.load_der_x509_certificate(LEAF.der())) == {}


def cache_for(chain: tuple[bytes, ...], *, capacity: int = 2) -> tuple[ChainCache[str], list[int]]:
    calls: list[int] = []

    def derive(parsed: object, leaf: object) -> str:
        calls.append(1)
        return f"derived {len(calls)}"

    return ChainCache(rules=rules_for(chain), derive=derive, capacity=capacity), calls


def test_cache_verifies_once_and_reports_the_same_rules() -> None:
    chain = chain_of()
    cache, calls = cache_for(chain)
    first, second = CheckLog(), CheckLog()
    one = cache.verify(chain, now=NOW, log=first)
    two = cache.verify(tuple(bytes(bytearray(der)) for der in chain), now=NOW, log=second)
    assert one.trusted
    assert two.trusted
    assert one.chain is two.chain
    assert one.derived == two.derived == "derived 1"
    assert len(calls) == len(cache) == 1
    assert {passed.code for passed in first.passed} == {passed.code for passed in second.passed}
    assert not first.findings
    assert not second.findings


def test_cached_chain_is_not_trusted_outside_its_validity() -> None:
    chain = chain_of()
    cache, _ = cache_for(chain)
    cache.verify(chain, now=NOW, log=CheckLog())
    log = CheckLog()
    result = cache.verify(chain, now=int(END.timestamp()) + 1, log=log)
    assert not result.trusted
    assert {finding.code for finding in log.findings} == {"X509_VALIDITY"}


def test_untrusted_chains_are_not_kept() -> None:
    chain = chain_of(leaf=replace(LEAF, issuer_key=KEYS[4]))
    cache, calls = cache_for(chain)
    for _ in range(2):
        assert not cache.verify(chain, now=NOW, log=CheckLog()).trusted
    assert len(cache) == 0
    assert len(calls) == 2
    sound = chain_of()
    cache, _ = cache_for(sound)
    assert not cache.verify(sound, now=int(END.timestamp()) + 1, log=CheckLog()).trusted
    assert len(cache) == 0


def test_cache_is_bounded_and_forgets_the_least_recently_used() -> None:
    authorities = chain_of()[1:]
    chains = [(replace(LEAF, serial=serial).der(), *authorities) for serial in (1, 2, 3)]
    cache, calls = cache_for(chains[0])
    for index in (0, 1, 0, 2):
        cache.verify(chains[index], now=NOW, log=CheckLog())
    assert len(cache) == 2
    assert len(calls) == 3
    cache.verify(chains[0], now=NOW, log=CheckLog())
    assert len(calls) == 3
    cache.verify(chains[1], now=NOW, log=CheckLog())
    assert len(calls) == 4


def test_cache_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one chain"):
        cache_for(chain_of(), capacity=0)


def test_authorities_of_trusted_chains_are_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[bytes] = []
    verify_der = EcdsaKey.verify_der

    def count(key: EcdsaKey, signature: bytes, message: bytes) -> bool:
        verified.append(message)
        return verify_der(key, signature, message)

    monkeypatch.setattr(EcdsaKey, "verify_der", count)
    first = chain_of()
    other = (replace(LEAF, serial=2).der(), *first[1:])
    cache, _ = cache_for(first)
    cold, warm = CheckLog(), CheckLog()
    assert cache.verify(first, now=NOW, log=cold).trusted
    assert len(verified) == 4
    assert cache.verify(other, now=NOW, log=warm).trusted
    assert len(verified) == 5
    assert verified[-1] == x509.load_der_x509_certificate(other[0]).tbs_certificate_bytes
    assert cold.passed == warm.passed


def test_known_authorities_vouch_for_no_other_certificate() -> None:
    first = chain_of()
    cache, _ = cache_for(first)
    assert cache.verify(first, now=NOW, log=CheckLog()).trusted
    forged = replace(LEAF, issuer_key=KEYS[4]).der()
    impostor = replace(CA1, issuer_key=KEYS[4]).der()
    for chain in ((forged, *first[1:]), (first[0], impostor, *first[2:])):
        log = CheckLog()
        assert not cache.verify(chain, now=NOW, log=log).trusted
        assert {finding.code for finding in log.findings} == {"X509_SIGNATURES"}
    # Known at another place: a certificate above the leaf is no leaf.
    log = CheckLog()
    assert not cache.verify((first[1], *first[1:]), now=NOW, log=log).trusted


def test_known_authorities_are_held_to_the_time() -> None:
    begin = datetime(2026, 5, 1, tzinfo=UTC)
    short = replace(CA1, begin=begin).der()
    authorities = (short, *chain_of()[2:])
    chains = [(replace(LEAF, serial=serial).der(), *authorities) for serial in (1, 2)]
    cache, _ = cache_for(chains[0])
    assert cache.verify(chains[0], now=NOW, log=CheckLog()).trusted
    log = CheckLog()
    assert not cache.verify(chains[1], now=int(begin.timestamp()) - 1, log=log).trusted
    assert [finding.field for finding in log.findings] == ["validity [1] CN=ca 1"]


@pytest.mark.parametrize(
    "subject",
    ["plain A01 (x) a/b:c-d.e_f", "with, comma", "a+b", '"quoted"', " leading", "trailing ", "#hash", "ümlaut", "a=b"],
)
def test_names_are_written_as_the_library_writes_them(subject: str) -> None:
    chain = chain_of(leaf=replace(LEAF, subject=subject))
    result, _ = judge(chain)
    parsed = result.chain
    assert parsed.labels[0] == f"[0] {x509.load_der_x509_certificate(chain[0]).subject.rfc4514_string()}"
    assert parsed.subjects[0] == ((NameOID.COMMON_NAME, subject),)


def test_names_of_several_attributes_in_one_place() -> None:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, "x"), x509.NameAttribute(NameOID.SERIAL_NUMBER, "7")]
    several = x509.Name([x509.RelativeDistinguishedName(attributes)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(several)
        .issuer_name(several)
        .public_key(KEYS[0].public_key())
        .serial_number(1)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    der = builder.sign(KEYS[0], hashes.SHA384()).public_bytes(Encoding.DER)
    result, _ = judge((der,))
    assert result.chain.labels == (f"[0] {x509.load_der_x509_certificate(der).subject.rfc4514_string()}",)
    assert set(result.chain.subjects[0]) == {(NameOID.COMMON_NAME, "x"), (NameOID.SERIAL_NUMBER, "7")}


def test_keys_that_are_on_no_curve_are_refused() -> None:
    chain = chain_of()
    point = KEYS[0].public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert chain[0].count(point) == 1
    off_curve = chain[0].replace(point, point[:-1] + bytes((point[-1] ^ 1,)))
    with pytest.raises(MalformedError, match="certificate 0"):
        judge((off_curve, *chain[1:]))
