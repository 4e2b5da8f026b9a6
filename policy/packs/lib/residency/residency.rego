# METADATA
# title: Residency
# description: |
#   Whether a site lies in an area. A site has a jurisdiction (ISO 3166-1 alpha-2, or ISO 3166-2: `DE-BY`); an area is a
#   jurisdiction, a group of `data.jurisdictions.groups` (`EU`), or `*`. Codes are compared exactly, in capitals.
# related_resources:
#   - ref: https://www.iso.org/iso-3166-country-codes.html
#     description: ISO 3166
package lib.residency

# METADATA
# title: Known area
# description: An area that these rules can judge; a name that nobody knows must not pass as "nowhere".
known(area) if area == "*"

known(area) if is_object(data.jurisdictions.groups[area])

known(area) if place(area)

# METADATA
# title: Place
# description: A country of ISO 3166-1, or a subdivision of ISO 3166-2; a group is no place.
place(jurisdiction) if data.jurisdictions.countries[jurisdiction] == true

place(jurisdiction) if data.jurisdictions.subdivisions[jurisdiction] == true

# METADATA
# title: Permitted
# description: The jurisdiction lies wholly within one of the areas.
permitted(jurisdiction, areas) if {
	place(jurisdiction)
	is_array(areas)
	some area in areas
	_within(jurisdiction, area)
}

# METADATA
# title: Clear
# description: |
#   The jurisdiction cannot lie in any of the areas, all of which are known. A site that names its country alone is not
#   clear of a part of that country.
clear(jurisdiction, areas) if {
	place(jurisdiction)
	is_array(areas)
	every area in areas {
		known(area)
		not _touches(jurisdiction, area)
	}
}

# METADATA
# title: Satisfied
# description: |
#   The jurisdiction lies wholly within some area of every clause of `allowed`, and cannot lie in what is `forbidden`.
satisfied(jurisdiction, areas) if {
	permitted_by_all(jurisdiction, areas.allowed)
	clear(jurisdiction, areas.forbidden)
}

# METADATA
# title: Permitted by all
# description: The jurisdiction lies wholly within some area of every clause; no clause at all permits every place.
permitted_by_all(jurisdiction, clauses) if {
	place(jurisdiction)
	is_array(clauses)
	every clause in clauses {
		permitted(jurisdiction, clause)
	}
}

_within(_, "*")

_within(jurisdiction, area) if jurisdiction == area

_within(jurisdiction, area) if _country(jurisdiction) == area

_within(jurisdiction, area) if data.jurisdictions.groups[area][_country(jurisdiction)] == true

_touches(jurisdiction, area) if _within(jurisdiction, area)

_touches(jurisdiction, area) if _country(area) == jurisdiction

_country(area) := split(area, "-")[0] if is_string(area)
