"""Each import contract bites: in a copy with forbidden imports each is refused by the contract that is named here."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ["keystead", "attestation", "policy", "audit", "sealed", "keybroker", "attester"]

# What is tried: the contract that must refuse it, the folder of the module that imports, and its import.
BREACHES = [
    ("layers", "attestation", "import policy.errors"),
    ("layers", "audit", "import sealed.errors"),
    ("layers", "sealed", "import keybroker.errors"),
    ("layers", "attester", "import keybroker.errors"),
    ("layers", "keybroker", "import attester"),
    ("layers", "keybroker", "import keystead.cli"),
    ("layers", "keystead/v1", "import audit.errors"),
    ("services", "keybroker", "import keybroker.services"),
    ("services", "attester", "import keybroker.services"),
    ("grpc", "keybroker", "import grpc"),
    ("grpc", "policy", "import grpc"),
    ("attestation-is-a-function", "attestation", "import socket"),
    ("attestation-is-a-function", "attestation", "from urllib import request"),
    ("attestation-is-a-function", "attestation", "import sqlalchemy"),
    ("attestation-is-a-function", "attestation", "import keystead.v1.lease_service_pb2_grpc"),
    ("offline", "audit", "import http.client"),
    ("opa", "policy", "import subprocess"),
    ("opa", "keybroker", "import subprocess"),
    ("simulator", "keybroker", "import attestation.simulator"),
    ("simulator", "attester", "import attestation.simulator"),
    ("simulator", "attestation", "from attestation.simulator import node"),
]


def contracts() -> dict[str, str]:
    """The contracts' names by their ids."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    prefix = "importlinter:contract:"
    return {name.removeprefix(prefix): parser[name]["name"] for name in parser.sections() if name.startswith(prefix)}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run lint-imports in a folder that holds the packages."""
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "1000", "NO_COLOR": "1", "PYTHONPATH": str(folder)},
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


@pytest.fixture(scope="module")
def sections(copy):
    """What lint-imports says of each broken contract, by the contract's name."""
    for number, (_, where, breach) in enumerate(BREACHES):
        (copy / where / f"breach_{number}.py").write_text(f"{breach}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    _, _, report = done.stdout.partition("Broken contracts")
    names = list(contracts().values())
    parts = re.split(f"^({'|'.join(re.escape(name) for name in names)})$", report, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("number", range(len(BREACHES)), ids=[f"{where}: {breach}" for _, where, breach in BREACHES])
def test_a_forbidden_import_is_refused(sections, number):
    contract, where, _ = BREACHES[number]
    module = f"{where.replace('/', '.')}.breach_{number}"
    assert re.search(rf"\b{re.escape(module)}\b", sections[contracts()[contract]])


def test_every_contract_is_tried():
    assert {contract for contract, _, _ in BREACHES} == set(contracts())
