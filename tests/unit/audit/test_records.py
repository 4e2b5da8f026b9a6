"""Records: canonical bytes, a closed grammar, no room for secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from audit.errors import MalformedError, RecordError
from audit.log import PROJECTED, projections
from audit.records import Actor, Kind, Record, Result, looks_like_key
from audit.tables import AUDIT_ENTRY

Build = Callable[..., Record]

CANONICAL = (
    b'{"actor":{"name":"node-1","role":"node","tenant":null},"assets":["acme/corpus@1","acme/llm@2"],'
    b'"detail":{"cold":true,"count":3,"purposes":["eval","train"],"site_digest":"'
    + b"ab" * 32
    + b'"},"hardware":["nvidia-gpu:0001"],"input_digest":"'
    + b"22" * 32
    + b'","job":"job-1","jurisdiction":"DE-BY","kind":"lease.granted","lease":"lease-1","node":"node-1",'
    b'"policy_digest":"' + b"11" * 32 + b'","reasons":[],"result":"allowed","site":"hall-1","tenant":"acme",'
    b'"time":1800000001,"version":1}'
)


def test_canonical_bytes_are_fixed(record: Build) -> None:
    built = record(
        1,
        assets=["acme/llm@2", "acme/corpus@1", "acme/llm@2"],
        hardware=["nvidia-gpu:0001"],
        jurisdiction="DE-BY",
        detail={"purposes": ["eval", "train"], "count": 3, "cold": True, "site_digest": "ab" * 32},
    )
    assert built.payload() == CANONICAL
    assert Record.parse(CANONICAL) == built


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version":1', b'"version":2'),
        (b'"version":1', b'"version":1.0'),
        (b'"version":1}', b'"version":1,"more":1}'),
        (b'"version":1}', b'"version":1} '),
        (b'"time":1800000001', b'"time":"1800000001"'),
        (b'"time":1800000001', b'"time":1800000001.0'),
        (b'"time":1800000001', b'"time":-1'),
        (b'"time":1800000001', b'"time":9007199254740992'),
        (b'"cold":true', b'"cold":null'),
        (b'"lease.granted"', b'"lease.invented"'),
        (b'"allowed"', b'"maybe"'),
        (b'"acme/corpus@1","acme/llm@2"', b'"acme/llm@2","acme/corpus@1"'),
        (b'"acme/corpus@1"', b'"acme/corpus@01"'),
        (b'"site":"hall-1","tenant":"acme"', b'"tenant":"acme","site":"hall-1"'),
        (b'"site":"hall-1",', b""),
        (b'"site":"hall-1"', b'"site":"hall-1","site":"hall-1"'),
        (b'"eval"', b'"\\u0065val"'),
        (b'"eval"', b'"\xff"'),
        (b"{", b""),
    ],
)
def test_only_canonical_records_are_read(old: bytes, new: bytes) -> None:
    assert old in CANONICAL
    with pytest.raises(MalformedError, match="audit record"):
        Record.parse(CANONICAL.replace(old, new, 1))


BAD: list[dict[str, Any]] = [
    {"kind": "lease.granted"},
    {"result": "allowed"},
    {"time": 1.0},
    {"time": True},
    {"time": -1},
    {"time": 1 << 53},
    {"actor": None},
    {"job": "a b"},
    {"job": ""},
    {"job": "x\n"},
    {"job": "x" * 256},
    {"node": "ünïcode"},
    {"hardware": "nvidia-gpu:01"},
    {"hardware": ["nvidia-gpu"]},
    {"hardware": [f"nvidia-gpu:{n}" for n in range(513)]},
    {"jurisdiction": "de"},
    {"jurisdiction": "Germany"},
    {"assets": ["llm@1"]},
    {"assets": ["acme/llm"]},
    {"assets": [b"acme/llm@1"]},
    {"policy_digest": "11"},
    {"policy_digest": "AA" * 32},
    {"reasons": ["LATE"]},
    {"result": Result.DENIED},
    {"result": Result.DENIED, "reasons": ["late"]},
    {"detail": {"Upper": 1}},
    {"detail": {"x": None}},
    {"detail": {"x": 0.5}},
    {"detail": {"x": {"deep": 1}}},
    {"detail": {"x": b"bytes"}},
    {"detail": {"x": "two\nlines"}},
    {"detail": {"x": "x" * 513}},
    {"detail": {"x": 1 << 53}},
    {"detail": {f"k{n}": n for n in range(65)}},
    {"prompt": "hello"},
]


@pytest.mark.parametrize("fields", BAD, ids=lambda fields: str(fields)[:50])
def test_what_may_not_be_written(record: Build, fields: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        record(1, **fields)


KEYS = [
    "00" * 32,
    "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/AbCdE=",
    "key=AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE",
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz",
]


@pytest.mark.parametrize("secret", KEYS)
def test_what_looks_like_a_key_is_refused_and_not_repeated(record: Build, secret: str) -> None:
    assert looks_like_key(secret)
    for value in (secret, ["fine", secret]):
        with pytest.raises(RecordError, match="looks like key material") as caught:
            record(1, detail={"note": value})
        assert secret[:20] not in str(caught.value)
    assert record(1, detail={"note_digest": secret}).detail["note_digest"] == secret


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model-weights-for-internal-evaluation-and-training-only",
        "node-17.rack-4.hall-2.example",
        "a" * 63,
        "7" * 42,
    ],
)
def test_what_does_not_look_like_a_key(text: str) -> None:
    assert not looks_like_key(text)


def test_refused_values_are_not_repeated(record: Build) -> None:
    with pytest.raises(RecordError) as caught:
        record(1, job="hunter2 secret")
    assert "hunter2" not in str(caught.value)
    assert "job" in str(caught.value)


def test_actor_is_built_with_typed_errors() -> None:
    assert Actor.build(role="owner", name="CN=alice,O=acme", tenant="acme").tenant == "acme"
    with pytest.raises(RecordError, match="audit actor: name"):
        Actor.build(role="owner", name="two words")


def test_a_record_cannot_be_altered(record: Build) -> None:
    built = record(1)
    with pytest.raises(TypeError):
        built.detail["number"] = 2
    with pytest.raises(ValueError, match="frozen"):
        built.time = 2


def test_projections_are_the_columns_that_erasure_clears(record: Build) -> None:
    kept = {"id", "leaf_index", "digest", "leaf_hash", "salt", "payload", "sealed", "key_id"}
    columns = set(AUDIT_ENTRY.c.keys()) - kept
    assert set(projections(record(1))) == set(PROJECTED) == columns


def test_kinds_fit_their_column() -> None:
    assert max(len(kind.value) for kind in Kind) <= 64
