"""Chains of AMD certificates in which one rule is broken and every other holds, and what the anchors remember."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import NameOID

from attestation.ecdsa import EcdsaKey
from attestation.errors import MalformedError
from attestation.findings import CheckLog
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.pki import SimulatedAmdPki
from attestation.simulator.snp import CURRENT_TCB
from attestation.snp import checks
from attestation.snp import endorsements as amd
from attestation.snp.abi import Product
from attestation.snp.certificate import AmdCertificate
from attestation.snp.endorsements import Endorsement, SnpAnchors, VekCertificate, _Authorities

NOW = 1_790_000_000
DAY = 24 * 3600
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
ORGANIZATION = "Advanced Micro Devices"


@pytest.fixture(scope="module")
def pki(vendors: SimulatedVendors) -> SimulatedAmdPki:
    return vendors.amd


def name(common_name: str, **changes: str) -> x509.Name:
    """AMD's name, with attributes changed by their names in lower case."""
    attributes = {
        "organizational_unit_name": "Engineering",
        "country_name": "US",
        "locality_name": "Santa Clara",
        "state_or_province_name": "CA",
        "organization_name": ORGANIZATION,
        "common_name": common_name,
        **changes,
    }
    return x509.Name([x509.NameAttribute(getattr(NameOID, key.upper()), each) for key, each in attributes.items()])


@dataclass(frozen=True)
class Authority:
    """Who signs."""

    key: rsa.RSAPrivateKey
    name: x509.Name
    constraints: tuple[x509.ExtensionType, ...] = field(
        default=(x509.BasicConstraints(ca=True, path_length=None),),
    )

    def certificate(self, issuer: Authority) -> bytes:
        """This authority's certificate by `issuer`, as DER."""
        return certify(self.key.public_key(), self.name, issuer, extensions=self.constraints)


def certify(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: Authority,
    *,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> bytes:
    """A certificate in AMD's shape, as DER."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.name)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(datetime.fromtimestamp(NOW - DAY, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW + DAY, UTC))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(issuer.key, hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)


def leaf(pki: SimulatedAmdPki, issuer: Authority, subject: x509.Name) -> bytes:
    """A Genoa VCEK by `issuer`, as DER."""
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    sound = pki.issue_vcek(
        product=Product.GENOA, public_key=key, tcb=CURRENT_TCB[Product.GENOA], hwid=bytes(64), not_before=NOW - DAY
    )
    extensions = tuple(each.value for each in x509.load_der_x509_certificate(sound).extensions)
    return certify(key, subject, issuer, extensions=extensions)


def chain(
    pki: SimulatedAmdPki,
    *,
    ark: x509.Name | None = None,
    ask: x509.Name | None = None,
    vcek: x509.Name | None = None,
) -> tuple[bytes, ...]:
    """A Genoa chain of these names, sound but for them."""
    root = Authority(pki._ark_key, ark or name("ARK-Genoa"))
    middle = Authority(pki._ask_key, ask or name("SEV-Genoa"))
    return (leaf(pki, middle, vcek or name("SEV-VCEK")), middle.certificate(root), root.certificate(root))


def pinned(certificates: tuple[bytes, ...], product: Product = Product.GENOA) -> SnpAnchors:
    """Anchors that trust the chain's root for `product`, whatever it is called."""
    fingerprint = hashlib.sha256(certificates[2]).hexdigest()
    return SnpAnchors(roots=MappingProxyType({fingerprint: product}), simulated_roots=frozenset({fingerprint}))


def findings(certificates: tuple[bytes, ...]) -> list[tuple[str, str]]:
    """Code of every finding about a chain whose root is pinned, and which certificate or name it is about."""
    log = CheckLog()
    endorsement = pinned(certificates).verify_chain(certificates, log)
    assert endorsement.trusted is (not log.findings)
    fields = {check.code: check.field for check in checks.CHECKS}
    return [(each.code, each.field.removeprefix(fields[each.code]).strip()) for each in log.findings]


NAMES: Mapping[str, tuple[Mapping[str, x509.Name], tuple[str, ...]]] = {
    "an ASVK that issued a VCEK": ({"ask": name("SEV-VLEK-Genoa")}, ("common name",)),
    "an ASK of another product line": ({"ask": name("SEV-Milan")}, ("common name",)),
    "an ARK of another product line": ({"ark": name("ARK-Milan")}, ("common name",)),
    "a leaf of another organization": ({"vcek": name("SEV-VCEK", organization_name="AMD")}, ("SEV-VCEK",)),
    "an ASK of another organization": ({"ask": name("SEV-Genoa", organization_name="AMD")}, ("SEV-VCEK", "SEV-Genoa")),
    "an ARK of another country": ({"ark": name("ARK-Genoa", country_name="DE")}, ("SEV-Genoa", "ARK-Genoa")),
}


@pytest.mark.parametrize("case", NAMES)
def test_one_wrong_name(case: str, pki: SimulatedAmdPki) -> None:
    changes, where = NAMES[case]
    assert findings(chain(pki)) == []
    assert findings(chain(pki, **changes)) == [(checks.CHAIN_NAMES.code, each) for each in where]


def test_a_leaf_may_not_sign_certificates(pki: SimulatedAmdPki) -> None:
    root, middle = Authority(pki._ark_key, name("ARK-Genoa")), Authority(pki._ask_key, name("SEV-Genoa"))
    sound = leaf(pki, middle, name("SEV-VCEK"))
    read = x509.load_der_x509_certificate(sound)
    extensions = (*(each.value for each in read.extensions), x509.BasicConstraints(ca=True, path_length=None))
    key = read.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    authority = certify(key, name("SEV-VCEK"), middle, extensions=extensions)
    rest = (middle.certificate(root), root.certificate(root))
    assert findings((sound, *rest)) == []
    assert findings((authority, *rest)) == [(checks.CHAIN_CA.code, "SEV-VCEK")]


@pytest.mark.parametrize("which", [1, 2])
def test_an_authority_must_be_one(pki: SimulatedAmdPki, which: int) -> None:
    root, middle = Authority(pki._ark_key, name("ARK-Genoa")), Authority(pki._ask_key, name("SEV-Genoa"))
    nobody = (x509.BasicConstraints(ca=False, path_length=None),)
    if which == 1:
        middle = replace(middle, constraints=nobody)
    else:
        root = replace(root, constraints=nobody)
    certificates = (leaf(pki, middle, name("SEV-VCEK")), middle.certificate(root), root.certificate(root))
    assert findings(certificates) == [(checks.CHAIN_CA.code, ("SEV-Genoa", "ARK-Genoa")[which - 1])]


@pytest.fixture
def read_authorities(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The ASK of every pair of authorities that is decoded and checked, in order."""
    read: list[bytes] = []
    decode = _Authorities.of

    def recording(ask_der: bytes, ark_der: bytes) -> _Authorities:
        read.append(ask_der)
        return decode(ask_der, ark_der)

    monkeypatch.setattr(_Authorities, "of", recording)
    return read


def judge(anchors: SnpAnchors, certificates: tuple[bytes, ...]) -> list[str]:
    """Codes of the findings."""
    log = CheckLog()
    anchors.verify_chain(certificates, log)
    return [each.code for each in log.findings]


def test_authorities_of_one_line_are_read_once_for_all_chips(
    pki: SimulatedAmdPki, read_authorities: list[bytes]
) -> None:
    first = chain(pki)
    second = (leaf(pki, Authority(pki._ask_key, name("SEV-Genoa")), name("SEV-VCEK")), *first[1:])
    anchors = pinned(first)
    assert judge(anchors, first) == judge(anchors, second) == []
    assert read_authorities == [first[1]]


@pytest.mark.parametrize("wrong", ["root", "ASK's signature", "ARK's signature"])
def test_only_what_a_pinned_root_signed_takes_room(
    pki: SimulatedAmdPki, read_authorities: list[bytes], wrong: str
) -> None:
    """Whoever can send evidence must not be able to push AMD's authorities out of the memory."""
    leaf_der, ask, ark = chain(pki)
    if wrong == "root":
        certificates, anchors = (leaf_der, ask, ark), SnpAnchors.amd()
    elif wrong == "ASK's signature":
        certificates = (leaf_der, ask[:-1] + bytes([ask[-1] ^ 1]), ark)
        anchors = pinned(certificates)
    else:
        certificates = (leaf_der, ask, ark[:-1] + bytes([ark[-1] ^ 1]))
        anchors = pinned(certificates)
    first, second = judge(anchors, certificates), judge(anchors, certificates)
    assert first == second != []
    assert read_authorities == [certificates[1]] * 2


def test_a_chain_is_verified_once_where_it_is_trusted(pki: SimulatedAmdPki, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[tuple[bytes, ...]] = []
    verify = SnpAnchors._verify_chain

    def recording(anchors: SnpAnchors, certificates: tuple[bytes, ...], log: CheckLog) -> Endorsement:
        verified.append(certificates)
        return verify(anchors, certificates, log)

    monkeypatch.setattr(SnpAnchors, "_verify_chain", recording)
    sound, wrong = chain(pki), chain(pki, ask=name("SEV-Milan"))
    for certificates, times in ((sound, 1), (wrong, 2)):
        anchors = pinned(certificates)
        assert judge(anchors, certificates) == judge(anchors, certificates)
        assert verified == [certificates] * times
        verified.clear()


@pytest.fixture
def loaded_lists(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every revocation list that is decoded, in order."""
    loaded: list[bytes] = []
    decode = amd.load_crl

    def recording(der: bytes) -> x509.CertificateRevocationList:
        loaded.append(der)
        return decode(der)

    monkeypatch.setattr(amd, "load_crl", recording)
    return loaded


def test_lists_are_decoded_once_whoever_issued_them(pki: SimulatedAmdPki, loaded_lists: list[bytes]) -> None:
    certificates = pki.certificates[Product.GENOA]
    ask, ark = (AmdCertificate.parse(der, what="") for der in (certificates.ask, certificates.ark))
    crls = tuple(pki.crl(product, this_update=NOW - DAY) for product in (Product.MILAN, Product.GENOA))
    anchors, said = pki.anchors(), []
    for _ in range(2):
        log = CheckLog()
        anchors.check_revocation(ask=ask, ark=ark, crls=crls, number_floor=0, now=NOW, log=log)
        said.append([each.code for each in log.passed])
        assert log.findings == []
    assert loaded_lists == list(crls)
    assert said[0] == said[1]
    expected = (checks.CRL_SIGNATURE, checks.CRL_MISSING, checks.CRL_WINDOW, checks.CRL_ROLLBACK, checks.REVOKED)
    assert said[0] == [check.code for check in expected] + [checks.REVOKED.code]


def test_a_list_counts_from_its_first_second_to_before_its_last(pki: SimulatedAmdPki) -> None:
    certificates = pki.certificates[Product.GENOA]
    ask, ark = (AmdCertificate.parse(der, what="") for der in (certificates.ask, certificates.ark))
    crl = pki.crl(Product.GENOA, this_update=NOW, next_update=NOW + DAY)
    for now, codes in ((NOW - 1, ["SNP_CRL_WINDOW"]), (NOW, []), (NOW + DAY - 1, []), (NOW + DAY, ["SNP_CRL_WINDOW"])):
        log = CheckLog()
        pki.anchors().check_revocation(ask=ask, ark=ark, crls=(crl,), number_floor=1, now=now, log=log)
        assert [each.code for each in log.findings] == codes


def vcek(
    pki: SimulatedAmdPki, key: ec.EllipticCurvePublicKey, overrides: Mapping[str, bytes | None] | None = None
) -> bytes:
    """A Genoa VCEK for `key` with these extension values by object identifier; None leaves one out."""
    return pki.issue_vcek(
        product=Product.GENOA,
        public_key=key,
        tcb=CURRENT_TCB[Product.GENOA],
        hwid=bytes(64),
        not_before=NOW - DAY,
        overrides=overrides,
    )


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"1.2.3.4": b"\x05\x00"}, id="an extension that is not AMD's"),
        pytest.param(dict.fromkeys(amd.OIDS_SPARE), id="no spare levels"),
        pytest.param({amd.OIDS_SPARE[0]: None}, id="one spare level less"),
    ],
)
def test_extensions_that_may_be_there_or_not(pki: SimulatedAmdPki, overrides: Mapping[str, bytes | None]) -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    assert VekCertificate.parse(vcek(pki, key, overrides)).tcb == CURRENT_TCB[Product.GENOA]


def test_the_highest_patch_level(pki: SimulatedAmdPki) -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    assert VekCertificate.parse(vcek(pki, key, {amd.OID_UCODE: b"\x02\x02\x00\xff"})).tcb.ucode == 255
    with pytest.raises(MalformedError, match="is 256"):
        VekCertificate.parse(vcek(pki, key, {amd.OID_UCODE: b"\x02\x02\x01\x00"}))


def with_compressed_key(certificate: bytes, key: ec.EllipticCurvePublicKey) -> bytes:
    """A certificate (DER) with the point of its key compressed; its signature no longer holds."""
    long = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    short = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    assert certificate.count(long) == 1
    head = long[: -len(point) - 3]
    lost = len(point) - len(short)
    assert (head[0], head[1]) == (0x30, len(long) - 2), "lengths of one byte"
    info = bytes([0x30, head[1] - lost]) + head[2:] + bytes([3, len(short) + 1, 0]) + short
    at = certificate.index(long)
    made = bytearray(certificate[:at] + info + certificate[at + len(long) :])
    for start in (2, 6):  # the certificate's and the signed part's lengths, of two bytes each
        made[start : start + 2] = (int.from_bytes(made[start : start + 2], "big") - lost).to_bytes(2, "big")
    return bytes(made)


def test_a_plain_key_is_read_without_openssl(pki: SimulatedAmdPki) -> None:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    assert isinstance(AmdCertificate.parse(vcek(pki, public), what="leaf").public_key, EcdsaKey)
    compressed = AmdCertificate.parse(with_compressed_key(vcek(pki, public), public), what="leaf")
    assert isinstance(compressed.public_key, ec.EllipticCurvePublicKey)


def test_a_leaf_may_write_its_point_compressed(pki: SimulatedAmdPki) -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    public = private.public_key()
    r, s = decode_dss_signature(private.sign(b"report", ec.ECDSA(hashes.SHA384())))
    for der in (vcek(pki, public), with_compressed_key(vcek(pki, public), public)):
        assert VekCertificate.parse(der).key.verify_raw(r, s, b"report")


def test_a_leafs_key_is_on_p384(pki: SimulatedAmdPki) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    middle = Authority(pki._ask_key, name("SEV-Genoa"))
    for der in (
        vcek(pki, other),
        with_compressed_key(vcek(pki, other), other),
        certify(pki._ask_key.public_key(), name("SEV-VCEK"), middle, extensions=(x509.OCSPNoCheck(),)),
    ):
        with pytest.raises(MalformedError, match="not on P-384"):
            VekCertificate.parse(der)


@pytest.mark.parametrize(
    ("now", "valid"), [(NOW - DAY - 1, False), (NOW - DAY, True), (NOW + DAY, True), (NOW + DAY + 1, False)]
)
def test_certificates_are_valid_from_their_first_to_their_last_second(
    pki: SimulatedAmdPki, now: int, *, valid: bool
) -> None:
    certificates, log = chain(pki), CheckLog()
    endorsement = pinned(certificates).verify_chain(certificates, CheckLog())
    assert endorsement.check_validity(log, now) is valid
    assert [each.code for each in log.passed] == [checks.CHAIN_VALIDITY.code] * valid
    names = ["SEV-VCEK", "SEV-Genoa", "ARK-Genoa"]
    assert [each.field.rpartition(" ")[2] for each in log.findings] == ([] if valid else names)


def test_no_certificate_is_not_said_to_be_valid() -> None:
    log = CheckLog()
    assert Endorsement(vek=None).check_validity(log, NOW)
    assert (log.passed, log.findings) == ([], [])


@pytest.mark.parametrize("product", ["Genoa", "Genoa-B", "Genoa-B1", "Genoa-B123"])
def test_a_product_name_may_have_a_stepping(pki: SimulatedAmdPki, product: str) -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    read = VekCertificate.parse(vcek(pki, key, {amd.OID_PRODUCT_NAME: asn1.encode_der(asn1.IA5String(product))}))
    assert (read.product, read.product_name) == (Product.GENOA, product)


@pytest.mark.parametrize("product", ["", "-B1", "genoa", "Genoa ", "Genoa-", "Genoa-B1234", "Genoa-B/1", "Genoa-B-1"])
def test_a_product_name_of_another_form(pki: SimulatedAmdPki, product: str) -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    with pytest.raises(MalformedError, match="is not a known product line"):
        VekCertificate.parse(vcek(pki, key, {amd.OID_PRODUCT_NAME: asn1.encode_der(asn1.IA5String(product))}))


def test_a_simulated_roots_stepping_is_in_ascii(pki: SimulatedAmdPki) -> None:
    for stepping, known in (("B1", True), ("É1", False)):
        root = Authority(pki._ark_key, name(f"ARK-Genoa-{stepping}"))
        der = root.certificate(root)
        if known:
            assert SnpAnchors.simulated(der).is_pinned(der)
        else:
            with pytest.raises(MalformedError, match="is not a known product line"):
                SnpAnchors.simulated(der)
