"""Tells the demo's story: chapters, who acts, what came of it. In colour on a terminal, plainly in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keystead.cli import output
from keystead.cli.output import Json, Reason

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_ACTOR_WIDTH: Final = 11


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one step.

    Attributes:
        step: its stable name.
        expected: what the story says.
        actual: what happened.
        reasons: every reason, where it was a refusal.
    """

    step: str
    expected: str
    actual: str
    reasons: tuple[Reason, ...] = ()

    @property
    def as_told(self) -> bool:
        """Whether it happened as the story says."""
        return self.expected == self.actual

    def to_json(self) -> dict[str, Json]:
        """The outcome as it stands in ``--json`` output."""
        return {
            "step": self.step,
            "expected": self.expected,
            "actual": self.actual,
            "as_told": self.as_told,
            "reasons": output.reasons_json(self.reasons),
        }


class Narrator:
    """Prints the story as it goes and remembers every outcome.

    Args:
        silent: print nothing, for ``--json``.
    """

    __slots__ = ("_console", "outcomes")

    def __init__(self, *, silent: bool) -> None:
        self._console: Console | None = None if silent else output.console()
        self.outcomes: list[Outcome] = []

    def title(self, title: str, *paragraphs: str) -> None:
        """Open the story."""
        self._print(output.cell(title, style="bold"))
        for paragraph in paragraphs:
            self._print(output.cell(paragraph))

    def chapter(self, number: int, title: str) -> None:
        """Open a chapter."""
        self._print("")
        self._print(output.cell(f"{number}. {title}", style="bold cyan"))

    def says(self, actor: str, text: str) -> None:
        """One thing that `actor` does."""
        self._line(actor, text, style="")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Show a table."""
        if self._console is None:
            return
        from rich.padding import Padding

        made = output.table(*columns)
        for row in rows:
            made.add_row(*(output.cell(value) for value in row))
        self._print(Padding(made, (0, 0, 0, 2)))

    def outcome(self, step: str, *, expected: str, actual: str, text: str, reasons: Sequence[Reason] = ()) -> None:
        """Say what came of a step, and whether that is what the story says.

        Args:
            step: its stable name.
            expected: a word for what the story says.
            actual: the word for what happened.
            text: the same for people.
            reasons: every reason, where it was a refusal.
        """
        made = Outcome(step, expected, actual, tuple(reasons))
        self.outcomes.append(made)
        if made.as_told:
            self._line("", f"=> {text}", style="green")
        else:
            self._line("", f"=> NOT AS TOLD: expected {expected}, got {actual}: {text}", style="bold red")
        if reasons and self._console is not None:
            from rich.padding import Padding

            self._print(Padding(output.reasons_table(reasons), (0, 0, 0, 2)))

    @property
    def as_told(self) -> bool:
        """Whether every step so far went as the story says."""
        return all(outcome.as_told for outcome in self.outcomes)

    def end(self, *paragraphs: str) -> None:
        """Close the story."""
        self._print("")
        bad = [outcome.step for outcome in self.outcomes if not outcome.as_told]
        if bad:
            self._print(output.cell(f"{len(bad)} steps went otherwise: {', '.join(bad)}", style="bold red"))
        else:
            self._print(output.cell(f"All {len(self.outcomes)} steps went as told.", style="bold green"))
        for paragraph in paragraphs:
            self._print(output.cell(paragraph))

    def _line(self, actor: str, text: str, *, style: str) -> None:
        if self._console is None:
            return
        from rich.table import Table

        # A grid, so that a long text is folded beneath itself and not beneath the actor.
        line = Table.grid(padding=(0, 1))
        line.add_column(width=_ACTOR_WIDTH)
        line.add_column(overflow="fold")
        line.add_row(output.cell(actor, style="bold magenta") if actor else "", output.cell(text, style=style))
        self._print(line)

    def _print(self, what: RenderableType) -> None:
        if self._console is not None:
            self._console.print(what)
            # Whoever reads along in a pipe reads the story as it happens.
            self._console.file.flush()
