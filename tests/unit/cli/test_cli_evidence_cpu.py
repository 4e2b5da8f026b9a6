"""``keystead evidence``: CPU evidence in the envelopes that clouds and hosts deliver it in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attestation.simulator.azure import HclDefect, SimulatedAzureVm
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.snp import CURRENT_TCB
from attestation.snp.abi import Product
from attestation.snp.cert_table import ARK_GUID, ASK_GUID, VCEK_GUID, VLEK_GUID, cert_table_to_bytes
from keystead.cli.main import run

NOW = 1_790_000_000
AT = "2026-09-21T14:13:20Z"
USER_DATA = bytes(range(64))


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> SimulatedVendors:
    return SimulatedVendors.load_or_generate(tmp_path_factory.mktemp("vendors"), now=NOW, seed=bytes(32))


@pytest.fixture(scope="module")
def vm(vendors: SimulatedVendors) -> SimulatedAzureVm:
    return SimulatedAzureVm(chip=vendors.node("azure-1", now=NOW, gpus=0).cpu)


class Files:
    """A folder with a simulated virtual machine's evidence and everything it is judged with."""

    def __init__(self, folder: Path, vendors: SimulatedVendors, vm: SimulatedAzureVm) -> None:
        self.folder, self.vendors, self.vm = folder, vendors, vm
        tcb = CURRENT_TCB[Product.GENOA]
        self.reference = folder / "accepted.toml"
        self.reference.write_text(
            f"[snp_azure_hcl.minimum_tcb.Genoa]\nbl = {tcb.bl}\ntee = {tcb.tee}\nsnp = {tcb.snp}\nucode = {tcb.ucode}\n"
        )

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def arguments(self, *defects: HclDefect, table: bytes | None = None, user_data: bytes = USER_DATA) -> list[str]:
        evidence = self.vm.evidence(USER_DATA, defects=frozenset(defects))
        leaf, ask, ark = evidence.certificates
        if table is None:
            table = cert_table_to_bytes({ARK_GUID: ark, VCEK_GUID: leaf, ASK_GUID: ask})
        arguments = ["evidence", "verify", self.write("hcl.bin", evidence.data), "--at", AT]
        arguments += ["--certificates", self.write("table.bin", table), "--simulated-root", self.write("ark.der", ark)]
        arguments += ["--crl", self.write("crl.der", self.vm.chip.crl(this_update=NOW - 60))]
        return [*arguments, "--reference", str(self.reference), "--report-data", user_data.hex()]


@pytest.fixture
def files(tmp_path: Path, vendors: SimulatedVendors, vm: SimulatedAzureVm) -> Files:
    return Files(tmp_path, vendors, vm)


def _json(capsys: pytest.CaptureFixture[str], arguments: list[str], *, code: int) -> Any:
    assert run([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def _failing(result: Any) -> set[str]:
    return {finding["code"] for finding in result["findings"] if finding["severity"] == "fail"}


def test_an_hcl_report_is_verified_with_the_hosts_certificate_table(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    (result,) = _json(capsys, files.arguments(), code=0)
    assert (result["scheme"], result["simulated"]) == ("snp-azure-hcl", True)
    assert result["claims"]["azure"]["user_data"] == USER_DATA.hex()
    assert result["identity"].startswith("amd-chip-id:")


def test_a_report_of_the_boot_is_a_no(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    (result,) = _json(capsys, files.arguments(HclDefect.BOOT_REPORT), code=1)
    assert _failing(result) == {"SNP_HCL_USER_DATA"}
    (result,) = _json(capsys, files.arguments(user_data=bytes(64)), code=1)
    assert _failing(result) == {"SNP_HCL_USER_DATA"}


def test_the_table_is_asked_for_the_leaf_that_the_report_names(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    leaf, ask, ark = files.vm.chip.certificates()
    both = cert_table_to_bytes({VLEK_GUID: ark, VCEK_GUID: leaf, ASK_GUID: ask, ARK_GUID: ark})
    (result,) = _json(capsys, files.arguments(table=both), code=0)
    assert result["ok"]


def test_a_table_that_is_none_is_wrong_use(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files.arguments(table=VCEK_GUID.bytes + b"\xff" * 8 + bytes(24))) == 2
    err = capsys.readouterr().err
    assert "table.bin" in err
    assert "certificate table" in err


def test_reference_values_must_name_the_paravisor(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    files.reference.write_text(files.reference.read_text().replace("snp_azure_hcl", "snp"))
    assert run(files.arguments()) == 2
    assert "[snp_azure_hcl]" in capsys.readouterr().err


def test_an_hcl_report_is_inspected(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = files.arguments()
    document = _json(capsys, ["evidence", "inspect", arguments[2], "--certificates", arguments[6]], code=0)
    assert document["scheme"] == "snp-azure-hcl"
    assert document["fields"]["azure"]["vm_configuration"]["secure-boot"] is True
    assert document["fields"]["vek"]["kind"] == "VCEK"


@pytest.mark.vectors
def test_a_published_extended_report_is_verified_with_its_table(
    vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = vectors / "snp" / "genoa-v3-extended-report"
    reference = tmp_path / "accepted.toml"
    reference.write_text(
        "[snp]\nplatform_required = []\n[snp.minimum_tcb.Genoa]\nbl = 0\ntee = 0\nsnp = 0\nucode = 0\n"
    )
    arguments = ["evidence", "verify", str(folder / "report.bin"), "--reference", str(reference)]
    arguments += ["--certificates", str(folder / "cert_table.bin"), "--at", "2025-05-20T18:31:36Z"]
    (result,) = _json(capsys, arguments, code=1)
    assert result["claims"]["authentic"] is True
    assert "SNP_CRL_MISSING" in _failing(result)
    assert {"SNP_SIGNATURE", "SNP_CHAIN_SIGNATURE", "SNP_ROOT_NOT_PINNED"} <= {
        each["code"] for each in result["passed"]
    }
