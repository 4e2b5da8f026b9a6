"""Site records: each field by its rule, and what no single field can say."""

from __future__ import annotations

from typing import Any

import pytest

from keybroker.errors import StatementError
from keybroker.site_record import KIND, LegalEntity, SiteRecord
from keybroker.statements import Statement
from policy.places import known_places

OPERATOR = {"name": "ACME GmbH", "jurisdiction": "DE", "lei": "529900T8BM49AURSDO55"}
HOLDING = {"name": "ACME Holding S.A.", "jurisdiction": "LU", "lei": None}
BODY: dict[str, Any] = {
    "site": "ber1",
    "serial": 1,
    "jurisdiction": "DE-BE",
    "facility": "Berlin 1",
    "operator": OPERATOR,
    "controllers": [HOLDING],
    "certifications": ["c5", "iso27001"],
    "network_zone": "zone-a",
    "valid_from": 1_000,
    "valid_until": 2_000,
}


def read(**changes: Any) -> SiteRecord:
    """The record with some fields changed, as it comes back from its statement."""
    statement = Statement.write(kind=KIND, author="alice", body=BODY | changes)
    return SiteRecord.of(Statement.parse(statement.payload), known_places=known_places())


def test_what_it_says() -> None:
    record = read()
    assert record.exposures == ("DE", "LU")
    assert record.operator.lei == "529900T8BM49AURSDO55"
    assert record.certifications == ("c5", "iso27001")
    assert dict(record.statement(author="alice").body) == BODY
    assert read(controllers=[]).exposures == ("DE",)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"site": "a b"}, "site"),
        ({"serial": 0}, "serial"),
        ({"serial": "1"}, "serial"),
        ({"serial": True}, "serial"),
        ({"jurisdiction": "EU"}, "jurisdiction: 'EU' is no country"),
        ({"jurisdiction": "DE-XX"}, "jurisdiction: 'DE-XX'"),
        ({"jurisdiction": "FR-NC"}, "jurisdiction: 'FR-NC'"),
        ({"jurisdiction": "de"}, "jurisdiction"),
        ({"facility": " "}, "facility"),
        ({"facility": "M\u00fcnchen"}, "facility"),
        ({"operator": OPERATOR | {"jurisdiction": "XX"}}, r"operator.jurisdiction: 'XX'"),
        ({"operator": OPERATOR | {"lei": "529900T8BM49AURSDO56"}}, "operator.lei"),
        ({"operator": OPERATOR | {"lei": "529900"}}, "operator.lei"),
        ({"operator": OPERATOR | {"more": 1}}, "operator.more"),
        ({"operator": "ACME"}, "operator"),
        ({"controllers": [HOLDING | {"jurisdiction": "ZZ"}]}, r"controllers\[0\].jurisdiction: 'ZZ'"),
        ({"controllers": [HOLDING, HOLDING]}, "controllers"),
        ({"controllers": [HOLDING, OPERATOR]}, "controllers"),
        ({"certifications": ["iso27001", "c5"]}, "certifications"),
        ({"certifications": ["c5", "c5"]}, "certifications"),
        ({"certifications": ["ISO 27001"]}, "certifications"),
        ({"network_zone": None}, "network_zone"),
        ({"valid_until": 1_000}, "valid_until"),
        ({"valid_from": -1}, "valid_from"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_is_refused_and_the_field_that_is_named(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(StatementError, match=match):
        read(**changes)


@pytest.mark.parametrize("field", sorted(BODY))
def test_every_field_is_needed(field: str) -> None:
    body = {name: value for name, value in BODY.items() if name != field}
    with pytest.raises(StatementError, match=field):
        SiteRecord.of(Statement.write(kind=KIND, author="alice", body=body), known_places=known_places())


def test_another_kind_is_no_site_record() -> None:
    with pytest.raises(StatementError, match="kind"):
        SiteRecord.of(Statement.write(kind="declassification", author="a", body=BODY), known_places=known_places())


def test_entities_on_the_command_line() -> None:
    assert LegalEntity.read("ACME GmbH:DE") == LegalEntity(name="ACME GmbH", jurisdiction="DE", lei=None)
    assert LegalEntity.read("A: B:US-DE:529900T8BM49AURSDO55") == LegalEntity(
        name="A: B", jurisdiction="US-DE", lei="529900T8BM49AURSDO55"
    )
    for text in ("ACME", "ACME:", ":DE", "ACME:de", "ACME:DE:5299", ""):
        with pytest.raises(StatementError, match="legal entity"):
            LegalEntity.read(text)
