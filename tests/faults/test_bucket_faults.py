"""A log published in a bucket while publishers are killed, answers are lost, stores die and others publish, too."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from growing_log import GrowingLog
from s3_server import Bucket

import audit
from audit.checkpoint import open_checkpoint
from audit.errors import PublishedError
from audit.problems import ProblemCode
from audit.publish import ATTEMPTS, publish
from audit.stores import CHECKPOINT_PATH
from audit.verify_tiles import verify_tiles
from keybroker.bucket_address import BucketAddress
from keybroker.bucket_store import PROBE_PATH, BucketStore

PROGRAM = Path(__file__).with_name("publish_to_bucket.py")
pytestmark = pytest.mark.s3


class Wire:
    """Stands between a publisher and the server; `watch` sees each request's first line and says what becomes of it.

    "pass" it on; "lose" the answer to it; "drop" it unseen.
    """

    def __init__(self, port: int) -> None:
        self.watch: Callable[[str], str] = lambda _: "pass"
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            lost = threading.Event()
            for pump in (self._requests, self._answers):
                thread = threading.Thread(target=pump, args=(client, server, lost))
                self._threads.append(thread)
                thread.start()

    def _requests(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if data.startswith((b"PUT ", b"GET ", b"POST ", b"HEAD ")):
                    verdict = self.watch(data.partition(b"\r\n")[0].decode())
                    if verdict == "drop":
                        break
                    if verdict == "lose":
                        lost.set()
                server.sendall(data)
        hang_up(client, server)

    def _answers(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if lost.is_set():
                    break
                client.sendall(data)
        hang_up(client, server)

    def close(self) -> None:
        hang_up(self._listener, *self._open)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._open):
            sock.close()


def hang_up(*sockets: socket.socket) -> None:
    for sock in sockets:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """What is opened from here on goes through the wire."""
    wire = Wire(bucket.server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
    yield wire
    wire.close()


def open_store(bucket: Bucket, endpoint: str | None = None, seconds: float = 3) -> BucketStore:
    return BucketStore(BucketAddress.parse(bucket.url), endpoint=endpoint, seconds=seconds)


def published(bucket: Bucket, log: GrowingLog) -> int | None:
    """How many entries a stranger can verify; None where nothing was published."""
    result = verify_tiles(open_store(bucket, bucket.server.url), log.key)
    if result.checkpoint is None:
        assert [problem.code for problem in result.problems] == [ProblemCode.CHECKPOINT_MISSING]
        return None
    assert result.problems == ()
    return result.entries


@pytest.mark.slow
def test_a_publisher_killed_at_any_of_its_writes_leaves_a_whole_log(bucket, wire, growing_log):
    """In each round it is killed with one write more on its way; in the last it comes to its end."""
    growing_log.grow(200)
    sizes: list[int] = [-1]
    rounds = 0
    while True:
        rounds += 1
        growing_log.grow(100 if rounds % 3 == 0 else 1)
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), growing_log.url, bucket.url, str(growing_log.key)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(audit.__file__).parents[1],
        )
        writes = 0

        def watch(line: str, process: subprocess.Popen[bytes] = process, mortal: int = rounds) -> str:
            nonlocal writes
            if line.startswith("PUT ") and PROBE_PATH not in line:
                writes += 1
                if writes == mortal:
                    process.kill()
                    process.wait()
            return "pass"

        wire.watch = watch
        assert process.stdout.readline() == b"ready\n"
        out, _ = process.communicate(b"\n")
        size = published(bucket, growing_log)
        sizes.append(-1 if size is None else size)
        if writes < rounds:
            break
        assert out == b""
    assert process.returncode == 0
    assert rounds >= 5
    assert sizes == sorted(sizes)
    assert sizes[-1] == 200 + rounds + 99 * (rounds // 3)


@pytest.mark.parametrize("path", ["checkpoint", "tile/", PROBE_PATH])
def test_a_lost_answer_changes_nothing(bucket, wire, growing_log, path):
    """The store did what it was asked; the publisher cannot know, asks again, and finds its own object."""
    losses = []

    def watch(line: str) -> str:
        if line.startswith("PUT ") and path in line and len(losses) < 2:
            losses.append(line)
            return "lose"
        return "pass"

    growing_log.grow(300)
    wire.watch = watch
    done = publish(growing_log.read, open_store(bucket), growing_log.key)
    assert len(losses) == 2
    assert done.checkpoint.size == published(bucket, growing_log) == 300
    losses.clear()
    growing_log.grow(300)
    publish(growing_log.read, open_store(bucket), growing_log.key)
    assert published(bucket, growing_log) == 600


def test_a_store_that_dies_in_the_middle_of_a_batch(bucket, wire, growing_log):
    growing_log.grow(200)
    store = open_store(bucket)
    publish(growing_log.read, store, growing_log.key)
    growing_log.grow(3000)
    writes = 0

    def watch(line: str) -> str:
        nonlocal writes
        writes += line.startswith("PUT ")
        if writes == 7:
            bucket.server.kill()
        return "pass"

    wire.watch = watch
    started = time.monotonic()
    with pytest.raises(PublishedError, match="no answer in time"):
        publish(growing_log.read, store, growing_log.key)
    assert time.monotonic() - started < 30
    bucket.server.start()
    wire.watch = lambda _: "pass"
    assert published(bucket, growing_log) == 200
    assert publish(growing_log.read, store, growing_log.key).checkpoint.size == 3200
    assert published(bucket, growing_log) == 3200


class Overtaken(BucketStore):
    """Lets others do something just before it puts the checkpoint."""

    def __init__(self, bucket: Bucket, meanwhile: Callable[[], None]) -> None:
        super().__init__(BucketAddress.parse(bucket.url))
        self.meanwhile = meanwhile
        self.refused = 0

    def put_checkpoint(self, note: bytes, *, before: bytes | None) -> bool:
        self.meanwhile()
        done = super().put_checkpoint(note, before=before)
        self.refused += not done
        return done


def test_a_slow_publisher_does_not_put_an_older_checkpoint_over_a_newer_one(bucket, growing_log):
    """Not even one that holds the older one in its hand, and not where nothing was published before."""
    seen: list[int | None] = []

    def once() -> None:
        if len(seen) % 2 == 0:
            growing_log.grow(300)
            seen.append(publish(growing_log.read, open_store(bucket), growing_log.key).checkpoint.size)

    for size in (300, 900):
        slow = Overtaken(bucket, once)
        growing_log.grow(300 if seen else 0)
        done = publish(growing_log.read, slow, growing_log.key)
        assert slow.refused == 1
        assert done.checkpoint.size == seen[-1] == published(bucket, growing_log) == size
        seen.append(None)


def test_one_who_is_always_overtaken_gives_up_for_now(bucket, growing_log):
    def always() -> None:
        growing_log.grow(1)
        publish(growing_log.read, open_store(bucket), growing_log.key)
        growing_log.grow(1)

    slow = Overtaken(bucket, always)
    with pytest.raises(PublishedError, match="another publisher was faster 5 times"):
        publish(growing_log.read, slow, growing_log.key)
    assert slow.refused == ATTEMPTS
    assert published(bucket, growing_log) == 2 * ATTEMPTS - 1


def test_two_brokers_whose_histories_differ_do_not_fork_what_is_published(bucket, growing_log, tmp_path):
    """A copy of the database with the log's own key goes another way, and is as fast as it can be."""
    growing_log.grow(10)
    publish(growing_log.read, open_store(bucket), growing_log.key)
    twin = growing_log.copy(tmp_path / "twin.db")
    twin.grow(5, "node-2")

    def meanwhile() -> None:
        if growing_log.size() == 10:
            growing_log.grow(7)
            publish(growing_log.read, open_store(bucket), growing_log.key)

    with pytest.raises(PublishedError, match="has 17 entries, the database 15"):
        publish(twin.read, Overtaken(bucket, meanwhile), growing_log.key)
    twin.grow(30, "node-2")
    with pytest.raises(PublishedError, match="history was rewritten"):
        publish(twin.read, open_store(bucket), growing_log.key)
    assert published(bucket, growing_log) == 17
    # What the loser wrote is under no checkpoint, and the winner goes on.
    for count, expected in ((1, 18), (1, 19)):
        growing_log.grow(count)
        assert publish(growing_log.read, open_store(bucket), growing_log.key).checkpoint.size == expected
    twin.close()


def test_many_publishers_of_one_growing_log(bucket, growing_log):
    """Whoever reads meanwhile sees it grow and never shrink, and each checkpoint with all its tiles."""
    stop = threading.Event()
    failures: list[BaseException] = []
    sizes: list[int] = []

    def attempt(work: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            failures.append(error)

    def publisher() -> Callable[[], None]:
        store = open_store(bucket)

        def work() -> None:
            with suppress(PublishedError):
                publish(growing_log.read, store, growing_log.key)

        return work

    def look() -> None:
        note = watcher.get(CHECKPOINT_PATH)
        if note is not None:
            sizes.append(open_checkpoint(note, growing_log.key).size)

    watcher = open_store(bucket)
    threads = [threading.Thread(target=attempt, args=(work,)) for work in (look, *(publisher() for _ in range(3)))]
    for thread in threads:
        thread.start()
    for count in (1, 40, 215, 1, 300, 7, 700, 90, 3, 500):
        growing_log.grow(count)
        time.sleep(0.2)
    deadline = time.monotonic() + 30
    while (not sizes or sizes[-1] < 1857) and not failures and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sizes == sorted(sizes)
    assert len(set(sizes)) >= 3
    assert published(bucket, growing_log) == 1857
