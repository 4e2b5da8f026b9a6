"""Parquet: typed columns, row groups that bound memory, metadata that name the log; and DuckDB reads it."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from audit.checkpoint import open_checkpoint
from audit.errors import ExportError
from audit.export import CSV_COLUMNS, MAX_INSTANT, MIN_INSTANT
from audit.log import append_many, erase
from audit.note import NoteSigner
from audit.parquet import COLUMNS, ROW_GROUP, write_parquet
from audit.query import Entry
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from keystead.cli.main import run

pq = pytest.importorskip("pyarrow.parquet", reason="NO PARQUET: pyarrow is not installed: keystead[export]")

NOW = 1_800_000_000
EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "audit.sql"
Build = Callable[..., Record]


def write(pairs: Iterator[tuple[Entry, Record]] | list[tuple[Entry, Record]], **options: Any) -> tuple[int, io.BytesIO]:
    file = io.BytesIO()
    written = write_parquet(file, pairs, metadata=lambda: {"keystead.origin": "log.example/é"}, **options)
    file.seek(0)
    return written, file


def entry(index: int) -> Entry:
    return Entry(index, index.to_bytes(32, "big"), None)


def test_columns_are_typed(record: Build) -> None:
    full = record(
        0,
        hardware=["amd-chip-id:00", "nvidia-gpu:01"],
        detail={"expires_at": NOW + 60, "user": "=ada", "because": ["A", "B"], "opened": True},
    )
    bare = record(1, kind=Kind.AUDIT_READ, assets=[], node=None, site=None, job=None, tenant=None, time=MAX_INSTANT)
    denied = record(2, result=Result.DENIED, reasons=["LATE", "JURISDICTION_NOT_PERMITTED"], detail={"user": 7})
    written, file = write([(entry(0), full), (entry(1), bare), (entry(2), denied)])
    table = pq.read_table(file)
    rows = table.to_pylist()
    assert (written, table.column_names) == (3, list(COLUMNS))
    assert (*CSV_COLUMNS, "detail") == COLUMNS
    assert rows[0] | {"entry_hash": ""} == {
        "entry": 0,
        "entry_hash": "",
        "time": dt.datetime.fromtimestamp(NOW, dt.UTC),
        "kind": "lease.granted",
        "result": "allowed",
        "reasons": [],
        "actor_role": "node",
        "actor_name": "node-0",
        "actor_tenant": None,
        "tenant": "acme",
        "job": "job-0",
        "user": "=ada",  # no spreadsheet, no formula: what the record says, to the letter
        "node": "node-0",
        "hardware": ["amd-chip-id:00", "nvidia-gpu:01"],
        "site": "hall-1",
        "jurisdiction": "DE",
        "assets": ["acme/corpus@1", "acme/llm@1"],
        "lease": "lease-0",
        "expires_at": dt.datetime.fromtimestamp(NOW + 60, dt.UTC),
        "policy_digest": "11" * 32,
        "input_digest": "22" * 32,
        "detail": '{"because":["A","B"],"expires_at":1800000060,"opened":true,"user":"=ada"}',
    }
    assert rows[1]["time"] == dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    assert [rows[1][name] for name in ("assets", "node", "site", "job", "tenant", "expires_at")] == [[], *[None] * 5]
    assert (rows[2]["reasons"], rows[2]["user"]) == (["JURISDICTION_NOT_PERMITTED", "LATE"], None)
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["time"], types["expires_at"]) == ("timestamp[ms, tz=UTC]", "timestamp[ms, tz=UTC]")
    assert types["assets"] == types["hardware"] == types["reasons"] == "list<element: string not null>"
    assert not any(table.schema.field(name).nullable for name in ("entry", "time", "kind", "result", "assets"))
    assert pq.read_metadata(file).metadata[b"keystead.origin"] == "log.example/é".encode()


@pytest.mark.parametrize("time", [MIN_INSTANT - 1, MAX_INSTANT + 1])
def test_an_instant_that_is_no_timestamp_is_an_error(record: Build, time: int) -> None:
    with pytest.raises(ExportError, match="years 1 and 9999"):
        write([(entry(0), record(0, detail={"expires_at": time}))])


def test_rows_are_written_in_groups_and_not_kept(record: Build) -> None:
    assert write([])[0] == 0
    one = record(0)
    written, file = write(((entry(index), one) for index in range(25)), row_group=10)
    metadata = pq.read_metadata(file)
    assert written == 25
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [10, 10, 5]
    assert pq.read_table(file)["entry"].to_pylist() == list(range(25))


def test_memory_does_not_grow_with_the_log(record: Build, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    one = record(0)
    held = 0

    def watched(count: int) -> Iterator[tuple[Entry, Record]]:
        nonlocal held
        for index in range(count):
            held = max(held, arrow.total_allocated_bytes())  # Arrow's own memory, which Python does not see
            yield entry(index), one

    peaks = []
    for groups in (2, 12):
        held = 0
        tracemalloc.start()
        with (tmp_path / "out").open("wb") as file:
            write_parquet(file, watched(groups * 500), metadata=dict, row_group=500)
        peaks.append((tracemalloc.get_traced_memory()[1], held))
        tracemalloc.stop()
    few, many = peaks
    assert many[0] < few[0] * 1.5
    assert many[1] < few[1] * 1.5 + 65_536
    assert ROW_GROUP == 8_192


def test_without_pyarrow_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    arguments = ["audit", "export", "--format", "parquet", "--out", str(tmp_path / "x"), "--database", "sqlite:///none"]
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("AUDIT_EXPORT_IMPOSSIBLE: ")
    assert "pip install 'keystead[export]'" in error
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def log(engine: Engine, make_log: Callable[..., Sequencer], record: Build) -> Engine:
    """Five entries, of which one was erased."""
    sequencer = make_log(engine)
    auditor = Actor(role="auditor", name="auditor-1")
    with engine.begin() as connection:
        append_many(
            connection,
            [
                record(0, hardware=["x:1", "x:2"], detail={"user": "ada"}),
                record(1, result=Result.DENIED, kind=Kind.LEASE_REFUSED, reasons=["LATE"], lease=None),
                record(2),
                record(3, kind=Kind.AUDIT_READ, actor=auditor, assets=[], result=Result.RECORDED),
            ],
        )
    sequencer.run_once(NOW)
    with engine.begin() as connection:
        erase(connection, indexes=[2], actor=auditor, time=NOW)
    sequencer.run_once(NOW)
    return engine


@pytest.fixture
def exported(log: Engine, database_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "audit.parquet"
    code = run(
        [
            "audit",
            "export",
            "--format",
            "parquet",
            "--out",
            str(out),
            "--database",
            f"sqlite:///{database_path}",
            "--json",
        ]
    )
    said = json.loads(capsys.readouterr().out)
    assert (code, said["lines"], said["entries"], said["erased"]) == (0, 4, 5, 1)
    assert out.stat().st_mode & 0o077 == 0
    return out


def test_the_file_names_its_log(exported: Path, signer: NoteSigner) -> None:
    metadata = {key.decode(): value for key, value in pq.read_metadata(exported).metadata.items()}
    checkpoint = open_checkpoint(metadata["keystead.checkpoint"], signer.verifier)
    assert metadata["keystead.origin"].decode() == checkpoint.origin
    assert int(metadata["keystead.tree_size"]) == checkpoint.size == 5
    assert metadata["keystead.root_hash"].decode() == checkpoint.root.hex()
    assert (metadata["keystead.entries"], metadata["keystead.erased"]) == (b"5", b"1")
    assert pq.read_table(exported)["entry"].to_pylist() == [0, 1, 3, 4]


def test_the_questions_of_the_example(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb", reason="NO DUCKDB: the example's questions are not asked")
    monkeypatch.chdir(exported.parent)
    with duckdb.connect() as connection:
        questions = duckdb.extract_statements(EXAMPLE.read_text("utf-8"))
        # By way of Arrow: DuckDB's own rows would need pytz for instants.
        tables = [connection.sql(each).to_arrow_table() for each in questions]
    answers = [[tuple(row.values()) for row in table.to_pylist()] for table in tables]
    log, users, places, refusals, readings = answers
    assert [name for name, _ in log] == sorted(
        f"keystead.{name}" for name in ("checkpoint", "entries", "erased", "origin", "root_hash", "tree_size")
    )
    assert [row[:4] for row in users] == [("acme/corpus@1", "acme", "ada", 1), ("acme/llm@1", "acme", "ada", 1)]
    assert places == [("DE", "hall-1", 1, 2)]
    assert refusals == [("LATE", "11" * 32, 1)]
    assert [row[1:] for row in readings] == [("auditor-1", 1)]
