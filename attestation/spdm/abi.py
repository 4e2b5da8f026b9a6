"""What the bytes of GET_MEASUREMENTS and MEASUREMENTS say (DMTF DSP0274 1.1.0, section 10.11).

NVIDIA's drivers hand out evidence as the request followed by its response. Integers are little-endian. The
signature is the 96 bytes at the end, raw r‖s of ECDSA P-384, over every byte before it: SPDM 1.1 signs the hash of
request and response alone (section 10.11.2), later versions sign more of the transcript and are not read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from attestation.errors import MalformedError, UnsupportedError
from attestation.wire import Reader

SPDM_VERSION_1_1: Final = 0x11
REQUEST_CODE_GET_MEASUREMENTS: Final = 0xE0
RESPONSE_CODE_MEASUREMENTS: Final = 0x60
REQUEST_SIZE: Final = 37
NONCE_SIZE: Final = 32
SIGNATURE_SIZE: Final = 96
COORDINATE_SIZE: Final = SIGNATURE_SIZE // 2

ATTRIBUTE_SIGNATURE_REQUESTED: Final = 0x01
OPERATION_ALL_MEASUREMENTS: Final = 0xFF
OPERATION_TOTAL_INDICES: Final = 0x00
MEASUREMENT_SPECIFICATION_DMTF: Final = 0x01
RAW_BIT_STREAM: Final = 0x80
"""Bit 7 of DMTFSpecMeasurementValueType: set for a raw bit stream, clear for a digest."""

_SLOT_RESERVED: Final = 0xF0
_BLOCK_HEADER: Final = struct.Struct("<BBHBH")
_REQUEST_LAYOUT: Final = struct.Struct("<BBBB32sB")
_RESPONSE_LAYOUT: Final = struct.Struct("<BBBBBHB")
"""Up to MeasurementRecordLength, whose 24 bits are the last two values."""
_NONCE_LAYOUT: Final = struct.Struct("<32sH")
_BLOCK_PREFIX_SIZE: Final = 4
_DMTF_PREFIX_SIZE: Final = 3
_MAX_BLOCK_SIZE: Final = _BLOCK_PREFIX_SIZE + 0xFFFF
_ASCENDING: Final = bytes(range(1, 256))
_REQUEST: Final = "SPDM GET_MEASUREMENTS"
_RESPONSE: Final = "SPDM MEASUREMENTS"


class MeasurementBlock(NamedTuple):
    """One measurement block with the DMTF measurement inside it (DSP0274 1.1.0, tables 44 and 45).

    A named tuple, because evidence carries 64 and they are built whenever it is verified.

    Attributes:
        number: Index, 1 to the number of blocks.
        value_type: DMTFSpecMeasurementValueType; bit 7 set for a raw bit stream, bits 6:0 say what was measured.
        value: the digest or the raw bit stream.
    """

    number: int
    value_type: int
    value: bytes


@dataclass(frozen=True, slots=True)
class GetMeasurements:
    """GET_MEASUREMENTS request (DSP0274 1.1.0, table 41), always with nonce and slot because a signature was asked for.

    Attributes:
        attributes: Param1; bit 0 set where the responder is to sign.
        operation: Param2; 0xFF asks for every measurement, 0 for their number, anything else for one.
        nonce: 32 bytes chosen by the requester.
        slot_id: certificate slot whose key signs, 0 to 15.
    """

    attributes: int
    operation: int
    nonce: bytes
    slot_id: int

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """The request at the front of `reader`.

        Raises:
            MalformedError: too short, another request code, no signature asked for, or reserved bits set.
            UnsupportedError: an SPDM version other than 1.1.
        """
        version, code, attributes, operation, nonce, slot_id = _REQUEST_LAYOUT.unpack(
            reader.take(REQUEST_SIZE, "GET_MEASUREMENTS")
        )
        _check_header(_REQUEST, version=version, code=code, expected_code=REQUEST_CODE_GET_MEASUREMENTS)
        if attributes != ATTRIBUTE_SIGNATURE_REQUESTED:
            raise MalformedError(_REQUEST, f"Param1 must ask for a signature (0x01), found {attributes:#04x}", offset=2)
        if slot_id & _SLOT_RESERVED:
            raise MalformedError(_REQUEST, f"SlotIDParam has reserved bits set: {slot_id:#04x}", offset=36)
        return cls(attributes=attributes, operation=operation, nonce=nonce, slot_id=slot_id)

    def to_bytes(self) -> bytes:
        """The 37 bytes on the wire."""
        header = bytes((SPDM_VERSION_1_1, REQUEST_CODE_GET_MEASUREMENTS, self.attributes, self.operation))
        return header + self.nonce + bytes((self.slot_id,))


@dataclass(frozen=True, slots=True)
class Measurements:
    """MEASUREMENTS response (DSP0274 1.1.0, table 43).

    Attributes:
        total_indices: Param1; how many indices the device has, zero unless the request's operation asked for it.
        slot_id: Param2; certificate slot whose key signed.
        block_count: NumberOfBlocks.
        record: MeasurementRecord, still encoded; `blocks` takes it apart.
        nonce: 32 bytes chosen by the responder.
        opaque: the vendor's own data, still encoded (NVIDIA: `attestation.spdm.opaque`).
        signature: raw r‖s, 48 bytes each, big-endian.
    """

    total_indices: int
    slot_id: int
    block_count: int
    record: bytes
    nonce: bytes
    opaque: bytes
    signature: bytes

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """The response at the front of `reader`.

        Raises:
            MalformedError: too short, another response code, reserved bits set, or a measurement record that its
                blocks do not fill exactly with indices 1 to their number.
            UnsupportedError: an SPDM version other than 1.1.
        """
        version, code, total_indices, slot_id, count, low, high = _RESPONSE_LAYOUT.unpack(
            reader.take(_RESPONSE_LAYOUT.size, "MEASUREMENTS header")
        )
        _check_header(_RESPONSE, version=version, code=code, expected_code=RESPONSE_CODE_MEASUREMENTS)
        if slot_id & _SLOT_RESERVED:
            raise MalformedError(_RESPONSE, f"Param2 has reserved bits set: {slot_id:#04x}", offset=3)
        record = reader.take(low | high << 16, "MeasurementRecord")
        if not _is_uniform(record, count):
            parse_record(record, count)
        nonce, opaque_size = _NONCE_LAYOUT.unpack(reader.take(_NONCE_LAYOUT.size, "Nonce and OpaqueLength"))
        opaque = reader.take(opaque_size, "OpaqueData")
        signature = reader.take(SIGNATURE_SIZE, "Signature")
        return cls(total_indices, slot_id, count, record, nonce, opaque, signature)

    @property
    def blocks(self) -> tuple[MeasurementBlock, ...]:
        """The measurement blocks in the order of the wire.

        Raises:
            MalformedError: the record is not that; never for a response that was parsed.
        """
        return parse_record(self.record, self.block_count)

    def to_bytes(self) -> bytes:
        """The response on the wire, signature included.

        Raises:
            OverflowError: a field is too long for its length prefix.
        """
        header = (SPDM_VERSION_1_1, RESPONSE_CODE_MEASUREMENTS, self.total_indices, self.slot_id, self.block_count)
        return b"".join(
            (
                bytes(header),
                len(self.record).to_bytes(3, "little"),
                self.record,
                self.nonce,
                len(self.opaque).to_bytes(2, "little"),
                self.opaque,
                self.signature,
            )
        )


@dataclass(frozen=True, slots=True)
class SignedMeasurements:
    """A request with its signed response: one device's evidence.

    Attributes:
        request: what was asked.
        response: what was answered.
        signed: the bytes that the signature covers: everything but the signature.
    """

    request: GetMeasurements
    response: Measurements
    signed: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Request ‖ response, to the last byte of `data`.

        Raises:
            MalformedError: not that structure, bytes follow it, or the response answers another request.
            UnsupportedError: an SPDM version other than 1.1.
        """
        reader = Reader(data, "SPDM measurements")
        request = GetMeasurements.read(reader)
        response = Measurements.read(reader)
        reader.finish()
        if response.slot_id != request.slot_id:
            raise MalformedError(
                _RESPONSE, f"Param2 answers for slot {response.slot_id}, asked was slot {request.slot_id}"
            )
        if response.total_indices and request.operation != OPERATION_TOTAL_INDICES:
            raise MalformedError(
                _RESPONSE, f"Param1 is reserved when measurements were asked for, found {response.total_indices:#04x}"
            )
        return cls(request, response, data[:-SIGNATURE_SIZE])

    @staticmethod
    def has_one_byte_after(data: bytes) -> bool:
        """Do the length fields of `data` end one byte before `data` does? Nothing else is checked.

        Raises:
            MalformedError: the length fields reach beyond `data`.
        """
        reader = Reader(data, "SPDM measurements")
        reader.take(REQUEST_SIZE, "GET_MEASUREMENTS")
        *_, low, high = _RESPONSE_LAYOUT.unpack(reader.take(_RESPONSE_LAYOUT.size, "MEASUREMENTS header"))
        reader.take(low | high << 16, "MeasurementRecord")
        _, opaque_size = _NONCE_LAYOUT.unpack(reader.take(_NONCE_LAYOUT.size, "Nonce and OpaqueLength"))
        reader.take(opaque_size, "OpaqueData")
        return reader.remaining == SIGNATURE_SIZE + 1

    @property
    def r(self) -> int:
        """First half of the signature."""
        return int.from_bytes(self.response.signature[:COORDINATE_SIZE], "big")

    @property
    def s(self) -> int:
        """Second half of the signature."""
        return int.from_bytes(self.response.signature[COORDINATE_SIZE:], "big")

    def to_bytes(self) -> bytes:
        """Request ‖ response."""
        return self.request.to_bytes() + self.response.to_bytes()


def _check_header(structure: str, *, version: int, code: int, expected_code: int) -> None:
    """Refuse another version or message than the one that is parsed."""
    if code != expected_code:
        raise MalformedError(structure, f"message code {code:#04x}, expected {expected_code:#04x}", offset=1)
    if version != SPDM_VERSION_1_1:
        raise UnsupportedError(f"{structure}: SPDM version {version >> 4}.{version & 15}: only 1.1 is read")


def parse_record(record: bytes, count: int) -> tuple[MeasurementBlock, ...]:
    """The `count` measurement blocks that fill `record`.

    Raises:
        MalformedError: a block is cut short or breaks a rule, bytes are left, or the indices are not 1 to `count`.
    """
    unpack, length = _BLOCK_HEADER.unpack_from, len(record)
    blocks: list[tuple[int, int, bytes]] = []
    offset = 0
    for _ in range(count):
        start = offset + _BLOCK_HEADER.size
        if start > length:
            raise MalformedError("MeasurementRecord", f"block {len(blocks) + 1} of {count} is cut short", offset=offset)
        index, specification, size, value_type, value_size = unpack(record, offset)
        offset = start + value_size
        if specification != MEASUREMENT_SPECIFICATION_DMTF or size != value_size + _DMTF_PREFIX_SIZE or offset > length:
            raise _bad_block(start, specification, size, value_size, length)
        blocks.append((index, value_type, record[start:offset]))
    if offset != length:
        raise MalformedError("MeasurementRecord", f"{length - offset} bytes after the last block", offset=offset)
    if {index for index, _, _ in blocks} != set(range(1, count + 1)):
        raise MalformedError("MeasurementRecord", f"indices are not 1 to {count}, each once")
    return tuple(map(MeasurementBlock._make, blocks))


def record_to_bytes(blocks: Iterable[MeasurementBlock]) -> bytes:
    """The measurement record that holds `blocks`.

    Raises:
        struct.error: an index, type or value is longer than its field.
    """
    return b"".join(
        _BLOCK_HEADER.pack(
            block.number,
            MEASUREMENT_SPECIFICATION_DMTF,
            len(block.value) + _DMTF_PREFIX_SIZE,
            block.value_type,
            len(block.value),
        )
        + block.value
        for block in blocks
    )


def _is_uniform(record: bytes, count: int) -> bool:
    """Would `parse_record` accept `record`? Answers True only for blocks of one size in ascending order.

    Every device seen so far sends that, and comparing columns of bytes (all of a block's header but its index and type
    is then the same in every block) costs a tenth of walking the blocks. A record that is not like that is walked.
    """
    stride, left = divmod(len(record), count or 1)
    if left or not count or not _BLOCK_HEADER.size <= stride <= _MAX_BLOCK_SIZE:
        return False
    _, specification, low, high, _, value_low, value_high = _BLOCK_HEADER.pack(
        0, MEASUREMENT_SPECIFICATION_DMTF, stride - _BLOCK_PREFIX_SIZE, 0, stride - _BLOCK_HEADER.size
    )
    return (
        record[::stride] == _ASCENDING[:count]
        and record[1::stride].count(specification) == count
        and record[2::stride].count(low) == count
        and record[3::stride].count(high) == count
        and record[5::stride].count(value_low) == count
        and record[6::stride].count(value_high) == count
    )


def _bad_block(start: int, specification: int, size: int, value_size: int, length: int) -> MalformedError:
    """Say which rule the block whose value begins at `start` breaks."""
    if specification != MEASUREMENT_SPECIFICATION_DMTF:
        problem = f"MeasurementSpecification {specification:#04x}, only DMTF (0x01) is defined"
    elif size != value_size + _DMTF_PREFIX_SIZE:
        problem = f"MeasurementSize {size} does not hold a value of {value_size} bytes"
    else:
        problem = f"value of {value_size} bytes, {length - start} left"
    return MalformedError("MeasurementRecord", problem, offset=start - _BLOCK_HEADER.size)
