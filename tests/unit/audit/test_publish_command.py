"""`keystead audit publish`, `verify --tiles` and `witness init` on the command line."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, select, update

from audit.cosignature import Cosigner, WitnessKey
from audit.note import NoteSigner
from audit.proof import build
from audit.tables import AUDIT_CHECKPOINT
from keystead.cli.main import run


@pytest.fixture
def log(engine: Engine, make_log: Callable, signer: NoteSigner, tmp_path: Path) -> list[str]:
    """The options that name a log of 300 entries."""
    make_log(engine, [300])
    (tmp_path / "log.vkey").write_text(f"{signer.verifier}\n")
    return ["--database", str(engine.url), "--key", str(tmp_path / "log.vkey")]


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run(["audit", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_publishing_and_verifying(log, engine, signer, tmp_path, capsys):
    public, key = tmp_path / "public", log[3]
    code, out, _ = call(capsys, "publish", public, *log, "--json")
    assert code == 0
    assert json.loads(out) == {
        "origin": signer.verifier.name,
        "entries": 300,
        "published before": None,
        "tiles and bundles written": 5,
    }
    assert call(capsys, "publish", public, *log)[0] == 0
    with engine.connect() as connection:
        bundle = build(connection, 270)
    (tmp_path / "proof.json").write_bytes(bundle.to_bytes())
    code, out, _ = call(capsys, "verify", tmp_path / "proof.json", "--tiles", public, "--key", key, "--json")
    assert (code, json.loads(out)["verified"], json.loads(out)["entries"]) == (0, True, 300)
    code, out, _ = call(capsys, "verify", "--tiles", public, "--key", key)
    assert code == 0
    assert "verified" in out

    # A record that was rewritten, and a tile that was.
    (tmp_path / "proof.json").write_bytes(bundle.to_bytes().replace(b"node-0", b"node-9"))
    code, out, _ = call(capsys, "verify", tmp_path / "proof.json", "--tiles", public, "--key", key, "--json")
    assert (code, [item["code"] for item in json.loads(out)["problems"]]) == (1, ["PAYLOAD_ALTERED"])
    tile = public / "tile/0/000"
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    code, out, _ = call(capsys, "verify", "--tiles", public, "--key", key, "--json")
    assert (code, json.loads(out)["first_bad_index"]) == (1, 0)
    code, out, _ = call(capsys, "verify", "--tiles", public, "--key", key)
    assert code == 1
    assert "TILE_ALTERED" in out


def test_a_quorum_is_asked_for(log, engine, tmp_path, capsys):
    public, key = tmp_path / "public", log[3]
    witness = Cosigner.generate("witness.example/w1")
    other = Cosigner.generate("witness.example/w2")
    code, _, err = call(capsys, "publish", public, *log, "--witness", witness.key)
    assert code == 1
    assert "LOG_UNWITNESSED" in err
    assert call(capsys, "verify", *log, "--witness", witness.key)[0] == 1
    with engine.begin() as connection:
        note = connection.scalars(select(AUDIT_CHECKPOINT.c.note).where(AUDIT_CHECKPOINT.c.tree_size == 300)).one()
        note += str(witness.cosign(note.partition("\n\n")[0] + "\n", 1_800_000_000))
        connection.execute(update(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == 300).values(note=note))
        bundle = build(connection, 3).to_bytes()
    (tmp_path / "proof.json").write_bytes(bundle)
    assert call(capsys, "publish", public, *log, "--witness", witness.key)[0] == 0
    both = ["--witness", witness.key, "--witness", other.key]
    for what in (["--tiles", public, "--key", key], [tmp_path / "proof.json", "--key", key], log):
        assert call(capsys, "verify", *what, *both, "--quorum", "1")[0] == 0
        assert call(capsys, "verify", *what, *both)[0] == 1


def test_what_is_wrong_otherwise_is_shown_first(log, engine, tmp_path, capsys):
    with engine.begin() as connection:
        bundle = json.loads(build(connection, 3).to_bytes())
        connection.execute(delete(AUDIT_CHECKPOINT))
    (tmp_path / "proof.json").write_text(json.dumps(bundle | {"checkpoint": "no checkpoint\n"}))
    for options in ([], ["--witness", Cosigner.generate("w").key]):
        code, out, _ = call(capsys, "verify", tmp_path / "proof.json", "--key", log[3], *options, "--json")
        assert (code, json.loads(out)["problems"][0]["code"]) == (1, "CHECKPOINT_ALTERED")
        code, out, _ = call(capsys, "verify", *log, *options, "--json")
        assert (code, json.loads(out)["problems"][0]["code"]) == (1, "CHECKPOINT_MISSING")


@pytest.mark.parametrize(
    "options",
    [
        ["--tiles", "nowhere"],
        ["--tiles", ".", "--database", "sqlite:///x.db"],
        ["--tiles", ".", "--witness", "x"],
        ["--tiles", ".", "--quorum", "1"],
        [],
    ],
)
def test_wrong_use_decides_nothing(log, tmp_path, capsys, options):
    assert call(capsys, "verify", "--key", log[3], *options)[0] == 2


def test_an_address_where_nobody_answers_decides_nothing(log, capsys):
    code, _, err = call(capsys, "verify", "--tiles", "http://127.0.0.1:1/", "--key", log[3])
    assert code == 2
    assert "PUBLISHED_LOG_UNUSABLE" in err


def test_a_witness_is_made_once(tmp_path, capsys):
    folder = tmp_path / "w"
    code, out, _ = call(capsys, "witness", "init", folder, "--name", "witness.example/w1", "--json")
    assert code == 0
    key = (folder / "witness.vkey").read_text().strip()
    assert json.loads(out)["witness"] == key
    assert WitnessKey.parse(key).name == "witness.example/w1"
    assert Cosigner.parse((folder / "witness.skey").read_text().strip()).key == WitnessKey.parse(key)
    assert stat.S_IMODE((folder / "witness.skey").stat().st_mode) == 0o600
    assert call(capsys, "witness", "init", folder, "--name", "witness.example/w1")[0] == 2
    assert call(capsys, "witness", "init", tmp_path / "x", "--name", "a b")[0] == 2


def test_a_witness_refuses_what_it_cannot_trust(log, tmp_path, capsys):
    folder = tmp_path / "w"
    assert call(capsys, "witness", "init", folder, "--name", "w")[0] == 0
    serve = ["witness", "serve", folder, "--log", log[3], "--listen", "127.0.0.1:0"]
    assert call(capsys, *serve[:3], "--log", "x")[0] == 2
    assert call(capsys, *serve[:-1], "nowhere")[0] == 2
    (folder / "witness.skey").chmod(0o644)
    code, _, err = call(capsys, *serve)
    assert code == 2
    assert "others can read it" in err
    (folder / "witness.skey").chmod(0o600)
    (folder / "seen.db").unlink()
    code, _, err = call(capsys, *serve)
    assert code == 2
    assert "WITNESS_STATE_UNUSABLE" in err


def test_only_a_published_log_is_served(tmp_path, capsys):
    assert call(capsys, "serve", tmp_path)[0] == 2
