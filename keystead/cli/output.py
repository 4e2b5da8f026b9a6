"""What people and programs see: tables for people, JSON for programs, colour on terminals only.

Text that came from elsewhere (a broker, evidence, a file) never reaches the terminal raw: control characters are
escaped, and none of it is read as markup.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final, Protocol, TypeAlias

import typer

from keystead.cli.exits import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables for people.")]
"""The ``--json`` option that every command has."""

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"

_PIPE_WIDTH: Final = 140
"""Columns of a table that goes into a pipe or a file, where no terminal says how many there are."""


_NARROW: Final = 110
"""Columns below which five columns of text cannot be read beside one another."""

_ASPECTS: Final = ("checked", "expected", "found", "how to mend it")

_LONG_HEX: Final = re.compile(r"\b[0-9a-f]{33,}\b")


class Reason(Protocol):
    """One reason for a refusal, as the broker, a verifier or a policy gives it."""

    @property
    def code(self) -> str:
        """Stable code."""

    @property
    def field(self) -> str:
        """What was checked."""

    @property
    def expected(self) -> str:
        """What the rule asks for."""

    @property
    def actual(self) -> str:
        """What was found."""

    @property
    def message(self) -> str:
        """The rule in words."""

    @property
    def remedy(self) -> str:
        """What can be done about it."""

    @property
    def reference(self) -> str:
        """Whose word `expected` is; empty where it is the broker's own rule."""


def printable(text: str) -> str:
    """`text` with every control and format character escaped, so that it can do nothing to a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode("ascii") for char in text
    )


def console(*, stderr: bool = False) -> Console:
    """A console for standard output or error: colour on a terminal unless ``NO_COLOR`` is set, plain text elsewhere."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None
    if not stream.isatty():
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdigit() and int(columns) > 0 else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def cell(value: object, *, style: str = "") -> Text:
    """A table cell that shows `value` as it is."""
    from rich.text import Text

    return Text(printable("—" if value is None or value == "" else str(value)), style=style, overflow="fold")


def table(*columns: str, title: str | None = None, lines: bool = False) -> Table:
    """An empty table with these headings."""
    from rich import box
    from rich.table import Table

    made = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", show_lines=lines, pad_edge=False, header_style="bold"
    )
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, empty: str = "nothing there"
) -> None:
    """Print a table of plain values, or the line `empty` where it has no rows."""
    made = table(*columns, title=title)
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    if made.row_count:
        console().print(made)
    else:
        console().print(empty)


def print_json(value: Json) -> None:
    """Print one JSON document: two spaces of indentation, ASCII only, keys in the order given."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def show(value: Json, *, as_json: bool, title: str = "") -> None:
    """Print an object: as JSON, or as a table with one line for each member."""
    if as_json:
        print_json(value)
        return
    if not isinstance(value, Mapping):
        console().print(cell(value))
        return
    made = table("", "", title=title or None)
    made.show_header = False
    for name, member in value.items():
        made.add_row(cell(name.replace("_", " "), style="dim"), cell(plain(member)))
    console().print(made)


def plain(value: object) -> str:
    """`value` in one cell of a table: lists joined by commas, objects as ``name=value``."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={plain(member)}" for name, member in value.items())
    if isinstance(value, Sequence):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "—" if value is None else str(value)


def instant(seconds: int) -> str:
    """An instant in RFC 3339, in UTC: ``2026-11-22T13:18:00Z``."""
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def reasons_json(reasons: Iterable[Reason]) -> list[dict[str, str]]:
    """Reasons as they stand in ``--json`` output."""
    return [
        {
            "code": reason.code,
            "field": reason.field,
            "expected": reason.expected,
            "actual": reason.actual,
            "message": reason.message,
            "remedy": reason.remedy,
            "reference": reason.reference,
        }
        for reason in reasons
    ]


def shorten(text: str) -> str:
    """`text` for a table: long hex values keep their two ends only; ``--json`` has them whole."""
    return _LONG_HEX.sub(lambda match: f"{match[0][:12]}…{match[0][-8:]}", text)


def reasons_table(reasons: Iterable[Reason], *, width: int | None = None) -> Table:
    """Every reason for a refusal: what was checked, what was asked for, what was found, how to mend it.

    Reasons that differ only in what was checked, such as the same defect of eight GPUs, are shown as one.

    Args:
        reasons: in the order to show them in.
        width: columns that there are; standard output's where None. On a narrow terminal the reasons stand below
            one another instead of in a table's lines.
    """
    lines: dict[tuple[str, str, str, str], list[str]] = {}
    for reason in reasons:
        lines.setdefault((reason.code, reason.expected, reason.actual, reason.remedy), []).append(reason.field)
    rows = [
        (code, shorten(_joined(fields)), shorten(expected), shorten(actual), remedy)
        for (code, expected, actual, remedy), fields in lines.items()
    ]
    if (console().width if width is None else width) < _NARROW:
        return _reasons_list(rows)
    made = table("reason", *_ASPECTS)
    made.columns[0].no_wrap = True
    for code, *values in rows:
        made.add_row(cell(code, style="bold red"), *map(cell, values))
    return made


def _reasons_list(rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    made.add_column()
    made.add_column(overflow="fold")
    for code, *values in rows:
        made.add_row(cell("reason", style="bold"), cell(code, style="bold red"))
        for aspect, value in zip(_ASPECTS, values, strict=True):
            made.add_row(cell(aspect, style="dim"), cell(value))
        made.add_row("", "")
    return made


def _joined(fields: Iterable[str]) -> str:
    """Fields on a line each, where several devices share one: ``gpu0, gpu1 Nonce``."""
    devices: dict[str, list[str]] = {}
    for field in dict.fromkeys(fields):
        device, space, rest = field.partition(" ")
        devices.setdefault(rest if space else "", []).append(device)
    return "\n".join(f"{', '.join(names)} {rest}".strip() for rest, names in devices.items())


def print_error(code: str, message: str, *, reasons: Sequence[Reason] = (), as_json: bool) -> None:
    """Say why a command failed: JSON on standard output, or a line and the reasons on standard error."""
    if as_json:
        error: dict[str, Json] = {"code": code, "message": message}
        if reasons:
            error["reasons"] = reasons_json(reasons)
        print_json({"error": error})
        return
    from rich.text import Text

    target = console(stderr=True)
    # One line, for programs too: a terminal folds it by itself.
    target.print(Text.assemble((f"{code}: ", "bold red"), printable(message)), soft_wrap=True)
    if reasons:
        target.print(reasons_table(reasons, width=target.width))


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone.

    Args:
        question: what is about to happen.
        yes: the user confirmed already, by ``--yes``.

    Raises:
        UsageError: the answer was no, or there is no terminal to ask on.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Confirm with --yes")
    if not typer.confirm(question, err=True):
        raise UsageError("not confirmed; nothing was changed")
