"""Evidence packages about sealed payloads: opened with the log's keys, named where there are none, erased with them."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from audit import erasure
from audit.cosignature import WitnessPolicy
from audit.log import append_many
from audit.note import NoteSigner
from audit.package.build import Built, build_package
from audit.package.files import open_archive
from audit.package.gaps import GapCode
from audit.package.manifest import Scope
from audit.package.verify import PackageResult, verify_package
from audit.records import Actor, Record
from audit.sequencer import Sequencer

NOW = 1_800_000_000
OFFICER = Actor(role="operator", name="dpo")
NOTE = "erased on 2027-01-15T08:00:01Z, as entry 12 records"


@pytest.fixture
def sequencer(keyed: Engine, make_log: Callable[..., Sequencer], record: Callable[..., Record]) -> Sequencer:
    """A sealed log of twelve entries: of acme's 0, 3, 6, 9; of its user ada 1, 4, 7, 10; of globex 2, 5, 8, 11."""
    sequencer = make_log(keyed)
    made = (
        record(
            number,
            tenant="globex" if number % 3 == 2 else "acme",
            assets=["acme/llm@1"],
            detail={"user": "ada"} if number % 3 == 1 else {},
        )
        for number in range(12)
    )
    with keyed.begin() as connection:
        append_many(connection, list(made))
    sequencer.run_once(NOW + 20)
    return sequencer


def build(engine: Engine, signer: NoteSigner, scope: Scope) -> tuple[Built, PackageResult]:
    file = io.BytesIO()
    with engine.connect() as connection:
        built = build_package(connection, file, scope=scope, signer=signer, witnesses=WitnessPolicy())
    with open_archive(file) as files:
        result = verify_package(files, signer.verifier)
    assert result.ok, result.problems
    return built, result


def items(built: Built, code: GapCode) -> list[tuple[int | None, str]]:
    return [(item.number, item.note) for gap in built.description.gaps if gap.code is code for item in gap.items]


def test_with_keys_nothing_is_sealed(keyed: Engine, sequencer: Sequencer, signer: NoteSigner) -> None:
    for scope, records in ((Scope(), 12), (Scope(asset="acme/llm"), 12), (Scope(tenant="acme"), 8)):
        _, result = build(keyed, signer, scope)
        assert (result.records, result.unreadable) == (records, 0)


def test_without_keys_every_record_is_named_as_sealed(
    any_engine: Engine, keyed: Engine, sequencer: Sequencer, signer: NoteSigner
) -> None:
    built, result = build(any_engine, signer, Scope())
    assert (result.records, result.unreadable) == (12, 12)
    assert items(built, GapCode.SEALED) == [(index, "") for index in range(12)]
    assert items(built, GapCode.ERASED_UNRECORDED) == []


@pytest.mark.parametrize("cleared", [False, True])
def test_what_was_erased_with_its_key_names_the_record(
    keyed: Engine, sequencer: Sequencer, signer: NoteSigner, cleared: bool
) -> None:
    with keyed.begin() as connection:
        number = erasure.begin(connection, tenant="acme", subject="ada", actor=OFFICER, reason="request 7", now=NOW)
        measured = erasure.measure(connection, number)
        erasure.record(connection, number, measured, now=NOW + 1)
    sequencer.run_once(NOW + 30)
    if cleared:
        with keyed.begin() as connection:
            assert erasure.clear(connection, number, limit=100, now=NOW + 2)
    built, result = build(keyed, signer, Scope())
    assert items(built, GapCode.ERASED) == [(index, NOTE) for index in (1, 4, 7, 10)]
    assert items(built, GapCode.ERASED_UNRECORDED) == []
    assert (result.records, result.unreadable) == (13, 4)
    built, result = build(keyed, signer, Scope(asset="acme/llm"))
    if cleared:  # its numbers are gone with it
        assert items(built, GapCode.COUNTER_MISSING) == [(number, "") for number in (2, 5, 8, 11)]
        assert items(built, GapCode.ERASED_OWNER_UNKNOWN) == [(None, "4 erased entries stand in the span")]
    else:
        assert items(built, GapCode.ERASED) == [(index, NOTE) for index in (1, 4, 7, 10)]
        assert items(built, GapCode.ERASED_OWNER_UNKNOWN) == []
