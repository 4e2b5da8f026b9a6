"""The places that the shipped packs know, for whoever checks a name before a broker does."""

from __future__ import annotations

import json
from functools import lru_cache

from policy.sources import PACKS


@lru_cache(maxsize=1)
def known_places() -> frozenset[str]:
    """Countries (ISO 3166-1 alpha-2) and subdivisions (ISO 3166-2) of the shipped ``jurisdictions`` data."""
    data = json.loads((PACKS / "jurisdictions" / "data.json").read_text("utf-8"))
    return frozenset(data["countries"]) | frozenset(data["subdivisions"])
