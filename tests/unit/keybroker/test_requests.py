"""Checks of request fields: each names the field, and takes nothing that is nearly right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker import requests
from keybroker.errors import InvalidRequestError

UUID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
KNOWN = frozenset({"EU", "DE"})

BAD = {
    "request_id": (
        requests.request_id,
        ["", "x", UUID.upper(), f"{UUID}\n", "{" + "0" * 36 + "}"],
    ),
    "identifier": (lambda text: requests.identifier(text, "f"), ["", " ", "a b", "ü", "a\n", "\0", "-a", "a" * 256]),
    "asset_name": (
        requests.asset_name,
        ["", "acme", "acme/", "/x", "acme/a/b", "Acme/x", "acme/X", "acme/x\n", "acme/ü", "acme/" + "a" * 64, ".a/b"],
    ),
    "declared": (lambda text: requests.declared(text, "f", known=KNOWN), ["de", "*", "EU\n", "FR-"]),
    "text": (lambda text: requests.text(text, "f"), ["", "a\nb", "a" * 201, "é", "\x1b[0m", "\x7f"]),
    "page_token": (requests.page_token, [" ", "\0", "a b", "a" * 256]),
}


@pytest.mark.parametrize(("check", "text"), [(check, text) for check, texts in BAD.values() for text in texts])
def test_what_is_refused(check: Callable[[str], object], text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check(text)
    assert caught.value.field
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@given(st.text(max_size=300))
def test_any_text_is_taken_as_it_is_or_refused(text: str) -> None:
    for check, _ in BAD.values():
        try:
            taken = check(text)
        except InvalidRequestError:
            continue
        assert taken in (text, (text,))


def test_what_is_taken() -> None:
    assert requests.request_id("1b4e28ba-2fa1-41d2-883f-0016d3cca427")
    assert requests.asset_name("acme/llama-3.1_70b") == "acme/llama-3.1_70b"
    assert [requests.declared(text, "f", known=KNOWN) for text in ("", "DE")] == ["", "DE"]
    assert requests.page_token("") == ""
    assert requests.names(["b", "a"], "f") == ("a", "b")
    assert requests.page_size(0) == 100
    assert requests.page_size(5_000) == 1_000
    assert requests.digest(b"d" * 32, "f") == b"d" * 32


def test_lists_and_digests_that_are_refused() -> None:
    for call in (
        lambda: requests.names([], "f", at_least=1),
        lambda: requests.names(["a", "a"], "f"),
        lambda: requests.names([f"n{number}" for number in range(257)], "f"),
        lambda: requests.digest(b"d" * 31, "f"),
        lambda: requests.digest(b"", "f"),
    ):
        with pytest.raises(InvalidRequestError, match=r"^f: "):
            call()
