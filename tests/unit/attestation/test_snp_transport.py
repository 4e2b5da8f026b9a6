"""The envelopes in which SNP evidence travels: certificate table, HCL report, PEM; and the cache of chains."""

from __future__ import annotations

import base64
import hashlib
import struct
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import MalformedError
from attestation.lru import LruCache
from attestation.pem import MAX_PEM_SIZE, certificates_from_pem
from attestation.snp.abi import REPORT_SIZE
from attestation.snp.azure_hcl import HclReport
from attestation.snp.cert_table import (
    ARK_GUID,
    ASK_GUID,
    MAX_ENTRIES,
    MAX_TABLE_SIZE,
    VCEK_GUID,
    VLEK_GUID,
    cert_table_to_bytes,
    chain_from_table,
    parse_cert_table,
)


def _pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def _table(*entries: tuple[UUID, bytes]) -> bytes:
    offset = 24 * (len(entries) + 1)
    head, body = b"", b""
    for guid, data in entries:
        head += struct.pack("<16sII", guid.bytes, offset + len(body), len(data))
        body += data
    return head + bytes(24) + body


def test_the_layout_of_a_certificate_table() -> None:
    data = cert_table_to_bytes({VCEK_GUID: b"abc"})
    # RFC 4122's byte order, as AMD's own tool writes it with uuid_parse.
    assert data[:16].hex() == "63da758de6644564adc5f4b93be8accd"
    assert data[16:24] == (48).to_bytes(4, "little") + (3).to_bytes(4, "little")
    assert data[24:] == bytes(24) + b"abc"


def test_padding_after_the_certificates_is_the_hosts() -> None:
    certificates = {VCEK_GUID: b"vcek", ASK_GUID: b"ask", ARK_GUID: b"ark"}
    assert parse_cert_table(cert_table_to_bytes(certificates) + bytes(4000)) == certificates


@given(st.dictionaries(st.uuids().filter(lambda guid: guid.int), st.binary(min_size=1, max_size=9), max_size=6))
def test_a_certificate_table_comes_back(certificates: dict[UUID, bytes]) -> None:
    assert parse_cert_table(cert_table_to_bytes(certificates)) == certificates


def test_a_certificate_table_is_read_in_der_and_pem() -> None:
    table = parse_cert_table(_table((ARK_GUID, b"ark"), (ASK_GUID, _pem(b"ask")), (VCEK_GUID, b"vcek")))
    assert table == {ARK_GUID: b"ark", ASK_GUID: b"ask", VCEK_GUID: b"vcek"}
    assert chain_from_table(table) == (b"vcek", b"ask", b"ark")
    assert chain_from_table({VLEK_GUID: b"vlek", VCEK_GUID: b"vcek"}) == (b"vlek",)
    assert chain_from_table({VLEK_GUID: b"vlek", VCEK_GUID: b"vcek"}, leaf=VCEK_GUID) == (b"vcek",)
    assert parse_cert_table(bytes(24)) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(23),
        VCEK_GUID.bytes + struct.pack("<II", 48, 4),
        VCEK_GUID.bytes + struct.pack("<II", 48, 5) + bytes(24) + b"vcek",
        VCEK_GUID.bytes + struct.pack("<II", 47, 4) + bytes(24) + b"vcek",
        VCEK_GUID.bytes + struct.pack("<II", 48, 0) + bytes(24) + b"vcek",
        VCEK_GUID.bytes + struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF) + bytes(24) + b"vcek",
        bytes(16) + struct.pack("<II", 1, 0),
        bytes(16) + struct.pack("<II", 0, 1),
        _table((VCEK_GUID, b"a"), (VCEK_GUID, b"b")),
        _table((VCEK_GUID, _pem(b"a") + _pem(b"b"))),
        _table(*((UUID(int=number), b"x") for number in range(1, MAX_ENTRIES + 2))),
        bytes(MAX_TABLE_SIZE + 1),
    ],
)
def test_a_malformed_certificate_table(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_cert_table(data)


def test_the_limits_of_a_certificate_table() -> None:
    full = _table(*((UUID(int=number), b"x") for number in range(1, MAX_ENTRIES + 1)))
    assert len(parse_cert_table(full)) == MAX_ENTRIES
    assert parse_cert_table(full + bytes(MAX_TABLE_SIZE - len(full))) == parse_cert_table(full)
    with pytest.raises(MalformedError, match="at most"):
        parse_cert_table(full + bytes(MAX_TABLE_SIZE - len(full) + 1))


def test_the_published_certificate_table(vectors: Path) -> None:
    folder = vectors / "snp" / "genoa-v3-extended-report"
    table = parse_cert_table((folder / "cert_table.bin").read_bytes())
    leaf, *authorities = chain_from_table(table)
    assert leaf == (folder / "vcek.der").read_bytes()
    assert tuple(authorities) == certificates_from_pem((folder / "ca_chain.pem").read_bytes())


RUNTIME = b'{"keys":[]}'


def _hcl(*, signature: bytes = b"HCLA", size: int | None = None, kind: int = 2, hash_type: int = 1) -> bytes:
    body = bytes(REPORT_SIZE) + struct.pack("<IIIII", 20 + len(RUNTIME), 1, kind, hash_type, len(RUNTIME)) + RUNTIME
    return struct.pack("<4sIIII12s", signature, 2, 32 + len(body) if size is None else size, 2, 0, bytes(12)) + body


def test_an_hcl_report_states_what_report_data_must_be() -> None:
    parsed = HclReport.parse(_hcl() + bytes(100))
    assert parsed.runtime_data == RUNTIME
    assert parsed.report == bytes(REPORT_SIZE)
    assert parsed.expected_report_data == hashlib.sha256(RUNTIME).digest() + bytes(32)
    assert HclReport.parse(_hcl(hash_type=2)).expected_report_data == hashlib.sha384(RUNTIME).digest() + bytes(16)
    assert HclReport.parse(_hcl(hash_type=3)).expected_report_data == hashlib.sha512(RUNTIME).digest()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        _hcl()[:-1],
        _hcl() + b"\x01",
        _hcl(signature=b"HCLB"),
        _hcl(size=5),
        _hcl(kind=4),
        _hcl(hash_type=4),
        _hcl().replace(struct.pack("<I", len(RUNTIME)) + RUNTIME, struct.pack("<I", 1 << 20) + RUNTIME),
    ],
)
def test_a_malformed_hcl_report(data: bytes) -> None:
    with pytest.raises(MalformedError):
        HclReport.parse(data)


def test_published_hcl_reports_bind_their_runtime_data(vectors: Path) -> None:
    for name in ("milan-v3-azure-hcl", "genoa-v3-azure-with-crl"):
        hcl = HclReport.parse((vectors / "snp" / name / "hcl_report.bin").read_bytes())
        assert hcl.report == (vectors / "snp" / name / "report.bin").read_bytes()
        assert hcl.report[0x50:0x90] == hcl.expected_report_data


def test_pem_is_taken_apart() -> None:
    assert certificates_from_pem(b"text\n" + _pem(b"one") + b"more\n" + _pem(b"two" * 100)) == (b"one", b"two" * 100)
    assert certificates_from_pem(_pem(b"one").replace(b"\n", b"\r\n")) == (b"one",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not pem",
        _pem(b"one") + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n",
        b" " * (MAX_PEM_SIZE + 1),
    ],
)
def test_malformed_pem(data: bytes) -> None:
    with pytest.raises(MalformedError):
        certificates_from_pem(data)


def test_the_cache_is_bounded_and_forgets_the_oldest() -> None:
    cache: LruCache[str, int] = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert len(cache) == 2
    cache.put("a", 5)
    assert cache.get("a") == 5
    assert len(cache) == 2
