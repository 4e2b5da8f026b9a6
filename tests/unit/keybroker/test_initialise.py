"""A first installation: all of it or nothing, never over another, every secret for its owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from audit.note import NoteVerifier
from keybroker import initialise as initialise_module
from keybroker.broker import Broker
from keybroker.config import BrokerConfig
from keybroker.errors import AlreadyInitialisedError, InvalidRequestError, SigningKeyError
from keybroker.initialise import Installation, initialise, issue_client, profile_name
from keybroker.principals import Principal, Role
from keybroker.store.engine import open_engine, read
from keybroker.store.migrate import check_current

NOW = 1_790_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """One installation for tests that only look."""
    return initialise(tmp_path_factory.mktemp("made") / "site", tenants=["acme"], now=NOW)


def test_what_is_there(made: Installation) -> None:
    assert set(made.profiles) == {"operator", "auditor", "node", "acme-owner", "acme-scheduler"}
    assert all(path.is_file() for path in made.profiles.values())
    config = BrokerConfig.load(made.config)
    engine = open_engine(config.database_url)
    check_current(engine)
    with read(engine) as connection:
        kinds = connection.exec_driver_sql("SELECT kind FROM audit_entry").scalars().all()
    engine.dispose()
    assert kinds == ["broker.initialised"]
    NoteVerifier.parse(made.log_verifier_key.read_text().strip())
    broker = Broker.open(config, clock=lambda: NOW)
    assert str(broker.keys.log.verifier) == made.log_verifier_key.read_text().strip()
    assert broker.trust.simulated is False
    broker.close()


def test_secrets_are_their_owners_alone(made: Installation) -> None:
    assert stat.S_IMODE(made.directory.stat().st_mode) == 0o700
    secrets = [
        *(made.directory / "keys").iterdir(),
        *made.directory.glob("tls/*.key"),
        *made.directory.glob("clients/*.key"),
        made.directory / "keystead.db",
    ]
    assert len(secrets) == 4 + 2 + 5 + 1
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in secrets if path.stat().st_mode & 0o077} == {}
    for folder in ("keys", "tls", "clients"):
        assert stat.S_IMODE((made.directory / folder).stat().st_mode) == 0o700


def test_two_installations_share_no_secret(made: Installation, tmp_path: Path) -> None:
    other = initialise(tmp_path / "other", tenants=["acme"], now=NOW)
    for path in made.directory.rglob("*.key"):
        relative = path.relative_to(made.directory)
        assert path.read_bytes() != (other.directory / relative).read_bytes()
    assert made.log_verifier_key.read_text() != other.log_verifier_key.read_text()


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_nothing_is_overwritten(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "site"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").write_text("mine")
    with pytest.raises(AlreadyInitialisedError, match="nothing was changed"):
        initialise(target, now=NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert (target if kind == "file" else target / "mine").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    target = tmp_path / "site"
    target.mkdir(mode=0o755)
    assert initialise(target, now=NOW).config.is_file()
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


@pytest.mark.parametrize("step", ["migrate", "_client", "open_engine"])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(initialise_module, step, fail)
    with pytest.raises(OSError, match="disk full"):
        initialise(tmp_path / "site", now=NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("name", {"name": "Keys"}),
        ("name", {"name": "a/b"}),
        ("trust_domain", {"trust_domain": ""}),
        ("trust_domain", {"trust_domain": "a b"}),
        ("tenant", {"tenants": ["acme", "../evil"]}),
        ("tenant", {"tenants": ["acme\n"]}),
    ],
)
def test_names_are_checked_before_anything_is_made(tmp_path: Path, field: str, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        initialise(tmp_path / "site", now=NOW, **changes)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert list(tmp_path.iterdir()) == []


def test_one_more_client(made: Installation) -> None:
    config = BrokerConfig.load(made.config)
    principal = Principal(Role.AUDITOR, "eve", "acme")
    path = issue_client(config, principal, now=NOW)
    assert path.name == "acme-auditor-eve.toml"
    assert profile_name(principal) == "acme-auditor-eve"
    with pytest.raises(AlreadyInitialisedError):
        issue_client(config, principal, now=NOW)
    key = made.directory / "tls" / "ca.key"
    key.chmod(0o644)
    with pytest.raises(SigningKeyError):
        issue_client(config, Principal(Role.AUDITOR, "bob", "acme"), now=NOW)
    assert not (made.directory / "clients" / "acme-auditor-bob.key").exists()
    key.chmod(0o600)
