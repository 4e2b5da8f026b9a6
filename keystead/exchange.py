"""One HTTP request with bounds: on the whole time, on the bytes of the answer, and without redirects.

For those who speak to servers that they do not trust to be quick, short or honest: witnesses, and whoever publishes
tiles. The time covers everything from the connection on, however slowly the other side drips.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import urlsplit

_GZIP: Final = 16 + zlib.MAX_WBITS


class ExchangeError(Exception):
    """No answer could be had: the address cannot be used or reached, or the answer is no HTTP, too long or too late."""

    code: ClassVar[str] = "NO_HTTP_ANSWER"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of whatever status.

    Attributes:
        status: the HTTP status code.
        content_type: as the server names it; empty where it does not.
        body: whole, and not compressed any more.
    """

    status: int
    content_type: str
    body: bytes


def exchange(url: str, *, body: bytes | None = None, seconds: float, limit: int) -> Reply:
    """GET `url`, or POST `body` to it.

    Args:
        url: ``http://…`` or ``https://…``; of the latter the certificate is verified.
        body: what to post; GET where None.
        seconds: how long all of it may take.
        limit: bytes of the answer's body.

    Raises:
        ExchangeError: there is no answer within these bounds.
    """
    connection, path = _connection(url, seconds)
    sockets: list[socket.socket] = []
    closer = threading.Timer(seconds, _shut, (connection, sockets))
    closer.daemon = True
    deadline = time.monotonic() + seconds
    try:
        closer.start()
        connection.connect()
        sockets.append(connection.sock)  # which the connection forgets where the answer ends with it
        connection.request("GET" if body is None else "POST", path, body, {"Accept-Encoding": "gzip, identity"})
        response = connection.getresponse()
        data = response.read(limit + 1)
        if time.monotonic() >= deadline:
            raise ExchangeError(f"{url}: no answer within {seconds:g} s")
        if len(data) > limit:
            raise ExchangeError(f"{url}: an answer of more than {limit} bytes")
        if response.length:  # http.client says nothing of it where a limit was given
            raise ExchangeError(f"{url}: the answer ended {response.length} bytes early")
        if response.getheader("Content-Encoding", "identity").lower() == "gzip":
            data = _unzip(data, limit, url)
        return Reply(response.status, response.getheader("Content-Type", ""), data)
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = time.monotonic() >= deadline or isinstance(error, TimeoutError)
        why = f"no answer within {seconds:g} s" if late else str(error) or type(error).__name__
        raise ExchangeError(f"{url}: {why}") from None
    finally:
        closer.cancel()
        connection.close()


def _connection(url: str, seconds: float) -> tuple[http.client.HTTPConnection, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ExchangeError(f"{url}: {error}") from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or parts.username:
        raise ExchangeError(f"{url}: not an address http://HOST[:PORT]/PATH or https://…")
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=seconds), parts.path or "/"
    context = ssl.create_default_context()
    return http.client.HTTPSConnection(host, port, timeout=seconds, context=context), parts.path or "/"


def _shut(connection: http.client.HTTPConnection, sockets: list[socket.socket]) -> None:
    """End whatever the other thread waits for: a read returns at once from a socket that was shut down."""
    for sock in (*sockets, connection.sock):
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _unzip(data: bytes, limit: int, url: str) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise ExchangeError(f"{url}: {error}") from None
    if len(plain) > limit or not unpacker.eof:
        raise ExchangeError(f"{url}: not one whole gzip stream of at most {limit} bytes")
    return plain
