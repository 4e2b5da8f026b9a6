"""SPDM measurements: every rule of the structure, on bytes that break exactly one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attestation.errors import MalformedError, UnsupportedError
from attestation.spdm import abi
from attestation.spdm.abi import (
    GetMeasurements,
    MeasurementBlock,
    Measurements,
    SignedMeasurements,
    parse_record,
    record_to_bytes,
)

NONCE = bytes(range(32))
BLOCKS = tuple(MeasurementBlock(index, 1, bytes([index]) * 48) for index in range(1, 5))


def message(blocks: tuple[MeasurementBlock, ...] = BLOCKS, *, operation: int = 0xFF, **changes: object) -> bytes:
    request = GetMeasurements(attributes=1, operation=operation, nonce=NONCE, slot_id=0)
    response = Measurements(
        total_indices=0,
        slot_id=0,
        block_count=len(blocks),
        record=record_to_bytes(blocks),
        nonce=NONCE[::-1],
        opaque=b"opaque",
        signature=b"\x01" * 48 + b"\x02" * 48,
    )
    return SignedMeasurements(request, replace(response, **changes), b"").to_bytes()  # type: ignore[arg-type]


def test_reads_every_field() -> None:
    data = message()
    parsed = SignedMeasurements.parse(data)
    assert parsed.request == GetMeasurements(attributes=1, operation=0xFF, nonce=NONCE, slot_id=0)
    assert parsed.response.blocks == BLOCKS
    assert parsed.response.nonce == NONCE[::-1]
    assert parsed.response.opaque == b"opaque"
    assert parsed.signed == data[:-96]
    assert (parsed.r, parsed.s) == (int.from_bytes(b"\x01" * 48, "big"), int.from_bytes(b"\x02" * 48, "big"))
    assert parsed.to_bytes() == data


def test_request_layout() -> None:
    assert message()[:37] == bytes.fromhex("11e001ff") + NONCE + b"\0"


def test_every_truncation_is_malformed() -> None:
    data = message()
    for size in range(len(data)):
        with pytest.raises(MalformedError):
            SignedMeasurements.parse(data[:size])


def test_trailing_byte_is_malformed() -> None:
    with pytest.raises(MalformedError, match="1 trailing bytes"):
        SignedMeasurements.parse(message() + b"\0")


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (1, 0xE1, "message code 0xe1"),
        (2, 0x00, "must ask for a signature"),
        (2, 0x03, "must ask for a signature"),
        (36, 0x10, "SlotIDParam has reserved bits"),
        (36, 0x01, "Param2 answers for slot 0, asked was slot 1"),
        (38, 0x61, "message code 0x61"),
        (39, 0x04, "Param1 is reserved"),
        (40, 0x80, "Param2 has reserved bits"),
        (41, 3, "55 bytes after the last block"),
        (41, 5, "block 5 of 5 is cut short"),
        (45, 2, "indices are not 1 to 4"),
        (45, 0, "indices are not 1 to 4"),
        (46, 2, "MeasurementSpecification 0x02"),
        (47, 52, "MeasurementSize 52 does not hold a value of 48 bytes"),
        (50, 47, "MeasurementSize 51 does not hold a value of 47 bytes"),
    ],
)
def test_one_bad_byte_is_malformed(offset: int, value: int, reason: str) -> None:
    data = bytearray(message())
    data[offset] = value
    with pytest.raises(MalformedError, match=reason):
        SignedMeasurements.parse(bytes(data))


@pytest.mark.parametrize("offset", [0, 37])
def test_other_spdm_versions_are_unsupported(offset: int) -> None:
    data = bytearray(message())
    data[offset] = 0x12
    with pytest.raises(UnsupportedError, match=r"SPDM version 1\.2"):
        SignedMeasurements.parse(bytes(data))


def test_total_indices_answer_only_their_own_operation() -> None:
    data = message((), operation=0, total_indices=64)
    assert SignedMeasurements.parse(data).response.total_indices == 64


def test_value_longer_than_the_record_is_malformed() -> None:
    record = bytearray(record_to_bytes(BLOCKS[:1]))
    record[2:4] = (300).to_bytes(2, "little")
    record[5:7] = (297).to_bytes(2, "little")
    with pytest.raises(MalformedError, match="value of 297 bytes, 48 left"):
        parse_record(bytes(record), 1)


def test_blocks_of_different_sizes_and_any_order_are_read() -> None:
    blocks = (MeasurementBlock(2, 0x81, b"raw"), MeasurementBlock(1, 1, bytes(48)), MeasurementBlock(3, 3, b""))
    assert SignedMeasurements.parse(message(blocks)).response.blocks == blocks


def test_a_record_of_more_than_two_bytes_of_length_is_read() -> None:
    blocks = tuple(MeasurementBlock(index, 1, bytes([index]) * 700) for index in range(1, 201))
    data = message(blocks)
    assert data[44] == 2, "the third byte of the length"
    assert SignedMeasurements.parse(data).response.blocks == blocks


def test_a_single_huge_block_is_walked() -> None:
    with pytest.raises(MalformedError):
        SignedMeasurements.parse(message(BLOCKS[:1], record=bytes(70_000)))


def test_uniform_shortcut_accepts_only_what_the_walk_accepts() -> None:
    """Every single-byte change of a uniform record: the shortcut never says yes where the walk says no."""
    record = record_to_bytes(BLOCKS)
    assert abi._is_uniform(record, 4)
    for offset in range(len(record)):
        for value in (0, 1, 2, 51, 255):
            changed = record[:offset] + bytes([value]) + record[offset + 1 :]
            if abi._is_uniform(changed, 4):
                assert parse_record(changed, 4)
    for count in (0, 1, 2, 3, 5, 8):
        assert not abi._is_uniform(record, count)


def test_fields_too_long_for_their_prefix_cannot_be_written() -> None:
    with pytest.raises(OverflowError):
        message(opaque=bytes(1 << 16))


def test_finds_one_byte_after_the_signature() -> None:
    data = message()
    assert not SignedMeasurements.has_one_byte_after(data)
    assert SignedMeasurements.has_one_byte_after(data + b"x")
    assert not SignedMeasurements.has_one_byte_after(data + b"xx")
    long = message(BLOCKS[:1], record=bytes(0x2_0001))
    assert not SignedMeasurements.has_one_byte_after(long)
    assert SignedMeasurements.has_one_byte_after(long + b"x")


@pytest.mark.vectors
def test_published_evidence_round_trips(vectors: Path) -> None:
    reports = sorted([*vectors.glob("nvidia/*/report.bin"), *vectors.glob("nvswitch/*/report.bin")])
    assert reports
    for report in reports:
        data = report.read_bytes()
        if SignedMeasurements.has_one_byte_after(data):
            data = data[:-1]
        assert SignedMeasurements.parse(data).to_bytes() == data
