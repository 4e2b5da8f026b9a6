"""``keystead evidence explain``: every code of this release, from where it is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestation.conformance import PROFILES
from attestation.registry import CHECKS, SCHEMES
from keystead.cli import evidence_explain
from keystead.cli.main import run
from keystead.cli.reasons import PACKS, broker_reasons, pack_reasons


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["evidence", "explain", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_check_is_explained_whole(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = _json(capsys, "SNP_VMPL")
    check = CHECKS["SNP_VMPL"]
    assert found["kind"] == "check"
    assert [found[name] for name in ("code", "title", "field", "source", "strict", "remedy")] == [
        check.code,
        check.title,
        check.field,
        check.source,
        "fail",
        check.remedy,
    ]
    assert "snp" in found["schemes"]
    assert {(each["profile"], each["severity"]) for each in found["profiles"]} == {
        ("snp-conformance", "inform"),
        ("snp-conformance with enforce_spec_defaults", "inform"),
    }
    assert all(each["reason"] for each in found["profiles"])


def test_people_read_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evidence", "explain", "snp_vmpl"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    check = CHECKS["SNP_VMPL"]
    for text in ("SNP_VMPL (check of evidence)", check.title, check.source, check.remedy, "fail: refuses the evidence"):
        assert text in out
    assert "inform in snp-conformance: " in out
    assert run(["evidence", "explain", "SNP_SIGNATURE"]) == 0
    assert "as in production, in every profile" in capsys.readouterr().out


def test_errors_are_explained_as_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = _json(capsys, "MALFORMED")
    assert (found["kind"], found["source"]) == ("error", "attestation.errors.MalformedError")
    assert found["title"] == "Bytes that are not the structure they are said to be."
    assert run(["evidence", "explain", "MALFORMED"]) == 0
    assert "nothing was decided" in capsys.readouterr().out


def test_denials_are_explained_with_who_gives_them(capsys: pytest.CaptureFixture[str]) -> None:
    found = {each["source"]: each for each in _json(capsys, "NODE_NOT_ACTIVE")}
    assert set(found) == {"the broker", "the release policy"}
    assert all(each["remedy"] and each["title"] and each["kind"] == "denial" for each in found.values())


def test_an_unknown_code_names_the_close_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evidence", "explain", "SNP_DEBUG_ALOWED"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "did you mean SNP_DEBUG_ALLOWED" in captured.err
    assert captured.err.count("\n") == 1
    assert run(["evidence", "explain", "🐟🐟🐟"]) == 2
    assert "lists every check" in capsys.readouterr().err


def test_without_a_code_every_check_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert [each["code"] for each in _json(capsys)] == sorted(CHECKS)
    assert run(["evidence", "explain"]) == 0
    out = capsys.readouterr().out
    assert [code for code in CHECKS if code not in out] == []
    assert f"{len(CHECKS)} checks" in out


def test_the_list_is_narrowed_to_a_scheme(capsys: pytest.CaptureFixture[str]) -> None:
    for name, scheme in SCHEMES.items():
        assert {each["code"] for each in _json(capsys, "--scheme", name)} == {each.code for each in scheme.checks}
    node = {each["code"] for each in _json(capsys, "--scheme", "node")}
    assert node == CHECKS.keys() - {each.code for scheme in SCHEMES.values() for each in scheme.checks}
    assert run(["evidence", "explain", "--scheme", "sgy"]) == 2
    assert "known are" in capsys.readouterr().err
    assert run(["evidence", "explain", "SNP_VMPL", "--scheme", "snp"]) == 2
    assert "--scheme narrows" in capsys.readouterr().err


def test_every_code_can_be_explained() -> None:
    reasons = {each.code for each in broker_reasons()} | {each.code for pack in PACKS for each in pack_reasons(pack)}
    errors = {
        value.__dict__["code"]
        for room in evidence_explain.ERROR_TREES
        for value in evidence_explain.error_classes(room)
    }
    assert len(reasons) > 30
    assert len(errors) > 30
    found = evidence_explain.explanations()
    assert {each.code for each in found} == reasons | errors | CHECKS.keys()
    assert [each.code for each in found if not each.title or not each.source] == []


def test_profiles_are_explained_where_they_deviate() -> None:
    explained = {each.code: {name for name, _, _ in each.profiles} for each in evidence_explain.check_explanations()}
    for profile in PROFILES:
        assert {code for code, names in explained.items() if profile.name in names} == set(profile.deviations)
