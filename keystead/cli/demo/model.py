"""The demo's model: a safetensors file made on the spot, with the tensor names of a small language model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from keystead.cli.demo.safetensors import ITEM_SIZES, Tensor, write

FILE_NAME: Final = "model.safetensors"
_LAYERS: Final = 4


def make_tensors() -> dict[str, Tensor]:
    """Some 32 MiB of tensors: names and shapes as in a small language model, content without meaning."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {"model.embed_tokens.weight": ("BF16", (8_192, 512))}
    for layer in range(_LAYERS):
        shapes[f"model.layers.{layer}.self_attn.weight"] = ("BF16", (1_024, 1_024))
        shapes[f"model.layers.{layer}.mlp.weight"] = ("BF16", (1_024, 1_024))
    shapes["model.norm.weight"] = ("F32", (512,))
    shapes["lm_head.weight"] = ("BF16", (8_192, 512))
    return {name: _tensor(name, dtype, shape) for name, (dtype, shape) in shapes.items()}


def write_model(file: Path, tensors: dict[str, Tensor]) -> int:
    """Write the model's file; returns its size in bytes."""
    with file.open("wb") as sink:
        write(sink, tensors)
    return file.stat().st_size


def _tensor(name: str, dtype: str, shape: tuple[int, ...]) -> Tensor:
    size = ITEM_SIZES[dtype]
    for length in shape:
        size *= length
    # An extendable hash fills a tensor with bytes that are the same on every run and compress as badly as weights do.
    return Tensor(dtype, shape, hashlib.shake_128(name.encode("utf-8")).digest(size))
