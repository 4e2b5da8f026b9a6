"""``keystead audit report``: an evidence package for people who have neither Keystead nor trust in its operator.

Also what ``keystead audit verify`` does with such a package.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from audit.note import SignedNote
from audit.package.description import Description
from audit.package.files import open_archive, open_package, read_whole, unpack
from audit.package.gaps import MEANING, Gap
from audit.package.manifest import DESCRIPTION, MANIFEST, Manifest, Scope
from audit.package.verify import PackageResult, verify_package
from keystead.binding import sha256
from keystead.cli import output
from keystead.cli.audit_export import app
from keystead.cli.audit_files import read_file
from keystead.cli.exits import NO, UsageError
from keystead.cli.help import with_examples
from keystead.cli.instants import parse_instant
from keystead.cli.output import Json, JsonOption
from keystead.cli.profile import BrokerOptions, with_broker_options
from sealed.atomic import atomic_file

if TYPE_CHECKING:
    from audit.cosignature import WitnessPolicy
    from audit.note import NoteVerifier

__all__ = ["app", "is_package", "show_verified"]

_MODE: Final = 0o600
_SECONDS: Final = 600.0
"""How long a broker may take to build a package."""

_ZIP: Final = b"PK"


@app.command(
    help=with_examples(
        "Write an evidence package: all records of a span with their proofs, a report for people, and how to verify "
        "them without Keystead, signed by the log's key. What it does not show it names as gaps.\n\n"
        "Through a broker (--profile), which records that you read; or, for whoever runs the broker, from its database "
        "with the key that signs for the log: name its configuration as --database. `keystead audit verify PACKAGE` "
        "checks it.",
        "audit report --from 2026-11-01 --to 2026-12-01 --out november.zip --profile auditor.toml",
        "audit report --asset acme/llm --out llm.zip --checkpoint last-month.txt --profile auditor.toml",
        "audit report --tenant acme --out acme-evidence --database factory/keystead.toml",
    )
)
@with_broker_options
def report(
    broker: BrokerOptions,
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.zip|DIR", help="Where to: an archive, or a folder that is made.")
    ],
    since: Annotated[str | None, typer.Option("--from", metavar="INSTANT", help="From this instant or day on.")] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="INSTANT", help="Up to, not including, this instant or day (UTC).")
    ] = None,
    asset: Annotated[str | None, typer.Option(metavar="TENANT/NAME", help="Only what concerns this asset.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="TENANT", help="Only what was this tenant's.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A checkpoint that you kept: prove that the log continues it, too."),
    ] = None,
    database: Annotated[
        Path | None,
        typer.Option(
            "--database",
            metavar="CONFIG",
            help="A broker's configuration, or its folder: read the database that it names, sign with its key.",
        ),
    ] = None,
    unwitnessed: Annotated[
        bool,
        typer.Option(
            "--unwitnessed", help="With --database: take a checkpoint that too few witnesses cosigned, and say so."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write an evidence package."""
    scope = Scope(
        asset=asset,
        tenant=tenant,
        start_time=None if since is None else parse_instant(since),
        end_time=None if until is None else parse_instant(until),
    )
    kept = None if checkpoint is None else read_file(checkpoint, "--checkpoint")
    if database is None and unwitnessed:
        raise UsageError("--unwitnessed needs --database: a broker shows nobody what its witnesses did not cosign")

    def write(file: BinaryIO) -> None:
        if database is None:
            _fetch(broker, file, scope, kept)
        else:
            _build(database, file, scope, kept, unwitnessed=unwitnessed)

    try:
        manifest, digest, gaps = _write(out, write)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from None
    summary: dict[str, Json] = {
        "written": str(out),
        "log": manifest.origin,
        "checkpoint": f"{manifest.tree_size} entries",
        "span": f"entries {manifest.first} to before {manifest.end}",
        "records": manifest.records,
        "manifest": digest,
    }
    if as_json:
        output.print_json(
            {
                "written": str(out),
                "origin": manifest.origin,
                "tree_size": manifest.tree_size,
                "first": manifest.first,
                "end": manifest.end,
                "records": manifest.records,
                "manifest_digest": digest,
                "gaps": _gaps_json(gaps),
            }
        )
        return
    output.show(summary, as_json=False)
    _print_gaps(gaps)


def _write(out: Path, write: Callable[[BinaryIO], None]) -> tuple[Manifest, str, tuple[Gap, ...]]:
    """Have a package written, as an archive or a folder that is there whole or not at all; what it says that it is."""
    if out.suffix != ".zip" and out.exists():
        raise UsageError(f"--out {out}: exists; name a folder that does not, or FILE.zip")
    with tempfile.TemporaryFile(dir=out.parent) as file:
        write(file)
        about = _about(file)
        if out.suffix == ".zip":
            file.seek(0)
            with atomic_file(out, mode=_MODE) as target:
                shutil.copyfileobj(file, target)
        else:
            unpack(file, out)
    return about


def _about(file: BinaryIO) -> tuple[Manifest, str, tuple[Gap, ...]]:
    """What a package says that it is; its signature is for whoever verifies it, with a key of their own."""
    with open_archive(file) as files:
        note = read_whole(files, MANIFEST)
        description = Description.parse(read_whole(files, DESCRIPTION))
        return Manifest.parse_text(SignedNote.parse(note).text), sha256(note).hex(), description.gaps


def _fetch(broker: BrokerOptions, file: BinaryIO, scope: Scope, kept: bytes | None) -> None:
    """Have a broker build and sign the package."""
    if not broker.given:
        raise UsageError(
            "which log? give --profile FILE for a broker's, or your own broker's configuration as --database"
        )
    from keystead.cli.connection import Connection, to_timestamp
    from keystead.v1 import audit_service_pb2 as pb

    try:
        old = "" if kept is None else kept.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("--checkpoint: not a signed checkpoint, which is text") from None
    request = pb.GetEvidencePackageRequest(
        asset=scope.asset or "",
        tenant=scope.tenant or "",
        start_time=None if scope.start_time is None else to_timestamp(scope.start_time),
        end_time=None if scope.end_time is None else to_timestamp(scope.end_time),
        old_checkpoint=old,
    )
    with Connection(broker.find_profile(), timeout=broker.timeout) as link:
        pieces = link.stream(link.audit.GetEvidencePackage, request, timeout=_SECONDS)
        file.writelines(piece.package for piece in pieces)


def _build(config: Path, file: BinaryIO, scope: Scope, kept: bytes | None, *, unwitnessed: bool) -> None:
    """Build it from the database that a broker's configuration names, and sign it with its key."""
    from audit.database import snapshot
    from audit.package.build import build_package
    from keybroker.broker import load_log_keyring, load_log_signer, witness_policy
    from keybroker.config import BrokerConfig

    settings = BrokerConfig.load(config)
    with (
        snapshot(settings.database_url, load_log_keyring(settings)) as connection,
        _progress("writing records") as progress,
    ):
        build_package(
            connection,
            file,
            scope=scope,
            signer=load_log_signer(settings),
            witnesses=witness_policy(settings),
            kept=kept,
            unwitnessed=unwitnessed,
            progress=None if progress is None else lambda done: progress(done, None),
        )


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A progress bar on a terminal, and none in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress

    with Progress(console=output.console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def is_package(path: Path) -> bool:
    """Whether a file that is to be verified is an evidence package, by its first bytes, or a folder."""
    if path.is_dir():
        return True
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def show_verified(
    path: Path, verifier: NoteVerifier, *, known: list[bytes], witnesses: WitnessPolicy, as_json: bool
) -> None:
    """Verify a package, print what is proven or what is wrong, and end with 1 where it is not verified.

    Raises:
        UsageError: more than one known checkpoint: a package proves consistency with one that the reader kept.
        MalformedError: it is no package, or cannot be read.
    """
    from keystead.cli.audit_verify import cosigned_json, print_problems, print_verdict

    if len(known) > 1:
        raise UsageError("--checkpoint: a package proves consistency with one older checkpoint; give one")
    with open_package(path) as files, _progress("verifying records") as progress:
        result = verify_package(
            files, verifier, known=known[0] if known else None, witnesses=witnesses, progress=progress
        )
    if as_json:
        output.print_json(_result_json(result) | {"cosigned": cosigned_json(result.cosigned)})
    else:
        _show(result, cosigned_json(result.cosigned))
        print_problems(result.problems)
        print_verdict(ok=result.ok, problems=len(result.problems) + result.more_problems)
    if not result.ok:
        raise typer.Exit(NO)


def _show(result: PackageResult, cosigned: Json) -> None:
    manifest, checkpoint = result.manifest, result.checkpoint
    if not result.ok or manifest is None or checkpoint is None:
        return
    scope = manifest.scope
    output.show(
        {
            "log": checkpoint.origin,
            "about": ", ".join(part for part in (scope.asset, scope.tenant and f"tenant {scope.tenant}") if part)
            or "the whole log",
            "from": "the beginning" if scope.start_time is None else output.instant(scope.start_time),
            "to": "the checkpoint" if scope.end_time is None else output.instant(scope.end_time),
            "signed": f"{checkpoint.size} entries, root {checkpoint.root.hex()}",
            "cosigned": cosigned,
            "continues": [f"{name} ({size} entries)" for name, size in result.continues.items()],
            "records": f"{result.records}, of which {result.unreadable} cannot be read",
            "kinds": result.kinds,
        },
        as_json=False,
    )
    _print_gaps(result.gaps)


def _result_json(result: PackageResult) -> dict[str, Json]:
    manifest, checkpoint = result.manifest, result.checkpoint
    proven = manifest if result.ok else None
    return {
        "verified": result.ok,
        "origin": None if checkpoint is None else checkpoint.origin,
        "tree_size": None if checkpoint is None else checkpoint.size,
        "root_hash": None if checkpoint is None else checkpoint.root.hex(),
        "scope": None
        if proven is None
        else {
            "asset": proven.scope.asset,
            "tenant": proven.scope.tenant,
            "from": proven.scope.start_time,
            "to": proven.scope.end_time,
            "first": proven.first,
            "end": proven.end,
        },
        "continues": result.continues,
        "records": result.records,
        "unreadable": result.unreadable,
        "kinds": result.kinds,
        "gaps": _gaps_json(result.gaps),
        "problems": [problem.to_json() for problem in result.problems],
        "more_problems": result.more_problems,
    }


def _gaps_json(gaps: tuple[Gap, ...]) -> list[Json]:
    return [{"meaning": MEANING[gap.code], **gap.to_json()} for gap in gaps]


def _print_gaps(gaps: tuple[Gap, ...]) -> None:
    output.print_table(
        ("gap", "how many", "first at", "what it means"),
        ((gap.code.value, gap.count, _first(gap), MEANING[gap.code]) for gap in gaps),
        empty="no gap is known",
    )


def _first(gap: Gap) -> str | None:
    first = gap.items[0]
    known = (None if first.number is None else str(first.number), first.note)
    return ": ".join(part for part in known if part) or None
