"""Exports: whole files, cells that are no formulas, what is left out is counted."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from audit.errors import ExportError
from audit.export import CSV_COLUMNS, MAX_INSTANT, csv_row
from audit.log import append_many, erase
from audit.query import Entry
from audit.records import MAX_INTEGER, Actor, Kind, Record
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ENTRY
from keystead.cli.main import run

NOW = 1_800_000_000
Build = Callable[..., Record]
Keystead = Callable[..., tuple[int, str, str]]


@pytest.fixture
def keystead(capsys: pytest.CaptureFixture[str]) -> Keystead:
    def invoke(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in ("audit", "export", *arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


@pytest.fixture
def log(engine: Engine, make_log: Callable[..., Sequencer], record: Build) -> Engine:
    sequencer = make_log(engine)
    formula = Actor(role="owner", name="=cmd|'/C")
    with engine.begin() as connection:
        append_many(
            connection,
            [
                record(0, detail={"expires_at": NOW + 60, "user": "ada"}),
                record(1, actor=formula, kind=Kind.ASSET_REGISTERED, job=None, lease=None),
                record(2),
                record(3, tenant="umbrella"),
            ],
        )
    sequencer.run_once(NOW)
    with engine.begin() as connection:
        erase(connection, indexes=[2], actor=formula, time=NOW)
    sequencer.run_once(NOW)
    return engine


def test_csv(log: Engine, database_path: Path, tmp_path: Path, keystead: Keystead) -> None:
    out = tmp_path / "records.csv"
    out.write_text("what was there before")
    arguments = ("--database", f"sqlite:///{database_path}", "--out", out, "--json")
    code, said, _ = keystead("--format", "csv", *arguments)
    assert (code, json.loads(said)["lines"]) == (0, 4)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["entry"] for row in rows] == ["0", "1", "3", "4"]
    assert rows[0] | {"hardware": "", "entry_hash": ""} == dict.fromkeys(CSV_COLUMNS, "") | {
        "entry": "0",
        "time": "2027-01-15T08:00:00Z",
        "kind": "lease.granted",
        "result": "allowed",
        "actor_role": "node",
        "actor_name": "node-0",
        "tenant": "acme",
        "job": "job-0",
        "user": "ada",
        "node": "node-0",
        "site": "hall-1",
        "jurisdiction": "DE",
        "assets": "acme/corpus@1 acme/llm@1",
        "lease": "lease-0",
        "expires_at": "2027-01-15T08:01:00Z",
        "policy_digest": "11" * 32,
        "input_digest": "22" * 32,
    }
    assert rows[1]["actor_name"] == "'=cmd|'/C"
    assert out.stat().st_mode & 0o077 == 0
    assert keystead("--format", "csv", "--tenant", "umbrella", *arguments)[0] == 0
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize("first", ["=", "+", "-", "@"])
def test_no_cell_is_a_formula(record: Build, first: str) -> None:
    entry = Entry(0, bytes(32), None)
    row = csv_row(entry, record(0, actor=Actor(role="owner", name=f"{first}SUM(A1)")))
    assert row[CSV_COLUMNS.index("actor_name")] == f"'{first}SUM(A1)"
    assert len(row) == len(CSV_COLUMNS)


def test_jsonl_says_what_was_erased(log: Engine, database_path: Path, tmp_path: Path, keystead: Keystead) -> None:
    out = tmp_path / "records.jsonl"
    assert keystead("--format", "jsonl", "--database", f"sqlite:///{database_path}", "--out", out)[0] == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[2]["record"] is None
    assert lines[0]["record"]["lease"] == "lease-0"


def test_a_file_is_there_whole_or_not_at_all(
    log: Engine, database_path: Path, tmp_path: Path, keystead: Keystead
) -> None:
    with log.begin() as connection:
        connection.execute(update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index == 3).values(payload=b"{}"))
    out = tmp_path / "folder" / "records.jsonl"
    arguments = ("--format", "jsonl", "--database", f"sqlite:///{database_path}", "--out", out)
    assert keystead(*arguments)[0] == 2  # no such folder
    out.parent.mkdir()
    code, _, error = keystead(*arguments)
    assert (code, "entry 3 was altered" in error) == (2, True)
    assert list(out.parent.iterdir()) == []


def test_an_instant_without_a_calendar_date_is_an_error(record: Build) -> None:
    entry = Entry(0, bytes(32), None)
    assert csv_row(entry, record(0, time=MAX_INSTANT))[2] == "9999-12-31T23:59:59Z"
    for bad in ({"time": MAX_INSTANT + 1}, {"detail": {"expires_at": MAX_INTEGER}}):
        with pytest.raises(ExportError, match="years 1 and 9999"):
            csv_row(entry, record(0, **bad))
    assert csv_row(entry, record(0, detail={"expires_at": True}))[CSV_COLUMNS.index("expires_at")] == ""


def test_what_was_left_out_is_counted(log: Engine, database_path: Path, tmp_path: Path, keystead: Keystead) -> None:
    out = tmp_path / "file"
    counts = {}
    for each in ("csv", "jsonl", "ocsf", "openlineage"):
        code, said, _ = keystead("--format", each, "--database", f"sqlite:///{database_path}", "--out", out, "--json")
        assert code == 0
        document = json.loads(said)
        assert (document["entries"], document["erased"]) == (5, 1)
        assert document["lines"] == len(out.read_text().splitlines()) - (each == "csv")
        counts[each] = document["lines"]
    assert counts == {"csv": 4, "jsonl": 5, "ocsf": 4, "openlineage": 2}
