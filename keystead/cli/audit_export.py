"""``keystead audit export``: records for spreadsheets, for programs and for lineage tools, as a file that is whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from audit.export import CSV_COLUMNS, csv_row, openlineage_events
from audit.query import Entry, Filter, parse_asset
from audit.records import Record
from keystead.cli import output
from keystead.cli.audit import DatabaseOption, every_entry, open_source
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
    OPENLINEAGE = "openlineage"


@app.command(
    help=with_examples(
        "Write records into a file: for spreadsheets (csv), for programs (jsonl, which `audit lineage --records` "
        "reads, too), or as OpenLineage run events, one on a line.\n\n"
        "The file is there whole or not at all, and may be larger than memory. Erased records are left out of csv and "
        "openlineage; in jsonl they stand as null.",
        "audit export --format csv --out november.csv --since 2026-11-01 --until 2026-12-01 --profile auditor.toml",
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
    written = 0
    try:
        with open_source(database, broker) as source, atomic_file(out, mode=_MODE) as file:
            for line in _LINES[format_](every_entry(source, wanted), namespace):
                file.write(line)
                written += 1
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from None
    if format_ is Format.CSV:
        written -= 1  # its heading
    output.show({"written": str(out), "format": format_.value, "lines": written}, as_json=as_json)


def _csv(entries: Iterable[Entry], namespace: str) -> Iterator[bytes]:
    del namespace
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\r\n")  # RFC 4180
    for row in _with_heading(entries):
        writer.writerow(row)
        yield line.getvalue().encode("ascii")
        line.seek(0)
        line.truncate()


def _with_heading(entries: Iterable[Entry]) -> Iterator[tuple[str, ...]]:
    yield CSV_COLUMNS
    for entry, record in _kept(entries):
        yield csv_row(entry, record)


def _jsonl(entries: Iterable[Entry], namespace: str) -> Iterator[bytes]:
    del namespace
    for entry in entries:
        yield _line(entry_json(entry))


def _openlineage(entries: Iterable[Entry], namespace: str) -> Iterator[bytes]:
    for event in openlineage_events(_kept(entries), namespace=namespace):
        yield _line(event)


_LINES: Final = {Format.CSV: _csv, Format.JSONL: _jsonl, Format.OPENLINEAGE: _openlineage}


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def _kept(entries: Iterable[Entry]) -> Iterator[tuple[Entry, Record]]:
    for entry in entries:
        record = entry.record()
        if record is not None:
            yield entry, record
