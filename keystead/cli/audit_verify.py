"""``keystead audit verify`` and ``fsck``: proofs, packages, databases and published logs, held to the log's key."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from audit.errors import MalformedError
from audit.note import NoteVerifier
from audit.query import newest_checkpoint
from keystead.cli import output
from keystead.cli.audit_database import DatabaseOption, open_log
from keystead.cli.audit_files import read_file, read_verifier
from keystead.cli.audit_publish import QuorumOption, WitnessOption, open_tiles, read_witnesses
from keystead.cli.exits import NO, UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption

if TYPE_CHECKING:
    from audit.cosignature import WitnessKey, WitnessPolicy
    from audit.problems import Problem
    from audit.proof import BundleResult
    from audit.receipt import Receipt
    from audit.verify import LogResult, Progress

VERIFY_HELP: Final = with_examples(
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
FSCK_HELP: Final = with_examples(
    "Check a whole database: rebuild the tree from its records and compare everything with everything that was "
    "signed. The first bad entry is named by its index. It is what `verify --database` does; memory stays the same "
    "however large the log is.",
    "audit fsck --database sqlite:///keystead.db --key log.vkey",
    "audit fsck --database postgresql://auditor@db/keystead --key log.vkey --checkpoint last-month.txt --json",
)


def _read_receipt(path: Path | None) -> Receipt | None:
    from audit.receipt import Receipt

    if path is None:
        return None
    try:
        return Receipt.parse(read_file(path, "--receipt"))
    except MalformedError as error:
        raise UsageError(f"--receipt {path}: {error}") from None


def verify_command(
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


def fsck_command(
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
