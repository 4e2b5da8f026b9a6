"""Evidence packages of a broker: a release that strangers verify, a tenant's own only, each reading on record."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calls import add_client, refusal
from factory import Factory, furnish, start_factory
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg import sql

import audit.package
from attestation.simulator.node import SimulatedVendors
from audit.checkpoint import Checkpoint
from audit.cosignature import Cosigner
from audit.note import NoteVerifier
from audit.package.files import open_archive, unpack
from audit.package.gaps import GapCode
from audit.package.verify import PackageResult, verify_package
from keybroker import evidence_package
from keybroker.principals import Principal, Role
from keystead.binding import sha256
from keystead.cli.main import run
from keystead.v1 import audit_service_pb2 as pb

MODULE = Path(audit.package.__file__).parent / "stranger"


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def told(request, tmp_path_factory: pytest.TempPathFactory, vendors: SimulatedVendors) -> Iterator[Factory]:
    """A factory in which two tenants used what is theirs, and one was refused."""
    database = None
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        name = f"test_{secrets.token_hex(8)}"
        with server.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        database = server.url(name)
    folder = tmp_path_factory.mktemp("told") / "factory"
    factory = furnish(start_factory(folder, vendors, database=database, edit=str))
    ours, theirs = factory.register_asset(), factory.register_asset("globex/data")
    factory.acquire("node-a", factory.authorize(ours, job_uid="slurm:1"), ours)
    factory.acquire("node-b", factory.authorize(theirs, job_uid="slurm:2", tenant="globex"), theirs)
    with pytest.raises(Exception, match="JURISDICTION"):
        factory.acquire("node-us", factory.authorize(ours, job_uid="slurm:3"), ours)
    factory.broker.sequencer.run_once(factory.clock())
    factory.clock.offset += 5  # a span can end before now, and have all of that in it
    yield factory
    factory.close()


def ask(factory: Factory, profile: str = "auditor", **wanted: Any) -> bytes:
    request = pb.GetEvidencePackageRequest(**wanted)
    return b"".join(piece.package for piece in factory.stubs(profile).audit.GetEvidencePackage(request, timeout=60))


def verified(factory: Factory, package: bytes, **more: Any) -> PackageResult:
    with open_archive(io.BytesIO(package)) as files:
        result = verify_package(files, factory.broker.keys.log.verifier, **more)
    assert result.ok, result.problems
    return result


def records(package: bytes) -> list[dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        return [json.loads(line)["record"] for line in archive.read("records.jsonl").splitlines()]


def reads(factory: Factory) -> list[dict[str, Any]]:
    factory.broker.sequencer.run_once(factory.clock())
    request = pb.QueryRecordsRequest(kind="audit.read", page_size=1000)
    found = factory.stubs("auditor").audit.QueryRecords(request).records
    return [json.loads(record.payload) for record in found]


def test_the_whole_log(told: Factory) -> None:
    package = ask(told)
    result = verified(told, package)
    assert result.manifest.records == result.manifest.end == result.checkpoint.size
    assert result.kinds["lease.granted"] == 2
    assert result.kinds["lease.refused"] == 1
    assert GapCode.NO_WITNESS in {gap.code for gap in result.gaps}
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        note, page = archive.read("manifest"), archive.read("report.html").decode()
    assert "slurm:1" in page
    assert "JURISDICTION" in page
    (read,) = [each for each in reads(told) if each["detail"].get("package_digest") == sha256(note).hex()]
    assert read["detail"]["records"] == result.records
    assert read["actor"]["role"] == "auditor"


def test_an_asset_of_a_span(told: Factory) -> None:
    now = told.clock()
    span = {"start_time": Timestamp(seconds=now - 3_600), "end_time": Timestamp(seconds=now + 3_600)}
    result = verified(told, ask(told, asset="acme/llama", **span))
    assert result.kinds["lease.granted"] == 1
    assert GapCode.COUNTER_MISSING not in {gap.code for gap in result.gaps}
    assert GapCode.SPAN_OPEN in {gap.code for gap in result.gaps}


def test_a_kept_checkpoint(told: Factory) -> None:
    older = told.stubs("auditor").audit.GetCheckpoint(pb.GetCheckpointRequest()).checkpoint
    told.broker.sequencer.run_once(told.clock())
    result = verified(told, ask(told, old_checkpoint=older), known=older.encode())
    assert "checkpoint-kept" in result.continues
    signer = told.broker.keys.log
    forged = str(Checkpoint(signer.verifier.name, 1 << 40, bytes(32)).sign(signer))
    for bad in ("hello", forged, older.replace("\n\n", "\n\n\u2014 x AAAAAAA=\n").replace("/log\n", "/other\n", 1)):
        assert refusal(lambda bad=bad: ask(told, old_checkpoint=bad)).reason == "INVALID_REQUEST"


def test_a_tenants_auditor_gets_the_tenants_records_only(told: Factory) -> None:
    profile = add_client(told, Principal(Role.AUDITOR, "auditor", "acme"))
    package = ask(told, profile)
    assert {record["tenant"] for record in records(package)} == {"acme"}
    assert verified(told, package).manifest.scope.tenant == "acme"
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        assert all(b"globex" not in archive.read(name) for name in archive.namelist())
    theirs, absent = (
        refusal(lambda tenant=tenant: ask(told, profile, tenant=tenant)) for tenant in ("globex", "nobody")
    )
    assert (theirs.status, theirs.reason, theirs.message) == (absent.status, absent.reason, absent.message)
    # Another tenant's asset looks like one that does not exist.
    told.broker.sequencer.run_once(told.clock())
    end = Timestamp(seconds=told.clock() - 1)
    found = []
    for asset in ("globex/data", "globex/none"):
        with zipfile.ZipFile(io.BytesIO(ask(told, profile, asset=asset, end_time=end))) as archive:
            found.append({name: archive.read(name).replace(asset.encode(), b"X") for name in archive.namelist()})
    assert {name for name in found[0] if found[0][name] != found[1][name]} == {"manifest"}, "digests and signature"
    assert found[0]["records.jsonl"] == b""


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"asset": "acme/llama@1"}, "BAD_AUDIT_QUERY"),
        ({"asset": "no asset"}, "BAD_AUDIT_QUERY"),
        ({"start_time": Timestamp(seconds=2), "end_time": Timestamp(seconds=1)}, "BAD_AUDIT_QUERY"),
        ({"start_time": Timestamp(seconds=-2)}, "INVALID_REQUEST"),
        ({"end_time": Timestamp(seconds=2, nanos=5)}, "INVALID_REQUEST"),
    ],
)
def test_what_cannot_be_asked(told: Factory, wanted: dict[str, Any], reason: str) -> None:
    assert refusal(lambda: ask(told, **wanted)).reason in {reason, "BAD_AUDIT_QUERY"}


def test_only_so_many_are_built_at_once(told: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()
    build = evidence_package.build_package

    def slow(*arguments: Any, **more: Any) -> Any:
        begun.release()
        assert go_on.wait(30)
        return build(*arguments, **more)

    monkeypatch.setattr(evidence_package, "build_package", slow)
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(told))) for _ in range(evidence_package.AT_ONCE)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert begun.acquire(timeout=30)
    assert refusal(lambda: ask(told)).reason == "STREAMS_TAKEN"
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert len(answers) == len(threads)
    assert len(ask(told)) > 0


def test_whoever_goes_away_stops_the_work(told: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_package, "_LOOK", 1)
    begun, ended = threading.Event(), threading.Event()
    build = evidence_package.build_package

    def watched(*arguments: Any, progress: Callable[[int], None], **more: Any) -> Any:
        begun.set()

        def slowly(done: int) -> None:
            threading.Event().wait(0.2)
            progress(done)

        try:
            return build(*arguments, progress=slowly, **more)
        finally:
            ended.set()

    monkeypatch.setattr(evidence_package, "build_package", watched)
    call = told.stubs("auditor").audit.GetEvidencePackage(pb.GetEvidencePackageRequest(), timeout=60)
    assert begun.wait(10)
    call.cancel()
    assert ended.wait(3), "some forty records would take eight seconds"


def test_a_broker_shows_nothing_that_its_witnesses_did_not_cosign(make_factory: Callable[..., Factory]) -> None:
    witness = Cosigner.generate("witness.example/w")
    section = (
        f'[log]\nwitness_quorum = 1\n[[log.witnesses]]\nname = "w"\nurl = "http://127.0.0.1:1"\nkey = "{witness.key}"\n'
    )
    factory = make_factory(edit=lambda text: text.replace("[log]\n", "") + "\n" + section)
    assert refusal(lambda: ask(factory)).reason == "LOG_UNWITNESSED"


def test_the_command_line(told: Factory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the broker and from its database it is the same package; what is printed is what is in it."""
    told.broker.sequencer.run_once(told.clock())
    folder = told.installation.directory
    span = ["--to", str(told.clock() - 1)]
    reach = ["--profile", str(folder / "clients" / "auditor.toml"), "--broker", f"localhost:{told.port}"]
    config = ["--database", str(told.installation.config)]
    made = {}
    for name, source in (("b.zip", config), ("a.zip", reach)):
        out = tmp_path / name
        assert run(["audit", "report", *span, "--out", str(out), *source, "--json"]) == 0
        made[name] = (out.read_bytes(), printed(capsys) | {"written": ""})
    assert made["a.zip"] == made["b.zip"]
    assert made["a.zip"][1]["records"] > 0
    key = str(told.broker.keys.log.verifier)
    assert run(["audit", "report", "--out", str(tmp_path / "folder"), *config]) == 0
    assert "NO_WITNESS" in capsys.readouterr().out
    for package in ("a.zip", "folder"):
        assert run(["audit", "verify", str(tmp_path / package), "--key", key]) == 0
        assert "verified" in capsys.readouterr().out
        assert run(["audit", "verify", str(tmp_path / package), "--key", key, "--json"]) == 0
        answer = printed(capsys)
        assert (answer["verified"], answer["problems"], answer["origin"]) == (True, [], "factory.test/keys/log")
    (tmp_path / "folder" / "report.html").write_text("all is well")
    assert run(["audit", "verify", str(tmp_path / "folder"), "--key", key]) == 1
    assert "PACKAGE_ALTERED" in capsys.readouterr().out
    witness = str(Cosigner.generate("w.example/1").key)
    assert run(["audit", "verify", str(tmp_path / "a.zip"), "--key", key, "--witness", witness]) == 1
    assert "CHECKPOINT_UNWITNESSED" in capsys.readouterr().out
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    for wrong in (
        ["verify", str(tmp_path / "bad.zip"), "--key", key],
        ["verify", str(tmp_path / "none.zip"), "--key", key],
        ["report", "--out", str(tmp_path / "folder"), *config],
        ["report", "--out", str(tmp_path / "no" / "where.zip"), *config],
        ["report", "--out", str(tmp_path / "c.zip"), "--database", "sqlite:///x.db"],
        ["report", "--out", str(tmp_path / "c.zip"), "--unwitnessed", *reach],
        ["report", "--out", str(tmp_path / "c.zip")],
        ["report", "--out", str(tmp_path / "c.zip"), "--asset", "acme/llama@1", *config],
        ["report", "--out", str(tmp_path / "c.zip"), "--from", "yesterday", *config],
    ):
        assert run(["audit", *wrong]) == 2, wrong
        assert capsys.readouterr().err
    assert not (tmp_path / "c.zip").exists()


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The JSON that was printed, between what the broker in this process logs."""
    return json.loads(re.search(r"^\{$.*^\}$", capsys.readouterr().out, re.MULTILINE | re.DOTALL)[0])


# A stranger, with the package, the log's key and Go's public modules


@pytest.fixture(scope="session")
def go() -> str:
    """Go, new enough for the module that every package has in it."""
    program = shutil.which("go") or "/usr/local/go/bin/go"
    wanted = re.search(r"^go (\d+)\.(\d+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    try:
        version = subprocess.run([program, "env", "GOVERSION"], capture_output=True, text=True, check=True, cwd="/")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("NO GO: install Go to have an evidence package verified by modules that we did not write")
    found = re.match(r"go(\d+)\.(\d+)", version.stdout)
    if not found or tuple(map(int, found.groups())) < tuple(map(int, wanted.groups())):
        pytest.skip(f"GO {version.stdout.strip()} IS TOO OLD: the public modules need {wanted.group()}")
    return program


def run_go(go: str, folder: Path, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Build the program that lies in the package, with the modules that it names, and run it there."""
    done = subprocess.run(
        [go, "build", "-mod=readonly", "-o", str(program), "verify.go"],
        cwd=folder,
        env=os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        assert "verify.go:" not in done.stderr.replace("verify.go:23", ""), done.stderr
        pytest.skip(f"NO GO MODULES: {done.stderr.strip().splitlines()[-1]}")
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_a_stranger_verifies_a_release(told: Factory, go: str, tmp_path: Path) -> None:
    """The done-when of the log: package, key, Go's public modules, and no Keystead."""
    folder, program = tmp_path / "package", tmp_path / "verify"
    unpack(io.BytesIO(ask(told, asset="acme/llama")), folder)
    released = next(
        json.loads(line)["index"]
        for line in (folder / "records.jsonl").read_text().splitlines()
        if '"kind":"lease.granted"' in line
    )
    vkey = str(NoteVerifier.parse(str(told.broker.keys.log.verifier)))
    ran = run_go(go, folder, program, "-show", str(released), vkey)
    assert ran.returncode == 0, ran.stderr
    assert '"kind":"lease.granted"' in ran.stdout
    assert '"job":"slurm:1"' in ran.stdout
    assert re.search(r"VERIFIED: \d+ records", ran.stdout)

    def refused(*arguments: str) -> str:
        again = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert again.returncode == 1
        return again.stderr

    witness = str(Cosigner.generate("witness.example/w").key)
    assert "cosigned by 0 of the witnesses, 1 are needed" in refused("-witness", witness, vkey)
    data = (folder / "records.jsonl").read_bytes()
    (folder / "records.jsonl").write_bytes(data.replace(b"slurm:1", b"slurm:9"))
    assert "records.jsonl: not what was signed" in refused(vkey)
    (folder / "records.jsonl").write_bytes(data)
    (folder / "more").write_text("x")
    assert "more: a file that nothing vouches for" in refused(vkey)
    (folder / "more").unlink()
    note = (folder / "manifest").read_text()
    (folder / "manifest").write_text(note.replace("\nasset acme/llama\n", "\nasset acme/other\n"))
    assert "manifest" in refused(vkey)
