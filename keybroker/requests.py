"""Checks of request fields that more than one service needs; each error names the field."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import Final

from keybroker.errors import InvalidRequestError
from keystead.binding import BindingError, check_id

MAX_LIST: Final = 256
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_REQUEST_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_TEXT: Final = re.compile(r"[ -~]{1,200}\Z")


def request_id(value: str) -> str:
    """A UUID in lower-case hexadecimal (AIP-155)."""
    if not _REQUEST_ID.match(value):
        raise InvalidRequestError(
            "request_id", "not a UUID in lower case, such as 1b4e28ba-2fa1-41d2-883f-0016d3cca427"
        )
    return value


def identifier(value: str, field: str) -> str:
    """An identifier (`keystead.binding.check_id`)."""
    try:
        return check_id(value, field)
    except BindingError:
        raise InvalidRequestError(field, f"{value!r:.80} is not an identifier: letters, digits and ._:/@+-") from None


def asset_name(value: str, field: str = "asset") -> str:
    """``TENANT/NAME``, both in lower case."""
    tenant, slash, name = value.partition("/")
    if not slash or not _NAME.match(tenant) or not _NAME.match(name):
        raise InvalidRequestError(field, f"{value!r:.80} is not TENANT/NAME in lower case")
    return value


def names(values: Sequence[str], field: str, *, at_least: int = 0) -> tuple[str, ...]:
    """A sorted set of identifiers."""
    if not at_least <= len(values) <= MAX_LIST:
        raise InvalidRequestError(field, f"{len(values)} values, {at_least} to {MAX_LIST} are allowed")
    if len(set(values)) != len(values):
        raise InvalidRequestError(field, "a value is there twice")
    return tuple(sorted(identifier(value, field) for value in values))


def declared(value: str, field: str, *, known: Container[str]) -> str:
    """Nothing, or one of the names in `known`."""
    if value and value not in known:
        raise InvalidRequestError(field, f"{value!a:.60} is none of those there are; see the reference of the API")
    return value


def text(value: str, field: str) -> str:
    """One line of printable ASCII, 1 to 200 characters."""
    if not _TEXT.match(value):
        raise InvalidRequestError(field, "not one line of 1 to 200 printable ASCII characters")
    return value


def digest(value: bytes, field: str) -> bytes:
    """SHA-256: 32 bytes."""
    if len(value) != 32:
        raise InvalidRequestError(field, f"{len(value)} bytes, a SHA-256 digest has 32")
    return value


def page_token(value: str) -> str:
    """Where the last page ended: nothing, or the identifier that stood last on it."""
    return identifier(value, "page_token") if value else value


def page_size(value: int) -> int:
    """0 means 100; never more than 1,000."""
    return min(value or 100, 1_000)
