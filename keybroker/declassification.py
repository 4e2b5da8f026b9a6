"""Relaxing what a version demands: a statement that several people sign, and exactly what it says.

A *declassification* is a statement (`keybroker.statements`) whose body has::

    asset        TENANT/NAME
    version      which version; its constraints change, those of nothing else
    serial       1 for the version's first declassification, then one more each time
    from         SHA-256 of the canonical JSON of the constraints that hold now
    constraints  the new constraints, all of them
    changes      for every field that changes: field, before, after (null: it demands nothing), relaxes
    reason       one line
    not_after    until when it may be applied (exclusive), integer seconds since the Unix epoch

A declassification only relaxes: in each field the constraints before are at least as strict as those after. So whatever
was derived before stays as strict as what it came from. To replace one demand by another, allow the new one beside the
old one first; `keybroker.tightening.constrain` then takes the old one away.

`changes` names every field that differs and no other, and undoing them in `constraints` gives the document whose digest
is `from`: so whoever reads only the statement can tell before from after, and the two cannot contradict each other.
What was derived from the version before keeps its own constraints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import rfc8785

from keybroker import requests
from keybroker.constraints import FIELDS, Constraints, relaxes
from keybroker.errors import ConstraintsError, InvalidRequestError, StatementError
from keybroker.statements import Json, Statement
from keystead.binding import AssetRef, BindingError, sha256

KIND: Final = "declassification"

MAX_INTEGER: Final = (1 << 53) - 1
_MEMBERS: Final = frozenset({"asset", "version", "serial", "from", "constraints", "changes", "reason", "not_after"})
_CHANGE: Final = frozenset({"field", "before", "after", "relaxes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happens to one field.

    Attributes:
        field: the field of `keybroker.constraints.Constraints`.
        before, after: what it demands; None for nothing.
        relaxes: that it becomes freer, as every change here must.
    """

    field: str
    before: Json
    after: Json
    relaxes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Declassification:
    """What a declassification says.

    Attributes:
        ref: the version.
        serial: 1 or more.
        before: the constraints that it starts from.
        after: the constraints that it puts in their place.
        reason: why.
        not_after: until when it may be applied (exclusive).
    """

    ref: AssetRef
    serial: int
    before: Constraints
    after: Constraints
    reason: str
    not_after: int

    @property
    def changes(self) -> tuple[Change, ...]:
        """Every field that changes, in the order of `Constraints`' fields."""
        old, new = self.before.to_document(), self.after.to_document()
        freer = frozenset(relaxes(self.before, self.after))
        return tuple(
            Change(field=name, before=old.get(name), after=new.get(name), relaxes=name in freer)
            for name in FIELDS
            if old.get(name) != new.get(name)
        )

    @property
    def tenant(self) -> str:
        """Whose asset it is."""
        return self.ref.asset.partition("/")[0]

    def statement(self, *, author: str) -> Statement:
        """The statement to be signed.

        Raises:
            StatementError: the author's name is malformed, nothing is relaxed, a field does not only become freer, or
                the constraints are too long.
        """
        changes = self.changes
        if not changes:
            raise StatementError("changes", "nothing becomes freer: the constraints are those that hold now")
        stricter = relaxes(self.after, self.before)
        if stricter:
            raise StatementError(
                f"changes: {stricter[0]}",
                "does not only become freer: keep what is allowed and allow more; keystead asset constrain tightens",
            )
        body: dict[str, Json] = {
            "asset": self.ref.asset,
            "version": self.ref.version,
            "serial": self.serial,
            "from": sha256(self.before.to_json().encode("utf-8")).hex(),
            "constraints": self.after.to_document(),
            "changes": [
                {"field": each.field, "before": each.before, "after": each.after, "relaxes": each.relaxes}
                for each in changes
            ],
            "reason": self.reason,
            "not_after": self.not_after,
        }
        return Statement.write(kind=KIND, author=author, body=body)

    @classmethod
    def of(cls, statement: Statement) -> Self:
        """Read a statement of kind ``declassification``.

        Raises:
            StatementError: it is none, a field is malformed, or `changes` is not exactly what changes.
        """
        if statement.kind != KIND:
            raise StatementError("kind", f"{statement.kind!r}, this must be {KIND!r}")
        body = statement.body
        if set(body) != _MEMBERS:
            raise StatementError("body", f"needs exactly {', '.join(sorted(_MEMBERS))}")
        after = _constraints(body["constraints"], "constraints")
        if after.to_document() != body["constraints"]:
            raise StatementError("constraints", "not in canonical form: sorted, without what is implied")
        made = cls(
            ref=_ref(body["asset"], body["version"]),
            serial=_integer(body["serial"], "serial"),
            before=_undone(after, body["changes"]),
            after=after,
            reason=_line(body["reason"]),
            not_after=_integer(body["not_after"], "not_after"),
        )
        # Whatever was said otherwise than this module says it is refused: one statement has one reading.
        if made.statement(author=statement.author).payload != statement.payload:
            raise StatementError("changes", "not exactly what changes between the constraints before and after")
        return made


def _undone(after: Constraints, changes: Json) -> Constraints:
    """The constraints before: those after, with every change taken back."""
    document: dict[str, Any] = after.to_document()
    if not isinstance(changes, Sequence) or isinstance(changes, str):
        raise StatementError("changes", "not a list")
    for index, change in enumerate(changes):
        where = f"changes[{index}]"
        if not isinstance(change, Mapping) or set(change) != _CHANGE:
            raise StatementError(where, f"needs exactly {', '.join(sorted(_CHANGE))}")
        name = change["field"]
        if not isinstance(name, str) or name not in FIELDS:
            raise StatementError(f"{where}.field", "no field of constraints")
        document.pop(name, None)
        if change["before"] is not None:
            document[name] = change["before"]
    return _constraints(document, "changes")


def _constraints(document: Json, name: str) -> Constraints:
    try:
        # A plain copy: statements freeze their outermost object.
        return Constraints.from_document(json.loads(rfc8785.dumps(document)))
    except ConstraintsError as error:
        raise StatementError(f"{name}: {error.field}", str(error)) from None


def _ref(asset: Json, version: Json) -> AssetRef:
    try:
        name = requests.asset_name(asset if isinstance(asset, str) else "", "asset")
        return AssetRef.parse(f"{name}@{_integer(version, 'version')}")
    except (InvalidRequestError, BindingError) as error:
        raise StatementError("asset", str(error)) from None


def _integer(value: Json, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_INTEGER:
        raise StatementError(name, f"{value!r:.40} is not an integer from 1 to {MAX_INTEGER}")
    return value


def _line(value: Json) -> str:
    try:
        return requests.text(value if isinstance(value, str) else "", "reason")
    except InvalidRequestError as error:
        raise StatementError("reason", str(error)) from None
