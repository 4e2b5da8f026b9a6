"""``keystead reference``, and the options of ``evidence verify`` that go with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keybroker.config import BrokerConfig
from keybroker.initialise import initialise
from keybroker.store.engine import open_engine
from keybroker.store.floors import Floor, raise_floors
from keystead.cli.exits import NO, UNDECIDED, YES
from keystead.cli.main import run

VALUES = """
[about]
issuer = "ACME"
serial = 7
issued = "2026-01-01T00:00:00Z"
expires = "2027-01-01T00:00:00Z"
[snp]
policy_allowed = ["SMT"]
[snp.minimum_tcb.Genoa]
bl = 10
tee = 0
snp = 23
ucode = 84
"""
VALUES_JSON = json.dumps({"nvgpu": {"products": ["GH100"], "modes": ["spt"]}})
TABLE = """
[about]
issuer = "ACME"
serial = 3
issued = "2026-01-01T00:00:00Z"
next_update = "2027-01-01T00:00:00Z"
[[advisory]]
id = "A-1"
title = "a flaw"
products = ["Genoa"]
basis = "a test"
minimum_tcb = { snp = 24 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two keys, reference values and a table, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "values.toml").write_text(VALUES)
    (tmp_path / "table.toml").write_text(TABLE)
    for name in ("alice", "bob"):
        assert run(["reference", "keygen", name]) == YES
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = YES):
    """What ``--json`` prints."""
    capsys.readouterr()
    assert run([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def error(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> str:
    """What a command that ends with `code` says."""
    capsys.readouterr()
    assert run(list(arguments)) == code
    return " ".join(capsys.readouterr().err.split())


def test_keys_are_made_once_and_kept_secret(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (folder / "alice.key").stat().st_mode & 0o777 == 0o600
    before = (folder / "alice.key").read_bytes()
    assert "alice.key" in error(capsys, "reference", "keygen", "alice", code=UNDECIDED)
    assert (folder / "alice.key").read_bytes() == before


def test_sign_and_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ("reference", "check", "values.toml", "--signer", "alice.pub", "--signer", "bob.pub", "--at", "2026-11-22")
    assert "found none" in error(capsys, *check, code=NO)
    alice = answer(capsys, "reference", "sign", "values.toml", "--key", "alice.key")["key_id"]
    found = answer(capsys, *check)
    assert found["signers"] == [alice]
    assert found["origin"] == f"values.toml, serial 7, signed by {alice}"
    assert found["in_force"] is True
    assert found["accepted"]["snp"]["minimum_tcb"]["Genoa"]["snp"] == 23
    assert found["accepted"]["snp"]["policy_allowed"] == ["SMT"]
    assert found["accepted"]["nvgpu"] is None
    assert "2 must have" in error(capsys, *check, "--threshold", "2", code=NO)
    bob = answer(capsys, "reference", "sign", "values.toml", "--key", "bob.key")
    assert bob["count"] == 2
    assert answer(capsys, *check, "--threshold", "2")["signers"] == sorted([alice, bob["key_id"]])
    assert answer(capsys, "reference", "sign", "values.toml", "--key", "bob.key")["count"] == 2, "again, in its place"
    (folder / "values.toml").write_text(VALUES.replace("serial = 7", "serial = 8"))
    assert "does not verify" in error(capsys, *check, code=NO)
    # A table for people has the same.
    assert run(["reference", "sign", "values.toml", "--key", "alice.key"]) == YES
    (folder / "values.toml.jws").write_text((folder / "values.toml.jws").read_text().splitlines()[-1])
    capsys.readouterr()
    assert run(list(check)) == YES
    assert "serial 8, signed by" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("at", "code"), [("2025-12-31", NO), ("2026-11-22", YES), ("2027-01-01", NO)])
def test_what_is_not_in_force_is_no(folder: Path, capsys: pytest.CaptureFixture[str], at: str, code: int) -> None:
    assert answer(capsys, "reference", "check", "values.toml", "--at", at, code=code)["in_force"] is (code == YES)
    table = answer(capsys, "reference", "check", "--advisories", "table.toml", "--at", at, code=code)
    assert table["current"] is (code == YES)


def test_nothing_is_signed_that_a_broker_would_refuse(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bare.toml").write_text("[nvgpu]\nproducts = []\nmodes = []\n")
    sign = ("reference", "sign", "--key", "alice.key")
    assert "about: missing" in error(capsys, *sign, "bare.toml", code=UNDECIDED)
    assert "table.toml" in error(capsys, *sign, "table.toml", code=UNDECIDED), "a table is signed as a table"
    assert "values.toml" in error(capsys, *sign, "--advisories", "values.toml", code=UNDECIDED)
    assert "no private key" in error(capsys, "reference", "sign", "values.toml", "--key", "bob.pub", code=UNDECIDED)
    assert not list(folder.glob("*.jws"))


def test_tables_are_shown_and_signed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = answer(capsys, "reference", "show", "--advisories")
    assert "AMD-SB-3015" in [each["id"] for each in shipped["advisory"]]
    assert "unsigned" in shipped["table"]
    assert len(shipped["sha256"]) == 64
    capsys.readouterr()
    assert run(["reference", "show", "--advisories"]) == YES
    assert "BadRAM" in capsys.readouterr().out
    assert run(["reference", "sign", "--advisories", "table.toml", "--key", "alice.key"]) == YES
    check = ("reference", "check", "--advisories", "table.toml", "--at", "2026-11-22", "--signer")
    assert len(answer(capsys, *check, "alice.pub")["signers"]) == 1
    assert "must have" in error(capsys, *check, "bob.pub", code=NO)
    assert answer(capsys, "reference", "show", "values.toml")["in_force"] is None
    assert "name a file" in error(capsys, "reference", "show", code=UNDECIDED)


def test_evidence_is_verified_against_signed_values_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify = ("evidence", "verify", "report.bin", "--reference", "values.toml", "--reference-signer", "alice.pub")
    assert "BAD_REFERENCE_SIGNATURE" in error(capsys, *verify, code=NO)
    assert run(["reference", "sign", "values.toml", "--key", "alice.key"]) == YES
    assert "report.bin" in error(capsys, *verify, code=UNDECIDED), "the values are taken, the evidence is missing"
    assert "table.toml: signed by 0" in error(capsys, *verify, "--advisories", "table.toml", code=NO)
    assert run(["reference", "sign", "--advisories", "table.toml", "--key", "alice.key"]) == YES
    assert "report.bin" in error(capsys, *verify, "--advisories", "table.toml", code=UNDECIDED)
    assert "2 must have" not in error(capsys, *verify, "--reference-threshold", "2", code=NO), "one is known"
    (folder / "values.json").write_text(VALUES_JSON)
    plain = ("evidence", "verify", "report.bin", "--reference", "values.json")
    assert "report.bin" in error(capsys, *plain, code=UNDECIDED)


def test_floors_are_listed_and_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = initialise(tmp_path / "factory", now=1_795_000_000)
    engine = open_engine(BrokerConfig.load(made.config).database_url)
    with engine.begin() as connection:
        raise_floors(connection, [Floor(source="crl:A", name="a", number=4, digest=bytes(32))], now=5)
    engine.dispose()
    listed = answer(capsys, "reference", "floors", str(made.directory))
    assert listed == [{"source": "crl:A", "number": 4, "sha256": "00" * 32, "updated_at": 5}]
    capsys.readouterr()
    assert run(["reference", "floors", str(made.directory)]) == YES
    assert "crl:A" in capsys.readouterr().out
    forget = ("reference", "floors", str(made.directory), "--yes", "--forget")
    assert "has no number" in error(capsys, *forget, "crl:B", code=UNDECIDED)
    assert answer(capsys, *forget, "crl:A") == []
