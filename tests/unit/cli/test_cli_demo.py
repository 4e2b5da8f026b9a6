"""The demo's parts: a story that goes otherwise says so, configuration is changed only as expected."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from attestation.reference.values import parse_reference_values
from keybroker.config import BrokerConfig
from keybroker.initialise import initialise
from keystead.cli.demo import attacks, chapter_estate, stage, story
from keystead.cli.demo.factory import reference_values
from keystead.cli.demo.model import make_tensors
from keystead.cli.demo.narrator import Narrator
from keystead.cli.demo.process import BrokerProcess, BrokerStartError
from keystead.cli.main import run
from keystead.cli.profile import Profile

NOW = 1_795_353_480


def _tell(monkeypatch: pytest.MonkeyPatch, *, actual: str) -> None:
    def tell(self: story.Story) -> None:
        self._narrator.outcome("step", expected="refused", actual=actual, text="what happened")

    monkeypatch.setattr(story.Story, "tell", tell)


def test_a_step_that_goes_otherwise_is_a_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell(monkeypatch, actual="granted")
    assert run(["demo"]) == 1
    out = capsys.readouterr().out
    assert "NOT AS TOLD: expected refused, got granted" in out
    assert "1 steps went otherwise: step" in out
    assert run(["demo", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["as_told"] is False


def test_a_story_as_told_is_a_yes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _tell(monkeypatch, actual="refused")
    assert run(["demo"]) == 0
    assert "All 1 steps went as told." in capsys.readouterr().out


def test_a_refusal_for_another_reason_is_not_as_told() -> None:
    from attester.errors import AccessDeniedError, Reason

    def refuse() -> None:
        raise AccessDeniedError("no", reasons=(Reason("OTHER", "f", "e", "a", "m", "r"),))

    narrator = Narrator(silent=True)
    stage.attempt(narrator, "step", actor="node", what="tries", action=refuse, codes={"WANTED"})
    stage.attempt(narrator, "step", actor="node", what="tries", action=lambda: None, codes={"WANTED"})
    stage.attempt(narrator, "step", actor="node", what="tries", action=refuse, codes={"OTHER"})
    assert [outcome.as_told for outcome in narrator.outcomes] == [False, False, True]
    assert narrator.outcomes[1].actual == "granted"


def test_the_configuration_trusts_what_it_names_and_nothing_else_changes(tmp_path: Path) -> None:
    installation = initialise(tmp_path / "broker", now=NOW)
    before = BrokerConfig.load(installation.config)
    chapter_estate.configure(installation.config, amd=["a.der"], nvidia=["n.der"], crls=["c.crl"])
    after = BrokerConfig.load(installation.config)
    assert after.attestation.simulated_amd_roots == ("simulated/a.der",)
    assert after.attestation.simulated_nvidia_roots == ("simulated/n.der",)
    assert after.attestation.crls == ("simulated/c.crl",)
    assert after.policy.settings == {"allow_simulated": True}
    assert after.limits == before.limits
    with pytest.raises(ValueError, match="expected once"):
        chapter_estate.configure(installation.config, amd=[], nvidia=[], crls=[])


def test_reference_values_are_read_by_the_product() -> None:
    values = parse_reference_values(reference_values(now=1_790_000_000).encode(), name="reference-values.toml")
    assert values.snp is not None
    assert values.nvgpu is not None
    assert len(values.snp.minimum_tcb) == 3


def test_the_model_is_tens_of_megabytes_and_the_same_every_time() -> None:
    tensors = make_tensors()
    assert tensors == make_tensors()
    assert 20 << 20 < sum(len(tensor.data) for tensor in tensors.values()) < 64 << 20


def test_one_bit_is_flipped(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(bytes(10))
    attacks.flip_bit(file)
    assert file.read_bytes() == bytes(5) + b"\x01" + bytes(4)


def test_one_record_is_rewritten(tmp_path: Path) -> None:
    database = tmp_path / "log.db"
    columns = "leaf_index INTEGER, salt BLOB, payload BLOB, sealed BLOB, key_id TEXT"
    with sqlite3.connect(database) as connection:
        connection.execute(f"CREATE TABLE audit_entry ({columns})")
        rows = [(index, b"sealed", "key") for index in range(3)]
        connection.executemany("INSERT INTO audit_entry (leaf_index, sealed, key_id) VALUES (?, ?, ?)", rows)
    connection.close()
    attacks.rewrite_record(database, 1, {"jurisdiction": "DE", "kind": "lease.granted"})
    connection = sqlite3.connect(database)
    found = connection.execute("SELECT payload, length(salt), sealed, key_id FROM audit_entry ORDER BY leaf_index")
    forged = b'{"jurisdiction":"US","kind":"lease.granted"}'
    assert found.fetchall() == [
        (None, None, b"sealed", "key"),
        (forged, 32, None, None),
        (None, None, b"sealed", "key"),
    ]
    connection.close()


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    installation = initialise(tmp_path / "broker", now=NOW)
    (installation.directory / "tls" / "broker.pem").unlink()
    probe = Profile.load(installation.profiles["operator"])
    with (
        BrokerProcess(installation.directory, log=tmp_path / "log", probe=probe) as broker,
        pytest.raises(BrokerStartError, match=r"(?s)ended with code 2: .*broker\.pem"),
    ):
        broker.start()
    assert broker.pid is None
