"""``keystead audit lineage``: from what, through which jobs, on which hardware, under which policy, to what."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from audit import lineage as tracing
from audit.errors import MalformedError
from audit.query import MAX_PAGE, Entry, Filter
from audit.records import Record
from keystead.cli import output
from keystead.cli.audit import DatabaseOption, LogSource, open_source
from keystead.cli.audit_questions import app
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import JsonOption
from keystead.cli.profile import BrokerOptions, with_broker_options

__all__ = ["app"]

MAX_LINES: Final = 1_000_000
"""Records of one file; more belong in a database."""

_MAX_LINE: Final = 1 << 20


class Format(StrEnum):
    """How a graph is shown."""

    TREE = "tree"
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


@app.command(
    help=with_examples(
        "Where an asset came from, or what became of it: versions, jobs, and where and under which policy each job "
        "was granted what it used. From the log's records alone.\n\n"
        "With --records nothing but a file is needed: the lines that `keystead audit query --all --jsonl` printed.",
        "audit lineage acme/tuned@2 --profile clients/auditor.toml",
        "audit lineage acme/corpus --down --format mermaid --database sqlite:///keystead.db",
        "audit lineage acme/tuned --proofs proofs/ --profile clients/auditor.toml",
        "audit lineage acme/tuned --records records.jsonl --format dot",
    )
)
@with_broker_options
def lineage(
    broker: BrokerOptions,
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="TENANT/NAME or TENANT/NAME@VERSION.")],
    *,
    database: DatabaseOption = None,
    records: Annotated[
        Path | None, typer.Option("--records", metavar="FILE", help="Lines that `audit query --jsonl` printed.")
    ] = None,
    up: Annotated[bool, typer.Option("--up", help="Where it came from; this is what is shown by itself.")] = False,
    down: Annotated[bool, typer.Option("--down", help="What became of it.")] = False,
    format_: Annotated[Format, typer.Option("--format", help="How to show it.")] = Format.TREE,
    proofs: Annotated[
        Path | None,
        typer.Option("--proofs", metavar="DIR", help="Write the proof of every entry it rests on into this directory."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show lineage from the log."""
    if up and down:
        raise UsageError("--up and --down: one of them at a time")
    if records is not None:
        if database is not None:
            raise UsageError("--records or --database: one of them")
        if proofs is not None:
            raise UsageError("--proofs needs the log itself: a file of records proves nothing by itself")
        found = tracing.trace(_Lines.read(records).find, asset, up=not down)
    else:
        with open_source(database, broker) as source:
            found = tracing.trace(_pages(source), asset, up=not down)
            if proofs is not None:
                _write_proofs(source, found, proofs)
    _show(found, Format.JSON if as_json else format_)


def _show(found: tracing.Lineage, format_: Format) -> None:
    match format_:
        case Format.JSON:
            output.print_json(found.to_json())
        case Format.MERMAID:
            sys.stdout.write(tracing.to_mermaid(found))
        case Format.DOT:
            sys.stdout.write(tracing.to_dot(found))
        case Format.TREE:
            console = output.console()
            for line in tracing.to_tree(found):
                console.print(output.cell(line), soft_wrap=True)
            if not found.edges:
                console.print("the log says nothing of where it came from" if found.up else "nothing came of it yet")
    if found.truncated or found.erased:
        erased = f"; {len(found.erased)} entries that it met are erased" if found.erased else ""
        cut = "there is more: begin at one of the versions above" if found.truncated else "it may be incomplete"
        output.console(stderr=True).print(f"Note: {cut}{erased}")


def _pages(source: LogSource) -> tracing.Find:
    def find(wanted: Filter) -> Iterator[Entry]:
        cursor = ""
        while True:
            page = source.query(wanted, limit=MAX_PAGE, cursor=cursor)
            yield from page.entries
            cursor = page.next_cursor
            if not cursor:
                return

    return find


def _write_proofs(source: LogSource, found: tracing.Lineage, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for index in found.entries():
            (directory / f"{index}.json").write_bytes(source.prove(index, None) + b"\n")
    except OSError as error:
        raise UsageError(f"--proofs {directory}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class _Lines:
    """Records from a file, by the assets and jobs that they name."""

    entries: tuple[tuple[Entry, Record], ...]
    by_name: dict[str, list[int]]

    @classmethod
    def read(cls, path: Path) -> _Lines:
        """Read lines of JSON as `keystead.cli.audit_output.entry_json` makes them.

        Raises:
            UsageError: the file cannot be read, is too long, or a line is not such an entry; it is named.
        """
        entries: list[tuple[Entry, Record]] = []
        names: dict[str, list[int]] = {}
        try:
            with path.open("rb") as file:
                for number, entry in enumerate(_parsed(file, path)):
                    if number >= MAX_LINES:
                        raise UsageError(f"--records {path}: more than {MAX_LINES} lines; use a database")
                    record = entry.record()
                    if record is None:
                        continue
                    for name in {*(ref.rpartition("@")[0] for ref in record.assets), f"job:{record.job}"}:
                        names.setdefault(name, []).append(len(entries))
                    entries.append((entry, record))
        except OSError as error:
            raise UsageError(f"--records {path}: {error.strerror}") from None
        return cls(tuple(entries), names)

    def find(self, wanted: Filter) -> Iterator[Entry]:
        """The entries that fit, as `audit.query.query` finds them: by asset, version, tenant, job and kind."""
        name = wanted.asset if wanted.asset is not None else f"job:{wanted.job}"
        for place in self.by_name.get(name, ()):
            entry, record = self.entries[place]
            ref = f"{wanted.asset}@{wanted.version}"
            if (
                (wanted.version is None or ref in record.assets)
                and wanted.tenant in (None, record.tenant)
                and wanted.job in (None, record.job)
                and wanted.kind in (None, record.kind)
            ):
                yield entry


def _parsed(lines: Any, path: Path) -> Iterable[Entry]:
    before = -1
    number = 0
    while line := lines.readline(_MAX_LINE + 1):
        number += 1
        try:
            value: Any = json.loads(line) if len(line) <= _MAX_LINE else None
            index, record = value["index"], value["record"]
            if type(index) is not int or index <= before:
                raise UsageError(f"--records {path}: line {number}: its entry does not stand behind the last one's")
            payload = (
                None
                if record is None
                else Record.parse(json.dumps(record, sort_keys=True, separators=(",", ":")).encode("utf-8")).payload()
            )
            yield Entry(index, bytes.fromhex(value["entry_hash"]), payload)
        except (ValueError, KeyError, TypeError, RecursionError, MalformedError) as error:
            raise UsageError(
                f"--records {path}: line {number}: not an entry as `keystead audit query --jsonl` prints it ({error})"
            ) from None
        before = index
