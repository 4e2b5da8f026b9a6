"""``NAME=NUMBER`` on the command line: budgets, parameters of obligations."""

from __future__ import annotations

from collections.abc import Iterable

from keystead.cli.exits import UsageError


def parse_amounts(texts: Iterable[str], option: str) -> dict[str, int]:
    """Read ``NAME=NUMBER`` texts; `option` names them in errors.

    Raises:
        UsageError: another form, or a name is there twice.
    """
    amounts: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isascii() or not number.isdigit() or name in amounts:
            raise UsageError(f"{option} {text!r}: not NAME=NUMBER, or a name is there twice")
        amounts[name] = int(number)
    return amounts
