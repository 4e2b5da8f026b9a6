"""The gate over the packs that ship, and that it says loudly what it could not do."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from policy import gate
from policy.bundle import Bundle
from policy.errors import PackRejectedError
from policy.opa import Opa
from policy.sources import DEFAULT_PACKS, PACKS, compile_pack, default_bundle


@pytest.mark.opa
def test_the_gate_holds(opa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTEAD_OPA", str(opa))
    out = io.StringIO()
    assert gate.run([], out) == 0, out.getvalue()
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == [
        "policy generated",
        "policy capabilities",
        "policy fmt",
        "policy check",
        "policy test",
        "policy compiled",
    ]


@pytest.mark.opa
@pytest.mark.parametrize("name", DEFAULT_PACKS)
def test_compiled_packs_are_what_their_sources_compile_to(opa: Path, name: str) -> None:
    built, _ = compile_pack(Opa(opa), PACKS / name)
    shipped = default_bundle(name)
    assert sorted(built.files) == sorted(shipped.files)
    assert built.digest == shipped.digest, "run `python -m policy.gate --write`"


def test_without_opa_the_gate_says_what_it_skips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEYSTEAD_OPA", str(tmp_path / "none"))
    out = io.StringIO()
    assert gate.run([], out) == 0
    assert "SKIPPED fmt, check, test and comparing compiled packs" in out.getvalue()
    assert "policy generated: " in out.getvalue()
    assert gate.run(["--write"], io.StringIO()) == 2
    assert gate.run(["--no"], io.StringIO()) == 2


def test_a_broken_opa_fails_the_gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "opa"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("KEYSTEAD_OPA", str(broken))
    out = io.StringIO()
    assert gate.run([], out) == 1
    assert "FAILED" in out.getvalue()


def test_a_stale_generated_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gate, "SETTINGS", tmp_path / "data.json")
    with pytest.raises(PackRejectedError, match=r"data\.json differ"):
        gate.check_generated()
    assert gate._step("generated", gate.check_generated, out := io.StringIO()) == 1
    assert "FAILED" in out.getvalue()


@pytest.mark.opa
def test_a_compiled_pack_that_differs_is_named(opa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def altered(name: str) -> Bundle:
        shipped = default_bundle(name)
        return Bundle.from_files({**shipped.files, "data.json": b"{}"})

    monkeypatch.setattr(gate, "default_bundle", altered)
    with pytest.raises(PackRejectedError, match=r"appraisal\.tar\.gz is not what"):
        gate.check_compiled(Opa(opa))


@pytest.mark.opa
def test_each_fault_of_the_sources_is_named(opa: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    source, tests = tmp_path / "p" / "p.rego", tmp_path / "p" / "p_test.rego"
    source.write_text("package p\nx:=1\n")
    tests.write_text("package p_test\n\ntest_x if data.p.x == 2\n")
    capabilities = tmp_path / "capabilities.json"
    capabilities.write_text("{}")
    monkeypatch.setattr(gate, "PACKS", tmp_path)
    monkeypatch.setattr(gate, "CAPABILITIES", capabilities)
    with pytest.raises(PackRejectedError, match="not formatted"):
        gate.check_format(Opa(opa))
    with pytest.raises(PackRejectedError, match="test_x"):
        gate.check_tests(Opa(opa))
    with pytest.raises(PackRejectedError, match="differs from the allow-list"):
        gate.check_capabilities(Opa(opa))
    source.write_text("package p\n\nx := time.now_ns()\n")
    with pytest.raises(PackRejectedError, match=r"time\.now_ns"):
        gate.check_types(Opa(opa))
