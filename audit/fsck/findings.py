"""What a full check found: the first problems by index, and how many more there are."""

from __future__ import annotations

from typing import Final

from audit.problems import Problem, ProblemCode

MAX_PROBLEMS: Final = 100
"""As many problems are described; the rest is counted. The first indexes come first."""

_DISPLACED: Final = frozenset(
    {
        ProblemCode.ENTRY_MISSING,
        ProblemCode.ENTRY_INSERTED,
        ProblemCode.ENTRY_MOVED,
        ProblemCode.ENTRY_DUPLICATED,
        ProblemCode.ENTRY_REPLACED,
    }
)


class _First:
    """The first `MAX_PROBLEMS` of any number of problems, by index; those without one come last."""

    __slots__ = ("count", "kept")

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[Problem] = []

    def add(self, problem: Problem) -> None:
        self.count += 1
        self.kept.append(problem)
        if len(self.kept) >= 4 * MAX_PROBLEMS:
            self.cut()

    def cut(self) -> None:
        self.kept = _in_order(self.kept)[:MAX_PROBLEMS]


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.index is None, problem.index or 0))


def _show(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


class Findings:
    """Collects problems in any order and any number."""

    __slots__ = ("_counters", "_displaced", "_others", "_uncounted")

    def __init__(self) -> None:
        self._others = _First()
        self._counters = _First()
        self._displaced = False
        self._uncounted = 0

    def report(self, code: ProblemCode, index: int | None, what: str, *, expected: object, actual: object) -> None:
        """Add a problem; hashes are shown in hexadecimal."""
        self._displaced = self._displaced or code in _DISPLACED
        of_its_kind = self._counters if code is ProblemCode.COUNTER_ALTERED else self._others
        of_its_kind.add(Problem(code, index, what, _show(expected), _show(actual)))

    def count_one_more(self) -> None:
        """Count a problem that is not described."""
        self._uncounted += 1

    def first(self) -> tuple[tuple[Problem, ...], int]:
        """The first problems, and how many further ones there are."""
        kept, count = list(self._others.kept), self._others.count + self._uncounted
        if not self._displaced:  # wrong counters follow from wrong places
            kept += self._counters.kept
            count += self._counters.count
        kept = _in_order(kept)[:MAX_PROBLEMS]
        return tuple(kept), count - len(kept)
