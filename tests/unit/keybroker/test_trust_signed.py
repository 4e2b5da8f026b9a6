"""Signed reference values and advisories, and the floors of a broker's collateral, as configuration has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.reference.signature import (
    ADVISORIES_TYPE,
    REFERENCE_VALUES_TYPE,
    key_id,
    public_pem,
    sign_detached,
)
from keybroker.broker import Broker
from keybroker.config import BrokerConfig
from keybroker.errors import CollateralRolledBackError, ConfigError
from keybroker.initialise import initialise
from keybroker.trust import Trust

BASE = """
[broker]
name = "keys"
trust_domain = "factory.test"
[storage]
database = "sqlite:///keystead.db"
[attestation]
"""
NOW = 1_795_000_000
ALICE, BOB = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2))
ABOUT = {"issuer": "ACME", "serial": 7, "issued": "2026-01-01T00:00:00Z"}
SIGNERS = 'reference_signers = ["alice.pub", "bob.pub"]\n'
VALUES = 'reference_values = "values.json"\n'


def write(
    folder: Path, name: str, document: Any, *signers: Ed25519PrivateKey, kind: str = REFERENCE_VALUES_TYPE
) -> None:
    """Write a document, and its signatures where there are signers."""
    data = json.dumps(document).encode()
    (folder / name).write_bytes(data)
    lines = [sign_detached(data, key=key, kind=kind) for key in signers]
    (folder / f"{name}.jws").unlink(missing_ok=True)
    if lines:
        (folder / f"{name}.jws").write_text("\n".join(lines))


def table(serial: int = 3) -> dict[str, Any]:
    about = {
        "issuer": "ACME",
        "serial": serial,
        "issued": "2026-01-01T00:00:00Z",
        "next_update": "2027-01-01T00:00:00Z",
    }
    return {
        "about": about,
        "advisory": [{"id": "A-1", "title": "t", "products": ["Milan"], "basis": "b", "distrust": True}],
    }


def load(folder: Path, text: str) -> Trust:
    """Trust as configured in `folder`."""
    for name, key in (("alice", ALICE), ("bob", BOB)):
        (folder / f"{name}.pub").write_bytes(public_pem(key.public_key()))
    (folder / "keystead.toml").write_text(BASE + text)
    return Trust.load(BrokerConfig.load(folder))


def test_signed_values_name_their_signer(tmp_path: Path) -> None:
    write(tmp_path, "values.json", {"about": ABOUT}, ALICE)
    write(tmp_path, "table.json", table(), BOB, kind=ADVISORIES_TYPE)
    trust = load(tmp_path, VALUES + SIGNERS + 'advisories = ["shipped", "table.json"]\n')
    assert trust.reference.origin == f"values.json, serial 7, signed by {key_id(ALICE.public_key())}"
    shipped, own = trust.reference.advisories
    assert "shipped with Keystead" in str(shipped)
    assert str(own).endswith(f"signed by {key_id(BOB.public_key())}")
    assert trust.unsigned == ()
    # Made again from the same bytes it is the same, and no file is read for it.
    again = Trust.of(trust.material)
    assert again.reference == trust.reference
    assert again.floors == trust.floors


def test_without_signers_it_says_unsigned(tmp_path: Path) -> None:
    write(tmp_path, "values.json", {"about": ABOUT}, ALICE)
    write(tmp_path, "table.json", table())
    trust = load(tmp_path, VALUES + 'advisories = ["table.json", "shipped"]\n')
    assert trust.reference.origin == "values.json, serial 7, unsigned"
    assert trust.unsigned == ("values.json", "table.json")
    assert load(tmp_path, "").unsigned == ()


@pytest.mark.parametrize(
    ("signers", "text", "named"),
    [
        ((), SIGNERS, "values.json.jws is missing"),
        ((Ed25519PrivateKey.from_private_bytes(b"\x03" * 32),), SIGNERS, "1 must have"),
        ((ALICE,), SIGNERS + "reference_threshold = 2\n", "2 must have"),
        ((ALICE,), SIGNERS + "reference_threshold = 3\n", "are known"),
        ((ALICE,), 'reference_signers = ["none.pub"]\n', "none.pub"),
        ((ALICE,), 'reference_signers = ["values.json"]\n', "no public key"),
        ((ALICE,), SIGNERS + 'advisories = ["table.json"]\n', "table.json.jws is missing"),
    ],
)
def test_what_is_not_signed_as_configured_stops_the_start(
    tmp_path: Path, signers: tuple[Ed25519PrivateKey, ...], text: str, named: str
) -> None:
    write(tmp_path, "values.json", {"about": ABOUT}, *signers)
    write(tmp_path, "table.json", table())
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, VALUES + text)
    assert named in str(caught.value)


def test_a_signature_of_one_kind_of_file_is_none_of_the_other(tmp_path: Path) -> None:
    write(tmp_path, "values.json", {"about": ABOUT}, ALICE, kind=ADVISORIES_TYPE)
    with pytest.raises(ConfigError, match="keystead-advisories"):
        load(tmp_path, VALUES + SIGNERS)


def test_a_change_after_signing_stops_the_start(tmp_path: Path) -> None:
    write(tmp_path, "values.json", {"about": ABOUT}, ALICE)
    changed = (tmp_path / "values.json").read_bytes().replace(b"7", b"8")
    (tmp_path / "values.json").write_bytes(changed)
    with pytest.raises(ConfigError, match="does not verify"):
        load(tmp_path, VALUES + SIGNERS)


def test_floors_are_of_every_numbered_file(tmp_path: Path) -> None:
    write(tmp_path, "values.json", {"about": ABOUT})
    write(tmp_path, "table.json", table())
    floors = load(tmp_path, VALUES + 'advisories = ["table.json"]\n').floors
    assert {floor.source: floor.number for floor in floors} == {"reference-values": 7, "advisories:ACME": 3}
    write(tmp_path, "values.json", {})
    assert load(tmp_path, VALUES).floors[0].number is None
    write(tmp_path, "other.json", table(3) | {"advisory": [{**table()["advisory"][0], "title": "other"}]})
    with pytest.raises(ConfigError, match="are both number 3"):
        load(tmp_path, 'advisories = ["table.json", "other.json"]\n')
    write(tmp_path, "newer.json", table(4))
    assert [floor.number for floor in load(tmp_path, 'advisories = ["newer.json", "table.json"]\n').floors] == [4]


def test_a_broker_does_not_start_on_older_values_than_it_used(tmp_path: Path) -> None:
    folder = tmp_path / "factory"
    installation = initialise(folder, now=NOW)
    text = installation.config.read_text()
    assert 'reference_signers = ["reference.pub"]' in text
    installation.config.write_text(
        text.replace('"reference.toml"', '"values.json"').replace('"reference.pub"', '"a.pub"')
    )
    (folder / "a.pub").write_bytes(public_pem(ALICE.public_key()))

    def start(serial: int, **more: Any) -> None:
        write(folder, "values.json", {"about": ABOUT | {"serial": serial}, **more}, ALICE)
        Broker.open(BrokerConfig.load(folder), clock=lambda: NOW).close()

    start(7)
    start(7)
    start(9)
    for serial, more, named in ((8, {}, "older than number 9"), (9, {"advisories_grace": 1}, "other content")):
        with pytest.raises(CollateralRolledBackError, match=named):
            start(serial, **more)
    start(10, advisories_grace=1)


def test_a_first_installation_is_signed_and_sound(tmp_path: Path) -> None:
    installation = initialise(tmp_path / "factory", name="hall-1", now=NOW)
    trust = Trust.load(BrokerConfig.load(installation.directory))
    assert trust.unsigned == ()
    assert trust.reference.source is not None
    assert trust.reference.source.about is not None
    assert (trust.reference.source.about.issuer, trust.reference.source.about.issued) == ("hall-1", NOW)
    assert (installation.directory / "reference.key").stat().st_mode & 0o777 == 0o600
    assert len(trust.reference.advisories) == 1
