"""``keystead node import``: a file of nodes to the broker, in two passes.

The first pass reads all of it and finds every mistake that the file alone shows. The second sends it. Where the first
found any, the broker is asked to check only, so that its findings are told too; nothing is changed.
"""

from __future__ import annotations

import heapq
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import typer

from keystead.cli import connection as broker
from keystead.cli import exits, output
from keystead.cli.exits import UsageError
from keystead.cli.node_file import FileProblem, read_nodes
from keystead.cli.output import Json
from keystead.cli.seal import progress_bar
from keystead.v1 import node_service_pb2 as pb

TIMEOUT: Final = 3_600.0
"""Seconds that the broker gets for all of a file."""

MAX_PROBLEMS: Final = 100
"""Problems that are told one by one; the rest is counted."""

_CHUNK: Final = 256 << 10
"""Bytes of one message, about: far below any broker's limit."""


class Problems:
    """Mistakes in a file: the first `MAX_PROBLEMS` by line, and how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self.told: list[tuple[int, str, str, str]] = []

    def add(self, problem: FileProblem) -> None:
        """Take one that the file shows."""
        self.count += 1
        if len(self.told) < MAX_PROBLEMS:
            self.told.append((problem.line, problem.field, problem.code, problem.message))

    def merge(self, answer: pb.ImportNodesResponse) -> None:
        """Take those that the broker found."""
        self.count += answer.problem_count
        found = [(each.line, each.field, each.code, each.message) for each in answer.problems]
        self.told = heapq.nsmallest(MAX_PROBLEMS, self.told + found)


def import_nodes(
    connection: broker.Connection,
    file: Path,
    *,
    form: str | None,
    dry_run: bool,
    request_id: str | None,
    as_json: bool,
) -> None:
    """Import `file`, and say what became of it.

    Args:
        connection: to the broker, as an operator.
        file: the file, or ``-``.
        form: ``csv`` or ``json``; by the file's name where None.
        dry_run: check only.
        request_id: of an import to repeat; a fresh one where None.
        as_json: answer for programs.

    Raises:
        UsageError: neither CSV nor JSON by its name, and not said.
        AttesterError: the broker refused, or could not be reached.
        typer.Exit: with code 1, where there is any problem.
    """
    kind = form or file.suffix.lower().removeprefix(".")
    if kind not in ("csv", "json"):
        raise UsageError(f"{file}: say what it is with --format csv or --format json")
    name = "(stdin)" if str(file) == "-" else str(file)
    identifier = request_id or broker.request_id()
    problems = Problems()
    with _open(file) as source:
        size = source.seek(0, os.SEEK_END)
        with progress_bar(size, what="reading") as progress:
            source.seek(0)
            for _ in read_nodes(source, form=kind, problem=problems.add, progress=progress):
                pass
        checking = dry_run or problems.count > 0
        with progress_bar(size, what="checking" if checking else "importing") as progress:
            source.seek(0)
            try:
                answer = connection.send(
                    connection.nodes.ImportNodes,
                    _requests(source, kind, identifier, dry_run=checking, progress=progress),
                    timeout=TIMEOUT,
                )
            except Exception:
                if not checking:
                    output.console(stderr=True).print(
                        output.cell(f"To repeat this import: keystead node import {name} --request-id {identifier}")
                    )
                raise
    problems.merge(answer)
    done = not checking and problems.count == 0
    if as_json:
        output.print_json(
            {
                "file": name,
                "dry_run": dry_run,
                "request_id": identifier,
                "imported": answer.nodes if done else 0,
                "nodes": answer.nodes,
                "devices": answer.devices,
                "problem_count": problems.count,
                "problems": [_problem_json(name, each) for each in problems.told],
            }
        )
    elif problems.count:
        _tell(name, problems)
    else:
        what = "Imported" if done else "Nothing speaks against importing"
        output.console().print(output.cell(f"{what} {answer.nodes} nodes with {answer.devices} devices from {name}"))
    if problems.count:
        raise typer.Exit(exits.NO)


def _requests(
    source: BinaryIO, form: str, request_id: str, *, dry_run: bool, progress: Callable[[int], None] | None
) -> Iterator[pb.ImportNodesRequest]:
    yield pb.ImportNodesRequest(start=pb.ImportStart(request_id=request_id, dry_run=dry_run))
    batch: list[pb.ImportedNode] = []
    size = 0
    # Its mistakes were told in the first pass.
    for node in read_nodes(source, form=form, problem=lambda _: None, progress=progress):
        batch.append(node)
        size += node.ByteSize()
        if size > _CHUNK:
            yield pb.ImportNodesRequest(nodes=pb.ImportedNodes(nodes=batch))
            batch, size = [], 0
    if batch:
        yield pb.ImportNodesRequest(nodes=pb.ImportedNodes(nodes=batch))


@contextmanager
def _open(file: Path) -> Iterator[BinaryIO]:
    """The file, or a copy of standard input, which cannot be read twice."""
    if str(file) != "-":
        with file.open("rb") as source:
            yield source
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        yield copy


def _problem_json(file: str, problem: tuple[int, str, str, str]) -> dict[str, Json]:
    line, field, code, message = problem
    return {"file": file, "line": line, "field": field, "code": code, "message": message}


def _tell(file: str, problems: Problems) -> None:
    output.print_table(
        ("where", "field", "problem", "code"),
        ((f"{file}:{line}", field, message, code) for line, field, code, message in problems.told),
        title="Nothing was changed",
    )
    more = problems.count - len(problems.told)
    text = f"{problems.count} problems" + (f"; {more} more are not shown" if more else "")
    output.console().print(output.cell(text))
