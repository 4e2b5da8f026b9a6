"""Go programs on public modules, which know nothing of Keystead, verify our log, proofs, cosignatures and witness."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, select, update

from audit.checkpoint import Checkpoint
from audit.cosignature import Cosigner
from audit.log import append_many
from audit.note import NoteSigner
from audit.proof import ProofBundle, build
from audit.publish import publish
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from audit.stores import FileStore
from audit.tables import AUDIT_CHECKPOINT, METADATA
from audit.tiles import decode_bundle, encode_bundle
from keybroker.bucket_address import BucketAddress
from keybroker.bucket_store import BucketStore

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "tests" / "go"
ORIGIN = "log.example/keystead"
NOW = 1_800_000_000


@pytest.fixture(scope="session")
def stranger() -> Callable[..., Any]:
    """Runs the Go program; its answer, or an AssertionError with what it says where it refuses."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    wanted = re.search(r"^go (\d+)\.(\d+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    try:
        version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True, cwd="/").stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("NO GO: install Go to have the log verified by programs that we did not write")
    found = re.match(r"go(\d+)\.(\d+)", version)
    if not found or tuple(map(int, found.groups())) < tuple(map(int, wanted.groups())):
        pytest.skip(f"GO {version.strip()} IS TOO OLD: the public modules need {wanted.group()}")
    folder = ROOT / ".cache" / "go"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"stranger-{os.getpid()}"
    try:
        done = subprocess.run(
            [go, "build", "-mod=readonly", "-o", str(program), "./stranger"],
            cwd=MODULE,
            env=os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": ""},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            # What the compiler says of our own program names its file; all else is that modules cannot be had.
            assert "main.go" not in done.stderr, done.stderr
            pytest.skip(f"NO GO MODULES: {done.stderr.strip().splitlines()[-1]}")

        def run(*arguments: object, text: str = "") -> Any:
            ran = subprocess.run(
                [program, *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60, check=False
            )
            assert ran.returncode == 0, ran.stderr
            return json.loads(ran.stdout)

        yield run
    finally:
        program.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def signer() -> NoteSigner:
    return NoteSigner.generate(ORIGIN)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'log.db'}")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def public(engine: Engine, signer: NoteSigner, tmp_path: Path) -> Path:
    """A log of 700 entries, published after 300 and in the end."""
    sequencer = Sequencer(engine, signer, ORIGIN)
    sequencer.initialise(NOW)
    for count in (300, 299, 101):
        with engine.begin() as connection:
            append_many(connection, [record(number) for number in range(count)])
        sequencer.run_once(NOW)
        publish(engine.connect, FileStore(tmp_path / "public"), signer.verifier)
    return tmp_path / "public"


def record(number: int) -> Record:
    return Record.build(
        kind=Kind.LEASE_GRANTED,
        time=NOW + number,
        actor=Actor(role="node", name="node-1"),
        assets=["acme/llm@1"],
        result=Result.ALLOWED,
    )


def note_of(engine: Engine, size: int) -> str:
    with engine.connect() as connection:
        return connection.scalars(select(AUDIT_CHECKPOINT.c.note).where(AUDIT_CHECKPOINT.c.tree_size == size)).one()


def test_tesseras_fsck_rebuilds_the_published_log(stranger, public, signer, engine):
    answer = stranger("fsck", public, signer.verifier)
    root = Checkpoint.parse_text(note_of(engine, 700).partition("\n\n")[0] + "\n").root
    assert answer == {"size": 700, "root": root.hex()}


@pytest.mark.s3
def test_tesseras_fsck_rebuilds_a_log_in_a_public_bucket(stranger, bucket, engine, public, signer):
    """As anybody reads it over HTTP."""
    store = BucketStore(BucketAddress.parse(bucket.url))
    assert public.is_dir()
    publish(engine.connect, store, signer.verifier)
    bucket.server.open_to_everybody("transparency")
    assert stranger("fsck", bucket.http, signer.verifier)["size"] == 700
    tile = bytearray(store.get("tile/0/001"))
    tile[40] ^= 1
    (bucket.folder / "tile/0/001").write_bytes(tile)
    with pytest.raises(AssertionError):
        stranger("fsck", bucket.http, signer.verifier)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257])
def test_tesseras_fsck_takes_logs_of_every_shape(stranger, engine, signer, tmp_path, size):
    sequencer = Sequencer(engine, signer, ORIGIN)
    sequencer.initialise(NOW)
    with engine.begin() as connection:
        append_many(connection, [record(number) for number in range(size)])
    sequencer.run_once(NOW)
    publish(engine.connect, FileStore(tmp_path / "public"), signer.verifier)
    assert stranger("fsck", tmp_path / "public", signer.verifier)["size"] == size


@pytest.mark.parametrize("path", ["tile/0/001", "tile/1/000.p/2", "tile/entries/002.p/188"])
def test_tesseras_fsck_refuses_what_was_altered(stranger, public, signer, path):
    """So that the tests above can fail: the program does look."""
    if "entries" in path:
        entries = list(decode_bundle((public / path).read_bytes()))
        entries[1], entries[2] = entries[2], entries[1]
        (public / path).write_bytes(encode_bundle(entries))
    else:
        data = bytearray((public / path).read_bytes())
        data[33] ^= 1
        (public / path).write_bytes(data)
    with pytest.raises(AssertionError):
        stranger("fsck", public, signer.verifier)


def test_every_inclusion_and_consistency_is_proven_from_the_tiles(stranger, public, signer, engine, tmp_path):
    (tmp_path / "old.txt").write_text(note_of(engine, 300))
    assert stranger("proofs", public, signer.verifier, tmp_path / "old.txt") == {"inclusion": 700, "from": 300}
    forged = Checkpoint(ORIGIN, 300, bytes(32)).sign(signer)
    (tmp_path / "old.txt").write_text(str(forged))
    with pytest.raises(AssertionError, match="root"):
        stranger("proofs", public, signer.verifier, tmp_path / "old.txt")


def test_a_release_is_verified_from_its_bundle(stranger, public, signer, engine, tmp_path):
    assert public.is_dir()
    with engine.connect() as connection:
        bundle = build(connection, 411, older=note_of(engine, 300).encode())
    path = tmp_path / "proof.json"
    path.write_bytes(bundle.to_bytes())
    assert stranger("bundle", signer.verifier, path) == {"index": 411, "size": 700, "continues": 300}
    path.write_bytes(bundle.to_bytes().replace(b"node-1", b"node-2"))
    with pytest.raises(AssertionError, match="not under the leaf"):
        stranger("bundle", signer.verifier, path)


def test_a_c2sp_tlog_proof_is_verified(stranger, public, signer, engine):
    assert public.is_dir()
    with engine.connect() as connection:
        bundle = ProofBundle.parse(build(connection, 5).to_bytes())
        leaf = FileStore(public).get("tile/0/000")[5 * 32 : 6 * 32].hex()
    text = bundle.to_tlog_proof()
    assert stranger("tlogproof", signer.verifier, leaf, text=text) == {"index": 5, "size": 700}
    with pytest.raises(AssertionError):
        stranger("tlogproof", signer.verifier, leaf, text=text.replace("index 5", "index 6"))


def test_cosignatures_are_verified(stranger, public, signer, engine):
    cosigners = [Cosigner.generate(f"witness.example/{number}") for number in range(3)]
    note = note_of(engine, 700)
    text = note.partition("\n\n")[0] + "\n"
    for cosigner in cosigners[:2]:
        note += str(cosigner.cosign(text, NOW))
    with engine.begin() as connection:
        connection.execute(update(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == 700).values(note=note))
    publish(engine.connect, FileStore(public), signer.verifier)
    keys = [cosigner.key for cosigner in cosigners]
    published = (public / "checkpoint").read_text()
    assert stranger("witnessed", signer.verifier, 2, *keys, text=published) == {"size": 700, "times": [NOW, NOW]}
    assert stranger("fsck", public, signer.verifier)["size"] == 700
    with pytest.raises(AssertionError, match="cosigned by 2, 3 are needed"):
        stranger("witnessed", signer.verifier, 3, *keys, text=published)


@contextmanager
def serving(*arguments: object) -> Iterator[str]:
    """A Keystead command that serves; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keystead.cli.main", "audit", *map(str, arguments), "--listen", "127.0.0.1:0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        answer = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        yield f"http://127.0.0.1:{answer['port']}"
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_our_server_serves_tesseras_client(stranger, public, signer):
    with serving("serve", public) as url:
        assert stranger("fsck", url + "/", signer.verifier)["size"] == 700


def test_our_witness_cosigns_another_log(stranger, tmp_path):
    other = NoteSigner.generate("go.example/log")
    program = [sys.executable, "-m", "keystead.cli.main", "audit", "witness"]
    subprocess.run(
        [*program, "init", str(tmp_path / "w"), "--name", "witness.example/w1"],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    key = (tmp_path / "w" / "witness.vkey").read_text().strip()
    with serving("witness", "serve", tmp_path / "w", "--log", other.verifier) as url:
        assert stranger("witness", url, other.skey(), key) == {"size": 260}
        # A second log under the same key begins again: the witness has seen 260 entries.
        with pytest.raises(AssertionError, match="answers 409: 260"):
            stranger("witness", url, other.skey(), key)
