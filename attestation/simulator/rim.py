"""A software RIM service: it signs manifests for simulated devices under the vendor's private root, with any defect.

The documents have NVIDIA's own form, to the attribute. Signatures are deterministic (RFC 6979), so that the same
request gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from attestation.ecdsa import P384_COORDINATE_SIZE
from attestation.rim import xmldsig
from attestation.rim.document import DIGEST_SIZE, SHA384_NAMESPACE, SWID_NAMESPACE
from attestation.rim.verify import RimAnchors
from attestation.simulator.certificates import (
    NOT_BEFORE,
    Subject,
    digest,
    distinguished_name,
    issue,
    serial_number,
)
from attestation.simulator.nvgpu import SimulatedGpu, SimulatedGpuVendor

SIGNER_LIFETIME: Final = 2 * 365 * 24 * 3600
"""Seconds; as NVIDIA's signers."""
DRIVER_INDICES: Final = frozenset({7, *range(21, 41)})
"""Manifest indices that published Hopper driver manifests have active."""
VBIOS_INDICES: Final = frozenset({*range(7), *range(8, 13)})
"""Manifest indices that published Hopper VBIOS manifests have active."""
RESOURCES: Final = 64

_BINDING: Final = (
    'xmlns:ns1="https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"'
)
_SIGNED: Final = "".join(
    (
        f'<ds:Signature xmlns:ds="{xmldsig.NAMESPACE}"><ds:SignedInfo>',
        f'<ds:CanonicalizationMethod Algorithm="{xmldsig.CANONICAL_XML_1_1}"/>',
        f'<ds:SignatureMethod Algorithm="{xmldsig.ECDSA_SHA384}"/>',
        f'<ds:Reference URI=""><ds:Transforms><ds:Transform Algorithm="{xmldsig.ENVELOPED}"/>',
        f'<ds:Transform Algorithm="{xmldsig.CANONICAL_XML_1_1}"/></ds:Transforms>',
        f'<ds:DigestMethod Algorithm="{xmldsig.SHA384}"/><ds:DigestValue>@DIGEST@</ds:DigestValue></ds:Reference>',
        "</ds:SignedInfo><ds:SignatureValue>@VALUE@</ds:SignatureValue>",
        "<ds:KeyInfo><ds:X509Data>@CERTIFICATES@</ds:X509Data></ds:KeyInfo></ds:Signature>",
    )
)
_END: Final = "</SoftwareIdentity>"


class RimDefect(Enum):
    """What a simulated manifest gets wrong on request, each named after what it breaks."""

    ALTERED = auto()
    """A reference value is changed after signing."""
    BAD_SIGNATURE = auto()
    """One bit of the signature is flipped."""
    OTHER_SIGNER = auto()
    """Somebody else's key signed, and stands in a KeyValue beside the genuine certificates."""
    OTHER_ROOT = auto()
    """A chain under another vendor's root."""
    UNSIGNED = auto()
    """No signature at all."""
    TWO_SIGNATURES = auto()
    """The signature stands there twice."""
    WRAPPED = auto()
    """The signed manifest is moved inside another one: signature wrapping."""
    REFERENCE_BY_ID = auto()
    """The reference names a part of the document instead of all of it."""
    EXTRA_TRANSFORM = auto()
    """An XPath transform leaves something out."""
    OTHER_CANONICALIZATION = auto()
    """Canonical XML 1.0 with comments."""
    OTHER_ALGORITHM = auto()
    """ECDSA with SHA-256 is stated."""
    NO_CERTIFICATES = auto()
    """KeyInfo has a KeyValue alone."""
    BAD_CERTIFICATE = auto()
    """The signer's certificate is not base64."""
    NOT_DER = auto()
    """The signer's certificate is no certificate."""
    DUPLICATE_INDEX = auto()
    """An index appears twice; signed."""
    BAD_INDEX = auto()
    """An index is no number; signed."""
    WRONG_SIZE = auto()
    """A size other than 48; signed."""
    MISSING_ALTERNATIVE = auto()
    """Fewer hashes than alternatives; signed."""
    HASH_NAMESPACE = auto()
    """A hash of no namespace; signed."""
    SHORT_HASH = auto()
    """A hash of 47 bytes; signed."""
    BAD_ACTIVE = auto()
    """Neither active nor not; signed."""
    NONE_ACTIVE = auto()
    """No measurement is active; signed."""
    NO_VERSION = auto()
    """No colloquialVersion; signed."""
    DOCTYPE = auto()
    """A document type with an entity."""
    COMMENT = auto()
    """A comment, which no signature covers."""
    XML_ATTRIBUTE = auto()
    """An attribute of the xml namespace; signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRimAuthority:
    """Signs manifests as NVIDIA's RIM service does.

    Attributes:
        vendor: under whose root the signer's chain stands.
        not_before: when the signer's certificate begins, seconds since the epoch; it lives two years.
    """

    vendor: SimulatedGpuVendor
    not_before: int

    def anchors(self) -> RimAnchors:
        """Anchors that trust this vendor's manifests and no others."""
        return RimAnchors.simulated(self.vendor.root_der)

    @property
    def not_after(self) -> int:
        """When the signer's certificate ends, seconds since the epoch."""
        return self.not_before + SIGNER_LIFETIME

    def driver(self, gpu: SimulatedGpu, *, defects: Collection[RimDefect] = ()) -> bytes:
        """The manifest of the driver that `gpu` runs."""
        values = {index: (gpu.measurements[index + 1],) for index in DRIVER_INDICES}
        version = gpu.configuration.driver_version
        return self.manifest(
            product=gpu.architecture.value, edition="GPU", version=version, values=values, defects=defects
        )

    def vbios(self, gpu: SimulatedGpu, *, defects: Collection[RimDefect] = ()) -> bytes:
        """The manifest of the VBIOS that `gpu` runs."""
        values = {index: (gpu.measurements[index + 1],) for index in VBIOS_INDICES}
        version = gpu.configuration.vbios_version
        return self.manifest(
            product=gpu.architecture.value, edition="GPU", version=version, values=values, defects=defects
        )

    def manifest(
        self,
        *,
        product: str,
        edition: str,
        version: str,
        values: Mapping[int, tuple[bytes, ...]],
        defects: Collection[RimDefect] = (),
    ) -> bytes:
        """A signed manifest.

        Args:
            product: chip, as manifests name it.
            edition: ``GPU`` or ``SWITCH``.
            version: of the driver, VBIOS or BIOS.
            values: accepted digests by manifest index; other indices are there and not active.
            defects: what is wrong with it.
        """
        wrong = frozenset(defects)
        body = _body(product=product, edition=edition, version=version, values=values, wrong=wrong)
        if RimDefect.UNSIGNED in wrong:
            return (body + _END).encode()
        return _after_signing(self._sign(body, wrong), wrong)

    def certificates(self) -> tuple[bytes, ...]:
        """The signer's chain as DER, leaf first."""
        root, keys = self.vendor.root, [self.vendor.key(f"RIM {name}") for name in ("authority", "product", "signer")]
        names = [
            distinguished_name(("C", "US"), ("O", "Keystead simulator"), ("CN", f"SIMULATED Reference Value {name}"))
            for name in ("CA", "L3", "L4 Signer")
        ]
        chain: list[x509.Certificate] = [root]
        issuer_key = self.vendor.key("root")
        for position, (name, key) in enumerate(zip(names, keys, strict=True)):
            leaf = position == len(keys) - 1
            chain.append(
                issue(
                    Subject(
                        name,
                        key,
                        serial=serial_number(self.vendor.root_der, "RIM", str(position)),
                        authority=not leaf,
                        not_before=_instant(self.not_before) if leaf else NOT_BEFORE,
                        not_after=_instant(self.not_after) if leaf else datetime(2050, 1, 1, tzinfo=UTC),
                    ),
                    issuer=chain[-1].subject,
                    issuer_key=issuer_key,
                )
            )
            issuer_key = key
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in reversed(chain))

    def _sign(self, body: str, wrong: frozenset[RimDefect]) -> str:
        """`body` and its end with the signature between them."""
        key, chain = self.vendor.key("RIM signer"), self.certificates()
        if RimDefect.OTHER_SIGNER in wrong:
            key = self.vendor.key("somebody else")
        if RimDefect.OTHER_ROOT in wrong:
            other = SimulatedGpuVendor(hashlib.sha256(b"another vendor").digest())
            authority = SimulatedRimAuthority(vendor=other, not_before=self.not_before)
            key, chain = other.key("RIM signer"), authority.certificates()
        covered = etree.tostring(etree.fromstring((body + _END).encode()), method="c14n")
        document = body + _signature_form(wrong) + _END
        document = document.replace("@DIGEST@", base64.b64encode(hashlib.sha384(covered).digest()).decode())
        document = document.replace("@CERTIFICATES@", _key_info(chain, wrong))
        info = etree.fromstring(document.encode()).find(f".//{{{xmldsig.NAMESPACE}}}SignedInfo")
        signature = key.sign(etree.tostring(info, method="c14n"), ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
        r, s = decode_dss_signature(signature)
        raw = bytearray(r.to_bytes(P384_COORDINATE_SIZE, "big") + s.to_bytes(P384_COORDINATE_SIZE, "big"))
        if RimDefect.BAD_SIGNATURE in wrong:
            raw[-1] ^= 1
        document = document.replace("@VALUE@", base64.b64encode(raw).decode())
        if RimDefect.OTHER_SIGNER in wrong:
            document = document.replace("<ds:X509Data>", "<ds:KeyValue/><ds:X509Data>")
        return document


def switch_values(measurements: Mapping[int, bytes]) -> dict[int, tuple[bytes, ...]]:
    """Every measurement (by SPDM index) as a reference value by manifest index, as LS10 manifests have them."""
    return {index - 1: (value,) for index, value in measurements.items()}


def _body(
    *, product: str, edition: str, version: str, values: Mapping[int, tuple[bytes, ...]], wrong: frozenset[RimDefect]
) -> str:
    """The manifest up to where its signature stands."""
    colloquial = "" if RimDefect.NO_VERSION in wrong else f'colloquialVersion="{version}" '
    lang = ' xml:lang="en"' if RimDefect.XML_ATTRIBUTE in wrong else ""
    tag = digest("RIM", product, version).hex()
    root = (
        f'<SoftwareIdentity xmlns="{SWID_NAMESPACE}" xmlns:ns0="{SWID_NAMESPACE}" xmlns:ns2="{SHA384_NAMESPACE}" '
        f'corpus="false" name="{product}" patch="false" supplemental="false" tagId="{tag}" version="1.0" '
        f'tagVersion="0"{lang}>'
    )
    meta = (
        f'    <ns0:Meta {_BINDING} {colloquial}edition="{edition}" product="{product}" revision="r1" '
        'PayloadType="direct" ns1:BindingSpec="RIMIM" ns1:BindingSpecVersion="1.01"/>'
    )
    lines = [
        root,
        '    <ns0:Entity name="Keystead simulator" role="softwareCreator tagCreator"/>',
        meta,
        f'    <ns0:Payload xmlns:SHA384="{SHA384_NAMESPACE}">',
    ]
    if RimDefect.COMMENT in wrong:
        lines.append("        <!-- nobody signs this -->")
    first = min(values)
    for index in range(RESOURCES):
        active = index in values and RimDefect.NONE_ACTIVE not in wrong
        lines.append(_resource(index, values.get(index, (bytes(DIGEST_SIZE),)), active=active))
        if index == first:
            lines[-1] = _spoil(lines[-1], wrong)
            if RimDefect.DUPLICATE_INDEX in wrong:
                lines.append(lines[-1])
    lines.append("    </ns0:Payload>\n")
    return "\n".join(lines)


def _resource(index: int, digests: tuple[bytes, ...], *, active: bool) -> str:
    """One measurement."""
    hashed = " ".join(f'ns2:Hash{number}="{value.hex()}"' for number, value in enumerate(digests))
    return (
        f'        <ns0:Resource type="Measurement" index="{index}" active="{active}" alternatives="{len(digests)}" '
        f'{hashed} name="Measurement_{index}" size="{DIGEST_SIZE}"/>'
    )


def _spoil(line: str, wrong: frozenset[RimDefect]) -> str:
    """The first active measurement with the defects that stand in one."""
    for defect, old, new in (
        (RimDefect.BAD_INDEX, ' index="', ' index="x'),
        (RimDefect.WRONG_SIZE, 'size="48"', 'size="32"'),
        (RimDefect.MISSING_ALTERNATIVE, 'alternatives="1"', 'alternatives="2"'),
        (RimDefect.HASH_NAMESPACE, "ns2:Hash0", "Hash0"),
        (RimDefect.BAD_ACTIVE, 'active="True"', 'active="true"'),
    ):
        if defect in wrong:
            line = line.replace(old, new)
    if RimDefect.SHORT_HASH in wrong:
        value = line.partition('Hash0="')[2][: 2 * DIGEST_SIZE]
        line = line.replace(value, value[2:])
    return line


def _signature_form(wrong: frozenset[RimDefect]) -> str:
    """The signature with the defects of its form."""
    form = _SIGNED
    transform = f'<ds:Transform Algorithm="{xmldsig.CANONICAL_XML_1_1}"/>'
    for defect, old, new in (
        (RimDefect.REFERENCE_BY_ID, 'URI=""', 'URI="#part"'),
        (
            RimDefect.EXTRA_TRANSFORM,
            transform,
            f'{transform}<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"/>',
        ),
        (
            RimDefect.OTHER_CANONICALIZATION,
            f'<ds:CanonicalizationMethod Algorithm="{xmldsig.CANONICAL_XML_1_1}"/>',
            '<ds:CanonicalizationMethod Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments"/>',
        ),
        (RimDefect.OTHER_ALGORITHM, xmldsig.ECDSA_SHA384, "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"),
        (RimDefect.NO_CERTIFICATES, "<ds:X509Data>@CERTIFICATES@</ds:X509Data>", "<ds:KeyValue/>"),
    ):
        if defect in wrong:
            form = form.replace(old, new)
    return form


def _key_info(chain: tuple[bytes, ...], wrong: frozenset[RimDefect]) -> str:
    """The certificates in base64."""
    texts = [base64.b64encode(der).decode() for der in chain]
    if RimDefect.BAD_CERTIFICATE in wrong:
        texts[0] = "not base64"
    if RimDefect.NOT_DER in wrong:
        texts[0] = base64.b64encode(b"no certificate").decode()
    return "".join(f"<ds:X509Certificate>{text}\n</ds:X509Certificate>" for text in texts)


def _after_signing(document: str, wrong: frozenset[RimDefect]) -> bytes:
    """The document with the defects that somebody else put in."""
    if RimDefect.ALTERED in wrong:
        start = document.index('active="True"')
        position = document.index('Hash0="', start) + len('Hash0="')
        document = document[:position] + ("1" if document[position] == "0" else "0") + document[position + 1 :]
    if RimDefect.TWO_SIGNATURES in wrong:
        signature = document[document.index("<ds:Signature ") : document.index(_END)]
        document = document.replace(_END, signature + _END)
    if RimDefect.WRAPPED in wrong:
        root = document[: document.index(">") + 1]
        document = f"{root}{document}{_END}"
    if RimDefect.DOCTYPE in wrong:
        document = f'<!DOCTYPE SoftwareIdentity [<!ENTITY x "x">]>{document}'
    return document.encode()


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
