"""``keystead evidence``: simulated GPUs and published evidence through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.simulator.nvgpu import GpuDefect, SimulatedGpuVendor
from keystead.cli.main import run

NONCE = bytes(range(32))
REFERENCE = '[nvgpu]\nproducts = ["GH100"]\nmodes = ["spt"]\n'


class Bench:
    """A folder with a simulated GPU's evidence, its chain, its vendor's root and reference values."""

    def __init__(self, folder: Path) -> None:
        self._vendor = SimulatedGpuVendor(bytes(32))
        self.folder = folder
        self.root = folder / "root.der"
        self.root.write_bytes(self._vendor.root_der)
        self.reference = folder / "accepted.toml"
        self.reference.write_text(REFERENCE)

    def evidence(self, *defects: GpuDefect, name: str = "gpu") -> tuple[Path, Path]:
        made = self._vendor.gpu(7).evidence("gpu0", NONCE, defects=defects)
        data, chain = self.folder / f"{name}.bin", self.folder / f"{name}.pem"
        data.write_bytes(made.data)
        chain.write_bytes(
            b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in made.certificates)
        )
        return data, chain

    def arguments(self, *defects: GpuDefect, nonce: bytes = NONCE, root: bool = True) -> list[str]:
        data, chain = self.evidence(*defects)
        arguments = ["evidence", "verify", str(data), "--certificates", str(chain), "--nonce", nonce.hex()]
        arguments += ["--reference", str(self.reference)]
        return [*arguments, "--simulated-root", str(self.root)] if root else arguments


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _json(capsys: pytest.CaptureFixture[str], arguments: list[str], *, code: int) -> Any:
    assert run([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_sound_evidence_is_a_yes_and_says_that_it_is_simulated(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    (result,) = _json(capsys, bench.arguments(), code=0)
    assert (result["ok"], result["simulated"], result["scheme"]) == (True, True, "nvgpu")
    assert result["identity"] == "nvidia-gpu:410000000000000007"
    assert not [finding for finding in result["findings"] if finding["severity"] == "fail"]
    assert result["passed"]
    assert run(bench.arguments()) == 0
    out = capsys.readouterr().out
    assert "SIMULATED" in out
    assert "accepted: " in out


def test_another_nonce_is_a_no_that_says_how_to_mend_it(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (result,) = _json(capsys, bench.arguments(nonce=bytes(32)), code=1)
    (finding,) = [each for each in result["findings"] if each["code"] == "NVGPU_NONCE"]
    assert finding["expected"] == bytes(32).hex()
    assert run(bench.arguments(nonce=bytes(32))) == 1
    out = capsys.readouterr().out
    assert "NVGPU_NONCE" in out
    assert finding["remedy"].split()[0] in out
    assert "NOT accepted" in out


def test_a_simulated_root_is_trusted_only_on_request(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (result,) = _json(capsys, bench.arguments(root=False), code=1)
    assert result["simulated"] is False
    assert result["identity"] is None


def test_every_file_must_be_sound(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = bench.arguments()
    bad, _ = bench.evidence(GpuDefect.BAD_SIGNATURE, name="bad")
    results = _json(capsys, [*arguments[:3], str(bad), *arguments[3:]], code=1)
    assert [result["ok"] for result in results] == [True, False]


def test_certificates_out_of_date_are_a_matter_of_the_time(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*bench.arguments(), "--at", "1990-01-01"]) == 1
    assert "NVGPU" in capsys.readouterr().out


def test_wrong_use(bench: Bench, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = bench.arguments()
    without_reference = [word for word in arguments if word not in {"--reference", str(bench.reference)}]
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"nonsense")
    cases = {
        "--reference": without_reference,
        "neither an SNP": ["evidence", "verify", str(nonsense), "--reference", str(bench.reference)],
        "32 are needed": [*arguments, "--nonce", "00"],
        "not hex": [*arguments, "--nonce", "zz"],
        "no instant": [*arguments, "--at", "yesterday"],
        "No such file": ["evidence", "verify", str(tmp_path / "none"), "--reference", str(bench.reference)],
        "5 certificates": [*arguments, "--simulated-root", str(tmp_path / "gpu.pem")],
    }
    for text, case in cases.items():
        assert run(case) == 2, text
        captured = capsys.readouterr()
        assert captured.out == ""
        assert text in captured.err.replace("\n", " ")


def test_inspection_shows_fields_and_says_that_nothing_is_verified(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = bench.evidence(GpuDefect.BAD_SIGNATURE)
    document = _json(capsys, ["evidence", "inspect", str(data)], code=0)
    assert document["verified"] is False
    assert document["fields"]["request"]["nonce"] == NONCE.hex()
    assert run(["evidence", "inspect", str(data)]) == 0
    out = capsys.readouterr().out
    assert "Not verified" in out
    assert "request.nonce" in out


@pytest.mark.vectors
def test_published_evidence_is_inspected(vectors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = vectors / "snp" / "turin-v5-vcek" / "report.bin"
    document = _json(capsys, ["evidence", "inspect", str(report)], code=0)
    assert document["scheme"] == "snp"
    assert document["fields"]["report_version"] == 5


@pytest.mark.vectors
def test_published_evidence_agrees(vectors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = str(vectors / "manifest.json")
    results = _json(capsys, ["evidence", "conformance", manifest, "--tee", "snp"], code=0)
    assert results
    assert all(result["agree"] for result in results)
    assert {"name", "tee", "expected", "verdict", "agree", "findings"} <= results[0].keys()
    assert run(["evidence", "conformance", manifest, "--tee", "snp"]) == 0
    assert f"{len(results)} agree, 0 differ, 0 not judged" in capsys.readouterr().out


@pytest.mark.vectors
def test_what_cannot_be_judged_does_not_agree(vectors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = str(vectors / "manifest.json")
    assert run(["evidence", "conformance", manifest, "--tee", "cca"]) == 1
    out = capsys.readouterr().out
    assert "not judged" in out
    assert " 0 agree, 0 differ" in out


@pytest.mark.vectors
def test_a_case_that_differs_is_a_no(vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (case,) = [each for each in json.loads((vectors / "manifest.json").read_text()) if each["name"] == "turin-v5-vcek"]
    case["expected"]["verdict"] = "fail"
    shutil.copytree(vectors / "snp" / "turin-v5-vcek", tmp_path / "snp" / "turin-v5-vcek")
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps([case]))
    assert run(["evidence", "conformance", str(manifest)]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS" in out
    assert "0 agree, 1 differ" in out


def test_an_unusable_manifest_is_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    assert run(["evidence", "conformance", str(manifest)]) == 2
    assert "not a list of cases" in capsys.readouterr().err
