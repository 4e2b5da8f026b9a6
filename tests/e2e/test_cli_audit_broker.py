"""The log through a running broker: following it, lineage and every form of export, for the factory's auditor and a
tenant's own, who sees what concerns the tenant; and the same from the database."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keystead.cli.demo.process import BrokerProcess, free_port
from keystead.cli.main import run
from keystead.cli.profile import Profile

ALLOWED = ("--purpose", "inference", "--allow", "EU", "--classification", "1")
SECONDS = 60


def register(installation: Path, asset: str, *, kind: str = "features") -> None:
    owner = installation / "clients" / f"{asset.partition('/')[0]}-owner.toml"
    assert run(["asset", "register", asset, "--kind", kind, *ALLOWED, "--profile", str(owner), "--timeout", "60"]) == 0


def add_version(installation: Path, folder: Path, asset: str, *arguments: str, code: int = 0) -> list[str]:
    """Seal some bytes and add them as the asset's first version; gives the command, without `arguments`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    place = folder / asset.replace("/", "-")
    place.mkdir()
    key = Ed25519PrivateKey.generate()
    (place / "owner.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (place / "owner.pub").write_bytes(public)
    (place / "weights.bin").write_bytes(bytes(100))
    seal = ["seal", str(place / "weights.bin"), "--asset", asset, "--version", "1", "--out", str(place / "sealed")]
    seal += ["--key-file", str(place / "data.key"), "--new-key", "--signing-key", str(place / "owner.pem")]
    assert run(seal) == 0
    owner = installation / "clients" / f"{asset.partition('/')[0]}-owner.toml"
    add = ["asset", "add-version", str(place / "sealed"), "--key-file", str(place / "data.key")]
    add += ["--owner-key", str(place / "owner.pub"), "--profile", str(owner), "--timeout", "60"]
    assert run([*add, *arguments]) == code
    return add


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running broker of two tenants, one of which has two assets, the other one, and an auditor of their own each."""
    folder = tmp_path_factory.mktemp("audit")
    target = folder / "broker"
    listen = f"127.0.0.1:{free_port()}"
    assert run(["init", str(target), "--tenant", "acme", "--tenant", "beta", "--listen", listen]) == 0
    for tenant in ("acme", "beta"):
        assert run(["certificate", "issue", str(target), "auditor", f"{tenant}-dpo", "--tenant", tenant]) == 0
    probe = Profile.load(target / "clients" / "operator.toml")
    with BrokerProcess(target, log=folder / "broker.log", probe=probe) as broker:
        broker.start()
        register(target, "acme/origin")
        register(target, "acme/derived")
        register(target, "beta/secret")
        add_version(target, folder, "acme/origin")
        add_version(target, folder, "acme/derived", "--parent", "acme/origin@1")
        add_version(target, folder, "beta/secret")
        yield target


@pytest.fixture
def profiles(installation: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Profiles by name, once everything that was done is in the log."""
    clients = installation / "clients"
    found = {path.stem: str(path) for path in clients.glob("*.toml")}
    wanted = ["audit", "query", "--asset", "beta/secret@1", "--profile", found["auditor"], "--json"]
    deadline = time.monotonic() + SECONDS
    while True:
        capsys.readouterr()
        assert run(wanted) == 0
        if json.loads(capsys.readouterr().out)["entries"]:
            return found
        assert time.monotonic() < deadline, "the log sequenced nothing"


def auditor_of(profiles: dict[str, str], tenant: str) -> str:
    (found,) = (path for name, path in profiles.items() if "auditor" in name and f"{tenant}-dpo" in name)
    return found


def rows(profile: str, tmp_path: Path, form: str) -> list[dict[str, Any]]:
    """What a profile may export, as records' kinds, tenants and assets, whatever the form."""
    out = tmp_path / f"{form}-{Path(profile).stem}"
    assert run(["audit", "export", "--format", form, "--out", str(out), "--profile", profile, "--timeout", "60"]) == 0
    return read(out, form)


def read(out: Path, form: str) -> list[dict[str, Any]]:
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="NO PARQUET: pyarrow is not installed")
        table: list[dict[str, Any]] = parquet.read_table(out).to_pylist()
        return [{"entry": row["entry"], "kind": row["kind"], "text": json.dumps(row, default=str)} for row in table]
    if form == "csv":
        with out.open(newline="") as file:
            return [
                {"entry": int(row["entry"]), "kind": row["kind"], "text": json.dumps(row)}
                for row in csv.DictReader(file)
            ]
    found = []
    for line in out.read_text().splitlines():
        value = json.loads(line)
        if form == "jsonl":
            entry, kind = value["index"], value["record"]["kind"]
        elif form == "ocsf":
            entry, kind = value["metadata"]["sequence"], value["metadata"]["event_code"]
        else:
            facet = value["dataset"]["facets"]["keystead_audit"]
            entry, kind = facet["entry"], facet["kind"]
        found.append({"entry": entry, "kind": kind, "text": line})
    return found


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "ocsf", "openlineage"])
def test_an_auditor_exports_what_concerns_them(
    installation: Path, profiles: dict[str, str], tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="NO PARQUET: pyarrow is not installed")
    everything = rows(profiles["auditor"], tmp_path, form)
    acme = rows(auditor_of(profiles, "acme"), tmp_path, form)
    beta = rows(auditor_of(profiles, "beta"), tmp_path, form)
    assert [row["kind"] for row in acme].count("asset.version-added") == 2
    assert [row["kind"] for row in beta].count("asset.version-added") == 1
    assert [row["kind"] for row in everything].count("asset.version-added") == 3
    assert not any("beta/secret" in row["text"] for row in acme)
    assert not any("acme/" in row["text"] for row in beta)
    newest = everything[-1]["entry"]
    for some in (acme, beta):
        assert {row["entry"] for row in some if row["entry"] <= newest} < {row["entry"] for row in everything}

    # The database holds the same, for whoever has the keys to it.
    out = tmp_path / "from-database"
    database = f"sqlite:///{next(installation.rglob('*.db'))}"
    sealed = run(["audit", "export", "--format", form, "--out", str(out), "--database", database])
    if form == "jsonl":  # which alone has words for an entry whose record cannot be read
        assert sealed == 0
        assert all(json.loads(line)["record"] is None for line in out.read_text().splitlines())
    else:
        assert sealed == 2
        assert not out.exists()
    assert run(["audit", "export", "--format", form, "--out", str(out), "--database", str(installation)]) == 0
    known = {row["entry"]: row for row in read(out, form)}
    assert all(known[row["entry"]] == row for row in [*everything, *acme, *beta])


def test_an_export_is_recorded(profiles: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [row for row in rows(profiles["auditor"], tmp_path, "jsonl") if row["kind"] == "audit.read"]
    rows(auditor_of(profiles, "acme"), tmp_path, "ocsf")
    deadline = time.monotonic() + SECONDS
    while True:
        now = [row for row in rows(profiles["auditor"], tmp_path, "jsonl") if row["kind"] == "audit.read"]
        if any("acme-dpo" in row["text"] for row in now[len(before) :]):
            return
        assert time.monotonic() < deadline, "the export was not recorded"


def test_only_auditors_export(profiles: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["audit", "export", "--format", "ocsf", "--out", str(tmp_path / "x"), "--profile", profiles["operator"]]
    assert run(arguments) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("direction", ["--up", "--down"])
def test_lineage_through_a_broker(
    profiles: dict[str, str], tmp_path: Path, direction: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asset = {"--up": "acme/derived@1", "--down": "acme/origin"}[direction]
    for profile in (profiles["auditor"], auditor_of(profiles, "acme")):
        capsys.readouterr()
        proofs = tmp_path / Path(profile).stem
        arguments = ["audit", "lineage", asset, direction, "--profile", profile, "--timeout", "60"]
        assert run([*arguments, "--json", "--proofs", str(proofs)]) == 0
        graph = json.loads(capsys.readouterr().out)
        (edge,) = graph["edges"]
        assert (edge["step"], edge["source"], edge["target"]) == ("declared", "acme/origin@1", "acme/derived@1")
        assert [path.name for path in proofs.iterdir()] == [f"{edge['entries'][0]}.json"]
        assert run(arguments) == 0
        assert "declared" in capsys.readouterr().out
    # Another tenant's auditor learns nothing, not even that it exists.
    assert run(["audit", "lineage", asset, direction, "--json", "--profile", auditor_of(profiles, "beta")]) == 0
    assert json.loads(capsys.readouterr().out)["edges"] == []


def test_from_a_description_to_a_record_that_cites_it(
    installation: Path, profiles: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Croissant description becomes a draft, the draft a version; its inputs are declared, and shown as declared."""
    content = bytes(100)  # what `add_version` seals
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "weights.bin").write_bytes(content)
    file = {"@type": "cr:FileObject", "@id": "weights.bin", "contentSize": "100 B"}
    description = tmp_path / "croissant.json"
    document = {
        "@context": {"@vocab": "https://schema.org/", "cr": "http://mlcommons.org/croissant/"},
        "@type": "Dataset",
        "dct:conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": "Described",
        "isBasedOn": ["origin", "elsewhere"],
        "distribution": [file | {"sha256": hashlib.sha256(content).hexdigest()}],
    }
    description.write_text(json.dumps(document))
    draft = tmp_path / "draft.json"
    arguments = ["asset", "import", str(description), "--asset", "acme/described", "--out", str(draft)]
    assert run([*arguments, "--files", str(tmp_path / "files"), "--input", "origin=acme/origin@1"]) == 0
    register(installation, "acme/described", kind="preprocessed")
    register(installation, "acme/another", kind="preprocessed")
    refused = add_version(installation, tmp_path, "acme/described", "--draft", str(draft), code=2)
    capsys.readouterr()
    assert run([*arguments, "--input", "origin=acme/origin@1", "--outside", "elsewhere"]) == 0
    # A draft is of one asset, and describes what was sealed.
    add_version(installation, tmp_path, "acme/another", "--draft", str(draft), code=2)
    assert "this is a draft of acme/described, what was sealed is acme/another" in capsys.readouterr().err
    edited = tmp_path / "edited.json"
    edited.write_text(draft.read_text().replace("weights.bin", "other.bin"))
    assert run([*refused, "--draft", str(edited)]) == 2
    assert "'other.bin' was not sealed" in capsys.readouterr().err
    assert run([*refused, "--draft", str(draft), "--json"]) == 0
    digest = hashlib.sha256(description.read_bytes()).hexdigest()
    added = json.loads(capsys.readouterr().out)
    assert (added["description_digest"], added["declared_parents"]) == (digest, ["acme/origin@1"])

    wanted = ["audit", "query", "--asset", "acme/described@1", "--kind", "asset.version-added", "--json"]
    deadline = time.monotonic() + SECONDS
    while True:
        assert run([*wanted, "--profile", auditor_of(profiles, "acme")]) == 0
        if entries := json.loads(capsys.readouterr().out)["entries"]:
            break
        assert time.monotonic() < deadline, "the log sequenced nothing"
    assert entries[0]["record"]["detail"]["description_digest"] == digest
    assert run(["audit", "lineage", "acme/described@1", "--json", "--profile", auditor_of(profiles, "acme")]) == 0
    edges = json.loads(capsys.readouterr().out)["edges"]
    assert [(edge["step"], edge["source"]) for edge in edges] == [("declared", "acme/origin@1")]


def test_following_the_log(installation: Path, profiles: dict[str, str], tmp_path: Path) -> None:
    """`tail --follow` prints a record that is made while it runs, and a tenant's auditor is not shown another's."""
    command = [sys.executable, "-m", "keystead.cli.main", "audit", "tail", "--follow", "--jsonl", "-n", "1"]
    command += ["--kind", "asset.registered"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    followers = {
        who: subprocess.Popen(
            [*command, "--profile", profile], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
        )
        for who, profile in (("factory", profiles["auditor"]), ("beta", auditor_of(profiles, "beta")))
    }
    try:
        first = {who: json.loads(_line(follower)) for who, follower in followers.items()}
        assert first["beta"]["record"]["detail"]["asset"] == "beta/secret"
        assert "asset" in first["factory"]["record"]["detail"]
        register(installation, "acme/later")
        register(installation, "beta/later")
        assert _asset(followers["factory"]) == "acme/later"
        assert _asset(followers["factory"]) == "beta/later"
        assert _asset(followers["beta"]) == "beta/later"
    finally:
        for follower in followers.values():
            follower.kill()
            follower.communicate(timeout=SECONDS)


def _line(follower: subprocess.Popen[str]) -> str:
    assert follower.stdout is not None
    line = follower.stdout.readline()
    assert line, follower.stderr.read() if follower.stderr is not None else ""
    return line


def _asset(follower: subprocess.Popen[str]) -> str:
    asset = json.loads(_line(follower))["record"]["detail"]["asset"]
    assert isinstance(asset, str)
    return asset
