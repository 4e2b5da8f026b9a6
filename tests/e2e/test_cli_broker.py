"""The command line against a running broker: every command that talks to one, in tables and JSON, with exit codes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attester.grant_file import GrantFile
from keystead.cli.demo.process import BrokerProcess, free_port
from keystead.cli.main import run
from keystead.cli.profile import Profile

CHIP = "9f" * 64
GPU = "41" + "0c" * 8


AUTHORITIES = ("facility", "legal")


class Cli:
    """Runs command lines as the clients of one installation."""

    def __init__(self, capsys: pytest.CaptureFixture[str], installation: Path) -> None:
        self._capsys = capsys
        self.installation = installation

    def __call__(self, client: str, *arguments: str) -> tuple[int, str, str]:
        profile = self.installation / "clients" / f"{client}.toml"
        code = run([*arguments, "--profile", str(profile), "--timeout", "60"])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def drain(self) -> str:
        """What was printed since the last time."""
        return self._capsys.readouterr().out

    def json(self, client: str, *arguments: str, code: int = 0) -> Any:
        got, out, err = self(client, *arguments, "--json")
        assert got == code, out + err
        return json.loads(out)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running broker that `keystead init` and `keystead serve` made."""
    folder = tmp_path_factory.mktemp("cli")
    target = folder / "broker"
    arguments = ["init", str(target), "--tenant", "acme", "--tenant", "beta", "--listen", f"127.0.0.1:{free_port()}"]
    for name in AUTHORITIES:
        assert run(["site", "key", str(folder / f"{name}.pem")]) == 0
        arguments += ["--authority", f"{name}={folder / f'{name}.pem.pub'}"]
    assert run(arguments) == 0
    probe = Profile.load(target / "clients" / "operator.toml")
    with BrokerProcess(target, log=folder / "broker.log", probe=probe) as broker:
        broker.start()
        yield target


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], installation: Path) -> Cli:
    return Cli(capsys, installation)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sealed asset ``asset``, its ``data.key`` and ``owner.pub.pem``."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    folder = tmp_path_factory.mktemp("sealed")
    key = Ed25519PrivateKey.generate()
    (folder / "owner.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "owner.pub.pem").write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    (folder / "weights.bin").write_bytes(bytes(3_000))
    arguments = ["seal", str(folder / "weights.bin"), "--asset", "acme/llm", "--version", "1"]
    arguments += ["--key-file", str(folder / "data.key"), "--new-key", "--signing-key", str(folder / "owner.pem")]
    assert run([*arguments, "--out", str(folder / "asset")]) == 0
    return folder


def test_init_says_what_it_made_and_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "broker"
    assert run(["init", str(target), "--tenant", "acme", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert Path(made["configuration"]).is_file()
    assert Path(made["log_verifier_key"]).is_file()
    assert set(made["profiles"]) == {"operator", "auditor", "node", "acme-owner", "acme-scheduler"}
    assert run(["init", str(target)]) == 2
    assert capsys.readouterr().err.startswith("ALREADY_INITIALISED: ")


def test_serve_without_an_installation_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", str(tmp_path)]) == 2
    assert "keystead init" in capsys.readouterr().err


def signed_record(cli: Cli, folder: Path, site: str, *, serial: int = 1) -> Path:
    """A record of a site that two authorities signed."""
    file = folder / f"{site}-{serial}.json"
    arguments = ["site", "record", site, "--serial", str(serial), "--jurisdiction", "DE-BE", "--facility", "Berlin 1"]
    arguments += ["--operator", "ACME GmbH:DE", "--controller", "ACME Holding:LU", "--author", "alice"]
    assert run([*arguments, "--out", str(file)]) == 0
    for name in AUTHORITIES:
        key = cli.installation.parent / f"{name}.pem"
        assert run(["site", "sign", str(file), "--key", str(key), "--name", name, "--yes"]) == 0
    cli.drain()
    return file


def test_sites_and_nodes(cli: Cli, tmp_path: Path) -> None:
    site = cli.json("operator", "site", "enrol", str(signed_record(cli, tmp_path, "ber1")))
    assert (site["site"], site["jurisdiction"], site["exposures"]) == ("ber1", "DE-BE", ["DE", "LU"])
    assert [each["site"] for each in cli.json("operator", "site", "list")] == ["ber1"]
    code, out, _ = cli("operator", "site", "list")
    assert code == 0
    assert "Berlin 1" in out

    devices = ("--device", f"cpu0=amd-chip-id:{CHIP}", "--device", f"gpu0=nvidia-gpu:{GPU}")
    node = cli.json("operator", "node", "enrol", "ber1-n01", "--site", "ber1", *devices)
    assert node["devices"] == {"cpu0": f"amd-chip-id:{CHIP}", "gpu0": f"nvidia-gpu:{GPU}"}
    assert node["state"] == "active"
    changed = cli.json("operator", "node", "state", "ber1-n01", "quarantined", "--reason", "seal broken")
    assert changed["state"] == "quarantined"
    code, out, _ = cli("operator", "node", "list")
    assert code == 0
    assert "quarantined" in out

    file = tmp_path / "twin.json"
    file.write_text(json.dumps({"cpu0": f"amd-chip-id:{CHIP}"}))
    error = cli.json("operator", "node", "enrol", "twin", "--site", "ber1", "--file", str(file), code=2)
    assert error["error"]["code"] == "REQUEST_REFUSED"
    assert "IDENTITY_ENROLLED" in error["error"]["message"]


def test_the_environment_names_the_profile(
    installation: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEYSTEAD_PROFILE", str(installation / "clients" / "operator.toml"))
    assert run(["node", "list", "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)
    monkeypatch.setenv("KEYSTEAD_PROFILE", str(installation / "clients" / "auditor.toml"))
    assert run(["node", "list", "--json"]) == 1


def test_a_role_is_needed(cli: Cli) -> None:
    code, out, err = cli("acme-owner", "site", "list")
    assert (code, out) == (1, "")
    assert err.startswith("ACCESS_DENIED: ")
    assert "role operator" in err
    assert "Traceback" not in err


def test_nobody_listens(cli: Cli, installation: Path) -> None:
    code, _, err = cli("operator", "site", "list", "--broker", f"127.0.0.1:{free_port()}")
    assert code == 2
    assert err.startswith("BROKER_UNAVAILABLE: ")


def test_another_authority_is_not_trusted(cli: Cli, tmp_path: Path) -> None:
    assert run(["init", str(tmp_path / "other")]) == 0
    code, _, err = cli("operator", "site", "list", "--ca", str(tmp_path / "other" / "tls" / "ca.pem"))
    assert code == 2
    assert "BROKER_UNAVAILABLE: " in err


def test_every_constraint_can_be_registered(cli: Cli, tmp_path: Path) -> None:
    """By options, by a file, and by both, of which the stricter counts."""
    image = "0b" * 32
    options = [
        *("--kind", "features", "--purpose", "inference", "--allow", "EU", "--allow", "NO", "--classification", "2"),
        *("--allow-exposure", "EEA", "--forbid-exposure", "US", "--site", "fra-1", "--assurance", "cpu"),
        *("--node-ceiling", "4", "--copy-ceiling", "8", "--project", "p", "--user", "u", "--stage", "inference"),
        *("--image", image, "--network", "fabric", "--budget", "opens=5", "--obligation", "no_logits"),
        *("--obligation", "output_ceiling:tokens=100,bytes=200", "--retain", "30d"),
    ]
    asset = cli.json("acme-owner", "asset", "register", "acme/full", *options)
    constraints = asset["constraints"]
    assert constraints.pop("retain_until") > 0
    assert constraints == {
        "classification": 2,
        "purposes": ["inference"],
        "residency": {"allowed": [["EU", "NO"]]},
        "exposure": {"allowed": [["EEA"]], "forbidden": ["US"]},
        "sites": ["fra-1"],
        "assurance": "cpu",
        "node_ceiling": 4,
        "copy_ceiling": 8,
        "projects": ["p"],
        "users": ["u"],
        "stages": ["inference"],
        "images": [image],
        "networks": ["fabric"],
        "budgets": {"opens": 5},
        "obligations": {"no_logits": {}, "output_ceiling": {"bytes": 200, "tokens": 100}},
    }
    again = tmp_path / "again.json"
    again.write_text(json.dumps(constraints))
    file = ("--kind", "dataset", "--constraints", str(again))
    assert cli.json("acme-owner", "asset", "register", "acme/again", *file)["constraints"] == constraints
    stricter = tmp_path / "stricter.toml"
    stricter.write_text('purposes = ["inference", "evaluation"]\nnode_ceiling = 2\nresidency.allowed = [["EEA"]]\n')
    file = ("--kind", "dataset", "--constraints", str(stricter))
    both = ("--purpose", "inference", "--node-ceiling", "9", "--allow", "FR")
    joined = cli.json("acme-owner", "asset", "register", "acme/both", *file, *both)["constraints"]
    assert joined == {
        "classification": 4,
        "purposes": ["inference"],
        "residency": {"allowed": [["EEA"], ["FR"]]},
        "node_ceiling": 2,
    }
    for bad, said in (
        ('stages = ["lunch"]', "stages: 'lunch' is none of"),
        ("stages = lunch", "neither JSON nor"),
        ('residency.allowed = ["EU"]', "residency.allowed[0]"),
    ):
        stricter.write_text(bad)
        code, _, err = cli("acme-owner", "asset", "register", "acme/bad", *file)
        assert (code, "acme/bad" in cli("acme-owner", "asset", "list")[1]) == (2, False)
        assert said in err.replace("\n", " ")
    for option, value in (("--budget", "opens"), ("--budget", "coffee=1"), ("--obligation", "no_logits:seconds=1")):
        assert cli("acme-owner", "asset", "register", "acme/bad", *options, option, value)[0] == 2


def test_the_life_of_an_asset_and_a_job(cli: Cli, sealed: Path, tmp_path: Path) -> None:
    rules = ("--kind", "model", "--purpose", "inference", "--allow", "EU", "--forbid", "HU")
    asset = cli.json("acme-owner", "asset", "register", "acme/llm", *rules)
    assert (asset["kind"], asset["constraints"]) == (
        "model",
        {
            "classification": 4,
            "purposes": ["inference"],
            "residency": {"allowed": [["EU"]], "forbidden": ["HU"]},
        },
    )

    keys = ("--key-file", str(sealed / "data.key"), "--owner-key", str(sealed / "owner.pub.pem"))
    version = cli.json("acme-owner", "asset", "add-version", str(sealed / "asset"), *keys)
    assert (version["asset"], version["version"]) == ("acme/llm", 1)
    assert "acme/llm" in [each["asset"] for each in cli.json("acme-owner", "asset", "list")]
    assert cli.json("beta-owner", "asset", "list") == []
    shown = cli.json("acme-owner", "asset", "show", "acme/llm")
    assert shown["versions"][0]["manifest_digest"] == version["manifest_digest"]
    code, out, _ = cli("acme-owner", "asset", "show", "acme/llm")
    assert code == 0
    assert "EU, not HU" in out
    assert version["manifest_digest"] in out
    assert "EU, not HU" in cli("acme-owner", "asset", "list")[1]

    grant = tmp_path / "job.json"
    wanted = ("--asset", "acme/llm@1", "--grant-file", str(grant))
    job = cli.json("acme-scheduler", "job", "authorize", "slurm:1", *wanted, "--purpose", "inference", "--for", "10m")
    assert job["grant_file"] == str(grant)
    assert GrantFile.read(grant).signed.content.purposes == ("inference",)
    assert cli.json("acme-scheduler", "job", "show", "slurm:1")["state"] == "open"
    to_file = ("--grant-file", str(grant))
    first = GrantFile.read(grant).signed.content
    cli.json("acme-scheduler", "job", "extend", "slurm:1", "--for", "30m", *to_file)
    extended = GrantFile.read(grant).signed.content
    assert extended.not_after > first.not_after
    assert extended.grant_id != first.grant_id
    stopped = cli.json("acme-scheduler", "job", "preempt", "slurm:1")
    assert (stopped["state"], stopped["revoked_leases"]) == ("preempted", 0)
    again = cli.json("acme-scheduler", "job", "requeue", "slurm:1", "--for", "20m", *to_file)
    assert (again["attempt"], again["revoked_leases"]) == (2, 0)
    assert GrantFile.read(grant).signed.content.grant_id != extended.grant_id
    budgets = ("--budget", "opens=3", "--budget", "tokens_served=9")
    cli.json("acme-scheduler", "job", "authorize", "slurm:9", *wanted, "--purpose", "inference", *budgets)
    shown = cli.json("acme-scheduler", "job", "show", "slurm:9")
    assert [(use["budget"], use["scope"], use["limit"], use["spent"]) for use in shown["budgets"]] == [
        ("opens", "job", 3, 0),
        ("tokens_served", "job", 9, 0),
    ]
    code, _, err = cli("acme-scheduler", "job", "authorize", "slurm:8", *wanted, "--purpose", "x", "--budget", "opens")
    assert code == 2
    assert "NAME=NUMBER" in err
    ended = cli.json("acme-scheduler", "job", "end", "slurm:1")
    assert (ended["state"], ended["revoked_leases"]) == ("closed", 0)

    error = cli.json(
        "acme-scheduler",
        "job",
        "authorize",
        "slurm:2",
        *wanted,
        "--purpose",
        "pretraining",
        "--purpose",
        "other",
        code=1,
    )["error"]
    assert error["code"] == "ACCESS_DENIED"
    assert [reason["code"] for reason in error["reasons"]] == ["PURPOSE_NOT_PERMITTED"] * 2
    code, out, err = cli("acme-scheduler", "job", "authorize", "slurm:3", *wanted, "--purpose", "pretraining")
    assert (code, out) == (1, "")
    assert "how to mend it" in err

    code, _, err = cli("acme-owner", "asset", "revoke", "acme/llm")
    assert code == 2
    assert "--yes" in err
    assert cli.json("acme-owner", "asset", "revoke", "acme/llm", "--yes")["state"] == "revoked"


def test_a_manifest_that_another_owner_signed_is_not_added(cli: Cli, sealed: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    other = tmp_path / "other.pem"
    public = Ed25519PrivateKey.generate().public_key()
    other.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    keys = ("--key-file", str(sealed / "data.key"), "--owner-key", str(other))
    code, _, err = cli("acme-owner", "asset", "add-version", str(sealed / "asset"), *keys)
    assert code == 1
    assert err.startswith("SEALED_MANIFEST_NOT_AUTHENTIC: ")


def test_another_data_key_is_not_added(cli: Cli, sealed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_bytes(bytes(32))
    keys = ("--key-file", str(other), "--owner-key", str(sealed / "owner.pub.pem"))
    code, _, err = cli("acme-owner", "asset", "add-version", str(sealed / "asset"), *keys)
    assert code == 2
    assert "was sealed with" in err


def test_the_log_of_a_broker(cli: Cli, installation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = str(installation / "log.vkey")
    deadline = time.monotonic() + 30
    while not (page := cli.json("auditor", "audit", "query", "--kind", "broker.initialised"))["entries"]:
        assert time.monotonic() < deadline, "the log sequenced nothing"
    (entry,) = page["entries"]
    assert entry["record"]["kind"] == "broker.initialised"
    code, out, _ = cli("auditor", "audit", "query", "--limit", "1")
    assert code == 0
    assert "broker.initialised" in out

    code, old, _ = cli("auditor", "audit", "checkpoint")
    assert code == 0
    checkpoint = tmp_path / "old.txt"
    checkpoint.write_text(old)
    bundle = tmp_path / "proof.json"
    arguments = ("--checkpoint", str(checkpoint), "--out", str(bundle))
    proven = cli.json("auditor", "audit", "prove", str(entry["index"]), *arguments)
    assert proven["written"] == str(bundle)
    assert run(["audit", "verify", str(bundle), "--key", key, "--checkpoint", str(checkpoint), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True

    document = json.loads(bundle.read_text())
    document["record"]["detail"]["broker"] = "another"
    bundle.write_text(json.dumps(document))
    assert run(["audit", "verify", str(bundle), "--key", key]) == 1
    assert "PAYLOAD_ALTERED" in capsys.readouterr().out

    assert cli("operator", "audit", "query")[0] == 1
    assert cli.json("auditor", "audit", "query", "--lease", "lease-1")["entries"] == []


def test_no_log_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYSTEAD_PROFILE", raising=False)
    assert run(["audit", "query"]) == 2
    assert "--profile" in capsys.readouterr().err


def test_a_file_of_nodes_is_imported_all_or_none(cli: Cli, tmp_path: Path) -> None:
    cli.json("operator", "site", "enrol", str(signed_record(cli, tmp_path, "imp1")))
    file = tmp_path / "hall.csv"
    lines = ["node,site,slot,identity", *(f"imp-{each},imp1,cpu0,amd-chip-id:{each:0128x}" for each in range(1, 30))]
    file.write_text(
        "\n".join([*lines, "imp-30,imp1,cpu0,amd-chip-id:xyz", "imp-31,none,cpu0,amd-chip-id:" + "f" * 128])
    )
    refused = cli.json("operator", "node", "import", str(file), code=1)
    assert refused["imported"] == 0
    assert [(each["line"], each["field"]) for each in refused["problems"]] == [(31, "identity"), (32, "site_id")]
    file.write_text("\n".join(lines))
    assert cli.json("operator", "node", "import", str(file), "--dry-run")["imported"] == 0
    done = cli.json("operator", "node", "import", str(file))
    assert (done["imported"], done["problem_count"]) == (29, 0)
    again = cli.json("operator", "node", "import", str(file), "--request-id", done["request_id"])
    assert again["imported"] == 29


def test_lineage_and_declassification(cli: Cli, tmp_path: Path) -> None:
    owner, secret = "acme-owner", {"purposes": ["inference"], "residency": {"allowed": [["EU"]]}}
    for name in ("origin", "derived"):
        cli.json(owner, "asset", "register", f"acme/{name}", "--kind", "features", *ALLOWED)
        folder = tmp_path / name
        (tmp_path / f"{name}.bin").write_bytes(bytes(100))
        arguments = ["seal", str(tmp_path / f"{name}.bin"), "--asset", f"acme/{name}", "--version", "1"]
        arguments += ["--key-file", str(tmp_path / f"{name}.key"), "--new-key"]
        arguments += ["--signing-key", str(owner_key(tmp_path)), "--out", str(folder)]
        assert run(arguments) == 0
        cli.drain()
        arguments = ["asset", "add-version", str(folder), "--key-file", str(tmp_path / f"{name}.key")]
        cli.json(owner, *arguments, "--owner-key", str(owner_key(tmp_path).with_suffix(".pub")))
    added = cli.json(owner, "asset", "parents", "acme/derived@1", "acme/origin@1")
    assert (added["tightened"], added["revoked_leases"]) == ([], 0)
    error = cli.json(owner, "asset", "parents", "acme/origin@1", "acme/derived@1", code=2)
    assert "LINEAGE_CYCLE" in error["error"]["message"]
    lineage = cli.json(owner, "asset", "lineage", "acme/derived")
    assert [(edge["child"], edge["parent"]) for edge in lineage["edges"]] == [("acme/derived@1", "acme/origin@1")]
    code, out, _ = cli(owner, "asset", "lineage", "acme/origin@1", "--down")
    assert code == 0
    assert out.splitlines() == ["acme/origin@1 features", "  acme/derived@1 features  (declared)"]
    assert cli(owner, "asset", "lineage", "acme/origin", "--up", "--down")[0] == 2

    tightened = cli.json(owner, "asset", "constrain", "acme/origin@1", "--set", "classification=3")
    assert tightened["tightened"] == ["acme/derived@1", "acme/origin@1"]
    assert cli(owner, "asset", "constrain", "acme/origin", "--set", "colour=red")[0] == 2

    approvers = []
    for name in ("bob", "carol"):
        key = tmp_path / f"{name}.pem"
        cli.drain()
        assert run(["asset", "approvers", "key", str(key), "--json"]) == 0
        made = json.loads(cli.drain())
        approvers += ["--approver", f"{name}={made['public_key']}"]
    first = tmp_path / "approvers.json"
    assert cli.json(owner, "asset", "approvers", "show") is None
    arguments = ["asset", "approvers", "propose", "--threshold", "2", *approvers, "--reason", "first"]
    cli.json(owner, *arguments, "--out", str(first))
    assert cli.json(owner, "asset", "approvers", "set", str(first))["threshold"] == 2
    assert list(cli.json(owner, "asset", "approvers", "show")["approvers"]) == ["bob", "carol"]

    file = tmp_path / "origin.json"
    arguments = ["asset", "declassify", "propose", "acme/origin@1", "--reason", "anonymised", "--out", str(file)]
    assert cli(owner, *arguments, "--set", "classification=4")[0] == 2
    assert cli(owner, *arguments, "--drop", "users")[0] == 2
    assert not file.exists()
    proposed = cli.json(owner, *arguments, "--set", "classification=1")
    assert proposed["body"]["changes"] == [{"field": "classification", "before": 3, "after": 1, "relaxes": True}]
    error = cli.json(owner, "asset", "declassify", "apply", str(file), code=2)
    assert "SIGNATURES_MISSING" in error["error"]["message"]
    for name in ("bob", "carol"):
        arguments = ["asset", "declassify", "approve", str(file), "--key", str(tmp_path / f"{name}.pem")]
        assert run([*arguments, "--name", name, "--yes"]) == 0
        shown = cli.drain()
        # Every word of what is signed is there, the digest too.
        for text in (proposed["digest"], "anonymised", "acme/origin", "classification", "owner"):
            assert text in shown
        assert run([*arguments, "--name", name, "--yes"]) == 2
    assert run([*arguments, "--name", "owner", "--yes"]) == 2
    cli.drain()
    applied = cli.json(owner, "asset", "declassify", "apply", str(file))
    assert (applied["state"], applied["signers"]) == ("applied", ["bob", "carol"])
    assert applied["constraints"] == secret | {"classification": 1}
    assert run(["asset", "declassify", "show", str(file), "--json"]) == 0
    assert json.loads(cli.drain())["digest"] == applied["digest"]
    for asked in ((), ("acme/origin",), ("acme/origin@1",)):
        (listed,) = cli.json(owner, "asset", "declassify", "list", *asked)
        assert listed["digest"] == applied["digest"]
    assert cli.json(owner, "asset", "show", "acme/derived")["versions"][0]["constraints"]["classification"] == 3
    # A statement that was tampered with is not even shown.
    text = file.read_text().replace('"after": 1', '"after": 0')
    file.write_text(text)
    assert run(["asset", "declassify", "show", str(file)]) == 2

    revoked = cli.json(owner, "asset", "revoke", "acme/origin", "--descendants", "--yes")
    assert revoked["descendants"] == ["acme/derived@1"]
    assert cli.json(owner, "asset", "show", "acme/derived")["versions"][0]["state"] == "revoked"


ALLOWED = ("--purpose", "inference", "--allow", "EU", "--classification", "2")


def owner_key(folder: Path) -> Path:
    """An owner's signing key, made once in `folder`, with its public half beside it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    path = folder / "owner.pem"
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.with_suffix(".pub").write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
    return path
