"""``keystead audit``: answers, exit codes and JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select, update

from audit.note import NoteSigner
from audit.receipt import Receipt
from audit.sequencer import Sequencer
from audit.tables import AUDIT_CHECKPOINT, AUDIT_ENTRY, METADATA
from keystead.cli.main import run

Keystead = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_log: Callable[..., Sequencer], signer: NoteSigner) -> Path:
    """A log of twelve entries, its key, and its checkpoints of 5 and 12 entries."""
    folder = tmp_path_factory.mktemp("audit-command")
    engine = create_engine(f"sqlite:///{folder / 'audit.db'}")
    METADATA.create_all(engine)
    make_log(engine, [5, 7])
    with engine.begin() as connection:
        for row in connection.execute(select(AUDIT_CHECKPOINT)):
            (folder / f"checkpoint-{row.tree_size}.txt").write_text(row.note)
        entry_hash = connection.scalar(select(AUDIT_ENTRY.c.leaf_hash).where(AUDIT_ENTRY.c.leaf_index == 3))
    engine.dispose()
    (folder / "log.vkey").write_text(f"{signer.verifier}\n")
    receipt = Receipt.issue(entry_hash=bytes(entry_hash), time=7, signer=signer)
    (folder / "receipt").write_bytes(receipt.to_bytes())
    return folder


@pytest.fixture
def keystead(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Keystead:
    monkeypatch.setenv("COLUMNS", "200")  # narrow tables fold words

    def invoke(*arguments: str | Path) -> tuple[int, str, str]:
        code = run([str(item) for item in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


@pytest.fixture
def database(folder: Path) -> str:
    return f"sqlite:///{folder / 'audit.db'}"


@pytest.fixture
def altered(folder: Path, tmp_path: Path) -> str:
    path = tmp_path / "altered.db"
    shutil.copyfile(folder / "audit.db", path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index == 7).values(payload=b"{}"))
    engine.dispose()
    return f"sqlite:///{path}"


def test_a_whole_database(keystead: Keystead, folder: Path, database: str, signer: NoteSigner) -> None:
    code, out, _ = keystead("audit", "verify", "--database", database, "--key", folder / "log.vkey")
    assert code == 0
    assert "verified" in out
    known = [item for size in (0, 5, 12) for item in ("--checkpoint", folder / f"checkpoint-{size}.txt")]
    code, out, _ = keystead("audit", "verify", "--database", database, "--key", signer.verifier, *known, "--json")
    value = json.loads(out)
    assert (code, value["verified"], value["entries"], value["problems"]) == (0, True, 12, [])


def test_fsck_says_what_verify_says(keystead: Keystead, folder: Path, database: str, altered: str) -> None:
    known = [item for size in (0, 5, 12) for item in ("--checkpoint", folder / f"checkpoint-{size}.txt")]
    for url, expected in ((database, 0), (altered, 1)):
        options = ("--database", url, "--key", folder / "log.vkey", *known)
        for form in ((), ("--json",)):
            checked, verified = keystead("audit", "fsck", *options, *form), keystead("audit", "verify", *options, *form)
            assert checked[:2] == verified[:2]
            assert checked[0] == expected
    assert keystead("audit", "fsck", "--key", folder / "log.vkey")[0] == 2
    assert keystead("audit", "fsck", "--database", database, "--key", folder / "none.vkey")[0] == 2


def test_an_altered_database(keystead: Keystead, folder: Path, altered: str) -> None:
    code, out, _ = keystead("audit", "verify", "--database", altered, "--key", folder / "log.vkey", "--json")
    value = json.loads(out)
    assert (code, value["verified"], value["first_bad_index"]) == (1, False, 7)
    assert [problem["code"] for problem in value["problems"]] == ["PAYLOAD_ALTERED"]
    code, out, _ = keystead("audit", "verify", "--database", altered, "--key", folder / "log.vkey")
    assert code == 1
    assert "PAYLOAD_ALTERED" in out
    assert "NOT verified: 1 problem" in out


def test_prove_and_verify(keystead: Keystead, folder: Path, database: str, tmp_path: Path) -> None:
    proof, old = tmp_path / "proof.json", folder / "checkpoint-5.txt"
    arguments = ("audit", "prove", "3", "--database", database, "--checkpoint", old, "--out", proof)
    assert keystead(*arguments)[0] == 0
    offline = ("audit", "verify", proof, "--key", folder / "log.vkey", "--checkpoint", old)
    code, out, _ = keystead(*offline, "--receipt", folder / "receipt", "--json")
    value = json.loads(out)
    assert (code, value["verified"], value["index"], value["continues"]) == (0, True, 3, 5)
    assert value["record"]["lease"] == "lease-3"
    code, out, _ = keystead(*offline)
    assert code == 0
    assert "entry 3 of 12" in out
    assert "verified" in out

    bundle = json.loads(proof.read_bytes())
    bundle["record"]["tenant"] = "evil"
    proof.write_text(json.dumps(bundle))
    code, out, _ = keystead(*offline)
    assert code == 1
    assert "PAYLOAD_ALTERED" in out
    assert "evil" not in out


def test_a_bundle_about_another_entry_than_the_receipt(
    keystead: Keystead, folder: Path, database: str, tmp_path: Path
) -> None:
    proof = tmp_path / "proof.json"
    assert keystead("audit", "prove", "4", "--database", database, "--out", proof)[0] == 0
    key = folder / "log.vkey"
    assert keystead("audit", "verify", proof, "--key", key)[0] == 0
    code, out, _ = keystead("audit", "verify", proof, "--key", key, "--receipt", folder / "receipt", "--json")
    assert (code, json.loads(out)["problems"][0]["code"]) == (1, "RECEIPT_UNRELATED")


def test_proofs_on_standard_output(keystead: Keystead, database: str) -> None:
    code, out, _ = keystead("audit", "prove", "3", "--database", database)
    assert (code, json.loads(out)["index"]) == (0, 3)
    code, out, _ = keystead("audit", "prove", "3", "--database", database, "--tlog-proof")
    assert code == 0
    assert out.startswith("c2sp.org/tlog-proof@v1\nindex 3\n")


def test_checkpoint(keystead: Keystead, folder: Path, database: str) -> None:
    newest = (folder / "checkpoint-12.txt").read_text()
    assert keystead("audit", "checkpoint", "--database", database)[:2] == (0, newest)
    assert json.loads(keystead("audit", "checkpoint", "--database", database, "--json")[1]) == {"checkpoint": newest}


def test_query(keystead: Keystead, database: str) -> None:
    filters = ("--asset", "acme/llm@2", "--node", "node-0", "--kind", "lease.granted", "--since", "2027-01-01")
    code, out, _ = keystead("audit", "query", "--database", database, *filters, "--json")
    value = json.loads(out)
    assert code == 0
    assert [entry["index"] for entry in value["entries"]] == [3, 9]
    assert value["next_cursor"] == ""
    code, out, _ = keystead("audit", "query", "--database", database, "--limit", "5")
    assert code == 0
    assert "lease.granted" in out
    cursor = out.rsplit("--cursor ", 1)[1].strip()
    code, out, _ = keystead("audit", "query", "--database", database, "--cursor", cursor, "--json")
    assert [entry["index"] for entry in json.loads(out)["entries"]] == list(range(5, 12))
    code, out, _ = keystead("audit", "query", "--database", database, "--tenant", "nobody")
    assert (code, "no record fits" in out) == (0, True)


def test_every_record_and_lines(keystead: Keystead, database: str) -> None:
    code, out, _ = keystead("audit", "query", "--database", database, "--all", "--jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, [line["index"] for line in lines]) == (0, list(range(12)))
    assert lines[3]["record"]["lease"] == "lease-3"
    code, out, err = keystead("audit", "query", "--database", database, "--limit", "5", "--jsonl")
    assert (code, len(out.splitlines())) == (0, 5)
    assert "--cursor 4." in err


def test_tail(keystead: Keystead, database: str) -> None:
    code, out, _ = keystead("audit", "tail", "-n", "2", "--database", database, "--jsonl")
    assert (code, [json.loads(line)["index"] for line in out.splitlines()]) == (0, [10, 11])
    code, out, _ = keystead("audit", "tail", "--node", "node-0", "-n", "1", "--database", database)
    assert (code, "job-4" in out) == (0, True)


def test_questions(keystead: Keystead, database: str) -> None:
    code, out, _ = keystead("audit", "who-used", "acme/llm@2", "--database", database, "--json")
    assert (code, [entry["index"] for entry in json.loads(out)["entries"]]) == (0, [1, 3, 5, 7, 9, 11])
    code, out, _ = keystead("audit", "who-used", "acme/llm", "--database", database)
    assert (code, "lease-11" in out) == (0, True)
    code, out, _ = keystead("audit", "where-opened", "acme/llm", "--database", database, "--json")
    places = {place["node"]: place for place in json.loads(out)["places"]}
    assert places.keys() == {"node-0", "node-1", "node-2"}
    assert (places["node-0"]["releases"], places["node-0"]["site"], places["node-0"]["jobs"]) == (4, "hall-1", 4)
    code, out, _ = keystead("audit", "where-opened", "acme/llm", "--database", database)
    assert (code, out.count("hall-1")) == (0, 3)
    code, out, _ = keystead("audit", "refused", "--policy", "11" * 32, "--database", database)
    assert (code, "no record fits" in out) == (0, True)
    code, out, _ = keystead("audit", "leases", "--at", "1800000003", "--database", database)
    assert (code, "no lease was alive" in out) == (0, True)  # these grants do not say until when
    for command in (("who-used", "acme/none"), ("where-opened", "acme/none")):
        code, out, _ = keystead("audit", *command, "--database", database)
        assert (code, "ever" in out) == (0, True)


@pytest.mark.parametrize("command", [("tail", "--follow", "--json"), ("query", "--json", "--jsonl")])
def test_documents_that_cannot_be(keystead: Keystead, database: str, command: tuple[str, ...]) -> None:
    code, out, _ = keystead("audit", *command, "--database", database)
    assert (code, json.loads(out)["error"]["code"]) == (2, "WRONG_USE")


WRONG: dict[str, tuple[Any, ...]] = {
    "neither file nor database": ("verify", "--key", "KEY"),
    "file and database": ("verify", "PROOF", "--database", "DB", "--key", "KEY"),
    "no key": ("verify", "--database", "DB"),
    "key that is none": ("verify", "--database", "DB", "--key", "a+b+c"),
    "key file that is not there": ("verify", "--database", "DB", "--key", "none.vkey"),
    "file that is not there": ("verify", "none.json", "--key", "KEY"),
    "bundle that is none": ("verify", "KEY", "--key", "KEY"),
    "checkpoint that is not there": ("verify", "--database", "DB", "--key", "KEY", "--checkpoint", "none.txt"),
    "receipt for a database": ("verify", "--database", "DB", "--key", "KEY", "--receipt", "RECEIPT"),
    "receipt that is none": ("verify", "PROOF", "--key", "KEY", "--receipt", "KEY"),
    "database that is not there": ("verify", "--database", "sqlite:///none.db", "--key", "KEY"),
    "database of another kind": ("query", "--database", "mysql://host/name"),
    "no database": ("query",),
    "asset that is none": ("query", "--database", "DB", "--asset", "a b"),
    "cursor that is none": ("query", "--database", "DB", "--cursor", "x"),
    "tail of a database that is to be followed": ("tail", "--follow", "--database", "DB"),
    "tail of nothing": ("tail", "-n", "0", "--database", "DB"),
    "all from a cursor on": ("query", "--all", "--cursor", "x", "--database", "DB"),
    "leases at no instant": ("leases", "--database", "DB"),
    "leases at an instant that is none": ("leases", "--at", "noon", "--database", "DB"),
    "use of an asset that is none": ("who-used", "a b", "--database", "DB"),
    "instant that is none": ("query", "--database", "DB", "--since", "yesterday"),
    "entry that is not there": ("prove", "99", "--database", "DB"),
    "older checkpoint that is none": ("prove", "3", "--database", "DB", "--checkpoint", "KEY"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_exit_code_2_with_one_clear_line(
    name: str, keystead: Keystead, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = f"sqlite:///{folder / 'audit.db'}"
    names = {"KEY": folder / "log.vkey", "DB": database, "RECEIPT": folder / "receipt", "PROOF": tmp_path / "p.json"}
    assert keystead("audit", "prove", "3", "--database", database, "--out", tmp_path / "p.json")[0] == 0
    code, _, err = keystead("audit", *(names.get(item, item) for item in WRONG[name]))
    assert code == 2
    assert err.strip()
    assert "Traceback" not in err
    assert "UNEXPECTED" not in err
    assert not (tmp_path / "none.db").exists()


def test_another_log_s_key(keystead: Keystead, database: str) -> None:
    other = NoteSigner.generate("log.example/keystead").verifier
    code, out, _ = keystead("audit", "verify", "--database", database, "--key", other, "--json")
    assert code == 1
    assert {problem["code"] for problem in json.loads(out)["problems"]} == {"CHECKPOINT_ALTERED", "CHECKPOINT_MISSING"}
