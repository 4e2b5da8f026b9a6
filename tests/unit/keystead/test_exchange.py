"""One HTTP exchange: its bounds in time and bytes, and what is refused."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from keystead.exchange import ExchangeError, exchange


@pytest.fixture
def answering() -> Iterator[object]:
    """Makes a server that answers each request with the given pieces, a pause after each; its address."""
    listeners: list[socket.socket] = []

    def make(*pieces: bytes, pause: float = 0.0) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            try:
                while True:
                    taken, _ = listener.accept()
                    with taken:
                        taken.recv(65536)
                        for piece in pieces:
                            taken.sendall(piece)
                            time.sleep(pause)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield make
    for listener in listeners:
        listener.close()


def test_an_answer_is_read_whatever_its_status(answering):
    url = answering(b"HTTP/1.1 409 Conflict\r\nContent-Type: text/x.tlog.size\r\nContent-Length: 3\r\n\r\n12\n")
    for body in (None, b"old 0\n"):
        reply = exchange(url, body=body, seconds=5, limit=100)
        assert (reply.status, reply.content_type, reply.body) == (409, "text/x.tlog.size", b"12\n")


def test_gzip_is_unpacked_within_the_limit(answering):
    data = gzip.compress(b"x" * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    url = answering(head % len(data) + data)
    assert exchange(url, seconds=5, limit=1000).body == b"x" * 1000
    with pytest.raises(ExchangeError, match="gzip"):
        exchange(url, seconds=5, limit=999)
    with pytest.raises(ExchangeError, match="gzip"):
        exchange(answering(head % (len(data) - 5) + data[:-5]), seconds=5, limit=1000)
    with pytest.raises(ExchangeError):
        exchange(answering(head % 3 + b"abc"), seconds=5, limit=1000)


def test_too_long_an_answer_is_refused(answering):
    with pytest.raises(ExchangeError, match="more than 10 bytes"):
        exchange(answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11), seconds=5, limit=10)


@pytest.mark.parametrize(
    "pieces",
    [
        [b""] * 50,
        [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 50],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", *[b"x"] * 50],
        [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 50],  # its end is the connection's
    ],
)
def test_dripping_does_not_stretch_the_time(answering, pieces):
    url = answering(*pieces, pause=0.1)
    started = time.monotonic()
    with pytest.raises(ExchangeError, match=r"no answer within 0\.5 s"):
        exchange(url, seconds=0.5, limit=100)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
def test_what_is_no_http_is_refused(answering, answer):
    with pytest.raises(ExchangeError):
        exchange(answering(answer), seconds=5, limit=100)


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "file:///etc/passwd", "http://", "http://user@x/", "http://x/?q", "http://[", "http://x:99999/", "x"],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(ExchangeError):
        exchange(url, seconds=1, limit=1)


def test_a_port_where_nobody_listens_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ExchangeError, match="refused"):
        exchange(f"http://127.0.0.1:{port}/", seconds=1, limit=1)
