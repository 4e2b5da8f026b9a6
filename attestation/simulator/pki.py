"""A private copy of AMD's key hierarchy: ARK, ASK, ASVK, VCEK, VLEK and revocation lists, in AMD's own shape.

Generating two RSA-4096 keys takes seconds, so a hierarchy can be saved to a directory and loaded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import NameOID

from attestation.errors import MalformedError
from attestation.snp import endorsements as amd
from attestation.snp.abi import Product, TcbVersion

YEAR: Final = 365 * 24 * 3600
ROOT_LIFETIME: Final = 25 * YEAR
LEAF_LIFETIME: Final = 7 * YEAR
CRL_LIFETIME: Final = YEAR
_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_SERIALS: Final[Mapping[Product, int]] = {Product.MILAN: 0x10000, Product.GENOA: 0x20000, Product.TURIN: 0x30000}
"""AMD's ARK serial numbers; ASK follows as +1 and ASVK as +0x101, as Milan's do."""


@dataclass(frozen=True, slots=True)
class ProductCertificates:
    """The certificates (DER) of one product line's authorities."""

    ark: bytes
    ask: bytes
    asvk: bytes


class SimulatedAmdPki:
    """AMD's authorities, with private keys. ASK and ASVK share a key here, which AMD's do not."""

    __slots__ = ("_ark_key", "_ask_key", "certificates")

    certificates: Mapping[Product, ProductCertificates]

    def __init__(
        self,
        *,
        ark_key: rsa.RSAPrivateKey,
        ask_key: rsa.RSAPrivateKey,
        certificates: Mapping[Product, ProductCertificates],
    ) -> None:
        self._ark_key = ark_key
        self._ask_key = ask_key
        self.certificates = MappingProxyType(dict(certificates))

    @classmethod
    def generate(cls, *, now: int) -> Self:
        """Fresh keys and certificates for every product line, valid from a year before `now` (seconds)."""
        ark_key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
        ask_key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
        certificates = {}
        for product in Product:
            ark_name, serial = _name(f"ARK-{product}"), _SERIALS[product]
            ark = _authority(
                subject=ark_name, issuer=ark_name, key=ark_key.public_key(), signer=ark_key, serial=serial, now=now
            )
            ask, asvk = (
                _authority(
                    subject=_name(name),
                    issuer=ark_name,
                    key=ask_key.public_key(),
                    signer=ark_key,
                    serial=serial + offset,
                    now=now,
                )
                for name, offset in ((f"SEV-{product}", 1), (f"SEV-VLEK-{product}", 0x101))
            )
            certificates[product] = ProductCertificates(ark=ark, ask=ask, asvk=asvk)
        return cls(ark_key=ark_key, ask_key=ask_key, certificates=certificates)

    def save(self, directory: Path) -> None:
        """Write keys and certificates to `directory`; keys are readable by the owner alone."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, key in (("ark", self._ark_key), ("ask", self._ask_key)):
            path = directory / f"{name}.key.pem"
            path.touch(mode=0o600)
            path.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        for product, each in self.certificates.items():
            for name, der in (("ark", each.ark), ("ask", each.ask), ("asvk", each.asvk)):
                (directory / f"{product}.{name}.der").write_bytes(der)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            OSError: a file is missing.
            ValueError: a key is not in PEM.
            MalformedError: a key is not an RSA key.
        """
        keys = []
        for name in ("ark", "ask"):
            key = serialization.load_pem_private_key((directory / f"{name}.key.pem").read_bytes(), password=None)
            if not isinstance(key, rsa.RSAPrivateKey):
                raise MalformedError(f"{name}.key.pem", "not an RSA private key")
            keys.append(key)
        return cls(
            ark_key=keys[0],
            ask_key=keys[1],
            certificates={
                product: ProductCertificates(
                    ark=(directory / f"{product}.ark.der").read_bytes(),
                    ask=(directory / f"{product}.ask.der").read_bytes(),
                    asvk=(directory / f"{product}.asvk.der").read_bytes(),
                )
                for product in Product
            },
        )

    @classmethod
    def load_or_generate(cls, directory: Path, *, now: int) -> Self:
        """Read the hierarchy in `directory`, or generate one and save it there."""
        if (directory / "ark.key.pem").is_file():
            return cls.load(directory)
        pki = cls.generate(now=now)
        pki.save(directory)
        return pki

    def anchors(self) -> amd.SnpAnchors:
        """This hierarchy's roots, marked as simulated."""
        return amd.SnpAnchors.simulated(*(each.ark for each in self.certificates.values()))

    def issue_vcek(
        self,
        *,
        product: Product,
        public_key: ec.EllipticCurvePublicKey,
        tcb: TcbVersion,
        hwid: bytes,
        not_before: int,
        not_after: int | None = None,
        overrides: Mapping[str, bytes | None] | None = None,
    ) -> bytes:
        """Certify a chip's key for a TCB.

        Args:
            product: product line.
            public_key: the chip's P-384 key.
            tcb: what the key was derived for.
            hwid: 64 bytes, or 8 from Turin on.
            not_before: start of validity, seconds since the epoch.
            not_after: end of validity; 7 years later where it is left out.
            overrides: extension values to replace by object identifier, or to leave out where None.
        """
        return self._leaf(
            product=product,
            name="SEV-VCEK",
            issuer=f"SEV-{product}",
            public_key=public_key,
            extensions={**_tcb_extensions(product, tcb), amd.OID_HWID: hwid, **(overrides or {})},
            not_before=not_before,
            not_after=not_after,
        )

    def issue_vlek(
        self,
        *,
        product: Product,
        public_key: ec.EllipticCurvePublicKey,
        tcb: TcbVersion,
        csp_id: str,
        not_before: int,
        not_after: int | None = None,
        overrides: Mapping[str, bytes | None] | None = None,
    ) -> bytes:
        """Certify a provider's key for a TCB; arguments as for `issue_vcek`."""
        return self._leaf(
            product=product,
            name="SEV-VLEK",
            issuer=f"SEV-VLEK-{product}",
            public_key=public_key,
            extensions={
                **_tcb_extensions(product, tcb),
                amd.OID_CSP_ID: asn1.encode_der(asn1.IA5String(csp_id)),
                **(overrides or {}),
            },
            not_before=not_before,
            not_after=not_after,
        )

    def crl(
        self,
        product: Product,
        *,
        this_update: int,
        number: int = 1,
        revoked_serials: tuple[int, ...] = (),
        next_update: int | None = None,
    ) -> bytes:
        """The product line's revocation list, signed by its ARK; it lasts a year unless told otherwise."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(f"ARK-{product}"))
            .last_update(_instant(this_update))
            .next_update(_instant(this_update + CRL_LIFETIME if next_update is None else next_update))
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for serial in revoked_serials:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_instant(this_update)).build()
            )
        crl = builder.sign(self._ark_key, hashes.SHA384(), rsa_padding=_PSS)
        return crl.public_bytes(serialization.Encoding.DER)

    def ask_serial(self, product: Product) -> int:
        """The serial number of the product line's ASK, for revoking it."""
        return _SERIALS[product] + 1

    def _leaf(
        self,
        *,
        product: Product,
        name: str,
        issuer: str,
        public_key: ec.EllipticCurvePublicKey,
        extensions: Mapping[str, bytes | None],
        not_before: int,
        not_after: int | None,
    ) -> bytes:
        # The builder refuses AMD's serial number 0; nothing reads a leaf's serial number.
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(public_key)
            .serial_number(_SERIALS[product] + 0x1000)
            .not_valid_before(_instant(not_before))
            .not_valid_after(_instant(not_before + LEAF_LIFETIME if not_after is None else not_after))
        )
        for oid, value in extensions.items():
            if value is not None:
                builder = builder.add_extension(
                    x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False
                )
        return builder.sign(self._ask_key, hashes.SHA384(), rsa_padding=_PSS).public_bytes(serialization.Encoding.DER)


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _name(common_name: str) -> x509.Name:
    """AMD's name, in AMD's order."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _authority(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPublicKey,
    signer: rsa.RSAPrivateKey,
    serial: int,
    now: int,
) -> bytes:
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=subject == issuer,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(_instant(now - YEAR))
        .not_valid_after(_instant(now - YEAR + ROOT_LIFETIME))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None if subject == issuer else 0), critical=True)
        .add_extension(usage, critical=True)
        .sign(signer, hashes.SHA384(), rsa_padding=_PSS)
    )
    return certificate.public_bytes(serialization.Encoding.DER)


def _tcb_extensions(product: Product, tcb: TcbVersion) -> dict[str, bytes | None]:
    turin = product is Product.TURIN
    extensions: dict[str, bytes | None] = {
        amd.OID_STRUCT_VERSION: asn1.encode_der(1 if turin else 0),
        amd.OID_PRODUCT_NAME: asn1.encode_der(asn1.IA5String(product.value)),
        amd.OID_BL: asn1.encode_der(tcb.bl),
        amd.OID_TEE: asn1.encode_der(tcb.tee),
        amd.OID_SNP: asn1.encode_der(tcb.snp),
        **{oid: asn1.encode_der(0) for oid in amd.OIDS_SPARE},
        amd.OID_UCODE: asn1.encode_der(tcb.ucode),
    }
    if turin:
        extensions[amd.OID_FMC] = asn1.encode_der(tcb.fmc or 0)
    return extensions
