from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import MalformedError
from attester.collect.certificate_table import ARK, ASK, VCEK, certificate_table_to_bytes, parse_certificate_table

THREE = {VCEK: b"vcek certificate", ASK: b"ask", ARK: b"ark"}


def test_layout_on_the_wire() -> None:
    data = certificate_table_to_bytes({VCEK: b"abc"})
    # RFC 4122's byte order, as AMD's own tool writes it with uuid_parse.
    assert data[:16].hex() == "63da758de6644564adc5f4b93be8accd"
    assert data[16:24] == (48).to_bytes(4, "little") + (3).to_bytes(4, "little")
    assert data[24:48] == bytes(24)
    assert data[48:] == b"abc"
    assert parse_certificate_table(data) == {VCEK: b"abc"}


def test_no_certificates() -> None:
    assert parse_certificate_table(b"") == {}
    assert parse_certificate_table(bytes(24)) == {}
    assert parse_certificate_table(bytes(4096)) == {}


def test_padding_after_the_certificates_is_the_hosts() -> None:
    assert parse_certificate_table(certificate_table_to_bytes(THREE) + bytes(4000)) == THREE


def entry(guid: UUID, offset: int, length: int) -> bytes:
    return guid.bytes + offset.to_bytes(4, "little") + length.to_bytes(4, "little")


@pytest.mark.parametrize(
    "blob",
    [
        bytes(23),
        entry(VCEK, 48, 3),
        entry(VCEK, 48, 3) + bytes(23),
        entry(VCEK, 48, 3) + bytes(24) + b"ab",
        entry(VCEK, 47, 3) + bytes(24) + b"abc",
        entry(VCEK, 0, 3) + bytes(24) + b"abc",
        entry(VCEK, 48, 0) + bytes(24) + b"abc",
        entry(VCEK, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(24) + b"abc",
        entry(VCEK, 72, 1) + entry(VCEK, 72, 2) + bytes(24) + b"abc",
    ],
)
def test_malformed_tables_are_refused(blob: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_certificate_table(blob)


@given(st.dictionaries(st.uuids(), st.binary(min_size=1, max_size=50), max_size=6))
def test_round_trip(certificates: dict[UUID, bytes]) -> None:
    assert parse_certificate_table(certificate_table_to_bytes(certificates)) == certificates


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error(blob: bytes) -> None:
    try:
        found = parse_certificate_table(blob)
    except MalformedError:
        return
    assert all(certificate in blob for certificate in found.values())
