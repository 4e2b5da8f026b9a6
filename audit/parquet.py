"""Records as an Apache Parquet file, for DuckDB, Spark, pandas and whatever else reads columns.

Columns are typed: instants are UTC timestamps, assets, hardware and reasons are lists. A row group is written as soon
as it is full, so that memory does not grow with the log. The file's own key-value metadata (Apache Parquet Format, file
metadata, `key_value_metadata`) say which log the rows are of. Needs pyarrow, which is imported when a file is written.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, BinaryIO, Final, TypeAlias

from audit.errors import ExportError
from audit.export import check_instant, expiry, job_user
from audit.query import Entry
from audit.records import Record

ROW_GROUP: Final = 8_192
"""Rows that are held in memory at a time: some 20 MB where every record names the devices of an eight-GPU node."""

_Value: TypeAlias = Callable[[Entry, Record], object]

_TEXT: Final = "text"
_WORD: Final = "word"
"""A text that many rows share, which Arrow keeps once."""
_WORDS: Final = "words"
_NUMBER: Final = "number"
_INSTANT: Final = "instant"

_COLUMNS: Final[tuple[tuple[str, str, bool, _Value], ...]] = (
    ("entry", _NUMBER, False, lambda entry, _: entry.index),
    ("entry_hash", _TEXT, False, lambda entry, _: entry.entry_hash.hex()),
    ("time", _INSTANT, False, lambda _, record: check_instant(record.time)),
    ("kind", _WORD, False, lambda _, record: record.kind.value),
    ("result", _WORD, False, lambda _, record: record.result.value),
    ("reasons", _WORDS, False, lambda _, record: record.reasons),
    ("actor_role", _WORD, False, lambda _, record: record.actor.role),
    ("actor_name", _TEXT, False, lambda _, record: record.actor.name),
    ("actor_tenant", _WORD, True, lambda _, record: record.actor.tenant),
    ("tenant", _WORD, True, lambda _, record: record.tenant),
    ("job", _TEXT, True, lambda _, record: record.job),
    ("user", _TEXT, True, lambda _, record: job_user(record)),
    ("node", _TEXT, True, lambda _, record: record.node),
    ("hardware", _WORDS, False, lambda _, record: record.hardware),
    ("site", _WORD, True, lambda _, record: record.site),
    ("jurisdiction", _WORD, True, lambda _, record: record.jurisdiction),
    ("assets", _WORDS, False, lambda _, record: record.assets),
    ("lease", _TEXT, True, lambda _, record: record.lease),
    ("expires_at", _INSTANT, True, lambda _, record: expiry(record)),
    ("policy_digest", _WORD, True, lambda _, record: record.policy_digest),
    ("input_digest", _TEXT, True, lambda _, record: record.input_digest),
    ("detail", _TEXT, False, lambda _, record: _detail(record)),
)
"""Name, type, whether a row may have none, how it is read off an entry. Those of CSV, in its order, and `detail`."""

COLUMNS: Final = tuple(name for name, _, _, _ in _COLUMNS)


def require_pyarrow() -> None:
    """Say at once, before anything is asked of a log, where pyarrow is missing.

    Raises:
        ExportError: it is not installed.
    """
    _import("pyarrow")


def write_parquet(
    file: BinaryIO,
    entries: Iterable[tuple[Entry, Record]],
    *,
    metadata: Callable[[], Mapping[str, str]],
    row_group: int = ROW_GROUP,
) -> int:
    """Write entries as rows, and say how many.

    Args:
        file: is written from where it stands, and left open.
        entries: in the order of the log.
        metadata: key-value metadata of the file, asked for once all rows are written.
        row_group: rows of one row group.

    Raises:
        ExportError: pyarrow is not installed, or an instant cannot be said.
        OSError: the file cannot be written.
    """
    arrow, parquet = _import("pyarrow"), _import("pyarrow.parquet")
    schema = _schema(arrow)
    written = 0
    waiting: list[tuple[Entry, Record]] = []
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:

        def flush() -> None:
            columns = [
                arrow.array([value(entry, record) for entry, record in waiting], type=schema.field(name).type)
                for name, _, _, value in _COLUMNS
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema), row_group_size=row_group)
            waiting.clear()

        for pair in entries:
            waiting.append(pair)
            written += 1
            if len(waiting) == row_group:
                flush()
        if waiting:
            flush()
        writer.add_key_value_metadata(dict(metadata()))
    return written


def _schema(arrow: ModuleType) -> Any:
    types = {
        _TEXT: arrow.string(),
        _WORD: arrow.dictionary(arrow.int32(), arrow.string()),
        _WORDS: arrow.list_(arrow.field("element", arrow.string(), nullable=False)),
        _NUMBER: arrow.int64(),
        _INSTANT: arrow.timestamp("s", tz="UTC"),
    }
    return arrow.schema([arrow.field(name, types[kind], nullable=nullable) for name, kind, nullable, _ in _COLUMNS])


def _detail(record: Record) -> str:
    """What a record says besides, as JSON; its names are those of the kind."""
    return json.dumps(
        {name: list(value) if isinstance(value, tuple) else value for name, value in record.detail.items()},
        sort_keys=True,
        separators=(",", ":"),
    )


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ExportError(
            "parquet: needs pyarrow, which is not installed: pip install 'keystead[export]'; csv and jsonl need nothing"
        ) from None
