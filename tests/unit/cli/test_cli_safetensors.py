"""The demo's safetensors files: the reference library reads ours, we read its, and defects are refused."""

from __future__ import annotations

import contextlib
import io
import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from keystead.cli.demo.safetensors import SafetensorsError, Tensor, read, write


def _file(header: object, data: bytes = b"", *, length: int | None = None) -> io.BytesIO:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(struct.pack("<Q", len(text) if length is None else length) + text + data)


def _entry(begin: int, end: int, **changes: object) -> dict[str, object]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end], **changes}


def test_the_reference_library_reads_ours() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    file = io.BytesIO()
    write(file, {"b": Tensor("F32", (3, 4), values.tobytes()), "a": Tensor("U8", (2,), b"\x01\x02")})
    loaded = safetensors.numpy.load(file.getvalue())
    assert np.array_equal(loaded["b"], values)
    assert loaded["a"].tolist() == [1, 2]


def test_we_read_the_reference_library() -> None:
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    data = safetensors.numpy.save({"x": values, "y": np.zeros(0, dtype=np.uint8)}, metadata={"format": "np"})
    tensors = read(io.BytesIO(data))
    assert tensors["x"] == Tensor("F16", (2, 3), values.tobytes())
    assert tensors["y"] == Tensor("U8", (0,), b"")


@pytest.mark.parametrize(
    "file",
    [
        io.BytesIO(b"\0\0"),
        _file({}, length=100_000_001),
        _file(b"[]"),
        _file(b"{nonsense"),
        _file({"a": _entry(0, 4)}, b"abc"),
        _file({"a": _entry(0, 4)}, b"abcde"),
        _file({"a": _entry(1, 4)}, b"abcd"),
        _file({"a": _entry(0, 2), "b": _entry(1, 4)}, b"abcd"),
        _file({"a": _entry(0, 4, dtype="F32", shape=[2])}, b"abcd"),
        _file({"a": _entry(0, 4, dtype="F1")}, b"abcd"),
        _file({"a": _entry(0, 4, shape="4")}, b"abcd"),
        _file({"a": _entry(0, 4, data_offsets=[0, 4.0])}, b"abcd"),
        _file({"a": 1}, b""),
    ],
    ids=[
        "no-header", "header-too-long", "array", "not-json", "data-cut", "data-extended", "hole", "overlap",
        "shape-too-small", "unknown-dtype", "shape-text", "offset-float", "entry-number",
    ],
)  # fmt: skip
def test_defects_are_refused(file: io.BytesIO) -> None:
    with pytest.raises(SafetensorsError):
        read(file)


def test_a_tensor_with_too_few_bytes_is_not_written() -> None:
    with pytest.raises(SafetensorsError, match="asks for 8"):
        write(io.BytesIO(), {"a": Tensor("F32", (2,), b"abcd")})


@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_an_error(data: bytes) -> None:
    with contextlib.suppress(SafetensorsError):
        assert isinstance(read(io.BytesIO(data)), dict)


@given(st.dictionaries(st.text(min_size=1, max_size=8).filter("__metadata__".__ne__), st.binary(max_size=40)))
def test_what_is_written_is_read_back(contents: dict[str, bytes]) -> None:
    tensors = {name: Tensor("U8", (len(data),), data) for name, data in contents.items()}
    file = io.BytesIO()
    write(file, tensors)
    file.seek(0)
    assert read(file) == tensors
