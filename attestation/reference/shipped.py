"""The table of advisories that comes with this program, unsigned: a start for an operator's own, never a substitute."""

from __future__ import annotations

from importlib import metadata, resources
from typing import Final

SHIPPED: Final = "shipped"
"""What configuration and command line call it."""

_FILE: Final = "amd-sev-snp.toml"


def shipped_advisories() -> tuple[str, bytes]:
    """The shipped table's name, which states the release that it came with, and its bytes."""
    data = resources.files("attestation").joinpath("advisories", _FILE).read_bytes()
    return f"{_FILE} shipped with Keystead {metadata.version('keystead')}", data
