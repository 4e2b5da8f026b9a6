"""JSON documents that go into a policy: what is accepted, and their one canonical encoding.

Inputs are stored by digest and replayed later, and OPA's Wasm holds integers in 64 bits (open-policy-agent/opa issue
3711), so a document has no floats and no integer outside the range of RFC 8785 (section 3.2.2.3, the I-JSON range).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, NoReturn, TypeAlias

from policy.errors import PolicyInputError

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"
"""JSON without floats, as `json.loads` makes it: the only documents a policy reads or returns."""

MAX_DOCUMENT: Final = 4 << 20
"""No input or data document is longer than 4 MiB in its canonical encoding."""

MAX_DEPTH: Final = 64
"""No document nests deeper than 64 objects and arrays."""

MAX_INTEGER: Final = 2**53 - 1
"""Largest magnitude of an integer in a document (RFC 8785, section 3.2.2.3)."""

_ASTRAL: Final = re.compile(r"[\U00010000-\U0010ffff]")


def encode_document(document: Mapping[str, object], *, what: str) -> bytes:
    """The RFC 8785 encoding of `document`; `what` names it in errors.

    Raises:
        PolicyInputError: it is not JSON, holds a float or an integer beyond ±(2⁵³−1), nests too deep or is too large.
    """
    plain = _plain(document, what, MAX_DEPTH)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if _ASTRAL.search(text):
        # RFC 8785 orders names by UTF-16 code units, Python by code points: they part beyond the basic plane.
        text = json.dumps(_utf16_order(plain), separators=(",", ":"), ensure_ascii=False)
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise PolicyInputError(f"{what}: holds half of a surrogate pair, which UTF-8 cannot carry") from None
    if len(data) > MAX_DOCUMENT:
        raise PolicyInputError(f"{what}: {len(data)} bytes, at most {MAX_DOCUMENT} are allowed")
    return data


def read_json_object(data: bytes, *, what: str) -> dict[str, Json]:
    """Parse one JSON object strictly: UTF-8, no name twice, no floats; `what` names it in errors.

    Raises:
        PolicyInputError: it is anything else, or holds an integer beyond ±(2⁵³−1).
    """
    if len(data) > MAX_DOCUMENT:
        raise PolicyInputError(f"{what}: {len(data)} bytes, at most {MAX_DOCUMENT} are allowed")

    def refuse_float(text: str) -> NoReturn:
        raise PolicyInputError(f"{what}: {text:.40} is not an integer; policies read no floats")

    def integer(text: str) -> int:
        # At most 17 characters can hold ±(2⁵³−1): a longer text is refused before Python parses it.
        if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
            raise PolicyInputError(f"{what}: {text:.40} is beyond ±(2^53-1)")
        return int(text)

    def pairs(items: list[tuple[str, Json]]) -> dict[str, Json]:
        names = dict(items)
        if len(names) != len(items):
            raise PolicyInputError(f"{what}: a name is there twice in one object")
        return names

    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_float=refuse_float,
            parse_constant=refuse_float,
            parse_int=integer,
            object_pairs_hook=pairs,
        )
    except (ValueError, RecursionError) as error:
        raise PolicyInputError(f"{what}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise PolicyInputError(f"{what}: not a JSON object")
    return value


def merge(defaults: Mapping[str, Json], overlay: Mapping[str, Json]) -> dict[str, Json]:
    """`overlay` laid over `defaults`: objects merge name by name, anything else replaces what was there."""
    merged = dict(defaults)
    for name, value in overlay.items():
        below = merged.get(name)
        merged[name] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _plain(value: object, what: str, depth: int) -> Json:
    """`value` as dicts, lists and scalars, every one of them checked."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise PolicyInputError(f"{what}: an integer is beyond ±(2^53-1)")
        return value
    if depth == 0:
        raise PolicyInputError(f"{what}: nests deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        members: dict[str, Json] = {}
        for name, item in value.items():
            if not isinstance(name, str):
                raise PolicyInputError(f"{what}: {name!r:.40} is not a name: names are strings")
            members[name] = item if type(item) is str else _plain(item, what, depth - 1)
        return members
    if isinstance(value, list | tuple):
        return [item if type(item) is str else _plain(item, what, depth - 1) for item in value]
    raise PolicyInputError(f"{what}: a {type(value).__name__} is not JSON as policies read it (no floats, no bytes)")


def _utf16_order(value: Json) -> Json:
    if isinstance(value, dict):
        return {
            name: _utf16_order(value[name])
            for name in sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        }
    if isinstance(value, list):
        return [_utf16_order(item) for item in value]
    return value
