"""The places and groups that packs know are those of ISO 3166, and no territory hides behind its country."""

from __future__ import annotations

import json

import pycountry
import pytest

from policy import jurisdictions
from policy.gate import JURISDICTIONS
from policy.jurisdictions import COUNTRIES_OF_THEIR_OWN, GROUPS, Group, render_jurisdictions
from policy.places import known_places

DATA = json.loads(JURISDICTIONS.read_text("utf-8"))


def test_the_shipped_data_are_what_the_library_says() -> None:
    assert JURISDICTIONS.read_text("utf-8") == render_jurisdictions()
    assert DATA["countries"].keys() == {country.alpha_2 for country in pycountry.countries}
    assert DATA["subdivisions"].keys() == {place.code for place in pycountry.subdivisions} - COUNTRIES_OF_THEIR_OWN
    assert known_places() == DATA["countries"].keys() | DATA["subdivisions"].keys()


def test_every_group_has_a_source_and_a_date() -> None:
    assert DATA["groups"].keys() == DATA["group_sources"].keys() == GROUPS.keys()
    for name, group in GROUPS.items():
        assert DATA["group_sources"][name] == {"as_of": group.as_of, "source": group.source}
        assert DATA["groups"][name].keys() == group.members
    assert GROUPS["EU"].members < GROUPS["EEA"].members
    assert not GROUPS["GDPRADEQUACY"].members & GROUPS["GDPRADEQUACYPART"].members
    assert not GROUPS["GDPRADEQUACY"].members & GROUPS["EEA"].members


def test_places_with_a_code_of_their_own_are_known_by_that_alone() -> None:
    codes = {place.code: place for place in pycountry.subdivisions}
    assert codes.keys() >= COUNTRIES_OF_THEIR_OWN
    countries = {country.name.casefold(): country.alpha_2 for country in pycountry.countries}
    for place in pycountry.subdivisions:
        # Those that are spelt as a country are found here; the others stand in the list by hand. Mali in Guinea is
        # a prefecture of its own.
        code = countries.get(place.name.casefold())
        if code == place.code.partition("-")[2] and code != place.country_code and place.code != "GN-ML":
            assert place.code in COUNTRIES_OF_THEIR_OWN, place


def test_a_group_of_unknown_countries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, members in (("NEW", {"XX"}), ("DE", {"FR"})):
        group = Group(source="s", as_of="2026-01-01", members=frozenset(members))
        with monkeypatch.context() as patch, pytest.raises(ValueError, match=name):
            patch.setattr(jurisdictions, "GROUPS", {name: group})
            render_jurisdictions()
