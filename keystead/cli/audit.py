"""``keystead audit``: ask the log who used what, and prove it.

Commands read from a `LogSource`: `DatabaseSource` is a log's database opened read-only, and
`keystead.cli.audit_source.BrokerSource` a running broker.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from audit.query import DEFAULT_PAGE, MAX_PAGE, Entry, Filter, Page, newest_checkpoint, parse_asset, query
from audit.query import newest as newest_entries
from audit.records import Kind, Result
from keystead.cli import audit_erase, audit_publish, audit_verify, output
from keystead.cli.audit_database import SEALED_NOTE, DatabaseOption, open_log
from keystead.cli.audit_files import read_file
from keystead.cli.audit_output import LinesOption, show_entries
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import JsonOption
from keystead.cli.profile import BrokerOptions, with_broker_options

if TYPE_CHECKING:
    from sqlalchemy import Connection


__all__ = ["DatabaseOption", "app"]

app = typer.Typer(no_args_is_help=True, help="The log: who used what, where, under which policy; with proofs.")
app.command(name="publish", help=audit_publish.PUBLISH_HELP)(audit_publish.publish_command)
app.command(name="serve", help=audit_publish.SERVE_HELP)(audit_publish.serve_command)
app.command(name="verify", help=audit_verify.VERIFY_HELP)(audit_verify.verify_command)
app.command(name="fsck", help=audit_verify.FSCK_HELP)(audit_verify.fsck_command)
app.command(name="erase", help=audit_erase.ERASE_HELP)(audit_erase.erase_command)
app.add_typer(audit_publish.witness_app, name="witness")


class LogSource(Protocol):
    """Where a log is read from."""

    def query(self, wanted: Filter, *, limit: int, cursor: str) -> Page:
        """One page of the entries that `wanted` describes."""
        ...

    def stream(self, wanted: Filter, *, newest: int, follow: bool) -> Iterator[Page]:
        """All entries that `wanted` describes, or the `newest` of them where not 0, some at a time.

        With `follow` it goes on with each new one as it comes.
        """
        ...

    def prove(self, index: int, older: bytes | None) -> bytes:
        """The proof bundle of an entry, in JSON; from the checkpoint `older` on where one is given."""
        ...

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint."""
        ...


@dataclass(slots=True)
class DatabaseSource:
    """A log read from its database.

    Attributes:
        connection: sees one snapshot, read-only (`audit.database.snapshot`).
        sealed: how many entries were met whose records there are no keys to.
    """

    connection: Connection
    sealed: int = 0

    def query(self, wanted: Filter, *, limit: int, cursor: str) -> Page:
        """One page of the entries that `wanted` describes."""
        return self._counted(query(self.connection, wanted, limit=limit, cursor=cursor))

    def _counted(self, page: Page) -> Page:
        self.sealed += sum(entry.sealed for entry in page.entries)
        return page

    def stream(self, wanted: Filter, *, newest: int, follow: bool) -> Iterator[Page]:
        """All entries that `wanted` describes, or the `newest` of them where not 0, some at a time.

        Raises:
            UsageError: asked to follow: a database is seen as it was at one instant.
        """
        if follow:
            raise UsageError("--follow needs a broker, by --profile: a database is read as it was at one instant")
        if newest:
            yield self._counted(newest_entries(self.connection, wanted, limit=newest))
            return
        cursor = ""
        while True:
            page = self.query(wanted, limit=MAX_PAGE, cursor=cursor)
            yield page
            cursor = page.next_cursor
            if not cursor:
                return

    def prove(self, index: int, older: bytes | None) -> bytes:
        """The proof bundle of an entry, in JSON; from the checkpoint `older` on where one is given."""
        from audit.proof import build

        return build(self.connection, index, older=older).to_bytes()

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint."""
        return newest_checkpoint(self.connection)


@contextmanager
def open_source(database: str | None, broker: BrokerOptions) -> Iterator[LogSource]:
    """The log that the options name; a database wins over a broker that only the environment names.

    Raises:
        UsageError: they name none.
        DatabaseError: the database cannot be read, or holds no log.
        KeybrokerError: a configuration that it names, or its keys, cannot be used.
    """
    if database is not None:
        with open_log(database) as connection:
            source = DatabaseSource(connection)
            yield source
        if source.sealed:
            output.console(stderr=True).print(f"Note: {source.sealed} records are {SEALED_NOTE}")
    elif broker.given:
        from keystead.cli.audit_source import BrokerSource
        from keystead.cli.connection import Connection as BrokerConnection

        with BrokerConnection(broker.find_profile(), timeout=broker.timeout) as link:
            yield BrokerSource(link)
    else:
        raise UsageError("which log? give --profile FILE for a broker's, or --database URL")


@app.command(
    name="query",
    help=with_examples(
        "Find records. Every option narrows the answer; the order is the log's.",
        "audit query --asset acme/llm --result allowed --profile clients/auditor.toml",
        "audit query --database sqlite:///keystead.db --node n17 --since 2026-11-01 --until 2026-12-01 --json",
    ),
)
@with_broker_options
def query_command(
    broker: BrokerOptions,
    *,
    database: DatabaseOption = None,
    asset: Annotated[str | None, typer.Option(metavar="ASSET", help="TENANT/NAME or TENANT/NAME@VERSION.")] = None,
    job: Annotated[str | None, typer.Option(metavar="JOB", help="The scheduler's id of a job.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="TENANT", help="Whose assets or job it was.")] = None,
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="Who acted.")] = None,
    user: Annotated[str | None, typer.Option(metavar="USER", help="Whom the job ran for, as declared.")] = None,
    node: Annotated[str | None, typer.Option(metavar="NODE", help="An enrolled node.")] = None,
    hardware: Annotated[str | None, typer.Option(metavar="KIND:VALUE", help="A hardware identity.")] = None,
    site: Annotated[str | None, typer.Option(metavar="SITE", help="An enrolled site.")] = None,
    jurisdiction: Annotated[str | None, typer.Option(metavar="CODE", help="For example DE or US-CA.")] = None,
    policy: Annotated[str | None, typer.Option(metavar="DIGEST", help="The policy bundle that decided.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="What happened.", show_choices=False)] = None,
    result: Annotated[Result | None, typer.Option(help="How it ended.")] = None,
    reason: Annotated[str | None, typer.Option(metavar="CODE", help="Why it was denied or ended.")] = None,
    lease: Annotated[str | None, typer.Option(metavar="LEASE", help="A lease.")] = None,
    since: Annotated[str | None, typer.Option(metavar="INSTANT", help="From this instant or day (UTC) on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="INSTANT", help="Up to, not including, this one.")] = None,
    alive_at: Annotated[
        str | None,
        typer.Option(metavar="INSTANT", help="Leases alive then: the grant or renewal that each was alive by."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE, help="Records on one page.")] = DEFAULT_PAGE,
    cursor: Annotated[str, typer.Option(metavar="CURSOR", help="Where the last page ended.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every record that fits, not only a page.")] = False,
    as_json: JsonOption = False,
    as_lines: LinesOption = False,
) -> None:
    """Find records."""
    name, version = (None, None) if asset is None else parse_asset(asset)
    wanted = Filter(
        asset=name,
        version=version,
        job=job,
        tenant=tenant,
        actor=actor,
        node=node,
        hardware=hardware,
        site=site,
        jurisdiction=jurisdiction,
        policy_digest=policy,
        kind=kind,
        result=result,
        reason=reason,
        lease=lease,
        start_time=_instant(since),
        end_time=_instant(until),
        user=user,
        alive_at=_instant(alive_at),
    )
    if everything and cursor:
        raise UsageError("--all begins at the front: leave --cursor out, or --all")
    with open_source(database, broker) as source:
        if everything:
            show_entries(every_entry(source, wanted), as_json=as_json, as_lines=as_lines)
            return
        page = source.query(wanted, limit=limit, cursor=cursor)
    show_entries(page.entries, as_json=as_json, as_lines=as_lines, next_cursor=page.next_cursor)


def every_entry(source: LogSource, wanted: Filter) -> Iterator[Entry]:
    """Every entry that `wanted` describes, in the order of the log, never all in memory."""
    for page in source.stream(wanted, newest=0, follow=False):
        yield from page.entries


def _instant(text: str | None) -> int | None:
    from keystead.cli.instants import parse_instant

    return None if text is None else parse_instant(text)


@app.command(
    help=with_examples(
        "Write the proof of one entry: a file that anyone can verify offline with the log's key.",
        "audit prove 4711 --profile clients/auditor.toml --out proof.json",
        "audit prove 4711 --database sqlite:///keystead.db --checkpoint last-month.txt --out proof.json",
    )
)
@with_broker_options
def prove(
    broker: BrokerOptions,
    index: Annotated[int, typer.Argument(min=0, metavar="ENTRY", help="The entry's place, as `query` shows it.")],
    *,
    database: DatabaseOption = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A checkpoint that you kept: prove that the log continues it, too."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write here instead of to the terminal.")] = None,
    as_tlog_proof: Annotated[
        bool, typer.Option("--tlog-proof", help="Write C2SP tlog-proof text, for other transparency-log tools.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a proof bundle."""
    from audit.proof import ProofBundle

    older = None if checkpoint is None else read_file(checkpoint, "--checkpoint")
    with open_source(database, broker) as source:
        bundle = source.prove(index, older)
    data = ProofBundle.parse(bundle).to_tlog_proof().encode("utf-8") if as_tlog_proof else bundle + b"\n"
    if out is None:
        sys.stdout.write(data.decode("utf-8"))
        return
    out.write_bytes(data)
    output.show({"entry": index, "written": str(out)}, as_json=as_json)


@app.command(
    help=with_examples(
        "Show the newest signed checkpoint. Keep it: with it you can later tell whether the log was shortened or "
        "rewritten.",
        "audit checkpoint --profile clients/auditor.toml > today.txt",
    )
)
@with_broker_options
def checkpoint(broker: BrokerOptions, *, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Show the newest checkpoint."""
    with open_source(database, broker) as source:
        note = source.checkpoint().decode("utf-8")
    if as_json:
        output.print_json({"checkpoint": note})
    else:
        sys.stdout.write(note)
