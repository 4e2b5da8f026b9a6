"""Every registered check has evidence that violates it, judged as a whole device or node: a new check needs a row here.

What each check says in detail stands in the tests of its module; those of SEV-SNP are complete by themselves
(test_snp_verify.py), as are those of Azure's paravisor (test_snp_azure.py) and of reference values
(test_reference_appraisal.py), so that only the others have rows.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.hazmat.primitives.serialization import PublicFormat as Format
from cryptography.x509.oid import NameOID

from attestation.composite import NodeEvidence, verify_node
from attestation.fabric import FabricTopology
from attestation.findings import Finding
from attestation.nvgpu import verify as nvgpu
from attestation.nvgpu.abi import Mode
from attestation.nvswitch import verify as nvswitch
from attestation.reference import checks as reference_checks
from attestation.registry import CHECKS
from attestation.simulator.node import SimulatedNode, SimulatedVendors
from attestation.simulator.nvgpu import Architecture, GpuConfiguration, GpuDefect, SimulatedGpu, SimulatedGpuVendor
from attestation.simulator.nvswitch import SimulatedSwitch, SwitchDefect
from attestation.simulator.ocsp import OcspDefect, SimulatedOcsp
from attestation.simulator.rim import RimDefect, SimulatedRimAuthority
from attestation.simulator.snp import SnpDefect
from attestation.snp import azure_checks
from attestation.snp import checks as snp_checks
from attestation.snp import conformance as snp_conformance
from attestation.spdm.dice import OID_COMPOSITE_DEVICE_ID, OID_DICE_TCB_INFO, dice_tcb_info_to_bytes
from attestation.types import Collateral, Evidence
from keystead.binding import HPKE_PUBLIC_KEY_SIZE, NONCE_SIZE, RuntimeData

NOW: Final = 1_790_000_000
DAY: Final = 24 * 3600
NONCE: Final = b"\xa5" * 32
VENDOR: Final = SimulatedGpuVendor(b"\x01" * 32)
RIMS: Final = SimulatedRimAuthority(vendor=VENDOR, not_before=NOW - 300 * DAY)
OCSP: Final = SimulatedOcsp(vendor=VENDOR)
SWITCH: Final = SimulatedSwitch(vendor=VENDOR, pdi=0x203EB31AD9ED0008, gpu_pdis=(1, 2, 3), position=2)
GPU: Final = VENDOR.gpu(
    0x1D480FE5E87274AA, configuration=GpuConfiguration(mode=Mode.PROTECTED_PCIE, switch_pdis=(bytes(range(1, 9)),))
)
BLACKWELL: Final = VENDOR.gpu(1, architecture=Architecture.BLACKWELL, configuration=GPU.configuration)
SWITCH_REFERENCE: Final = nvswitch.NvSwitchReference(
    products=frozenset({"LS_10"}),
    bios=frozenset({SWITCH.bios_version}),
    measurements={index: frozenset({value}) for index, value in SWITCH.measurements.items()},
)
NOBODY: Final = frozenset({"nobody"})
Chain = Callable[[tuple[bytes, ...]], tuple[bytes, ...]]


def _same(chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return chain


def _responses(device: SimulatedGpu = GPU, **options: Any) -> tuple[bytes, ...]:
    """OCSP responses for the GPU and the signers of its manifests."""
    arguments = {"this_update": NOW - 60, **options}
    return (
        *OCSP.responses(device.certificates(), first=1, **arguments),
        *OCSP.responses(RIMS.certificates(), **arguments),
    )


def gpu(
    *defects: GpuDefect,
    device: SimulatedGpu = GPU,
    certificates: Chain = _same,
    rims: Iterable[bytes] | None = None,
    ocsp: Iterable[bytes] | None = None,
    ocsp_nonce: bytes | None = None,
    now: int = NOW,
    nonce: bytes | None = NONCE,
    **reference: Any,
) -> tuple[Finding, ...]:
    """Findings about one GPU for which everything is given that can be."""
    evidence = device.evidence("gpu0", NONCE, defects=defects)
    wanted: dict[str, Any] = {
        "products": frozenset({device.architecture.value}),
        "modes": frozenset({Mode.PROTECTED_PCIE}),
        "drivers": frozenset({device.configuration.driver_version}),
        "vbios": frozenset({device.configuration.vbios_version}),
        "measurements": {index: frozenset({value}) for index, value in device.measurements.items()},
    }
    collateral = Collateral(
        rims=(RIMS.driver(device), RIMS.vbios(device)) if rims is None else tuple(rims),
        ocsp=_responses(device) if ocsp is None else tuple(ocsp),
        ocsp_nonce=ocsp_nonce,
    )
    return nvgpu.verify(
        replace(evidence, certificates=certificates(evidence.certificates)),
        anchors=VENDOR.anchors(),
        reference=nvgpu.NvGpuReference(**{**wanted, **reference}),
        expected_nonce=nonce,
        now=now,
        collateral=collateral,
        allow_trailing_byte=True,
    ).findings


def switch(
    *defects: SwitchDefect,
    certificates: Chain = _same,
    ocsp: bool = True,
    nonce: bytes | None = NONCE,
    **reference: Any,
) -> tuple[Finding, ...]:
    """Findings about one NVSwitch."""
    evidence = SWITCH.evidence("nvswitch0", NONCE, defects=defects)
    responses = OCSP.responses(SWITCH.certificates(), this_update=NOW - 60, first=1)
    return nvswitch.verify(
        replace(evidence, certificates=certificates(evidence.certificates)),
        anchors=SWITCH.anchors(),
        reference=replace(SWITCH_REFERENCE, **reference),
        expected_nonce=nonce,
        now=NOW,
        collateral=Collateral(ocsp=responses if ocsp else ()),
        allow_trailing_byte=True,
    ).findings


USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _issue_anew(
    position: int,
    *changes: x509.ExtensionType,
    signer: str,
    critical: bool = False,
    algorithm: hashes.HashAlgorithm | None = None,
    subject: x509.Name | None = None,
    issuer: x509.Name | None = None,
    not_after: datetime | None = None,
    without: x509.ObjectIdentifier | None = None,
) -> Chain:
    """The chain with the certificate at `position` signed anew by the key called `signer`, and these things changed."""

    def change(chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
        old = x509.load_der_x509_certificate(chain[position])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or old.subject)
            .issuer_name(issuer or old.issuer)
            .public_key(load_der_public_key(old.public_key().public_bytes(Encoding.DER, Format.SubjectPublicKeyInfo)))
            .serial_number(old.serial_number)
            .not_valid_before(old.not_valid_before_utc)
            .not_valid_after(not_after or old.not_valid_after_utc)
        )
        replaced = {extension.oid for extension in changes} | {without}
        for extension in old.extensions:
            if extension.oid not in replaced:
                builder = builder.add_extension(extension.value, critical=extension.critical)
        for extension in changes:
            builder = builder.add_extension(extension, critical=critical)
        key: ec.EllipticCurvePrivateKey = VENDOR.key(signer)
        new = builder.sign(key, algorithm or hashes.SHA384()).public_bytes(Encoding.DER)
        return (*chain[:position], new, *chain[position + 1 :])

    return change


_provisioner = functools.partial(_issue_anew, 2, signer="GH100 identity")
_switch_leaf = functools.partial(_issue_anew, 0, signer=f"switch BROM {SWITCH.pdi:016x}")


RUNTIME: Final = RuntimeData(
    broker="broker.example",
    nonce=bytes(NONCE_SIZE),
    grant=bytes(32),
    node_id="node-1",
    hpke_key=bytes(HPKE_PUBLIC_KEY_SIZE),
    signing_key=bytes(32),
    assets=bytes(32),
    lease_id="",
    devices=(),
)
FABRIC: Final = FabricTopology(gpus=2, switches=1)


@dataclass(frozen=True)
class Rack:
    """A node of two GPUs behind one switch, and what is needed to judge it."""

    vendors: SimulatedVendors
    node: SimulatedNode

    def judge(
        self,
        node: SimulatedNode | None = None,
        *,
        fabric: FabricTopology | None = FABRIC,
        change: Callable[[NodeEvidence], NodeEvidence] = lambda evidence: evidence,
    ) -> tuple[Finding, ...]:
        """Findings about the node as a whole."""
        evidence, runtime = (node or self.node).attest(RUNTIME, device_nonce=NONCE)
        return verify_node(
            change(evidence),
            runtime_data=runtime,
            device_nonce=NONCE,
            anchors=self.vendors.anchors(),
            reference=self.vendors.reference(fabric=fabric),
            collateral=self.vendors.collateral(this_update=NOW - 60),
            now=NOW,
        ).findings

    def with_devices(self, change: Callable[[tuple[Evidence, ...]], tuple[Evidence, ...]]) -> tuple[Finding, ...]:
        """Findings where the devices' evidence is changed after the CPU vouched for it."""
        return self.judge(change=lambda evidence: replace(evidence, devices=change(evidence.devices)))


@pytest.fixture(scope="module")
def rack(vendors: SimulatedVendors) -> Rack:
    return Rack(vendors, vendors.node("rack", now=NOW, gpus=2, switches=1))


def _mixed(rack: Rack) -> tuple[Finding, ...]:
    other = rack.vendors.node("rack", now=NOW, gpus=2).gpus[1]
    return rack.judge(replace(rack.node, gpus=(rack.node.gpus[0], other)))


def _stranger(rack: Rack, *, switches: bool) -> tuple[Finding, ...]:
    """A device of another rack in place of one of this rack's."""
    other = rack.vendors.node("other", now=NOW, gpus=2, switches=1)
    if switches:
        return rack.judge(replace(rack.node, switches=other.switches))
    return rack.judge(replace(rack.node, gpus=(rack.node.gpus[0], other.gpus[1])))


NODE_CASES: Final[dict[str, Callable[[Rack], tuple[Finding, ...]]]] = {
    "NODE_RUNTIME_DATA": lambda rack: rack.judge(rack.node.with_defects(cpu=[SnpDefect.WRONG_REPORT_DATA])),
    "NODE_DEVICE_COUNT": lambda rack: rack.with_devices(lambda devices: devices[:-1]),
    "NODE_DEVICE_DIGEST": lambda rack: rack.with_devices(lambda devices: (devices[1], devices[0], *devices[2:])),
    "NODE_SLOT": lambda rack: rack.with_devices(lambda devices: (replace(devices[0], slot="gpu"), *devices[1:])),
    "NODE_IDENTITY_UNIQUE": lambda rack: rack.judge(replace(rack.node, gpus=rack.node.gpus[:1] * 2)),
    "NODE_GPU_MODE": _mixed,
    "NODE_FABRIC_DECLARED": lambda rack: rack.judge(fabric=None),
    "NODE_FABRIC_COUNT": lambda rack: rack.judge(fabric=FabricTopology(gpus=2, switches=2)),
    "NODE_FABRIC_SWITCHES": functools.partial(_stranger, switches=True),
    "NODE_FABRIC_GPUS": functools.partial(_stranger, switches=False),
}

CASES: Final[dict[str, Callable[[], tuple[Finding, ...]]]] = {
    "X509_CHAIN_LENGTH": lambda: gpu(certificates=lambda chain: (*chain[:3], chain[4])),
    "X509_ROOT_PINNED": lambda: gpu(GpuDefect.OTHER_ROOT),
    "X509_ALGORITHM": lambda: gpu(certificates=_provisioner(algorithm=hashes.SHA256())),
    "X509_NAMES": lambda: gpu(certificates=_provisioner(issuer=VENDOR.root.subject)),
    "X509_KEY_IDENTIFIERS": lambda: gpu(
        certificates=_provisioner(x509.AuthorityKeyIdentifier(b"another key", None, None))
    ),
    "X509_SIGNATURES": lambda: gpu(certificates=_issue_anew(2, signer="somebody else")),
    "X509_AUTHORITIES": lambda: gpu(certificates=_provisioner(x509.BasicConstraints(ca=True, path_length=None))),
    "X509_PATH_LENGTH": lambda: gpu(
        certificates=_provisioner(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ),
    "X509_KEY_USAGE": lambda: gpu(certificates=_provisioner(USAGE, critical=True)),
    "X509_CRITICAL_EXTENSIONS": lambda: gpu(
        certificates=_provisioner(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical=True
        )
    ),
    "X509_VALIDITY": lambda: gpu(
        certificates=_provisioner(not_after=datetime.fromtimestamp(NOW, UTC) - timedelta(seconds=1))
    ),
    "RIM_DOCUMENT": lambda: gpu(rims=[RIMS.driver(GPU, defects=[RimDefect.DOCTYPE])]),
    "RIM_SIGNATURE_FORM": lambda: gpu(rims=[RIMS.driver(GPU, defects=[RimDefect.REFERENCE_BY_ID])]),
    "RIM_DIGEST": lambda: gpu(rims=[RIMS.driver(GPU, defects=[RimDefect.ALTERED])]),
    "RIM_CHAIN": lambda: gpu(rims=[RIMS.driver(GPU, defects=[RimDefect.OTHER_ROOT])]),
    "RIM_SIGNATURE": lambda: gpu(rims=[RIMS.driver(GPU, defects=[RimDefect.BAD_SIGNATURE])]),
    "RIM_CONTENT": lambda: gpu(rims=[RIMS.driver(GPU, defects=[RimDefect.DUPLICATE_INDEX])]),
    "RIM_SIGNER_VALIDITY": lambda: gpu(now=RIMS.not_after + 1),
    "RIM_SIGNER_GRACE": lambda: gpu(now=RIMS.not_after + 1, rim_grace=DAY),
    "RIM_VERSION": lambda: gpu(
        rims=[RIMS.driver(VENDOR.gpu(1, configuration=GpuConfiguration(driver_version="580.95.06")))]
    ),
    "RIM_OTHER_DEVICE": lambda: gpu(
        rims=[RIMS.manifest(product="GB100", edition="GPU", version="580.95.05", values={1: (bytes(48),)})]
    ),
    "RIM_CONFLICT": lambda: gpu(
        rims=[
            RIMS.vbios(GPU),
            RIMS.manifest(product="GH100", edition="GPU", version="580.95.05", values={3: (GPU.measurements[4],)}),
        ]
    ),
    "RIM_MEASUREMENT": lambda: gpu(GpuDefect.OTHER_FIRMWARE),
    "OCSP_AUTHENTIC": lambda: gpu(ocsp=_responses(defects=[OcspDefect.BAD_SIGNATURE])),
    "OCSP_WINDOW": lambda: gpu(ocsp=_responses(this_update=NOW - 3 * DAY)),
    "OCSP_NONCE": lambda: gpu(ocsp=_responses(nonce=b"n" * 32), ocsp_nonce=b"m" * 32),
    "OCSP_STATUS": lambda: gpu(ocsp=_responses(revoked=[2])),
    "OCSP_PAST_STATUS": lambda: gpu(ocsp=_responses(revoked=[2], this_update=NOW - 3 * DAY)),
    "OCSP_NOT_GIVEN": lambda: gpu(ocsp=_responses()[1:]),
    "NVGPU_TRAILING_BYTE": lambda: gpu(GpuDefect.TRAILING_BYTE),
    "NVGPU_SIGNATURE": lambda: gpu(GpuDefect.BAD_SIGNATURE),
    "NVGPU_NONCE": lambda: gpu(GpuDefect.WRONG_NONCE),
    "NVGPU_NONCE_NOT_COMPARED": lambda: gpu(nonce=None),
    "NVGPU_ALL_MEASUREMENTS": lambda: gpu(GpuDefect.ONE_MEASUREMENT),
    "NVGPU_FWID_PRESENT": lambda: gpu(GpuDefect.MISSING_FWID),
    "NVGPU_FWID": lambda: gpu(GpuDefect.WRONG_FWID),
    "NVGPU_DEVICE_KEY": lambda: gpu(GpuDefect.WRONG_DEVICE_KEY),
    "NVGPU_FIRMWARE_STATE": lambda: gpu(GpuDefect.DEVELOPER_MODE, device=BLACKWELL),
    "NVGPU_IDENTITY": lambda: gpu(GpuDefect.SWITCH_SERIAL),
    "NVGPU_PRODUCT_NAMES": lambda: gpu(GpuDefect.OTHER_CHIP),
    "NVGPU_PRODUCT": lambda: gpu(products=NOBODY),
    "NVGPU_MODE_KNOWN": lambda: gpu(GpuDefect.CONTRADICTORY_MODE),
    "NVGPU_MODE": lambda: gpu(modes=frozenset({Mode.SINGLE_GPU})),
    "NVGPU_SWITCHES": lambda: gpu(GpuDefect.NO_SWITCHES),
    "NVGPU_DRIVER": lambda: gpu(drivers=NOBODY),
    "NVGPU_VBIOS": lambda: gpu(vbios=NOBODY),
    "NVGPU_VERSIONS_NOT_APPRAISED": lambda: gpu(vbios=None),
    "NVGPU_MEASUREMENT": lambda: gpu(measurements={64: frozenset({bytes(47)})}),
    "NVGPU_MEASUREMENTS_NOT_APPRAISED": lambda: gpu(measurements={}),
    "NVGPU_REVOCATION_NOT_CHECKED": lambda: gpu(ocsp=()),
    "NVSWITCH_TRAILING_BYTE": lambda: switch(SwitchDefect.TRAILING_BYTE),
    "NVSWITCH_SIGNATURE": lambda: switch(SwitchDefect.BAD_SIGNATURE),
    "NVSWITCH_NONCE": lambda: switch(SwitchDefect.WRONG_NONCE),
    "NVSWITCH_NONCE_NOT_COMPARED": lambda: switch(nonce=None),
    "NVSWITCH_ALL_MEASUREMENTS": lambda: switch(SwitchDefect.ONE_MEASUREMENT),
    "NVSWITCH_LEAF_FWID": lambda: switch(SwitchDefect.NO_LEAF_FWID),
    "NVSWITCH_FWID_NOT_REPORTED": switch,
    "NVSWITCH_FWID": lambda: switch(SwitchDefect.WRONG_FWID),
    "NVSWITCH_DEVICE_KEY": lambda: switch(SwitchDefect.WRONG_DEVICE_KEY),
    "NVSWITCH_FIRMWARE_STATE": lambda: switch(
        certificates=_switch_leaf(
            x509.UnrecognizedExtension(
                OID_DICE_TCB_INFO, dice_tcb_info_to_bytes(model="LS_10", fwid=SWITCH.fwid, flags=("debug",))
            ),
            without=OID_COMPOSITE_DEVICE_ID,
        )
    ),
    "NVSWITCH_IDENTITY": lambda: switch(SwitchDefect.GPU_SERIAL),
    "NVSWITCH_PDI": lambda: switch(SwitchDefect.OTHER_PDI),
    "NVSWITCH_PRODUCT_NAMES": lambda: switch(
        certificates=_switch_leaf(subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "GH100 A01 FSP FMC LF")]))
    ),
    "NVSWITCH_PRODUCT": lambda: switch(products=NOBODY),
    "NVSWITCH_LOCKED": lambda: switch(SwitchDefect.UNLOCKED),
    "NVSWITCH_GPUS": lambda: switch(SwitchDefect.NO_GPUS),
    "NVSWITCH_BIOS": lambda: switch(bios=NOBODY),
    "NVSWITCH_VERSIONS_NOT_APPRAISED": lambda: switch(bios=None),
    "NVSWITCH_MEASUREMENT": lambda: switch(measurements={31: frozenset({bytes(47)})}),
    "NVSWITCH_MEASUREMENTS_NOT_APPRAISED": lambda: switch(measurements={}),
    "NVSWITCH_REVOCATION_NOT_CHECKED": lambda: switch(ocsp=False),
}


OF_CONFORMANCE: Final = "SNP_HCL_RUNTIME_DATA"
"""A check of the envelope in which one cloud delivers reports, as conformance applies it."""


def test_every_check_has_a_row() -> None:
    rows = {*CASES, *NODE_CASES}
    elsewhere = {check.code for check in (*snp_checks.CHECKS, *azure_checks.OWN, *reference_checks.CHECKS)}
    assert rows | elsewhere == CHECKS.keys()


def test_sound_devices_violate_nothing(rack: Rack) -> None:
    assert gpu() == gpu(device=BLACKWELL) == rack.judge() == ()
    assert {finding.code for finding in switch()} == {"NVSWITCH_FWID_NOT_REPORTED"}, "switches do not report it"
    assert "NVSWITCH_FWID_NOT_REPORTED" not in {finding.code for finding in switch(SwitchDefect.WRONG_FWID)}


def _assert_violated(code: str, findings: tuple[Finding, ...]) -> None:
    found = {finding.code: finding.severity for finding in findings}
    assert found.get(code) is CHECKS[code].severity


@pytest.mark.parametrize("code", CASES)
def test_the_check_of_a_device_is_violated(code: str) -> None:
    _assert_violated(code, CASES[code]())


@pytest.mark.parametrize("code", NODE_CASES)
def test_the_check_of_a_node_is_violated(code: str, rack: Rack) -> None:
    _assert_violated(code, NODE_CASES[code](rack))


def test_the_check_of_an_envelope_is_violated(rack: Rack) -> None:
    evidence = rack.node.cpu_evidence(bytes(64))
    runtime = b"{}"
    header = struct.pack("<IIIII", 20 + len(runtime), 1, 2, 1, len(runtime))
    size = 32 + len(evidence.data) + len(header) + len(runtime)
    envelope = struct.pack("<4sIIII12s", b"HCLA", 2, size, 2, 0, bytes(12)) + evidence.data + header + runtime
    files = {"report": evidence.data, "vek": evidence.certificates[0], "ca_chain": _pem(*evidence.certificates[1:])}
    judge = functools.partial(snp_conformance.judge, policy_input={}, injected_root=True, now=NOW)
    assert judge(files).verdict == "pass"
    judged = judge({**files, "hcl_report": envelope})
    assert judged.verdict == "fail"
    assert OF_CONFORMANCE in judged.codes


def _pem(*certificates: bytes) -> bytes:
    return b"".join(x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM) for each in certificates)
