"""A bucket of an S3 object store as the place where a log is published.

Nothing is locked: a publisher that dies would keep its lock. Tiles and bundles are created where nothing is
(``If-None-Match: *``), and the checkpoint is replaced where it is still the one that was read (``If-Match``; Amazon S3
API reference, PutObject). So a slow publisher cannot put an older checkpoint over a newer one, and two brokers cannot
fork what is published. All rests on the store heeding these conditions, which many once ignored: before anything else
is written, it must refuse two that do not hold.

Credentials, and what is not given, come from the environment as all S3 tools have it: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``, ``AWS_CA_BUNDLE``, web
identities and the metadata services of AWS. ``AWS_SKIP_SIGNATURE=true`` reads a public bucket without any.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from audit.errors import PublishedError
from audit.stores import (
    BRIEFLY,
    CHECKPOINT_PATH,
    CHECKPOINT_TYPE,
    IMMUTABLE,
    MAX_OBJECT,
    TILE_TYPE,
    differs,
)
from audit.tiles import TilePath
from keybroker.bucket_address import ENDPOINT, BucketAddress

if TYPE_CHECKING:
    from obstore import Attributes, PutMode
    from obstore.store import ClientConfig, RetryConfig, S3Config

PROBE_PATH: Final = "conditional-writes"
"""The object on which is tried, before anything is written, whether the store heeds conditions."""

REQUEST_SECONDS: Final = 10.0
"""How long the store may take to answer a request, and until when a request that failed is tried again."""

_CONNECT_SECONDS: Final = 5.0
_RETRIES: Final = 3
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0

_IN_FLIGHT: Final = 8
"""Objects that are put at the same time; twice as many wait at most, so that memory stays flat."""

_ROUNDS: Final = 5
_ROUND_SECONDS: Final = 0.2

_CODE: Final = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_MESSAGE: Final = re.compile(r"<Message>([^<\x00-\x1f\x7f-\x9f]{1,300})</Message>")
_STATUS: Final = re.compile(r"status code: (\d{3}[^:\n]{0,40})")
_METADATA_SERVICE: Final = "169.254."

_CERTIFICATE: Final = re.compile(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)")
_DURATION: Final = re.compile(r" in [0-9.]+[^\s0-9.]*s(?=[ ,]|$)")

_NO_SUCH_KEY: Final = "NoSuchKey"
_DENIED: Final = "AccessDenied"
_ADVICE: Final = {
    "NoSuchBucket": "make the bucket, or mend its name",
    "AccessDenied": "grant s3:GetObject, s3:PutObject and s3:ListBucket (without it a missing object looks forbidden)",
    "InvalidAccessKeyId": "mend AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "mend AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "renew AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock and the store's differ too much: set the clock",
    "AuthorizationHeaderMalformed": "mend the region",
    "PermanentRedirect": "mend the region or the endpoint",
    "NotImplemented": "the store has no conditional writes, without which a log cannot be published in it safely",
}
"""What to do, by the store's own error code (Amazon S3 API reference, Error responses)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Found:
    """An object, and the tag by which the store knows this version of it (RFC 9110, ETag)."""

    data: bytes
    tag: str


class BucketStore:
    """A log in a bucket; an `audit.stores.ObjectStore`. Used by one thread."""

    def __init__(
        self,
        address: BucketAddress,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> None:
        """The store at `address`; nothing is asked of it yet.

        Args:
            address: bucket and prefix.
            endpoint: the store's address ``http[s]://…``; where None, ``AWS_ENDPOINT_URL``, else Amazon's.
            region: where None, ``AWS_REGION``, else us-east-1.
            seconds: how long each request may take, and for how long one that failed is tried again.

        Raises:
            PublishedError: the endpoint, or the file that ``AWS_CA_BUNDLE`` names, cannot be used.
        """
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
        if endpoint is not None and not ENDPOINT.fullmatch(endpoint):
            raise PublishedError(f"{address}: AWS_ENDPOINT_URL: not an address http[s]://HOST[:PORT][/PATH]")
        self._where = str(address) if endpoint is None else f"{address} at {endpoint}"
        self._probed = False
        self._pending: deque[Future[bool]] = deque()
        self._new = 0
        self._pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="bucket")
        config: S3Config = {}
        client: ClientConfig = {
            # Without TLS only where somebody asked for an address without; signatures are sent, keys never.
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
            "timeout": timedelta(seconds=seconds),
            "connect_timeout": timedelta(seconds=min(seconds, _CONNECT_SECONDS)),
        }
        retry: RetryConfig = {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=seconds),
            "backoff": {
                "init_backoff": timedelta(seconds=_FIRST_PAUSE),
                "max_backoff": timedelta(seconds=_LONGEST_PAUSE),
                "base": 2,
            },
        }
        if endpoint is not None:
            config["endpoint"] = endpoint.rstrip("/")
        if region is not None:
            config["region"] = region
        if (roots := _roots(os.environ.get("AWS_CA_BUNDLE"))) is not None:
            client["root_certificate"] = roots
        try:
            self._store = S3Store(
                address.bucket,
                prefix=address.prefix or None,
                config=config,
                client_options=client,
                retry_config=retry,
            )
        except BaseError as error:
            raise PublishedError(f"{self._where}: {_first_line(str(error))}") from None

    def get(self, path: str) -> bytes | None:
        """The object at `path`; None where the store says that there is none.

        Raises:
            MalformedError: `path` names no object of a log.
            PublishedError: the store gives no answer in time, refuses, or has an object larger than any of a log.
        """
        if path != CHECKPOINT_PATH:
            TilePath.parse(path)
        found = self._read(path)
        return None if found is None else found.data

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep nobody out; find out once whether the store heeds conditions. No write outlives the block.

        Raises:
            PublishedError: it does not, or cannot be used.
        """
        if not self._probed:
            self._probe()
            self._probed = True
        self._new = 0
        try:
            yield
        finally:
            self._abandon()

    def put(self, path: str, data: bytes) -> None:
        """Begin to create a tile or bundle; several are under way at a time.

        Raises:
            MalformedError: `path` names neither.
            PublishedError: an earlier one of the same batch could not be put.
        """
        TilePath.parse(path)
        if len(self._pending) >= 2 * _IN_FLIGHT:
            self._settle()
        self._pending.append(self._pool.submit(self._create, path, data))

    def flush(self) -> int:
        """Wait for all that was begun; the store answers once an object is on stable storage.

        Raises:
            PublishedError: another object is at one of the paths, or the store cannot be used.
        """
        while self._pending:
            self._settle()
        new, self._new = self._new, 0
        return new

    def put_checkpoint(self, note: bytes, *, before: bytes | None) -> bool:
        """Replace `before` by `note` where it is still there; False where it is not.

        Raises:
            PublishedError: the store cannot be used; the checkpoint may have been put all the same.
        """
        found = self._read(CHECKPOINT_PATH)
        if (None if found is None else found.data) != before:
            return False
        if self._write(CHECKPOINT_PATH, note, found):
            return True
        # The answer to a first attempt may have been lost on its way, and what is there be our own.
        return self.get(CHECKPOINT_PATH) == note

    def remove_partials(self, path: TilePath) -> None:
        """Remove what is below ``PATH.p/``, where the store permits it; what stays harms nothing.

        Raises:
            PublishedError: the store cannot be used.
        """
        folder = f"{path}.p"

        def remove() -> None:
            names = [str(item["path"]) for page in self._store.list(folder) for item in page]
            if names:
                self._store.delete(names)

        try:
            self._ask("remove partial tiles of", str(path), remove)
        except _ForbiddenError:
            return  # who may write need not be allowed to delete; a partial tile may stay (C2SP tlog-tiles)

    def _settle(self) -> None:
        try:
            self._new += self._pending.popleft().result()
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        for future in self._pending:
            future.cancel()
        wait(self._pending)
        self._pending.clear()

    def _create(self, path: str, data: bytes) -> bool:
        """Create an object; False where the same is there already.

        Several brokers often create the same one at once: to all but one the store says that it is there, sometimes
        before it can be read.
        """
        for _ in range(_ROUNDS):
            if self._write(path, data, None):
                return True
            found = self._read(path)
            if found is not None:
                if found.data != data:
                    raise differs(path)
                return False
            time.sleep(_ROUND_SECONDS)
        raise PublishedError(f"{self._where}: the store says both that {path} is there and that it is not")

    def _read(self, path: str) -> _Found | None:
        def read() -> _Found:
            result = obstore.get(self._store, path)
            size = result.meta["size"]
            if size > MAX_OBJECT:
                raise PublishedError(f"{self._where}: {path} has {size} bytes, more than any object of a log")
            tag = result.meta["e_tag"]
            return _Found(result.bytes().to_bytes(), tag or "")

        try:
            return self._ask("read", path, read)
        except _MissingError:
            return None

    def _write(self, path: str, data: bytes, before: _Found | None) -> bool:
        """Put an object where nothing is, or in the place of `before`; False where that is not so."""
        mode: PutMode = "create" if before is None else {"e_tag": before.tag}
        is_checkpoint = path in {CHECKPOINT_PATH, PROBE_PATH}
        attributes: Attributes = {
            "Content-Type": CHECKPOINT_TYPE if is_checkpoint else TILE_TYPE,
            "Cache-Control": BRIEFLY if is_checkpoint else IMMUTABLE,
        }

        def write() -> bool:
            try:
                obstore.put(self._store, path, data, mode=mode, attributes=attributes, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            return True

        return self._ask("write", path, write)

    def _probe(self) -> None:
        """Find out whether the store refuses to write where a condition does not hold.

        Raises:
            PublishedError: it does not.
        """
        for _ in range(_ROUNDS):
            first = self._read(PROBE_PATH)
            if first is None:
                self._write(PROBE_PATH, _probe_text(), None)
                continue
            if not first.tag or first.tag.startswith("W/"):
                raise self._untrusted("gives objects no strong ETag")
            if self._write(PROBE_PATH, _probe_text(), None):
                raise self._untrusted("does not heed If-None-Match")
            if not self._write(PROBE_PATH, _probe_text(), first):
                time.sleep(_ROUND_SECONDS)  # another publisher tries, too; or the store refuses all
                continue
            if self._write(PROBE_PATH, _probe_text(), first):
                raise self._untrusted("does not heed If-Match")
            return
        raise self._untrusted("never replaces the object whose ETag it gave")

    def _untrusted(self, why: str) -> PublishedError:
        return PublishedError(
            f"{self._where}: the store {why}: publishers could undo one another's work, so nothing is published there. "
            "Use a store with conditional writes, or a folder"
        )

    def _ask(self, what: str, path: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except (BaseError, OSError) as error:
            text = str(error)
            code = _CODE.search(text)
            if code and code[1] == _NO_SUCH_KEY and isinstance(error, FileNotFoundError):
                raise _MissingError(f"{self._where}: no {path}") from None
            # Of several objects to delete, each has its own answer within one that says 200.
            kind = _ForbiddenError if _DENIED in text else PublishedError
            raise kind(f"{self._where}: cannot {what} {path}: {_reason(text)}") from None


class _MissingError(PublishedError):
    """The store says that there is no such object in the bucket."""


class _ForbiddenError(PublishedError):
    """The store does not permit it."""


def _probe_text() -> bytes:
    return f"Keystead tries here whether this store heeds conditional writes. {secrets.token_hex(16)}\n".encode()


def _roots(file: str | None) -> bytes | None:
    if not file:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise PublishedError(f"AWS_CA_BUNDLE: {file}: {error.strerror}") from None


def _reason(text: str) -> str:
    """What the store says, and what to do about it; of an answer's body nothing but code and message."""
    code, message, status = _CODE.search(text), _MESSAGE.search(text), _STATUS.search(text)
    if code:
        told = f"{code[1]}: {message[1].rstrip('.')}" if message else code[1]
        advice = _ADVICE.get(code[1])
        return told if advice is None else f"{told}; {advice}"
    if _METADATA_SERVICE in text:
        return (
            "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true to read a "
            "public bucket"
        )
    if status:
        return f"the store answers {status[1].strip()}"
    if certificate := _CERTIFICATE.search(text):
        return f"the store's certificate is not trusted ({certificate[1]}); name its authority's file in AWS_CA_BUNDLE"
    if "HTTP error" in text:
        return "no answer in time; is the endpoint right, and the store running?"
    # Without how long it took, so that the same trouble has the same words.
    return _DURATION.sub("", _first_line(text))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
