"""TOML that somebody else wrote, read in bounded time: TOML 1.0.0 with a limit on how deep one line may name a table.

The standard library's reader keeps every prefix of a dotted key, so that its time and memory grow with the square of
the number of parts: one line of 60 KB takes it a minute and gigabytes. A key cannot span lines (TOML 1.0.0, section
Keys), so that a limit on the dots of a line keeps the whole linear. Values have dots too, which is why the limit is
far above what any table needs; a long array of version numbers is written over several lines.
"""

from __future__ import annotations

import tomllib
from typing import Any, Final

MAX_DOTS: Final = 128
"""Dots in one line."""


class TomlError(ValueError):
    """Text that is not TOML, or is beyond a limit; the message says where."""

    code = "BAD_TOML"


def read_toml(data: bytes, *, limit: int) -> dict[str, Any]:
    """The document in `data`, of at most `limit` bytes.

    Raises:
        TomlError: longer, not UTF-8, not TOML, nested too deep, a number beyond what Python reads, or a line with more
            than `MAX_DOTS` dots.
    """
    if len(data) > limit:
        raise TomlError(f"{len(data)} bytes, at most {limit} are read")
    # A lone carriage return ends no line in TOML, so that splitting at line feeds alone is the safe way.
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.count(b".") > MAX_DOTS:
            raise TomlError(f"line {number} has more than {MAX_DOTS} dots: write long arrays over several lines")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise TomlError("nested too deep") from None
    except ValueError as error:
        # Not only TOML's own error: a byte that is no UTF-8 and an integer of thousands of digits are others.
        raise TomlError(f"{error!s:.200}") from None
