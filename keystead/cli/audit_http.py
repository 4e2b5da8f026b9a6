"""The log and a witness over HTTP: two small WSGI applications, and waitress to run them.

TLS and rate limits are for the reverse proxy or CDN in front of them.
"""

from __future__ import annotations

import gzip
import signal
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import waitress
from waitress.server import create_server

from audit.errors import AuditError, MalformedError
from audit.stores import BRIEFLY, CHECKPOINT_PATH, CHECKPOINT_TYPE, IMMUTABLE, TILE_TYPE, TileSource
from audit.tiles import TilePath
from audit.witness import MAX_REQUEST, Witness
from keystead.cli.exits import UsageError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

ADD_CHECKPOINT: Final = "/add-checkpoint"
_TEXT: Final = "text/plain; charset=utf-8"
_SECONDS: Final = 30
_THREADS: Final = 8


def tiles_app(source: TileSource) -> WSGIApplication:
    """A published log, read-only: ``/checkpoint``, tiles and entry bundles, and nothing else whatever."""

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _answer(start, HTTPStatus.METHOD_NOT_ALLOWED, b"read only\n", extra=[("Allow", "GET, HEAD")])
        path = environ.get("PATH_INFO", "").removeprefix("/")
        is_checkpoint = path == CHECKPOINT_PATH
        try:
            bundle = not is_checkpoint and TilePath.parse(path).level is None
            data = source.get(path)
        except MalformedError:
            data, bundle = None, False
        except AuditError as error:
            sys.stderr.write(f"{error.code}: {error}\n")
            return _answer(start, HTTPStatus.SERVICE_UNAVAILABLE, b"cannot be read now\n")
        if data is None:
            return _answer(start, HTTPStatus.NOT_FOUND, b"not here\n")
        extra = [("Cache-Control", BRIEFLY if is_checkpoint else IMMUTABLE)]
        if bundle:
            extra.append(("Vary", "Accept-Encoding"))
            if _takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
                data = gzip.compress(data, mtime=0)
                extra.append(("Content-Encoding", "gzip"))
        content_type = CHECKPOINT_TYPE if is_checkpoint else TILE_TYPE
        return _answer(start, HTTPStatus.OK, data, content_type=content_type, extra=extra)

    return app


def witness_app(witness: Witness, clock: Callable[[], int]) -> WSGIApplication:
    """A witness: ``POST /add-checkpoint`` (C2SP tlog-witness), and nothing else."""

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != ADD_CHECKPOINT:
            return _answer(start, HTTPStatus.NOT_FOUND, b"not here\n")
        if environ["REQUEST_METHOD"] != "POST":
            return _answer(start, HTTPStatus.METHOD_NOT_ALLOWED, b"POST only\n", extra=[("Allow", "POST")])
        length = environ.get("CONTENT_LENGTH", "")
        if not length.isdecimal():
            return _answer(start, HTTPStatus.LENGTH_REQUIRED, b"Content-Length?\n")
        body = environ["wsgi.input"].read(min(int(length), MAX_REQUEST + 1))
        try:
            answer = witness.add_checkpoint(body, clock())
        except AuditError as error:
            sys.stderr.write(f"{error.code}: {error}\n")
            return _answer(start, HTTPStatus.SERVICE_UNAVAILABLE, b"nothing can be cosigned now\n")
        return _answer(start, HTTPStatus(answer.status), answer.body, content_type=answer.content_type)

    return app


def _answer(
    start: StartResponse,
    status: HTTPStatus,
    body: bytes,
    *,
    content_type: str = _TEXT,
    extra: list[tuple[str, str]] | None = None,
) -> list[bytes]:
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), *(extra or ())]
    if not any(name == "Cache-Control" for name, _ in headers):
        headers.append(("Cache-Control", "no-store"))
    headers.append(("X-Content-Type-Options", "nosniff"))
    start(f"{status.value} {status.phrase}", headers)
    return [body]


def _takes_gzip(accepted: str) -> bool:
    for item in accepted.split(","):
        coding, _, weight = item.partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "").rstrip("0.") != "q="
    return False


def run(app: WSGIApplication, listen: str, ready: Callable[[str, int], None]) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Args:
        app: what answers.
        listen: HOST:PORT; port 0 takes a free one.
        ready: called with host and port once requests are taken.

    Raises:
        UsageError: `listen` is no address, or it cannot be listened on.
    """
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise UsageError(f"--listen {listen}: not HOST:PORT")
    try:
        server: waitress.server.BaseWSGIServer = create_server(
            app,
            host=host.strip("[]"),
            port=int(port),
            threads=_THREADS,
            ident=None,
            channel_timeout=_SECONDS,
            max_request_body_size=2 * MAX_REQUEST,
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"--listen {listen}: {error}") from None

    def stop(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    ready(host, server.effective_port)
    server.run()
