"""What the judging of one conformance case comes to; `attestation.conformance` compares it with what is expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attestation.types import Json


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of one case.

    Attributes:
        verdict: ``pass``, ``fail``, ``parse``, ``sig-only`` or ``unsupported``.
        codes: finding codes, failing and informing, sorted.
        fields: what was found under the names that ``expected`` uses.
        why: what could not be decided, or empty.
    """

    verdict: str
    codes: tuple[str, ...]
    fields: Mapping[str, Json]
    why: str = ""
