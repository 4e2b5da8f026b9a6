"""``keystead policy …`` as a person or a script runs it: output and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keystead.cli.main import run
from policy.inputs import ReleaseInput
from policy.sources import DEFAULT_PACKS, default_bundle


@pytest.fixture
def document(tmp_path: Path, acquire: ReleaseInput) -> Path:
    path = tmp_path / "input.json"
    path.write_bytes(acquire.to_bytes())
    return path


@pytest.fixture
def denied(tmp_path: Path, acquire: ReleaseInput) -> Path:
    path = tmp_path / "denied.json"
    path.write_bytes(acquire.model_copy(update={"now": 9500}).to_bytes())
    return path


def test_eval_allows(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "eval", "--pack", "release", str(document)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("allowed\npolicy release/2.1.0, digest ")
    assert "lease_ceiling" in out


def test_eval_denies_and_says_why(denied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "eval", "--pack", "release", str(denied)]) == 1
    out = capsys.readouterr().out
    assert "GRANT_EXPIRED" in out
    assert "SITE_EXPIRED" in out
    assert "Ask the scheduler" in out


def test_eval_prints_the_decision_as_json(denied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "eval", "--pack", "release", "--json", str(denied)]) == 1
    decision = json.loads(capsys.readouterr().out)
    assert decision["allow"] is False
    assert [item["code"] for item in decision["deny"]] == ["GRANT_EXPIRED", "RETENTION_ENDED", "SITE_EXPIRED"]
    assert len(decision["policy_digest"]) == 64


def test_eval_lays_data_over_the_packs_own(document: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data.json"
    data.write_text('{"settings": {"lease_ceiling": 60}}')
    assert run(["policy", "eval", "--pack", "release", "--data", str(data), "--json", str(document)]) == 0
    obligations = json.loads(capsys.readouterr().out)["obligations"]
    assert obligations[0] == {"code": "lease_ceiling", "params": {"seconds": 60}}


def test_eval_shows_trust_vectors(tmp_path: Path, node_evidence: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "input.json"
    path.write_bytes(node_evidence.to_bytes())  # type: ignore[attr-defined]
    assert run(["policy", "eval", "--pack", "appraisal", str(path)]) == 0
    assert "instance-identity" in capsys.readouterr().out


def test_wrong_use_and_what_cannot_be_decided(
    document: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"now": 1.5}')
    for arguments, code in (
        ([str(document)], "WRONG_USE"),
        (["--pack", "nope", str(document)], "WRONG_USE"),
        (["--pack", "release", "--bundle", str(document), str(document)], "WRONG_USE"),
        (["--bundle", str(document), str(document)], "BAD_POLICY_BUNDLE"),
        (["--pack", "release", str(broken)], "POLICY_INPUT"),
        (["--pack", "release", str(tmp_path / "none.json")], "INPUT_OUTPUT"),
        (["--pack", "release", "--data", str(broken), str(document)], "POLICY_INPUT"),
    ):
        assert run(["policy", "eval", "--json", *arguments]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["code"] == code


@pytest.mark.opa
def test_check_and_fmt_the_packs_that_ship(
    opa: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEYSTEAD_OPA", str(opa))
    for command in ("check", "fmt"):
        assert run(["policy", command, "--json"]) == 0, command
        assert json.loads(capsys.readouterr().out)


@pytest.mark.opa
def test_commands_over_packs_of_ones_own(
    opa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEYSTEAD_OPA", str(opa))
    pack = tmp_path / "rego" / "own"
    pack.mkdir(parents=True)
    (pack / "own.rego").write_text("package own\nx:=time.now_ns()\n")
    (pack / "own_test.rego").write_text("package own_test\n\ntest_x if data.own.x == 1\n")
    root = str(pack.parent)
    assert run(["policy", "check", root]) == 1
    assert "time.now_ns" in capsys.readouterr().err
    assert run(["policy", "fmt", root]) == 1
    assert run(["policy", "fmt", "--write", root]) == 0
    assert run(["policy", "fmt", root]) == 0
    assert run(["policy", "test", root]) == 1
    assert "own_test.test_x" in capsys.readouterr().out
    (pack / "own_test.rego").write_text("package own_test\n\ntest_x if data.own.x > 1\n")
    assert run(["policy", "test", "--json", root]) == 0
    assert json.loads(capsys.readouterr().out) == {"passed": 1, "failed": [], "not_reached": [], "ok": True}
    assert run(["policy", "build", str(pack), "-o", str(tmp_path / "own.tar.gz")]) == 1
    assert not (tmp_path / "own.tar.gz").exists()
    assert run(["policy", "check", str(tmp_path / "none")]) == 2
    assert run(["policy", "build", str(tmp_path / "none"), "-o", str(tmp_path / "x")]) == 2


@pytest.mark.opa
@pytest.mark.parametrize("name", DEFAULT_PACKS)
def test_build_makes_what_ships(
    opa: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from policy.sources import PACKS

    monkeypatch.setenv("KEYSTEAD_OPA", str(opa))
    output = tmp_path / "pack.tar.gz"
    assert run(["policy", "build", str(PACKS / name), "-o", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == default_bundle(name).digest.hex()
    assert run(["policy", "eval", "--bundle", str(output), str(output)]) == 2


def test_without_opa_there_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEYSTEAD_OPA", str(tmp_path / "none"))
    assert run(["policy", "check"]) == 2
    assert "OPA_NOT_FOUND" in capsys.readouterr().err
