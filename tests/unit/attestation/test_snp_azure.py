"""Azure's paravisor as a scheme of its own: the report's own rules, what binds it, and what it does not prove."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from attestation import node_checks
from attestation.composite import BINDING_KEY, BINDING_NONE, NodeEvidence, verify_node
from attestation.errors import MalformedError, ManifestError, TrustAnchorError
from attestation.inspect import detect_scheme, inspect_evidence, leaf_of
from attestation.pem import certificates_from_pem
from attestation.reference.devices import DeviceLists
from attestation.reference.values import parse_reference_values
from attestation.registry import SCHEMES
from attestation.scheme import ReferenceValues, TrustAnchors
from attestation.simulator.azure import HclDefect, SimulatedAzureVm
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.snp import SnpDefect
from attestation.snp import azure_checks, azure_verify, checks
from attestation.snp.abi import Product
from attestation.snp.azure_hcl import HclReport, RuntimeData, jwk_thumbprint
from attestation.snp.cert_table import VCEK_GUID
from attestation.snp.conformance import REFERENCE
from attestation.snp.endorsements import SnpAnchors
from attestation.types import Collateral, DeviceResult, Evidence
from attestation.verifier import verify_evidence
from keystead.binding import HPKE_PUBLIC_KEY_SIZE, NONCE_SIZE
from keystead.binding import RuntimeData as SessionData

NOW = 1_790_000_000
USER_DATA = bytes(range(64))
SESSION = SessionData(
    broker="broker.example",
    nonce=bytes(NONCE_SIZE),
    grant=bytes(32),
    node_id="azure-1",
    hpke_key=bytes(HPKE_PUBLIC_KEY_SIZE),
    signing_key=bytes(32),
    assets=bytes(32),
    lease_id="",
    devices=(),
)


@pytest.fixture(scope="module")
def vm(vendors: SimulatedVendors) -> SimulatedAzureVm:
    node = vendors.node("azure-1", now=NOW, gpus=0)
    return SimulatedAzureVm(chip=node.cpu)


@pytest.fixture(scope="module")
def arguments(vendors: SimulatedVendors) -> dict[str, Any]:
    reference = vendors.reference()
    return {
        "anchors": vendors.anchors(),
        "reference": replace(reference, snp=None, snp_azure_hcl=reference.snp),
        "collateral": vendors.collateral(this_update=NOW - 60),
        "now": NOW,
    }


@pytest.fixture(scope="module")
def judge(vm: SimulatedAzureVm, arguments: dict[str, Any]) -> Callable[..., DeviceResult]:
    def judged(*defects: HclDefect | SnpDefect, expected: bytes | None = USER_DATA) -> DeviceResult:
        evidence = vm.evidence(USER_DATA, defects=frozenset(defects))
        return verify_evidence(evidence, expected=expected, **arguments)

    return judged


def _failing(result: DeviceResult) -> set[str]:
    return {finding.code for finding in result.findings if finding.severity == "fail"}


def test_user_data_binds_a_session(judge: Callable[..., DeviceResult], vm: SimulatedAzureVm) -> None:
    result = judge()
    assert result.ok
    assert (result.scheme, result.slot, result.simulated) == ("snp-azure-hcl", "cpu0", True)
    assert result.bound_data == USER_DATA
    assert result.identity is not None
    assert result.identity.value == vm.chip.hwid.hex()
    passed = {each.code for each in result.passed}
    assert {azure_checks.HCL_RUNTIME_DATA.code, azure_checks.HCL_USER_DATA.code, checks.SIGNATURE.code} <= passed
    assert checks.REPORT_DATA.code not in passed


def test_what_the_paravisor_states_is_claimed(judge: Callable[..., DeviceResult], vm: SimulatedAzureVm) -> None:
    claims = judge().claims
    azure = claims["azure"]
    assert isinstance(azure, dict)
    assert azure["user_data"] == USER_DATA.hex()
    assert azure["vm_configuration"]["secure-boot"] is True
    key = json.loads(vm.runtime_data(USER_DATA))["keys"][0]
    assert azure["vtpm_ak_thumbprint"] == jwk_thumbprint(n=key["n"], e=key["e"]).hex()
    assert claims["measurement"] != ""
    assert claims["vmpl"] == 0


def test_runtime_data_without_the_vtpms_key_claim_none(vm: SimulatedAzureVm, arguments: dict[str, Any]) -> None:
    result = verify_evidence(vm.evidence(USER_DATA, members={"keys": []}), expected=USER_DATA, **arguments)
    assert result.ok
    azure = result.claims["azure"]
    assert isinstance(azure, dict)
    assert azure["vtpm_ak_thumbprint"] is None


@pytest.mark.parametrize("hash_type", [1, 2, 3])
def test_runtime_data_are_bound_by_any_of_the_hashes(
    vm: SimulatedAzureVm, arguments: dict[str, Any], hash_type: int
) -> None:
    evidence = replace(vm, hash_type=hash_type).evidence(USER_DATA)
    assert verify_evidence(evidence, expected=USER_DATA, **arguments).ok


@pytest.mark.parametrize("defect", [HclDefect.BOOT_REPORT, HclDefect.NO_USER_DATA, HclDefect.OTHER_USER_DATA])
def test_a_report_of_the_boot_or_of_another_request_binds_nothing(
    judge: Callable[..., DeviceResult], defect: HclDefect
) -> None:
    result = judge(defect)
    assert _failing(result) == {"SNP_HCL_USER_DATA"}
    assert result.bound_data != USER_DATA
    (finding,) = [each for each in result.findings if each.severity == "fail"]
    assert finding.expected == USER_DATA.hex()
    assert finding.reference == "this session"
    assert "0x01400002" in finding.remedy


@pytest.mark.parametrize("defect", [HclDefect.ALTERED_RUNTIME_DATA, HclDefect.FOREIGN_REPORT])
def test_runtime_data_that_the_report_does_not_bind_are_refused(
    judge: Callable[..., DeviceResult], defect: HclDefect
) -> None:
    result = judge(defect)
    assert _failing(result) == {"SNP_HCL_RUNTIME_DATA"}
    assert result.bound_data == b""
    # The right words, and nobody vouches for them: user-data alone would be a yes.
    assert azure_checks.HCL_USER_DATA.code in {each.code for each in result.passed}


def test_without_an_expected_value_freshness_is_unproven(judge: Callable[..., DeviceResult]) -> None:
    result = judge(expected=None)
    assert result.ok
    assert "SNP_HCL_USER_DATA_UNCHECKED" in {finding.code for finding in result.findings}
    assert "SNP_HCL_USER_DATA_UNCHECKED" not in {finding.code for finding in judge().findings}


@pytest.mark.parametrize(
    ("defect", "code"),
    [
        (SnpDefect.DEBUG, "SNP_DEBUG_ALLOWED"),
        (SnpDefect.STALE_TCB, "SNP_TCB_BELOW_MINIMUM"),
        (SnpDefect.VMPL_1, "SNP_VMPL"),
        (SnpDefect.OTHER_CHIP, "SNP_HWID"),
        (SnpDefect.NO_ALIAS_CHECK, "SNP_ALIAS_CHECK"),
    ],
)
def test_the_report_inside_is_judged_as_any_other(
    judge: Callable[..., DeviceResult], defect: SnpDefect, code: str
) -> None:
    plain = {check.code for check in checks.CHECKS}
    result = judge(defect)
    assert code in _failing(result) <= plain
    assert list(result.findings) == sorted(result.findings)


def test_a_bad_signature_vouches_for_nothing(judge: Callable[..., DeviceResult]) -> None:
    result = judge(SnpDefect.BAD_SIGNATURE)
    assert checks.SIGNATURE.code in _failing(result)
    assert result.bound_data == b""
    assert result.identity is None


def test_reference_values_of_bare_guests_accept_no_paravisor(
    vm: SimulatedAzureVm, vendors: SimulatedVendors, arguments: dict[str, Any]
) -> None:
    evidence = vm.evidence(USER_DATA)
    with pytest.raises(TrustAnchorError, match="snp_azure_hcl"):
        verify_evidence(evidence, expected=USER_DATA, **{**arguments, "reference": vendors.reference()})
    no_roots = replace(arguments["anchors"], snp=None)
    with pytest.raises(TrustAnchorError):
        verify_evidence(evidence, expected=USER_DATA, **{**arguments, "anchors": no_roots})
    # And the other way round: the paravisor's values accept no bare report.
    bare = vm.chip.evidence(USER_DATA)
    with pytest.raises(TrustAnchorError):
        verify_evidence(bare, expected=USER_DATA, **arguments)


def test_neither_scheme_reads_the_others_evidence(vm: SimulatedAzureVm, arguments: dict[str, Any]) -> None:
    evidence = vm.evidence(USER_DATA)
    both = replace(arguments["reference"], snp=arguments["reference"].snp_azure_hcl)
    for wrong in (replace(evidence, scheme="snp"), replace(vm.chip.evidence(USER_DATA), scheme="snp-azure-hcl")):
        with pytest.raises(MalformedError):
            verify_evidence(wrong, expected=USER_DATA, **{**arguments, "reference": both})


def test_an_expected_value_of_another_size_is_an_error(vm: SimulatedAzureVm, arguments: dict[str, Any]) -> None:
    with pytest.raises(MalformedError, match="user-data"):
        verify_evidence(vm.evidence(USER_DATA), expected=bytes(32), **arguments)


def test_a_node_is_bound_through_its_paravisor(vm: SimulatedAzureVm, arguments: dict[str, Any]) -> None:
    common = {"runtime_data": SESSION, "device_nonce": bytes(32), **arguments}
    node = NodeEvidence(vm.evidence(SESSION.report_data()))
    result = verify_node(node, **common)
    assert result.ok
    assert result.binding_level == BINDING_KEY
    for defect in (HclDefect.BOOT_REPORT, HclDefect.NO_USER_DATA, HclDefect.ALTERED_RUNTIME_DATA):
        evidence = vm.evidence(SESSION.report_data(), defects=frozenset({defect}))
        refused = verify_node(NodeEvidence(evidence), **common)
        assert not refused.ok
        assert refused.binding_level == BINDING_NONE
        assert node_checks.RUNTIME_DATA.code in {finding.code for finding in refused.findings}


def test_the_schemes_checks_are_the_reports_and_its_own() -> None:
    scheme = SCHEMES["snp-azure-hcl"]
    codes = {check.code for check in scheme.checks}
    assert {check.code for check in azure_checks.OWN} <= codes
    assert codes - {check.code for check in azure_checks.OWN} == {
        check.code for check in checks.CHECKS if check not in (checks.REPORT_DATA, checks.REPORT_DATA_UNCHECKED)
    }
    assert scheme.slot_prefix == "cpu"


RUNTIME = {"keys": [], "vm-configuration": {}, "user-data": "00" * 64}


def _text(**members: Any) -> bytes:
    return json.dumps({**RUNTIME, **{name.replace("_", "-"): value for name, value in members.items()}}).encode()


def test_runtime_data_in_any_case_of_hex_and_with_unknown_members() -> None:
    parsed = RuntimeData.parse(_text(user_data="aB" * 64, tomorrow=[1, {"x": None}]))
    assert parsed.user_data == b"\xab" * 64
    assert parsed.ak_thumbprint is None
    assert RuntimeData.parse(b"{}") == RuntimeData(user_data=None, ak_thumbprint=None, vm_configuration={})


AK = {"kid": "HCLAkPub", "kty": "RSA", "n": "AQAB", "e": "AQAB"}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not JSON"),
        (b"[]", "not an object"),
        (b"\xff{}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"user-data":"' + b"00" * 64 + b'","user-data":"' + b"11" * 64 + b'"}', "twice"),
        (b'{"vm-configuration":{"secure-boot":true,"secure-boot":false}}', "twice"),
        (b'{"x":1.5}', "no integer"),
        (b'{"x":1e400}', "no integer"),
        (b'{"x":NaN}', "no integer"),
        (b'{"x":' + b"1" * 5000 + b"}", "no integer"),
        (b'{"x":9007199254740992}', "no integer"),
        (b'{"x":-9007199254740992}', "no integer"),
        (b'{"vm-configuration":{"x":"\\ud800"}}', "not JSON"),
        (b'{"x":' + b"[" * 70 + b"]" * 70 + b"}", "objects and lists"),
        (b'{"x":"' + b"a" * (1 << 16) + b'"}', "bytes, at most"),
        (_text(user_data="00" * 63), "64 bytes in hex"),
        (_text(user_data="00" * 65), "64 bytes in hex"),
        (_text(user_data="zz" * 64), "64 bytes in hex"),
        (_text(user_data="00" * 64 + "\n"), "64 bytes in hex"),
        (_text(user_data=None), "64 bytes in hex"),
        (_text(user_data=7), "64 bytes in hex"),
        (_text(vm_configuration=[]), "vm-configuration"),
        (_text(keys={}), "keys"),
        (_text(keys=["HCLAkPub"]), "keys"),
        (_text(keys=[AK, AK]), "2 keys"),
        (_text(keys=[{**AK, "kty": "EC"}]), "RSA key"),
        (_text(keys=[{**AK, "n": "AQ=="}]), "RSA key"),
        (_text(keys=[{**AK, "n": "AR"}]), "RSA key"),
        (_text(keys=[{**AK, "n": "A"}]), "RSA key"),
        (_text(keys=[{**AK, "e": 65537}]), "RSA key"),
        (_text(keys=[{"kid": "HCLAkPub"}]), "RSA key"),
    ],
)
def test_malformed_runtime_data(data: bytes, text: str) -> None:
    with pytest.raises(MalformedError, match=text):
        RuntimeData.parse(data)


def test_the_thumbprint_is_rfc_7638s() -> None:
    # RFC 7638, section 3.1: the example key and its thumbprint.
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
        "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA"
        "ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
        "kEgU8awapJzKnqDKgw"
    )
    thumbprint = base64.urlsafe_b64encode(jwk_thumbprint(n=n, e="AQAB")).rstrip(b"=")
    assert thumbprint == b"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_inspection_shows_the_report_and_what_it_carries(vm: SimulatedAzureVm) -> None:
    evidence = vm.evidence(USER_DATA)
    assert detect_scheme(evidence.data) == "snp-azure-hcl"
    assert leaf_of(evidence.data, scheme="snp-azure-hcl") == VCEK_GUID
    shown = inspect_evidence(evidence.data, certificates=evidence.certificates).to_json()
    assert shown["scheme"] == "snp-azure-hcl"
    fields = shown["fields"]
    assert isinstance(fields, dict)
    assert fields["azure"]["user_data"] == USER_DATA.hex()
    assert fields["runtime_data_is_what_report_data_states"] is True
    foreign = vm.evidence(USER_DATA, defects=frozenset({HclDefect.FOREIGN_REPORT}))
    assert inspect_evidence(foreign.data).fields["runtime_data_is_what_report_data_states"] is False


def _published(vectors: Path, name: str) -> tuple[Evidence, int]:
    folder = vectors / "snp" / name
    (case,) = [each for each in json.loads((vectors / "manifest.json").read_text()) if each["name"] == name]
    chain = ((folder / "vcek.der").read_bytes(), *certificates_from_pem((folder / "ca_chain.pem").read_bytes()))
    now = int(datetime.fromisoformat(case["expected"]["verification_time"]).timestamp())
    return Evidence("cpu0", "snp-azure-hcl", (folder / "hcl_report.bin").read_bytes(), chain), now


@pytest.mark.vectors
@pytest.mark.parametrize("name", ["milan-v3-azure-hcl", "genoa-v3-azure-with-crl"])
def test_published_reports_are_authentic_and_bind_no_session(vectors: Path, name: str) -> None:
    evidence, now = _published(vectors, name)
    folder = vectors / "snp" / name
    crls = tuple(path.read_bytes() for path in folder.glob("crl.der"))
    common: dict[str, Any] = {
        "anchors": TrustAnchors.production(),
        "reference": ReferenceValues(snp=None, nvgpu=None, snp_azure_hcl=replace(REFERENCE, vmpls=frozenset({0}))),
        "collateral": Collateral(crls=crls),
        "now": now,
    }
    unchecked = verify_evidence(evidence, expected=None, **common)
    assert unchecked.claims["authentic"] is True
    assert unchecked.identity is not None
    assert not unchecked.simulated
    azure = unchecked.claims["azure"]
    assert isinstance(azure, dict)
    assert azure["user_data"] == bytes(64).hex()
    assert azure["vm_configuration"]["secure-boot"] is True
    assert len(azure["vtpm_ak_thumbprint"]) == 64
    passed = {each.code for each in unchecked.passed}
    assert {"SNP_SIGNATURE", "SNP_HCL_RUNTIME_DATA", "SNP_HWID", "SNP_VMPL"} <= passed
    refused = verify_evidence(evidence, expected=USER_DATA, **common)
    assert _failing(refused) - _failing(unchecked) == {"SNP_HCL_USER_DATA"}


@pytest.mark.vectors
def test_published_reports_carry_what_a_guest_wrote(vectors: Path) -> None:
    """The report of a quote's case: its user-data are that quote's, padded with zeros."""
    folder = vectors / "tpm" / "azure-snp-milan-b"
    (case,) = [each for each in json.loads((vectors / "manifest.json").read_text()) if each["name"] == folder.name]
    hcl = HclReport.parse((folder / "hcl_report.bin").read_bytes())
    runtime = RuntimeData.parse(hcl.runtime_data)
    assert runtime.user_data == bytes.fromhex(case["expected"]["extra_data"]).ljust(64, b"\x00")
    evidence = Evidence("cpu0", "snp-azure-hcl", (folder / "hcl_report.bin").read_bytes())
    result = azure_verify.verify(
        evidence,
        collateral=Collateral(),
        anchors=SnpAnchors.amd(),
        reference=REFERENCE,
        expected_user_data=runtime.user_data,
        now=NOW,
    )
    # It came without its chain: everything that the bytes alone can show holds, and they are not authentic.
    assert {"SNP_HCL_USER_DATA", "SNP_HCL_RUNTIME_DATA"} <= {each.code for each in result.passed}
    assert checks.CHAIN_SHAPE.code in _failing(result)
    assert result.bound_data == b""


def test_every_product_line(vendors: SimulatedVendors, arguments: dict[str, Any]) -> None:
    for product in Product:
        node = vendors.node("azure-2", now=NOW, gpus=0, product=product)
        evidence = SimulatedAzureVm(chip=node.cpu).evidence(USER_DATA)
        assert verify_evidence(evidence, expected=USER_DATA, **arguments).ok


def test_lists_of_devices_hold_for_a_paravisors_chip(
    vm: SimulatedAzureVm, arguments: dict[str, Any], judge: Callable[..., DeviceResult]
) -> None:
    identity = str(judge().identity)
    denied = replace(arguments["reference"], devices=DeviceLists(denied={identity: "stolen"}))
    result = verify_evidence(vm.evidence(USER_DATA), expected=USER_DATA, **{**arguments, "reference": denied})
    assert _failing(result) == {"IDENTITY_DENIED"}


TCB = "bl = 1\ntee = 0\nsnp = 1\nucode = 1\n"


def test_the_paravisors_reference_values_have_a_table_of_their_own() -> None:
    text = f'[snp_azure_hcl]\nmeasurements = ["{"ab" * 48}"]\n[snp_azure_hcl.minimum_tcb.Genoa]\n{TCB}'
    values = parse_reference_values(text.encode(), name="accepted.toml")
    assert values.snp is None
    assert values.snp_azure_hcl is not None
    assert values.snp_azure_hcl.measurements == frozenset({b"\xab" * 48})
    assert values.snp_azure_hcl.vmpls == frozenset({0})
    for table, other in (("snp", "snp_azure_hcl"), ("snp_azure_hcl", "snp")):
        wrong = f"[{table}.minimum_tcb.Turin]\n{TCB}"
        with pytest.raises(ManifestError, match=rf"accepted.toml: {table}\.minimum_tcb\.Turin"):
            parse_reference_values(wrong.encode(), name="accepted.toml")
        right = parse_reference_values(f"[{table}.minimum_tcb.Genoa]\n{TCB}".encode(), name="accepted.toml")
        assert getattr(right, table) is not None
        assert getattr(right, other) is None
