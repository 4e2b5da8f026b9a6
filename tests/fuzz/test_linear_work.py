"""Work grows no faster than input: bombs are refused by a named limit, and long inputs cost in proportion.

Nothing here is timed. Calls and lines of Python are counted (`sys.settrace` counts what a loop does, too), the peak of
memory is measured, and what runs in C is bounded by limits that stand in the message of the refusal.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from types import FrameType
from typing import Any

import fuzz_seeds as seeds
import pytest
from fuzz_target import Target
from fuzz_targets import TARGETS

from attestation import ocsp, pem
from attestation.errors import MalformedError
from attestation.nvgpu.abi import GpuEvidence
from attestation.reference.values import parse_reference_values
from attestation.rim import xml
from attestation.rim.verify import parse_rim
from attestation.snp import cert_table, endorsements
from attestation.snp.certificate import MAX_CERTIFICATE_SIZE, AmdCertificate
from attestation.spdm import dice
from attestation.spdm.abi import parse_record
from attestation.spdm.opaque import parse_opaque
from keystead import binding, toml
from policy import bundle, documents
from sealed.manifest import MAX_MANIFEST, Manifest

BY_NAME = {target.name: target for target in TARGETS}


def outcome(run: Callable[[bytes], object], data: bytes) -> str:
    """What refuses `data`; empty where nothing does."""
    try:
        run(data)
    except Exception as error:  # noqa: BLE001 - its type and text are what the tests look at
        return f"{type(error).__name__}: {error}"
    return ""


def lines_of(run: Callable[[bytes], object], data: bytes) -> int:
    """Lines and calls of Python that `run` takes for `data`."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        outcome(run, data)
    finally:
        sys.settrace(before)
    return count


def peak_of(run: Callable[[bytes], object], data: bytes) -> int:
    """Bytes that `run` holds at most for `data`."""
    tracemalloc.start()
    try:
        outcome(run, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# XML: refused by looking at the bytes, before libxml2 sees any.

BILLION_LAUGHS = (
    b'<!DOCTYPE l [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(12))
    + b"]><l>&m;</l>"
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (BILLION_LAUGHS, "a document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "a document type"),
        (b'<!DOCTYPE a [<!ENTITY % b SYSTEM "http://localhost/"> %b;]><a/>', "a document type"),
        (b"<a>" + b"<![CDATA[x]]>" * 1000 + b"</a>", "CDATA"),
        (b"<a><?p " + b"x" * 1000 + b"?></a>", "processing instruction"),
        (b"<a>" * 10_000, str(xml.MAX_ELEMENTS)),
        (b"<a>" * 100 + b"</a>" * 100, f"more than {xml.MAX_DEPTH} deep"),
        (b"<a>" + b"<b/>" * (2 * xml.MAX_ELEMENTS) + b"</a>", f"more than {xml.MAX_ELEMENTS} elements"),
        (b"<a " + b"".join(b"b%d='' " % n for n in range(5000)) + b"/>", f"more than {xml.MAX_MARKUP_SIZE} bytes"),
        (b"<a>" + b"x" * (2 * xml.MAX_MARKUP_SIZE) + b"</a>", f"more than {xml.MAX_MARKUP_SIZE} bytes"),
        (b"<a>" + b" " * xml.MAX_DOCUMENT_SIZE + b"</a>", f"at most {xml.MAX_DOCUMENT_SIZE}"),
        (b"\xff\xfe<\0a\0/\0>\0", "NUL"),
    ],
)
def test_xml_bombs_are_refused_before_they_are_parsed(data: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("libxml2 was given the bomb")

    monkeypatch.setattr(xml.etree, "fromstring", never)
    with pytest.raises(MalformedError, match=re.escape(said)):
        parse_rim(data)


def test_xml_that_is_within_the_limits_is_parsed() -> None:
    """So that the test above does not pass because everything is refused."""
    assert xml.parse_xml(b"<a>" + b"<b c='d'>e</b>" * 1000 + b"</a>", "x").tag == "a"


# DER: nested, long, and with integers as long as they can be.


def tlv(tag: int, content: bytes) -> bytes:
    """One DER value."""
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def nested(depth: int, tag: int = 0x30) -> bytes:
    """Sequences in one another."""
    data = b""
    for _ in range(depth):
        data = tlv(tag, data)
    return data


DER_PARSERS = {
    "certificate": lambda data: AmdCertificate.parse(data, what="certificate"),
    "leaf": endorsements.VekCertificate.parse,
    "CRL": endorsements.crl_content,
    "OCSP": lambda data: ocsp.OcspResponses.parse([data]),
    "CompositeDeviceID": dice.parse_composite_device_id,
    "DiceTcbInfo": dice.parse_dice_tcb_info,
    "chain": BY_NAME["attestation.x509-chain"].run,
}
DER_BOMBS = {
    "nested": nested(2000),
    "nested sets": nested(2000, 0x31),
    "nested explicit": nested(2000, 0xA0),
    "integer": tlv(0x30, tlv(0x30, tlv(0x02, b"\x7f" * 6000))),
    "identifier": tlv(0x30, tlv(0x30, tlv(0x06, b"\x8f" * 6000 + b"\x01"))),
    "length": b"\x30\x88" + b"\x7f" + b"\xff" * 7,
    "indefinite": b"\x30\x80" * 3000,
    "many": tlv(0x30, tlv(0x30, b"\x05\x00") * 1000),
}


@pytest.mark.parametrize("parser", DER_PARSERS)
@pytest.mark.parametrize("bomb", DER_BOMBS)
def test_der_bombs_are_refused_and_cost_little(parser: str, bomb: str) -> None:
    data = DER_BOMBS[bomb]
    if parser == "chain":
        data = seeds.joined(data)
    refused = outcome(DER_PARSERS[parser], data)
    if parser == "chain" and not refused:
        pytest.fail("a chain of one bomb is a chain")
    assert refused.startswith("MalformedError: "), refused
    assert len(refused) < 600
    assert peak_of(DER_PARSERS[parser], data) < 64 * len(data) + 200_000


@pytest.mark.parametrize(
    ("parser", "limit"),
    [
        ("certificate", MAX_CERTIFICATE_SIZE),
        ("leaf", MAX_CERTIFICATE_SIZE),
        ("CRL", endorsements.MAX_CRL_SIZE),
        ("OCSP", ocsp.MAX_RESPONSE_SIZE),
    ],
)
def test_long_der_is_refused_by_its_length_alone(parser: str, limit: int) -> None:
    assert str(limit) in outcome(DER_PARSERS[parser], nested(3) + bytes(limit))


# Everything with a length: a named limit stands in the refusal.


@pytest.mark.parametrize(
    ("run", "data", "said"),
    [
        (pem.certificates_from_pem, b"-----BEGIN CERTIFICATE-----\n" * 20_000, str(pem.MAX_PEM_SIZE)),
        (cert_table.parse_cert_table, bytes(cert_table.MAX_TABLE_SIZE + 1), str(cert_table.MAX_TABLE_SIZE)),
        (Manifest.parse, b" " * (MAX_MANIFEST + 1), str(MAX_MANIFEST)),
        (
            lambda data: documents.read_json_object(data, what="x"),
            b" " * (documents.MAX_DOCUMENT + 1),
            str(documents.MAX_DOCUMENT),
        ),
        (
            lambda data: binding.decode_list(data, what="list"),
            struct.pack(">I", 1 << 31) + bytes(4 << 10),
            "at most 4096",
        ),
        (bundle.Bundle.load, bytes(bundle.MAX_COMPRESSED + 1), str(bundle.MAX_COMPRESSED)),
        (bundle.Bundle.load, gzip.compress(bytes(bundle.MAX_CONTENTS + 1)), str(bundle.MAX_CONTENTS)),
        (
            lambda data: parse_reference_values(data, name="x"),
            b"a." * 2000 + b"a = 1",
            f"more than {toml.MAX_DOTS} dots",
        ),
    ],
)
def test_a_limit_is_named(run: Callable[[bytes], object], data: bytes, said: str) -> None:
    assert said in outcome(run, data)


def test_a_tarball_never_takes_more_memory_than_its_limit() -> None:
    """256 MiB of zeros in 260 KB."""
    deflate = zlib.compressobj(9, wbits=31)
    bomb = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(256)) + deflate.flush()
    assert len(bomb) < 300_000
    assert peak_of(bundle.Bundle.load, bomb) < 4 * bundle.MAX_CONTENTS


# What is not refused at once costs in proportion: eight times the input, no more than about eight times the work.


def repeated(name: str, unit: Callable[[int], bytes]) -> Any:
    """Inputs of `unit` for target `name`."""
    return pytest.param(BY_NAME[name], unit, id=f"{name}-{unit.__name__}")


def json_lists(n: int) -> bytes:
    return b"[" * n


def json_objects(n: int) -> bytes:
    return b'{"a":' * n


def json_many(n: int) -> bytes:
    return json.dumps({f"k{index}": index for index in range(n)}).encode()


def json_digits(n: int) -> bytes:
    return b'{"a":' + b"9" * n + b"}"


def toml_tables(n: int) -> bytes:
    return b"".join(b"[t%d.a.b]\nx = 1\n" % index for index in range(n))


def toml_one_table(n: int) -> bytes:
    return b"[" + b"a." * 100 + b"a]\n" + b"".join(b"k%d = 1\n" % index for index in range(n))


def toml_dotted(n: int) -> bytes:
    return b"".join(b"a." * 100 + b"k%d = 1\n" % index for index in range(n // 16))


def toml_key(n: int) -> bytes:
    return b"a." * n + b"a = 1"


def toml_header(n: int) -> bytes:
    return b"[" + b"a." * n + b"a]"


def toml_arrays(n: int) -> bytes:
    return b"a = [" + b"1," * n + b"]"


def toml_spaces(n: int) -> bytes:
    return b"a" + b" " * n


def toml_quotes(n: int) -> bytes:
    return b'a = "' + b"\\u0041" * n


def spdm_blocks(n: int) -> bytes:
    count = min(n, 255)
    return bytes((count,)) + b"".join(bytes((index % 254 + 1, 1, 3, 0, 0, 0, 0)) for index in range(count))


def opaque_fields(n: int) -> bytes:
    return b"".join(struct.pack("<HH", index % 65536, 1) + b"x" for index in range(n))


def pem_blocks(n: int) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * n


def pem_begins(n: int) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\nAA" * n


def pem_spaces(n: int) -> bytes:
    return b"-----BEGIN CERTIFICATE-----" + b" \t" * n + b"\n"


def note_signatures(n: int) -> bytes:
    return b"text\n\n" + "— a AAAAAAAA\n".encode() * n


def note_lines(n: int) -> bytes:
    return b"\n\n" * n


def tile_entries(n: int) -> bytes:
    return b"\0\1x" * n


def xml_elements(n: int) -> bytes:
    return b"<a>" + b"<b c='d'/>" * n + b"</a>"


def xml_namespaces(n: int) -> bytes:
    return b"<a>" + b"".join(b"<b xmlns:p%d='urn:%d'/>" % (index, index) for index in range(n)) + b"</a>"


def tar_entries(n: int) -> bytes:
    return b"".join(seeds.tarballs()[0][:512] for _ in range(n))


def tar_long_names(n: int) -> bytes:
    return seeds.tarballs()[2][:512].replace(b"0" * 7, b"L" * 7) * n


def listed(n: int) -> bytes:
    return binding.encode_list([b"x"] * min(n, 4096))


def certificates(n: int) -> bytes:
    return seeds.joined(*[b"\x30\x03\x02\x01\x01"] * n)


LINEAR = [
    *(
        repeated(name, unit)
        for name in (
            "policy.document",
            "policy.decision",
            "audit.record",
            "audit.proof",
            "sealed.manifest",
            "attester.grant-file",
            "attestation.conformance-manifest",
            "attestation.reference-values",
            "attestation.advisories",
            "attestation.ear-payload",
            "keybroker.appraisal",
            "cli.description",
            "cli.draft",
        )
        for unit in (json_lists, json_objects, json_many, json_digits)
    ),
    *(
        repeated(name, unit)
        for name in ("keystead.toml", "attestation.reference-values", "keybroker.config", "cli.profile")
        for unit in (
            toml_tables,
            toml_one_table,
            toml_dotted,
            toml_key,
            toml_header,
            toml_arrays,
            toml_spaces,
            toml_quotes,
        )
    ),
    repeated("attestation.spdm-record", spdm_blocks),
    repeated("attestation.spdm-opaque", opaque_fields),
    repeated("attestation.pem", pem_blocks),
    repeated("attestation.pem", pem_begins),
    repeated("attestation.pem", pem_spaces),
    repeated("attestation.rim", xml_elements),
    repeated("attestation.rim", xml_namespaces),
    repeated("attestation.x509-chain", certificates),
    repeated("audit.note", note_signatures),
    repeated("audit.note", note_lines),
    repeated("audit.tiles", tile_entries),
    repeated("policy.bundle-tar", tar_entries),
    repeated("policy.bundle-tar", tar_long_names),
    repeated("keystead.encoding", listed),
]


@pytest.mark.parametrize(("target", "unit"), LINEAR)
def test_work_and_memory_grow_no_faster_than_the_input(target: Target, unit: Callable[[int], bytes]) -> None:
    small, large = unit(200), unit(1600)
    target(small)  # what is made once, caches among it, is made here
    target(large)
    growth = max(8.0, len(large) / len(small))
    assert lines_of(target.run, large) <= 1.5 * growth * lines_of(target.run, small) + 500
    assert peak_of(target.run, large) <= 2 * growth * peak_of(target.run, small) + 200_000


def test_the_measure_sees_what_grows_with_the_square() -> None:
    """The standard library's reader keeps every prefix of a dotted key: without the limit the test above would fail."""
    import tomllib

    def run(data: bytes) -> None:
        tomllib.loads(data.decode())

    assert peak_of(run, toml_key(1600)) > 3 * 8 * peak_of(run, toml_key(200))


def test_records_that_state_more_than_they_hold_cost_nothing() -> None:
    """A count or length in the data is compared with what is there before anything is made for it."""
    for run, data in (
        (lambda data: parse_record(data, 255), b"\1\1\xff\xff" * 4),
        (parse_opaque, b"\1\0\xff\xff"),
        (GpuEvidence.parse, seeds.gpu_reports()[0][:40] + b"\xff" * 40),
    ):
        assert outcome(run, data).startswith(("MalformedError", "UnsupportedError"))
        assert peak_of(run, data) < 100_000
