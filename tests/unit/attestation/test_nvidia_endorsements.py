"""What certificates of NVIDIA devices say, on leaves and names in which one thing is otherwise."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from attestation.errors import MalformedError, TrustAnchorError
from attestation.findings import CheckLog
from attestation.nvgpu.endorsements import NvGpuAnchors
from attestation.nvidia.endorsements import BROM, LEAF, OID_SPDM_DEVICE_INFO, DeviceEndorsement, DeviceKind
from attestation.simulator.nvgpu import SimulatedGpuVendor
from attestation.spdm.dice import (
    OID_COMPOSITE_DEVICE_ID,
    OID_DICE_TCB_INFO,
    composite_device_id_to_bytes,
    dice_tcb_info_to_bytes,
)
from attestation.x509 import CertificateChain, NameAttributes

NOW: Final = 1_790_000_000
VENDOR: Final = SimulatedGpuVendor(b"\x01" * 32)
GPU: Final = VENDOR.gpu(0x7A)
CHAIN: Final = VENDOR.anchors().chains.verify(GPU.certificates(), now=NOW, log=CheckLog()).chain
OTHER: Final = x509.ObjectIdentifier("1.2.3.4")


def leaf(*extensions: x509.ExtensionType) -> x509.Certificate:
    """A leaf with these extensions and no others; who signed it does not matter here."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
    builder = x509.CertificateBuilder(name, name, GPU._leaf_key.public_key(), 1)
    builder = builder.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(
        datetime(2027, 1, 1, tzinfo=UTC)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(GPU._leaf_key, hashes.SHA384())


def info(*texts: str, oid: x509.ObjectIdentifier = OID_SPDM_DEVICE_INFO) -> x509.SubjectAlternativeName:
    """Device information, as DSP0274 has it."""
    return x509.SubjectAlternativeName([x509.OtherName(oid, asn1.encode_der(text)) for text in texts])


def read(certificate: x509.Certificate, chain: CertificateChain = CHAIN) -> DeviceEndorsement:
    """The endorsement of a GPU."""
    return DeviceEndorsement.from_chain(chain, certificate, kind=DeviceKind.GPU)


def test_device_information_is_read() -> None:
    stated = read(leaf(info("NVIDIA:GH100:0A1B")))
    assert (stated.products, stated.device_info) == (("GH100",), "0A1B")
    assert stated.serial_number == GPU.identity.value
    other = read(leaf(info("NVIDIA:GB100:0A1B")))
    assert other.products == ("GH100", "GB100"), "what leaf and BROM name, and then what the information does"


@pytest.mark.parametrize(
    "extensions",
    [(), (info("NVIDIA:GB100:0A1B", oid=OTHER),), (x509.SubjectAlternativeName([x509.DNSName("gpu.example")]),)],
    ids=["no alternative name", "of another kind", "a host"],
)
def test_device_information_may_be_absent(extensions: tuple[x509.ExtensionType, ...]) -> None:
    stated = read(leaf(*extensions))
    assert (stated.products, stated.device_info, stated.firmware) == (("GH100",), None, None)


@pytest.mark.parametrize(
    ("extension", "reason"),
    [
        (info("NVIDIA:GH100:0A1B", "NVIDIA:GH100:0A1B"), "is not NVIDIA:product:serial number"),
        (info("AMD:GH100:0A1B"), "is not NVIDIA:product:serial number"),
        (info("NVIDIA:GH100:0A1B:"), "is not NVIDIA:product:serial number"),
        (info("NVIDIA:GH100:0a1b"), "is not NVIDIA:product:serial number"),
        (x509.SubjectAlternativeName([x509.OtherName(OID_SPDM_DEVICE_INFO, b"\x02\x01\x01")]), "is no UTF8String"),
    ],
    ids=["twice", "another manufacturer", "one part more", "lower case", "a number"],
)
def test_other_device_information_is_malformed(extension: x509.SubjectAlternativeName, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        read(leaf(extension))


def test_a_leaf_says_once_what_its_firmware_is() -> None:
    both = (
        x509.UnrecognizedExtension(
            OID_COMPOSITE_DEVICE_ID, composite_device_id_to_bytes(device_key=CHAIN.points[BROM], fwid=GPU.fwid)
        ),
        x509.UnrecognizedExtension(OID_DICE_TCB_INFO, dice_tcb_info_to_bytes(model="x", fwid=GPU.fwid, flags=())),
    )
    for extension in both:
        firmware = read(leaf(extension)).firmware
        assert firmware is not None
        assert firmware.fwid == GPU.fwid
    with pytest.raises(MalformedError, match="carries both"):
        read(leaf(*both))


@pytest.mark.parametrize(
    ("position", "oid", "name"),
    [(LEAF, NameOID.COMMON_NAME, "leaf"), (BROM, NameOID.COMMON_NAME, "BROM"), (BROM, NameOID.SERIAL_NUMBER, "BROM")],
)
@pytest.mark.parametrize("times", [0, 2])
def test_a_name_has_each_of_its_parts_once(position: int, oid: x509.ObjectIdentifier, name: str, times: int) -> None:
    def changed(attributes: NameAttributes) -> NameAttributes:
        return tuple(each for each in attributes for _ in range(times if each[0] == oid else 1))

    subjects = tuple(changed(each) if index == position else each for index, each in enumerate(CHAIN.subjects))
    with pytest.raises(MalformedError, match=rf"{name} certificate.* {times} × {oid.dotted_string}"):
        read(leaf(), replace(CHAIN, subjects=subjects))


def test_no_root_is_said_to_be_missing_for_devices() -> None:
    with pytest.raises(TrustAnchorError, match=r"NVIDIA .*: no root certificate is configured"):
        NvGpuAnchors.simulated()
