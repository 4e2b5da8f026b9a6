"""JSON that a stranger wrote, read in bounded time, and what every kind of description comes to."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from keystead.cli.exits import UsageError
from sealed.errors import SealingError
from sealed.manifest import check_name

MAX_DESCRIPTION: Final = 16 << 20
"""Bytes of one description."""

MAX_FILES: Final = 100_000
MAX_ITEMS: Final = 1_024
"""Members of any other list: licences, sources, inputs."""

MAX_TEXT: Final = 2_048
"""Characters of one text."""

MAX_LEFT_OUT: Final = 64
"""Fields that are named as left out; more are counted."""


class DescriptionError(UsageError):
    """A description, or a draft made from one, that cannot be used; the text says where in it, and what is wrong."""

    code = "BAD_DESCRIPTION"

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedFile:
    """A file, as a description has it.

    Attributes:
        name: its path below the folder that holds the data.
        size: bytes; None where the description does not say, or only about.
        sha256: lower-case hexadecimal; None where the description does not say.
        url: where it can be had; None where it lies beside the description.
    """

    name: str
    size: int | None = None
    sha256: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What of a description becomes part of a draft.

    Attributes:
        form: the specification and its version: ``croissant-1.1``, ``openlineage-2-0-2``.
        digest: SHA-256 of its bytes, lower-case hexadecimal.
        name, version: of the data, in the words of whoever described them; None where they do not say.
        licences: names or addresses of licences.
        sources: addresses at which the data, or more about them, can be had.
        files: those that stand by themselves; not what is inside an archive.
        inputs: names of what the data were derived from.
        left_out: fields that nothing was made of, at most `MAX_LEFT_OUT`, sorted.
    """

    form: str
    digest: str
    name: str | None = None
    version: str | None = None
    licences: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    files: tuple[DescribedFile, ...] = ()
    inputs: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def digest_of(data: bytes) -> str:
    """SHA-256, lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read_object(data: bytes, *, limit: int = MAX_DESCRIPTION) -> dict[str, Any]:
    """The JSON object in `data`; fractions stay the text that they are.

    Raises:
        DescriptionError: too long, not UTF-8, not JSON, no object, a member that is there twice, nested too deep.
    """
    if len(data) > limit:
        raise DescriptionError("", f"{len(data)} bytes, at most {limit} are read")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_members, parse_float=str, parse_constant=_no_constant
        )
    except RecursionError:
        raise DescriptionError("", "nested too deep") from None
    except ValueError as error:
        raise DescriptionError("", f"not JSON: {error!s:.200}") from None
    if not isinstance(value, dict):
        raise DescriptionError("", "not a JSON object; of a file of lines, give one line by itself")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"member {name!a:.60} is there twice in one object")
            seen.add(name)
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no value of JSON")


def one_text(value: object, where: str) -> str:
    """A text of one line, or a number as it was written.

    Raises:
        DescriptionError: something else, empty, too long, or with control characters.
    """
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        raise DescriptionError(where, f"{_kind(value)}, not text")
    if not value or len(value) > MAX_TEXT:
        raise DescriptionError(where, f"{len(value)} characters; 1 to {MAX_TEXT} are allowed")
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in value):
        raise DescriptionError(where, "holds a control character or a broken one; it must be one line of text")
    return value


def sha256_text(value: object, where: str) -> str:
    """A SHA-256 digest, in lower case.

    Raises:
        DescriptionError: it is none.
    """
    text = one_text(value, where).lower()
    if len(text) != 64 or not all(char in "0123456789abcdef" for char in text):
        raise DescriptionError(
            where, f"{text!a:.80} is no SHA-256: 64 hexadecimal digits; leave the member out if unknown"
        )
    return text


def file_name(value: str, where: str) -> str:
    """A relative path that cannot leave its folder, as `sealed.manifest.check_name` has it.

    Raises:
        DescriptionError: it is none.
    """
    try:
        return check_name(value)
    except SealingError as error:
        raise DescriptionError(where, str(error)) from None


def as_list(value: object, where: str, *, limit: int = MAX_ITEMS) -> list[Any]:
    """A list, or the one thing that stands where a list may.

    Raises:
        DescriptionError: it has too many members.
    """
    items = value if isinstance(value, list) else [value]
    if len(items) > limit:
        raise DescriptionError(where, f"{len(items)} members, at most {limit} are read")
    return items


def as_object(value: object, where: str) -> dict[str, Any]:
    """An object.

    Raises:
        DescriptionError: it is none.
    """
    if not isinstance(value, dict):
        raise DescriptionError(where, f"{_kind(value)}, not an object")
    return value


def named_once(files: Iterable[DescribedFile]) -> tuple[DescribedFile, ...]:
    """Files by name.

    Raises:
        DescriptionError: two have one name.
    """
    by_name: dict[str, DescribedFile] = {}
    for file in files:
        if file.name in by_name:
            raise DescriptionError("", f"two files would both be called {file.name!a:.80}")
        by_name[file.name] = file
    return tuple(by_name[name] for name in sorted(by_name))


def unique(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts in their order, none twice."""
    return tuple(dict.fromkeys(texts))


def left_out(names: Iterable[str]) -> tuple[str, ...]:
    """Names of fields as printable ASCII, sorted, none twice and not too many."""
    told = {ascii(name)[1:-1] or "''" for name in names}
    found = sorted({name if len(name) <= 120 else f"{name[:117]}..." for name in told})
    if len(found) <= MAX_LEFT_OUT:
        return tuple(found)
    return (*found[: MAX_LEFT_OUT - 1], f"and {len(found) - MAX_LEFT_OUT + 1} more")


def _kind(value: object) -> str:
    kinds = ((bool, "true or false"), (str, "text"), (int, "a number"), (list, "a list"), (dict, "an object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")
