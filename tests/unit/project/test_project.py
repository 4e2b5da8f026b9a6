"""What must hold of the whole repository, whatever a change is about."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ["keystead", "attestation", "policy", "audit", "sealed", "keybroker", "attester"]

# Spelt in pieces, so that this file does not find itself.
FORBIDDEN = {
    "a path of somebody's machine": re.compile(rb"/(?:work/(?:main|shared)|home/[a-z]+|Users/[A-Za-z]+)/"),
    "a package registry's address": re.compile(
        b"|".join(
            re.escape(host)
            for host in (
                b"files.python" + b"hosted.org",
                b"py" + b"pi.org",
                b"proxy.go" + b"lang.org",
                b"sum.go" + b"lang.org",
                b"registry.npm" + b"js.org",
                b"deb.deb" + b"ian.org",
                b"crates" + b".io",
            )
        )
    ),
    # With the key itself: tests write the bare armour to see it refused.
    "a private key": re.compile(b"-----BEGIN (?:[A-Z]+ )*PRIVATE" + rb" KEY-----\s+(?:[A-Za-z0-9+/=]\s*){40}"),
}


@pytest.fixture(scope="module")
def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("NO GIT CHECKOUT: what is tracked is not known")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def settings():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_names(tracked, what):
    assert [str(path.relative_to(ROOT)) for path in tracked if FORBIDDEN[what].search(path.read_bytes())] == []


def test_the_check_for_forbidden_content_finds_it():
    assert FORBIDDEN["a path of somebody's machine"].search(b"see /home/" + b"someone/keystead")
    assert FORBIDDEN["a package registry's address"].search(b"from https://py" + b"pi.org/simple")
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert FORBIDDEN["a private key"].search(b"key:\n" + key)


def test_the_keystead_package_itself_stays_empty():
    assert (ROOT / "keystead" / "__init__.py").read_bytes() == b""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_ships_its_types(package):
    assert (ROOT / package / "py.typed").is_file()


def test_no_module_has_a_name_that_says_nothing(tracked):
    nameless = {"utils", "util", "common", "helpers", "misc", "base"}
    assert [str(path.relative_to(ROOT)) for path in tracked if path.suffix == ".py" and path.stem in nameless] == []


def test_python_test_modules_have_unique_names(tracked):
    names = [path.name for path in tracked if path.name.startswith("test_") and path.is_relative_to(ROOT / "tests")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_versions_agree(settings):
    declared = settings["project"]["version"]
    assert version("keystead") == declared
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    # Before the first release there is only "Unreleased".
    assert released is None or released[1] == declared


def test_one_version_of_opa_is_pinned():
    makefile = re.search(r"^OPA_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    product = importlib.import_module("policy.opa")
    assert makefile is not None
    assert makefile[1] == product.OPA_VERSION


def test_the_locks_agree_and_pin_every_dependency_by_hash():
    locks = {name: (ROOT / "requirements" / f"{name}.txt").read_text() for name in ("runtime", "build", "dev")}
    # A package may be pinned twice, for older and for newer Pythons.
    pinned = {name: set(re.findall(r"^[a-z0-9][a-z0-9._-]*==\S+", text, re.MULTILINE)) for name, text in locks.items()}
    for name, text in locks.items():
        entries = re.split(r"\n(?=\S)", text.strip())
        assert len(entries) == len(pinned[name])
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
        assert "://" not in text
    assert pinned["runtime"] | pinned["build"] <= pinned["dev"]


def test_the_locks_hold_what_pyproject_asks_for(settings):
    def names(requirements):
        plain = (item for item in requirements if isinstance(item, str))
        return {re.split(r"[\[<>=~! ;]", item)[0].lower() for item in plain} - {"keystead"}

    def extras_of(requirement):
        own = re.match(r"keystead\[(.*)\]", requirement)
        return own[1].split(",") if own else []

    extras = settings["project"]["optional-dependencies"]
    chosen, pending = set(), ["all"]
    while pending:
        extra = pending.pop()
        if extra not in chosen:
            chosen.add(extra)
            pending += [name for item in extras[extra] for name in extras_of(item)]
    runtime = names(settings["project"]["dependencies"]).union(*(names(extras[extra]) for extra in chosen))
    development = runtime | names(settings["dependency-groups"]["dev"])
    for name, asked in (("runtime", runtime), ("dev", development)):
        locked = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert [item for item in sorted(asked) if not re.search(rf"^{re.escape(item)}==", locked, re.MULTILINE)] == []


def test_ci_runs_what_a_developer_runs():
    commands = [
        line
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if line.strip() and not line.startswith(("#", "set ", "cd "))
    ]
    assert commands == ["exec make test"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_links_in_the_documents_resolve():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_docs.py"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_reference_pages_are_current():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_reference.py", "--check"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_generated_grpc_code_is_current():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_protos.py", "--check"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
