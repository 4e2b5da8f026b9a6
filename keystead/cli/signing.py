"""Statement files: what several people sign one after the other, and what each of them is shown before."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from keybroker.statements import Json, Statement, signer_of
from keystead.cli import output
from keystead.cli.exits import UsageError

MAX_FILE: Final = 1 << 20
_INSTANTS: Final = frozenset({"valid_from", "valid_until", "not_after"})


@dataclass(frozen=True, slots=True)
class StatementFile:
    """A statement with the signatures that were made so far.

    Attributes:
        statement: what is signed.
        signatures: compact JWS; they are verified where the public keys are, at the broker.
    """

    statement: Statement
    signatures: tuple[str, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `write` made.

        Raises:
            UsageError: it is none.
            StatementError: what it holds is no statement, or a signature is malformed.
            OSError: it cannot be read.
        """
        with path.open("rb") as source:
            data = source.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise UsageError(f"{path}: more than {MAX_FILE} bytes")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}: not JSON: {error}") from None
        if not isinstance(document, dict) or set(document) != {"statement", "signatures"}:
            raise UsageError(f"{path}: not a statement file: make one with keystead site record")
        signatures = document["signatures"]
        if not isinstance(signatures, list) or not all(isinstance(each, str) for each in signatures):
            raise UsageError(f"{path}: signatures: not a list of texts")
        for each in signatures:
            signer_of(each)
        return cls(Statement.of_document(document["statement"]), tuple(signatures))

    def write(self, path: Path, *, replace: bool) -> None:
        """Write the file at once or not at all; with `replace` it may take another's place.

        Raises:
            UsageError: it is there already.
            OSError: it cannot be written.
        """
        document = {"statement": json.loads(self.statement.payload), "signatures": list(self.signatures)}
        data = json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8") + b"\n"
        if not replace:
            try:
                with path.open("xb") as target:
                    target.write(data)
            except FileExistsError:
                raise UsageError(f"{path}: is there already; nothing was overwritten") from None
            return
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as target:
                target.write(data)
            Path(draft).chmod(path.stat().st_mode & 0o777)
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    @property
    def signers(self) -> tuple[str, ...]:
        """Whom the signatures claim to be by."""
        return tuple(signer_of(each) for each in self.signatures)


def rows(statement: Statement) -> list[tuple[str, str]]:
    """Every field of a statement, none left out, as it is shown to whoever signs it: name and value."""
    head = [("kind", statement.kind), ("author", statement.author)]
    return [*head, *_flat("", statement.body), ("SHA-256", statement.digest.hex())]


def show(statement: Statement, *, title: str) -> None:
    """Print every field of a statement, the digest last."""
    output.print_table(("field", "value"), rows(statement), title=title)


def _flat(name: str, value: Json) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _flat(f"{name}.{key}" if name else key, value[key])
        if not value:
            yield name, "(nothing)"
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _flat(f"{name}[{index}]", item)
        if not value:
            yield name, "(none)"
    elif isinstance(value, int) and not isinstance(value, bool) and name in _INSTANTS:
        yield name, f"{value} ({output.instant(value)})" if 0 <= value <= _LAST_SECOND else str(value)
    else:
        yield name, json.dumps(value, ensure_ascii=True) if not isinstance(value, str) else value


_LAST_SECOND: Final = 253_402_300_799
