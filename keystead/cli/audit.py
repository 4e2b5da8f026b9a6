"""``keystead audit``: ask the log who used what, prove it, and verify proofs or a whole database offline.

Commands read from a `LogSource`: `DatabaseSource` is a log's database opened read-only, and
`keystead.cli.audit_source.BrokerSource` a running broker.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import typer

from audit.errors import MalformedError
from audit.note import NoteVerifier
from audit.query import DEFAULT_PAGE, MAX_PAGE, Entry, Filter, Page, newest_checkpoint, parse_asset, query
from audit.query import newest as newest_entries
from audit.records import Kind, Result
from keystead.cli import audit_erase, audit_publish, output
from keystead.cli.audit_database import SEALED_NOTE, DatabaseOption, open_log
from keystead.cli.audit_output import LinesOption, show_entries
from keystead.cli.audit_publish import QuorumOption, WitnessOption, open_tiles, read_witnesses
from keystead.cli.exits import NO, UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption
from keystead.cli.profile import BrokerOptions, with_broker_options

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from audit.cosignature import WitnessKey, WitnessPolicy
    from audit.problems import Problem
    from audit.proof import BundleResult
    from audit.receipt import Receipt
    from audit.verify import LogResult, Progress

__all__ = ["DatabaseOption", "app"]

app = typer.Typer(no_args_is_help=True, help="The log: who used what, where, under which policy; with proofs.")
app.command(name="publish", help=audit_publish.PUBLISH_HELP)(audit_publish.publish_command)
app.command(name="serve", help=audit_publish.SERVE_HELP)(audit_publish.serve_command)
app.command(name="erase", help=audit_erase.ERASE_HELP)(audit_erase.erase_command)
app.add_typer(audit_publish.witness_app, name="witness")

_MAX_FILE: Final = 2 << 20


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


def read_file(path: Path, option: str) -> bytes:
    """The bytes of a file that a user named.

    Raises:
        UsageError: it cannot be read, or is too large to be what it should be.
    """
    try:
        if path.stat().st_size > _MAX_FILE:
            raise UsageError(f"{option} {path}: larger than {_MAX_FILE} bytes; this is something else")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None


def read_verifier(text: str) -> NoteVerifier:
    """The log's verifier key: itself, or a file that holds it on one line.

    Raises:
        UsageError: it is neither.
    """
    path = Path(text)
    try:
        if "+" not in text or path.is_file():
            text = read_file(path, "--key").decode("utf-8").strip()
        return NoteVerifier.parse(text)
    except (MalformedError, UnicodeDecodeError) as error:
        raise UsageError(f"--key: not a verifier key NAME+KEYID+BASE64, and no file that holds one ({error})") from None


def _read_receipt(path: Path | None) -> Receipt | None:
    from audit.receipt import Receipt

    if path is None:
        return None
    try:
        return Receipt.parse(read_file(path, "--receipt"))
    except MalformedError as error:
        raise UsageError(f"--receipt {path}: {error}") from None


@app.command(
    help=with_examples(
        "Verify a proof bundle, an evidence package, a whole database, or a published log against the log's key. "
        "Nothing else is needed: no broker, and no network but for --tiles URL. Get the key from somebody else than "
        "whoever gave you the file.",
        "audit verify proof.json --key log.vkey",
        "audit verify november.zip --key log.vkey --witness w1.vkey",
        "audit verify --database sqlite:///keystead.db --key log.vkey --checkpoint last-month.txt",
        "audit verify --tiles https://log.example/ --key log.vkey --witness w1.vkey --witness w2.vkey --quorum 1",
        "audit verify proof.json --tiles ./public --key log.vkey",
        "audit verify --tiles s3://transparency/keystead --key log.vkey",
    )
)
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE|DIR]",
            help="A proof bundle of `keystead audit prove`, or an evidence package of `keystead audit report`.",
        ),
    ] = None,
    *,
    database: DatabaseOption = None,
    tiles: Annotated[
        str | None,
        typer.Option("--tiles", metavar="DIR|URL", help="A published log; with a FILE, its record is looked up there."),
    ] = None,
    key: Annotated[str, typer.Option("--key", metavar="VKEY", help="The log's verifier key, or a file with it.")],
    witness: WitnessOption = None,
    quorum: QuorumOption = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="A checkpoint that you kept: the log must be, or continue, what it said then. Repeat for a database.",
        ),
    ] = None,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", metavar="FILE", help="A receipt that the bundle must be about.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle, a database or a published log."""
    verifier = read_verifier(key)
    known = [read_file(path, "--checkpoint") for path in checkpoint or ()]
    witnesses = read_witnesses(witness, quorum)
    if tiles is not None:
        if database is not None:
            raise UsageError("verify what? give --tiles or --database, and not both")
        _verify_tiles(
            tiles,
            verifier,
            known=known,
            witnesses=witnesses,
            file=file,
            receipt=_read_receipt(receipt),
            as_json=as_json,
        )
        return
    if (file is None) == (database is None):
        raise UsageError("verify what? give a bundle's FILE, --database URL or --tiles DIR|URL")
    if file is not None and _is_package(file):
        from keystead.cli.audit_report import show_verified

        if receipt is not None:
            raise UsageError("--receipt belongs to a bundle: prove the entry first, then verify the bundle")
        show_verified(file, verifier, known=known, witnesses=witnesses, as_json=as_json)
    elif file is not None:
        _verify_bundle(file, verifier, known, witnesses, _read_receipt(receipt), as_json=as_json)
    elif database is not None:
        if receipt is not None:
            raise UsageError("--receipt belongs to a bundle: prove the entry first, then verify the bundle")
        _verify_database(database, verifier, known, witnesses, as_json=as_json)


def _is_package(file: Path) -> bool:
    from keystead.cli.audit_report import is_package

    try:
        return is_package(file)
    except OSError as error:
        raise UsageError(f"FILE {file}: {error.strerror}") from None


@app.command(
    help=with_examples(
        "Check a whole database: rebuild the tree from its records and compare everything with everything that was "
        "signed. The first bad entry is named by its index. It is what `verify --database` does; memory stays the same "
        "however large the log is.",
        "audit fsck --database sqlite:///keystead.db --key log.vkey",
        "audit fsck --database postgresql://auditor@db/keystead --key log.vkey --checkpoint last-month.txt --json",
    )
)
def fsck(
    *,
    database: Annotated[
        str,
        typer.Option(
            "--database",
            metavar="URL|CONFIG",
            help="sqlite:///PATH or postgresql://USER@HOST/NAME; or a broker's configuration file, whose keys open "
            "what is sealed. Only read.",
        ),
    ],
    key: Annotated[str, typer.Option("--key", metavar="VKEY", help="The log's verifier key, or a file with it.")],
    witness: WitnessOption = None,
    quorum: QuorumOption = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="A checkpoint that you kept: the log must be, or continue, what it said then. Repeat it for more.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a whole database."""
    known = [read_file(path, "--checkpoint") for path in checkpoint or ()]
    _verify_database(database, read_verifier(key), known, read_witnesses(witness, quorum), as_json=as_json)


def _verify_tiles(
    where: str,
    verifier: NoteVerifier,
    *,
    known: list[bytes],
    witnesses: WitnessPolicy,
    file: Path | None,
    receipt: Receipt | None,
    as_json: bool,
) -> None:
    from audit.proof import ProofBundle, verify_bundle
    from audit.verify_tiles import verify_tiles

    problems: tuple[Problem, ...] = ()
    leaves: dict[int, bytes] = {}
    if file is not None:
        bundle = ProofBundle.parse(read_file(file, "FILE"))
        problems = verify_bundle(bundle, verifier, receipt=receipt).problems
        leaves = {bundle.index: bundle.leaf}
        known = [*known, bundle.checkpoint]
    elif receipt is not None:
        raise UsageError("--receipt belongs to a bundle: give its FILE, too")
    with _progress() as progress:
        result = verify_tiles(
            open_tiles(where), verifier, known=known, witnesses=witnesses, leaves=leaves, progress=progress
        )
    problems += result.problems
    checkpoint = result.checkpoint
    if as_json:
        output.print_json(
            {
                "verified": not problems,
                "origin": None if checkpoint is None else checkpoint.origin,
                "tree_size": None if checkpoint is None else checkpoint.size,
                "root_hash": None if checkpoint is None else checkpoint.root.hex(),
                "cosigned": cosigned_json(result.cosigned),
                "entries": result.entries,
                "first_bad_index": result.first_bad_index,
                "problems": [problem.to_json() for problem in problems],
                "more_problems": result.more_problems,
            }
        )
    else:
        output.show(
            {
                "log": verifier.name,
                "signed": None if checkpoint is None else f"{checkpoint.size} entries, root {checkpoint.root.hex()}",
                "cosigned": cosigned_json(result.cosigned),
                "entries": result.entries,
                "first bad entry": result.first_bad_index,
            },
            as_json=False,
        )
        print_problems(problems)
        print_verdict(ok=not problems, problems=len(problems) + result.more_problems)
    if problems:
        raise typer.Exit(NO)


def cosigned_json(cosigned: dict[WitnessKey, int]) -> dict[str, Json]:
    """Who cosigned, and when, for programs and tables."""
    return {key.name: output.instant(time) for key, time in cosigned.items()}


def _verify_bundle(
    file: Path,
    verifier: NoteVerifier,
    known: list[bytes],
    witnesses: WitnessPolicy,
    receipt: Receipt | None,
    *,
    as_json: bool,
) -> None:
    from audit.proof import ProofBundle, verify_bundle

    if len(known) > 1:
        raise UsageError("--checkpoint: a bundle proves consistency with one older checkpoint; give one")
    bundle = ProofBundle.parse(read_file(file, "FILE"))
    result = verify_bundle(bundle, verifier, known=known[0] if known else None, receipt=receipt)
    if result.ok:  # what is wrong otherwise is shown below
        witnesses.require(bundle.checkpoint)
    if as_json:
        output.print_json(_bundle_json(bundle.index, result))
    else:
        if result.ok and result.checkpoint is not None:
            place = f"entry {bundle.index} of {result.checkpoint.size} in the log {result.checkpoint.origin}"
            summary: dict[str, Json] = {"proven": place, "entry hash": _hex(result.entry_hash)}
            if result.continues is not None:
                summary["continues"] = f"the checkpoint of {result.continues} entries"
            summary |= {"record": "erased"} if result.record is None else result.record.to_json()
            output.show(summary, as_json=False)
        print_problems(result.problems)
        print_verdict(ok=result.ok, problems=len(result.problems))
    if not result.ok:
        raise typer.Exit(NO)


def _verify_database(
    database: str, verifier: NoteVerifier, known: list[bytes], witnesses: WitnessPolicy, *, as_json: bool
) -> None:
    from audit.verify import verify_log

    with open_log(database) as connection, _progress() as progress:
        result = verify_log(connection, verifier, known=known, progress=progress)
        if result.ok:
            newest_checkpoint(connection, witnesses)
    if as_json:
        output.print_json(_log_json(result))
    else:
        checkpoint = result.checkpoint
        output.show(
            {
                "log": verifier.name,
                "signed": None if checkpoint is None else f"{checkpoint.size} entries, root {checkpoint.root.hex()}",
                "entries": result.entries,
                "waiting": result.waiting,
                "erased": len(result.erased),
                "sealed": result.sealed,
                "first bad entry": result.first_bad_index,
            },
            as_json=False,
        )
        print_problems(result.problems)
        print_verdict(ok=result.ok, problems=len(result.problems) + result.more_problems)
        if result.sealed:
            output.console(stderr=True).print(
                f"Note: what {result.sealed} sealed records say, what queries answer from them, and whether erasures "
                "are on record was not checked: that takes the log's keys (the broker's configuration as --database)"
            )
    if not result.ok:
        raise typer.Exit(NO)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A progress bar on a terminal, and none in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress as Bar

    with Bar(console=output.console(stderr=True), transient=True) as bar:
        task = bar.add_task("verifying entries", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()


def print_problems(problems: tuple[Problem, ...]) -> None:
    """A table of violated rules; nothing where there is none."""
    from rich.text import Text

    if not problems:
        return
    made = output.table("entry", "problem", "checked", "expected", "found", "how to mend it")
    for problem in problems:
        made.add_row(
            output.cell(problem.index),
            Text(problem.code.value, style="bold red", no_wrap=True),
            output.cell(problem.field),
            output.cell(output.shorten(problem.expected)),
            output.cell(output.shorten(problem.actual)),
            output.cell(problem.remedy),
        )
    output.console().print(made)


def print_verdict(*, ok: bool, problems: int) -> None:
    """The last line of a verification."""
    text = "verified" if ok else f"NOT verified: {problems} problem{'' if problems == 1 else 's'}"
    output.console().print(output.cell(text, style="bold green" if ok else "bold red"))


def _bundle_json(index: int, result: BundleResult) -> dict[str, Json]:
    checkpoint = result.checkpoint
    return {
        "verified": result.ok,
        "index": index,
        "entry_hash": _hex(result.entry_hash),
        "origin": None if checkpoint is None else checkpoint.origin,
        "tree_size": None if checkpoint is None else checkpoint.size,
        "root_hash": None if checkpoint is None else checkpoint.root.hex(),
        "continues": result.continues,
        "erased": result.erased,
        "record": None if result.record is None else result.record.to_json(),
        "problems": [problem.to_json() for problem in result.problems],
    }


def _log_json(result: LogResult) -> dict[str, Json]:
    checkpoint = result.checkpoint
    return {
        "verified": result.ok,
        "origin": None if checkpoint is None else checkpoint.origin,
        "tree_size": None if checkpoint is None else checkpoint.size,
        "root_hash": None if checkpoint is None else checkpoint.root.hex(),
        "entries": result.entries,
        "waiting": result.waiting,
        "erased": list(result.erased),
        "sealed": result.sealed,
        "first_bad_index": result.first_bad_index,
        "problems": [problem.to_json() for problem in result.problems],
        "more_problems": result.more_problems,
    }
