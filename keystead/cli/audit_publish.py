"""``keystead audit publish``, ``serve`` and ``witness``: the log for strangers, and a witness for others' logs."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from audit.cosignature import Cosigner, WitnessKey, WitnessPolicy
from audit.errors import MalformedError, PublishedError
from audit.publish import publish
from audit.stores import CHECKPOINT_PATH, MAX_OBJECT, FileStore, ObjectStore, TileSource
from audit.witness import Witness, WitnessState
from keystead.cli import instants, output
from keystead.cli.audit_database import open_log
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import JsonOption
from keystead.exchange import ExchangeError, exchange

if TYPE_CHECKING:
    from sqlalchemy import Connection

witness_app = typer.Typer(no_args_is_help=True, help="A witness: cosigns checkpoints of logs that only ever grow.")

SIGNER_KEY: Final = "witness.skey"
VERIFIER_KEY: Final = "witness.vkey"
STATE: Final = "seen.db"

_HTTP_SECONDS: Final = 30.0
_MAX_KEY: Final = 4096

WitnessOption = Annotated[
    list[str] | None,
    typer.Option("--witness", metavar="VKEY", help="A witness's verifier key, or a file with it; repeat for each."),
]
QuorumOption = Annotated[
    int | None,
    typer.Option(
        "--quorum", min=0, metavar="K", help="So many of the witnesses must have cosigned; all where not given."
    ),
]


class HttpTiles:
    """A log published at an address; an `audit.stores.TileSource`."""

    __slots__ = ("_prefix",)

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/")

    def get(self, path: str) -> bytes | None:
        """The object at `path`; None where the server says that there is none.

        Raises:
            PublishedError: no answer could be had, or one that is neither.
        """
        try:
            reply = exchange(f"{self._prefix}/{path}", seconds=_HTTP_SECONDS, limit=MAX_OBJECT)
        except ExchangeError as error:
            raise PublishedError(str(error)) from None
        if reply.status == 200:
            return reply.body
        if reply.status in {404, 410}:
            return None
        raise PublishedError(f"{self._prefix}/{path}: the server answers {reply.status}")


def open_tiles(where: str) -> TileSource:
    """A published log: a folder, an address ``http://…`` or ``https://…``, or a bucket ``s3://…``.

    Raises:
        UsageError: no folder of this name.
        ConfigError: no bucket can have this name.
        PublishedError: what the environment says of the object store cannot be used.
    """
    if where.startswith(("http://", "https://")):
        return HttpTiles(where)
    if "://" in where:
        return _open_bucket(where)
    path = Path(where)
    if not path.is_dir():
        raise UsageError(f"{where}: no folder, and no address http://…, https://… or s3://…")
    return FileStore(path)


def _open_bucket(where: str) -> ObjectStore:
    from keybroker.bucket_address import BucketAddress
    from keybroker.bucket_store import BucketStore

    return BucketStore(BucketAddress.parse(where))


def read_witnesses(keys: list[str] | None, quorum: int | None) -> WitnessPolicy:
    """The witnesses that options name; a quorum of all of them where none is given.

    Raises:
        UsageError: not a witness's verifier key, one that stands twice, or a quorum of more than there are.
    """
    try:
        found = tuple(WitnessKey.parse(_key_text(text)) for text in keys or ())
        return WitnessPolicy(found, len(found) if quorum is None else quorum)
    except MalformedError as error:
        raise UsageError(f"--witness or --quorum: {error}") from None


def _key_text(text: str) -> str:
    path = Path(text)
    if "+" in text and not path.is_file():
        return text
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY).decode("utf-8").strip()
    except OSError as error:
        raise UsageError(f"{text}: neither a verifier key NAME+KEYID+BASE64 nor a file ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{text}: not a file with a verifier key") from None


PUBLISH_HELP: Final = with_examples(
    "Copy checkpoint, tiles and entry bundles of a log to a folder or a bucket, for any web server or CDN (C2SP "
    "tlog-tiles). Run it again to bring them up to date. A broker does so by itself with [log] publish in its "
    "configuration. For a bucket, the environment has AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for a "
    "store other than Amazon's, AWS_ENDPOINT_URL.",
    "audit publish ./public --database sqlite:///keystead.db --key log.vkey",
    "audit publish ./public --database sqlite:///keystead.db --key log.vkey --witness w1.vkey --quorum 1",
    "audit publish s3://transparency/keystead --database sqlite:///keystead.db --key log.vkey",
)


def publish_command(
    where: Annotated[
        str, typer.Argument(metavar="DIR|URL", help="Where to: a folder, made where it is not there, or s3://BUCKET/…")
    ],
    *,
    database: Annotated[str, typer.Option("--database", metavar="URL", help="The log's database.")],
    key: Annotated[str, typer.Option("--key", metavar="VKEY", help="The log's verifier key, or a file with it.")],
    witness: WitnessOption = None,
    quorum: QuorumOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a log."""
    from audit.note import NoteVerifier

    try:
        verifier = NoteVerifier.parse(_key_text(key))
    except MalformedError as error:
        raise UsageError(f"--key: {error}") from None

    def read() -> AbstractContextManager[Connection]:
        return open_log(database)

    store: ObjectStore = _open_bucket(where) if "://" in where else FileStore(Path(where))
    done = publish(read, store, verifier, witnesses=read_witnesses(witness, quorum))
    output.show(
        {
            "origin": done.checkpoint.origin,
            "entries": done.checkpoint.size,
            "published before": done.before,
            "tiles and bundles written": done.written,
        },
        as_json=as_json,
    )


SERVE_HELP: Final = with_examples(
    "Serve a published log over HTTP, read-only, for auditors, monitors and witnesses. Put a reverse proxy with TLS in "
    "front of it; any web server that serves the folder does as well.",
    "audit serve ./public --listen 127.0.0.1:8751",
)


def serve_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `keystead audit publish` filled.")],
    *,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:8751",
    as_json: JsonOption = False,
) -> None:
    """Serve a published log."""
    from keystead.cli.audit_http import run, tiles_app

    if not (directory / CHECKPOINT_PATH).is_file():
        raise UsageError(f"{directory}: no published log; `keystead audit publish` makes one")
    run(tiles_app(FileStore(directory)), listen, lambda host, port: _listening("log", host, port, as_json=as_json))


def _listening(what: str, host: str, port: int, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"serves": what, "host": host, "port": port})
    else:
        output.console().print(output.cell(f"Serving the {what} on http://{host}:{port}/. Ctrl-C ends it."))
    sys.stdout.flush()


@witness_app.command(
    help=with_examples(
        "Make a witness: a key, and the state in which it remembers what it cosigned. Keep the state as safe as the "
        "key: a witness that forgot must get a new key.",
        "audit witness init ./witness --name witness.example/w1",
    )
)
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    *,
    name: Annotated[str, typer.Option(metavar="NAME", help="The witness's name: an address without https://.")],
    as_json: JsonOption = False,
) -> None:
    """Make a witness."""
    try:
        cosigner = Cosigner.generate(name)
    except MalformedError as error:
        raise UsageError(f"--name: {error}") from None
    if directory.exists():
        raise UsageError(f"{directory} exists; nothing was changed. Name another folder")
    directory.mkdir(mode=0o700, parents=True)
    handle = os.open(directory / SIGNER_KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"{cosigner.skey()}\n")
    (directory / VERIFIER_KEY).write_text(f"{cosigner.key}\n", encoding="utf-8")
    WitnessState.create(directory / STATE)
    output.show({"witness": str(cosigner.key), "key": str(directory / VERIFIER_KEY)}, as_json=as_json)


@witness_app.command(
    help=with_examples(
        "Answer logs that ask for cosignatures (C2SP tlog-witness, POST /add-checkpoint). It cosigns a checkpoint only "
        "if it continues the one before. Put a reverse proxy with TLS in front of it.",
        "audit witness serve ./witness --log log.vkey --listen 127.0.0.1:8752",
    )
)
def serve(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="As `keystead audit witness init` made it.")],
    *,
    log: Annotated[
        list[str], typer.Option("--log", metavar="VKEY", help="A log's verifier key, or a file with it; repeat.")
    ],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:8752",
    as_json: JsonOption = False,
) -> None:
    """Run a witness."""
    from audit.note import NoteVerifier
    from keystead.cli.audit_http import run
    from keystead.cli.audit_http import witness_app as make_app

    signer = directory / SIGNER_KEY
    try:
        if signer.stat().st_mode & 0o077:
            raise UsageError(f"{signer}: others can read it; chmod 600 it, and think about whether they did")
        cosigner = Cosigner.parse(_key_text(str(signer)))
    except OSError as error:
        raise UsageError(f"{signer}: {error.strerror}") from None
    except MalformedError as error:
        raise UsageError(f"{signer}: {error}") from None
    try:
        logs = [NoteVerifier.parse(_key_text(text)) for text in log]
    except MalformedError as error:
        raise UsageError(f"--log: {error}") from None
    witness = Witness(cosigner, logs, WitnessState(directory / STATE))
    run(
        make_app(witness, instants.now),
        listen,
        lambda host, port: _listening("witness", host, port, as_json=as_json),
    )
