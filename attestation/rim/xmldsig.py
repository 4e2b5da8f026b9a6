"""Enveloped XML signatures of the one form that NVIDIA's manifests have (W3C XML Signature 1.1, second edition).

A signature says which parts of a document it covers and how they are transformed first; that freedom is where forged
manifests come from. Here it is not free: exactly one Signature, a child of the root, one Reference with an empty URI,
the transforms enveloped-signature and Canonical XML 1.1, SHA-384 and ECDSA on P-384. Everything else is refused, and
what is read afterwards is read from the very bytes whose digest was signed.

For a whole document without attributes of the ``xml:`` namespace (`attestation.rim.xml` refuses them) Canonical XML
1.0, which libxml2 implements, and 1.1 are the same.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from lxml import etree

from attestation.ecdsa import P384_COORDINATE_SIZE, EcdsaKey
from attestation.errors import MalformedError
from attestation.rim.xml import text_of

NAMESPACE: Final = "http://www.w3.org/2000/09/xmldsig#"
CANONICAL_XML_1_1: Final = "http://www.w3.org/2006/12/xml-c14n11"
ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
ECDSA_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#sha384"
SHA384_SIZE: Final = 48
MAX_CERTIFICATES: Final = 8

_STRUCTURE: Final = "XML signature"
_IGNORED_KEY_INFO: Final = "KeyValue"
"""The only other child that KeyInfo may have: the signer's key by itself, which proves nothing and is not read."""
_SPACE: Final = re.compile(r"[ \t\r\n]+")


@dataclass(frozen=True, slots=True)
class EnvelopedSignature:
    """A signature and what it covers; whether it is good is for `digest_matches` and `verifies` to say.

    Attributes:
        covered: the canonical bytes of the document without its signature.
        digest: SHA-384 of those bytes, as the signature states it.
        signed_info: the canonical bytes that the key signed.
        r, s: the signature's halves.
        certificates: DER in the order of the document, leaf first if the document is as it should be.
    """

    covered: bytes
    digest: bytes
    signed_info: bytes
    r: int
    s: int
    certificates: tuple[bytes, ...]

    @classmethod
    def take(cls, root: etree._Element) -> Self:
        """Take the signature out of the document `root`, which is changed by that.

        Raises:
            MalformedError: no signature, several, or one of another form.
        """
        found = [element for element in root.iter() if element.tag == _tag("Signature")]
        if len(found) != 1 or found[0].getparent() is not root:
            on_root = sum(element.getparent() is root for element in found)
            raise MalformedError(
                _STRUCTURE, f"{len(found)} signatures, {on_root} of them on the root, expected one there"
            )
        signature = found[0]
        info, value, key_info = _children(signature, "SignedInfo", "SignatureValue", "KeyInfo")
        digest = _digest(info)
        raw = _base64(value, 2 * P384_COORDINATE_SIZE)
        certificates = _certificates(key_info)
        signed_info = _canonical(info)
        _remove(signature, root)
        return cls(
            covered=_canonical(root),
            digest=digest,
            signed_info=signed_info,
            r=int.from_bytes(raw[:P384_COORDINATE_SIZE], "big"),
            s=int.from_bytes(raw[P384_COORDINATE_SIZE:], "big"),
            certificates=certificates,
        )

    @property
    def digest_matches(self) -> bool:
        """Is `digest` that of `covered`?"""
        return hashlib.sha384(self.covered).digest() == self.digest

    def verifies(self, key: EcdsaKey) -> bool:
        """Did `key` sign `signed_info`?"""
        return key.curve == "secp384r1" and key.verify_raw(self.r, self.s, self.signed_info)


def _digest(signed_info: etree._Element) -> bytes:
    """The one digest of SignedInfo, whose algorithms are all checked."""
    canonicalization, method, reference = _children(
        signed_info, "CanonicalizationMethod", "SignatureMethod", "Reference"
    )
    _require_algorithm(canonicalization, CANONICAL_XML_1_1)
    _require_algorithm(method, ECDSA_SHA384)
    if dict(reference.attrib) != {"URI": ""}:
        raise MalformedError(_STRUCTURE, f"Reference has {dict(reference.attrib)!s:.120}, expected an empty URI alone")
    transforms, digest_method, digest_value = _children(reference, "Transforms", "DigestMethod", "DigestValue")
    enveloped, canonical = _children(transforms, "Transform", "Transform")
    _require_algorithm(enveloped, ENVELOPED)
    _require_algorithm(canonical, CANONICAL_XML_1_1)
    _require_algorithm(digest_method, SHA384)
    return _base64(digest_value, SHA384_SIZE)


def _certificates(key_info: etree._Element) -> tuple[bytes, ...]:
    """The certificates of KeyInfo's one X509Data; a KeyValue beside it is passed over."""
    data = [element for element in key_info if element.tag != _tag(_IGNORED_KEY_INFO)]
    if len(data) != 1 or data[0].tag != _tag("X509Data"):
        raise MalformedError(_STRUCTURE, "KeyInfo has other than exactly one X509Data")
    elements = list(data[0])
    if not 1 <= len(elements) <= MAX_CERTIFICATES or any(each.tag != _tag("X509Certificate") for each in elements):
        raise MalformedError(_STRUCTURE, f"X509Data has other than 1 to {MAX_CERTIFICATES} X509Certificate")
    return tuple(_base64(element, None) for element in elements)


def _children(element: etree._Element, *names: str) -> list[etree._Element]:
    """The children of `element`, which must be exactly these, in this order, with only white space between them."""
    found = list(element)
    if [child.tag for child in found] != [_tag(name) for name in names]:
        stated = ", ".join(etree.QName(child).localname for child in found) or "nothing"
        raise MalformedError(
            _STRUCTURE, f"{etree.QName(element).localname} has {stated:.200}, expected {', '.join(names)}"
        )
    if (element.text or "").strip() or any((child.tail or "").strip() for child in found):
        raise MalformedError(_STRUCTURE, f"{etree.QName(element).localname} has text between its elements")
    return found


def _require_algorithm(element: etree._Element, algorithm: str) -> None:
    """Refuse another algorithm, and any parameter of it."""
    if dict(element.attrib) != {"Algorithm": algorithm} or len(element) or (element.text or "").strip():
        raise MalformedError(
            _STRUCTURE,
            f"{etree.QName(element).localname} is {element.get('Algorithm')!s:.100}, expected {algorithm} alone",
        )


def _canonical(element: etree._Element) -> bytes:
    """Inclusive Canonical XML of `element`, namespaces of its ancestors included, comments left out.

    Raises:
        MalformedError: it has none, because a namespace is a relative URI (Canonical XML 1.1, section 1.1).
    """
    try:
        return bytes(etree.tostring(element, method="c14n"))
    except etree.C14NError as error:
        raise MalformedError(_STRUCTURE, f"the document has no canonical form: {error}") from None


def _base64(element: etree._Element, size: int | None) -> bytes:
    """The bytes that `element` holds in base64, of this size where one is given."""
    name = etree.QName(element).localname
    text = _SPACE.sub("", text_of(element, _STRUCTURE))
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise MalformedError(_STRUCTURE, f"{name} is not base64: {error}") from None
    if not value or (size is not None and len(value) != size):
        raise MalformedError(_STRUCTURE, f"{name} has {len(value)} bytes, expected {size or 'at least one'}")
    return value


def _remove(element: etree._Element, parent: etree._Element) -> None:
    """Take `element` out of `parent` and leave the text behind it where it is."""
    tail = element.tail or ""
    previous = element.getprevious()
    if previous is None:
        parent.text = (parent.text or "") + tail
    else:
        previous.tail = (previous.tail or "") + tail
    parent.remove(element)


def _tag(name: str) -> str:
    """The name of an element of XML Signature, as lxml writes it."""
    return f"{{{NAMESPACE}}}{name}"
