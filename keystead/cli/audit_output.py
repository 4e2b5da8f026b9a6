"""Records of the log on a terminal: tables for people, JSON or JSON lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Final

import typer

from audit.query import Entry
from audit.records import Record
from keystead.cli import output
from keystead.cli.exits import UsageError
from keystead.cli.output import Json

LinesOption = Annotated[bool, typer.Option("--jsonl", help="Print one line of JSON for each record, as they come.")]
"""The ``--jsonl`` option of commands that may print many records."""

COLUMNS: Final = ("entry", "time", "kind", "actor", "assets", "job", "node", "site", "result")
"""Headings of a table of records."""

_ROWS: Final = 1_000
"""Rows of one table, so that a long answer is printed as it comes."""


def entry_json(entry: Entry) -> dict[str, Json]:
    """An entry for programs; its record is null where it was erased, or is sealed."""
    record = None if entry.sealed else entry.record()
    return {
        "index": entry.index,
        "entry_hash": entry.entry_hash.hex(),
        "record": None if record is None else record.to_json(),
        "sealed": entry.sealed,
    }


def row(entry: Entry, record: Record) -> tuple[object, ...]:
    """An entry for people, under `COLUMNS`."""
    why = ", ".join(record.reasons)
    return (
        entry.index,
        output.instant(record.time),
        record.kind.value,
        record.actor.name,
        ", ".join(record.assets),
        record.job,
        record.node,
        record.site,
        f"{record.result.value}: {why}" if why else record.result.value,
    )


def print_line(value: Json) -> None:
    """Print one line of JSON, at once: a program may read it through a pipe while more is to come."""
    sys.stdout.write(json.dumps(value, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def show_entries(entries: Iterable[Entry], *, as_json: bool, as_lines: bool, next_cursor: str = "") -> None:
    """Print entries in the way that was asked for.

    Args:
        entries: in the order of the log; tables and lines are printed as they come.
        as_json: as one JSON object, which takes all of them into memory.
        as_lines: as lines of JSON.
        next_cursor: where the next page begins; said where there is one.

    Raises:
        UsageError: both kinds of JSON were asked for.
    """
    if as_json and as_lines:
        raise UsageError("--json or --jsonl: one of them")
    if as_json:
        output.print_json({"entries": [entry_json(entry) for entry in entries], "next_cursor": next_cursor})
        return
    if as_lines:
        for entry in entries:
            print_line(entry_json(entry))
    else:
        print_rows(COLUMNS, _rows(entries), empty="no record fits")
    if next_cursor:
        output.console(stderr=as_lines).print(f"There is more: add --cursor {next_cursor}")


def print_rows(columns: tuple[str, ...], rows: Iterable[tuple[object, ...]], *, empty: str) -> None:
    """Print a table, or several where it is long, so that no answer has to fit into memory."""
    waiting = iter(rows)
    some = list(islice(waiting, _ROWS))
    output.print_table(columns, some, empty=empty)
    while some := list(islice(waiting, _ROWS)):
        output.print_table(columns, some)


def _rows(entries: Iterable[Entry]) -> Iterator[tuple[object, ...]]:
    for entry in entries:
        if entry.sealed:
            yield (entry.index, None, "(sealed)", *(None for _ in COLUMNS[3:]))
            continue
        record = entry.record()
        if record is not None:
            yield row(entry, record)
