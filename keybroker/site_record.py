"""What a site record says: where a site stands, who runs it, who controls them, and for how long that holds.

A record is the body of a statement of kind ``site-record`` (`keybroker.statements`), signed by two authorities or
more. It is never changed: a site that changes gets a new record with a higher serial.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from keybroker.errors import StatementError
from keybroker.statements import Json, Statement

KIND: Final = "site-record"

MAX_INTEGER: Final = (1 << 53) - 1
_LEI: Final = re.compile(r"[0-9A-Z]{18}[0-9]{2}\Z")
_LIST: Final = 64

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}$")]
Text = Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]{0,198}[!-~])?$")]
Certification = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]
Zone = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254})?$")]
Place = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
Seconds = Annotated[int, Field(ge=0, le=MAX_INTEGER)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class LegalEntity(_Part):
    """A legal entity and the law that it is under.

    Attributes:
        name: its registered name, one line of printable ASCII.
        jurisdiction: ISO 3166-1 alpha-2, or ISO 3166-2, of its registration.
        lei: its Legal Entity Identifier (ISO 17442-1), or None.
    """

    name: Text
    jurisdiction: Place
    lei: str | None

    @field_validator("lei")
    @classmethod
    def _is_lei(cls, value: str | None) -> str | None:
        # ISO 17442-1: 18 characters and two check digits by ISO/IEC 7064, MOD 97-10.
        if value is not None and (not _LEI.match(value) or int("".join(str(int(c, 36)) for c in value)) % 97 != 1):
            raise ValueError("not a Legal Entity Identifier: 20 characters with right check digits (ISO 17442-1)")
        return value

    @classmethod
    def read(cls, text: str) -> Self:
        """Read ``NAME:JURISDICTION`` or ``NAME:JURISDICTION:LEI``; the name may hold colons.

        Raises:
            StatementError: another form.
        """
        head, _, last = text.rpartition(":")
        name, jurisdiction, lei = (*head.rpartition(":")[::2], last) if _LEI.match(last) else (head, last, None)
        try:
            return cls(name=name, jurisdiction=jurisdiction, lei=lei)
        except ValidationError as error:
            raise StatementError("legal entity", f"{text!r:.80}: NAME:JURISDICTION[:LEI]: {_first(error)}") from None


class SiteRecord(_Part):
    """One record of a site.

    Attributes:
        site: the site's id.
        serial: 1 for the first record; a record takes the place of one with a lower serial.
        jurisdiction: where it stands, ISO 3166-1 alpha-2 or ISO 3166-2.
        facility: the building.
        operator: who runs it.
        controllers: every legal entity that controls the operator, directly or not.
        certifications: what the site is certified for.
        network_zone: the network that it is in; may be empty.
        valid_from: from when the record holds, integer seconds since the Unix epoch.
        valid_until: until when (exclusive).
    """

    site: Identifier
    serial: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    jurisdiction: Place
    facility: Text
    operator: LegalEntity
    controllers: Annotated[tuple[LegalEntity, ...], Field(max_length=_LIST)]
    certifications: Annotated[tuple[Certification, ...], Field(max_length=_LIST)]
    network_zone: Zone
    valid_from: Seconds
    valid_until: Seconds

    @classmethod
    def of(cls, statement: Statement, *, known_places: Container[str]) -> Self:
        """The record in a statement of kind ``site-record``.

        Args:
            statement: as it was signed.
            known_places: countries and subdivisions that there are.

        Raises:
            StatementError: a field is missing, malformed or unknown, or contradicts another; the text names it.
        """
        if statement.kind != KIND:
            raise StatementError("kind", f"{statement.kind!r}, this must be {KIND!r}")
        record = cls.read(statement.body)
        record.check(known_places=known_places)
        return record

    @classmethod
    def read(cls, body: Mapping[str, Json]) -> Self:
        """A record from plain JSON values, each field checked by itself.

        Raises:
            StatementError: a field is missing, unknown or malformed.
        """
        try:
            # Strict models take tuples from JSON arrays.
            return cls.model_validate_json(json.dumps(dict(body)))
        except ValidationError as error:
            raise StatementError("site record", _first(error)) from None

    def check(self, *, known_places: Container[str]) -> None:
        """Check what no single field can say.

        Raises:
            StatementError: a place that does not exist, no time that it holds, or lists that are not sorted sets.
        """
        entities = {"operator": self.operator} | {f"controllers[{i}]": each for i, each in enumerate(self.controllers)}
        places = {"jurisdiction": self.jurisdiction}
        places |= {f"{field}.jurisdiction": entity.jurisdiction for field, entity in entities.items()}
        for field, place in places.items():
            if place not in known_places:
                raise StatementError(field, f"{place!r} is no country of ISO 3166-1 and no subdivision of ISO 3166-2")
        if self.valid_until <= self.valid_from:
            raise StatementError("valid_until", "must be after valid_from")
        if list(self.certifications) != sorted(set(self.certifications)):
            raise StatementError("certifications", "not in sorted order, or one is there twice")
        names = [(entity.name, entity.jurisdiction) for entity in self.controllers]
        if names != sorted(set(names)):
            raise StatementError("controllers", "not sorted by name, or one is there twice")

    @property
    def exposures(self) -> tuple[str, ...]:
        """Under whose law the operator and the entities that control it are, in sorted order."""
        return tuple(sorted({self.operator.jurisdiction, *(entity.jurisdiction for entity in self.controllers)}))

    def statement(self, *, author: str) -> Statement:
        """The record as a statement to be signed.

        Raises:
            StatementError: the author's name is malformed.
        """
        return Statement.write(kind=KIND, author=author, body=self.model_dump(mode="json"))


def _first(error: ValidationError) -> str:
    item = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in item["loc"])
    return f"{where}: {item['msg']}" if where else item["msg"]
