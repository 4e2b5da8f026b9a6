"""Forms of manifests and their signatures: each deviation is signed anew, so that nothing but its form refuses it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from attestation.ecdsa import EcdsaKey
from attestation.findings import CheckLog
from attestation.rim import xmldsig
from attestation.rim.document import MAX_ALTERNATIVES, MAX_INDEX, RimKind
from attestation.rim.verify import VerifiedRim, verify_rim
from attestation.rim.xmldsig import CANONICAL_XML_1_1, ENVELOPED, MAX_CERTIFICATES, EnvelopedSignature
from attestation.simulator.nvgpu import SimulatedGpuVendor
from attestation.simulator.rim import SimulatedRimAuthority

NOW: Final = 1_790_000_000
VENDOR: Final = SimulatedGpuVendor(b"\x01" * 32)
AUTHORITY: Final = SimulatedRimAuthority(vendor=VENDOR, not_before=NOW - 3600)
SOUND: Final = AUTHORITY.driver(VENDOR.gpu(1)).decode()
SIGNATURE: Final = SOUND[SOUND.index("<ds:Signature ") : SOUND.index("</SoftwareIdentity>")]
CERTIFICATE: Final = SIGNATURE[SIGNATURE.index("<ds:X509Certificate>") : SIGNATURE.index("</ds:X509Data>")]
FIRST: Final = re.search(r' *<ns0:Resource [^>]*active="True"[^>]*/>\n', SOUND)
assert FIRST is not None
RESOURCE: Final = FIRST[0]
Change = Callable[[str], str]


def put(text: str, name: str, value: str) -> str:
    """`text` with this content in the one element called `name`."""
    return re.sub(rf"(<ds:{name}>)[^<]*(</ds:{name}>)", rf"\g<1>{value}\g<2>", text)


def signed(text: str) -> bytes:
    """`text` with digest and signature made anew, whatever its signature looks like otherwise."""
    whole = re.sub(r"<ds:Signature .*</ds:Signature>", "", text, flags=re.DOTALL)
    digest = hashlib.sha384(etree.tostring(etree.fromstring(whole.encode()), method="c14n")).digest()
    text = put(text, "DigestValue", base64.b64encode(digest).decode())
    info = etree.fromstring(text.encode()).find(f".//{{{xmldsig.NAMESPACE}}}SignedInfo")
    key = VENDOR.key("RIM signer")
    r, s = decode_dss_signature(key.sign(etree.tostring(info, method="c14n"), ec.ECDSA(hashes.SHA384())))
    return put(
        text, "SignatureValue", base64.b64encode(r.to_bytes(48, "big") + s.to_bytes(48, "big")).decode()
    ).encode()


def judge(data: bytes) -> tuple[VerifiedRim | None, dict[str, str]]:
    log = CheckLog()
    rim = verify_rim(data, anchors=AUTHORITY.anchors(), now=NOW, log=log)
    assert (rim is None) is bool(log.findings)
    return rim, {finding.code: finding.actual for finding in log.findings}


def replaced(old: str, new: str) -> Change:
    """Replace the first `old`, which must be there, by `new`."""

    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def of_resource(old: str, new: str) -> Change:
    """The same in the first active measurement."""
    return replaced(RESOURCE, replaced(old, new)(RESOURCE))


def test_what_is_signed_anew_verifies() -> None:
    assert judge(signed(SOUND))[1] == {}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(replaced(SIGNATURE, " \n" + SIGNATURE + "\n "), id="white space around it"),
        pytest.param(replaced(SIGNATURE, SIGNATURE + "\n"), id="after it"),
        pytest.param(
            replaced("</ns0:Payload>\n" + SIGNATURE, "</ns0:Payload>" + SIGNATURE + "\n"), id="after it alone"
        ),
        pytest.param(replaced("</ns0:Payload>\n" + SIGNATURE, "</ns0:Payload>" + SIGNATURE), id="nowhere"),
        pytest.param(replaced("</ds:SignedInfo>", "</ds:SignedInfo>\n  "), id="in it"),
        pytest.param(replaced("<ds:KeyInfo>", "<ds:KeyInfo>\n  <ds:KeyValue/>"), id="a key value that is not read"),
        pytest.param(
            lambda text: re.sub(r">\s*", r"> \n ", text.replace(SIGNATURE, ""), count=1).replace(
                "> \n ", "> \n " + SIGNATURE + "\n  ", 1
            ),
            id="first of all, between white space",
        ),
        pytest.param(
            lambda text: re.sub(r">\s*", ">" + SIGNATURE + "\n  ", text.replace(SIGNATURE, ""), count=1),
            id="first of all, before white space",
        ),
        pytest.param(
            lambda text: re.sub(r">\s*", "> \n " + SIGNATURE, text.replace(SIGNATURE, ""), count=1),
            id="first of all, after white space",
        ),
    ],
)
def test_where_a_signature_stands_does_not_matter(change: Change) -> None:
    rim, findings = judge(signed(change(SOUND)))
    assert findings == {}
    assert rim is not None
    assert rim.document.version == "580.95.05"


FORMS: Final[dict[str, Change]] = {
    "a first transform other than enveloped": replaced(
        f'<ds:Transform Algorithm="{ENVELOPED}"/>', f'<ds:Transform Algorithm="{CANONICAL_XML_1_1}"/>'
    ),
    "a second transform of another canonicalization": replaced(
        f'<ds:Transform Algorithm="{CANONICAL_XML_1_1}"/>',
        '<ds:Transform Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"/>',
    ),
    "one transform": replaced(f'<ds:Transform Algorithm="{CANONICAL_XML_1_1}"/>', ""),
    "another digest": replaced(
        f'<ds:DigestMethod Algorithm="{xmldsig.SHA384}"/>',
        '<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/>',
    ),
    "a parameter of the digest": replaced(
        f'<ds:DigestMethod Algorithm="{xmldsig.SHA384}"/>',
        f'<ds:DigestMethod Algorithm="{xmldsig.SHA384}"><ds:Parameter/></ds:DigestMethod>',
    ),
    "a parameter of the signature as text": replaced(
        f'<ds:SignatureMethod Algorithm="{xmldsig.ECDSA_SHA384}"/>',
        f'<ds:SignatureMethod Algorithm="{xmldsig.ECDSA_SHA384}">96</ds:SignatureMethod>',
    ),
    "another attribute of a method": replaced(
        f'<ds:SignatureMethod Algorithm="{xmldsig.ECDSA_SHA384}"/>',
        f'<ds:SignatureMethod Algorithm="{xmldsig.ECDSA_SHA384}" Size="384"/>',
    ),
    "a reference with a type": replaced('<ds:Reference URI="">', '<ds:Reference URI="" Type="x">'),
    "a reference without a URI": replaced('<ds:Reference URI="">', "<ds:Reference>"),
    "text at the start of an element": replaced("<ds:SignedInfo>", "<ds:SignedInfo>x"),
    "text in an element": replaced("</ds:DigestValue>", "</ds:DigestValue>x"),
    "two references": lambda text: re.sub(r"<ds:Reference .*</ds:Reference>", r"\g<0>\g<0>", text),
    "an element in the digest": replaced("</ds:DigestValue>", "<ds:x/></ds:DigestValue>"),
    "an object": replaced("</ds:KeyInfo>", "</ds:KeyInfo><ds:Object/>"),
    "no X509Data but a name": lambda text: re.sub(
        r"<ds:X509Data>.*</ds:X509Data>", "<ds:KeyName/>", text, flags=re.DOTALL
    ),
    "X509Data and a name": replaced("<ds:X509Data>", "<ds:KeyName>x</ds:KeyName><ds:X509Data>"),
    "certificates in another element": lambda text: text.replace("ds:X509Data>", "ds:PGPData>"),
    "a revocation list beside the certificates": replaced(CERTIFICATE, CERTIFICATE + "<ds:X509CRL>AAAA</ds:X509CRL>"),
    "no certificate": replaced(CERTIFICATE, ""),
    "too many certificates": replaced(CERTIFICATE, "<ds:X509Certificate>AAAA</ds:X509Certificate>" * 9),
    "a subject beside the certificates": replaced(CERTIFICATE, CERTIFICATE + "<ds:X509SubjectName/>"),
    "a certificate without content": replaced(CERTIFICATE, CERTIFICATE + "<ds:X509Certificate/>"),
    "a certificate of white space": replaced(CERTIFICATE, CERTIFICATE + "<ds:X509Certificate> </ds:X509Certificate>"),
}


@pytest.mark.parametrize("form", FORMS)
def test_another_form_of_signature_is_refused(form: str) -> None:
    rim, findings = judge(signed(FORMS[form](SOUND)))
    assert rim is None
    assert set(findings) == {"RIM_SIGNATURE_FORM"}


@pytest.mark.parametrize("count", [1, MAX_CERTIFICATES])
def test_any_number_of_certificates_is_a_form_but_not_a_chain(count: int) -> None:
    one = CERTIFICATE[: CERTIFICATE.index("</ds:X509Certificate>") + len("</ds:X509Certificate>")]
    assert judge(signed(replaced(CERTIFICATE, one * count)(SOUND)))[1].keys() >= {"RIM_CHAIN", "X509_CHAIN_LENGTH"}
    assert MAX_CERTIFICATES == 8


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP521R1())])
def test_a_signer_with_a_key_of_another_kind_signs_nothing(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    old = x509.load_der_x509_certificate(AUTHORITY.certificates()[0])
    builder = (
        x509.CertificateBuilder(old.issuer, old.subject, key.public_key(), old.serial_number)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    leaf = builder.sign(VENDOR.key("RIM product"), hashes.SHA384()).public_bytes(Encoding.DER)
    stated = base64.b64encode(AUTHORITY.certificates()[0]).decode()
    rim, findings = judge(replaced(stated, base64.b64encode(leaf).decode())(SOUND).encode())
    assert rim is None
    assert set(findings) == {"RIM_CHAIN", "RIM_SIGNATURE", "X509_ALGORITHM"}


def test_a_key_of_another_curve_did_not_sign() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    r, s = decode_dss_signature(key.sign(b"signed info", ec.ECDSA(hashes.SHA256())))
    verifier = EcdsaKey(key.public_key())
    assert verifier.verify_raw(r, s, b"signed info")
    signature = EnvelopedSignature(b"", bytes(48), b"signed info", r, s, ())
    assert not signature.verifies(verifier)


CONTENTS: Final[dict[str, Change]] = {
    "something else than a resource": of_resource("<ns0:Resource ", "<ns0:Directory "),
    "a resource of another namespace": of_resource("<ns0:Resource ", '<x:Resource xmlns:x="urn:x" '),
    "a resource of another type": of_resource('type="Measurement"', 'type="Other"'),
    "a resource without a type": of_resource('type="Measurement"', ""),
    "a resource with elements": of_resource("/>", "><ns0:x/></ns0:Resource>"),
    "an index beyond SPDM's": of_resource('index="7"', f'index="{MAX_INDEX + 1}"'),
    "an index with a sign": of_resource('index="7"', 'index="+7"'),
    "an index with a leading zero": of_resource('index="7"', 'index="07"'),
    "a size of five digits": of_resource('size="48"', 'size="00048"'),
    "no alternative": lambda text: of_resource('alternatives="1"', 'alternatives="0"')(text).replace(
        RESOURCE, re.sub(r'ns2:Hash0="[^"]*"', "", RESOURCE)
    ),
    "no alternative and no hash": replaced(
        RESOURCE, re.sub(r'ns2:Hash0="[^"]*"', "", RESOURCE).replace('alternatives="1"', 'alternatives="0"')
    ),
    "a hash more than stated": of_resource("ns2:Hash0=", 'ns2:Hash1="' + "00" * 48 + '" ns2:Hash0='),
    "a hash of another number": of_resource("ns2:Hash0=", "ns2:Hash1="),
    "a hash that is no hex": of_resource('ns2:Hash0="', 'ns2:Hash0="x'),
    "no name": of_resource('name="Measurement_7"', ""),
    "a version of no form": replaced('colloquialVersion="580.95.05"', 'colloquialVersion="latest"'),
    "a version of two digits": replaced('colloquialVersion="580.95.05"', 'colloquialVersion="58.95.05"'),
    "no product": replaced('product="GH100"', ""),
    "two payloads": replaced("</ns0:Payload>", "</ns0:Payload><ns0:Payload/>"),
    "a payload elsewhere": lambda text: text.replace("<ns0:Payload", "<ns0:Link><ns0:Payload").replace(
        "</ns0:Payload>", "</ns0:Payload></ns0:Link>"
    ),
    "another root": lambda text: text.replace("<SoftwareIdentity ", "<Other ").replace("/SoftwareIdentity", "/Other"),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_other_content_is_refused_though_it_is_signed(content: str) -> None:
    rim, findings = judge(signed(CONTENTS[content](SOUND)))
    assert rim is None
    assert set(findings) == {"RIM_CONTENT"}


@pytest.mark.parametrize(
    ("old", "new", "index", "count"),
    [
        ('index="7"', f'index="{MAX_INDEX}"', MAX_INDEX, 1),
        (
            'alternatives="1"',
            f'alternatives="{MAX_ALTERNATIVES}" '
            + " ".join(f'ns2:Hash{each}="{"00" * 48}"' for each in range(1, MAX_ALTERNATIVES)),
            7,
            MAX_ALTERNATIVES,
        ),
    ],
)
def test_the_limits_are_allowed(old: str, new: str, index: int, count: int) -> None:
    rim, findings = judge(signed(of_resource(old, new)(SOUND)))
    assert findings == {}
    assert rim is not None
    assert len(rim.document.active[index].digests) == count


@pytest.mark.parametrize(
    ("version", "kind"),
    [("580.95.05", RimKind.DRIVER), ("96.00.9F.00.01", RimKind.FIRMWARE), ("590.1", RimKind.DRIVER)],
)
def test_the_version_tells_the_kind(version: str, kind: RimKind) -> None:
    rim, _ = judge(signed(replaced('colloquialVersion="580.95.05"', f'colloquialVersion="{version}"')(SOUND)))
    assert rim is not None
    assert rim.document.kind is kind


@pytest.mark.parametrize(
    ("change", "label"),
    [
        (lambda text: text, "GH100 580.95.05"),
        (replaced('product="GH100"', 'product="GH\u200b1"'), "GH1 580.95.05"),
        (replaced("<ns0:Meta ", '<Meta xmlns="" '), ""),
    ],
)
def test_a_finding_names_the_manifest(change: Change, label: str) -> None:
    log = CheckLog()
    verify_rim(change(SOUND).encode(), anchors=AUTHORITY.anchors(), now=NOW, log=log)
    (passed,) = [each for each in log.passed if each.code == "RIM_DOCUMENT"]
    assert passed.field == f"RIM {label}".strip()
