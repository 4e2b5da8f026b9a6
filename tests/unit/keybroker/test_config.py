"""The configuration: each error names the file and the key, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from keybroker.config import CONFIG_NAME, MAX_CONFIG, BrokerConfig
from keybroker.errors import ConfigError

MINIMAL = """
[broker]
name = "keys"
trust_domain = "factory.test"
[storage]
database = "sqlite:///keystead.db"
"""


def write(folder: Path, text: str) -> Path:
    """A configuration file."""
    path = folder / CONFIG_NAME
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_file_has_strict_defaults(tmp_path: Path) -> None:
    config = BrokerConfig.load(write(tmp_path, MINIMAL))
    assert config == BrokerConfig.load(tmp_path)
    assert config.base == tmp_path.resolve()
    assert config.attestation.reference_values is None
    assert config.attestation.simulated_amd_roots == ()
    assert config.policy.settings == {}
    assert config.path("tls/ca.pem") == tmp_path.resolve() / "tls" / "ca.pem"
    assert config.database_url == f"sqlite:///{tmp_path.resolve() / 'keystead.db'}"


def test_other_databases_and_absolute_paths_stay_as_they_are(tmp_path: Path) -> None:
    for url in ("postgresql+psycopg://keystead@db/keystead", "sqlite:////var/lib/keystead.db"):
        config = BrokerConfig.load(write(tmp_path, MINIMAL.replace("sqlite:///keystead.db", url)))
        assert config.database_url == url


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "keys"', "", "broker.name"),
        ('name = "keys"', 'name = "Keys"', "broker.name"),
        ('name = "keys"', 'name = "keys/evil"', "broker.name"),
        ('name = "keys"', "name = 7", "broker.name"),
        ('name = "keys"', 'name = "keys"\ncolour = "red"', "broker.colour"),
        ('trust_domain = "factory.test"', "", "broker.trust_domain"),
        ("[storage]", "[store]", "storage"),
        ("[broker]", "[limits]\nlease_seconds = 9\n[broker]", "limits.lease_seconds"),
        ("[broker]", "[limits]\nlease_seconds = 3600.0\n[broker]", "limits.lease_seconds"),
        ("[broker]", '[limits]\nlease_seconds = "3600"\n[broker]', "limits.lease_seconds"),
        ("[broker]", "[limits]\nworkers = true\n[broker]", "limits.workers"),
        ("[broker]", "[limits]\nmessage_bytes = 1\n[broker]", "limits.message_bytes"),
        ("[broker]", "[limits]\nnonce_seconds = 3600\n[broker]", "limits.nonce_seconds"),
        ("[broker]", "[attestation]\nresult_seconds = 0\n[broker]", "attestation.result_seconds"),
        ("[broker]", '[attestation]\ncrls = "one.der"\n[broker]', "attestation.crls"),
        ("[broker]", "[attestation]\nskip_verification = true\n[broker]", "attestation.skip_verification"),
        ("[broker]", 'base = "/etc"\n[broker]', "base"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = write(tmp_path, MINIMAL.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        BrokerConfig.load(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize("content", [b"[broker", b"\xff\xfe", b"a = 1\na = 2", b"\0", b"a = " + b"[" * 9_999])
def test_what_is_no_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / CONFIG_NAME
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not TOML"):
        BrokerConfig.load(path)


def test_a_date_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "[policy.settings]\nfrom = 2026-01-01\n")
    with pytest.raises(ConfigError, match="dates"):
        BrokerConfig.load(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keystead init") as caught:
        BrokerConfig.load(tmp_path / "none.toml")
    assert "none.toml" in str(caught.value)


def test_a_password_is_not_repeated(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL.replace('"sqlite:///keystead.db"', '["postgresql://a:hunter2@db/x"]'))
    with pytest.raises(ConfigError) as caught:
        BrokerConfig.load(path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 50_000, "nested too deep"),
        ("a." * 300 + "a = 1", "dots"),
        ("a = " + "9" * 5_000, "4300"),
        ("#" * (MAX_CONFIG + 1), f"at most {MAX_CONFIG}"),
        ("[policy.settings]\n" + "a." * 100 + "a = " + "[" * 400 + "]" * 400, "recursion limit"),
    ],
)
def test_a_file_that_would_take_too_much_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BrokerConfig.load(write(tmp_path, text))
