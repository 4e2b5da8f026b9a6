"""Where the law of places comes from: ``packs/jurisdictions/data.json``, generated from `pycountry` and these groups.

Countries are those of ISO 3166-1 (officially assigned alpha-2 codes), subdivisions those of ISO 3166-2, both as
`pycountry` carries them from Debian's ``iso-codes``. Groups of countries are law, not geography: each names its source
and the date on which it was read. Only `python -m policy.gate` needs `pycountry`; who decides reads the data.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A named group of countries.

    Attributes:
        source: the text that says who belongs.
        as_of: the day on which that was read, ISO 8601.
        members: ISO 3166-1 alpha-2 codes.
    """

    source: str
    as_of: str
    members: frozenset[str]


_READ: Final = "2026-11-22"

EU: Final = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()  # noqa: SIM905
)
"""Article 52 TEU, with the accessions and the withdrawal since."""

GROUPS: Final[dict[str, Group]] = {
    "EU": Group(
        source="Treaty on European Union, Article 52; territories with a code of their own are not in it",
        as_of=_READ,
        members=EU,
    ),
    "EEA": Group(
        source="Agreement on the European Economic Area (OJ L 1, 3.1.1994): EU, Iceland, Liechtenstein, Norway",
        as_of=_READ,
        members=EU | {"IS", "LI", "NO"},
    ),
    "EFTA": Group(
        source="Convention establishing the European Free Trade Association (Vaduz, 2001)",
        as_of=_READ,
        members=frozenset({"CH", "IS", "LI", "NO"}),
    ),
    "GDPRADEQUACY": Group(
        source=(
            "Regulation (EU) 2016/679, Article 45, decisions that cover the whole country: AD 2010/625/EU, "
            "AR 2003/490/EC, BR (EU) 2026/179, CH 2000/518/EC, FO 2010/146/EU, GB (EU) 2021/1772 as renewed on "
            "19 December 2025, GG 2003/821/EC, IL 2011/61/EU, IM 2004/411/EC, JE 2008/393/EC, JP (EU) 2019/419, "
            "KR (EU) 2022/254, NZ 2013/65/EU, UY 2012/484/EU"
        ),
        as_of=_READ,
        members=frozenset({"AD", "AR", "BR", "CH", "FO", "GB", "GG", "IL", "IM", "JE", "JP", "KR", "NZ", "UY"}),
    ),
    "GDPRADEQUACYPART": Group(
        source=(
            "Regulation (EU) 2016/679, Article 45, decisions for some organisations of the country only: CA 2002/2/EC "
            "(commercial organisations), US (EU) 2023/1795 (members of the EU-US Data Privacy Framework)"
        ),
        as_of=_READ,
        members=frozenset({"CA", "US"}),
    ),
}
"""Groups by name. A name has three letters or more, or is reserved in ISO 3166-1, so that no country has it."""

COUNTRIES_OF_THEIR_OWN: Final = frozenset(
    {
        *("CN-HK", "CN-MO", "CN-TW"),
        "FI-01",
        *("FR-971", "FR-972", "FR-973", "FR-974", "FR-976"),
        *("FR-BL", "FR-CP", "FR-MF", "FR-NC", "FR-PF", "FR-PM", "FR-TF", "FR-WF"),
        *("NL-AW", "NL-BQ1", "NL-BQ2", "NL-BQ3", "NL-CW", "NL-SX"),
        *("NO-21", "NO-22"),
        *("US-AS", "US-GU", "US-MP", "US-PR", "US-UM", "US-VI"),
    }
)
"""Subdivisions that have a country code too (and Clipperton, FR-CP, which lies outside the EU like most of them).

As a subdivision they would stand in every group of the country that they belong to, which is wrong for most: New
Caledonia is no part of the EU, Svalbard none of the EEA. So only the country's code is known, which is in no group.
"""


def countries() -> frozenset[str]:
    """Every officially assigned alpha-2 code of ISO 3166-1."""
    import pycountry

    return frozenset(country.alpha_2 for country in pycountry.countries)


def subdivisions() -> frozenset[str]:
    """Every code of ISO 3166-2 but those of `COUNTRIES_OF_THEIR_OWN`."""
    import pycountry

    return frozenset(place.code for place in pycountry.subdivisions) - COUNTRIES_OF_THEIR_OWN


def render_jurisdictions() -> str:
    """The text of ``packs/jurisdictions/data.json``.

    Raises:
        ModuleNotFoundError: `pycountry` is not installed.
        ValueError: a group names a country that ISO 3166-1 does not have, or has a country's name.
    """
    known = countries()
    for name, group in GROUPS.items():
        if name in known or not group.members <= known:
            raise ValueError(f"group {name}: {sorted(group.members - known) or name} cannot stand in it")
    head = {
        "version": _READ,
        "source": f"ISO 3166-1 and ISO 3166-2 as in pycountry {version('pycountry')} (Debian iso-codes)",
        "group_sources": {
            name: {"as_of": group.as_of, "source": group.source} for name, group in sorted(GROUPS.items())
        },
    }
    groups = ",\n".join(f'    "{name}": {_set(group.members, 6)}' for name, group in sorted(GROUPS.items()))
    text = json.dumps(head, indent=2).removesuffix("\n}")
    return (
        f'{text},\n  "groups": {{\n{groups}\n  }},\n'
        f'  "countries": {_set(known, 4)},\n  "subdivisions": {_set(subdivisions(), 4)}\n}}\n'
    )


def _set(codes: Iterable[str], indent: int) -> str:
    """A set as Rego reads it fastest: an object whose members are all true."""
    lines = textwrap.wrap(", ".join(f'"{code}":~true' for code in sorted(codes)), 116 - indent, break_on_hyphens=False)
    body = "\n".join(" " * indent + line for line in lines).replace("~", " ")
    return f"{{\n{body}\n{' ' * (indent - 2)}}}"
