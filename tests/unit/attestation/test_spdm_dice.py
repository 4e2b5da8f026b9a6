"""DICE firmware identities in alias certificates."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat import asn1

from attestation.errors import MalformedError
from attestation.spdm import dice
from attestation.x509 import unknown_extensions

KEY = b"\x04" + bytes(range(96))
FWID = bytes(range(48))


def test_composite_device_id_round_trips() -> None:
    der = dice.composite_device_id_to_bytes(device_key=KEY, fwid=FWID)
    assert dice.parse_composite_device_id(der) == dice.FirmwareIdentity(FWID, device_key=KEY)


def test_tcb_info_round_trips_with_its_flags() -> None:
    der = dice.dice_tcb_info_to_bytes(model="GB100 A01 GSP", fwid=FWID, flags=("not_configured", "debug", "not_tcb"))
    parsed = dice.parse_dice_tcb_info(der)
    assert parsed == dice.FirmwareIdentity(FWID, flags=("not_configured", "debug", "not_tcb"))


def tcb_info(flags: asn1.BitString | None) -> bytes:
    value = dice.DiceTcbInfo(
        vendor=None,
        model=None,
        version=None,
        svn=None,
        layer=None,
        index=None,
        fwids=[dice.Fwid(hash_algorithm=dice.OID_SHA384, digest=FWID)],
        flags=flags,
        vendor_info=None,
        type=None,
        flags_mask=None,
    )
    return asn1.encode_der(value)


def test_tcb_info_without_flags_is_read() -> None:
    assert dice.parse_dice_tcb_info(tcb_info(None)) == dice.FirmwareIdentity(FWID)


@pytest.mark.parametrize("size", [0, 1, 2, 4, 9])
def test_flags_that_are_cut_short_are_not_set(size: int) -> None:
    parsed = dice.parse_dice_tcb_info(tcb_info(asn1.BitString(b"\xff" * size, 0)))
    assert parsed.flags == dice.OPERATIONAL_FLAGS[: 8 * size]


def test_unknown_flag_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        dice.dice_tcb_info_to_bytes(model="x", fwid=FWID, flags=("nonsense",))


def test_no_fwids_is_malformed() -> None:
    with pytest.raises(MalformedError, match="fwids is absent or empty"):
        dice.parse_dice_tcb_info(bytes.fromhex("3000"))


def composite(*, version: int = 1, algorithm: str = "1.2.840.10045.2.1", curve: str = "1.3.132.0.34", fwid: int = 48,
              hash_oid: str = "2.16.840.1.101.3.4.2.2") -> bytes:  # fmt: skip
    return asn1.encode_der(
        dice.CompositeDeviceId(
            version=version,
            device_id=dice.EcPublicKeyInfo(
                algorithm=dice.EcAlgorithm(
                    algorithm=x509.ObjectIdentifier(algorithm), curve=x509.ObjectIdentifier(curve)
                ),
                public_key=asn1.BitString(KEY, 0),
            ),
            fwid=dice.Fwid(hash_algorithm=x509.ObjectIdentifier(hash_oid), digest=bytes(fwid)),
        )
    )


@pytest.mark.parametrize(
    ("der", "reason"),
    [
        (composite(version=2), "version 2"),
        (composite(curve="1.2.840.10045.3.1.7"), "not a P-384 key"),
        (composite(algorithm="1.2.840.113549.1.1.1"), "not a P-384 key"),
        (composite(fwid=32), "of 32 bytes"),
        (composite(hash_oid="2.16.840.1.101.3.4.2.1"), "expected SHA-384"),
        (composite() + b"\0", "not DER"),
        (composite()[:-1], "not DER"),
        (b"", "not DER"),
    ],
)
def test_other_composite_device_ids_are_malformed(der: bytes, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        dice.parse_composite_device_id(der)


@pytest.mark.vectors
def test_published_extensions_encode_to_the_same_bytes(vectors: Path) -> None:
    seen = set()
    for path in vectors.glob("nvidia/*/cert_chain.pem"):
        leaf = x509.load_pem_x509_certificates(path.read_bytes())[0]
        name = leaf.subject.rfc4514_string().split(",")[0].removeprefix("CN=").removesuffix(" FMC LF")
        if (der := unknown_extensions(leaf).get(dice.OID_COMPOSITE_DEVICE_ID)) is not None:
            parsed = dice.parse_composite_device_id(der)
            assert parsed.device_key is not None
            assert dice.composite_device_id_to_bytes(device_key=parsed.device_key, fwid=parsed.fwid) == der
            seen.add("composite")
        if (der := unknown_extensions(leaf).get(dice.OID_DICE_TCB_INFO)) is not None:
            parsed = dice.parse_dice_tcb_info(der)
            assert dice.dice_tcb_info_to_bytes(model=name, fwid=parsed.fwid, flags=parsed.flags) == der
            seen.add("tcb-info")
    assert seen == {"composite", "tcb-info"}
