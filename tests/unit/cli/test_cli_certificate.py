"""`keystead certificate issue`: one role, one name, a tenant where the role needs one."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from keystead.cli.main import run


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first installation."""
    folder = tmp_path_factory.mktemp("certificate") / "factory"
    assert run(["init", str(folder), "--tenant", "acme", "--host", "keys.example", "--listen", "0.0.0.0:9000"]) == 0
    return folder


@pytest.mark.parametrize(
    ("arguments", "identity"),
    [
        (["node", "n1"], "spiffe://keystead.internal/node/n1"),
        (["scheduler", "hall-2", "--tenant", "acme"], "spiffe://keystead.internal/tenant/acme/scheduler/hall-2"),
        (["auditor", "dpo", "--tenant", "acme"], "spiffe://keystead.internal/tenant/acme/auditor/dpo"),
    ],
)
def test_a_certificate_is_issued_once(
    installation: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], identity: str
) -> None:
    command = ["certificate", "issue", str(installation), *arguments, "--json"]
    assert run(command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["spiffe_id"] == identity
    profile = Path(answer["profile"])
    settings = tomllib.loads(profile.read_text())
    assert settings["address"] == "keys.example:9000", "clients go to the certified name, not to what is listened on"
    certificate = x509.load_pem_x509_certificate((profile.parent / settings["certificate"]).read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [identity]
    assert (profile.parent / settings["key"]).stat().st_mode & 0o077 == 0
    assert run(command) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "ALREADY_INITIALISED"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["king", "bob"], "role"),
        (["owner", "bob"], "name"),
        (["node", "n2", "--tenant", "acme"], "name"),
        (["auditor", "Bob"], "name"),
        (["auditor", "bob", "--tenant", "../acme"], "name"),
    ],
)
def test_wrong_principals_are_refused_in_one_line(
    installation: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    before = sorted(path.name for path in (installation / "clients").iterdir())
    assert run(["certificate", "issue", str(installation), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"INVALID_REQUEST: {named}: ")
    assert error.count("\n") == 1
    assert sorted(path.name for path in (installation / "clients").iterdir()) == before
