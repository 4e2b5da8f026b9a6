"""Statements: exactly what was written is signed, by exactly those who may, and nothing else passes."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest

from keybroker.errors import SignaturesMissingError, StatementError
from keybroker.keys.signing import SigningKey
from keybroker.statements import MAX_SIGNATURES, MAX_STATEMENT, Authorities, Statement, media_type, signer_of, verify

KEYS = {name: SigningKey.generate() for name in ("facility", "legal", "security")}
AUTHORITIES = Authorities.of({name: key.public_key for name, key in KEYS.items()}, threshold=2)
STATEMENT = Statement.write(kind="site-record", author="alice", body={"site": "ber1", "places": ["DE-BE"], "n": 7})


def signature(name: str, statement: Statement = STATEMENT, *, key: SigningKey | None = None, **headers: Any) -> str:
    """A signature, with other headers than the right ones where they are given."""
    header = {"typ": media_type(statement.kind), "kid": name} | headers
    private = (key or KEYS[name]).private_key
    return jwt.PyJWS().encode(statement.payload, private, algorithm="EdDSA", headers=header)


def check(*signatures: str, payload: bytes = STATEMENT.payload, **changes: Any) -> tuple[str, ...]:
    """Verify a site record; returns who signed it."""
    options: dict[str, Any] = {"kind": "site-record", "authorities": AUTHORITIES, "author_counts": True}
    return verify(payload, signatures, **(options | changes))[1]


def test_two_of_three_suffice_in_any_order() -> None:
    for names in (("legal", "facility"), ("facility", "legal")):
        assert check(*(STATEMENT.sign(KEYS[name].private_key, signer=name) for name in names)) == ("facility", "legal")
    assert check(*(signature(name) for name in KEYS)) == ("facility", "legal", "security")


def test_what_is_read_is_what_was_written() -> None:
    read = Statement.parse(STATEMENT.payload)
    assert read == STATEMENT
    assert (read.kind, read.author, dict(read.body)) == ("site-record", "alice", json.loads(read.payload)["body"])
    assert Statement.of_document(json.loads(STATEMENT.payload)) == STATEMENT
    assert signer_of(signature("legal")) == "legal"


def test_too_few_names_who_can_still_sign() -> None:
    with pytest.raises(SignaturesMissingError, match=r"1 of 2.*facility, security") as caught:
        check(signature("legal"))
    assert caught.value.code == "SIGNATURES_MISSING"
    with pytest.raises(SignaturesMissingError, match="0 of 2"):
        check()
    nobody = Authorities.of({}, threshold=2)
    with pytest.raises(SignaturesMissingError, match=r"\[\[estate.authorities\]\]"):
        check(authorities=nobody)


@pytest.mark.parametrize(
    ("forged", "match"),
    [
        (lambda: signature("legal", key=KEYS["facility"]), "legal: does not verify"),
        (lambda: signature("mallory", key=SigningKey.generate()), "'mallory' is no authority here"),
        (lambda: signature("legal", typ="keystead-declassification+jws"), "not alg, kid and typ"),
        (lambda: signature("legal", typ=None), "not alg, kid and typ"),
        (lambda: signature("legal", crit=["exp"]), "critical extension"),
        (lambda: signature("legal", jwk={"kty": "OKP"}), "not alg, kid and typ"),
        (lambda: signature("legal", Statement.write(kind="site-record", author="alice", body={})), "another statement"),
        (lambda: signature("legal") + "A", "legal: does not verify"),
        (lambda: signature("legal").rpartition(".")[0] + ".", "legal: does not verify"),
        (lambda: "legal", "not a compact JWS"),
        (lambda: "", "not a compact JWS"),
        (lambda: "x" * 200_000, "at most"),
        (lambda: signature("facility"), "signed twice"),
    ],
)
def test_one_signature_that_is_wrong_refuses_all(forged: Any, match: str) -> None:
    with pytest.raises(StatementError, match=match):
        check(signature("facility"), signature("security"), forged())


def test_no_algorithm_and_others_are_refused() -> None:
    header = base64.urlsafe_b64encode(
        json.dumps({"alg": "none", "kid": "legal", "typ": media_type("site-record")}).encode()
    ).rstrip(b"=")
    payload = base64.urlsafe_b64encode(STATEMENT.payload).rstrip(b"=")
    none = b".".join([header, payload, b""]).decode()
    shared = jwt.PyJWS().encode(
        STATEMENT.payload, b"k" * 32, algorithm="HS256", headers={"typ": media_type("site-record"), "kid": "legal"}
    )
    for token in (none, shared):
        with pytest.raises(StatementError, match="legal: does not verify"):
            check(signature("facility"), token)


def test_a_statement_of_another_kind_is_refused() -> None:
    tokens = [signature(name) for name in ("facility", "legal")]
    with pytest.raises(StatementError, match="'site-record', this must be 'declassification'"):
        check(*tokens, kind="declassification")


def test_an_author_cannot_approve_where_authors_do_not_count() -> None:
    statement = Statement.write(kind="declassification", author="legal", body={})
    tokens = {name: signature(name, statement) for name in KEYS}
    options = {"payload": statement.payload, "kind": "declassification", "author_counts": False}
    assert check(tokens["facility"], tokens["security"], **options) == ("facility", "security")
    with pytest.raises(StatementError, match="'legal' wrote it"):
        check(*tokens.values(), **options)


def test_too_many_signatures() -> None:
    with pytest.raises(StatementError, match="at most 16"):
        check(*([signature("legal")] * (MAX_SIGNATURES + 1)))


def test_two_names_with_one_key_are_one_person() -> None:
    key = KEYS["legal"].public_key
    with pytest.raises(StatementError, match="sign as two"):
        Authorities.of({"legal": key, "facility": key}, threshold=2)
    with pytest.raises(StatementError, match="authority"):
        Authorities.of({"Le gal": key}, threshold=2)


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        (b"", "not JSON"),
        (b"[]", "not an object"),
        (b"[" * 100_000, "at most"),
        (b"[" * 60_000, "not JSON"),
        (b'{"author":"a","body":{},"kind":"k","version":2}', "version"),
        (b'{"author":"a","body":{},"kind":"k","version":true}', "version"),
        (b'{"author":"a","body":{},"kind":"k","version":1.0}', "not an integer"),
        (b'{"author":"a","body":{},"kind":"k","version":NaN}', "not an integer"),
        (b'{"author":"a","body":[],"kind":"k","version":1}', "body"),
        (b'{"author":"A","body":{},"kind":"k","version":1}', "author"),
        (b'{"author":7,"body":{},"kind":"k","version":1}', "author"),
        (b'{"author":"a","body":{},"kind":"K","version":1}', "kind"),
        (b'{"author":"a","body":{},"kind":"k","version":1,"x":1}', "author, body, kind and version"),
        (b'{"author": "a","body":{},"kind":"k","version":1}', "canonical"),
        (b'{"body":{},"author":"a","kind":"k","version":1}', "canonical"),
        (b'{"author":"a","body":{"n":1,"n":1},"kind":"k","version":1}', "canonical"),
        (b'{"author":"a","body":{"n":1e400},"kind":"k","version":1}', "not an integer"),
        (b'{"author":"a","body":{"n":9007199254740993},"kind":"k","version":1}', "canonical"),
        (b'{"author":"a","body":{"n":"\\ud800"},"kind":"k","version":1}', "canonical"),
    ],
)
def test_payloads_that_are_no_statement(payload: bytes, match: str) -> None:
    with pytest.raises(StatementError, match=match):
        Statement.parse(payload)


def test_a_body_that_is_too_long() -> None:
    with pytest.raises(StatementError, match="at most"):
        Statement.write(kind="k", author="a", body={"text": "x" * MAX_STATEMENT})
