"""``keystead audit export``: records for spreadsheets, programs, data frames, SIEMs and lineage tools."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from audit.checkpoint import Checkpoint
from audit.export import CSV_COLUMNS, csv_row
from audit.note import SignedNote
from audit.ocsf import ocsf_event
from audit.openlineage import openlineage_events
from audit.parquet import require_pyarrow, write_parquet
from audit.query import Entry, Filter, parse_asset
from audit.records import Record
from keystead.cli import output
from keystead.cli.audit import DatabaseOption, LogSource, every_entry, open_source
from keystead.cli.audit_lineage import app
from keystead.cli.audit_output import entry_json
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.instants import parse_instant
from keystead.cli.output import JsonOption
from keystead.cli.profile import BrokerOptions, with_broker_options
from sealed.atomic import atomic_file

__all__ = ["app"]

_MODE: Final = 0o600


class Format(StrEnum):
    """What is written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    OCSF = "ocsf"
    OPENLINEAGE = "openlineage"


@app.command(
    help=with_examples(
        "Write records into a file: for spreadsheets (csv), for programs (jsonl, which `audit lineage --records` "
        "reads, too), for data frames and DuckDB (parquet, which needs keystead[export]), for a SIEM (ocsf, events of "
        "OCSF 1.8.0), or for lineage tools (openlineage); events stand one on a line. docs/exports.md has the columns "
        "and the mappings.\n\n"
        "The file is there whole or not at all, and may be larger than memory. Erased records are left out and "
        "counted; in jsonl they stand as null. The reading is recorded, and a tenant's auditor reads what concerns the "
        "tenant.",
        "audit export --format csv --out november.csv --since 2026-11-01 --until 2026-12-01 --profile auditor.toml",
        "audit export --format parquet --out all.parquet --database sqlite:///keystead.db",
        "audit export --format ocsf --out events.jsonl --since 2026-11-22 --profile auditor.toml",
        "audit export --format openlineage --out runs.jsonl --namespace factory-1 --database sqlite:///keystead.db",
    )
)
@with_broker_options
def export(
    broker: BrokerOptions,
    *,
    format_: Annotated[Format, typer.Option("--format", help="What to write.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to; what stands there is replaced.")],
    database: DatabaseOption = None,
    asset: Annotated[str | None, typer.Option(metavar="ASSET", help="TENANT/NAME or TENANT/NAME@VERSION.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="TENANT", help="Whose assets or job it was.")] = None,
    since: Annotated[str | None, typer.Option(metavar="INSTANT", help="From this instant or day (UTC) on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="INSTANT", help="Up to, not including, this one.")] = None,
    namespace: Annotated[
        str, typer.Option(metavar="NAME", help="The factory's name in OpenLineage events.")
    ] = "keystead",
    as_json: JsonOption = False,
) -> None:
    """Export records."""
    name, version = (None, None) if asset is None else parse_asset(asset)
    wanted = Filter(
        asset=name,
        version=version,
        tenant=tenant,
        start_time=None if since is None else parse_instant(since),
        end_time=None if until is None else parse_instant(until),
    )
    if format_ is Format.PARQUET:
        require_pyarrow()
    try:
        with open_source(database, broker) as source, atomic_file(out, mode=_MODE) as file:
            read = _Reading(every_entry(source, wanted))
            match format_:
                case Format.CSV:
                    written = _write_lines(file, _csv(read), headings=1)
                case Format.JSONL:
                    written = _write_lines(file, (_line(entry_json(entry)) for entry in read.all()))
                case Format.PARQUET:
                    written = write_parquet(file, read.kept(), metadata=lambda: _metadata(source, read))
                case Format.OCSF:
                    log = _newest(source)[0].origin
                    events = (ocsf_event(entry, record, log_name=log) for entry, record in read.kept())
                    written = _write_lines(file, map(_line, events))
                case Format.OPENLINEAGE:
                    written = _write_lines(file, map(_line, openlineage_events(read.kept(), namespace=namespace)))
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from None
    output.show(
        {
            "written": str(out),
            "format": format_.value,
            "lines": written,
            "entries": read.entries,
            "erased": read.erased,
        },
        as_json=as_json,
    )


@dataclass(slots=True)
class _Reading:
    """Entries as they pass, counted."""

    source: Iterator[Entry]
    entries: int = 0
    erased: int = 0

    def all(self) -> Iterator[Entry]:
        for entry in self.source:
            self.entries += 1
            self.erased += entry.erased
            yield entry

    def kept(self) -> Iterator[tuple[Entry, Record]]:
        """Those that are not erased."""
        for entry in self.all():
            record = entry.record()
            if record is not None:
                yield entry, record


def _newest(source: LogSource) -> tuple[Checkpoint, bytes]:
    """The newest checkpoint as the log shows it, unverified; who reads the file verifies it with the log's key."""
    note = source.checkpoint()
    return Checkpoint.parse_text(SignedNote.parse(note).text), note


def _metadata(source: LogSource, read: _Reading) -> dict[str, str]:
    # Asked for last, so that it covers every row: a log only grows. Witnesses may lag; then it is a little older.
    checkpoint, note = _newest(source)
    return {
        "keystead.origin": checkpoint.origin,
        "keystead.tree_size": str(checkpoint.size),
        "keystead.root_hash": checkpoint.root.hex(),
        "keystead.checkpoint": note.decode("utf-8"),
        "keystead.entries": str(read.entries),
        "keystead.erased": str(read.erased),
    }


def _write_lines(file: BinaryIO, lines: Iterable[bytes], *, headings: int = 0) -> int:
    written = -headings
    for line in lines:
        file.write(line)
        written += 1
    return written


def _csv(read: _Reading) -> Iterator[bytes]:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\r\n")  # RFC 4180
    for row in _with_heading(read):
        writer.writerow(row)
        yield line.getvalue().encode("ascii")
        line.seek(0)
        line.truncate()


def _with_heading(read: _Reading) -> Iterator[tuple[str, ...]]:
    yield CSV_COLUMNS
    for entry, record in read.kept():
        yield csv_row(entry, record)


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"
