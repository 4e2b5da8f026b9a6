from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from attestation import conformance
from attestation.conformance import CaseResult, judge
from attestation.errors import ManifestError
from attestation.findings import Severity
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.nvgpu import GpuDefect
from attestation.simulator.snp import DEFAULT_POLICY, SimulatedSnp, SnpDefect
from attestation.snp import conformance as snp_conformance
from attestation.snp.abi import GuestPolicy, Product
from attestation.types import Evidence

NOW = 1_790_000_000
TIME = "2026-09-21T14:13:20Z"
NONCE = b"\x07" * 32


def _pem(*certificates: bytes) -> bytes:
    return b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
        for der in certificates
    )


def _snp_files(evidence: Evidence) -> dict[str, bytes]:
    leaf, *authorities = evidence.certificates
    return {"report": evidence.data, "vek": leaf, "ca_chain": _pem(*authorities)}


def _write(folder: Path, *cases: Mapping[str, Any]) -> Path:
    entries = []
    for index, case in enumerate(cases):
        files: dict[str, bytes] = case["contents"]
        for role, data in files.items():
            (folder / f"{index}.{role}").write_bytes(data)
        entries.append(
            {
                "name": f"case-{index}",
                "tee": "snp",
                "files": {role: f"{index}.{role}" for role in files},
                "sha256": {role: hashlib.sha256(data).hexdigest() for role, data in files.items()},
                "injected_root": True,
                "expected": {"verdict": "pass", "verification_time": TIME},
                **{name: value for name, value in case.items() if name != "contents"},
            }
        )
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(entries))
    return manifest


def _judge_one(folder: Path, contents: dict[str, bytes], **entry: Any) -> CaseResult:
    (result,) = judge(_write(folder, {"contents": contents, **entry}))
    return result


@pytest.fixture(scope="module")
def chip(vendors: SimulatedVendors) -> SimulatedSnp:
    return SimulatedSnp(vendors.amd, product=Product.GENOA, seed=b"conformance", now=NOW)


def _expected(verdict: str, options: Mapping[str, Any] | None = None, /, **fields: Any) -> dict[str, Any]:
    expected = {"verdict": verdict, "verification_time": TIME, **fields}
    return expected if options is None else {**expected, "policy_input": {"policy": options}}


def test_a_sound_case_agrees_with_every_field(tmp_path: Path, chip: SimulatedSnp) -> None:
    result = _judge_one(
        tmp_path,
        _snp_files(chip.evidence(bytes(64))),
        expected=_expected(
            "pass",
            product="Genoa",
            report_version=5,
            report_data="00" * 64,
            vmpl=0,
            policy=f"{DEFAULT_POLICY:#018x}",
            debug=False,
            reported_tcb={"bl": 10, "tee": 0, "snp": 23, "ucode": 84, "fmc": None},
            chip_id_masked=False,
            why="not compared",
        ),
    )
    assert result.agree, result
    assert result.to_json()["verdict"] == "pass"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("product", "Milan"),
        ("report_version", 3),
        ("vmpl", 1),
        ("debug", True),
        ("reported_tcb", {"bl": 10, "tee": 0, "snp": 23, "ucode": 85, "fmc": None}),
        ("reported_tcb", "0a00000000001755"),
        ("vek_not_before", "2026-01-01T00:00:00Z"),
    ],
)
def test_one_field_that_differs_disagrees(tmp_path: Path, chip: SimulatedSnp, field: str, value: Any) -> None:
    result = _judge_one(tmp_path, _snp_files(chip.evidence(bytes(64))), expected=_expected("pass", **{field: value}))
    assert result.verdict == "pass"
    assert not result.agree
    assert result.mismatches[0].startswith(field)


def test_a_raw_tcb_is_compared_raw(tmp_path: Path, chip: SimulatedSnp) -> None:
    expected = _expected("pass", reported_tcb="0a00000000001754")
    assert _judge_one(tmp_path, _snp_files(chip.evidence(bytes(64))), expected=expected).agree


INFORM = {SnpDefect.DEBUG, SnpDefect.MASKED_CHIP_ID, SnpDefect.NO_ALIAS_CHECK, SnpDefect.VMPL_1, SnpDefect.STALE_TCB}
INFORM |= {SnpDefect.PROVISIONAL_FIRMWARE, SnpDefect.WRONG_REPORT_DATA}
"""Nothing is expected of TCB or REPORT_DATA unless policy_input says so."""


@pytest.mark.parametrize("defect", SnpDefect)
def test_the_profile_decides_which_defects_fail(tmp_path: Path, chip: SimulatedSnp, defect: SnpDefect) -> None:
    verdict = "pass" if defect in INFORM else "fail"
    contents = _snp_files(chip.evidence(bytes(64), defects=frozenset({defect})))
    assert _judge_one(tmp_path, contents, expected=_expected(verdict)).agree


@pytest.mark.parametrize(
    ("options", "fields", "verdict"),
    [
        ({"enforce_spec_defaults": True}, {}, "pass"),
        ({"enforce_spec_defaults": True}, {"policy": DEFAULT_POLICY | GuestPolicy.DEBUG}, "fail"),
        ({"enforce_spec_defaults": False}, {"policy": DEFAULT_POLICY | GuestPolicy.DEBUG}, "pass"),
        ({"enforce_spec_defaults": True}, {"policy": 0x1F}, "fail"),
        ({}, {"policy": 0x1F}, "pass"),
        ({"expected_host_data_hex": "00" * 32}, {}, "pass"),
        ({"expected_host_data_hex": "01" * 32}, {}, "fail"),
        ({"expected_id_key_digest_hex": "01" * 48}, {}, "fail"),
        ({"expected_author_key_digest_hex": "01" * 48}, {}, "fail"),
        ({"expected_family_id_hex": "01" * 16}, {}, "fail"),
        ({"expected_image_id_hex": "01" * 16}, {}, "fail"),
        ({"expected_measurement_hex": "01" * 48}, {}, "fail"),
        ({"expected_report_data_hex": "00" * 64}, {}, "pass"),
        ({"expected_report_data_hex": "01" * 64}, {}, "fail"),
        ({"expected_report_data_hex": "00" * 32}, {}, "fail"),
        ({"min_tcb_bl_spl": 10, "min_tcb_snp_spl": 23, "min_tcb_ucode_spl": 84}, {}, "pass"),
        ({"min_tcb_bl_spl": 11}, {}, "fail"),
        ({"min_tcb_tee_spl": 1}, {}, "fail"),
        ({"min_tcb_snp_spl": 24}, {}, "fail"),
        ({"min_guest_svn": 1}, {}, "pass"),
        ({"min_guest_svn": 2}, {}, "fail"),
        ({"min_tcb_xyz_spl": 1}, {}, "unsupported"),
        ({"min_tcb_bl_spl": "10"}, {}, "unsupported"),
        ({"expected_measurement_hex": "xyz"}, {}, "unsupported"),
        ({"expected_measurement_hex": 5}, {}, "unsupported"),
        ({"something_new": True}, {}, "unsupported"),
    ],
)
def test_policy_input(
    tmp_path: Path, chip: SimulatedSnp, options: dict[str, Any], fields: dict[str, Any], verdict: str
) -> None:
    contents = _snp_files(chip.evidence(bytes(64), fields=fields))
    assert _judge_one(tmp_path, contents, expected=_expected(verdict, options)).verdict == verdict


def test_other_policy_input_is_unsupported(tmp_path: Path, chip: SimulatedSnp) -> None:
    contents = _snp_files(chip.evidence(bytes(64)))
    expected = {**_expected("pass"), "policy_input": {"execution_mode": "x"}}
    assert _judge_one(tmp_path, contents, expected=expected).verdict == "unsupported"


def test_a_root_is_injected_only_where_the_case_says_so(tmp_path: Path, chip: SimulatedSnp) -> None:
    result = _judge_one(tmp_path, _snp_files(chip.evidence(bytes(64))), injected_root=False, expected=_expected("fail"))
    assert result.agree
    assert "SNP_ROOT_NOT_PINNED" in result.findings


def test_no_chain_and_no_leaf(tmp_path: Path, chip: SimulatedSnp) -> None:
    files = _snp_files(chip.evidence(bytes(64)))
    del files["ca_chain"]
    assert _judge_one(tmp_path, files, expected=_expected("sig-only")).agree
    broken = _snp_files(chip.evidence(bytes(64), defects=frozenset({SnpDefect.BAD_SIGNATURE})))
    del broken["ca_chain"]
    assert _judge_one(tmp_path, broken, expected=_expected("fail")).agree
    report = {"report": files["report"]}
    assert _judge_one(tmp_path, report, expected={"verdict": "parse", "product": "Genoa"}).agree
    short = {"report": files["report"][:-1]}
    assert _judge_one(tmp_path, short, expected={"verdict": "fail"}).agree
    future = {"report": b"\x06" + files["report"][1:]}
    assert _judge_one(tmp_path, future, expected={"verdict": "fail"}).verdict == "unsupported"


def test_without_a_time_nothing_is_verified(tmp_path: Path, chip: SimulatedSnp) -> None:
    result = _judge_one(tmp_path, _snp_files(chip.evidence(bytes(64))), expected={"verdict": "pass"})
    assert result.verdict == "unsupported"


def test_revocation_lists(tmp_path: Path, vendors: SimulatedVendors, chip: SimulatedSnp) -> None:
    files, amd = _snp_files(chip.evidence(bytes(64))), vendors.amd
    revoked = (amd.ask_serial(Product.GENOA),)
    current = amd.crl(Product.GENOA, this_update=NOW - 60)
    revoking = amd.crl(Product.GENOA, this_update=NOW - 60, revoked_serials=revoked)
    stale = amd.crl(Product.GENOA, this_update=NOW - 60, next_update=NOW - 1, revoked_serials=revoked)
    assert _judge_one(tmp_path, {**files, "crl": current}, expected=_expected("pass")).agree
    failed = _judge_one(tmp_path, {**files, "crl": revoking}, expected=_expected("fail"))
    assert failed.agree
    assert "SNP_REVOKED" in failed.findings
    informed = _judge_one(tmp_path, {**files, "crl": stale}, expected=_expected("pass"))
    assert informed.agree, "a list whose window does not cover the time informs"
    alone = {"crl": current, "ca_chain": files["ca_chain"]}
    assert _judge_one(tmp_path, alone, expected=_expected("pass", revoked_serials=[])).agree
    alone["crl"] = revoking
    judged = _judge_one(tmp_path, alone, expected=_expected("fail", revoked_serials=["0x20001"]))
    assert judged.agree, judged
    assert _judge_one(tmp_path, alone, injected_root=False, expected=_expected("fail")).agree
    assert _judge_one(tmp_path, {"crl": current}, expected=_expected("pass")).verdict == "unsupported"


def test_gpu_cases(tmp_path: Path, vendors: SimulatedVendors) -> None:
    gpu = vendors.nvidia.gpu(7)

    def files(*defects: GpuDefect) -> dict[str, bytes]:
        evidence = gpu.evidence("gpu0", NONCE, defects=defects)
        return {
            "report": evidence.data,
            "cert_chain": _pem(*evidence.certificates),
            "device_root": _pem(vendors.nvidia.root_der),
        }

    good, expected = files(), _expected("pass", nonce=NONCE.hex(), product="GH100", measurement_blocks=64)
    assert _judge_one(tmp_path, good, tee="nvidia", expected=expected).agree
    assert _judge_one(tmp_path, good, tee="nvidia", injected_root=False, expected=_expected("fail")).agree
    bad = _judge_one(tmp_path, files(GpuDefect.BAD_SIGNATURE), tee="nvidia", expected=_expected("fail"))
    assert bad.agree
    other = _judge_one(tmp_path, good, tee="nvidia", expected=_expected("fail", nonce="00" * 32))
    assert other.agree
    assert "NVGPU_NONCE" in other.findings
    new = {**good, "something_new": b"<x/>"}
    assert _judge_one(tmp_path, new, tee="nvidia", expected=expected).verdict == "unsupported"
    new["report"] = files(GpuDefect.BAD_SIGNATURE)["report"]
    assert _judge_one(tmp_path, new, tee="nvidia", expected=_expected("fail")).agree
    assert _judge_one(tmp_path, {**good, "report": b"\x11"}, tee="nvidia", expected=_expected("fail")).agree
    options = {**expected, "policy_input": {"x": 1}}
    assert _judge_one(tmp_path, good, tee="nvidia", expected=options).verdict == "unsupported"
    del good["cert_chain"]
    assert _judge_one(tmp_path, good, tee="nvidia", expected=expected).verdict == "unsupported"


def test_the_verdict_does_not_depend_on_the_name(tmp_path: Path, chip: SimulatedSnp) -> None:
    contents = _snp_files(chip.evidence(bytes(64), defects=frozenset({SnpDefect.OTHER_CHIP})))
    for name in ("tf-604-synth-baseline-accept", "good", "neg-anything"):
        assert _judge_one(tmp_path, contents, name=name, expected=_expected("fail")).agree


def test_only_the_tees_asked_for_are_judged(tmp_path: Path, chip: SimulatedSnp) -> None:
    contents = _snp_files(chip.evidence(bytes(64)))
    manifest = _write(tmp_path, {"contents": contents}, {"contents": contents, "tee": "tdx"})
    assert [result.tee for result in judge(manifest)] == ["snp", "tdx"]
    assert [result.tee for result in judge(manifest, {"tdx"})] == ["tdx"]
    assert judge(manifest)[1].verdict == "unsupported"
    assert conformance.SUPPORTED_TEES == ("nvidia", "nvidia-rim", "nvswitch", "snp")


def test_every_deviation_has_a_reason_and_only_informs() -> None:
    for profile in (snp_conformance.PROFILE, snp_conformance.PROFILE_SPEC_DEFAULTS):
        for deviation in profile.deviations.values():
            assert deviation.severity is Severity.INFORM
            assert len(deviation.reason) > 20
    never = {"SNP_SIGNATURE", "SNP_CHAIN_SIGNATURE", "SNP_ROOT_NOT_PINNED", "SNP_HWID", "SNP_CERT_TCB", "SNP_REVOKED"}
    assert not never & snp_conformance.PROFILE.deviations.keys()
    assert not {"SNP_DEBUG_ALLOWED", "SNP_POLICY_RESERVED"} & snp_conformance.PROFILE_SPEC_DEFAULTS.deviations.keys()


def _entry(tmp_path: Path, chip: SimulatedSnp) -> tuple[Path, list[dict[str, Any]]]:
    manifest = _write(tmp_path, {"contents": _snp_files(chip.evidence(bytes(64)))})
    return manifest, json.loads(manifest.read_text())


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"tee": 5},
        {"files": []},
        {"files": {"report": "../manifest.json"}},
        {"files": {"report": "absent.bin"}},
        {"files": {"report": 1}},
        {"files": {"report": "a\0b"}},
        {"files": {"report": "\ud800"}},
        {"files": {"report": "x" * 5000}},
        {"sha256": {}},
        {"sha256": {"report": "00" * 32}},
        {"expected": {}},
        {"expected": {"verdict": 1}},
        {"expected": {"verdict": "pass", "verification_time": "yesterday"}},
        {"expected": {"verdict": "pass", "verification_time": "2026-09-21T14:13:20"}},
        {"expected": {"verdict": "pass", "verification_time": 5}},
        {"injected_root": "yes"},
        {"policy_input": []},
    ],
)
def test_a_manifest_that_cannot_be_used(tmp_path: Path, chip: SimulatedSnp, change: dict[str, Any]) -> None:
    manifest, entries = _entry(tmp_path, chip)
    manifest.write_text(json.dumps([{**entries[0], **change}]))
    with pytest.raises(ManifestError):
        judge(manifest)


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", "[", "\x00", "[" * 100_000, "[" + "9" * 5000 + "]"])
def test_what_is_no_manifest(tmp_path: Path, text: str) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(text)
    with pytest.raises(ManifestError):
        judge(manifest)


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError):
        judge(tmp_path / "manifest.json")


def test_an_altered_file_is_refused(tmp_path: Path, chip: SimulatedSnp) -> None:
    manifest, entries = _entry(tmp_path, chip)
    path = tmp_path / entries[0]["files"]["report"]
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ManifestError, match="sha256"):
        judge(manifest)


def test_a_gpu_case_with_a_nonce_that_is_not_hex(tmp_path: Path, vendors: SimulatedVendors) -> None:
    evidence = vendors.nvidia.gpu(7).evidence("gpu0", NONCE)
    files = {"report": evidence.data, "cert_chain": _pem(*evidence.certificates)}
    with pytest.raises(ManifestError, match="nonce"):
        _judge_one(tmp_path, files, tee="nvidia", injected_root=False, expected=_expected("pass", nonce="xyz"))
