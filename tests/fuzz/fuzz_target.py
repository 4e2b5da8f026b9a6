"""What a fuzz target is, and how bytes become the arguments of what it calls.

Anything that a target raises other than its errors is a crash: an exception of Python or of a library, an assertion
about what was read (it must write back the same), or an error whose message is too long or cannot be printed.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_MESSAGE = 2048
"""Characters: an error tells what is wrong and does not repeat what it was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser.

    Attributes:
        name: ``room.structure``; also the name of its corpus.
        run: parses the bytes; raises one of `errors`, or nothing.
        seeds: inputs to begin with.
        errors: what may be raised.
        covers: the entry points that it exercises, as ``module:Class.function``.
        max_len: bytes; longer inputs are not tried.
        runs: executions in the bounded run.
        vectors: globs below the shared vectors whose files are further seeds.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    errors: tuple[type[Exception], ...]
    covers: tuple[str, ...]
    max_len: int = 8192
    runs: int = 1500
    vectors: tuple[str, ...] = ()

    def __call__(self, data: bytes) -> None:
        """Run once; an error that is allowed is looked at, any other exception passes."""
        try:
            self.run(data)
        except self.errors as error:
            problem = _problem(error)
        else:
            problem = ""
        if problem:
            raise AssertionError(problem)


def _problem(error: Exception) -> str:
    """What is wrong with how `error` is told; empty where nothing is."""
    message, kind = str(error), type(error).__name__
    if not message.strip():
        return f"{kind} says nothing"
    if len(message) > MAX_MESSAGE:
        return f"{kind} says {len(message)} characters: {message:.200}"
    message.encode("utf-8")
    return "" if str(getattr(error, "code", "")).isupper() else f"{kind} has no code"


def parts(data: bytes, *, limit: int = 20) -> tuple[bytes, ...]:
    """`data` as byte strings, each behind its length in two bytes; the last takes what is left."""
    found: list[bytes] = []
    while data and len(found) < limit:
        size = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + size])
        data = data[2 + size :]
    return tuple(found)


def text(data: bytes) -> str:
    """`data` as text; lone surrogates, which JSON can carry, are among what it can be."""
    return data.decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def scratch(name: str, data: bytes) -> Iterator[Path]:
    """A file called `name` that holds `data`, in memory where the system can."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path
