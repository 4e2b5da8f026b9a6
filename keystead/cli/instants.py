"""Instants and durations as people write them on a command line."""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import Final

from keystead.cli.exits import UsageError

_DURATION: Final = re.compile(r"(?P<number>[1-9][0-9]{0,8})(?P<unit>[smhd])\Z")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def now() -> int:
    """The present instant, in seconds since the epoch: the command line is where the clock is read."""
    return int(time.time())


def parse_duration(text: str) -> int:
    """Seconds of ``30s``, ``45m``, ``8h`` or ``7d``.

    Raises:
        UsageError: another form.
    """
    match = _DURATION.match(text)
    if match is None:
        raise UsageError(f"{text!a:.40} is no duration: write 30s, 45m, 8h or 7d")
    return int(match["number"]) * _SECONDS[match["unit"]]


def parse_instant(text: str) -> int:
    """Seconds since the epoch of an RFC 3339 instant with its offset, a date (its first second in UTC) or a number.

    Raises:
        UsageError: another form, or no offset from UTC.
    """
    if text.isascii() and text.isdigit() and len(text) <= 11:
        return int(text)
    try:
        instant = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!a:.40} is no instant: write 2026-11-22T13:00:00Z, 2026-11-22 or seconds") from None
    if instant.tzinfo is None:
        if len(text) != len("2026-11-22"):
            raise UsageError(f"{text!a:.40} does not say its offset: add Z for UTC, or +01:00")
        instant = instant.replace(tzinfo=dt.UTC)
    return int(instant.timestamp())
