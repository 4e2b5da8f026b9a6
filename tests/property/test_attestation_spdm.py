"""SPDM measurements: any bytes give a value or a typed error, and a value gives its bytes back."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import MalformedError, UnsupportedError
from attestation.spdm import dice
from attestation.spdm.abi import (
    GetMeasurements,
    MeasurementBlock,
    Measurements,
    SignedMeasurements,
    parse_record,
    record_to_bytes,
)
from attestation.spdm.opaque import opaque_to_bytes, parse_opaque


@st.composite
def records(draw: st.DrawFn) -> tuple[MeasurementBlock, ...]:
    count = draw(st.integers(0, 12))
    uniform = draw(st.booleans())
    size = draw(st.integers(0, 64))
    order = range(1, count + 1) if uniform else draw(st.permutations(range(1, count + 1)))
    values = st.binary(min_size=size, max_size=size) if uniform else st.binary(max_size=64)
    return tuple(MeasurementBlock(index, draw(st.integers(0, 255)), draw(values)) for index in order)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    slot = draw(st.integers(0, 15))
    blocks = draw(records())
    operation = draw(st.integers(0, 255))
    request = GetMeasurements(
        attributes=1, operation=operation, nonce=draw(st.binary(min_size=32, max_size=32)), slot_id=slot
    )
    response = Measurements(
        total_indices=draw(st.integers(0, 255)) if operation == 0 else 0,
        slot_id=slot,
        block_count=len(blocks),
        record=record_to_bytes(blocks),
        nonce=draw(st.binary(min_size=32, max_size=32)),
        opaque=draw(st.binary(max_size=200)),
        signature=draw(st.binary(min_size=96, max_size=96)),
    )
    return SignedMeasurements(request, response, b"").to_bytes()


@given(messages())
def test_what_was_written_is_read_back(data: bytes) -> None:
    parsed = SignedMeasurements.parse(data)
    assert parsed.to_bytes() == data
    assert SignedMeasurements.parse(parsed.to_bytes()) == parsed
    assert record_to_bytes(parsed.response.blocks) == parsed.response.record


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError, UnsupportedError):
        assert SignedMeasurements.parse(data).to_bytes() == data


@given(messages(), st.data())
def test_any_change_is_a_value_or_an_error(data: bytes, draw: st.DataObject) -> None:
    offset = draw.draw(st.integers(0, len(data) - 1))
    changed = data[:offset] + draw.draw(st.binary(max_size=4)) + data[offset + draw.draw(st.integers(0, 4)) :]
    with contextlib.suppress(MalformedError, UnsupportedError):
        parsed = SignedMeasurements.parse(changed)
        assert parsed.to_bytes() == changed
        assert len(parsed.response.blocks) == parsed.response.block_count


@given(records(), st.data())
def test_the_uniform_shortcut_agrees_with_the_walk(blocks: tuple[MeasurementBlock, ...], draw: st.DataObject) -> None:
    """A record that `Measurements.read` takes without walking is one that the walk takes."""
    record = bytearray(record_to_bytes(blocks))
    if record and draw.draw(st.booleans()):
        record[draw.draw(st.integers(0, len(record) - 1))] = draw.draw(st.integers(0, 255))
    count = draw.draw(st.sampled_from([len(blocks), len(blocks) + 1, max(len(blocks) - 1, 0)]))
    data = (
        GetMeasurements(attributes=1, operation=255, nonce=bytes(32), slot_id=0).to_bytes()
        + bytes((0x11, 0x60, 0, 0, count))
        + len(record).to_bytes(3, "little")
        + bytes(record)
        + bytes(32 + 2 + 96)
    )
    try:
        walked = parse_record(bytes(record), count)
    except MalformedError:
        walked = None
    try:
        taken = SignedMeasurements.parse(data).response.blocks
    except MalformedError:
        taken = None
    assert taken == walked


@given(st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=40), max_size=20))
def test_opaque_fields_are_read_back(fields: dict[int, bytes]) -> None:
    parsed = parse_opaque(opaque_to_bytes(fields))
    assert list(parsed.items()) == list(fields.items())


@given(st.binary(max_size=100))
def test_any_opaque_bytes_are_a_value_or_an_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert opaque_to_bytes(parse_opaque(data)) == data


@given(
    st.binary(min_size=97, max_size=97),
    st.binary(min_size=48, max_size=48),
    st.lists(st.sampled_from(dice.OPERATIONAL_FLAGS), unique=True),
)
def test_firmware_identities_are_read_back(key: bytes, fwid: bytes, flags: list[str]) -> None:
    composite = dice.composite_device_id_to_bytes(device_key=key, fwid=fwid)
    assert dice.parse_composite_device_id(composite) == dice.FirmwareIdentity(fwid, device_key=key)
    info = dice.parse_dice_tcb_info(dice.dice_tcb_info_to_bytes(model="GB100", fwid=fwid, flags=flags))
    assert info == dice.FirmwareIdentity(fwid, flags=tuple(sorted(flags, key=dice.OPERATIONAL_FLAGS.index)))


@given(st.binary(max_size=100), st.integers(0, 120), st.binary(max_size=3))
def test_any_dice_bytes_are_a_value_or_an_error(data: bytes, offset: int, change: bytes) -> None:
    sound = dice.dice_tcb_info_to_bytes(model="GB100", fwid=bytes(48), flags=())
    for der in (data, sound[:offset] + change + sound[offset + len(change) :]):
        with contextlib.suppress(MalformedError):
            assert len(dice.parse_dice_tcb_info(der).fwid) == 48
        with contextlib.suppress(MalformedError):
            assert len(dice.parse_composite_device_id(der).fwid) == 48
